//! A file's metadata: an ordered map of typed values.

use indexmap::IndexMap;

use crate::FormatError;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // The variants are the format's own types.
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(Array),
}

/// A metadata array; all elements have one type.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // The variants are the format's own types.
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    Strings(StringArray),
    Arrays(Vec<Array>),
}

/// Many strings in two allocations: a vocabulary has 50,000 to 250,000 of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StringArray {
    text: String,
    /// Where each string ends in `text`, always on a character boundary.
    ends: Vec<usize>,
}

impl StringArray {
    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all strings together.
    pub fn text_len(&self) -> usize {
        self.text.len()
    }

    /// The string at `index`.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text.get(start..end)
    }

    /// The strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let string = &self.text[start..end];
            start = end;
            string
        })
    }

    /// Appends a string.
    pub fn push(&mut self, string: &str) {
        self.text.push_str(string);
        self.ends.push(self.text.len());
    }

    /// From concatenated bytes and the ends of the strings in them, ascending; gives the index of a string that is
    /// not UTF-8 otherwise.
    pub(super) fn from_bytes(bytes: Vec<u8>, ends: Vec<usize>) -> Result<StringArray, usize> {
        // One check of the whole is many times quicker than 150,000 small ones. It suffices with the ends being
        // boundaries: then no character straddles two strings.
        let whole = String::from_utf8(bytes);
        let bytes = match whole {
            Ok(text) if ends.iter().all(|&end| text.is_char_boundary(end)) => {
                return Ok(StringArray { text, ends });
            }
            Ok(text) => text.into_bytes(),
            Err(error) => error.into_bytes(),
        };
        let mut start = 0;
        let bad = ends.iter().position(|&end| {
            let string = bytes.get(start..end).unwrap_or_default();
            start = end;
            std::str::from_utf8(string).is_err()
        });
        Err(bad.unwrap_or(0))
    }
}

impl<S: AsRef<str>> FromIterator<S> for StringArray {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut array = StringArray::default();
        for string in strings {
            array.push(string.as_ref());
        }
        array
    }
}

/// Runs `$body` with `$values` bound to the elements of whichever integer array this is.
macro_rules! integers {
    ($array:expr, $values:ident => $body:expr) => {
        match $array {
            Array::U8($values) => Some($body),
            Array::I8($values) => Some($body),
            Array::U16($values) => Some($body),
            Array::I16($values) => Some($body),
            Array::U32($values) => Some($body),
            Array::I32($values) => Some($body),
            Array::U64($values) => Some($body),
            Array::I64($values) => Some($body),
            _ => None,
        }
    };
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Array::F32(values) => values.len(),
            Array::F64(values) => values.len(),
            Array::Bool(values) => values.len(),
            Array::Strings(values) => values.len(),
            Array::Arrays(values) => values.len(),
            integers => integers!(integers, values => values.len()).unwrap_or(0),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of the elements' type.
    pub fn element_type(&self) -> &'static str {
        match self {
            Array::U8(_) => "u8",
            Array::I8(_) => "i8",
            Array::U16(_) => "u16",
            Array::I16(_) => "i16",
            Array::U32(_) => "u32",
            Array::I32(_) => "i32",
            Array::U64(_) => "u64",
            Array::I64(_) => "i64",
            Array::F32(_) => "f32",
            Array::F64(_) => "f64",
            Array::Bool(_) => "bool",
            Array::Strings(_) => "string",
            Array::Arrays(_) => "array",
        }
    }

    /// The elements as `T`, if they are integers and all fit.
    fn to_integers<T: TryFrom<i128>>(&self) -> Option<Vec<T>> {
        integers!(self, values => values.iter().map(|&v| T::try_from(i128::from(v)).ok()).collect::<Option<Vec<T>>>())
            .flatten()
    }
}

impl Value {
    /// The value, if it is an integer of any width.
    pub fn as_integer(&self) -> Option<i128> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::I8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::I16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::I32(v) => Some(v.into()),
            Value::U64(v) => Some(v.into()),
            Value::I64(v) => Some(v.into()),
            _ => None,
        }
    }

    /// What this is, for messages: `u32 7`, `string`, `array of f32`.
    pub fn describe(&self) -> String {
        match self {
            Value::F32(v) => format!("f32 {v}"),
            Value::F64(v) => format!("f64 {v}"),
            Value::Bool(v) => format!("bool {v}"),
            Value::String(_) => "a string".into(),
            Value::Array(array) => format!("an array of {} {}", array.len(), array.element_type()),
            integer => format!("integer {}", integer.as_integer().unwrap_or(0)),
        }
    }
}

macro_rules! value_from {
    ($($type:ty => $variant:ident),* $(,)?) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Value {
                Value::$variant(value)
            }
        }

        impl From<Vec<$type>> for Value {
            fn from(values: Vec<$type>) -> Value {
                Value::Array(Array::$variant(values))
            }
        })*
    };
}

value_from!(
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32,
    u64 => U64, i64 => I64, f32 => F32, f64 => F64, bool => Bool,
);

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::String(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Value {
        Value::String(value)
    }
}

impl From<StringArray> for Value {
    fn from(value: StringArray) -> Value {
        Value::Array(Array::Strings(value))
    }
}

/// Keys and values in the file's order.
///
/// A getter gives `Ok(None)` where the key is missing and an error naming the key where the value has another type;
/// integer getters accept any integer type whose value fits. The `require_*` twins turn a missing key into an error.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    entries: IndexMap<String, Value>,
}

/// Declares a getter and its `require_*` twin.
macro_rules! getters {
    ($($(#[$doc:meta])* $get:ident, $require:ident -> $type:ty, $expected:literal, $convert:expr;)*) => {
        $($(#[$doc])*
        #[allow(clippy::needless_lifetimes)] // Some of the types borrow.
        pub fn $get<'a>(&'a self, key: &str) -> Result<Option<$type>, FormatError> {
            let convert: fn(&'a Value) -> Option<$type> = $convert;
            self.typed(key, $expected, convert)
        }

        #[doc = concat!("Like [`Metadata::", stringify!($get), "`], but the key must be there.")]
        #[allow(clippy::needless_lifetimes)] // Some of the types borrow.
        pub fn $require<'a>(&'a self, key: &str) -> Result<$type, FormatError> {
            self.$get(key)?.ok_or_else(|| FormatError::MissingKey(key.to_owned()))
        })*
    };
}

impl Metadata {
    /// Without entries.
    pub fn new() -> Metadata {
        Metadata::default()
    }

    /// Adds or replaces an entry.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.entries.insert(key.into(), value.into());
    }

    /// Removes the entries whose keys begin with `prefix`.
    pub fn remove_below(&mut self, prefix: &str) {
        self.entries.retain(|key, _| !key.starts_with(prefix));
    }

    /// Adds an entry unless the key is taken.
    pub(super) fn insert_new(&mut self, key: String, value: Value) -> Result<(), FormatError> {
        match self.entries.entry(key) {
            indexmap::map::Entry::Vacant(vacant) => {
                vacant.insert(value);
                Ok(())
            }
            indexmap::map::Entry::Occupied(taken) => Err(FormatError::DuplicateKey(taken.key().clone())),
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The raw value.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    /// All entries in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Refuses keys that begin with `prefix` and are not among `known` (given without the prefix): what they ask for
    /// would silently not happen. Known are also keys below one that ends in a dot.
    pub fn refuse_unknown(&self, prefix: &str, known: &[&str]) -> Result<(), FormatError> {
        for (key, _) in self.iter() {
            let Some(rest) = key.strip_prefix(prefix) else { continue };
            let is_known = known.iter().any(|&k| k == rest || k.ends_with('.') && rest.starts_with(k));
            if !is_known {
                return Err(FormatError::UnknownKey(key.to_owned()));
            }
        }
        Ok(())
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, FormatError> {
        let Some(value) = self.entries.get(key) else { return Ok(None) };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(FormatError::WrongType { key: key.to_owned(), expected, found: value.describe() }),
        }
    }

    getters! {
        /// An integer.
        u32, require_u32 -> u32, "an integer from 0 to 2^32 - 1", |v| v.as_integer()?.try_into().ok();
        /// An integer.
        u64, require_u64 -> u64, "an integer from 0 to 2^64 - 1", |v| v.as_integer()?.try_into().ok();
        /// An integer.
        i32, require_i32 -> i32, "an integer from -2^31 to 2^31 - 1", |v| v.as_integer()?.try_into().ok();
        /// A number in floating point; F64 is rounded.
        f32, require_f32 -> f32, "a floating-point number", |v| match *v {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => None,
        };
        /// A truth value.
        bool, require_bool -> bool, "a truth value", |v| match *v {
            Value::Bool(v) => Some(v),
            _ => None,
        };
        /// A string.
        str, require_str -> &'a str, "a string", |v| match v {
            Value::String(v) => Some(v),
            _ => None,
        };
        /// Strings.
        str_array, require_str_array -> &'a StringArray, "an array of strings", |v| match v {
            Value::Array(Array::Strings(v)) => Some(v),
            _ => None,
        };
        /// Integers.
        u32_array, require_u32_array -> Vec<u32>, "an array of integers from 0 to 2^32 - 1", |v| match v {
            Value::Array(v) => v.to_integers(),
            _ => None,
        };
        /// Integers.
        i32_array, require_i32_array -> Vec<i32>, "an array of integers from -2^31 to 2^31 - 1", |v| match v {
            Value::Array(v) => v.to_integers(),
            _ => None,
        };
        /// Numbers in floating point; F64 is rounded.
        f32_array, require_f32_array -> Vec<f32>, "an array of floating-point numbers", |v| match v {
            Value::Array(Array::F32(v)) => Some(v.clone()),
            Value::Array(Array::F64(v)) => Some(v.iter().map(|&x| x as f32).collect()),
            _ => None,
        };
        /// Truth values.
        bool_array, require_bool_array -> &'a [bool], "an array of truth values", |v| match v {
            Value::Array(Array::Bool(v)) => Some(v),
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Metadata {
        let mut m = Metadata::new();
        m.set("small", 7u8);
        m.set("negative", -3i32);
        m.set("wide", u64::MAX);
        m.set("eps", 1e-5f32);
        m.set("eps64", 0.5f64);
        m.set("flag", true);
        m.set("name", "smol");
        m.set("types", vec![1i32, 3]);
        m.set("texts", ["a", "", "βγ"].iter().collect::<StringArray>());
        m
    }

    #[test]
    fn integers_of_any_width_that_fit_are_accepted() {
        let m = sample();
        assert_eq!(m.u32("small").unwrap(), Some(7));
        assert_eq!(m.i32("small").unwrap(), Some(7));
        assert_eq!(m.u64("wide").unwrap(), Some(u64::MAX));
        assert_eq!(m.u32_array("types").unwrap(), Some(vec![1, 3]));
        assert_eq!(m.u32("absent").unwrap(), None);
    }

    #[test]
    fn a_wrong_type_is_an_error_that_names_the_key() {
        let m = sample();
        let text = |e: FormatError| e.to_string();
        assert_eq!(
            text(m.u32("negative").unwrap_err()),
            "metadata key `negative` should be an integer from 0 to 2^32 - 1, but is integer -3"
        );
        assert!(text(m.u32("wide").unwrap_err()).contains("18446744073709551615"));
        assert!(text(m.f32("small").unwrap_err()).contains("`small` should be a floating-point number"));
        assert!(text(m.str("types").unwrap_err()).contains("an array of 2 i32"));
        assert!(text(m.str_array("name").unwrap_err()).contains("a string"));
        assert_eq!(text(m.require_bool("absent").unwrap_err()), "metadata key `absent` is missing");
    }

    #[test]
    fn floats_truths_and_strings() {
        let m = sample();
        assert_eq!(m.require_f32("eps").unwrap(), 1e-5);
        assert_eq!(m.require_f32("eps64").unwrap(), 0.5);
        assert!(m.require_bool("flag").unwrap());
        assert_eq!(m.require_str("name").unwrap(), "smol");
    }

    #[test]
    fn string_arrays_give_back_what_was_pushed() {
        let m = sample();
        let texts = m.require_str_array("texts").unwrap();
        assert_eq!(texts.iter().collect::<Vec<_>>(), ["a", "", "βγ"]);
        assert_eq!(texts.get(2), Some("βγ"));
        assert_eq!(texts.get(3), None);
    }

    #[test]
    fn a_character_across_two_strings_is_no_text() {
        assert_eq!(StringArray::from_bytes("aβ".into(), vec![2, 3]), Err(0));
        assert_eq!(StringArray::from_bytes(vec![b'a', 0xff], vec![1, 2]), Err(1));
        assert!(StringArray::from_bytes("aβ".into(), vec![1, 3]).is_ok());
    }

    #[test]
    fn entries_keep_their_order_and_names_are_unique() {
        let mut m = sample();
        assert_eq!(m.iter().next().unwrap().0, "small");
        assert!(matches!(m.insert_new("flag".into(), Value::U8(0)), Err(FormatError::DuplicateKey(_))));
    }
}
