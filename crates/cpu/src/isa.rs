//! Which instruction sets this processor has, and their kernels.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::kernels::Kernels;
use crate::simd::Portable;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512, amx};

/// An instruction set that kernels are compiled for. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InstructionSet {
    /// Plain Rust.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// The same with its BF16 instructions.
    Avx512Bf16,
    /// [`InstructionSet::Avx512`] with AMX's integer tiles (AMX-TILE and AMX-INT8), where the operating system grants them.
    Avx512Amx,
}

impl InstructionSet {
    /// All of them, the later the faster.
    pub const ALL: [InstructionSet; 5] = [
        InstructionSet::Portable,
        InstructionSet::Avx2,
        InstructionSet::Avx512,
        InstructionSet::Avx512Bf16,
        InstructionSet::Avx512Amx,
    ];

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            InstructionSet::Portable => true,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => {
                InstructionSet::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Bf16 => {
                InstructionSet::Avx512.is_available() && is_x86_feature_detected!("avx512bf16")
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Amx => InstructionSet::Avx512.is_available() && amx::is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// Those this processor has, in the order of [`InstructionSet::ALL`].
    pub fn available() -> Vec<InstructionSet> {
        Self::ALL.into_iter().filter(|set| set.is_available()).collect()
    }

    /// The fastest this processor has.
    pub fn best() -> InstructionSet {
        static BEST: OnceLock<InstructionSet> = OnceLock::new();
        *BEST.get_or_init(|| match Self::available().pop() {
            // Intel's processors multiply no more BF16 numbers a cycle than F32 ones, which need no packing in pairs.
            Some(InstructionSet::Avx512Bf16) if is_intel() => InstructionSet::Avx512,
            best => best.unwrap_or(InstructionSet::Portable),
        })
    }

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            InstructionSet::Portable => "portable",
            InstructionSet::Avx2 => "avx2",
            InstructionSet::Avx512 => "avx512",
            InstructionSet::Avx512Bf16 => "avx512-bf16",
            InstructionSet::Avx512Amx => "avx512-amx",
        }
    }

    /// Its kernels. The processor must have it.
    pub(crate) fn kernels(self) -> &'static Kernels {
        static PORTABLE: Kernels = Kernels::of::<Portable>();
        assert!(self.is_available(), "this processor has no {self}");
        match self {
            InstructionSet::Portable => &PORTABLE,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => {
                static AVX2: Kernels = Kernels::of::<Avx2>();
                &AVX2
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => {
                static AVX512: Kernels = Kernels::of::<Avx512<false>>();
                &AVX512
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Bf16 => {
                // Only products of BF16 differ, so the rest is not compiled twice.
                static BF16: Kernels = Kernels::of::<Avx512<false>>().with_pairs::<Avx512<true>>();
                &BF16
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Amx => {
                static AMX: Kernels = Kernels::of::<Avx512<false>>().with_tiles();
                &AMX
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => &PORTABLE,
        }
    }
}

/// Whether Intel made this processor.
#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx] == [b"Genu", b"ineI", b"ntel"].map(|text| u32::from_le_bytes(*text))
}

#[cfg(not(target_arch = "x86_64"))]
fn is_intel() -> bool {
    false
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for InstructionSet {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let set = Self::ALL.into_iter().find(|set| set.name() == name).ok_or_else(|| {
            format!("unknown instruction set `{name}`; there are {}", Self::ALL.map(Self::name).join(", "))
        })?;
        match set.is_available() {
            true => Ok(set),
            false => Err(format!("this processor has no {set}")),
        }
    }
}
