//! What can be done with a file that may be anything, shared by the tests and the fuzz target.

use wushi_formats::{ChatTemplate, Gguf, Message, RenderOptions, Tokenizer};
use wushi_graph::WeightSource;

/// Reads `bytes` as a GGUF file, touches every tensor, and tries the tokenizer and the template in it.
///
/// Says whether the file could be read. Whatever the bytes, nothing may panic, and what was read must hold together.
pub(crate) fn exercise(bytes: &[u8]) -> bool {
    let Ok(file) = Gguf::from_bytes(bytes.to_vec()) else { return false };
    walk_tensors(&file);
    let _ = file.check_supported();
    if let Ok(tokenizer) = Tokenizer::from_gguf(file.metadata()) {
        for text in ["", "Why is the sky blue? 123\n\n  你好😀 <|im_end|>", "\u{0}\u{7f}\u{fffd}"] {
            for special in [false, true] {
                let Ok(ids) = tokenizer.encode(text, special, special) else { continue };
                assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
                tokenizer.decode(&ids, special);
            }
        }
        assert!(tokenizer.end_of_generation().iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        tokenizer.decode(&[0, u32::MAX], false);
    }
    if let Ok(Some(template)) = ChatTemplate::from_gguf(file.metadata()) {
        let messages = [Message::new("system", "Be brief."), Message::new("user", "Why?")];
        let _ =
            template.render(&messages, &RenderOptions { add_generation_prompt: true, ..Default::default() });
    }
    true
}

fn walk_tensors(file: &Gguf) {
    let mut sum = 0u64;
    for tensor in file.tensors() {
        assert_eq!(file.tensor_info(&tensor.name), Some(tensor));
        sum += file.tensor_bytes(tensor).iter().map(|&byte| u64::from(byte)).sum::<u64>();
        match (file.tensor(&tensor.name), tensor.dtype) {
            (Some(view), Some(dtype)) => {
                assert_eq!(view.dtype, dtype);
                assert_eq!(dtype.bytes_of(view.shape.iter().product()), Some(view.bytes.len()));
            }
            (None, None) => {}
            other => panic!("{other:?}"),
        }
        file.release(&tensor.name);
    }
    assert!(sum <= file.file_size() * 255, "tensors overlap");
    assert_eq!(file.types().iter().map(|total| total.tensors).sum::<usize>(), file.tensors().len());
    file.parameters();
}
