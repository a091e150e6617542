//! Tokenizers and chat templates that may be anything: the fuzz corpora, and mutations of what is in them.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

#[path = "exercise/template.rs"]
mod template;
#[path = "exercise/tokenizer.rs"]
mod tokenizer;

/// The seeds of a corpus by name, in order.
fn seeds(corpus: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(corpus);
    let mut seeds: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())
        })
        .collect();
    seeds.sort();
    seeds
}

fn check(corpus: &str, exercise: fn(&[u8]) -> bool) {
    let mut seen = [0, 0];
    for (name, bytes) in seeds(corpus) {
        let read = exercise(&bytes);
        if name.starts_with("valid-") {
            assert!(read, "{name} should be readable");
        } else if name.starts_with("bad-") {
            assert!(!read, "{name} should be refused");
        }
        seen[usize::from(read)] += 1;
    }
    assert!(seen[0] >= 3 && seen[1] >= 10, "the corpus shrank: {seen:?}");
}

#[test]
fn every_tokenizer_of_the_corpus_is_read_or_refused_as_its_name_says() {
    check("tokenizer", tokenizer::exercise);
}

#[test]
fn every_template_of_the_corpus_is_read_or_refused_as_its_name_says() {
    check("template", template::exercise);
}

/// Some bytes of a seed replaced, a piece of another seed put in, the end cut off.
#[derive(Debug)]
struct Mutation {
    seed: prop::sample::Index,
    flips: Vec<(prop::sample::Index, u8)>,
    graft: Option<(prop::sample::Index, prop::sample::Index, prop::sample::Index)>,
    cut: Option<prop::sample::Index>,
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let flips = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let index = any::<prop::sample::Index>;
    let graft = prop::option::of((index(), index(), index()));
    (index(), flips, graft, prop::option::weighted(0.2, index()))
        .prop_map(|(seed, flips, graft, cut)| Mutation { seed, flips, graft, cut })
}

impl Mutation {
    fn apply(&self, seeds: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = self.seed.get(seeds).1.clone();
        bytes.push(0xff);
        for (place, byte) in &self.flips {
            let place = place.index(bytes.len());
            bytes[place] = *byte;
        }
        if let Some((other, from, to)) = &self.graft {
            let other = &other.get(seeds).1;
            let piece = from.index(other.len() + 1)..;
            let piece = other[piece].iter().copied().take(40);
            let place = to.index(bytes.len());
            bytes.splice(place..place, piece);
        }
        if let Some(cut) = &self.cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_mutation_of_a_tokenizer_panics(mutation in mutation()) {
        tokenizer::exercise(&mutation.apply(&seeds("tokenizer")));
    }
}

proptest! {
    // Rendering may take all its fuel, hence fewer.
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_mutation_of_a_template_panics(mutation in mutation()) {
        template::exercise(&mutation.apply(&seeds("template")));
    }
}
