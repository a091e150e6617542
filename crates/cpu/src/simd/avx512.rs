//! AVX-512 with VNNI: sixteen lanes.

use std::arch::x86_64::*;

use super::Isa;
use crate::weights::TINY_BF16;

/// AVX-512 F, BW, DQ, VL and VNNI; with `BF16`, the AVX-512 BF16 instructions as well: for products of BF16 alone.
pub(crate) struct Avx512<const BF16: bool>;

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn enter<R>(f: impl FnOnce() -> R) -> R {
    f()
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
unsafe fn enter_bf16<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// Four bytes of activations in every lane.
#[inline(always)]
unsafe fn quad(x: *const i8) -> __m512i {
    // SAFETY: AVX-512 and 4 readable bytes by the trait's contract.
    unsafe { _mm512_set1_epi32(x.cast::<i32>().read_unaligned()) }
}

#[inline(always)]
unsafe fn dot<const M: usize>(w: &[__m512i; 8], x: &[*const i8; M], init: [i32; M]) -> [__m512i; M] {
    // SAFETY: AVX-512 VNNI and 32 readable bytes by the trait's contract.
    unsafe {
        let mut sums = [_mm512_setzero_si512(); M];
        for t in 0..M {
            sums[t] = _mm512_set1_epi32(init[t]);
        }
        for j in 0..8 {
            for t in 0..M {
                sums[t] = _mm512_dpbusd_epi32(sums[t], w[j], quad(x[t].add(4 * j)));
            }
        }
        sums
    }
}

impl<const BF16: bool> Isa for Avx512<BF16> {
    const LANES: usize = 16;
    const PAIRS: bool = BF16;
    type V = __m512;
    type I = __m512i;
    type B = __m512i;

    #[inline(always)]
    unsafe fn run<R>(f: impl FnOnce() -> R) -> R {
        // SAFETY: the caller vouches for the instruction set; so for every block of this file.
        unsafe { if BF16 { enter_bf16(f) } else { enter(f) } }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn splat_f16(p: *const u16) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtph_ps(_mm256_set1_epi16(p.read_unaligned() as i16)) }
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: __m512) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }
    #[inline(always)]
    unsafe fn round_bf16(v: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let bits = _mm512_castps_si512(v);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            let tiny = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_abs_ps(v), _mm512_set1_ps(TINY_BF16));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
            let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x40_0000));
            let either = _mm512_mask_blend_epi32(nan, rounded, quiet);
            let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            _mm512_castsi512_ps(_mm512_maskz_and_epi32(!tiny, either, upper))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: __m512) {
        // SAFETY: as above.
        unsafe {
            let upper = _mm512_srli_epi32::<16>(_mm512_castps_si512(Self::round_bf16(v)));
            _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(upper));
        }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(a: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_abs_ps(a) }
    }
    #[inline(always)]
    unsafe fn select_less(a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x) }
    }
    #[inline(always)]
    unsafe fn round(a: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    unsafe fn pow2(n: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }
    #[inline(always)]
    unsafe fn max_bits(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_castsi512_ps(_mm512_max_epu32(_mm512_castps_si512(a), _mm512_castps_si512(b))) }
    }
    #[inline(always)]
    unsafe fn max_lane_bits(a: __m512) -> u32 {
        // SAFETY: as above.
        unsafe { _mm512_reduce_max_epu32(_mm512_castps_si512(a)) }
    }
    #[inline(always)]
    unsafe fn sum_i8(p: *const i8) -> i32 {
        // SAFETY: as above.
        unsafe { super::avx2::sum_i8(p) }
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, v: __m512) {
        // SAFETY: as above.
        unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v))) }
    }
    #[inline(always)]
    unsafe fn to_f32(a: __m512i) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn splat_i32(x: i32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn widen_u8(p: *const u8) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn widen_i8(p: *const i8) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn mul_add_i32(acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_add_epi32(acc, _mm512_mullo_epi32(a, b)) }
    }
    #[inline(always)]
    unsafe fn pair_i16(low: __m512i, high: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_mask_blend_epi16(0xaaaa_aaaa, low, _mm512_slli_epi32::<16>(high)) }
    }
    #[inline(always)]
    unsafe fn dot_i16(acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_dpwssd_epi32(acc, a, b) }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_bytes(p: *const u8) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut u8, b: __m512i) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_si512(p.cast(), b) }
    }
    #[inline(always)]
    unsafe fn pick(b: __m512i, right: i32, mask: u8) -> __m512i {
        // SAFETY: as above.
        unsafe {
            let count = _mm_cvtsi32_si128(right.abs());
            let moved = if right < 0 { _mm512_sll_epi16(b, count) } else { _mm512_srl_epi16(b, count) };
            _mm512_and_si512(moved, _mm512_set1_epi8(mask as i8))
        }
    }
    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn sub_bytes(b: __m512i, x: u8) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_sub_epi8(b, _mm512_set1_epi8(x as i8)) }
    }
    #[inline(always)]
    unsafe fn lookup(table: &[u8; 16], b: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), b) }
    }
    #[inline(always)]
    unsafe fn dot_unsigned<const MAX: i32, const M: usize>(
        w: &[__m512i; 8],
        x: &[*const i8; M],
        init: &[i32; M],
    ) -> [__m512i; M] {
        // SAFETY: as above.
        unsafe { dot(w, x, *init) }
    }
    #[inline(always)]
    unsafe fn dot_scaled<const MAX: i32, const N: usize, const M: usize>(
        acc: &mut [__m512i; M],
        w: &[__m512i; N],
        x: &[*const i8; M],
        scale: __m512i,
    ) {
        // A sum of so many vectors' products stays within 16 bits: then one 16-bit multiply-add applies the scale.
        // A 32-bit multiplication takes the time of three of those.
        let run = const { (i16::MAX as i32 / (4 * 127 * MAX)) as usize };
        let short = run > 0 && N.div_ceil(run.max(1)) < 3;
        let run = if short { run } else { N };
        // SAFETY: as above.
        unsafe {
            let low_half = _mm512_and_si512(scale, _mm512_set1_epi32(0xffff));
            for from in (0..N).step_by(run) {
                let mut sums = [_mm512_setzero_si512(); M];
                for j in from..(from + run).min(N) {
                    for t in 0..M {
                        sums[t] = _mm512_dpbusd_epi32(sums[t], w[j], quad(x[t].add(4 * j)));
                    }
                }
                for t in 0..M {
                    acc[t] = match short {
                        true => _mm512_dpwssd_epi32(acc[t], sums[t], low_half),
                        false => Self::mul_add_i32(acc[t], sums[t], scale),
                    };
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn dot_i8<const M: usize>(w: &[__m512i; 8], x: &[*const i8; M], sums: &[i32; M]) -> [__m512i; M] {
        // The 128 that was added to every weight is taken off the sum, exactly.
        let mut init = [0; M];
        for t in 0..M {
            init[t] = -128 * sums[t];
        }
        // SAFETY: as above.
        unsafe { dot(w, x, init) }
    }
    #[inline(always)]
    unsafe fn unpair_bf16(w: __m512i) -> [__m512; 2] {
        // SAFETY: as above.
        unsafe {
            let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            [_mm512_slli_epi32::<16>(w), _mm512_and_si512(w, upper)].map(|v| _mm512_castsi512_ps(v))
        }
    }
    #[inline(always)]
    unsafe fn dot_bf16(acc: __m512, w: __m512i, x: u32) -> __m512 {
        // SAFETY: as above; a __m512bh is 32 BF16 numbers in the bits of a __m512i.
        unsafe {
            let pair = _mm512_set1_epi32(x as i32);
            let bf16 = |v| std::mem::transmute::<__m512i, __m512bh>(v);
            _mm512_dpbf16_ps(acc, bf16(w), bf16(pair))
        }
    }
}
