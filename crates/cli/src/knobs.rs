//! Every knob, declared once.
//!
//! A knob's value is that of its flag, else of its environment variable, else of its key in `wushi.toml` (which is the
//! flag's name), else its default. A bad value is an error that names where it came from.

use std::net::IpAddr;
use std::path::PathBuf;

use wushi_cpu::InstructionSet;
use wushi_engine::video::{Rounding, SamplerKind, Spacing};
use wushi_graph::{CacheType, DType};
use wushi_media::Format;
use wushi_models::Stretch;

use crate::layers::Layers;
use crate::values::{
    address, at_least_one, bias, cache_type, count, denoiser_cache, flow_shift, frame_rate, guidance,
    instruction_set, min_p, path, penalty, port, repetition_penalty, rounding, sampler, seconds, seed, share,
    size, spacing, storage_type, stretch, switch, temperature, text, threads, top_p, vae_type, video_format,
    video_size,
};

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Knob {
    /// The long flag without dashes, and the key in `wushi.toml`.
    pub(crate) flag: &'static str,
    /// The environment variable.
    pub(crate) env: &'static str,
}

/// Turns the table into one structure per group, of what was given: `None` where nothing was.
macro_rules! knobs {
    ($(
        $(#[doc = $about:literal])+
        $group:ident $heading:literal {
            $($field:ident: $type:ty, --$flag:literal $value:literal, $env:literal, $parse:path,
              $doc:literal, default: $default:literal $([$($attribute:tt)*])?;)+
        }
    )+) => {
        /// All knobs of all groups.
        pub(crate) const KNOBS: &[Knob] = &[$($(Knob { flag: $flag, env: $env },)+)+];

        $(
            $(#[doc = $about])+
            #[derive(Clone, Debug, Default, clap::Args)]
            #[command(next_help_heading = $heading)]
            pub(crate) struct $group {
                $(
                    #[doc = $doc]
                    #[arg(
                        long = $flag, value_name = $value, value_parser = $parse, allow_negative_numbers = true,
                        help = concat!($doc, " [default: ", $default, "]"),
                        long_help = concat!(
                            $doc, "\n\n[default: ", $default, "; environment: ", $env, "; wushi.toml: ", $flag, "]"
                        ),
                        $($($attribute)*)?
                    )]
                    pub(crate) $field: $type,
                )+
            }

            impl $group {
                /// Takes what the flags left open from the environment or from `wushi.toml`.
                pub(crate) fn resolve(mut self, layers: &Layers) -> anyhow::Result<Self> {
                    $(layers.fill(&mut self.$field, &Knob { flag: $flag, env: $env }, $parse)?;)+
                    Ok(self)
                }
            }
        )+
    };
}

knobs! {
    /// What every command has.
    Common "Everywhere" {
        home: Option<PathBuf>, --"home" "DIR", "WUSHI_HOME", path,
            "Folder of models and chat history", default: "the user's data folder"
            [global = true];
        log: Option<String>, --"log" "FILTER", "WUSHI_LOG", text,
            "What is logged to stderr: off, error, warn, info, debug, trace, or target=level, separated by commas",
            default: "warn" [global = true];
        quiet: Option<bool>, --"quiet" "BOOL", "WUSHI_QUIET", switch,
            "No progress bars, plans and speeds on stderr", default: "false"
            [short = 'q', global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true"];
    }

    /// How a model is computed. None of it changes an answer, except `quant`, `rope_scaling` beyond a model's training, and
    /// `cache`, which changes its last bits.
    Compute "Computing" {
        quant: Option<DType>, --"quant" "TYPE", "WUSHI_QUANT", storage_type,
            "Quantise the weights to TYPE while loading, as in q8_0, q4_0 or q4_k", default: "as they are stored";
        threads: Option<usize>, --"threads" "N", "WUSHI_THREADS", threads,
            "Threads that compute", default: "all processors" [short = 't'];
        isa: Option<InstructionSet>, --"isa" "SET", "WUSHI_ISA", instruction_set,
            "Instruction set: avx512-amx, avx512-bf16, avx512, avx2 or portable; the answer is the same", default: "the best there is";
        cache: Option<CacheType>, --"cache" "TYPE", "WUSHI_CACHE", cache_type,
            "Type of cached keys and values: f16, f32 or q8_0", default: "f16";
        memory: Option<u64>, --"memory" "SIZE", "WUSHI_MEMORY", size,
            "The most memory for weights, cache and buffers, as in 900M or 2.5G", default: "what is available";
        rope_scaling: Option<Stretch>, --"rope-scaling" "HOW", "WUSHI_ROPE_SCALING", stretch,
            "How positions are stretched if --ctx is more than the model was trained for: yarn or linear",
            default: "such a context is refused";
        prefill_chunk: Option<usize>, --"prefill-chunk" "N", "WUSHI_PREFILL_CHUNK", at_least_one,
            "The most tokens of a prompt computed in one step; the answer is the same", default: "512";
        speculate: Option<bool>, --"speculate" "BOOL", "WUSHI_SPECULATE", switch,
            "Try tokens that repeat what the text says already, several in one step; the answer is the same",
            default: "true";
    }

    /// How a video's networks are computed. Only types of weights, keys and values change the video.
    Networks "Computing" {
        quant: Option<DType>, --"quant" "TYPE", "WUSHI_QUANT", storage_type,
            "Quantise the weights to TYPE while loading, as in q8_0, q4_0 or q4_k", default: "as they are stored";
        vae_dtype: Option<DType>, --"vae-dtype" "TYPE", "WUSHI_VAE_DTYPE", vae_type,
            "Type of the VAE's convolutions: f32, or f16 or bf16, which take half the memory", default: "as they are stored";
        threads: Option<usize>, --"threads" "N", "WUSHI_THREADS", threads,
            "Threads that compute", default: "all processors" [short = 't'];
        isa: Option<InstructionSet>, --"isa" "SET", "WUSHI_ISA", instruction_set,
            "Instruction set: avx512-amx, avx512-bf16, avx512, avx2 or portable; the video is the same", default: "the best there is";
        memory: Option<u64>, --"memory" "SIZE", "WUSHI_MEMORY", size,
            "The most memory for weights and buffers, as in 900M or 2.5G", default: "what is available";
        cache_type: Option<CacheType>, --"cache-type" "TYPE", "WUSHI_CACHE_TYPE", denoiser_cache,
            "Type that the denoiser rounds keys and values to: f32 or f16",
            default: "f32 if its weights are F32, else f16";
    }

    /// What a video is to be.
    Video "The video" {
        negative: Option<String>, --"negative" "TEXT", "WUSHI_NEGATIVE", text,
            "What the video shall not be; needs a guidance above 1", default: "the model's own"
            [allow_hyphen_values = true];
        size: Option<(usize, usize)>, --"size" "WxH", "WUSHI_SIZE", video_size,
            "Width and height in pixels, rounded down to what the model can make",
            default: "the model's own, as 832x480";
        frames: Option<usize>, --"frames" "N", "WUSHI_FRAMES", at_least_one,
            "Frames, rounded to one more than a multiple of what the model groups (4n+1)",
            default: "the model's own, as 81";
        fps: Option<u32>, --"fps" "N", "WUSHI_FPS", frame_rate,
            "Frames a second", default: "the model's own, as 16";
        steps: Option<usize>, --"steps" "N", "WUSHI_STEPS", at_least_one,
            "Steps of denoising", default: "the model's own, as 50; 4 for a distilled one";
        guidance: Option<f32>, --"guidance" "G", "WUSHI_GUIDANCE", guidance,
            "How far the prompt is followed beyond the negative prompt; 1 is not at all, and takes half the time",
            default: "the model's own";
        guidance_2: Option<f32>, --"guidance-2" "G", "WUSHI_GUIDANCE_2", guidance,
            "The guidance of the second denoiser, if the model has two", default: "--guidance, else the model's own";
        boundary: Option<f32>, --"boundary" "SHARE", "WUSHI_BOUNDARY", share,
            "Where the second of two denoisers takes over: the share of noise that is left", default: "the model's own";
        flow_shift: Option<f32>, --"flow-shift" "S", "WUSHI_FLOW_SHIFT", flow_shift,
            "How far the steps' noise levels are shifted towards noise", default: "the model's own";
        seed: Option<u64>, --"seed" "N", "WUSHI_SEED", seed,
            "Key of the noise; the same seed gives the same video", default: "drawn, and reported" [short = 's'];
        sampler: Option<SamplerKind>, --"sampler" "NAME", "WUSHI_SAMPLER", sampler,
            "How a step moves the latents: unipc or euler", default: "unipc; euler for a distilled model";
        spacing: Option<Spacing>, --"spacing" "HOW", "WUSHI_SPACING", spacing,
            "How noise levels lie before they are shifted: training, whole, or twice-shifted as diffusers' Euler has them",
            default: "training; whole for a distilled model";
        timesteps: Option<Rounding>, --"timesteps" "HOW", "WUSHI_TIMESTEPS", rounding,
            "What the denoiser is told of a noise level: floor, a whole number, or exact",
            default: "floor; exact for a distilled model";
        format: Option<Format>, --"format" "NAME", "WUSHI_FORMAT", video_format,
            "What is written: mp4 (H.264), apng (lossless), gif, or png-dir, a folder of pictures",
            default: "what the ending of --output says, else mp4";
        preview: Option<bool>, --"preview" "BOOL", "WUSHI_PREVIEW", switch,
            "Show frames in the terminal as they are decoded", default: "false"
            [num_args = 0..=1, require_equals = true, default_missing_value = "true"];
    }

    /// What is served, and to whom.
    Serving "Serving" {
        host: Option<IpAddr>, --"host" "ADDRESS", "WUSHI_HOST", address,
            "Address to listen on; 0.0.0.0 for all. Others than this machine are served with keys only",
            default: "127.0.0.1";
        ctx: Option<usize>, --"ctx" "N", "WUSHI_CTX", at_least_one,
            "Longest conversation in tokens, prompt and answer together",
            default: "what a model was trained for, at most 4096" [short = 'c'];
        port: Option<u16>, --"port" "N", "WUSHI_PORT", port,
            "Port to listen on; 0 takes any that is free", default: "8000" [short = 'p'];
        sequences: Option<usize>, --"sequences" "N", "WUSHI_SEQUENCES", at_least_one,
            "The most answers computed together; others wait", default: "32";
        queue: Option<usize>, --"queue" "N", "WUSHI_QUEUE", at_least_one,
            "The most requests that wait for a place; others are refused with 429", default: "256";
        kv_tokens: Option<usize>, --"kv-tokens" "N", "WUSHI_KV_TOKENS", at_least_one,
            "Tokens whose keys and values are kept, over all answers, if memory allows", default: "8 contexts";
        step_tokens: Option<usize>, --"step-tokens" "N", "WUSHI_STEP_TOKENS", at_least_one,
            "The most tokens computed in one step while answers are under way: fewer keep them smoother, more begin others sooner",
            default: "128";
        audit: Option<bool>, --"audit" "BOOL", "WUSHI_AUDIT", switch,
            "Record the digest of every answer's logits, so that `wushi replay` can compare every bit; about 0.1 ms a token", default: "false"
            [num_args = 0..=1, require_equals = true, default_missing_value = "true"];
        audit_text: Option<bool>, --"audit-text" "BOOL", "WUSHI_AUDIT_TEXT", switch,
            "Record prompts and answers too, as token ids", default: "false"
            [num_args = 0..=1, require_equals = true, default_missing_value = "true"];
        keep_records: Option<usize>, --"keep-records" "DAYS", "WUSHI_KEEP_RECORDS", at_least_one,
            "Remove records that are older than DAYS; usage stays", default: "records stay";
        without_keys: Option<bool>, --"without-keys" "BOOL", "WUSHI_WITHOUT_KEYS", switch,
            "Serve others than this machine although there are no keys", default: "false"
            [num_args = 0..=1, require_equals = true, default_missing_value = "true"];
        drain: Option<u64>, --"drain" "SECONDS", "WUSHI_DRAIN", seconds,
            "How long answers under way may go on after the server was told to end", default: "30";
        max_body: Option<u64>, --"max-body" "SIZE", "WUSHI_MAX_BODY", size,
            "The largest body of a request, as in 8M", default: "8M";
    }

    /// How a server makes videos, and where it keeps them.
    ServingVideos "Serving videos" {
        videos: Option<PathBuf>, --"videos" "DIR", "WUSHI_VIDEOS", path,
            "Folder that videos are kept in", default: "beside the database, named after it: server.videos";
        keep_videos: Option<usize>, --"keep-videos" "DAYS", "WUSHI_KEEP_VIDEOS", at_least_one,
            "Remove videos DAYS after they were made", default: "7";
        video_disk: Option<u64>, --"video-disk" "SIZE", "WUSHI_VIDEO_DISK", size,
            "The most that all videos may take on the disk; the oldest make room for new ones", default: "20G";
        save_steps: Option<usize>, --"save-steps" "N", "WUSHI_SAVE_STEPS", at_least_one,
            "Save what is denoised after each N steps, so that a video goes on there when the server was killed",
            default: "about every 10 seconds";
        vae_dtype: Option<DType>, --"vae-dtype" "TYPE", "WUSHI_VAE_DTYPE", vae_type,
            "Type of the VAE's convolutions: f32, or f16 or bf16, which take half the memory", default: "as they are stored";
        cache_type: Option<CacheType>, --"cache-type" "TYPE", "WUSHI_CACHE_TYPE", denoiser_cache,
            "Type that the denoiser rounds keys and values to: f32 or f16",
            default: "f32 if its weights are F32, else f16";
    }

    /// Where a server's keys, usage and records are.
    Records "Records" {
        database: Option<PathBuf>, --"database" "FILE", "WUSHI_DATABASE", path,
            "Keys, what they have used, and records of requests", default: "server.sqlite in the folder of --home";
    }

    /// How an answer is made.
    Generation "Answering" {
        ctx: Option<usize>, --"ctx" "N", "WUSHI_CTX", at_least_one,
            "Longest conversation in tokens, prompt and answer together",
            default: "what the model was trained for, at most 4096" [short = 'c'];
        seed: Option<u64>, --"seed" "N", "WUSHI_SEED", seed,
            "Key of the random numbers; the same seed gives the same answer", default: "drawn, and reported"
            [short = 's'];
        temperature: Option<f32>, --"temperature" "T", "WUSHI_TEMPERATURE", temperature,
            "Divides the logits: 0 always takes the most probable token, 1 samples as trained",
            default: "the model's own, else 0.7" [alias = "temp"];
        top_k: Option<usize>, --"top-k" "K", "WUSHI_TOP_K", count,
            "Sample from the K most probable tokens; 0 from all", default: "the model's own, else 0";
        top_p: Option<f32>, --"top-p" "P", "WUSHI_TOP_P", top_p,
            "Sample from the fewest tokens whose probabilities reach P; 1 from all",
            default: "the model's own, else 1";
        min_p: Option<f32>, --"min-p" "P", "WUSHI_MIN_P", min_p,
            "Sample from tokens at least P times as probable as the most probable one; 0 from all",
            default: "the model's own, else 0";
        repetition_penalty: Option<f32>, --"repetition-penalty" "R", "WUSHI_REPETITION_PENALTY", repetition_penalty,
            "Weakens tokens that occurred in prompt or answer, dividing positive logits; 1 does nothing",
            default: "the model's own, else 1";
        presence_penalty: Option<f32>, --"presence-penalty" "A", "WUSHI_PRESENCE_PENALTY", penalty,
            "Subtracted from the logits of tokens that occurred in the answer, -2 to 2", default: "0";
        frequency_penalty: Option<f32>, --"frequency-penalty" "A", "WUSHI_FREQUENCY_PENALTY", penalty,
            "Subtracted for each time a token occurred in the answer, -2 to 2", default: "0";
        logit_bias: Option<Vec<(u32, f32)>>, --"logit-bias" "ID=BIAS", "WUSHI_LOGIT_BIAS", bias,
            "Added to a token's logit, -100 to 100, or -inf to ban it; may be repeated", default: "none";
        max_tokens: Option<usize>, --"max-tokens" "N", "WUSHI_MAX_TOKENS", at_least_one,
            "Longest answer in tokens", default: "what the context leaves" [short = 'n'];
        stop: Option<Vec<String>>, --"stop" "TEXT", "WUSHI_STOP", text,
            "Text that ends the answer and is left out of it; may be repeated", default: "none"
            [allow_hyphen_values = true];
        system: Option<String>, --"system" "TEXT", "WUSHI_SYSTEM", text,
            "System message: how the model shall behave", default: "the chat template's own"
            [allow_hyphen_values = true];
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use clap::CommandFactory;

    use super::KNOBS;
    use crate::args::Cli;

    /// Flags that say what one call is for, and thus have no place in a configuration.
    const NO_KNOBS: &[&str] = &[
        "api-key",
        "help",
        "version",
        "verbose",
        "json",
        "raw",
        "schedule",
        "rows",
        "tensors",
        "no-bos",
        "no-special",
        "no-normalise",
        "force",
        // Which request, and where its model is.
        "request",
        "model",
        // What is stored with the key.
        "requests-per-minute",
        "tokens-per-day",
        // The protocol of a measurement is said with the measurement.
        "ctx",
        "prompt-tokens",
        "new-tokens",
        "batch",
        "repetitions",
        "only",
        // What is made, from which files.
        "output",
        "plan",
        "resume",
        "init-latents",
        "save-frames",
        "dit",
        "dit-2",
        "vae",
        "text-encoder",
        "tokenizer",
    ];

    #[test]
    fn every_flag_is_a_knob_or_says_what_one_call_is_for() {
        let mut cli = Cli::command();
        cli.build();
        let mut flags = BTreeSet::new();
        let mut commands = vec![&cli];
        while let Some(command) = commands.pop() {
            flags.extend(command.get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned));
            commands.extend(command.get_subcommands());
        }
        let knobs: BTreeSet<String> = KNOBS.iter().map(|knob| knob.flag.to_owned()).collect();
        // Groups of different commands may have a flag in common, which then is one knob.
        let pairs: BTreeSet<(&str, &str)> = KNOBS.iter().map(|knob| (knob.flag, knob.env)).collect();
        assert_eq!(knobs.len(), pairs.len(), "a flag has two variables");
        for flag in &flags {
            assert!(knobs.contains(flag) || NO_KNOBS.contains(&flag.as_str()), "--{flag} stands nowhere");
        }
        for flag in knobs.iter().map(String::as_str).chain(NO_KNOBS.iter().copied()) {
            assert!(flags.contains(flag), "no command has --{flag}");
        }
    }

    #[test]
    fn environment_names_follow_the_flags() {
        for knob in KNOBS {
            assert_eq!(knob.env, format!("WUSHI_{}", knob.flag.to_uppercase().replace('-', "_")));
        }
    }

    #[test]
    fn no_source_reads_the_environment_past_the_table() {
        fn visit(folder: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    visit(&entry, found);
                } else if entry.extension().is_some_and(|end| end == "rs") {
                    let text = fs::read_to_string(&entry).unwrap();
                    let strays = ["var(\"WUSHI_", "var_os(\"WUSHI_", "env!(\"WUSHI_"];
                    // This very list, and nothing else.
                    let own = entry.ends_with("cli/src/knobs.rs");
                    if !own && strays.iter().any(|stray| text.contains(stray)) {
                        found.push(entry.display().to_string());
                    }
                }
            }
        }
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut found = Vec::new();
        for room in fs::read_dir(crates).unwrap() {
            let source = room.unwrap().path().join("src");
            if source.is_dir() {
                visit(&source, &mut found);
            }
        }
        assert!(found.is_empty(), "{found:?}");
    }
}
