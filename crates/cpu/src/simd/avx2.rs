//! AVX2 with FMA and F16C: eight lanes.

use std::arch::x86_64::*;

use super::Isa;
use crate::weights::TINY_BF16;

/// AVX2, FMA and F16C.
pub(crate) struct Avx2;

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn enter<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// Four bytes of activations in every lane.
#[inline(always)]
unsafe fn broadcast(x: *const i8) -> __m256i {
    // SAFETY: AVX2 and 4 readable bytes by the trait's contract, here and below.
    unsafe { _mm256_set1_epi32(x.cast::<i32>().read_unaligned()) }
}

/// The sum of 32 signed bytes.
#[inline(always)]
pub(super) unsafe fn sum_i8(p: *const i8) -> i32 {
    // SAFETY: AVX2 and 32 readable bytes by the trait's contract.
    unsafe {
        let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), _mm256_loadu_si256(p.cast()));
        let eight = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
        let four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
        let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
        _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
    }
}

/// `acc[t] += factor * Σ w * x[t]`, `factor` being 16-bit pairs, weights in 0..=MAX.
#[inline(always)]
unsafe fn weigh_pairs<const MAX: i32, const N: usize, const M: usize>(
    acc: &mut [__m256i; M],
    w: &[__m256i; N],
    x: &[*const i8; M],
    factor: __m256i,
) {
    // So many sums of two products of at most MAX * 127 stay within 16 bits: 8 for MAX = 15 (30,480).
    let run = const {
        assert!(2 * 127 * MAX <= i16::MAX as i32);
        (i16::MAX as i32 / (2 * 127 * MAX)) as usize
    };
    // SAFETY: AVX2 and 4 N readable bytes by the trait's contract.
    unsafe {
        for from in (0..N).step_by(run) {
            let mut pairs = [_mm256_setzero_si256(); M];
            for j in from..(from + run).min(N) {
                for t in 0..M {
                    pairs[t] =
                        _mm256_add_epi16(pairs[t], _mm256_maddubs_epi16(w[j], broadcast(x[t].add(4 * j))));
                }
            }
            for t in 0..M {
                acc[t] = _mm256_add_epi32(acc[t], _mm256_madd_epi16(pairs[t], factor));
            }
        }
    }
}

impl Isa for Avx2 {
    const LANES: usize = 8;
    type V = __m256;
    type I = __m256i;
    type B = __m256i;

    #[inline(always)]
    unsafe fn run<R>(f: impl FnOnce() -> R) -> R {
        // SAFETY: the caller vouches for the instruction set; so for every block of this file.
        unsafe { enter(f) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn splat_f16(p: *const u16) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_cvtph_ps(_mm_set1_epi16(p.read_unaligned() as i16)) }
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: __m256) {
        // SAFETY: as above.
        unsafe { _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }
    #[inline(always)]
    unsafe fn round_bf16(v: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe {
            let bits = _mm256_castps_si256(v);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            let magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0), v);
            let tiny = _mm256_cmp_ps::<_CMP_LT_OQ>(magnitude, _mm256_set1_ps(TINY_BF16));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
            let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            let either = _mm256_and_si256(_mm256_blendv_epi8(rounded, quiet, nan), upper);
            _mm256_andnot_ps(tiny, _mm256_castsi256_ps(either))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: __m256) {
        // SAFETY: as above.
        unsafe {
            let upper = _mm256_srli_epi32::<16>(_mm256_castps_si256(Self::round_bf16(v)));
            // Halves of 128 bits are packed by themselves: four of eight numbers are in each.
            let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(upper, upper));
            _mm_storeu_si128(p.cast(), _mm256_castsi256_si128(packed));
        }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(a: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }
    #[inline(always)]
    unsafe fn select_less(a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) }
    }
    #[inline(always)]
    unsafe fn round(a: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    unsafe fn pow2(n: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        }
    }
    #[inline(always)]
    unsafe fn max_bits(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_castsi256_ps(_mm256_max_epu32(_mm256_castps_si256(a), _mm256_castps_si256(b))) }
    }
    #[inline(always)]
    unsafe fn max_lane_bits(a: __m256) -> u32 {
        // SAFETY: as above.
        unsafe {
            let bits = _mm256_castps_si256(a);
            let four = _mm_max_epu32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256::<1>(bits));
            let two = _mm_max_epu32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
            _mm_cvtsi128_si32(_mm_max_epu32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two))) as u32
        }
    }
    #[inline(always)]
    unsafe fn sum_i8(p: *const i8) -> i32 {
        // SAFETY: as above.
        unsafe { sum_i8(p) }
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, v: __m256) {
        // SAFETY: as above.
        unsafe {
            let ints = _mm256_cvtps_epi32(v);
            let (low, high) = (_mm256_castsi256_si128(ints), _mm256_extracti128_si256::<1>(ints));
            let words = _mm_packs_epi32(low, high);
            _mm_storel_epi64(p.cast(), _mm_packs_epi16(words, words));
        }
    }
    #[inline(always)]
    unsafe fn to_f32(a: __m256i) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn splat_i32(x: i32) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn widen_u8(p: *const u8) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast())) }
    }
    #[inline(always)]
    unsafe fn widen_i8(p: *const i8) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast())) }
    }
    #[inline(always)]
    unsafe fn mul_add_i32(acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_add_epi32(acc, _mm256_mullo_epi32(a, b)) }
    }
    #[inline(always)]
    unsafe fn pair_i16(low: __m256i, high: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_blend_epi16::<0b1010_1010>(low, _mm256_slli_epi32::<16>(high)) }
    }
    #[inline(always)]
    unsafe fn dot_i16(acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(a, b)) }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_bytes(p: *const u8) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut u8, b: __m256i) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(p.cast(), b) }
    }
    #[inline(always)]
    unsafe fn pick(b: __m256i, right: i32, mask: u8) -> __m256i {
        // SAFETY: as above.
        unsafe {
            let count = _mm_cvtsi32_si128(right.abs());
            let moved = if right < 0 { _mm256_sll_epi16(b, count) } else { _mm256_srl_epi16(b, count) };
            _mm256_and_si256(moved, _mm256_set1_epi8(mask as i8))
        }
    }
    #[inline(always)]
    unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_or_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn sub_bytes(b: __m256i, x: u8) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_sub_epi8(b, _mm256_set1_epi8(x as i8)) }
    }
    #[inline(always)]
    unsafe fn lookup(table: &[u8; 16], b: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())), b) }
    }
    #[inline(always)]
    unsafe fn dot_unsigned<const MAX: i32, const M: usize>(
        w: &[__m256i; 8],
        x: &[*const i8; M],
        init: &[i32; M],
    ) -> [__m256i; M] {
        // SAFETY: as above.
        unsafe {
            let mut sums = [_mm256_setzero_si256(); M];
            for t in 0..M {
                sums[t] = _mm256_set1_epi32(init[t]);
            }
            weigh_pairs::<MAX, 8, M>(&mut sums, w, x, _mm256_set1_epi16(1));
            sums
        }
    }
    #[inline(always)]
    unsafe fn dot_scaled<const MAX: i32, const N: usize, const M: usize>(
        acc: &mut [__m256i; M],
        w: &[__m256i; N],
        x: &[*const i8; M],
        scale: __m256i,
    ) {
        // SAFETY: as above.
        unsafe { weigh_pairs::<MAX, N, M>(acc, w, x, Self::pair_i16(scale, scale)) }
    }
    #[inline(always)]
    unsafe fn dot_i8<const M: usize>(w: &[__m256i; 8], x: &[*const i8; M], _sums: &[i32; M]) -> [__m256i; M] {
        // |w| * ±x: two products of at most 128 * 127 stay within 16 bits, more would not.
        // SAFETY: as above.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            let mut sums = [_mm256_setzero_si256(); M];
            for j in 0..8 {
                let signed = _mm256_xor_si256(w[j], _mm256_set1_epi8(-128));
                let magnitude = _mm256_abs_epi8(signed);
                for t in 0..M {
                    let pairs =
                        _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(broadcast(x[t].add(4 * j)), signed));
                    sums[t] = _mm256_add_epi32(sums[t], _mm256_madd_epi16(pairs, ones));
                }
            }
            sums
        }
    }
    #[inline(always)]
    unsafe fn unpair_bf16(w: __m256i) -> [__m256; 2] {
        // SAFETY: as above.
        unsafe {
            let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            [_mm256_slli_epi32::<16>(w), _mm256_and_si256(w, upper)].map(|v| _mm256_castsi256_ps(v))
        }
    }
}
