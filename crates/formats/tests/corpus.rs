//! Files that no reader may stumble over: the fuzz corpus, and mutations of a sound file.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

mod exercise;

use exercise::exercise;

fn corpus() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/gguf")
}

fn sound_file() -> Vec<u8> {
    fs::read(corpus().join("valid-model.gguf")).unwrap()
}

#[test]
fn every_file_of_the_corpus_is_read_or_refused_as_its_name_says() {
    let mut seen = [0, 0];
    for entry in fs::read_dir(corpus()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let read = exercise(&fs::read(&path).unwrap());
        if name.starts_with("valid-") {
            assert!(read, "{name} should be readable");
        } else if name.starts_with("bad-") {
            assert!(!read, "{name} should be refused");
        }
        seen[usize::from(read)] += 1;
    }
    assert!(seen[0] >= 20 && seen[1] >= 3, "the corpus shrank: {seen:?}");
}

#[test]
fn every_truncation_inside_the_header_is_refused() {
    let file = sound_file();
    let data = wushi_formats::Gguf::from_bytes(file.clone()).unwrap().tensors()[0].range.start;
    for length in 0..data {
        assert!(!exercise(&file[..length]), "{length} bytes of {}", file.len());
    }
    assert!(!exercise(&file[..file.len() - 32]));
}

#[test]
fn no_flipped_byte_of_the_header_panics() {
    let file = sound_file();
    let data = wushi_formats::Gguf::from_bytes(file.clone()).unwrap().tensors()[0].range.start;
    // All bits of the fixed fields and the tensor table matter most; three patterns are enough for the rest.
    for place in 0..data {
        for pattern in [0x01, 0x80, 0xff] {
            let mut damaged = file.clone();
            damaged[place] ^= pattern;
            exercise(&damaged);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_mutation_of_a_sound_file_panics(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
        splice in prop::option::of((any::<prop::sample::Index>(), any::<u64>())),
    ) {
        let mut file = sound_file();
        for (place, byte) in flips {
            let place = place.index(file.len());
            file[place] = byte;
        }
        if let Some((place, number)) = splice {
            let place = place.index(file.len() - 8);
            file[place..place + 8].copy_from_slice(&number.to_le_bytes());
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        exercise(&file);
    }

    #[test]
    fn no_bytes_behind_a_magic_number_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        exercise(&[b"GGUF\x03\0\0\0", &bytes[..]].concat());
    }
}
