//! What this machine is and can do.

use std::fmt;
use std::fs;

use serde::Serialize;
use wushi_cpu::{InstructionSet, Probe, StepCost};
use wushi_graph::DType;

use super::median;

/// What the machine could do at one moment: it wanders, above all where others use it too.
#[derive(Clone, Copy)]
pub(super) struct Peaks {
    /// Bytes read from memory per second.
    pub(super) bandwidth: f64,
    /// Multiply-adds of bytes per second, out of the nearest cache.
    pub(super) integer: f64,
    /// Multiply-adds of F32 per second, out of registers.
    pub(super) float: f64,
}

impl Peaks {
    pub(super) fn measure(probe: &mut Probe) -> Peaks {
        Peaks { bandwidth: probe.bandwidth(), integer: probe.integer_peak(), float: probe.float_peak() }
    }

    /// What was between two moments.
    pub(super) fn mean(self, other: Peaks) -> Peaks {
        let half = |of: fn(&Peaks) -> f64| (of(&self) + of(&other)) / 2.0;
        Peaks { bandwidth: half(|p| p.bandwidth), integer: half(|p| p.integer), float: half(|p| p.float) }
    }

    /// The most multiply-adds a second with weights of this type: BF16 does two where F32 does one, if the instruction set has
    /// products of pairs; blocks are computed in bytes.
    pub(super) fn of(&self, dtype: DType, set: InstructionSet) -> f64 {
        match dtype {
            DType::F32 | DType::F16 => self.float,
            DType::BF16 if set == InstructionSet::Avx512Bf16 => 2.0 * self.float,
            DType::BF16 => self.float,
            _ => self.integer,
        }
    }

    /// How long a step's multiply-adds would take if nothing else mattered.
    pub(super) fn seconds(&self, cost: &StepCost, set: InstructionSet) -> f64 {
        let integer = cost.macs - cost.float_macs - cost.bf16_macs;
        integer as f64 / self.integer
            + cost.float_macs as f64 / self.float
            + cost.bf16_macs as f64 / self.of(DType::BF16, set)
    }
}

/// The machine, as measured during a benchmark.
#[derive(Default, Serialize)]
pub(super) struct Machine {
    cpu: String,
    threads: usize,
    instruction_set: String,
    bandwidth_gb_per_s: f64,
    int8_giga_macs_per_s: f64,
    f32_giga_macs_per_s: f64,
}

impl Machine {
    pub(super) fn new(threads: usize, set: InstructionSet, peaks: &[Peaks]) -> Machine {
        let over = |of: fn(&Peaks) -> f64| median(peaks.iter().map(of).collect()) / 1e9;
        Machine {
            cpu: cpu_name(),
            threads,
            instruction_set: set.to_string(),
            bandwidth_gb_per_s: over(|peaks| peaks.bandwidth),
            int8_giga_macs_per_s: over(|peaks| peaks.integer),
            f32_giga_macs_per_s: over(|peaks| peaks.float),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} threads, {}: {:.1} GB/s, {:.0} G multiply-adds of bytes and {:.0} of F32 per second",
            self.cpu,
            self.threads,
            self.instruction_set,
            self.bandwidth_gb_per_s,
            self.int8_giga_macs_per_s,
            self.f32_giga_macs_per_s
        )
    }
}

/// The processor's name, or at least its architecture.
pub(crate) fn cpu_name() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_owned()
}

/// The most memory this process has had resident, in bytes; `None` where the system does not say.
pub(crate) fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}
