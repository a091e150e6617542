//! Parts of pipelines that nobody vouches for: the fuzz corpus, damaged files, and what is said of them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use wushi_formats::gguf::Writer;
use wushi_formats::pipeline::Part;
use wushi_graph::DType;

#[path = "exercise/part.rs"]
mod exercise;

use exercise::exercise;

/// The longest run of memory that was asked for.
static LONGEST: AtomicUsize = AtomicUsize::new(0);

struct Watched;

// SAFETY: everything is the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LONGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LONGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/part")
}

fn file(name: &str) -> Vec<u8> {
    fs::read(corpus().join(name)).unwrap()
}

fn part(name: &str) -> Part {
    Part::open(corpus().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn refused(name: &str) -> String {
    let path = corpus().join(name);
    let text = Part::open(&path).expect_err(name).to_string();
    // Every message names the file first.
    text.strip_prefix(&format!("{}: ", path.display())).unwrap_or_else(|| panic!("{text}")).to_owned()
}

fn floats(part: &Part, name: &str) -> Vec<f32> {
    let bytes = part.read(name).unwrap();
    match part.desc(name).unwrap().dtype {
        DType::F32 => bytes.as_chunks::<4>().0.iter().map(|&four| f32::from_le_bytes(four)).collect(),
        DType::F16 => {
            bytes.as_chunks::<2>().0.iter().map(|&two| half::f16::from_le_bytes(two).to_f32()).collect()
        }
        _ => bytes.as_chunks::<2>().0.iter().map(|&two| half::bf16::from_le_bytes(two).to_f32()).collect(),
    }
}

/// 0, 1/8, 2/8 … times a factor.
fn eighths(range: std::ops::Range<u8>, factor: f32) -> Vec<f32> {
    range.map(|n| f32::from(n) / 8.0 * factor).collect()
}

#[test]
fn every_file_of_the_corpus_is_read_or_refused_as_its_name_says() {
    let mut seen = [0, 0];
    for entry in fs::read_dir(corpus()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let read = exercise(&fs::read(&path).unwrap());
        assert_eq!(read, name.starts_with("valid-"), "{name}");
        seen[usize::from(read)] += 1;
    }
    assert!(seen[0] >= 15 && seen[1] >= 7, "the corpus shrank: {seen:?}");
}

#[test]
fn a_checkpoint_of_pytorch_is_read() {
    let sound = part("valid-sound.pth");
    let shapes: Vec<(&str, &str, &[usize])> =
        sound.tensors().iter().map(|t| (t.name.as_str(), t.stored.as_str(), &t.shape[..])).collect();
    assert_eq!(
        shapes,
        [
            ("f32", "F32", &[2, 3][..]),
            ("f16", "F16", &[3, 2]),
            ("bf16", "BF16", &[1, 2, 1, 2, 2]),
            ("f8", "F8_E4M3", &[2, 2]),
            ("i64", "I64", &[3]),
            ("scalar", "F32", &[]),
            ("rows", "F32", &[2, 4]),
            ("whole", "F32", &[6, 4]),
            ("one", "F32", &[1, 4]),
            ("parameter", "F32", &[2]),
        ]
    );
    for name in ["f32", "f16", "bf16", "f8", "whole", "one", "parameter"] {
        let count = sound.tensor(name).unwrap().elements() as u8;
        assert_eq!(floats(&sound, name), eighths(0..count, 1.0), "{name}");
    }
    assert_eq!(floats(&sound, "rows"), eighths(8..16, 1.0));
    assert_eq!(floats(&sound, "scalar"), [2.5]);
    let error = sound.desc("i64").unwrap_err().to_string();
    assert!(error.contains("valid-sound.pth") && error.contains("`i64` is stored as I64"), "{error}");
    let names = part("valid-module-state.pth");
    assert_eq!(names.names().collect::<Vec<_>>(), ["0.weight", "0.bias"]);
    for name in ["valid-wrapped.pth", "valid-protocol-4.pth", "valid-rewritten.pth"] {
        assert_eq!(floats(&part(name), "f32"), eighths(0..6, 1.0), "{name}");
    }
}

#[test]
fn what_no_checkpoint_needs_is_refused_and_never_run() {
    for (name, said) in [
        ("bad-runs.pth", "system`, which no dictionary of tensors needs and nothing here runs"),
        ("bad-module.pth", "torch.nn.modules.linear.Linear`"),
        ("bad-legacy.pth", "from before PyTorch 1.6"),
        ("bad-transposed.pth", "`turned`: its elements do not lie in order (strides [1, 3] of shape [3, 2])"),
        ("bad-list.pth", "holds no dictionary of tensors; save the model's state_dict()"),
        ("bad-without-tensors.pth", "the keys: epoch, note"),
        ("bad-compressed.pth", "is compressed"),
        ("bad-big-endian.pth", "big-endian"),
        ("bad-script.pth", "TorchScript"),
        ("bad-no-pickle.pth", "no data.pkl"),
        ("bad-no-storage.pth", "`f32`: its storage `0` is not in the file"),
        ("bad-short-storage.pth", "reach past the end of its storage, which has 23 bytes"),
    ] {
        let text = refused(name);
        assert!(text.contains(said), "{name}: {text}");
    }
}

#[test]
fn floats_of_eight_bits_are_read_with_their_scales() {
    let scaled = part("valid-scaled.safetensors");
    let mut names: Vec<&str> = scaled.names().collect();
    names.sort_unstable();
    assert_eq!(names, ["one.weight", "plain.bias", "plain.weight", "rows.weight", "wide.weight"]);
    let tensor = scaled.tensor("one.weight").unwrap();
    assert_eq!((tensor.stored.as_str(), tensor.dtype, tensor.bytes()), ("F8_E4M3", Some(DType::BF16), 12));
    assert_eq!(floats(&scaled, "one.weight"), eighths(0..6, 0.5));
    assert_eq!(floats(&scaled, "plain.weight"), eighths(0..6, 1.0));
    assert_eq!(floats(&scaled, "wide.weight"), eighths(0..4, 1.0));
    assert_eq!(floats(&scaled, "rows.weight"), [eighths(0..3, 0.5), eighths(3..6, 2.0)].concat());
    let error = part("valid-nan.safetensors").read("t").unwrap_err().to_string();
    assert!(error.contains("`t` holds no number at element 1 (code 0x7f of E4M3"), "{error}");
    assert!(
        refused("bad-scale-nan.safetensors")
            .contains("`one.scale_weight` should be the scale of `one.weight`")
    );
    assert!(
        refused("bad-scale-shape.safetensors").contains("one number or 2, all finite, but it has shape [3]")
    );
    assert!(refused("bad-scale-of-nothing.safetensors").contains("`two.scale_weight`"));
}

#[test]
fn tensors_of_five_dimensions_come_in_every_form_that_gguf_files_have() {
    let values: Vec<u8> = (0..16u8).flat_map(|n| f32::from(n).to_le_bytes()).collect();
    let open = |shape: &[usize], original: Option<Vec<i32>>| {
        let mut writer = Writer::new();
        writer.set("general.architecture", "a");
        if let Some(original) = original {
            writer.set("comfy.gguf.orig_shape.patch.weight", original);
        }
        writer.tensor("patch.weight", DType::F32, shape, &values).unwrap();
        Part::from_bytes(writer.to_bytes().unwrap()).unwrap()
    };
    let whole = [2, 2, 1, 2, 2];
    let five = open(&whole, None);
    assert_eq!(five.shape("patch.weight"), Some(&whole[..]));
    assert_eq!(five.architecture().unwrap(), Some("a"));
    let flat = open(&[16], Some(vec![2, 2, 1, 2, 2]));
    assert_eq!(flat.shape("patch.weight"), Some(&whole[..]));
    let mut merged = open(&[2, 2, 1, 4], None);
    merged.view_as("patch.weight", &whole).unwrap();
    for part in [five, flat, merged] {
        assert_eq!(part.shape("patch.weight"), Some(&whole[..]));
        assert_eq!(part.read("patch.weight").unwrap(), &values[..]);
    }
    let error = open(&[16], None).view_as("patch.weight", &[2, 7]).unwrap_err().to_string();
    assert!(error.contains("has shape [16]; expected [2, 7]; they differ in elements"), "{error}");
    assert!(refused("bad-flattened.gguf").contains("has shape [8]; expected [2, 2, 1, 2, 2]"));
    assert!(refused("bad-flattened-negative.gguf").contains("impossible shape"));
}

#[test]
fn a_part_can_be_seen_without_a_prefix() {
    let mut writer = Writer::new();
    for (name, value) in [("model.net.a", 1.0f32), ("model.net.b", 2.0), ("vae.a", 3.0), ("model.net.", 4.0)]
    {
        writer.tensor(name, DType::F32, &[1], value.to_le_bytes().to_vec()).unwrap();
    }
    let whole = Part::from_bytes(writer.to_bytes().unwrap()).unwrap();
    let below = whole.below("model.net.").unwrap();
    assert_eq!(below.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((floats(&below, "b"), below.tensor("vae.a")), (vec![2.0], None));
    assert_eq!(floats(&whole.below("vae.").unwrap(), "a"), [3.0]);
    assert!(whole.below("text.").is_none());
}

/// A file with bytes changed, and no more memory asked for at once than goes with its size.
fn damaged(bytes: &[u8]) {
    LONGEST.store(0, Ordering::Relaxed);
    exercise(bytes);
    // What tests beside this one ask for is counted too; their files are as small.
    let (longest, most) = (LONGEST.load(Ordering::Relaxed), 4 * bytes.len() + (64 << 10));
    assert!(longest <= most, "{longest} bytes at once for a file of {}", bytes.len());
}

const SOUND: [&str; 4] =
    ["valid-sound.pth", "valid-protocol-4.pth", "valid-scaled.safetensors", "valid-flattened.gguf"];

#[test]
fn no_truncation_and_no_flipped_byte_panics_or_takes_much_memory() {
    for name in SOUND {
        let sound = file(name);
        for length in 0..sound.len() {
            damaged(&sound[..length]);
        }
        for place in 0..sound.len() {
            for pattern in [0x01, 0x80, 0xff] {
                let mut bytes = sound.clone();
                bytes[place] ^= pattern;
                damaged(&bytes);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_mutation_of_a_sound_file_panics(
        which in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
        splice in prop::option::of((any::<prop::sample::Index>(), any::<u64>())),
    ) {
        let mut bytes = file(SOUND[which.index(SOUND.len())]);
        for (place, byte) in flips {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some((place, number)) = splice {
            let place = place.index(bytes.len() - 8);
            bytes[place..place + 8].copy_from_slice(&number.to_le_bytes());
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        damaged(&bytes);
    }

    /// Any instructions, in an archive that is sound.
    #[test]
    fn no_pickle_panics(instructions in prop::collection::vec(0..CODES.len() + 64, 0..200)) {
        let mut pickle = vec![0x80, 2];
        for code in instructions {
            match CODES.get(code) {
                Some(code) => pickle.extend_from_slice(code),
                None => pickle.push((code - CODES.len()) as u8),
            }
        }
        pickle.push(b'.');
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let stored = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored);
        for (name, bytes) in [("a/data.pkl", &pickle[..]), ("a/data/0", &[0; 64])] {
            zip.start_file(name, stored).unwrap();
            std::io::Write::write_all(&mut zip, bytes).unwrap();
        }
        damaged(&zip.finish().unwrap().into_inner());
    }
}

/// What pickles of tensors are made of.
const CODES: [&[u8]; 30] = [
    b"}",
    b"(",
    b"q\0",
    b"h\0",
    b"q\x01",
    b"h\x01",
    b"X\x01\0\0\0a",
    b"X\x07\0\0\0storage",
    b"X\x01\0\0\x000",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._utils\n_rebuild_tensor_v3\n",
    b"ctorch._utils\n_rebuild_parameter\n",
    b"ctorch\nFloatStorage\n",
    b"ctorch.storage\nUntypedStorage\n",
    b"ccollections\nOrderedDict\n",
    b"ctorch\nSize\n",
    b"K\0",
    b"K\x02",
    b"J\xff\xff\xff\xff",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"t",
    b")",
    b"\x85",
    b"\x86",
    b"Q",
    b"R",
    b"\x89",
    b"u",
    b"s",
    b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x02tQ",
];
