//! Which type a weight of a model gets when the model is quantised to one.

use wushi_graph::{DType, Role};

/// The type that a weight is stored in when its model is to be `wanted`; `row` is the number of elements in a row, and
/// `logits` says that its rows give the logits (an output matrix, or an embedding used as one).
///
/// As in llama.cpp (`src/llama-quant.cpp`, MIT):
///
/// - Vectors are F32: they are small, and every element counts.
/// - What gives the logits is at least Q6_K, Q8_0 if its rows are no whole blocks of 256 or the wanted type is MXFP4, as
///   errors there go into every answer. Unquantised types stay.
/// - Rows that are no whole blocks of 256 take a type in blocks of 32 of about the size, and rows that are no whole
///   blocks of 32 are F16. For Q2_K and Q3_K that is IQ4_NL rather than llama.cpp's Q4_0: the same size, a smaller error.
pub fn storage(role: Role, logits: bool, wanted: DType, row: usize) -> DType {
    if role == Role::Vector {
        return DType::F32;
    }
    let preferred = match wanted {
        DType::F32 | DType::F16 | DType::BF16 | DType::Q8_0 => wanted,
        DType::MXFP4 if logits => DType::Q8_0,
        _ if logits => DType::Q6_K,
        _ => wanted,
    };
    let fits = |dtype: &DType| dtype.bytes_of(row).is_some();
    [preferred, in_blocks_of_32(preferred)].into_iter().find(fits).unwrap_or(DType::F16)
}

/// What takes the place of a type in blocks of 256.
fn in_blocks_of_32(dtype: DType) -> DType {
    match dtype {
        DType::Q2_K | DType::Q3_K | DType::IQ4_XS => DType::IQ4_NL,
        DType::Q4_K => DType::Q5_0,
        DType::Q5_K => DType::Q5_1,
        DType::Q6_K => DType::Q8_0,
        _ => dtype,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DType::*;

    #[test]
    fn vectors_stay_exact() {
        for &wanted in DType::ALL {
            assert_eq!(storage(Role::Vector, false, wanted, 256), F32);
        }
    }

    #[test]
    fn matrices_are_what_was_wanted_where_rows_allow_it() {
        for &wanted in DType::ALL {
            for role in [Role::Matrix, Role::Embedding] {
                assert_eq!(storage(role, false, wanted, 512), wanted);
                // 896 is 28 blocks of 32, 3.5 of 256.
                let short = storage(role, false, wanted, 896);
                let expected = match wanted {
                    Q2_K | Q3_K | IQ4_XS => IQ4_NL,
                    Q4_K => Q5_0,
                    Q5_K => Q5_1,
                    Q6_K => Q8_0,
                    _ => wanted,
                };
                assert_eq!(short, expected, "{wanted}");
                let odd = storage(role, false, wanted, 100);
                assert_eq!(odd, if wanted.is_plain() { wanted } else { F16 }, "{wanted}");
            }
        }
    }

    #[test]
    fn logits_get_more_bits() {
        for &wanted in DType::ALL {
            for role in [Role::Matrix, Role::Embedding] {
                let long = storage(role, true, wanted, 512);
                let short = storage(role, true, wanted, 896);
                let expected = match wanted {
                    F32 | F16 | BF16 | Q8_0 => (wanted, wanted),
                    MXFP4 => (Q8_0, Q8_0),
                    _ => (Q6_K, Q8_0),
                };
                assert_eq!((long, short), expected, "{wanted}");
                let odd = storage(role, true, wanted, 100);
                assert_eq!(odd, if wanted.is_plain() { wanted } else { F16 }, "{wanted}");
            }
        }
    }
}
