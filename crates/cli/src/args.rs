//! The command line as it is typed.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use wushi_graph::DType;

use crate::knobs::{Common, Compute, Generation, Networks, Records, Serving, ServingVideos, Video};

/// The model that `wushi run` takes when none is named.
pub(crate) const DEFAULT_MODEL: &str = "smollm2";

const MODELS: &str = "\
MODEL is one of
  smollm2                    a short name of the catalogue (`wushi list` shows them)
  hf:org/repo                a repository on Hugging Face: its safetensors, or its only GGUF
  hf:org/repo/file.gguf      a file on Hugging Face
  https://host/file.gguf     an address
  ./file.gguf, ./folder      a GGUF file or a folder of safetensors on this disk
What is not on this disk yet is fetched and verified first.";

const KNOBS: &str = "\
Flags with a default can also be set in the environment (WUSHI_THREADS=4) and in wushi.toml (threads = 4), in the \
current folder or in the user's configuration folder. A flag wins over the environment, and that over the file.";

/// Runs AI models on one's own machines, with answers that are the same to the bit every time.
#[derive(Debug, Parser)]
#[command(name = "wushi", version, after_help = MODELS, after_long_help = format!("{MODELS}\n\n{KNOBS}"))]
#[command(propagate_version = true, max_term_width = 120)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
    /// Log more to stderr: -v what happens, -vv every step
    #[arg(short, long, action = ArgAction::Count, global = true, help_heading = "Everywhere")]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(RunArgs),
    Video(VideoArgs),
    Serve(ServeArgs),
    Pull(PullArgs),
    List(ListArgs),
    Rm(RmArgs),
    Inspect(InspectArgs),
    Embed(EmbedArgs),
    Convert(ConvertArgs),
    Tokenize(TokenizeArgs),
    Perplexity(PerplexityArgs),
    Bench(BenchArgs),
    Key(KeyArgs),
    Replay(ReplayArgs),
}

/// Answer one prompt, or chat
///
/// With PROMPT, or with text on stdin, the answer is written to stdout as it comes. In a terminal and without a prompt, a
/// chat begins: Enter sends, Ctrl-C stops an answer and leaves at the prompt, /help lists the commands.
///
/// The prompt goes through the model's own chat template as the user's message; with --raw, or if the model has no
/// template, the model simply continues the text.
///
/// The same model, prompt, settings and seed give the same answer to the bit, on any number of threads and on any
/// processor. A seed that was drawn is reported on stderr and in --json.
#[derive(Debug, Args)]
#[command(after_help = MODELS, after_long_help = format!("{MODELS}\n\n{RUN_EXAMPLES}\n\n{KNOBS}"))]
pub(crate) struct RunArgs {
    /// Which model
    #[arg(default_value = DEFAULT_MODEL)]
    pub(crate) model: String,
    /// What to answer; without it, stdin is read
    pub(crate) prompt: Option<String>,
    /// Continue the text as it is, without the chat template
    #[arg(long)]
    pub(crate) raw: bool,
    /// Write one JSON object to stdout when the answer is complete
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) generation: Generation,
    #[command(flatten)]
    pub(crate) compute: Compute,
}

const RUN_EXAMPLES: &str = "\
Examples:
  wushi run smollm2 \"Why is the sky blue?\"
  wushi run smollm2 --seed 7 --max-tokens 50 --json \"Name three rivers.\"
  git diff | wushi run smollm2 --system \"Write a commit message for this diff.\"";

const VIDEO_MODELS: &str = "\
MODEL is one of
  ./folder                   a folder as diffusers writes it, or with the files of the original release
  ./dit.gguf                 the network that denoises, GGUF or safetensors; --vae, --text-encoder and --tokenizer name the others
  hf:org/repo                a repository on Hugging Face that is such a folder
What is not on this disk yet is fetched and verified first. MODEL may be left out if --dit, --vae and --text-encoder are there.";

/// Make a video of a text
///
/// The model is a text encoder, one or two networks that denoise, and a VAE that makes frames: the Wan family. They are loaded
/// one after the other, so memory is needed for the largest only. Before anything is loaded, the memory and the time that
/// the video takes are told, and what cannot fit is refused with sizes that would. --plan stops there.
///
/// Frames are encoded as they are decoded. The file appears under its name when it is complete, and not before. If --output
/// names a file that is there, it is replaced then; without --output the name is made of the prompt and the seed, in
/// the current folder, and a file that is there is never replaced.
///
/// After each step of denoising, what it came to is saved in the folder `video` of --home until the video is there; the
/// states of the last prompts stay there as well. --resume goes on from it: the same model, prompt and settings; --seed
/// may be left out. Ctrl-C ends the run cleanly; a second one at once.
///
/// The same model, prompt, settings and seed give the same frames to the bit, on any number of threads and on any
/// processor; `frames_digest` of --json is their BLAKE3. A seed that was drawn is reported.
#[derive(Debug, Args)]
#[command(after_help = VIDEO_MODELS, after_long_help = format!("{VIDEO_MODELS}\n\n{VIDEO_EXAMPLES}\n\n{KNOBS}"))]
pub(crate) struct VideoArgs {
    /// Which model
    pub(crate) model: Option<String>,
    /// What the video shall show; without it, stdin is read
    pub(crate) prompt: Option<String>,
    /// The file, or the folder of pictures, to write [default: named by prompt and seed]
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// Say what the video takes and stop
    #[arg(long)]
    pub(crate) plan: bool,
    /// Go on with a run of the same settings that was lost, after its last step
    #[arg(long, conflicts_with = "plan")]
    pub(crate) resume: bool,
    /// Start from these latents instead of noise: safetensors, tensor `latents`, of shape 1,C,T,H,W
    #[arg(long, value_name = "FILE")]
    pub(crate) init_latents: Option<PathBuf>,
    /// Write the frames before they are encoded: safetensors, tensor `video`, of shape 1,F,3,H,W, F32 in 0 to 1
    #[arg(long, value_name = "FILE")]
    pub(crate) save_frames: Option<PathBuf>,
    /// Write one JSON object to stdout when the video is complete
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) files: VideoFiles,
    #[command(flatten)]
    pub(crate) video: Video,
    #[command(flatten)]
    pub(crate) networks: Networks,
}

/// Parts of a video model that are named one by one.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Files of a video model, in the place of MODEL's own")]
pub(crate) struct VideoFiles {
    /// The network that denoises, at first if there are two: GGUF, safetensors, a checkpoint of PyTorch, or a folder
    #[arg(long, value_name = "FILE")]
    pub(crate) dit: Option<PathBuf>,
    /// The network that denoises when little noise is left
    #[arg(long, value_name = "FILE")]
    pub(crate) dit_2: Option<PathBuf>,
    /// The network that makes frames
    #[arg(long, value_name = "FILE")]
    pub(crate) vae: Option<PathBuf>,
    /// The network that reads the prompt
    #[arg(long, value_name = "FILE")]
    pub(crate) text_encoder: Option<PathBuf>,
    /// Its tokenizer: tokenizer.json or spiece.model, or a folder with one; a GGUF text encoder may bring its own
    #[arg(long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
}

const VIDEO_EXAMPLES: &str = "\
Examples:
  wushi video ./Wan2.1-T2V-1.3B-Diffusers \"A red fox in the snow\" --plan
  wushi video ./Wan2.1-T2V-1.3B-Diffusers \"A red fox in the snow\" -o fox.mp4 --size 256x256 --frames 17 --steps 20
  wushi video --dit wan2.1-1.3b-q8_0.gguf --vae wan_2.1_vae.safetensors --text-encoder umt5-xxl-q8_0.gguf \"A red fox\" -o fox.gif
  wushi video ./Wan2.1-T2V-1.3B-Diffusers \"A red fox in the snow\" -o fox.mp4 --size 256x256 --frames 17 --steps 20 --resume";

/// Serve models over HTTP, with a page to talk to
///
/// OpenAI's and Anthropic's clients work without a change: give them http://127.0.0.1:8000/v1 as base URL (Anthropic's:
/// without /v1). The page is at http://127.0.0.1:8000/. Without a model, all that are on this disk are served, or the
/// default one if there are none. The first is loaded at once, others when they are first asked for; what has been idle the
/// longest goes when memory runs out.
///
/// A folder with the networks of a model that makes videos, as `wushi video` takes it, is served beside or without models of
/// text. Videos are jobs, made one at a time while nobody waits for text. They are kept beside the database, and go on after the
/// server was ended, or killed, from the last step that was saved.
///
/// Without keys, only this machine is served. `wushi key add NAME` makes one; from then on every request needs one.
///
/// Ctrl-C and SIGTERM let nobody in any more and wait for the answers under way.
#[derive(Debug, Args)]
#[command(after_help = MODELS, after_long_help = format!("{MODELS}\n\n{SERVE_EXAMPLES}\n\n{KNOBS}"))]
pub(crate) struct ServeArgs {
    /// Which models; NAME=MODEL serves one under another name
    pub(crate) models: Vec<String>,
    /// What other servers have: said better than guessed
    #[arg(long, value_name = "KEY", hide = true)]
    pub(crate) api_key: Option<String>,
    #[command(flatten)]
    pub(crate) serving: Serving,
    #[command(flatten)]
    pub(crate) videos: ServingVideos,
    #[command(flatten)]
    pub(crate) compute: Compute,
    #[command(flatten)]
    pub(crate) records: Records,
}

const SERVE_EXAMPLES: &str = "\
Examples:
  wushi serve smollm2
  wushi serve coder=./qwen2.5-coder.gguf smollm2 --memory 8G
  wushi serve smollm2 wan=./Wan2.1-T2V-1.3B-Diffusers --keep-videos 30
  wushi key add alice && wushi serve --host 0.0.0.0";

/// Fetch a model and verify it
#[derive(Debug, Args)]
#[command(after_help = MODELS)]
pub(crate) struct PullArgs {
    /// Which model
    pub(crate) model: String,
    /// Write one JSON object to stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// List the models on this disk, and those that have a short name
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Write one JSON object to stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// Remove a model from this disk
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Its name, as `wushi list` shows it
    pub(crate) model: String,
    /// Write one JSON object to stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show what a model is: architecture, parameters, quantisation, context, licence, chat template
///
/// Of a model that makes videos: its networks, their parameters and types, and sizes; --schedule shows the steps of its
/// denoiser and of its decoder for --size and --frames.
#[derive(Debug, Args)]
#[command(after_help = MODELS)]
pub(crate) struct InspectArgs {
    /// Which model
    pub(crate) model: String,
    /// List every tensor with its type, shape and bytes
    #[arg(long)]
    pub(crate) tensors: bool,
    /// List the compiled steps with their operations and bytes
    #[arg(long)]
    pub(crate) schedule: bool,
    /// Tokens of the step that --schedule shows
    #[arg(long, value_name = "N", default_value = "1", requires = "schedule", allow_negative_numbers = true, value_parser = crate::values::step_rows)]
    pub(crate) rows: usize,
    /// Size of the video that --schedule shows [default: the model's own]
    #[arg(long, value_name = "WxH", requires = "schedule", value_parser = crate::values::video_size)]
    pub(crate) size: Option<(usize, usize)>,
    /// Frames of the video that --schedule shows [default: the model's own]
    #[arg(long, value_name = "N", requires = "schedule", allow_negative_numbers = true, value_parser = crate::values::at_least_one)]
    pub(crate) frames: Option<usize>,
    /// Write one JSON object to stdout
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) files: VideoFiles,
    #[command(flatten)]
    pub(crate) compute: Compute,
}

/// Compute embeddings of texts with an embedding model
///
/// One line of numbers for each text, of length 1 unless said otherwise: the closer two texts' meanings, the greater the
/// sum of their numbers' products. How tokens become one embedding (their mean, the first, the last) is what the model's
/// files say. The same text gives the same numbers to the bit, on any number of threads and on any processor.
#[derive(Debug, Args)]
#[command(after_help = MODELS)]
pub(crate) struct EmbedArgs {
    /// Which model
    pub(crate) model: String,
    /// The texts; without any, each line of stdin is one
    pub(crate) texts: Vec<String>,
    /// Leave embeddings at the length they have
    #[arg(long)]
    pub(crate) no_normalise: bool,
    /// Write one JSON object to stdout
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) compute: Compute,
}

/// Write a model as one GGUF file, quantised if wanted
///
/// MODEL may be a folder as published on Hugging Face, a GGUF file, or one of several that a model was cut into. The file
/// holds the weights as they are stored, or quantised to --quant; vectors stay F32, and what gives the logits is never
/// coarser than Q6_K. llama.cpp reads it too. Quantise from F32, F16 or BF16: doing it twice loses twice.
#[derive(Debug, Args)]
#[command(after_help = MODELS)]
pub(crate) struct ConvertArgs {
    /// Which model
    pub(crate) model: String,
    /// The file to write
    pub(crate) out: PathBuf,
    /// Quantise the weights to TYPE, as in q8_0, q4_0 or q4_k [default: as they are stored]
    #[arg(long, value_name = "TYPE", value_parser = crate::values::storage_type)]
    pub(crate) quant: Option<DType>,
    /// Threads that quantise; the file is the same [default: all processors]
    #[arg(short, long, value_name = "N", value_parser = crate::values::threads)]
    pub(crate) threads: Option<usize>,
    /// Replace a file that is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Write one JSON object to stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show the tokens of a text
#[derive(Debug, Args)]
#[command(after_help = MODELS)]
pub(crate) struct TokenizeArgs {
    /// Which model
    pub(crate) model: String,
    /// The text; without it, stdin is read
    #[arg(allow_hyphen_values = true)]
    pub(crate) text: Option<String>,
    /// Leave out BOS and EOS, even if the model's prompts have them
    #[arg(long)]
    pub(crate) no_bos: bool,
    /// Take the names of special tokens, such as <|im_end|>, as plain text
    #[arg(long)]
    pub(crate) no_special: bool,
    /// Write one JSON object, {ids, pieces}, to stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// Measure how well a model predicts a text
///
/// The text is cut into windows of --ctx tokens that do not overlap, each with BOS in its first place if the tokenizer
/// adds one; what is left at the end is not used. The second half of each window is scored. That is the protocol of
/// llama-perplexity, so that numbers compare.
#[derive(Debug, Args)]
#[command(after_help = MODELS)]
pub(crate) struct PerplexityArgs {
    /// Which model
    pub(crate) model: String,
    /// A text in UTF-8
    pub(crate) file: PathBuf,
    /// Tokens of a window
    #[arg(short, long, value_name = "N", default_value = "512", allow_negative_numbers = true, value_parser = crate::values::at_least_one)]
    pub(crate) ctx: usize,
    /// Write one JSON object to stdout
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) compute: Compute,
}

/// Measure speed, beside what the machine can do
///
/// Prefill is measured with B prompts of P tokens submitted at once, decode with B sequences that are all past their
/// prompt. The machine's memory bandwidth and integer peak are measured just before and after each of them, in the same
/// process and with as many threads; all figures are medians.
///
/// With --steps, tables follow of what the schedule's steps took, those of one kernel over the same kind of weights together:
/// time on the first thread, multiply-adds and bytes as the schedule counts them, and what share of the machine's peak and
/// bandwidth that is. Bytes that lie in a cache can come faster than from memory. What no step took is told below: waiting at
/// barriers, preparing a batch, and the engine's work between batches.
///
/// Of a model that makes videos, a run of its denoiser and the decoding of the first and of a later latent frame are measured,
/// in turn with the machine's bandwidth and floating-point peak.
#[derive(Debug, Args)]
#[command(after_help = MODELS)]
pub(crate) struct BenchArgs {
    /// Which model
    pub(crate) model: String,
    /// Tokens of each prompt
    #[arg(short, long, value_name = "P", default_value = "256", allow_negative_numbers = true, value_parser = crate::values::at_least_one)]
    pub(crate) prompt_tokens: usize,
    /// Tokens that each sequence generates
    #[arg(short, long, value_name = "N", default_value = "64", allow_negative_numbers = true, value_parser = crate::values::at_least_one)]
    pub(crate) new_tokens: usize,
    /// Numbers of sequences, separated by commas
    #[arg(
        short, long, value_name = "B", default_value = "1,4,16,32", value_delimiter = ',',
        value_parser = crate::values::at_least_one
    )]
    pub(crate) batch: Vec<usize>,
    /// Measure nothing else: with -p 4096 and `decode`, tokens behind 4,096 others
    #[arg(long, value_name = "WHAT")]
    pub(crate) only: Option<Phase>,
    /// Size of the video, for a model that makes videos
    #[arg(long, value_name = "WxH", default_value = "256x256", value_parser = crate::values::video_size)]
    pub(crate) size: (usize, usize),
    /// Frames of the video
    #[arg(long, value_name = "N", default_value = "17", allow_negative_numbers = true, value_parser = crate::values::at_least_one)]
    pub(crate) frames: usize,
    /// Tell what the schedule's steps took; of a model that makes videos, the time of a video of N steps
    #[arg(
        long, value_name = "N", num_args = 0..=1, allow_negative_numbers = true,
        value_parser = crate::values::at_least_one
    )]
    pub(crate) steps: Option<Option<usize>>,
    /// Type of the VAE's convolutions: f32, f16 or bf16 [default: as they are stored]
    #[arg(long, value_name = "TYPE", value_parser = crate::values::vae_type)]
    pub(crate) vae_dtype: Option<DType>,
    /// How often everything is measured
    #[arg(short, long, value_name = "N", default_value = "3", allow_negative_numbers = true, value_parser = crate::values::at_least_one)]
    pub(crate) repetitions: usize,
    /// Write one JSON object to stdout
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) files: VideoFiles,
    #[command(flatten)]
    pub(crate) compute: Compute,
}

/// What a model's speed is measured of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Phase {
    /// Prompts
    Prefill,
    /// Tokens behind them
    Decode,
}

/// Make, list and remove the keys that a server's clients need
///
/// As long as there is no key, `wushi serve` answers this machine alone. A running server sees a new or removed key within a
/// second.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    Add(KeyAddArgs),
    List(KeyListArgs),
    Rm(KeyRmArgs),
}

/// Make a key, and write its secret to stdout
///
/// The secret is shown this once and stored nowhere; a client sends it as its API key.
#[derive(Debug, Args)]
pub(crate) struct KeyAddArgs {
    /// Who it is for, as lists and usage show it
    pub(crate) name: String,
    /// The most requests within any 60 seconds [default: any number]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = crate::values::requests)]
    pub(crate) requests_per_minute: Option<u32>,
    /// The most tokens of prompts and answers within a day (UTC); of a video its prompt's count [default: any number]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = crate::values::tokens)]
    pub(crate) tokens_per_day: Option<u64>,
    /// Write one JSON object to stdout
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) records: Records,
}

/// List the keys, without their secrets, and what each has used today
#[derive(Debug, Args)]
pub(crate) struct KeyListArgs {
    /// Write one JSON object to stdout
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) records: Records,
}

/// Remove a key: its secret is refused from now on
///
/// What it has used and the records of its requests stay. Its name can be given again.
#[derive(Debug, Args)]
pub(crate) struct KeyRmArgs {
    /// Its name, as `wushi key list` shows it
    pub(crate) name: String,
    /// Write one JSON object to stdout
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) records: Records,
}

/// Run a request that a server recorded again, and say whether every bit agrees
///
/// RECORD is the id of the response, as in chatcmpl-…. The request is run from the token ids that `wushi serve --audit-text`
/// keeps, or from the body of the original request with --request. Compared are the model's fingerprint, the prompt, the
/// number of tokens, why the answer ended, the token ids if they were kept, and the digest of the logits if it was recorded:
/// `wushi serve --audit` records it of all requests.
///
/// A video's RECORD is its own id, as in video_…; its frames are made again and their digest compared.
///
/// The model is loaded as it was then; threads and instruction set may be others, and change nothing. The exit code is 0
/// if all agrees and 1 if not.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The id of the response
    pub(crate) record: String,
    /// The body of the original request, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) request: Option<PathBuf>,
    /// Where the model is now [default: where it was]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Write one JSON object to stdout
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) records: Records,
    #[command(flatten)]
    pub(crate) compute: Compute,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
