//! What this machine can do right now: memory bandwidth, integer and floating-point peak.
//!
//! A benchmark says what share of these it reached, so they are to be measured in turn with it: both wander.

use std::sync::Mutex;
use std::time::Instant;

use crate::executor::CpuError;
use crate::isa::InstructionSet;
use crate::kernels::Kernels;
use crate::memory::SharedBytes;
use crate::simd::Isa;
use crate::team::Team;

/// Bytes that all threads together stream: well beyond any cache.
const STREAM: usize = 256 << 20;
/// Rounds of a peak measurement: some ten milliseconds.
const ROUNDS: usize = 400_000;

/// Measures with a fixed number of threads and one instruction set.
pub struct Probe {
    team: Team,
    kernels: &'static Kernels,
    memory: SharedBytes,
    /// Bytes each thread streams.
    share: usize,
}

/// One thread's work: `rounds` rounds, or the bytes to stream.
pub(crate) struct ProbeCall {
    memory: *const u8,
    bytes: usize,
    rounds: usize,
    /// Something that depends on all work done, so that none is left out.
    result: *mut f32,
}

impl Probe {
    /// Takes 256 MiB of memory until dropped.
    pub fn new(threads: usize, instruction_set: InstructionSet) -> Result<Self, CpuError> {
        let memory = SharedBytes::zeroed_dense(STREAM)?;
        let team = Team::new(threads)?;
        // Whole rounds of the streaming loop, whatever the vectors' size.
        let share = STREAM / team.threads() / 4096 * 4096;
        let start = memory.as_ptr() as usize;
        // Written by the threads that read it: untouched pages would all be one page of zeros.
        team.run(&|thread| {
            // SAFETY: every thread has its own part.
            unsafe { std::ptr::write_bytes((start + thread * share) as *mut u8, 1, share) };
        });
        Ok(Probe { team, kernels: instruction_set.kernels(), memory, share })
    }

    /// Bytes per second that all threads together read from memory.
    pub fn bandwidth(&mut self) -> f64 {
        let bytes = (self.team.threads() * self.share) as f64;
        bytes / self.time(self.kernels.probe_stream)
    }

    /// Multiply-adds of 8-bit integers per second, from registers and the first-level cache.
    pub fn integer_peak(&mut self) -> f64 {
        let lanes = self.kernels.lanes;
        (self.team.threads() * ROUNDS * QUADS * 4 * lanes) as f64 / self.time(self.kernels.probe_integers)
    }

    /// Multiply-adds of F32 per second, from registers.
    pub fn float_peak(&mut self) -> f64 {
        let lanes = self.kernels.lanes;
        (self.team.threads() * ROUNDS * CHAINS * lanes) as f64 / self.time(self.kernels.probe_floats)
    }

    fn time(&mut self, entry: crate::kernels::Entry<ProbeCall>) -> f64 {
        let (start, share) = (self.memory.as_ptr() as usize, self.share);
        let slowest = Mutex::new(0.0f64);
        let barrier = self.team.barrier();
        self.team.run(&|thread| {
            barrier();
            let begin = Instant::now();
            let mut result = 0.0f32;
            let call = ProbeCall {
                memory: (start + thread * share) as *const u8,
                bytes: share,
                rounds: ROUNDS,
                result: &mut result,
            };
            // SAFETY: the kernels are of an available instruction set; the memory lives as long as `self`.
            unsafe { entry(&call) };
            std::hint::black_box(result);
            let mut slowest = slowest.lock().unwrap_or_else(|e| e.into_inner());
            *slowest = slowest.max(begin.elapsed().as_secs_f64());
        });
        slowest.into_inner().unwrap_or_else(|e| e.into_inner())
    }
}

#[inline(always)]
pub(crate) unsafe fn stream<S: Isa>(call: &ProbeCall) {
    // SAFETY: see `Entry`.
    unsafe {
        let vector = 4 * S::LANES;
        let mut sums = [S::splat(0.0); 8];
        for at in (0..call.bytes).step_by(8 * vector) {
            for i in 0..8 {
                sums[i] = S::max_bits(sums[i], S::load(call.memory.add(at + i * vector).cast()));
            }
        }
        for i in 0..8 {
            *call.result += f32::from_bits(S::max_lane_bits(sums[i]));
        }
    }
}

/// Groups of four products per lane in one round: 8 of a block for 8 rows.
const QUADS: usize = 8 * 8;

#[inline(always)]
pub(crate) unsafe fn integers<S: Isa>(call: &ProbeCall) {
    // SAFETY: see `Entry`.
    unsafe {
        let mut x = [call.memory.cast::<i8>(); 8];
        for t in 0..8 {
            x[t] = x[t].add(32 * t);
        }
        let mut w = [S::load_bytes(call.memory); 8];
        for j in 0..8 {
            w[j] = S::pick(S::load_bytes(call.memory.add(j * 64)), 0, 15);
        }
        let mut sum = S::splat(0.0);
        for round in 0..call.rounds {
            // The products depend on what the compiler cannot see through, or it would compute them once.
            let products = S::dot_unsigned::<15, 8>(&w, std::hint::black_box(&x), &[round as i32; 8]);
            for t in 0..8 {
                sum = S::max_bits(sum, S::to_f32(products[t]));
            }
        }
        *call.result += f32::from_bits(S::max_lane_bits(sum));
    }
}

/// The same by AMX's tiles.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn integers_by_tiles(call: &ProbeCall) {
    use crate::simd::PANEL;
    use crate::simd::amx::{Products, TILE_ROWS, Tiles};
    // In each round of the other, 64 bytes of weights in `QUADS` products; here two panels of 256 by two tiles of rows.
    const TILES: usize = (2 * TILE_ROWS) * (2 * PANEL) * 256 / (QUADS * 4 * PANEL);
    // SAFETY: see `Entry`.
    unsafe {
        let tiles = Tiles::<64>::configure();
        let mut products = std::mem::MaybeUninit::<[[Products; 2]; 2]>::uninit();
        for _ in 0..call.rounds / TILES {
            tiles.multiply::<2, 2>(call.memory.cast(), 256, call.memory.cast(), products.as_mut_ptr());
        }
        *call.result = products.as_ptr().cast::<i32>().read() as f32;
    }
}

/// Independent chains of multiply-adds: enough to hide their latency.
const CHAINS: usize = 12;

#[inline(always)]
pub(crate) unsafe fn floats<S: Isa>(call: &ProbeCall) {
    // SAFETY: see `Entry`.
    unsafe {
        let x = S::load(call.memory.cast());
        let mut sums = [x; CHAINS];
        for _ in 0..call.rounds {
            for sum in &mut sums {
                *sum = S::fma(*sum, x, x);
            }
        }
        for sum in sums {
            *call.result += f32::from_bits(S::max_lane_bits(sum));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_can_be_probed() {
        for set in InstructionSet::available() {
            let mut probe = Probe::new(2, set).unwrap();
            for value in [probe.bandwidth(), probe.integer_peak(), probe.float_peak()] {
                assert!(value.is_finite() && value > 0.0, "{set}: {value}");
            }
        }
    }
}
