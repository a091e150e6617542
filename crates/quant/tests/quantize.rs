//! What holds of quantised blocks, whatever the numbers.

use proptest::prelude::*;
use wushi_graph::DType;
use wushi_quant::{QuantError, dequantize, quantize};

fn quantised() -> impl Iterator<Item = DType> {
    DType::ALL.iter().copied().filter(|dtype| !dtype.is_plain())
}

fn there_and_back(dtype: DType, x: &[f32]) -> Vec<f32> {
    dequantize(dtype, &quantize(dtype, x).expect("numbers that fit"))
}

fn root_mean_square(x: impl ExactSizeIterator<Item = f32>) -> f32 {
    let n = x.len() as f64;
    (x.map(|x| f64::from(x).powi(2)).sum::<f64>() / n).sqrt() as f32
}

/// The root of the mean squared error in a block of any numbers up to one, at most: about a step, of which types with
/// few bits have few.
fn bound(dtype: DType) -> f32 {
    match dtype {
        DType::F32 => 0.0,
        DType::F16 => 1.0 / 2048.0,
        DType::BF16 => 1.0 / 256.0,
        DType::Q8_0 => 1.0 / 250.0,
        DType::Q6_K | DType::Q5_0 | DType::Q5_K => 1.0 / 16.0,
        DType::Q5_1 => 2.0 / 31.0,
        DType::Q4_0 | DType::IQ4_NL | DType::IQ4_XS => 1.0 / 8.0,
        DType::Q4_1 | DType::Q4_K => 2.0 / 15.0,
        DType::MXFP4 | DType::Q3_K => 1.0 / 4.0,
        DType::Q2_K => 2.0 / 3.0,
    }
}

/// Numbers of bell shape, by a generator that is the same everywhere.
fn bell(seed: u32, n: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| (0..8).map(|_| next()).sum::<f32>() * 0.03).collect()
}

/// Blocks of numbers from -1 to 1, some of them exact zeros, times a power of two.
fn blocks() -> impl Strategy<Value = Vec<f32>> {
    let number = prop_oneof![4 => -1.0f32..=1.0, 1 => Just(0.0), 1 => -0.05f32..=0.05];
    (prop::collection::vec(number, 256), -8i32..=12)
        .prop_map(|(x, exponent)| x.iter().map(|x| x * 2.0f32.powi(exponent)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn errors_are_bounded(x in blocks()) {
        let most = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for &dtype in DType::ALL {
            let y = there_and_back(dtype, &x);
            let error = root_mean_square(x.iter().zip(&y).map(|(x, y)| x - y));
            prop_assert!(error <= bound(dtype) * most, "{dtype}: {error} of {most}");
        }
    }

    #[test]
    fn bytes_of_their_own_values_are_the_same_bytes(x in blocks()) {
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::Q8_0] {
            let once = quantize(dtype, &x).unwrap();
            prop_assert_eq!(&quantize(dtype, &dequantize(dtype, &once)).unwrap(), &once, "{}", dtype);
        }
    }

    #[test]
    fn zeros_stay_zero_where_the_type_has_them(x in blocks()) {
        for dtype in [DType::Q4_0, DType::Q5_0, DType::Q8_0, DType::Q3_K, DType::Q6_K, DType::MXFP4] {
            let y = there_and_back(dtype, &x);
            prop_assert!(x.iter().zip(&y).all(|(&x, &y)| x != 0.0 || y == 0.0), "{dtype}");
        }
    }

    #[test]
    fn blocks_do_not_know_each_other(a in blocks(), b in blocks()) {
        let both = [&a[..], &b[..]].concat();
        for &dtype in DType::ALL {
            let apart = [quantize(dtype, &a).unwrap(), quantize(dtype, &b).unwrap()].concat();
            prop_assert_eq!(quantize(dtype, &both).unwrap(), apart, "{}", dtype);
        }
    }

    #[test]
    fn any_numbers_give_numbers(bits in prop::collection::vec(any::<u32>(), 256)) {
        for &dtype in DType::ALL {
            let x: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
            match quantize(dtype, &x) {
                Ok(blocks) => prop_assert!(dequantize(dtype, &blocks).iter().all(|x| x.is_finite()), "{dtype}"),
                Err(QuantError::NotFinite { index, .. }) => prop_assert!(!x[index].is_finite()),
                Err(QuantError::TooLarge { index, limit, .. }) => prop_assert!(x[index].abs() > limit),
            }
            // The same, as large as the type takes.
            let x: Vec<f32> = x.iter().map(|x| if x.is_nan() { 0.0 } else { x.clamp(-65504.0, 65504.0) }).collect();
            let y = there_and_back(dtype, &x);
            prop_assert!(y.iter().all(|y| y.abs() <= 1.5 * 65504.0), "{dtype} {:?}", y.iter().find(|y| y.abs() > 66000.0));
        }
    }
}

#[test]
fn blocks_of_zeros_are_zero() {
    for &dtype in DType::ALL {
        for zero in [0.0, -0.0, 1e-30, -1e-40] {
            let y = there_and_back(dtype, &[zero; 256]);
            let stays = matches!(dtype, DType::F32 | DType::BF16 | DType::MXFP4);
            assert!(
                y.iter().all(|&y| y == 0.0 || stays && (y - zero).abs() <= zero.abs()),
                "{dtype} {zero:e}"
            );
        }
    }
}

#[test]
fn equal_numbers_are_nearly_exact() {
    for dtype in quantised().filter(|&dtype| dtype != DType::MXFP4) {
        for value in [3.0, -3.0, 0.71, -40_000.0, 65_504.0] {
            let y = there_and_back(dtype, &[value; 256]);
            assert!(y.iter().all(|y| (y / value - 1.0).abs() < 2e-3), "{dtype}: {value} is {}", y[0]);
        }
    }
}

#[test]
fn halves_are_rounded_to_even() {
    let x = [1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, -1.0 - 1.0 / 2048.0];
    assert_eq!(there_and_back(DType::F16, &x), [1.0, 1.0 + 2.0 / 1024.0, -1.0]);
    let x = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -1.0 - 1.0 / 256.0];
    assert_eq!(there_and_back(DType::BF16, &x), [1.0, 1.0 + 2.0 / 128.0, -1.0]);
}

#[test]
fn what_is_no_weight_is_refused_with_its_place() {
    for &dtype in DType::ALL {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![0.5; 512];
            x[300] = value;
            let error = quantize(dtype, &x).unwrap_err();
            assert!(matches!(error, QuantError::NotFinite { index: 300, .. }), "{dtype} {error}");
        }
        let mut x = vec![0.5; 512];
        x[7] = -1e30;
        let wide = matches!(dtype, DType::F32 | DType::BF16 | DType::MXFP4);
        match quantize(dtype, &x) {
            Ok(_) => assert!(wide, "{dtype}"),
            Err(error) => {
                assert!(!wide && matches!(error, QuantError::TooLarge { index: 7, .. }), "{dtype} {error}");
                assert!(error.to_string().contains("value 7 is -1e30"), "{error}");
            }
        }
    }
}

/// The errors of llama.cpp's quantisation (`ggml_quantize_chunk` without an importance matrix) of [`bell`]`(1, 16384)`,
/// as roots of means: squared, and squared and weighted by the squared number.
#[rustfmt::skip]
const LLAMA_CPP: [(DType, f64, f64); 13] = [
    (DType::Q4_0, 2.0670e-03, 5.0152e-05),
    (DType::Q4_1, 1.8962e-03, 4.1529e-05),
    (DType::Q5_0, 1.0293e-03, 2.4324e-05),
    (DType::Q5_1, 9.1245e-04, 2.0082e-05),
    (DType::Q8_0, 1.2915e-04, 2.9603e-06),
    (DType::Q2_K, 7.1678e-03, 1.5274e-04),
    (DType::Q3_K, 3.6240e-03, 8.3847e-05),
    (DType::Q4_K, 1.7239e-03, 3.9571e-05),
    (DType::Q5_K, 8.7176e-04, 2.0624e-05),
    (DType::Q6_K, 4.2742e-04, 8.9130e-06),
    (DType::IQ4_NL, 1.8381e-03, 5.1325e-05),
    (DType::IQ4_XS, 1.8531e-03, 5.2321e-05),
    (DType::MXFP4, 2.8657e-03, 1.2137e-04),
];

#[test]
fn errors_are_no_greater_than_those_of_llama_cpp() {
    let x = bell(1, 16384);
    for (dtype, plain, weighted) in LLAMA_CPP {
        let y = there_and_back(dtype, &x);
        let mean = |weigh: fn(f64) -> f64| {
            let terms = x.iter().zip(&y).map(|(&x, &y)| (f64::from(x), f64::from(y)));
            (terms.map(|(x, y)| weigh(x) * (x - y).powi(2)).sum::<f64>() / x.len() as f64).sqrt()
        };
        let (ours, ours_weighted) = (mean(|_| 1.0) / plain, mean(|x| x * x) / weighted);
        assert!(
            ours < 1.001 && ours_weighted < 1.005,
            "{dtype}: {ours:.4} and {ours_weighted:.4} of llama.cpp's"
        );
    }
}

/// Hashes (FNV-1a) of the blocks of [`bell`]`(2, 4096)`: they are the same on every machine. Whoever changes a search
/// changes them.
#[rustfmt::skip]
const HASHES: [(DType, u64); 16] = [
    (DType::F32, 0x90b3_cd10_1fe3_ee3a),
    (DType::F16, 0xc9df_f007_69aa_5949),
    (DType::BF16, 0x612d_0820_7601_46f3),
    (DType::Q4_0, 0x0681_ec07_08c2_be25),
    (DType::Q4_1, 0x746a_fe0d_35e9_fb8d),
    (DType::Q5_0, 0xf397_0a2c_451b_debe),
    (DType::Q5_1, 0x2145_a28e_0d47_a8ef),
    (DType::Q8_0, 0x599a_ce6e_8852_dcb3),
    (DType::Q2_K, 0x3219_31d6_4fa0_af38),
    (DType::Q3_K, 0x0f89_3714_882b_36ad),
    (DType::Q4_K, 0xbfc8_8c3e_7204_bfe2),
    (DType::Q5_K, 0x8737_619d_f976_0be7),
    (DType::Q6_K, 0x7b0b_1ddc_2999_3e8f),
    (DType::IQ4_NL, 0x9934_042a_6aad_97ca),
    (DType::IQ4_XS, 0xfdb0_b22b_efac_091a),
    (DType::MXFP4, 0x3729_d01f_1983_2002),
];

#[test]
fn blocks_are_the_same_on_every_machine() {
    let x = bell(2, 4096);
    let hash = |bytes: Vec<u8>| {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    };
    let got: Vec<(DType, u64)> =
        DType::ALL.iter().map(|&dtype| (dtype, hash(quantize(dtype, &x).unwrap()))).collect();
    assert_eq!(got, HASHES, "{got:#x?}");
}
