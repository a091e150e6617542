//! Which files of a repository make a model.

use crate::http::{Download, hugging_face_api};
use crate::partial::Wanted;
use crate::pull::Failure;
use crate::{Attempt, HubError, Options, Progress, SourceFailure};
use serde::Deserialize;

/// More than any list of files is long.
const MAX_LIST: u64 = 64 << 20;
/// More files than any model is cut into.
const MAX_SHARDS: u32 = 1000;

/// Files beside safetensors that say what the model is and how text becomes tokens.
const BESIDE: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "README.md",
    "1_Pooling/config.json",
];
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// In a repository of several networks: which folders hold them.
const PIPELINE: &str = "model_index.json";
/// Beside it: what the pipeline's folders do not say.
const BESIDE_PIPELINE: &[&str] = &[PIPELINE, "video.json", "README.md"];

/// What a hub says of a repository.
#[derive(Debug, Deserialize)]
pub(crate) struct Listing {
    /// The commit that the list is of.
    #[serde(default)]
    sha: Option<String>,
    siblings: Vec<Listed>,
}

/// One file of a repository.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Listed {
    #[serde(rename = "rfilename")]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) size: Option<u64>,
    /// Large files are stored elsewhere, by their digest.
    #[serde(default)]
    lfs: Option<Large>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
struct Large {
    sha256: String,
}

impl Listed {
    /// Its SHA-256 in lower-case hexadecimal, if the hub says it.
    pub(crate) fn sha256(&self) -> Option<String> {
        let digest = self.lfs.as_ref().map(|large| large.sha256.to_ascii_lowercase())?;
        (digest.len() == 64 && digest.chars().all(|c| c.is_ascii_hexdigit())).then_some(digest)
    }
}

/// Files that make a model, and the commit that they are to be fetched from.
pub(crate) struct Chosen {
    pub(crate) revision: String,
    pub(crate) files: Vec<Listed>,
}

/// Asks what a repository holds, and chooses.
pub(crate) fn choose(repo: &str, options: &Options, progress: &dyn Progress) -> Result<Chosen, HubError> {
    let name = format!("hf:{repo}");
    progress.message(&format!("asking what {name} holds"));
    let failed = |failure| HubError::AllSourcesFailed {
        name: name.clone(),
        tried: vec![Attempt { source: name.clone(), failure }],
    };
    let url = hugging_face_api(&options.hf_endpoint, repo);
    let wanted = Wanted { name: &name, bytes: None, sha256: None };
    let token = options.hf_token.as_deref();
    let answer = Download { url: &url, token, wanted, options, progress }.text(MAX_LIST);
    let answer = answer.map_err(|failure| match failure {
        Failure::Source(failure) => failed(failure),
        Failure::Fatal(error) => error,
    })?;
    let listing: Listing = serde_json::from_slice(&answer)
        .map_err(|_| failed(SourceFailure::Protocol("it is no list of files".to_owned())))?;
    // Named in addresses: a commit and nothing else.
    let commit = |sha: &String| (7..=64).contains(&sha.len()) && sha.chars().all(|c| c.is_ascii_hexdigit());
    let revision = listing.sha.filter(commit).unwrap_or_else(|| "main".to_owned());
    Ok(Chosen { revision, files: pick(repo, listing.siblings)? })
}

/// The files of a model: safetensors with what belongs to them, else the only GGUF.
fn pick(repo: &str, files: Vec<Listed>) -> Result<Vec<Listed>, HubError> {
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let no_model = |why: &str| HubError::NoModel { repo: repo.to_owned(), why: why.to_owned() };
    if names.contains(&PIPELINE) {
        return pipeline(files, no_model);
    }
    let weights: Vec<String> = if names.contains(&WEIGHTS) {
        vec![WEIGHTS.to_owned()]
    } else if names.contains(&INDEX) {
        let parts = names
            .iter()
            .filter(|name| part_of(name, ".safetensors").is_some_and(|part| part.stem == "model"));
        parts.map(|name| (*name).to_owned()).chain([INDEX.to_owned()]).collect()
    } else {
        Vec::new()
    };
    let wanted = if weights.is_empty() {
        only_gguf(repo, &names)?.ok_or_else(|| {
            let pickle = names.iter().any(|name| name.ends_with(".bin") || name.ends_with(".pth"));
            no_model(if pickle {
                "it holds neither safetensors nor GGUF, only Python pickles, which are not read"
            } else {
                "it holds neither safetensors nor GGUF"
            })
        })?
    } else if !names.contains(&"config.json") {
        return Err(no_model("it has safetensors but no config.json"));
    } else {
        weights.into_iter().chain(BESIDE.iter().map(|name| (*name).to_owned())).collect()
    };
    let mut chosen: Vec<Listed> = files.into_iter().filter(|file| wanted.contains(&file.name)).collect();
    // Small ones first: what is wrong with them is known soon.
    chosen.sort_by(|a, b| (a.size, &a.name).cmp(&(b.size, &b.name)));
    Ok(chosen)
}

/// The files of several networks, each in a folder: safetensors, configurations, tokenizers.
fn pipeline(files: Vec<Listed>, no_model: impl Fn(&str) -> HubError) -> Result<Vec<Listed>, HubError> {
    let belongs = |name: &str| match name.split_once('/') {
        None => BESIDE_PIPELINE.contains(&name),
        // Further down are other things, and the same weights in other types have a dot in their names.
        Some((_, file)) => match file.rsplit_once('.') {
            Some((stem, "safetensors")) => !file.contains('/') && !stem.contains('.'),
            Some((_, "json" | "model")) => !file.contains('/'),
            _ => false,
        },
    };
    let mut chosen: Vec<Listed> = files.into_iter().filter(|file| belongs(&file.name)).collect();
    if !chosen.iter().any(|file| file.name.ends_with(".safetensors")) {
        return Err(no_model("its folders hold no safetensors"));
    }
    chosen.sort_by(|a, b| (a.size, &a.name).cmp(&(b.size, &b.name)));
    Ok(chosen)
}

/// The only GGUF file, or all parts of the only model in several.
fn only_gguf(repo: &str, names: &[&str]) -> Result<Option<Vec<String>>, HubError> {
    let files = names.iter().filter(|name| name.to_ascii_lowercase().ends_with(".gguf"));
    // Later parts come with the first.
    let models: Vec<&str> =
        files.copied().filter(|name| part_of(name, ".gguf").is_none_or(|part| part.number == 1)).collect();
    match models.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(all_parts(one).unwrap_or_else(|| vec![(*one).to_owned()]))),
        several => Err(HubError::SeveralModels {
            repo: repo.to_owned(),
            files: several.iter().map(|file| format!("hf:{repo}/{file}")).collect(),
        }),
    }
}

/// One file of several: `stem-00001-of-00003.end`.
struct Part<'a> {
    stem: &'a str,
    number: u32,
    parts: u32,
}

fn part_of<'a>(name: &'a str, end: &str) -> Option<Part<'a>> {
    let (rest, parts) = name.strip_suffix(end)?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| (text.len() == 5).then(|| text.parse::<u32>().ok()).flatten();
    let (number, parts) = (digits(number)?, digits(parts)?);
    ((1..=MAX_SHARDS).contains(&parts) && (1..=parts).contains(&number)).then_some(Part {
        stem,
        number,
        parts,
    })
}

/// All parts of a GGUF model, given the name of one of several.
pub(crate) fn all_parts(name: &str) -> Option<Vec<String>> {
    let Part { stem, parts, .. } = part_of(name, ".gguf").filter(|part| part.parts > 1)?;
    Some((1..=parts).map(|part| format!("{stem}-{part:05}-of-{parts:05}.gguf")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(names: &[&str]) -> Result<Vec<String>, String> {
        let listed = |name: &&str| Listed { name: (*name).to_owned(), size: Some(1), lfs: None };
        let chosen = pick("o/r", names.iter().map(listed).collect()).map_err(|error| error.to_string())?;
        Ok(chosen.into_iter().map(|file| file.name).collect())
    }

    #[test]
    fn safetensors_come_with_what_belongs_to_them() {
        let all = [
            "model.safetensors",
            "config.json",
            "tokenizer.json",
            "onnx/model.onnx",
            "pytorch_model.bin",
            "m.gguf",
        ];
        assert_eq!(picked(&all).unwrap(), ["config.json", "model.safetensors", "tokenizer.json"]);
        let parts = [
            "config.json",
            "consolidated.safetensors",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "original/model-00001-of-00001.safetensors",
            "1_Pooling/config.json",
        ];
        assert_eq!(
            picked(&parts).unwrap(),
            [
                "1_Pooling/config.json",
                "config.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
            ]
        );
    }

    #[test]
    fn folders_of_several_networks_come_whole() {
        let all = [
            "README.md",
            "assets/teaser.png",
            "model_index.json",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model-00001-of-00002.safetensors",
            "text_encoder/model-00002-of-00002.safetensors",
            "text_encoder/model.safetensors.index.json",
            "tokenizer/spiece.model",
            "tokenizer/tokenizer.json",
            "transformer/config.json",
            "transformer/diffusion_pytorch_model.bin",
            "transformer/diffusion_pytorch_model.fp16.safetensors",
            "transformer/diffusion_pytorch_model.safetensors",
            "transformer/old/diffusion_pytorch_model.safetensors",
            "unrelated.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
        ];
        let out = [1, 11, 12, 14, 15];
        let wanted: Vec<&str> =
            all.iter().enumerate().filter(|(at, _)| !out.contains(at)).map(|(_, name)| *name).collect();
        assert_eq!(picked(&all).unwrap(), wanted);
        let error = picked(&["model_index.json", "vae/config.json"]).unwrap_err();
        assert!(error.contains("no safetensors"), "{error}");
    }

    #[test]
    fn one_gguf_is_a_model_and_several_are_a_question() {
        assert_eq!(picked(&["README.md", "a.gguf"]).unwrap(), ["a.gguf"]);
        let parts = ["q/a-00001-of-00002.gguf", "q/a-00002-of-00002.gguf"];
        assert_eq!(picked(&parts).unwrap(), parts);
        let error =
            picked(&["a.gguf", "b.gguf", "c-00001-of-00002.gguf", "c-00002-of-00002.gguf"]).unwrap_err();
        assert!(error.contains("hf:o/r/a.gguf") && error.contains("hf:o/r/c-00001-of-00002.gguf"), "{error}");
        assert!(!error.contains("00002-of"), "{error}");
    }

    #[test]
    fn what_holds_no_model_says_so() {
        assert!(picked(&["README.md"]).unwrap_err().contains("neither safetensors nor GGUF"));
        assert!(picked(&["pytorch_model.bin"]).unwrap_err().contains("pickles"));
        assert!(picked(&["model.safetensors"]).unwrap_err().contains("no config.json"));
    }

    #[test]
    fn parts_are_told_by_their_names() {
        assert_eq!(
            all_parts("d/m-00002-of-00002.gguf").unwrap(),
            ["d/m-00001-of-00002.gguf", "d/m-00002-of-00002.gguf"]
        );
        for whole in [
            "m.gguf",
            "m-00001-of-00001.gguf",
            "m-00003-of-00002.gguf",
            "m-1-of-2.gguf",
            "m-00001-of-99999.gguf",
        ] {
            assert_eq!(all_parts(whole), None, "{whole}");
        }
    }
}
