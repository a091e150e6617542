//! What every kind of step of the schedule takes, measured while the engine runs.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use wushi_cpu::{Costs, CpuExecutor, InstructionSet, StepCost, StepTime};
use wushi_engine::load::{LoadPlan, Size};
use wushi_graph::{Batch, Computed, ExecError, Executor, ExecutorInfo, StatesInfo};

use super::machine::Peaks;
use super::{Kind, Row};
use crate::commands::video::plan::operations;
use crate::output::Table;

/// A batch that was run.
struct Run {
    batch: Batch,
    times: Vec<StepTime>,
    began: Instant,
    ended: Instant,
}

impl Run {
    fn whole(&self) -> Duration {
        self.ended - self.began
    }

    /// Whether it decoded a token of each of so many sequences, and did nothing else.
    fn decodes(&self, sequences: usize) -> bool {
        let Batch { spans, tokens, logit_rows, .. } = &self.batch;
        [spans.len(), tokens.len(), logit_rows.len()] == [sequences; 3]
            && spans.iter().all(|span| span.start > 0)
    }
}

type Log = Arc<Mutex<Vec<Run>>>;

fn locked(log: &Log) -> MutexGuard<'_, Vec<Run>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An executor that times its steps and writes down what it ran.
struct Watched {
    executor: CpuExecutor,
    log: Log,
}

impl Executor for Watched {
    fn info(&self) -> &ExecutorInfo {
        self.executor.info()
    }

    fn states(&self) -> Option<StatesInfo> {
        self.executor.states()
    }

    fn run(&mut self, batch: &Batch) -> Result<Computed<'_>, ExecError> {
        let (copy, mut times) = (batch.clone(), Vec::new());
        let began = Instant::now();
        let computed = self.executor.run_timed(batch, &mut times)?;
        locked(&self.log).push(Run { batch: copy, times, began, ended: Instant::now() });
        Ok(computed)
    }
}

/// Looks on while a model is measured.
pub(super) struct Watch {
    costs: Costs,
    set: InstructionSet,
    log: Log,
}

impl Watch {
    pub(super) fn new(plan: &LoadPlan) -> Result<Watch> {
        Ok(Watch { costs: plan.costs()?, set: plan.executor().instruction_set, log: Log::default() })
    }

    pub(super) fn over(&self, executor: CpuExecutor) -> Box<dyn Executor> {
        Box::new(Watched { executor, log: Arc::clone(&self.log) })
    }

    /// Forgets what was run so far.
    pub(super) fn forget(&self) {
        locked(&self.log).clear();
    }

    /// What was run since, as times of whole prefills or of steps that decoded. `seconds` is how long all of it took.
    pub(super) fn units(&self, kind: Kind, sequences: usize, seconds: f64) -> Vec<Unit> {
        let runs = std::mem::take(&mut *locked(&self.log));
        match kind {
            Kind::Prefill => vec![Unit { runs, whole: seconds }],
            Kind::Decode => {
                let mut units = Vec::new();
                let mut runs = runs.into_iter().peekable();
                while let Some(run) = runs.next() {
                    // What lies between two steps belongs to the first.
                    match runs.peek() {
                        Some(next) if run.decodes(sequences) && next.decodes(sequences) => {
                            let whole = (next.began - run.began).as_secs_f64();
                            units.push(Unit { runs: vec![run], whole });
                        }
                        _ => {}
                    }
                }
                units
            }
        }
    }

    pub(super) fn report(&self, row: &Row) -> StepsReport {
        let mean = |of: fn(&Peaks) -> f64| {
            row.samples.iter().map(|(_, peaks)| of(peaks)).sum::<f64>() / row.samples.len() as f64
        };
        let peaks = Peaks {
            bandwidth: mean(|peaks| peaks.bandwidth),
            integer: mean(|peaks| peaks.integer),
            float: mean(|peaks| peaks.float),
        };
        let units = middle_half(row.units.iter().collect());
        let mut sums = Sums::default();
        units.iter().for_each(|unit| sums.add(unit, &self.costs));
        let whole = units.iter().map(|unit| unit.whole).sum::<f64>();
        let count = units.len().max(1) as f64;
        let mut kinds: Vec<KindOfStep> =
            sums.groups.iter().map(|group| group.result(whole, count, &peaks, self.set)).collect();
        kinds.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        StepsReport {
            kind: row.kind.name(),
            sequences: row.sequences,
            units: units.len(),
            seconds: whole / count,
            kinds,
            waiting_s: sums.waited.as_secs_f64() / count,
            around_s: sums.around.as_secs_f64() / count,
            between_s: (whole - sums.run.as_secs_f64()).max(0.0) / count,
        }
    }
}

/// What is looked at as a whole: a prefill, or one step that decodes.
pub(super) struct Unit {
    runs: Vec<Run>,
    /// Seconds, all that lies between the steps included.
    whole: f64,
}

/// Those that took neither unusually long nor unusually short.
fn middle_half(mut units: Vec<&Unit>) -> Vec<&Unit> {
    units.sort_by(|a, b| a.whole.total_cmp(&b.whole));
    let quarter = units.len() / 4;
    units.drain(..quarter);
    units.truncate(units.len() - quarter);
    units
}

/// Steps of one kernel over the same kind of weights.
struct Group {
    cost: StepCost,
    steps: u64,
    time: Duration,
}

impl Group {
    fn result(&self, whole: f64, count: f64, peaks: &Peaks, set: InstructionSet) -> KindOfStep {
        let (cost, all) = (&self.cost, self.time.as_secs_f64());
        let bytes = cost.weight_bytes + cost.activation_bytes;
        let share = |least: f64| if all > 0.0 { least / all } else { 0.0 };
        KindOfStep {
            kernel: cost.kernel,
            what: cost.what.clone(),
            steps: (self.steps as f64 / count).round() as u64,
            seconds: all / count,
            share: all / whole,
            multiply_adds: (cost.macs as f64 / count) as u64,
            bytes: (bytes as f64 / count) as u64,
            share_of_peak: share(peaks.seconds(cost, set)),
            share_of_bandwidth: share(bytes as f64 / peaks.bandwidth),
        }
    }
}

/// Over several units.
#[derive(Default)]
struct Sums {
    groups: Vec<Group>,
    /// All runs as wholes.
    run: Duration,
    waited: Duration,
    /// Within runs, but before, after or between their steps.
    around: Duration,
}

impl Sums {
    fn add(&mut self, unit: &Unit, costs: &Costs) {
        for run in &unit.runs {
            let mut inside = Duration::ZERO;
            for (cost, time) in costs.of(&run.batch).into_iter().zip(&run.times) {
                inside += time.computed + time.waited;
                self.waited += time.waited;
                self.add_step(cost, time.computed);
            }
            self.run += run.whole();
            self.around += run.whole().saturating_sub(inside);
        }
    }

    fn add_step(&mut self, cost: StepCost, time: Duration) {
        let known = self.groups.iter_mut().find(|g| g.cost.kernel == cost.kernel && g.cost.what == cost.what);
        let Some(group) = known else {
            self.groups.push(Group { cost, steps: 1, time });
            return;
        };
        group.steps += 1;
        group.time += time;
        group.cost.macs += cost.macs;
        group.cost.float_macs += cost.float_macs;
        group.cost.bf16_macs += cost.bf16_macs;
        group.cost.weight_bytes += cost.weight_bytes;
        group.cost.activation_bytes += cost.activation_bytes;
    }
}

/// Where the time of a prefill, or of a step that decodes, went; means over those of middling length.
#[derive(Serialize)]
pub(super) struct StepsReport {
    kind: &'static str,
    sequences: usize,
    /// How many prefills or steps these are means of.
    units: usize,
    seconds: f64,
    /// The most expensive first.
    kinds: Vec<KindOfStep>,
    /// The first thread's waiting for the others.
    waiting_s: f64,
    /// Before and after the schedule's steps: checks, plans, waking the threads.
    around_s: f64,
    /// Between batches: sampling, text, scheduling.
    between_s: f64,
}

#[derive(Serialize)]
struct KindOfStep {
    kernel: &'static str,
    /// Weights with their types, or sizes.
    what: String,
    /// How many steps of the schedule.
    steps: u64,
    seconds: f64,
    share: f64,
    multiply_adds: u64,
    /// Weights, activations, keys and values.
    bytes: u64,
    share_of_peak: f64,
    share_of_bandwidth: f64,
}

impl fmt::Display for StepsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.sequences == 1 { "" } else { "s" };
        let of_all = |seconds: f64| format!("{:.1} %", seconds / self.seconds * 100.0);
        let ms = |seconds: f64| format!("{:.3}", seconds * 1e3);
        writeln!(
            f,
            "\n{} of {} sequence{plural}: {} ms, mean of {}\n",
            self.kind,
            self.sequences,
            ms(self.seconds),
            self.units
        )?;
        let headings = [
            "KERNEL",
            "WEIGHTS",
            "STEPS",
            "MS",
            "SHARE",
            "MULTIPLY-ADDS",
            "OF PEAK",
            "BYTES",
            "OF BANDWIDTH",
        ];
        let mut table = Table::new(2, headings);
        for kind in &self.kinds {
            let has_products = kind.multiply_adds > 0;
            let percent = |share: f64| format!("{:.0} %", share * 100.0);
            table.row([
                kind.kernel.to_owned(),
                kind.what.clone(),
                kind.steps.to_string(),
                ms(kind.seconds),
                of_all(kind.seconds),
                if has_products { operations(kind.multiply_adds) } else { String::new() },
                if has_products { percent(kind.share_of_peak) } else { String::new() },
                Size(kind.bytes).to_string(),
                percent(kind.share_of_bandwidth),
            ]);
        }
        for (name, what, seconds) in [
            ("(waiting)", "for other threads, at barriers", self.waiting_s),
            ("(around)", "planning the batch, waking threads", self.around_s),
            ("(between)", "sampling, scheduling, events", self.between_s),
        ] {
            let empty = String::new;
            table.row([
                name.to_owned(),
                what.to_owned(),
                empty(),
                ms(seconds),
                of_all(seconds),
                empty(),
                empty(),
                empty(),
                empty(),
            ]);
        }
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::{Unit, middle_half};

    #[test]
    fn the_middle_half_leaves_out_as_many_on_both_sides() {
        let units: Vec<Unit> =
            [9.0, 1.0, 3.0, 2.0, 4.0].map(|whole| Unit { runs: Vec::new(), whole }).into_iter().collect();
        let wholes = |units: &[Unit]| -> Vec<f64> {
            middle_half(units.iter().collect()).iter().map(|unit| unit.whole).collect()
        };
        assert_eq!(wholes(&units), [2.0, 3.0, 4.0]);
        assert_eq!(wholes(&units[..1]), [9.0]);
        assert!(wholes(&[]).is_empty());
    }
}
