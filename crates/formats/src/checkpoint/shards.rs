//! The parts of a model that was cut into several GGUF files.

use std::path::{Path, PathBuf};

use crate::FormatError;
use crate::gguf::Gguf;

/// More parts than any model has.
const MAX_PARTS: u32 = 10_000;

/// Into how many parts the model was cut, if it was.
pub(super) fn count(file: &Gguf) -> Result<Option<u32>, FormatError> {
    let parts = file.metadata().u32("split.count")?.filter(|&parts| parts > 1);
    match parts {
        Some(parts) if parts > MAX_PARTS => Err(FormatError::InvalidValue {
            key: "split.count".to_owned(),
            problem: format!("{parts} parts; at most {MAX_PARTS} are possible"),
        }),
        parts => Ok(parts),
    }
}

/// Opens all parts, in order, given the path of any.
pub(super) fn open(path: &Path, parts: u32) -> Result<Vec<Gguf>, FormatError> {
    let wrong = |path: &Path, problem: String| {
        let error = Box::new(FormatError::Shards { parts, problem });
        FormatError::InFile { path: path.to_owned(), error }
    };
    let stem = stem(path, parts).ok_or_else(|| {
        let problem =
            format!("name them …-00001-of-{parts:05}.gguf and so on, so that the others can be found");
        wrong(path, problem)
    })?;
    let names: Vec<PathBuf> =
        (1..=parts).map(|part| path.with_file_name(format!("{stem}-{part:05}-of-{parts:05}.gguf"))).collect();
    // All missing ones at once, before any is opened.
    let missing: Vec<String> = names
        .iter()
        .filter(|name| !name.exists())
        .map(|name| name.file_name().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    if !missing.is_empty() {
        return Err(wrong(path, format!("{} missing beside it", missing.join(", "))));
    }
    let mut files: Vec<Gguf> = Vec::new();
    for (name, part) in names.iter().zip(0u32..) {
        let file = Gguf::open(name)?;
        belongs(&file, files.first(), part, parts).map_err(|problem| wrong(name, problem))?;
        files.push(file);
    }
    let tensors: usize = files.iter().map(|file| file.tensors().len()).sum();
    match files[0].metadata().u64("split.tensors.count") {
        Ok(Some(wanted)) if wanted != tensors as u64 => {
            Err(wrong(path, format!("together they have {tensors} tensors where {wanted} were expected")))
        }
        Ok(_) => Ok(files),
        Err(error) => Err(FormatError::InFile { path: names[0].clone(), error: Box::new(error) }),
    }
}

/// What comes before `-00001-of-00003.gguf` in a part's name.
fn stem(path: &Path, parts: u32) -> Option<&str> {
    let name = path.file_name()?.to_str()?.strip_suffix(&format!("-of-{parts:05}.gguf"))?;
    let (stem, part) = name.rsplit_once('-')?;
    let part: u32 = part.parse().ok().filter(|_| part.len() == 5)?;
    (1..=parts).contains(&part).then_some(stem)
}

/// Whether a file is part number `part` (from 0) of the model whose first part is `first`.
fn belongs(file: &Gguf, first: Option<&Gguf>, part: u32, parts: u32) -> Result<(), String> {
    let metadata = file.metadata();
    let number = |key: &str| metadata.u32(key).map_err(|error| error.to_string());
    match (number("split.count")?, number("split.no")?) {
        (Some(count), Some(no)) if count == parts && no == part => {}
        (Some(count), Some(no)) => {
            let said = u64::from(no) + 1;
            return Err(format!("its name says part {}, but it says part {said} of {count}", part + 1));
        }
        _ => return Err("it does not say which part it is".to_owned()),
    }
    let Some(first) = first.map(Gguf::metadata) else { return Ok(()) };
    // The other parts have next to no metadata; what they have is the first one's.
    let foreign = metadata.iter().find(|(key, value)| {
        let own = ["split.no", "general.alignment"].contains(key);
        !own && first.get(key) != Some(value)
    });
    match foreign {
        None => Ok(()),
        Some((key, _)) => {
            Err(format!("it belongs to another model: its `{key}` differs from the first part's"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts() {
        let stem = |name: &str, parts| stem(Path::new(name), parts).map(str::to_owned);
        assert_eq!(stem("/m/a-b-00002-of-00003.gguf", 3), Some("a-b".to_owned()));
        for bad in [
            "a-00004-of-00003.gguf",
            "a-00000-of-00003.gguf",
            "a-2-of-00003.gguf",
            "a.gguf",
            "a-00001-of-00002.gguf",
        ] {
            assert_eq!(stem(bad, 3), None, "{bad}");
        }
    }
}
