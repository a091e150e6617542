//! What can be done with a safetensors file that may be anything, shared by the tests and the fuzz target.

use std::collections::BTreeMap;

use wushi_formats::checkpoint::Recipe;
use wushi_formats::safetensors::Safetensors;
use wushi_formats::{Folder, Metadata};
use wushi_graph::WeightSource;

/// Reads `bytes` as a file, and as the weights of a folder whose tensors are then made in every way there is; and as the
/// index of one.
///
/// Says whether the file could be read. Whatever the bytes, nothing may panic, and what was read must hold together.
pub(crate) fn exercise(bytes: &[u8]) -> bool {
    let folder = |name: &str, bytes: &[u8]| {
        Folder::from_files(BTreeMap::from([
            ("config.json".to_owned(), b"{}".to_vec()),
            (name.to_owned(), bytes.to_vec()),
        ]))
    };
    // No file that an index could name is there.
    assert!(folder("model.safetensors.index.json", bytes).is_err());
    assert!(Folder::from_files(BTreeMap::from([("config.json".to_owned(), bytes.to_vec())])).is_err());
    let file = Safetensors::from_bytes(bytes.to_vec());
    let opened = folder("model.safetensors", bytes);
    let Ok(file) = file else {
        assert!(opened.is_err());
        return false;
    };
    let sum: usize = file.tensors().iter().map(|tensor| file.tensor_bytes(tensor).len()).sum();
    assert!(sum <= bytes.len(), "tensors overlap");
    for tensor in file.tensors() {
        assert_eq!(file.tensor_bytes(tensor).len(), tensor.range.len());
        if let Some(dtype) = tensor.dtype {
            assert_eq!(dtype.bytes_of(tensor.shape.iter().product()), Some(tensor.range.len()));
        }
    }
    let whole = opened.expect("it could be read");
    let recipes = whole.tensor_names().map(|name| (name.to_owned(), Recipe::tensor(name))).collect();
    read_all(whole, recipes);
    for name in file.tensors().iter().map(|tensor| tensor.name.as_str()) {
        for recipe in [
            Recipe::tensor(name).pair_heads(2),
            Recipe::tensor(name).plus_one(),
            Recipe::tensor(name).pair_heads(1),
            Recipe::stacked([name, name, name]),
        ] {
            let mut folder = folder("model.safetensors", bytes).expect("it could be read");
            file.tensors().iter().for_each(|tensor| folder.ignore(&tensor.name));
            read_all(folder, vec![("made.weight".to_owned(), recipe)]);
        }
    }
    true
}

/// Makes the tensors and reads them all, if they can be made.
fn read_all(folder: Folder, recipes: Vec<(String, Recipe)>) {
    let wanted = recipes.len();
    let Ok(checkpoint) = folder.into_checkpoint(Metadata::new(), recipes) else { return };
    assert_eq!(checkpoint.tensors().len(), wanted);
    for tensor in checkpoint.tensors() {
        let read = checkpoint.read(&tensor.name).expect("what is listed can be read");
        assert_eq!(read.len(), tensor.bytes);
        let dtype = checkpoint.describe(&tensor.name).expect("supported").dtype;
        assert_eq!(dtype.bytes_of(tensor.elements()), Some(read.len()));
        checkpoint.release(&tensor.name);
    }
    checkpoint.identify(&mut |_| {});
}
