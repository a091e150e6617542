//! The chat of `wushi run`: a line editor, a conversation that grows, answers as they come.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use wushi_engine::load::LoadedModel;
use wushi_formats::Message;

use crate::answer;
use crate::knobs::Generation;
use crate::prompt::{self, Prompt};
use crate::{App, model, output};

const HELP: &str = "\
/clear          begin a new conversation
/system TEXT    begin a new conversation with this system message; without TEXT, with none
/seed N         use this seed from now on; without N, draw one for every answer
/help           this list
/exit           leave, as Ctrl-D does
Ctrl-C stops an answer; at the prompt it leaves. Pasted text may have several lines.";

/// What a line typed at the prompt means.
#[derive(Debug, PartialEq, Eq)]
enum Input<'a> {
    Say(&'a str),
    Clear,
    System(Option<&'a str>),
    Seed(Option<u64>),
    Help,
    Exit,
    Nothing,
    Unknown(&'a str),
}

fn parse(line: &str) -> Input<'_> {
    let line = line.trim();
    let Some(command) = line.strip_prefix('/') else {
        return if line.is_empty() { Input::Nothing } else { Input::Say(line) };
    };
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = Some(rest.trim()).filter(|rest| !rest.is_empty());
    match (name, rest) {
        ("clear", None) => Input::Clear,
        ("system", text) => Input::System(text),
        ("seed", None) => Input::Seed(None),
        ("seed", Some(number)) => number.parse().map_or(Input::Unknown(line), |seed| Input::Seed(Some(seed))),
        ("help" | "?", None) => Input::Help,
        ("exit" | "quit" | "bye", None) => Input::Exit,
        _ => Input::Unknown(line),
    }
}

pub(crate) fn run(model: &LoadedModel, mut knobs: Generation, app: &App) -> Result<ExitCode> {
    if model.template.is_none() {
        bail!("the model has no chat template, and thus no chat; give a prompt for it to continue");
    }
    let mut prompt = LinePrompt::open(app)?;
    let mut messages = prompt::conversation(&knobs);
    app.note("Enter sends, Ctrl-C stops an answer and leaves at the prompt, /help lists the commands.");
    while let Some(line) = prompt.read()? {
        match parse(&line) {
            Input::Say(text) => say(model, text, &mut messages, &knobs, app)?,
            Input::Clear => messages = prompt::conversation(&knobs),
            Input::System(text) => {
                knobs.system = text.map(str::to_owned);
                messages = prompt::conversation(&knobs);
            }
            Input::Seed(seed) => knobs.seed = seed,
            Input::Help => output::note(HELP),
            Input::Exit => break,
            Input::Nothing => {}
            Input::Unknown(line) => output::note(format_args!("`{line}` is no command; /help lists them")),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One turn. What goes wrong in it does not end the chat.
fn say(
    model: &LoadedModel,
    text: &str,
    messages: &mut Vec<Message>,
    knobs: &Generation,
    app: &App,
) -> Result<()> {
    messages.push(Message::new("user", text));
    let seed = prompt::seed(knobs);
    let answered = prompt::request(model, &Prompt::Chat(messages), knobs, seed)
        .and_then(|request| Ok(model.engine.submit(request)?))
        .and_then(|generation| answer::receive(generation, &app.interrupts, true));
    match answered {
        Ok(answer) => {
            let stopped = if answer.cancelled() { "stopped; " } else { "" };
            app.note(format_args!("[{stopped}{}; seed {seed}]", answer.summary()));
            messages.push(Message::new("assistant", answer.text));
            Ok(())
        }
        Err(error) if error.is::<output::Closed>() => Err(error),
        Err(error) => {
            messages.pop();
            output::error(&error.context("no answer (/clear begins a new conversation)"));
            Ok(())
        }
    }
}

/// The line editor, with a history that outlives the process.
struct LinePrompt {
    editor: Editor<(), FileHistory>,
    history: Option<PathBuf>,
}

impl LinePrompt {
    fn open(app: &App) -> Result<LinePrompt> {
        let config =
            Config::builder().auto_add_history(true).max_history_size(1000)?.bracketed_paste(true).build();
        let mut editor = Editor::with_config(config).context("cannot edit lines on this terminal")?;
        let home = model::home(app)?;
        // A home that cannot be written to costs the history, not the chat.
        let history = fs::create_dir_all(&home).is_ok().then(|| home.join("history.txt"));
        if let Some(path) = &history
            && path.exists()
            && let Err(error) = editor.load_history(path)
        {
            tracing::warn!(%error, path = %path.display(), "the chat history cannot be read");
        }
        Ok(LinePrompt { editor, history })
    }

    /// The next line; `None` when the user leaves.
    fn read(&mut self) -> Result<Option<String>> {
        match self.editor.readline("> ") {
            Ok(line) => {
                if let Some(path) = &self.history
                    && let Err(error) = self.editor.append_history(path)
                {
                    tracing::debug!(%error, "the chat history cannot be written");
                }
                Ok(Some(line))
            }
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => Ok(None),
            Err(error) => Err(error).context("cannot read from this terminal"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Input, parse};

    #[test]
    fn lines_are_commands_or_messages() {
        assert_eq!(parse("  hello /you\n"), Input::Say("hello /you"));
        assert_eq!(parse(" "), Input::Nothing);
        assert_eq!(parse("/system  Be brief. "), Input::System(Some("Be brief.")));
        assert_eq!(parse("/system"), Input::System(None));
        assert_eq!(parse("/seed 7"), Input::Seed(Some(7)));
        assert_eq!(parse("/seed"), Input::Seed(None));
        assert_eq!(parse("/seed x"), Input::Unknown("/seed x"));
        assert_eq!(parse("/clear"), Input::Clear);
        assert_eq!(parse("/bye"), Input::Exit);
        assert_eq!(parse("/etc/passwd"), Input::Unknown("/etc/passwd"));
    }
}
