//! What can be done with a tokenizer that may be anything, shared by the tests and the fuzz target.

use wushi_formats::tokenizer::huggingface::{TokenizerFiles, import};
use wushi_formats::{Gguf, Metadata, Tokenizer};

/// Rows of the embedding that a `tokenizer.json` is read for.
const ROWS: usize = 512;
const TEXT: &str = "Why  is the sky blue? 123\n\n  你好😀 <|im_end|></s> naïve\u{0}\u{7f}\u{fffd}▁";

/// Reads `bytes` up to the last byte 0xff, which no text has, as a GGUF file or a `tokenizer.json`, and what follows as a
/// text for it.
///
/// Says whether there is a tokenizer. Whatever the bytes, nothing may panic, and ids must be those of tokens.
pub(crate) fn exercise(bytes: &[u8]) -> bool {
    let cut = bytes.iter().rposition(|&byte| byte == 0xff);
    let (file, text) = cut.map_or((bytes, &[][..]), |cut| (&bytes[..cut], &bytes[cut + 1..]));
    let Some(metadata) = metadata(file) else { return false };
    let Ok(tokenizer) = Tokenizer::from_gguf(&metadata) else { return false };
    let text = String::from_utf8_lossy(text);
    for text in ["", TEXT, &text] {
        for special in [false, true] {
            let Ok(ids) = tokenizer.encode(text, special, special) else { continue };
            assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
            tokenizer.decode(&ids, special);
        }
        for literal in [3..7, 0..text.len(), 9..9] {
            let Ok(ids) = tokenizer.encode_guarded(text, true, &[literal]) else { continue };
            assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        }
    }
    let is_token = |id: &u32| (*id as usize) < tokenizer.vocab_size();
    assert!(tokenizer.infill().is_none_or(|gap| [gap.prefix, gap.suffix, gap.middle].iter().all(is_token)));
    assert!(tokenizer.end_of_generation().iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
    tokenizer.decode(&[0, u32::MAX], false);
    true
}

fn metadata(file: &[u8]) -> Option<Metadata> {
    if file.starts_with(b"GGUF") {
        return Gguf::from_bytes(file.to_vec()).ok().map(|gguf| gguf.metadata().clone());
    }
    let config =
        serde_json::json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": "{{ messages }}"});
    let files = TokenizerFiles {
        tokenizer_json: file,
        tokenizer_config: Some(&config),
        special_tokens_map: None,
        generation_config: None,
        chat_template: None,
        vocab_size: ROWS,
    };
    let mut metadata = Metadata::new();
    import(&files, &mut metadata).ok()?;
    Some(metadata)
}
