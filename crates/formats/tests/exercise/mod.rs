//! What can be done with a file that may be anything, shared by the tests and the fuzz target.

use wushi_formats::{ChatTemplate, Checkpoint, Gguf, Message, RenderOptions, Tokenizer};
use wushi_graph::WeightSource;

/// Reads `bytes` as a GGUF file, touches every tensor, and tries the tokenizer and the template in it.
///
/// Says whether the file could be read. Whatever the bytes, nothing may panic, and what was read must hold together.
pub(crate) fn exercise(bytes: &[u8]) -> bool {
    let Ok(file) = Gguf::from_bytes(bytes.to_vec()) else { return false };
    for tensor in file.tensors() {
        assert_eq!(file.tensor_info(&tensor.name), Some(tensor));
        assert_eq!(file.tensor_bytes(tensor).len(), tensor.range.len());
    }
    let (size, file) = (file.file_size(), Checkpoint::from_gguf(file));
    assert_eq!(file.file_size(), size);
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

fn walk_tensors(file: &Checkpoint) {
    let mut sum = 0u64;
    for tensor in file.tensors() {
        assert_eq!(file.tensor_info(&tensor.name), Some(tensor));
        let bytes = file.read(&tensor.name).expect("a tensor of the list");
        assert_eq!(bytes.len(), tensor.bytes);
        sum += bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
        match (file.describe(&tensor.name), tensor.dtype) {
            (Some(found), Some(dtype)) => {
                assert_eq!(found.dtype, dtype);
                assert_eq!(dtype.bytes_of(found.shape.iter().product()), Some(bytes.len()));
            }
            (None, None) => {}
            other => panic!("{other:?}"),
        }
        file.release(&tensor.name);
    }
    assert!(sum <= file.file_size() * 255, "tensors overlap");
    assert_eq!(file.types().iter().map(|total| total.tensors).sum::<usize>(), file.tensors().len());
    file.parameters();
    file.identify(&mut |_| {});
}
