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
    let mut conversation = Conversation::new(&knobs);
    app.note("Enter sends, Ctrl-C stops an answer and leaves at the prompt, /help lists the commands.");
    while let Some(line) = prompt.read()? {
        match parse(&line) {
            Input::Say(text) => say(model, text, &mut conversation, &knobs, app)?,
            Input::Clear => conversation = Conversation::new(&knobs),
            Input::System(text) => {
                knobs.system = text.map(str::to_owned);
                conversation = Conversation::new(&knobs);
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

/// What was said so far.
struct Conversation {
    /// A system message if there is one, then questions (`user`) with their answers (`assistant`).
    messages: Vec<Message>,
    /// Whether the beginning had to go, which is said once.
    shortened: bool,
}

impl Conversation {
    fn new(knobs: &Generation) -> Conversation {
        Conversation { messages: prompt::conversation(knobs), shortened: false }
    }

    /// Removes the oldest question and its answer; false if there is only the latest question.
    fn drop_oldest(messages: &mut Vec<Message>) -> bool {
        let mut questions = (0..messages.len()).filter(|&index| messages[index].role == "user");
        match (questions.next(), questions.next()) {
            (Some(oldest), Some(next)) => {
                messages.drain(oldest..next);
                true
            }
            _ => false,
        }
    }

    /// What `render` makes of the messages without as many of the oldest turns as must go for it to fit, and the messages
    /// that stay. If the latest question does not fit by itself, the others are gone too.
    fn fit<T>(
        &self,
        render: impl Fn(&[Message]) -> Result<T>,
        fits: impl Fn(&T) -> bool,
    ) -> Result<(T, Vec<Message>)> {
        let mut kept = self.messages.clone();
        loop {
            let rendered = render(&kept)?;
            if fits(&rendered) || !Conversation::drop_oldest(&mut kept) {
                return Ok((rendered, kept));
            }
        }
    }
}

/// Asks for an answer to the latest question, without the oldest turns if the context has no room for all.
fn ask(
    model: &LoadedModel,
    conversation: &mut Conversation,
    knobs: &Generation,
    seed: u64,
) -> Result<wushi_engine::Generation> {
    let context = model.engine.info().context;
    // Room for a few words would only yield answers that break off.
    let answer = knobs.max_tokens.unwrap_or(usize::MAX).min(context / 4);
    let (request, kept) = conversation.fit(
        |messages| prompt::request(model, &Prompt::Chat(messages), knobs, seed),
        |request| request.tokens.len() <= context - answer,
    )?;
    let generation = model.engine.submit(request)?;
    if kept.len() < conversation.messages.len() && !conversation.shortened {
        output::note(format_args!(
            "the conversation outgrows the context of {context} tokens: from now on its oldest messages are left out"
        ));
        conversation.shortened = true;
    }
    conversation.messages = kept;
    Ok(generation)
}

/// One turn. What goes wrong in it does not end the chat.
fn say(
    model: &LoadedModel,
    text: &str,
    conversation: &mut Conversation,
    knobs: &Generation,
    app: &App,
) -> Result<()> {
    conversation.messages.push(Message::new("user", text));
    let seed = prompt::seed(knobs.seed);
    let answered = ask(model, conversation, knobs, seed)
        .and_then(|generation| answer::receive(generation, &app.interrupts, true));
    match answered {
        Ok(answer) => {
            let stopped = if answer.cancelled() { "stopped; " } else { "" };
            app.note(format_args!("[{stopped}{}; seed {seed}]", answer.summary()));
            conversation.messages.push(Message::new("assistant", answer.text));
            Ok(())
        }
        Err(error) if error.is::<output::Closed>() => Err(error),
        Err(error) => {
            conversation.messages.pop();
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
    use anyhow::bail;
    use wushi_formats::Message;

    use super::{Conversation, Input, parse};

    #[test]
    fn the_oldest_turns_go_until_the_rest_fits() {
        let said = ["system: be brief", "user: a", "assistant: b", "user: c", "assistant: d", "user: e"];
        let messages =
            said.map(|line| line.split_once(": ").unwrap()).map(|(role, text)| Message::new(role, text));
        let conversation = Conversation { messages: messages.to_vec(), shortened: false };
        let left = |most: usize| {
            let (length, kept) = conversation.fit(|kept| Ok(kept.len()), |&length| length <= most).unwrap();
            assert_eq!(length, kept.len());
            kept
        };
        assert_eq!(left(6), messages);
        assert_eq!(left(5), [&messages[..1], &messages[3..]].concat());
        assert_eq!(left(4), left(5));
        assert_eq!(left(2), [&messages[..1], &messages[5..]].concat());
        assert_eq!(left(0), left(2), "the system message and the latest question stay");
        assert_eq!(conversation.messages, messages);
        let alone = Conversation { messages: messages[1..4].to_vec(), shortened: false };
        assert_eq!(alone.fit(|kept| Ok(kept.len()), |&length| length == 1).unwrap().1, messages[3..4]);
        assert!(alone.fit(|_| -> anyhow::Result<()> { bail!("refused") }, |()| true).is_err());
    }

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
