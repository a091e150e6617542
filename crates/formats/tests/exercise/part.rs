//! What can be done with a part of a pipeline that may be anything, shared by the tests and the fuzz target.

use wushi_formats::pipeline::Part;
use wushi_graph::WeightSource;

/// Reads `bytes` as a part: safetensors, GGUF or PyTorch; then all of its tensors, in several ways.
///
/// Says whether the file could be read. Whatever the bytes, nothing may panic, and what was read must hold together.
pub(crate) fn exercise(bytes: &[u8]) -> bool {
    let Ok(mut part) = Part::from_bytes(bytes.to_vec()) else { return false };
    let _ = part.architecture();
    let names: Vec<String> = part.names().map(str::to_owned).collect();
    for (name, listed) in names.iter().zip(part.tensors()) {
        assert_eq!(part.tensor(name), Some(listed));
        let desc = part.desc(name).ok();
        assert_eq!(part.describe(name), desc);
        // What is no number is told when it is read.
        let Ok(read) = part.read(name) else { continue };
        if let Some(desc) = desc {
            assert_eq!(desc.dtype.bytes_of(desc.shape.iter().product()), Some(read.len()));
            assert_eq!(read.len(), listed.bytes());
        }
        part.release(name);
    }
    for name in &names {
        let elements = part.tensor(name).expect("a tensor of the list").elements();
        assert!(part.view_as(name, &[elements, 2]).is_err() || elements == 0);
        if part.view_as(name, &[1, elements]).is_ok() {
            assert_eq!(part.shape(name), Some(&[1, elements][..]));
        }
        let prefix: String = name.chars().take(2).collect();
        let below = part.below(&prefix);
        assert!(below.is_none_or(|below| below.tensors().len() <= names.len()));
    }
    part.bytes();
    part.parameters();
    part.identify(&mut |_| {});
    true
}
