//! How text is cut into words before byte pairs are merged, by the name a GGUF file gives the method.
//!
//! The names and what they stand for are those of llama.cpp (`llama-vocab.cpp`, MIT); where it approximates an
//! expression that its own engine cannot run, the model's original one is used.

use fancy_regex::Regex;

use crate::FormatError;
use crate::error::excerpt;

/// A family of tokenizers that cut text in the same way.
pub(super) struct PreTokenizer {
    /// Values of `tokenizer.ggml.pre`.
    names: &'static [&'static str],
    /// Applied one after the other, each to the pieces the one before left; what does not match is a piece too.
    patterns: &'static [&'static str],
    /// Whether words are spelled in bytes, rather than in characters with `▁` for a space.
    pub(super) over_bytes: bool,
    /// Whether a word that is a token is that token, however its pairs would merge.
    pub(super) ignore_merges: bool,
    /// Whether prompts begin with BOS unless the file says otherwise.
    pub(super) add_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Letters as the DeepSeek LLM tokenizer lists them: Latin, Greek, Cyrillic, Armenian, Georgian, Cherokee and others.
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[A-Za-z\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\u{1bc}-\u{1bf}\u{1c4}-\u{293}",
    r"\u{295}-\u{2af}\u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}\u{37f}\u{386}\u{388}-\u{38a}",
    r"\u{38c}\u{38e}-\u{3a1}\u{3a3}-\u{3f5}\u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}",
    r"\u{10a0}-\u{10c5}\u{13a0}-\u{13f5}\u{13f8}-\u{13fd}\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}",
    r"\u{1d00}-\u{1d2b}\u{1d6b}-\u{1d77}\u{1d79}-\u{1d9a}\u{1e00}-\u{1f15}\u{1f18}-\u{1f1d}",
    r"\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}\u{1f50}-\u{1f57}\u{1f59}\u{1f5b}\u{1f5d}\u{1f5f}-",
    r"\u{1f7d}\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}\u{1fc2}-\u{1fc4}\u{1fc6}-\u{1fcc}",
    r"\u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}\u{1fe0}-\u{1fec}\u{1ff2}-\u{1ff4}\u{1ff6}-\u{1ffc}",
    r"\u{2102}\u{2107}\u{210a}-\u{2113}\u{2115}\u{2119}-\u{211d}\u{2124}\u{2126}\u{2128}",
    r"\u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}\u{213c}-\u{213f}\u{2145}-\u{2149}\u{214e}",
    r"\u{2183}\u{2184}\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}",
    r"\u{a640}-\u{a66d}\u{a680}-\u{a69b}\u{a722}-\u{a76f}\u{a771}-\u{a787}\u{a78b}-\u{a78e}",
    r"\u{ab70}-\u{abbf}\u{fb00}-\u{fb06}\u{fb13}-\u{fb17}\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}",
    r"\u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-",
    r"\u{10cf2}\u{118a0}-\u{118df}\u{1e900}-\u{1e943}]+",
);
const DEEPSEEK_CJK: &str = r"[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
const BAILING: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
const SEED: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";

const fn family(names: &'static [&'static str], patterns: &'static [&'static str]) -> PreTokenizer {
    PreTokenizer { names, patterns, over_bytes: true, ignore_merges: false, add_bos: false }
}

/// The same, where a word that is a token is that token.
const fn whole(names: &'static [&'static str], patterns: &'static [&'static str]) -> PreTokenizer {
    PreTokenizer { ignore_merges: true, ..family(names, patterns) }
}

const FAMILIES: &[PreTokenizer] = &[
    family(
        &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
            "mellum",
            "gigachat",
            "modern-bert",
            "a.x-4.0",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
        ],
        &[GPT2],
    ),
    // Digits one by one.
    family(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[r"\p{N}", GPT2],
    ),
    // What files without a name are read with.
    family(&["default"], &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    PreTokenizer {
        add_bos: true,
        ..whole(
            &[
                "llama-bpe",
                "llama3",
                "llama-v3",
                "falcon3",
                "falcon-h1",
                "pixtral",
                "lfm2",
                "midm-2.0",
                "jina-v5-nano",
            ],
            &[LLAMA3],
        )
    },
    family(&["dbrx", "smaug-bpe", "chatglm-bpe"], &[LLAMA3]),
    whole(&["glm4", "glm5"], &[LLAMA3]),
    family(
        &[
            "qwen2",
            "deepseek-r1-qwen",
            "stablelm2",
            "megrez",
            "hunyuan",
            "solar-open",
            "kormo",
            "f2llmv2",
            "grok-2",
        ],
        &[QWEN2],
    ),
    family(&["laguna"], &[r"[^\n]+|[\n]+", QWEN2]),
    family(&["qwen35"], &[QWEN35]),
    PreTokenizer { add_bos: true, ..whole(&["tekken"], &[TEKKEN]) },
    family(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[GPT4O]),
    whole(&["granite-embed-multi-97m"], &[GPT4O]),
    family(&["tiny_aya", "cohere2moe"], &[r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O]),
    family(&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
    family(
        &["deepseek-llm"],
        &[
            r"[\r\n]",
            DEEPSEEK_LETTERS,
            r"\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+",
            r"\s+$",
            DEEPSEEK_CJK,
            r"\p{N}+",
        ],
    ),
    family(&["deepseek-coder"], &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, r"\p{N}"]),
    family(
        &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        &[r"\p{N}{1,3}", r"[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+", DEEPSEEK3],
    ),
    family(&["bloom", "gpt3-finnish", "poro-chat"], &[BLOOM]),
    family(&["viking"], &[BLOOM, r"\p{N}"]),
    family(&["bailingmoe", "bailingmoe2", "llada-moe"], &[BAILING]),
    family(&["seed-coder"], &[SEED]),
    PreTokenizer { over_bytes: false, add_bos: true, ..family(&["gemma4"], &[r"[^\n]+|[\n]+"]) },
];

impl PreTokenizer {
    /// The method of this name.
    pub(super) fn named(name: &str) -> Result<&'static PreTokenizer, FormatError> {
        FAMILIES.iter().find(|family| family.names.contains(&name)).ok_or_else(|| {
            FormatError::UnsupportedTokenizer {
                key: "tokenizer.ggml.pre",
                found: excerpt(name),
                supported: PreTokenizer::names(),
            }
        })
    }

    /// All names, in one line.
    pub(super) fn names() -> String {
        FAMILIES.iter().flat_map(|family| family.names).copied().collect::<Vec<_>>().join(", ")
    }

    /// The name of the method that cuts by these patterns, which are compared in the form that `plain` gives them.
    pub(super) fn name_of(
        patterns: &[String],
        ignore_merges: bool,
        plain: impl Fn(&str) -> String,
    ) -> Option<&'static str> {
        let is_it = |family: &&PreTokenizer| {
            family.over_bytes
                && family.ignore_merges == ignore_merges
                && family.patterns.len() == patterns.len()
                && family.patterns.iter().zip(patterns).all(|(ours, theirs)| plain(ours) == *theirs)
        };
        Some(FAMILIES.iter().find(is_it)?.names[0])
    }

    /// Compiles the patterns.
    pub(super) fn splitter(&self) -> Splitter {
        // The patterns are constants, and a test compiles every one of them.
        let compile = |pattern: &&str| Regex::new(pattern).expect("a constant pattern is valid");
        Splitter { patterns: self.patterns.iter().map(compile).collect() }
    }
}

/// Compiled patterns.
pub(super) struct Splitter {
    patterns: Vec<Regex>,
}

impl Splitter {
    /// Cuts the text into words; joined, they are the text again.
    pub(super) fn split<'t>(&self, text: &'t str) -> Result<Vec<&'t str>, FormatError> {
        let mut pieces = vec![text];
        for pattern in &self.patterns {
            let mut finer = Vec::with_capacity(pieces.len());
            for piece in pieces {
                let mut start = 0;
                for found in pattern.find_iter(piece) {
                    let found = found.map_err(|error| FormatError::Tokenize(error.to_string()))?;
                    finer.extend(
                        [&piece[start..found.start()], found.as_str()].iter().filter(|part| !part.is_empty()),
                    );
                    start = found.end();
                }
                finer.extend(Some(&piece[start..]).filter(|part| !part.is_empty()));
            }
            pieces = finer;
        }
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(name: &str, text: &str) -> Vec<String> {
        let splitter = PreTokenizer::named(name).unwrap().splitter();
        let pieces = splitter.split(text).unwrap();
        assert_eq!(pieces.concat(), text);
        pieces.into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn every_pattern_compiles_and_loses_nothing() {
        let text = "I'LL   pay 12345€ — 你好， مرحبا\r\n\tfn f() {}\u{1f600}\u{200d} e\u{301}  ";
        for family in FAMILIES {
            for name in family.names {
                let least = if family.over_bytes { 10 } else { 3 };
                assert!(split(name, text).len() >= least, "{name}");
                assert!(split(name, "").is_empty(), "{name}");
            }
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = FAMILIES.iter().flat_map(|family| family.names).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn families_differ_where_they_should() {
        assert_eq!(split("gpt-2", "a 1234  b"), ["a", " 1234", " ", " b"]);
        assert_eq!(split("smollm", "a 1234  b"), ["a", " ", "1", "2", "3", "4", " ", " b"]);
        assert_eq!(split("llama-bpe", "a 1234  b"), ["a", " ", "123", "4", " ", " b"]);
        assert_eq!(split("qwen2", "It'S 12\n\n x"), ["It", "'S", " ", "1", "2", "\n\n", " x"]);
        assert_eq!(split("gpt-4o", "camelCase's"), ["camel", "Case's"]);
    }

    #[test]
    fn long_runs_are_cut_or_refused_but_never_silently_left_whole() {
        let spaces = " ".repeat(100_000) + "x";
        assert_eq!(split("smollm", &spaces).last().unwrap(), " x");
        let endless = " ".repeat(3_000_000) + "x";
        let splitter = PreTokenizer::named("smollm").unwrap().splitter();
        match splitter.split(&endless) {
            Ok(pieces) => assert_eq!(pieces.last(), Some(&" x")),
            Err(error) => assert!(matches!(error, FormatError::Tokenize(_))),
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = PreTokenizer::named("klingon").err().unwrap().to_string();
        assert!(
            error.contains("`klingon`") && error.contains("smollm") && error.contains("llama-bpe"),
            "{error}"
        );
    }
}
