//! What is kept of a request: enough to run it again and to compare every bit.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wushi_engine::{FinishReason, Sampling};

/// A BLAKE3 digest, written in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of token ids, each as 4 bytes, the lowest first.
    pub fn of_ids(ids: &[u32]) -> Digest {
        let mut hasher = blake3::Hasher::new();
        ids.iter().for_each(|id| {
            hasher.update(&id.to_le_bytes());
        });
        Digest(*hasher.finalize().as_bytes())
    }

    /// Of a text's UTF-8.
    pub fn of_text(text: &str) -> Digest {
        Digest(*blake3::hash(text.as_bytes()).as_bytes())
    }

    /// Of an embedding's numbers, each as 4 bytes, the lowest first.
    pub fn of_numbers(numbers: &[f32]) -> Digest {
        let mut hasher = blake3::Hasher::new();
        numbers.iter().for_each(|number| {
            hasher.update(&number.to_le_bytes());
        });
        Digest(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Digest, String> {
        blake3::Hash::from_hex(text).map(|hash| Digest(*hash.as_bytes())).map_err(|_| {
            format!("`{}` is no digest: 64 hexadecimal digits were expected", text.escape_default())
        })
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One request, after it has ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuditRecord {
    /// The response's id, as in `chatcmpl-…`; no two are the same.
    pub id: String,
    /// When it came, in milliseconds since 1970-01-01 UTC.
    pub time: u64,
    /// The public id of the key, if the server has keys.
    pub key: Option<String>,
    /// The path it came to, as in `/v1/chat/completions`.
    pub endpoint: String,
    /// The model's name, as the request said it.
    pub model: String,
    /// SHA-256 of the model's file, if it is known.
    pub model_digest: Option<String>,
    /// What determines logits, see `wushi_engine::load::LoadPlan::fingerprint`.
    pub fingerprint: Digest,
    /// How the model was loaded.
    pub loading: Loading,
    /// What was asked for.
    pub parameters: Parameters,
    /// The prompts: one of a chat or a video, any number of completions and embeddings.
    pub prompts: Vec<Prompt>,
    /// The answers, in the order of the response.
    pub choices: Vec<Choice>,
    /// Tokens of all prompts that were found in the prefix cache.
    pub cached_tokens: u64,
    /// From its arrival to the first step it had a part in, in milliseconds.
    pub queue_ms: u64,
    /// From its arrival to the first token, if there was one.
    pub ttft_ms: Option<u64>,
    /// From its arrival to its end.
    pub total_ms: u64,
    /// How it ended.
    pub status: Status,
    /// The texts as token ids, if they are to be kept.
    pub text: Option<Text>,
}

impl AuditRecord {
    /// Tokens of all prompts, each prompt once.
    pub fn prompt_tokens(&self) -> u64 {
        self.prompts.iter().map(|prompt| u64::from(prompt.tokens)).sum()
    }

    /// Tokens of all answers.
    pub fn completion_tokens(&self) -> u64 {
        self.choices.iter().map(|choice| u64::from(choice.completion_tokens)).sum()
    }
}

/// How a model was loaded, as far as it matters for the bits of an answer; to load it in the same way again, and to say
/// what has changed when its fingerprint is another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Loading {
    /// What `wushi run` would be given: a short name, `hf:…`, an address or a path.
    pub reference: String,
    /// The longest sequence in tokens.
    pub context: u64,
    /// The type the weights were quantised to while loading.
    pub quant: Option<String>,
    /// The type of cached keys and values; of a model of video empty unless one was wanted.
    pub cache: String,
    /// How positions were stretched.
    pub rope_scaling: Option<String>,
    /// The type of a video's decoder, if another was wanted than its file has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder: Option<String>,
    /// The version of the arithmetic.
    pub arithmetic: u32,
    /// The program's version.
    pub version: String,
}

/// All that decides an answer besides the model and the text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Parameters {
    /// How tokens were chosen.
    pub sampling: SamplingRecord,
    /// Key of the random numbers, drawn if the request had none.
    pub seed: u64,
    /// Answers to each prompt.
    pub n: u32,
    /// The most tokens of an answer; `None`: up to the end of the context.
    pub max_tokens: Option<u64>,
    /// Tokens that end an answer.
    pub stop_tokens: Vec<u32>,
    /// Digests of the texts that end an answer.
    pub stop_strings: Vec<Digest>,
    /// What the answer had to be like.
    pub constraint: Option<ConstraintRecord>,
    /// How tokens' states became an embedding.
    pub embedding: Option<EmbeddingRecord>,
    /// What a video was like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoRecord>,
}

impl Default for Parameters {
    fn default() -> Parameters {
        Parameters {
            sampling: SamplingRecord::from(&Sampling::default()),
            seed: 0,
            n: 1,
            max_tokens: None,
            stop_tokens: Vec::new(),
            stop_strings: Vec::new(),
            constraint: None,
            embedding: None,
            video: None,
        }
    }
}

/// A constraint on an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConstraintRecord {
    /// Of which kind it was, as in `json_schema`.
    pub kind: String,
    /// Of its source.
    pub digest: Digest,
}

/// How an embedding was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbeddingRecord {
    /// `mean`, `last`, `first`, or what else there is.
    pub pooling: String,
    /// Whether its length became 1.
    pub normalised: bool,
    /// How many of its numbers were kept.
    pub dimensions: Option<u32>,
}

/// All that decides a video besides the model, the prompt and the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VideoRecord {
    /// Pixels.
    pub width: u64,
    /// Pixels.
    pub height: u64,
    /// Frames.
    pub frames: u64,
    /// Frames a second.
    pub fps: u32,
    /// Steps of denoising.
    pub steps: u64,
    /// How far noise levels were shifted towards noise.
    pub shift: Exact,
    /// Of the first denoiser, or of the only one.
    pub guidance: Exact,
    /// Of the second denoiser, where there are two.
    pub guidance_low: Option<Exact>,
    /// Where the second denoiser took over, where there are two.
    pub boundary: Option<Exact>,
    /// How the latents were moved, as in `unipc`.
    pub sampler: String,
    /// How noise levels lay, as in `training`.
    pub spacing: String,
    /// How timesteps were rounded, as in `floor`.
    pub timesteps: String,
    /// Of what the video should not be.
    pub negative: Digest,
    /// What its file was, as in `mp4`.
    pub format: String,
}

/// [`Sampling`], with numbers as text: JSON has no infinity, and text gives the very same number back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are those of Sampling")]
pub struct SamplingRecord {
    pub temperature: Exact,
    pub top_k: u64,
    pub top_p: Exact,
    pub min_p: Exact,
    pub repetition_penalty: Exact,
    pub presence_penalty: Exact,
    pub frequency_penalty: Exact,
    pub logit_bias: Vec<(u32, Exact)>,
}

impl Default for SamplingRecord {
    fn default() -> SamplingRecord {
        SamplingRecord::from(&Sampling::default())
    }
}

impl From<&Sampling> for SamplingRecord {
    fn from(sampling: &Sampling) -> SamplingRecord {
        // All fields by name, so that a new one cannot be forgotten.
        let Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            logit_bias,
        } = sampling;
        SamplingRecord {
            temperature: Exact(*temperature),
            top_k: *top_k as u64,
            top_p: Exact(*top_p),
            min_p: Exact(*min_p),
            repetition_penalty: Exact(*repetition_penalty),
            presence_penalty: Exact(*presence_penalty),
            frequency_penalty: Exact(*frequency_penalty),
            logit_bias: logit_bias.iter().map(|&(id, bias)| (id, Exact(bias))).collect(),
        }
    }
}

impl From<&SamplingRecord> for Sampling {
    fn from(record: &SamplingRecord) -> Sampling {
        Sampling {
            temperature: record.temperature.0,
            top_k: usize::try_from(record.top_k).unwrap_or(usize::MAX),
            top_p: record.top_p.0,
            min_p: record.min_p.0,
            repetition_penalty: record.repetition_penalty.0,
            presence_penalty: record.presence_penalty.0,
            frequency_penalty: record.frequency_penalty.0,
            logit_bias: record.logit_bias.iter().map(|&(id, bias)| (id, bias.0)).collect(),
        }
    }
}

/// A number whose every bit comes back, infinities included; only NaNs are all one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Exact(pub f32);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Exact, D::Error> {
        String::deserialize(deserializer)?.parse().map(Exact).map_err(serde::de::Error::custom)
    }
}

/// A prompt without its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// How many tokens it has.
    pub tokens: u32,
    /// [`Digest::of_ids`] of them.
    pub digest: Digest,
}

impl Prompt {
    /// Of these tokens.
    pub fn of(ids: &[u32]) -> Prompt {
        Prompt { tokens: u32::try_from(ids.len()).unwrap_or(u32::MAX), digest: Digest::of_ids(ids) }
    }
}

/// An answer without its text: a continuation of a prompt, its embedding, or its video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The index of its prompt.
    pub prompt: u32,
    /// `choice` of the engine's request: which random numbers it had.
    pub choice: u32,
    /// Tokens that were generated, a stop token included.
    pub completion_tokens: u32,
    /// Why it ended; `None` if it failed, and of an embedding or a video.
    pub ending: Option<Ending>,
    /// Of its logits, [`Digest::of_numbers`] of the embedding, or of the video's frames.
    pub digest: Option<Digest>,
}

/// Why an answer ended: [`FinishReason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// This stop token was chosen.
    StopToken(u32),
    /// The stop string of this index came up.
    StopString(u32),
    /// A limit of tokens was reached.
    Length,
    /// The client went away, or the server ended.
    Cancelled,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::StopToken(id) => write!(f, "stop token {id}"),
            Ending::StopString(index) => write!(f, "stop string {index}"),
            Ending::Length => f.write_str("limit of tokens"),
            Ending::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl From<FinishReason> for Ending {
    fn from(reason: FinishReason) -> Ending {
        match reason {
            FinishReason::StopToken(id) => Ending::StopToken(id),
            FinishReason::StopString(index) => Ending::StopString(u32::try_from(index).unwrap_or(u32::MAX)),
            FinishReason::Length => Ending::Length,
            FinishReason::Cancelled => Ending::Cancelled,
        }
    }
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All answers are complete.
    Ok,
    /// The client went away, or the server ended.
    Cancelled,
    /// With this error.
    Failed(String),
}

/// The texts of a request, kept only if the server was told to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Text {
    /// Token ids of the prompts.
    pub prompts: Vec<Vec<u32>>,
    /// Token ids of the answers, as many as there are choices.
    pub completions: Vec<Vec<u32>>,
    /// Texts that end an answer.
    pub stop_strings: Vec<String>,
    /// The source of the constraint, of the kind that the parameters name.
    pub constraint: Option<String>,
    /// What stood before the answer and was not generated, if the constraint must know.
    pub prefix: Option<String>,
    /// What a video shows, and what it should not be. Its tokens alone would not give it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<[String; 2]>,
}

/// The form that [`Text::to_bytes`] writes.
const FORM: u8 = 1;
/// The form with the texts of a video behind all else.
const VIDEO_FORM: u8 = 2;

impl Text {
    /// Compactly: numbers in 7 bits a byte, the lowest first, lists and texts after their lengths. An id takes two bytes or
    /// three.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![if self.video.is_some() { VIDEO_FORM } else { FORM }];
        for list in [&self.prompts, &self.completions] {
            write_number(&mut bytes, list.len());
            for ids in list {
                write_number(&mut bytes, ids.len());
                ids.iter().for_each(|&id| write_number(&mut bytes, id as usize));
            }
        }
        write_number(&mut bytes, self.stop_strings.len());
        self.stop_strings.iter().for_each(|text| write_text(&mut bytes, text));
        for text in [&self.constraint, &self.prefix] {
            bytes.push(u8::from(text.is_some()));
            if let Some(text) = text {
                write_text(&mut bytes, text);
            }
        }
        self.video.iter().flatten().for_each(|text| write_text(&mut bytes, text));
        bytes
    }

    /// What [`Text::to_bytes`] wrote; `None` if it was something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Text> {
        let (&form, mut rest) = bytes.split_first()?;
        if ![FORM, VIDEO_FORM].contains(&form) {
            return None;
        }
        let bytes = &mut rest;
        let text = Text {
            prompts: read_list(bytes, |bytes| read_list(bytes, read_id))?,
            completions: read_list(bytes, |bytes| read_list(bytes, read_id))?,
            stop_strings: read_list(bytes, read_text)?,
            constraint: read_option(bytes)?,
            prefix: read_option(bytes)?,
            video: match form {
                VIDEO_FORM => Some([read_text(bytes)?, read_text(bytes)?]),
                _ => None,
            },
        };
        bytes.is_empty().then_some(text)
    }
}

fn write_number(bytes: &mut Vec<u8>, number: usize) {
    let mut rest = number;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

fn write_text(bytes: &mut Vec<u8>, text: &str) {
    write_number(bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
}

fn read_number(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0u64;
    // Nothing is longer than 2^35.
    for shift in [0, 7, 14, 21, 28] {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return usize::try_from(number).ok();
        }
    }
    None
}

fn read_id(bytes: &mut &[u8]) -> Option<u32> {
    u32::try_from(read_number(bytes)?).ok()
}

fn read_list<T>(bytes: &mut &[u8], read: impl Fn(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let length = read_number(bytes)?;
    // Every element has a byte at least, so that a wrong length allocates nothing.
    (length <= bytes.len()).then_some(())?;
    (0..length).map(|_| read(bytes)).collect()
}

fn read_text(bytes: &mut &[u8]) -> Option<String> {
    let length = read_number(bytes)?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

fn read_option(bytes: &mut &[u8]) -> Option<Option<String>> {
    let (&there, rest) = bytes.split_first()?;
    *bytes = rest;
    match there {
        0 => Some(None),
        1 => read_text(bytes).map(Some),
        _ => None,
    }
}
