//! Parts of files: `Range`, `If-Range` and what else decides how much of a file is sent (RFC 9110, 13 and 14).

use axum::http::{HeaderMap, HeaderName, header};

/// What of a file is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// All of it: 200.
    Whole,
    /// From the first of these bytes up to the last: 206.
    Part {
        /// The first byte.
        first: u64,
        /// The last byte.
        last: u64,
    },
    /// Nothing, as the client has it: 304.
    Unchanged,
    /// Nothing, as it has none of these bytes: 416.
    Outside,
}

/// What a client wants of a file of `length` bytes that is called `tag`.
pub(crate) fn wanted(headers: &HeaderMap, length: u64, tag: &str) -> Share {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_NONE_MATCH).is_some_and(|tags| names(tags, tag)) {
        return Share::Unchanged;
    }
    // A part of another file than the one it has would be of no use; by its time we do not tell files apart.
    if text(header::IF_RANGE).is_some_and(|known| known.trim() != tag) {
        return Share::Whole;
    }
    text(header::RANGE).map_or(Share::Whole, |range| part(range, length))
}

/// Whether a list of tags has this one.
fn names(tags: &str, tag: &str) -> bool {
    tags.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}

/// What cannot be understood, and several parts at a time, count as not said.
fn part(range: &str, length: u64) -> Share {
    let Some((unit, spec)) = range.split_once('=') else { return Share::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Share::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
        return Share::Whole;
    }
    // Larger than any file stays so.
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (first, last) = match (first.trim(), last.trim()) {
        ("", count) => match number(count) {
            Some(0) => return Share::Outside,
            Some(count) => (length.saturating_sub(count), length.saturating_sub(1)),
            None => return Share::Whole,
        },
        (first, "") => match number(first) {
            Some(first) => (first, length.saturating_sub(1)),
            None => return Share::Whole,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => (first, last.min(length.saturating_sub(1))),
            _ => return Share::Whole,
        },
    };
    if first >= length { Share::Outside } else { Share::Part { first, last } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(fields: &[(HeaderName, &str)]) -> Share {
        let headers = fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        wanted(&headers, 1000, "\"tag\"")
    }

    fn range(range: &str) -> Share {
        asked(&[(header::RANGE, range)])
    }

    #[test]
    fn parts_of_a_file() {
        let part = |first, last| Share::Part { first, last };
        assert_eq!(asked(&[]), Share::Whole);
        assert_eq!(range("bytes=0-0"), part(0, 0));
        assert_eq!(range("bytes=0-"), part(0, 999));
        assert_eq!(range("bytes=200-299"), part(200, 299));
        assert_eq!(range("bytes=990-5000"), part(990, 999));
        assert_eq!(range("Bytes= 990 - 999 "), part(990, 999));
        assert_eq!(range("bytes=-1"), part(999, 999));
        assert_eq!(range("bytes=-5000"), part(0, 999));
        assert_eq!(range("bytes=999-99999999999999999999999"), part(999, 999));
    }

    #[test]
    fn what_the_file_has_not() {
        for none in ["bytes=1000-", "bytes=1000-1001", "bytes=99999999999999999999999-", "bytes=-0"] {
            assert_eq!(range(none), Share::Outside, "{none}");
        }
        let headers = HeaderMap::from_iter([(header::RANGE, "bytes=0-".parse().unwrap())]);
        assert_eq!(wanted(&headers, 0, "\"tag\""), Share::Outside);
    }

    #[test]
    fn what_is_no_range_is_the_whole() {
        for other in [
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=+1-2",
            "bytes=0-0,5-6",
            "lines=0-5",
            "bytes=1--2",
            "bytes=0x1-0x2",
        ] {
            assert_eq!(range(other), Share::Whole, "{other}");
        }
    }

    #[test]
    fn a_part_of_another_file_is_of_no_use() {
        let with = |known: &str| asked(&[(header::RANGE, "bytes=1-2"), (header::IF_RANGE, known)]);
        assert_eq!(with("\"tag\""), Share::Part { first: 1, last: 2 });
        for other in ["\"gat\"", "W/\"tag\"", "Wed, 21 Oct 2015 07:28:00 GMT", "tag"] {
            assert_eq!(with(other), Share::Whole, "{other}");
        }
    }

    #[test]
    fn what_the_client_has_is_not_sent_again() {
        for same in ["\"tag\"", "W/\"tag\"", "\"a\", \"tag\"", "*"] {
            assert_eq!(asked(&[(header::IF_NONE_MATCH, same)]), Share::Unchanged, "{same}");
        }
        assert_eq!(asked(&[(header::IF_NONE_MATCH, "\"a\", \"b\"")]), Share::Whole);
    }
}
