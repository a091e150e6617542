//! Plain Rust over eight lanes: any processor.

use std::array;

use half::f16;

use super::Isa;
use crate::math;
use crate::weights::flush_bf16;

const LANES: usize = 8;

/// Any processor.
pub(crate) struct Portable;

#[inline(always)]
fn each(f: impl FnMut(usize) -> f32) -> [f32; LANES] {
    array::from_fn(f)
}

#[inline(always)]
fn dot<const N: usize, const M: usize>(
    x: &[*const i8; M],
    init: &[i32; M],
    weight: impl Fn(usize, usize, usize) -> i32,
) -> [[i32; LANES]; M] {
    let mut out = [[0; LANES]; M];
    for t in 0..M {
        out[t] = [init[t]; LANES];
        for j in 0..N {
            for b in 0..4 {
                // SAFETY: `x[t]` points at 4 N activations.
                let a = i32::from(unsafe { *x[t].add(4 * j + b) });
                for (lane, sum) in out[t].iter_mut().enumerate() {
                    *sum += weight(j, lane, b) * a;
                }
            }
        }
    }
    out
}

impl Isa for Portable {
    const LANES: usize = LANES;
    type V = [f32; LANES];
    type I = [i32; LANES];
    type B = [u8; 4 * LANES];

    #[inline(always)]
    unsafe fn run<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: valid for LANES elements by the trait's contract, here and below.
        unsafe { p.cast::<Self::V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: as above.
        unsafe { p.cast::<Self::V>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::V {
        // SAFETY: as above.
        let bits = unsafe { p.cast::<[u16; LANES]>().read_unaligned() };
        each(|i| f16::from_bits(bits[i]).to_f32())
    }
    #[inline(always)]
    unsafe fn splat_f16(p: *const u16) -> Self::V {
        // SAFETY: as above.
        [f16::from_bits(unsafe { p.read_unaligned() }).to_f32(); LANES]
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: Self::V) {
        let bits: [u16; LANES] = array::from_fn(|i| f16::from_f32(v[i]).to_bits());
        // SAFETY: as above.
        unsafe { p.cast::<[u16; LANES]>().write_unaligned(bits) }
    }
    #[inline(always)]
    unsafe fn round_bf16(v: Self::V) -> Self::V {
        each(|i| f32::from_bits(u32::from(flush_bf16(v[i])) << 16))
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: Self::V) {
        let bits: [u16; LANES] = array::from_fn(|i| flush_bf16(v[i]));
        // SAFETY: as above.
        unsafe { p.cast::<[u16; LANES]>().write_unaligned(bits) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        each(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        each(|i| math::max(a[i], b[i]))
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        each(|i| math::min(a[i], b[i]))
    }
    #[inline(always)]
    unsafe fn abs(a: Self::V) -> Self::V {
        each(|i| a[i].abs())
    }
    #[inline(always)]
    unsafe fn select_less(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        each(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    unsafe fn round(a: Self::V) -> Self::V {
        each(|i| a[i].round_ties_even())
    }
    #[inline(always)]
    unsafe fn pow2(n: Self::V) -> Self::V {
        each(|i| f32::from_bits(((n[i] as i32).wrapping_add(127) << 23) as u32))
    }
    #[inline(always)]
    unsafe fn max_bits(a: Self::V, b: Self::V) -> Self::V {
        each(|i| f32::from_bits(a[i].to_bits().max(b[i].to_bits())))
    }
    #[inline(always)]
    unsafe fn max_lane_bits(a: Self::V) -> u32 {
        a.into_iter().fold(0, |max, x| max.max(x.to_bits()))
    }
    #[inline(always)]
    unsafe fn sum_i8(p: *const i8) -> i32 {
        // SAFETY: 32 readable bytes by the trait's contract.
        let bytes = unsafe { p.cast::<[i8; 32]>().read_unaligned() };
        bytes.into_iter().map(i32::from).sum()
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, v: Self::V) {
        let bytes: [i8; LANES] = array::from_fn(|i| v[i].round_ties_even() as i8);
        // SAFETY: as above.
        unsafe { p.cast::<[i8; LANES]>().write_unaligned(bytes) }
    }
    #[inline(always)]
    unsafe fn to_f32(a: Self::I) -> Self::V {
        each(|i| a[i] as f32)
    }
    #[inline(always)]
    unsafe fn splat_i32(x: i32) -> Self::I {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn widen_u8(p: *const u8) -> Self::I {
        // SAFETY: as above.
        unsafe { p.cast::<[u8; LANES]>().read_unaligned() }.map(i32::from)
    }
    #[inline(always)]
    unsafe fn widen_i8(p: *const i8) -> Self::I {
        // SAFETY: as above.
        unsafe { p.cast::<[i8; LANES]>().read_unaligned() }.map(i32::from)
    }
    #[inline(always)]
    unsafe fn mul_add_i32(acc: Self::I, a: Self::I, b: Self::I) -> Self::I {
        array::from_fn(|i| acc[i] + a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn pair_i16(low: Self::I, high: Self::I) -> Self::I {
        array::from_fn(|i| low[i] & 0xffff | high[i] << 16)
    }
    #[inline(always)]
    unsafe fn dot_i16(acc: Self::I, a: Self::I, b: Self::I) -> Self::I {
        let low = |x: i32| i32::from(x as i16);
        array::from_fn(|i| acc[i] + low(a[i]) * low(b[i]) + (a[i] >> 16) * (b[i] >> 16))
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
    #[inline(always)]
    unsafe fn load_bytes(p: *const u8) -> Self::B {
        // SAFETY: as above.
        unsafe { p.cast::<Self::B>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut u8, b: Self::B) {
        // SAFETY: as above.
        unsafe { p.cast::<Self::B>().write_unaligned(b) }
    }
    #[inline(always)]
    unsafe fn pick(b: Self::B, right: i32, mask: u8) -> Self::B {
        b.map(|x| (if right < 0 { x << -right } else { x >> right }) & mask)
    }
    #[inline(always)]
    unsafe fn or(a: Self::B, b: Self::B) -> Self::B {
        array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    unsafe fn sub_bytes(b: Self::B, x: u8) -> Self::B {
        b.map(|byte| byte.wrapping_sub(x))
    }
    #[inline(always)]
    unsafe fn lookup(table: &[u8; 16], b: Self::B) -> Self::B {
        b.map(|x| table[usize::from(x & 15)])
    }
    #[inline(always)]
    unsafe fn dot_unsigned<const MAX: i32, const M: usize>(
        w: &[Self::B; 8],
        x: &[*const i8; M],
        init: &[i32; M],
    ) -> [Self::I; M] {
        dot::<8, M>(x, init, |j, lane, b| i32::from(w[j][4 * lane + b]))
    }
    #[inline(always)]
    unsafe fn dot_scaled<const MAX: i32, const N: usize, const M: usize>(
        acc: &mut [Self::I; M],
        w: &[Self::B; N],
        x: &[*const i8; M],
        scale: Self::I,
    ) {
        let sums = dot::<N, M>(x, &[0; M], |j, lane, b| i32::from(w[j][4 * lane + b]));
        for t in 0..M {
            for lane in 0..LANES {
                acc[t][lane] += scale[lane] * sums[t][lane];
            }
        }
    }
    #[inline(always)]
    unsafe fn dot_i8<const M: usize>(w: &[Self::B; 8], x: &[*const i8; M], _sums: &[i32; M]) -> [Self::I; M] {
        dot::<8, M>(x, &[0; M], |j, lane, b| i32::from(w[j][4 * lane + b]) - 128)
    }
    #[inline(always)]
    unsafe fn unpair_bf16(w: Self::B) -> [Self::V; 2] {
        let pair = |i: usize| u32::from_le_bytes([w[4 * i], w[4 * i + 1], w[4 * i + 2], w[4 * i + 3]]);
        [each(|i| f32::from_bits(pair(i) << 16)), each(|i| f32::from_bits(pair(i) & 0xffff_0000))]
    }
}
