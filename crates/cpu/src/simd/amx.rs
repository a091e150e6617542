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

impl Configuration {
    /// Tiles of so many rows and bytes a row, by register.
    const fn of(tiles: [(u8, u16); 8]) -> Self {
        let mut all =
            Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let mut i = 0;
        while i < tiles.len() {
            (all.rows[i], all.row_bytes[i]) = tiles[i];
            i += 1;
        }
        all
    }
}

const WHOLE: (u8, u16) = (TILE_ROWS as u8, 64);

/// Products of 32 elements: sums in registers 0 to 3, activations in 4 and 5, weights in 6 and 7.
static SHORT: Configuration =
    Configuration::of([WHOLE, WHOLE, WHOLE, WHOLE, (WHOLE.0, 32), (WHOLE.0, 32), (8, 64), (8, 64)]);
/// The same for 64.
static LONG: Configuration = Configuration::of([WHOLE; 8]);

/// This thread's tiles, configured until this is dropped: `WIDTH` elements (32 or 64) at once.
pub(crate) struct Tiles<const WIDTH: usize>(PhantomData<*const ()>);

impl<const WIDTH: usize> Tiles<WIDTH> {
    /// Configures them.
    ///
    /// # Safety
    /// [`is_available`]; the thread has no others.
    #[inline(always)]
    pub(crate) unsafe fn configure() -> Self {
        let configuration = const {
            assert!(WIDTH == 32 || WIDTH == 64);
            if WIDTH == 32 { &SHORT } else { &LONG }
        };
        // SAFETY: the caller's; the compiler keeps nothing in these registers.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) configuration, options(nostack, preserves_flags, readonly));
        }
        Tiles(PhantomData)
    }
}

impl<const WIDTH: usize> Drop for Tiles<WIDTH> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: they were configured; without them the operating system has less to save.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

impl Tiles<32> {
    /// Products of 32 signed weights a lane, `[word][lane][4]`, with 32 activations in each of 16 rows that are `stride`
    /// bytes apart.
    ///
    /// # Safety
    /// The pointers are valid for that.
    #[inline(always)]
    pub(crate) unsafe fn multiply(
        &self,
        x: *const i8,
        stride: usize,
        w: *const [i8; 32 * PANEL],
        out: *mut Products,
    ) {
        // SAFETY: the caller's; the configuration's sizes are those of the types.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tileloadd tmm4, [{x} + {stride}]",
                "tileloadd tmm6, [{w} + {line}]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tilestored [{out} + {line}], tmm0",
                x = in(reg) x,
                stride = in(reg) stride,
                w = in(reg) w,
                out = in(reg) out,
                line = in(reg) 64usize,
                out("tmm0") _, out("tmm4") _, out("tmm6") _,
                options(nostack, preserves_flags),
            );
        }
    }
}

impl Tiles<64> {
    /// Products of 256 signed weights a lane, in `PLANES` (1 or 2) matrices of four tiles `[word][lane][4]`, with 256
    /// activations in each row of `TILES` (1 or 2) tiles, rows being `stride` bytes apart: `[tile][plane]`.
    ///
    /// # Safety
    /// The pointers are valid for that; what lies behind `TILES` or `PLANES` is not touched.
    #[inline(always)]
    pub(crate) unsafe fn multiply<const TILES: usize, const PLANES: usize>(
        &self,
        x: *const i8,
        stride: usize,
        w: *const [[[i8; 64 * PANEL]; 4]; 2],
        out: *mut [[Products; 2]; 2],
    ) {
        // SAFETY: as above. A weight's tile is loaded once for both tiles of rows, and the other way round.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                ".irp k, 0, 1, 2, 3",
                "tileloadd tmm4, [{x} + {stride} + 64 * \\k]",
                "tileloadd tmm6, [{w} + {line} + 1024 * \\k]",
                "tdpbssd tmm0, tmm4, tmm6",
                ".if {planes} > 1",
                "tileloadd tmm7, [{w} + {line} + 4096 + 1024 * \\k]",
                "tdpbssd tmm1, tmm4, tmm7",
                ".endif",
                ".if {tiles} > 1",
                "tileloadd tmm5, [{y} + {stride} + 64 * \\k]",
                "tdpbssd tmm2, tmm5, tmm6",
                ".if {planes} > 1",
                "tdpbssd tmm3, tmm5, tmm7",
                ".endif",
                ".endif",
                ".endr",
                "tilestored [{out} + {line}], tmm0",
                ".if {planes} > 1",
                "tilestored [{out} + {line} + 1024], tmm1",
                ".endif",
                ".if {tiles} > 1",
                "tilestored [{out} + {line} + 2048], tmm2",
                ".if {planes} > 1",
                "tilestored [{out} + {line} + 3072], tmm3",
                ".endif",
                ".endif",
                x = in(reg) x,
                y = in(reg) x.wrapping_add(TILE_ROWS * stride),
                stride = in(reg) stride,
                w = in(reg) w,
                out = in(reg) out,
                line = in(reg) 64usize,
                tiles = const TILES,
                planes = const PLANES,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags),
            );
        }
    }
}
