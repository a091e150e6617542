//! Running a schedule on the team: at once, or, where others come first, in turns.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wushi_graph::ExecError;

use crate::program::{Program, StepCost};
use crate::step::Context;
use crate::team::Team;

/// How long a turn of a team in the background shall last.
const TURN: Duration = Duration::from_millis(20);

/// The longest that a piece shall last: steps are cut no finer than that takes.
const LONGEST: f64 = 0.01;

/// Multiply-adds of a piece while nobody knows how long they take, so that one is no longer than a turn on a slow machine.
const PIECE: u64 = 1 << 27;

/// What moving a byte costs, in multiply-adds.
const BYTE: u64 = 4;

/// Some of every thread's share of a step: one of about equal parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) index: usize,
    pub(crate) of: usize,
}

impl Piece {
    pub(crate) const WHOLE: Piece = Piece { index: 0, of: 1 };

    /// Its part of something that has as many parts as there are pieces, or can be cut anywhere.
    pub(crate) fn part(self, range: Range<usize>) -> Range<usize> {
        let cut = |index| range.start + range.len() * index / self.of;
        cut(self.index)..cut(self.index + 1)
    }
}

/// The work of a program's steps, and how fast it went.
pub(crate) struct Pace {
    steps: Vec<Work>,
    /// By kernel: seconds for a unit of work, once measured.
    seconds: Vec<Option<f64>>,
}

struct Work {
    /// Index into [`Pace::seconds`].
    kernel: usize,
    units: u64,
}

impl Pace {
    pub(crate) fn new(costs: &[StepCost]) -> Pace {
        let mut kernels = Vec::new();
        let steps = costs.iter().map(|cost| {
            let known = kernels.iter().position(|kernel| *kernel == cost.kernel);
            let kernel = known.unwrap_or_else(|| {
                kernels.push(cost.kernel);
                kernels.len() - 1
            });
            Work { kernel, units: cost.macs + BYTE * (cost.weight_bytes + cost.activation_bytes) }
        });
        let steps = steps.collect();
        Pace { steps, seconds: vec![None; kernels.len()] }
    }

    fn total(&self) -> u64 {
        self.steps.iter().map(|work| work.units).sum()
    }

    /// About how many pieces a step shall be cut into.
    fn pieces(&self, step: usize) -> usize {
        match self.expected(step, 1) {
            Some(seconds) => (seconds / LONGEST).ceil() as usize,
            None => self.steps[step].units.div_ceil(PIECE) as usize,
        }
    }

    /// Seconds that a piece of a step is going to take, if that can be known.
    fn expected(&self, step: usize, of: usize) -> Option<f64> {
        let work = &self.steps[step];
        Some(self.seconds[work.kernel]? * work.units as f64 / of as f64)
    }

    /// A piece took so long. One that took unusually long may have been interrupted; one that is always slow shows again.
    fn learn(&mut self, step: usize, of: usize, seconds: f64) {
        let work = &self.steps[step];
        let now = seconds * of as f64 / work.units.max(1) as f64;
        let known = &mut self.seconds[work.kernel];
        *known = Some(known.map_or(now, |before| 0.75 * before + 0.25 * now));
    }
}

/// Runs all steps.
///
/// # Errors
/// [`ExecError::Stopped`] if who follows the team says so.
pub(crate) fn run(team: &Team, context: &Context<'_>, pace: &mut Pace) -> Result<(), ExecError> {
    let program = context.program;
    if team.follow().is_none() && !team.gives_way() {
        at_once(team, context, program);
        return Ok(());
    }
    let total = pace.total().max(1) as f64;
    let mut done = 0.0;
    let mut next = Cursor::default();
    let mut turn = Vec::new();
    while next.step < program.steps.len() {
        if team.stopped() {
            return Err(ExecError::Stopped);
        }
        turn.clear();
        next = fill(&mut turn, next, context, pace);
        in_turn(team, context, &turn);
        for Planned { step, piece, nanos, .. } in &turn {
            pace.learn(*step, piece.of, nanos.load(Ordering::Relaxed) as f64 * 1e-9);
            done += pace.steps[*step].units as f64 / piece.of as f64;
        }
        if let Some(follow) = team.follow() {
            follow.set_share((done / total).min(1.0) as f32);
        }
    }
    Ok(())
}

/// The next piece.
#[derive(Clone, Copy, Default)]
struct Cursor {
    step: usize,
    piece: usize,
    /// How many pieces the step has, from its first on.
    of: usize,
}

/// A piece of a turn.
struct Planned {
    step: usize,
    piece: Piece,
    /// How long it took the first thread.
    nanos: AtomicU64,
}

/// Adds pieces to a turn until it is long enough, and says which is the next. What takes nobody knows how long is a turn of
/// its own.
fn fill(turn: &mut Vec<Planned>, mut next: Cursor, context: &Context<'_>, pace: &Pace) -> Cursor {
    let steps = &context.program.steps;
    let mut left = TURN.as_secs_f64();
    while let Some(step) = steps.get(next.step) {
        if next.piece == 0 {
            next.of = context.pieces(step, pace.pieces(next.step));
        }
        let of = next.of;
        let expected = pace.expected(next.step, of).unwrap_or(TURN.as_secs_f64());
        if expected > left && !turn.is_empty() {
            break;
        }
        left -= expected;
        turn.push(Planned {
            step: next.step,
            piece: Piece { index: next.piece, of },
            nanos: AtomicU64::new(0),
        });
        next = match next.piece + 1 {
            piece if piece < of => Cursor { piece, ..next },
            _ => Cursor { step: next.step + 1, ..Cursor::default() },
        };
    }
    next
}

fn at_once(team: &Team, context: &Context<'_>, program: &Program) {
    let barrier = team.barrier();
    team.run(&|thread| {
        for step in &program.steps {
            if step.barrier {
                barrier();
            }
            // SAFETY: steps are separated by barriers where one reads what another thread wrote.
            unsafe { context.run(step, thread, Piece::WHOLE) };
        }
    });
}

/// How long one step of a schedule took the first thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepTime {
    /// Waiting for the other threads before it.
    pub waited: Duration,
    /// Its share of the step.
    pub computed: Duration,
}

/// Runs all steps at once, as [`at_once`] does, and looks at the clock around each.
pub(crate) fn timed(team: &Team, context: &Context<'_>, times: &mut Vec<StepTime>) {
    times.clear();
    times.reserve(context.program.steps.len());
    let (barrier, times) = (team.barrier(), Mutex::new(times));
    team.run(&|thread| {
        // Of the first thread; nobody else wants it.
        let mut times = (thread == 0).then(|| times.lock().unwrap_or_else(|e| e.into_inner()));
        let mut begun = Instant::now();
        for step in &context.program.steps {
            if step.barrier {
                barrier();
            }
            let met = Instant::now();
            // SAFETY: as `at_once`.
            unsafe { context.run(step, thread, Piece::WHOLE) };
            let done = Instant::now();
            if let Some(times) = &mut times {
                times.push(StepTime { waited: met - begun, computed: done - met });
            }
            begun = done;
        }
    });
}

fn in_turn(team: &Team, context: &Context<'_>, turn: &[Planned]) {
    let barrier = team.barrier();
    team.run(&|thread| {
        let mut begun = Instant::now();
        for (place, planned) in turn.iter().enumerate() {
            let step = &context.program.steps[planned.step];
            // The turn before ended with a barrier.
            if step.barrier && planned.piece.index == 0 && place > 0 {
                barrier();
            }
            // SAFETY: as above; a step has as many pieces as `Context::pieces` said, which share nothing but what all read.
            unsafe { context.run(step, thread, planned.piece) };
            if thread == 0 {
                let now = Instant::now();
                planned.nanos.store((now - begun).as_nanos() as u64, Ordering::Relaxed);
                begun = now;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_everything_once() {
        for (length, of) in [(0, 1), (7, 1), (7, 3), (3, 7), (100, 9)] {
            let parts = (0..of).map(|index| Piece { index, of }.part(5..5 + length));
            let all: Vec<usize> = parts.flatten().collect();
            assert!(all.into_iter().eq(5..5 + length));
        }
    }
}
