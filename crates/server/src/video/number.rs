//! Numbers as clients write them: JSON's own, or in a text, as forms and OpenAI's `seconds` have them.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// A number, or a text that is one. Neither NaN nor infinite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Number<T>(pub(crate) T);

/// What a number may be read as.
pub(crate) trait Numeric: FromStr + Copy {
    /// What is expected, in an error.
    const WHAT: &str;

    /// Whether a text that says a number has one of this type: too large ones become infinite.
    fn is_finite(self) -> bool {
        true
    }
}

impl Numeric for u32 {
    const WHAT: &str = "a whole number from 0 to 4294967295";
}

impl Numeric for u64 {
    const WHAT: &str = "a whole number from 0 to 18446744073709551615";
}

impl Numeric for usize {
    const WHAT: &str = "a whole number, 0 or more";
}

impl Numeric for f32 {
    const WHAT: &str = "a number";

    fn is_finite(self) -> bool {
        f32::is_finite(self)
    }
}

impl Numeric for f64 {
    const WHAT: &str = "a number";

    fn is_finite(self) -> bool {
        f64::is_finite(self)
    }
}

/// The number that a text says. `nan` and `inf` are words.
fn read<T: Numeric>(text: &str) -> Option<T> {
    let signs = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    let number: T = text.bytes().all(signs).then(|| text.parse().ok())??;
    number.is_finite().then_some(number)
}

impl<'de, T: Numeric> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<T: Numeric> Visitor<'_> for Either<T> {
            type Value = Number<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(T::WHAT)
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Number<T>, E> {
                let read = read(&value.to_string()).map(Number);
                read.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(value), &self))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Number<T>, E> {
                let read = read(&value.to_string()).map(Number);
                read.ok_or_else(|| E::invalid_value(Unexpected::Signed(value), &self))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Number<T>, E> {
                // Written shortest, so that 4.0 is a whole number, and an F32 is the nearest to what was written.
                let read = read(&value.to_string()).map(Number);
                read.ok_or_else(|| E::invalid_value(Unexpected::Float(value), &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Number<T>, E> {
                read(text).map(Number).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number<T: Numeric>(json: &str) -> Result<T, String> {
        let found: Result<Number<T>, _> = serde_json::from_str(json);
        found.map(|number| number.0).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_and_texts_of_numbers() {
        assert_eq!(
            (number::<f64>("4"), number::<f64>("\"4\""), number::<f64>("4.5")),
            (Ok(4.0), Ok(4.0), Ok(4.5))
        );
        assert_eq!((number::<u64>("\"18446744073709551615\""), number::<u64>("4.0")), (Ok(u64::MAX), Ok(4)));
        assert_eq!((number::<f32>("0.1"), number::<f32>("\"1e-1\"")), (Ok(0.1), Ok(0.1)));
        assert_eq!(number::<u32>("7"), Ok(7));
    }

    #[test]
    fn everything_else_is_none() {
        for json in [
            "\"\"",
            "\"four\"",
            "\"nan\"",
            "\"inf\"",
            "\"infinity\"",
            "\"1e400\"",
            "\" 4\"",
            "true",
            "[4]",
            "{}",
        ] {
            assert!(number::<f64>(json).unwrap_err().contains("expected a number"), "{json}");
        }
        for json in ["-1", "4.5", "\"4.5\"", "\"-1\"", "1e30", "18446744073709551616"] {
            assert!(number::<u64>(json).unwrap_err().contains("expected a whole number"), "{json}");
        }
        assert!(number::<u32>("4294967296").is_err() && number::<f32>("1e39").is_err());
    }
}
