//! `wushi video`: a video of a text.
//!
//! `source` finds the networks, `request` what is asked of them, `plan` says what it takes, `progress` how far it is,
//! `report` what came of it. Between them the video is made here.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use wushi_engine::load::Size;
use wushi_engine::video::{
    self, Change, Follow, Identity, Job, Made, PromptCache, Ready, Save, Settings, Start, VideoError,
    VideoNetworks, Watch, load_saved, make, read_latents, saved_latents, saved_seeds,
};
use wushi_media::{Encoder, Summary};

use crate::args::VideoArgs;
use crate::knobs::Video;
use crate::{App, interrupt, model, output, prompt};

pub(crate) mod plan;
pub(crate) mod progress;
mod report;
mod request;
pub(crate) mod source;

use plan::Outlook;
use progress::{Show, Span};
use report::Report;
use request::{Subject, Target};

/// The folder of saved latents and of prompts' states, in that of models.
const FOLDER: &str = "video";

pub(crate) fn run(args: &VideoArgs, app: &App) -> Result<ExitCode> {
    let begun = Instant::now();
    let knobs = args.video.clone().resolve(&app.layers)?;
    let subject = Subject::read(args)?;
    let loading = args.networks.clone().resolve(&app.layers)?;
    let sources = source::find(subject.model.as_deref(), &args.files, app)?;
    let networks = source::open(sources, &loading)?;
    let (settings, mut changes) = request::settings(&knobs, prompt::seed(knobs.seed), networks.model())?;
    let target = Target::new(args.output.as_deref(), args.video.format, knobs.format, &settings)?;
    let Some(prompt) = subject.prompt.as_deref().filter(|_| !args.plan) else {
        return only_plan(args, &subject, &networks, &settings, &changes, &target);
    };
    changes.extend(networks.cut(prompt, &settings)?);
    let initial = match &args.init_latents {
        Some(path) => Some(read_latents(path, &settings.latents)?),
        None => None,
    };
    let folder = model::home(app)?.join(FOLDER);
    let saved = Saved { folder, networks: &networks, prompt, initial: initial.as_deref() };
    let (settings, begun_before) = match args.resume {
        true => saved.resume(settings, knobs.seed)?,
        false => (settings, None),
    };
    let path = target.place(prompt, settings.seed)?;
    check_place(args.save_frames.as_deref())?;
    if args.save_frames.as_ref() == Some(&path) {
        bail!(
            "{}: the frames and the video cannot be one file; name another with --save-frames",
            path.display()
        );
    }
    let ready = Ready {
        states: saved.has_states(&settings)?,
        steps: match &begun_before {
            Some(Start::Between(saved)) => saved.steps(),
            _ => 0,
        },
        latents: matches!(begun_before, Some(Start::Denoised(_))),
    };
    let seconds = target.duration(settings.frames);
    let mut outlook = Outlook::new(&networks, &settings, &changes, seconds, ready)?;
    if !app.quiet() {
        outlook.measure()?;
        output::note(outlook.text());
        if begun_before.is_none() && saved.path(&settings).exists() {
            output::note("a lost run of this very video is saved: --resume would go on from there");
        }
    }
    let resumed = begun_before.is_some();
    let start = match (begun_before, initial.clone()) {
        (Some(start), _) => start,
        (None, Some(latents)) => Start::Latents(latents),
        (None, None) => Start::Noise,
    };
    let run =
        Run { args, app, knobs: &knobs, saved: &saved, settings: &settings, target: &target, path: &path };
    let (made, summary) = match run.make(start)? {
        Some(made) => made,
        None => return Ok(ExitCode::from(interrupt::EXIT_CODE)),
    };
    let total_s = begun.elapsed().as_secs_f64();
    let report = Report {
        model: subject.model.as_deref(),
        prompt,
        format: target.format.name(),
        settings: &settings,
        changes: &changes,
        networks: &networks,
        summary: &summary,
        made: &made,
        init_latents: args.init_latents.as_deref(),
        save_frames: args.save_frames.as_deref(),
        resumed,
        total_s,
    };
    if args.json {
        output::json(&report.json())?;
    } else {
        app.note(told(&report));
        output::line(summary.path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The last line for people.
fn told(report: &Report<'_>) -> String {
    let Made { text_seconds, denoise_seconds, decode_seconds, frames_digest } = report.made;
    format!(
        "{} frames, {:.1} s, {} in {} (prompt {}, denoising {}, frames {}); seed {}; frames {frames_digest}",
        report.summary.frames,
        report.summary.seconds,
        Size(report.summary.bytes),
        Span(report.total_s),
        Span(*text_seconds),
        Span(*denoise_seconds),
        Span(*decode_seconds),
        report.settings.seed,
    )
}

/// `--plan`.
fn only_plan(
    args: &VideoArgs,
    subject: &Subject,
    networks: &VideoNetworks,
    settings: &Settings,
    changes: &[Change],
    target: &Target,
) -> Result<ExitCode> {
    let seconds = target.duration(settings.frames);
    let mut outlook = Outlook::new(networks, settings, changes, seconds, Ready::default())?;
    outlook.measure()?;
    match args.json {
        true => output::json(&outlook.json(subject.model.as_deref(), target.format.name()))?,
        false => output::line(outlook.text())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A file that is written when all is done should not turn out to have no folder then.
fn check_place(path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        bail!("{} is a folder; name the file to be written", path.display());
    }
    if !folder.is_dir() {
        bail!("{}: there is no folder {}", path.display(), folder.display());
    }
    Ok(())
}

/// What runs of a prompt leave behind until their videos are there.
struct Saved<'a> {
    folder: PathBuf,
    networks: &'a VideoNetworks,
    prompt: &'a str,
    initial: Option<&'a [f32]>,
}

impl Saved<'_> {
    fn identity(&self, settings: &Settings) -> Identity {
        Identity::new(self.networks.latents_digest(), self.prompt, settings, self.initial)
    }

    fn path(&self, settings: &Settings) -> PathBuf {
        self.identity(settings).path(&self.folder)
    }

    fn prompts(&self) -> PromptCache {
        PromptCache::new(&self.folder, self.networks.encoder_digest())
    }

    /// Whether the text encoder is not needed, as all prompts were read before.
    fn has_states(&self, settings: &Settings) -> Result<bool> {
        let (model, cache) = (self.networks.model(), self.prompts());
        let has = |prompt| cache.get(prompt, model).is_some();
        let guided = settings.forwards(model)?.into_iter().sum::<usize>() > settings.steps;
        Ok(has(self.prompt) && (!guided || has(&settings.negative)))
    }

    /// Where a lost run goes on. Without a seed, its seed is found among those that there are.
    fn resume(&self, settings: Settings, seed: Option<u64>) -> Result<(Settings, Option<Start>)> {
        let with = |seed| Settings { seed, ..settings.clone() };
        let settings = match seed {
            None if self.initial.is_none() => {
                match saved_seeds(&self.folder, |seed| self.identity(&with(seed)))[..] {
                    [] => settings,
                    [seed] => with(seed),
                    ref several => {
                        let seeds: Vec<String> = several.iter().map(u64::to_string).collect();
                        bail!(
                            "runs with several seeds are saved; choose one with --seed: {}",
                            seeds.join(", ")
                        )
                    }
                }
            }
            _ => settings,
        };
        let (path, identity) = (self.path(&settings), self.identity(&settings));
        if path.exists() {
            let start = match load_saved(&path, &identity, &settings, self.networks.model())? {
                video::Saved::Steps(saved) => Start::Between(saved),
                video::Saved::Denoised(latents) => Start::Denoised(latents),
            };
            return Ok((settings, Some(start)));
        }
        // What the latest one was made with says what is different now.
        let load = |path: &PathBuf| load_saved(path, &identity, &settings, self.networks.model());
        if let Some(Err(error)) = saved_latents(&self.folder).first().map(load) {
            return Err(error).context("nothing to resume");
        }
        bail!(
            "nothing to resume: {} has nothing of a run; it is saved after each step of denoising, and removed when the \
             video is there",
            self.folder.display()
        )
    }
}

/// A run, decided in all respects.
struct Run<'a> {
    args: &'a VideoArgs,
    app: &'a App,
    knobs: &'a Video,
    saved: &'a Saved<'a>,
    settings: &'a Settings,
    target: &'a Target,
    path: &'a Path,
}

impl Run<'_> {
    /// Makes the video; `None` if it was interrupted, which has been told.
    fn make(&self, start: Start) -> Result<Option<(Made, Summary)>> {
        let Run { args, app, settings, .. } = *self;
        let networks = self.saved.networks;
        let (identity, latents) = (self.saved.identity(settings), self.saved.path(settings));
        // What a lost run has come to is not given up for the first steps of one that begins anew.
        let every = (!latents.exists() || args.resume).then_some(1);
        let cache = self.saved.prompts();
        let follow = Arc::new(Follow::default());
        let _guard = {
            let (follow, quiet) = (Arc::clone(&follow), app.quiet());
            app.interrupts.tell(move || {
                follow.stop();
                if !quiet {
                    output::note("\nending; Ctrl-C again ends at once");
                }
            })
        };
        // A flag is meant for here and now; a configuration for where there is something to see.
        let preview = self.knobs.preview.filter(|&wanted| wanted).map(|_| args.video.preview.is_some());
        let show = RefCell::new(Show::new(app.quiet(), preview, networks.model().temporal_stride));
        let mut encoder: Option<Encoder> = None;
        let made = make(
            Job {
                model: networks.model(),
                settings,
                prompt: self.saved.prompt,
                start,
                cache: Some(&cache),
                save: Some(Save { path: &latents, identity: &identity, every }),
                save_frames: args.save_frames.as_deref(),
            },
            &mut networks.parts(settings, &follow),
            Watch {
                progress: &mut |progress| show.borrow_mut().progress(&progress),
                frame: &mut |frame| {
                    let encoder = match &mut encoder {
                        Some(encoder) => encoder,
                        none => none.insert(self.target.encoder(self.path)?),
                    };
                    encoder.push(frame.rgb)?;
                    show.borrow_mut().frame(&frame, settings.width, settings.height);
                    Ok(())
                },
                follow: &follow,
            },
        );
        show.into_inner().clear();
        let made = match made {
            Ok(made) => made,
            Err(VideoError::Stopped { saved }) => {
                // Nothing is left of it before that is said.
                drop(encoder);
                let resume = format!("--resume --seed {} goes on from there", settings.seed);
                let how = saved.map_or_else(String::new, |saved| format!("; {saved}, and {resume}"));
                app.note(format_args!("stopped: there is no video{how}"));
                return Ok(None);
            }
            Err(error) => return Err(self.lost(error, &latents)),
        };
        let Some(encoder) = encoder else { bail!("the model gave no frame") };
        let summary = encoder.finish().map_err(|error| self.lost(error, &latents))?;
        if let Err(error) = std::fs::remove_file(&latents) {
            tracing::warn!("{}: {error}", latents.display());
        }
        Ok(Some((made, summary)))
    }

    /// An error, and how not to lose what was done before it.
    fn lost(&self, error: impl Into<anyhow::Error>, latents: &Path) -> anyhow::Error {
        let error = error.into();
        if latents.exists() {
            self.app.note(format_args!(
                "what is done is saved: with the same settings, --resume --seed {} goes on from there",
                self.settings.seed
            ));
        }
        error
    }
}
