//! AMX's integer tiles: products of 16 rows of activations with a panel's 16 rows of weights, exact in 32 bits.
//!
//! The compiler has no stable intrinsics for them, hence assembly. No function leaves anything in a tile register that
//! another one reads: all that lasts from one to the next is the configuration, which [`Tiles`] stands for.

use std::arch::asm;
use std::marker::PhantomData;
use std::sync::OnceLock;

use super::PANEL;

/// Rows of activations in a tile.
pub(crate) const TILE_ROWS: usize = 16;

/// Sums of products: `[row][lane]`.
#[repr(align(64))]
pub(crate) struct Products(#[expect(dead_code, reason = "read by pointers")] [[i32; PANEL]; TILE_ROWS]);

/// Whether the processor has AMX-TILE and AMX-INT8 and the operating system lets this process use them.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| cfg!(target_os = "linux") && processor_has() && permitted())
}

fn processor_has() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const OSXSAVE: u32 = 1 << 27;
    const AMX_TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
    const TILE_STATES: u32 = 1 << 17 | 1 << 18;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    let states: u32;
    // SAFETY: OSXSAVE says that there is this instruction; it reads a register.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") states, out("edx") _, options(nomem, nostack, preserves_flags));
    }
    __cpuid_count(7, 0).edx & AMX_TILE_AND_INT8 == AMX_TILE_AND_INT8 && states & TILE_STATES == TILE_STATES
}

/// Asks Linux for the tiles' registers, for all threads (`Documentation/arch/x86/xstate.rst`).
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: only called on Linux; the call touches no memory of this process.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// What `ldtilecfg` reads (Intel's manual, volume 1, 18.3).
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of a row, by register.
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Registers 0-3: whole tiles. 4: 32 activations a row. 5: 32 weights a lane.
static CONFIGURATION: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 32, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 8, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// This thread's tiles, configured until this is dropped.
pub(crate) struct Tiles(PhantomData<*const ()>);

impl Tiles {
    /// Configures them.
    ///
    /// # Safety
    /// [`is_available`]; the thread has no other.
    #[inline(always)]
    pub(crate) unsafe fn configure() -> Self {
        // SAFETY: the caller's; the compiler keeps nothing in these registers.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &CONFIGURATION, options(nostack, preserves_flags, readonly));
        }
        Tiles(PhantomData)
    }

    /// Products of 32 weights a lane, signed, `[word][lane][4]`, with 32 activations in each of 16 rows that are `stride`
    /// bytes apart.
    ///
    /// # Safety
    /// The rows are there, and the pointers valid.
    #[inline(always)]
    pub(crate) unsafe fn multiply_32(
        &self,
        x: *const i8,
        stride: usize,
        w: *const [i8; 512],
        out: *mut Products,
    ) {
        // SAFETY: the caller's; the configuration's sizes are those of the types.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tileloadd tmm4, [{x} + {stride}]",
                "tileloadd tmm5, [{w} + {line}]",
                "tdpbssd tmm0, tmm4, tmm5",
                "tilestored [{out} + {line}], tmm0",
                x = in(reg) x,
                stride = in(reg) stride,
                w = in(reg) w,
                out = in(reg) out,
                line = in(reg) 64usize,
                out("tmm0") _, out("tmm4") _, out("tmm5") _,
                options(nostack, preserves_flags),
            );
        }
    }

    /// Products of 256 weights a lane, four tiles `[word][lane][4]`, with 256 activations in each of 16 rows.
    ///
    /// # Safety
    /// The rows are there, and the pointers valid.
    #[inline(always)]
    pub(crate) unsafe fn multiply_256(
        &self,
        x: *const i8,
        stride: usize,
        w: *const [[i8; 1024]; 4],
        out: *mut Products,
    ) {
        // SAFETY: as above.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tileloadd tmm2, [{x} + {stride}]",
                "tileloadd tmm3, [{w} + {line}]",
                "tdpbssd tmm0, tmm2, tmm3",
                "tileloadd tmm6, [{x} + {stride} + 64]",
                "tileloadd tmm7, [{w} + {line} + 1024]",
                "tdpbssd tmm0, tmm6, tmm7",
                "tileloadd tmm2, [{x} + {stride} + 128]",
                "tileloadd tmm3, [{w} + {line} + 2048]",
                "tdpbssd tmm0, tmm2, tmm3",
                "tileloadd tmm6, [{x} + {stride} + 192]",
                "tileloadd tmm7, [{w} + {line} + 3072]",
                "tdpbssd tmm0, tmm6, tmm7",
                "tilestored [{out} + {line}], tmm0",
                x = in(reg) x,
                stride = in(reg) stride,
                w = in(reg) w,
                out = in(reg) out,
                line = in(reg) 64usize,
                out("tmm0") _, out("tmm2") _, out("tmm3") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags),
            );
        }
    }

    /// [`Tiles::multiply_256`] with two matrices of weights at once.
    ///
    /// # Safety
    /// The rows are there, and the pointers valid.
    #[inline(always)]
    pub(crate) unsafe fn multiply_256_twice(
        &self,
        x: *const i8,
        stride: usize,
        w: *const [[[i8; 1024]; 4]; 2],
        out: *mut [Products; 2],
    ) {
        // SAFETY: as above.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tileloadd tmm2, [{x} + {stride}]",
                "tileloadd tmm3, [{w} + {line}]",
                "tdpbssd tmm0, tmm2, tmm3",
                "tileloadd tmm6, [{w} + {line} + 4096]",
                "tdpbssd tmm1, tmm2, tmm6",
                "tileloadd tmm7, [{x} + {stride} + 64]",
                "tileloadd tmm3, [{w} + {line} + 1024]",
                "tdpbssd tmm0, tmm7, tmm3",
                "tileloadd tmm6, [{w} + {line} + 5120]",
                "tdpbssd tmm1, tmm7, tmm6",
                "tileloadd tmm2, [{x} + {stride} + 128]",
                "tileloadd tmm3, [{w} + {line} + 2048]",
                "tdpbssd tmm0, tmm2, tmm3",
                "tileloadd tmm6, [{w} + {line} + 6144]",
                "tdpbssd tmm1, tmm2, tmm6",
                "tileloadd tmm7, [{x} + {stride} + 192]",
                "tileloadd tmm3, [{w} + {line} + 3072]",
                "tdpbssd tmm0, tmm7, tmm3",
                "tileloadd tmm6, [{w} + {line} + 7168]",
                "tdpbssd tmm1, tmm7, tmm6",
                "tilestored [{out} + {line}], tmm0",
                "tilestored [{out} + {line} + 1024], tmm1",
                x = in(reg) x,
                stride = in(reg) stride,
                w = in(reg) w,
                out = in(reg) out,
                line = in(reg) 64usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags),
            );
        }
    }
}

impl Drop for Tiles {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: they were configured; without them the operating system has less to save.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}
