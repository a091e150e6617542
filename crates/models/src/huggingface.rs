//! Folders as published on Hugging Face, read as the GGUF files that llama.cpp's converter makes of them: a family says
//! which keys of `config.json` become which metadata, and which tensors become which.

use serde_json::{Map, Value};
use wushi_formats::checkpoint::Recipe;
use wushi_formats::gguf::{self, file_type};
use wushi_formats::huggingface::CONFIG;
use wushi_formats::{Checkpoint, Folder, FormatError, Metadata};

use crate::config::ModelError;

mod rope;

/// How the folders of one model class are read.
pub(crate) struct Import {
    /// The name of the class that `config.json` gives first in `architectures`.
    pub(crate) class: &'static str,
    /// `general.architecture` of what becomes of them.
    pub(crate) architecture: &'static str,
    /// Says metadata and tensors.
    pub(crate) describe: fn(&mut Importer) -> Result<(), ModelError>,
}

/// What becomes of a linear layer or norm on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum As {
    /// Nothing.
    Same,
    /// Its rows are of so many heads, whose halves rotate together there and neighbours here.
    Pairs(usize),
    /// The norm multiplies by one plus its weight there, by its weight here.
    PlusOne,
}

/// A part of a layer: its name here, its name there.
pub(crate) type Parts<'a> = &'a [(&'a str, &'a str, As)];

/// A folder on its way to a checkpoint.
pub(crate) struct Importer {
    folder: Folder,
    /// Where the text model's keys are, if not at the top of `config.json`.
    section: Option<&'static str>,
    /// What the class takes keys to be that are not there.
    defaults: Map<String, Value>,
    /// What the names of the text model's tensors begin with.
    prefix: &'static str,
    architecture: &'static str,
    metadata: Metadata,
    tensors: Vec<(String, Recipe)>,
}

/// Reads a folder by the import that its configuration asks for.
pub(crate) fn import<'a>(
    folder: Folder,
    imports: impl Iterator<Item = &'a Import> + Clone,
) -> Result<Checkpoint, ModelError> {
    let class =
        folder.config().get("architectures").and_then(|classes| classes.get(0)).and_then(Value::as_str);
    let class = class.ok_or_else(|| json_error("it does not say which model this is (`architectures`)"))?;
    let Some(import) = imports.clone().find(|import| import.class == class) else {
        return Err(ModelError::UnknownArchitecture {
            name: shown(class),
            supported: imports.map(|import| import.class).collect::<Vec<_>>().join(", "),
        });
    };
    if let Some(quantised) = folder.config().get("quantization_config").filter(|config| !config.is_null()) {
        let method = quantised.get("quant_method").and_then(Value::as_str).unwrap_or("unnamed");
        return Err(ModelError::Unsupported {
            key: "quantization_config".to_owned(),
            value: shown(method),
            hint: "take the model in F32, F16 or BF16; it can be quantised while it is loaded",
        });
    }
    let mut importer = Importer {
        folder,
        section: None,
        defaults: Map::new(),
        prefix: "model.",
        architecture: import.architecture,
        metadata: Metadata::new(),
        tensors: Vec::new(),
    };
    // Classes without an output matrix save their tensors so.
    if importer.has("embed_tokens.weight") {
        importer.prefix = "";
    }
    importer.general()?;
    (import.describe)(&mut importer)?;
    importer.finish()
}

fn json_error(problem: &str) -> ModelError {
    FormatError::BadJson { file: CONFIG.to_owned(), problem: problem.to_owned() }.into()
}

/// A file's own words, short and without control characters.
pub(crate) fn shown(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    text.chars().take(100).map(shown).collect()
}

impl Importer {
    /// Reads the text model of several that share a folder: its keys in this section of `config.json` first, its tensors
    /// below this name; those of the other models are left alone.
    pub(crate) fn enter(&mut self, section: &'static str, prefix: &'static str) {
        let others =
            self.folder.tensor_names().filter(|name| !name.starts_with(prefix) && *name != "lm_head.weight");
        let others: Vec<String> = others.map(str::to_owned).collect();
        others.iter().for_each(|name| self.folder.ignore(name));
        (self.section, self.prefix) = (Some(section), prefix);
    }

    /// What the class takes these keys to be where they are not there.
    pub(crate) fn defaults(&mut self, defaults: Value) {
        if let Value::Object(defaults) = defaults {
            self.defaults = defaults;
        }
    }

    /// Tensors that embeddings do not need, if they are there.
    pub(crate) fn ignore(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.folder.ignore(name));
    }

    /// A value of `config.json`, if there is one that is not null.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        let config = self.folder.config();
        let section = self.section.and_then(|section| config.get(section));
        section
            .and_then(|section| section.get(key))
            .or_else(|| config.get(key))
            .or_else(|| self.defaults.get(key))
            .filter(|value| !value.is_null())
    }

    /// A count that has no default.
    pub(crate) fn count(&self, key: &str) -> Result<usize, ModelError> {
        let missing = || json_error(&format!("key `{key}` is missing"));
        self.count_if(key)?.ok_or_else(missing)
    }

    /// A count that has a default.
    pub(crate) fn count_or(&self, key: &str, default: usize) -> Result<usize, ModelError> {
        Ok(self.count_if(key)?.unwrap_or(default))
    }

    /// A positive whole number, if it is there.
    pub(crate) fn count_if(&self, key: &str) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok()).filter(|&count| count > 0);
        match count {
            Some(count) => Ok(Some(count as usize)),
            None => Err(self.invalid(key, value, "it must be a whole number, at least 1")),
        }
    }

    /// A number, if it is there.
    pub(crate) fn number_if(&self, key: &str) -> Result<Option<f32>, ModelError> {
        self.get(key).map(|value| self.to_number(key, value)).transpose()
    }

    fn to_number(&self, key: &str, value: &Value) -> Result<f32, ModelError> {
        let number = value.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
        number.ok_or_else(|| self.invalid(key, value, "it must be a number"))
    }

    /// A truth value, false unless it is there.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, ModelError> {
        match self.get(key) {
            None => Ok(false),
            Some(value) => {
                value.as_bool().ok_or_else(|| self.invalid(key, value, "it must be true or false"))
            }
        }
    }

    /// Refuses a key that says anything but `allowed`, unless it is not there.
    pub(crate) fn only(&self, key: &str, allowed: &[&str], hint: &'static str) -> Result<(), ModelError> {
        match self.get(key) {
            Some(value) if !allowed.iter().any(|allowed| value == allowed) => {
                Err(self.unsupported(key, value, hint))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a key that is set to anything but false or nothing.
    pub(crate) fn refuse(&self, key: &str, hint: &'static str) -> Result<(), ModelError> {
        match self.get(key) {
            Some(value) if *value != Value::Bool(false) => Err(self.unsupported(key, value, hint)),
            _ => Ok(()),
        }
    }

    pub(crate) fn invalid(&self, key: &str, value: &Value, reason: &'static str) -> ModelError {
        ModelError::Invalid { key: key.to_owned(), value: shown(&value.to_string()), reason }
    }

    pub(crate) fn unsupported(&self, key: &str, value: &Value, hint: &'static str) -> ModelError {
        ModelError::Unsupported { key: key.to_owned(), value: shown(&value.to_string()), hint }
    }

    /// Sets a key below the architecture's name.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<gguf::Value>) {
        self.metadata.set(format!("{}.{key}", self.architecture), value);
    }

    /// Sets a count below the architecture's name.
    pub(crate) fn set_count(&mut self, key: &str, count: usize) {
        // Counts were read as 32 bits.
        self.set(key, count as u32);
    }

    /// Adds a tensor.
    pub(crate) fn tensor(&mut self, name: impl Into<String>, recipe: Recipe) {
        self.tensors.push((name.into(), recipe));
    }

    /// Adds a tensor of one from each of so many experts. What is missing is noticed as it is come to, so that no number
    /// in a file makes this loop for long.
    pub(crate) fn experts(
        &mut self,
        name: String,
        experts: usize,
        there: impl Fn(usize) -> String,
    ) -> Result<(), ModelError> {
        let mut each = Vec::new();
        for expert in 0..experts {
            let there = there(expert);
            self.needs(&there)?;
            each.push(there);
        }
        self.tensor(name, Recipe::stacked(each));
        Ok(())
    }

    fn needs(&self, there: &str) -> Result<(), ModelError> {
        match self.has(there) {
            true => Ok(()),
            false => Err(FormatError::MissingTensor(there.to_owned()).into()),
        }
    }

    /// Adds the weight of a linear layer, norm or table, and its bias if the folder has one.
    pub(crate) fn part(&mut self, name: &str, there: &str, how: As) -> Result<(), ModelError> {
        for (end, optional) in [("weight", false), ("bias", true)] {
            let there = format!("{there}.{end}");
            if optional && !self.has(&there) {
                continue;
            }
            self.needs(&there)?;
            let recipe = Recipe::tensor(there);
            let recipe = match how {
                As::Same => recipe,
                As::Pairs(heads) => recipe.pair_heads(heads),
                As::PlusOne => recipe.plus_one(),
            };
            self.tensor(format!("{name}.{end}"), recipe);
        }
        Ok(())
    }

    /// Whether the folder has a tensor.
    pub(crate) fn has(&self, there: &str) -> bool {
        self.folder.shape(there).is_some()
    }

    /// The sizes that all decoders have, under their usual names. Gives the number of layers.
    pub(crate) fn sizes(&mut self) -> Result<usize, ModelError> {
        let layers = self.count("num_hidden_layers")?;
        // Every layer has tensors of its own, so that no number in a file makes this loop for long.
        if layers > self.folder.tensor_names().count() {
            let value = Value::from(layers);
            return Err(self.invalid("num_hidden_layers", &value, "the files have tensors for fewer layers"));
        }
        let heads = self.count("num_attention_heads")?;
        self.set_count("block_count", layers);
        for (key, there) in [
            ("context_length", "max_position_embeddings"),
            ("embedding_length", "hidden_size"),
            ("feed_forward_length", "intermediate_size"),
            ("vocab_size", "vocab_size"),
        ] {
            let count = self.count(there)?;
            self.set_count(key, count);
        }
        self.set_count("attention.head_count", heads);
        let kv_heads = self.count_or("num_key_value_heads", heads)?;
        self.set_count("attention.head_count_kv", kv_heads);
        if let Some(eps) = self.number_if("rms_norm_eps")? {
            self.set("attention.layer_norm_rms_epsilon", eps);
        }
        if let Some(length) = self.count_if("head_dim")? {
            self.set_count("attention.key_length", length);
            self.set_count("attention.value_length", length);
        }
        Ok(layers)
    }

    /// Elements of a head.
    pub(crate) fn head_dim(&self) -> Result<usize, ModelError> {
        let heads = self.count("num_attention_heads")?;
        match self.count_if("head_dim")? {
            Some(length) => Ok(length),
            None => Ok(self.count("hidden_size")? / heads),
        }
    }

    /// Query heads, and heads of keys and values.
    pub(crate) fn heads(&self) -> Result<(usize, usize), ModelError> {
        let heads = self.count("num_attention_heads")?;
        Ok((heads, self.count_or("num_key_value_heads", heads)?))
    }

    /// Embedding, layers, last norm, output: under their usual names, with these parts in a layer.
    pub(crate) fn decoder(&mut self, layers: usize, parts: Parts<'_>, norm: As) -> Result<(), ModelError> {
        let prefix = self.prefix;
        self.part("token_embd", &format!("{prefix}embed_tokens"), As::Same)?;
        for layer in 0..layers {
            self.layer(layer, &format!("{prefix}layers.{layer}"), parts)?;
        }
        self.part("output_norm", &format!("{prefix}norm"), norm)?;
        let pooling = self.pooling()?;
        if let Some(pooling) = pooling {
            self.set("pooling_type", pooling);
        }
        // A tied output matrix is sometimes stored all the same, and embeddings need none.
        match self.flag("tie_word_embeddings")? || pooling.is_some() {
            true => self.folder.ignore("lm_head.weight"),
            false => self.part("output", "lm_head", As::Same)?,
        }
        Ok(())
    }

    /// `pooling_type`, from what `sentence-transformers` puts beside an embedding model.
    pub(crate) fn pooling(&self) -> Result<Option<u32>, ModelError> {
        let Some(config) = self.folder.json("1_Pooling/config.json")? else { return Ok(None) };
        // One word in newer files, a switch for each in older ones.
        let word = config.get("pooling_mode").and_then(Value::as_str);
        let on = |mode: &str| config.get(format!("pooling_mode_{mode}")).is_some_and(|on| on == true);
        for (kind, newer, older) in
            [(1, "mean", "mean_tokens"), (2, "cls", "cls_token"), (3, "lasttoken", "lasttoken")]
        {
            if word == Some(newer) || word.is_none() && on(older) {
                return Ok(Some(kind));
            }
        }
        Err(self.unsupported("1_Pooling/config.json", &config, "mean, cls and last token are"))
    }

    /// The parts of one layer, whose names there begin with `there`.
    pub(crate) fn layer(&mut self, layer: usize, there: &str, parts: Parts<'_>) -> Result<(), ModelError> {
        for (name, part, how) in parts {
            self.part(&format!("blk.{layer}.{name}"), &format!("{there}.{part}"), *how)?;
        }
        Ok(())
    }

    /// What is said of any model.
    fn general(&mut self) -> Result<(), ModelError> {
        self.metadata.set("general.architecture", self.architecture);
        self.metadata.set("general.type", "model");
        if let Some(name) = self.folder.name() {
            self.metadata.set("general.name", name);
        }
        if let Some(licence) = self.folder.licence()? {
            self.metadata.set("general.license", licence);
        }
        if let Some(dtype) = self.folder.main_type() {
            self.metadata.set("general.file_type", file_type(dtype));
        }
        let generation = self.folder.json("generation_config.json")?.unwrap_or_default();
        for (key, there) in [
            ("temp", "temperature"),
            ("top_p", "top_p"),
            ("min_p", "min_p"),
            ("penalty_repeat", "repetition_penalty"),
        ] {
            if let Some(value) = generation.get(there).filter(|value| !value.is_null()) {
                let number = self.to_number(&format!("generation_config.json: {there}"), value)?;
                self.metadata.set(format!("general.sampling.{key}"), number);
            }
        }
        if let Some(value) = generation.get("top_k").filter(|value| !value.is_null()) {
            // Negative numbers say no limit, as 0 does.
            let count = value.as_i64().and_then(|count| i32::try_from(count.max(0)).ok());
            let count = count.ok_or_else(|| {
                self.invalid("generation_config.json: top_k", value, "it must be a whole number")
            })?;
            self.metadata.set("general.sampling.top_k", count);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Checkpoint, ModelError> {
        let embedding = self.tensors.iter().find(|(name, _)| name == "token_embd.weight");
        let vocabulary = embedding.and_then(|(_, recipe)| recipe.stored_name());
        let vocabulary = vocabulary.and_then(|name| self.folder.shape(name)).and_then(|shape| shape.first());
        let vocabulary = *vocabulary.ok_or(ModelError::NoEmbedding)?;
        self.folder.import_tokenizer(vocabulary, &mut self.metadata)?;
        Ok(self.folder.into_checkpoint(self.metadata, self.tensors)?)
    }
}
