//! The types keys and values are kept in, and where a page has them.
//!
//! For each key head a page holds the keys as `[element][slot]`, their scales, if there are any, as `[block][slot]`,
//! the values as `[slot][element]` and theirs as `[slot][block]`.

use half::f16;
use wushi_graph::CacheType;

use super::attention::PAGE_TOKENS;
use crate::simd::{self, Isa};

/// Elements of a head that share a scale.
pub(super) const BLOCK: usize = CacheType::BLOCK;

/// How elements are kept.
pub(super) trait Cache {
    const TYPE: CacheType;
    /// Bytes of an element.
    const BYTES: usize;
    /// Whether every block of [`BLOCK`] elements has a scale, else numbers stand for themselves.
    const SCALED: bool = false;

    /// `LANES` stored numbers.
    unsafe fn load<S: Isa>(p: *const u8) -> S::V;
    /// Rounds a block; returns its scale.
    unsafe fn round<S: Isa>(x: &[f32; BLOCK], out: &mut [u8; 4 * BLOCK]) -> f16;
}

/// Exact.
pub(super) struct F32Cache;
/// Rounded to nearest even.
pub(super) struct F16Cache;
/// Signed bytes with an F16 scale.
pub(super) struct Q8Cache;

impl Cache for F32Cache {
    const TYPE: CacheType = CacheType::F32;
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load<S: Isa>(p: *const u8) -> S::V {
        // SAFETY: the caller's, here and below in this file.
        unsafe { S::load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn round<S: Isa>(x: &[f32; BLOCK], out: &mut [u8; 4 * BLOCK]) -> f16 {
        for i in (0..BLOCK).step_by(S::LANES) {
            // SAFETY: as above.
            unsafe { S::store(out.as_mut_ptr().add(4 * i).cast(), S::load(x.as_ptr().add(i))) };
        }
        f16::ONE
    }
}

impl Cache for F16Cache {
    const TYPE: CacheType = CacheType::F16;
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Isa>(p: *const u8) -> S::V {
        // SAFETY: as above.
        unsafe { S::load_f16(p.cast()) }
    }
    #[inline(always)]
    unsafe fn round<S: Isa>(x: &[f32; BLOCK], out: &mut [u8; 4 * BLOCK]) -> f16 {
        for i in (0..BLOCK).step_by(S::LANES) {
            // SAFETY: as above.
            unsafe { S::store_f16(out.as_mut_ptr().add(2 * i).cast(), S::load(x.as_ptr().add(i))) };
        }
        f16::ONE
    }
}

impl Cache for Q8Cache {
    const TYPE: CacheType = CacheType::Q8_0;
    const BYTES: usize = 1;
    const SCALED: bool = true;

    #[inline(always)]
    unsafe fn load<S: Isa>(p: *const u8) -> S::V {
        // SAFETY: as above.
        unsafe { S::to_f32(S::widen_i8(p.cast())) }
    }
    #[inline(always)]
    unsafe fn round<S: Isa>(x: &[f32; BLOCK], out: &mut [u8; 4 * BLOCK]) -> f16 {
        // SAFETY: as above.
        unsafe {
            let scale = f16::from_f32(simd::max_magnitude::<S>(x.as_ptr(), BLOCK) / 127.0);
            let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
            for i in (0..BLOCK).step_by(S::LANES) {
                let quants = S::mul(S::load(x.as_ptr().add(i)), S::splat(inverse));
                // A scale that was rounded down leaves more than 127 of them.
                let quants = S::max(S::splat(-127.0), S::min(S::splat(127.0), quants));
                S::store_i8(out.as_mut_ptr().add(i).cast(), quants);
            }
            scale
        }
    }
}

/// One head's keys, or its values, in a page.
#[derive(Clone, Copy)]
pub(super) struct Half {
    base: *mut u8,
    /// Elements of a head as stored.
    padded: usize,
}

impl Half {
    /// Keys and values of a head whose part of a page starts at `base`.
    #[inline(always)]
    pub(super) fn both<C: Cache>(base: *mut u8, padded: usize) -> [Half; 2] {
        [Half { base, padded }, Half { base: base.wrapping_add(PAGE_TOKENS * C::TYPE.bytes(padded)), padded }]
    }

    /// Elements of a head as stored.
    #[inline(always)]
    pub(super) fn padded(&self) -> usize {
        self.padded
    }

    /// The same in F32, at another place.
    #[inline(always)]
    pub(super) fn moved(&self, page: &mut [f32]) -> Half {
        Half { base: page.as_mut_ptr().cast(), padded: self.padded }
    }

    #[inline(always)]
    fn scales<C: Cache>(&self) -> *mut u8 {
        self.base.wrapping_add(self.padded * PAGE_TOKENS * C::BYTES)
    }

    /// Element `i` of the keys from `slot` on.
    #[inline(always)]
    pub(super) fn key<C: Cache>(&self, i: usize, slot: usize) -> *mut u8 {
        self.base.wrapping_add((i * PAGE_TOKENS + slot) * C::BYTES)
    }

    /// Scale of the keys' block that element `i` is in, from `slot` on.
    #[inline(always)]
    pub(super) fn key_scale<C: Cache>(&self, i: usize, slot: usize) -> *mut u16 {
        self.scales::<C>().wrapping_add((i / BLOCK * PAGE_TOKENS + slot) * 2).cast()
    }

    /// The value in `slot` from element `i` on.
    #[inline(always)]
    pub(super) fn value<C: Cache>(&self, i: usize, slot: usize) -> *mut u8 {
        self.base.wrapping_add((slot * self.padded + i) * C::BYTES)
    }

    /// Scale of the block that element `i` of the value in `slot` is in.
    #[inline(always)]
    pub(super) fn value_scale<C: Cache>(&self, i: usize, slot: usize) -> *mut u16 {
        self.scales::<C>().wrapping_add((slot * self.padded.div_ceil(BLOCK) + i / BLOCK) * 2).cast()
    }
}
