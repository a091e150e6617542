//! What people see while a video is made: bars in a terminal, a line now and then elsewhere, and the frames if wanted.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use wushi_engine::video::{Frame, Progress};

use crate::output;

/// The least time between two lines, where there is no terminal.
const BETWEEN: Duration = Duration::from_secs(5);
/// How wide frames are drawn where nothing says how wide there is room.
const COLUMNS: usize = 80;

/// Shows progress on stderr.
pub(crate) struct Show {
    quiet: bool,
    terminal: bool,
    /// With what it counts.
    bar: Option<(&'static str, ProgressBar)>,
    last_line: Option<Instant>,
    /// How many frames come together, but for the first.
    together: usize,
    /// What is counted, and seconds of all that were since it began, and how many.
    spent: (&'static str, f64, usize),
    preview: Option<Preview>,
}

impl Show {
    /// `preview` draws frames: `Some(true)` wherever stderr goes, `Some(false)` in a terminal.
    pub(crate) fn new(quiet: bool, preview: Option<bool>, together: usize) -> Show {
        let terminal = io::stderr().is_terminal();
        let preview =
            preview.filter(|&anywhere| anywhere || terminal).map(|_| Preview { terminal, lines: 0 });
        Show { quiet, terminal, bar: None, last_line: None, together, spent: ("", 0.0, 0), preview }
    }

    /// Tells of progress.
    pub(crate) fn progress(&mut self, progress: &Progress) {
        match progress {
            Progress::Loading(part) => self.say(&format!("loading {part}"), true),
            Progress::Text { cached: true, .. } => self.say("the prompt was read before", true),
            Progress::Text { cached: false, seconds } => {
                self.say(&format!("read the prompt in {}", Span(*seconds)), true);
            }
            Progress::Saved(_) => {}
            Progress::Step { done, of, seconds } => self.count("step", "a step", *done, *of, *seconds),
            Progress::Frame { done, of, seconds } => self.count("frame", "a frame", *done, *of, *seconds),
        }
    }

    /// Draws a frame, if that is wanted.
    pub(super) fn frame(&mut self, frame: &Frame<'_>, width: usize, height: usize) {
        let Some(preview) = &mut self.preview else { return };
        let mut draw = || preview.draw(frame.rgb, width, height);
        match &self.bar {
            Some((_, bar)) => bar.suspend(draw),
            None => draw(),
        }
    }

    /// Takes the bar away: something else is said now.
    pub(super) fn clear(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn say(&mut self, text: &str, always: bool) {
        if self.quiet {
            return;
        }
        if self.terminal {
            self.clear();
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            set_style(&bar, "{spinner} {msg} {elapsed}");
            bar.set_message(text.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            self.bar = Some(("", bar));
        } else if always || self.last_line.is_none_or(|last| last.elapsed() >= BETWEEN) {
            self.last_line = Some(Instant::now());
            output::note(text);
        }
    }

    fn count(&mut self, what: &'static str, each: &str, done: usize, of: usize, seconds: f64) {
        let (counted, before, count) = self.spent;
        self.spent = if counted == what { (what, before + seconds, count + 1) } else { (what, seconds, 1) };
        let (_, spent, count) = self.spent;
        // The first of the frames that come together has the time of all.
        let count = if what == "frame" { 1 + (count - 1).next_multiple_of(self.together) } else { count };
        let mean = spent / count as f64;
        let left = Span(mean * (of - done) as f64);
        if self.quiet {
            return;
        }
        if !self.terminal {
            let text = format!("{what} {done} of {of}, {} {each}, {left} left", Span(mean));
            self.say(&text, done == of);
            return;
        }
        if self.bar.as_ref().is_none_or(|(shown, _)| *shown != what) {
            self.clear();
            let bar = ProgressBar::with_draw_target(Some(of as u64), ProgressDrawTarget::stderr());
            set_style(&bar, "{prefix} {pos} of {len} {bar:30} {msg}");
            bar.set_prefix(what);
            bar.enable_steady_tick(Duration::from_secs(1));
            self.bar = Some((what, bar));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_position(done as u64);
            bar.set_message(format!("{} {each}, {left} left", Span(mean)));
        }
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        self.clear();
    }
}

fn set_style(bar: &ProgressBar, template: &str) {
    // The templates are constants and known to be sound; the default style would do as well.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

/// Frames in the terminal, each in the place of the one before.
struct Preview {
    terminal: bool,
    /// Lines that the last one takes.
    lines: usize,
}

impl Preview {
    fn draw(&mut self, rgb: &[u8], width: usize, height: usize) {
        let columns = match Term::stderr().size_checked().filter(|_| self.terminal) {
            Some((rows, columns)) => fitting(rows.into(), columns.into(), width, height),
            None => COLUMNS,
        };
        let (width, height) = (u32::try_from(width).unwrap_or(0), u32::try_from(height).unwrap_or(0));
        let text = wushi_media::preview(rgb, width, height, columns);
        if self.terminal && self.lines > 0 {
            // Up to where the last one began.
            output::draw(&format!("\x1b[{}A\r", self.lines));
        }
        self.lines = text.lines().count();
        output::draw(&text);
    }
}

/// How wide a frame is drawn so that it and the bar have room in a terminal.
fn fitting(rows: usize, columns: usize, width: usize, height: usize) -> usize {
    // Two rows of pixels make a line; the bar and the line after it stay free.
    let high = rows.saturating_sub(3).max(1) * 2 * width / height.max(1);
    columns.saturating_sub(1).min(high).max(1)
}

/// Seconds as people say them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span(pub(crate) f64);

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.max(0.0);
        // Rounded first, so that there are no 60 seconds.
        let (whole, minutes) = (seconds.round() as u64, (seconds / 60.0).round() as u64);
        match seconds {
            _ if seconds < 0.0995 => write!(f, "{:.0} ms", seconds * 1e3),
            _ if seconds < 9.95 => write!(f, "{seconds:.1} s"),
            _ if whole < 60 => write!(f, "{whole} s"),
            _ if whole < 600 => write!(f, "{} min {} s", whole / 60, whole % 60),
            _ if minutes < 60 => write!(f, "{minutes} min"),
            _ if minutes < 48 * 60 => write!(f, "{} h {} min", minutes / 60, minutes % 60),
            _ => write!(f, "{:.0} days", seconds / 86_400.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        let told = |seconds: f64| Span(seconds).to_string();
        assert_eq!(told(0.0123), "12 ms");
        assert_eq!(told(0.0996), "0.1 s");
        assert_eq!(told(9.96), "10 s");
        assert_eq!(told(59.6), "1 min 0 s");
        assert_eq!(told(599.7), "10 min");
        assert_eq!(told(3599.0), "1 h 0 min");
        assert_eq!(told(4000.0), "1 h 7 min");
        assert_eq!(told(1e6), "12 days");
        assert_eq!(told(-1.0), "0 ms");
    }

    #[test]
    fn frames_that_come_together_share_their_time() {
        let mut show = Show::new(true, None, 4);
        for (done, seconds, mean) in
            [(1, 1.0, 1.0), (2, 9.0, 2.0), (3, 0.0, 2.0), (4, 0.0, 2.0), (5, 0.0, 2.0), (6, 8.0, 2.0)]
        {
            show.count("frame", "a frame", done, 9, seconds);
            let (_, spent, count) = show.spent;
            assert_eq!(spent / (1 + (count - 1).next_multiple_of(4)) as f64, mean, "{done}");
        }
        show.count("step", "a step", 1, 2, 3.0);
        assert_eq!(show.spent, ("step", 3.0, 1));
    }

    #[test]
    fn frames_fit_the_terminal() {
        assert_eq!(fitting(24, 80, 832, 480), 72);
        assert_eq!(fitting(100, 80, 832, 480), 79);
        assert_eq!(fitting(1, 1, 832, 480), 1);
    }
}
