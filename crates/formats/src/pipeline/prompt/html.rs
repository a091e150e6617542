//! References to characters in HTML (`&eacute;`, `&#233;`), as Python's `html.unescape` reads them.

use htmlize::ENTITIES;

/// Longer names than any entity has.
const MAX_NAME: usize = 32;

/// The text with all references replaced by what they mean.
pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find('&') {
        out.push_str(&rest[..place]);
        let reference = &rest[place..];
        rest = match read(reference) {
            Some((meaning, length)) => {
                out.push_str(&meaning);
                &reference[length..]
            }
            None => {
                out.push('&');
                &reference[1..]
            }
        };
    }
    out + rest
}

/// What the reference at the beginning means, and its bytes; nothing if it is none.
fn read(text: &str) -> Option<(String, usize)> {
    match text.strip_prefix("&#") {
        Some(number) => read_number(number).map(|(meaning, length)| (meaning, length + 2)),
        None => read_name(text),
    }
}

fn read_number(text: &str) -> Option<(String, usize)> {
    let (digits, radix, before) = match text.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16, 1),
        None => (text, 10, 0),
    };
    let mut length = 0;
    // Numbers that are too large stay so.
    let mut number = 0u32;
    for c in digits.chars() {
        let Some(digit) = c.to_digit(radix) else { break };
        number = number.saturating_mul(radix).saturating_add(digit).min(0x0011_0000);
        length += c.len_utf8();
    }
    if length == 0 {
        return None;
    }
    let end = usize::from(digits[length..].starts_with(';'));
    Some((meaning(number), before + length + end))
}

/// The character of a number; nothing for those that text must not have.
fn meaning(number: u32) -> String {
    match number {
        0 | 0xd800..=0xdfff | 0x11_0000.. => char::REPLACEMENT_CHARACTER.to_string(),
        0x0d => "\r".to_owned(),
        0x80..=0x9f => super::encodings::windows_1252(number as u8).to_string(),
        0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0xfdd0..=0xfdef => String::new(),
        number if number & 0xfffe == 0xfffe => String::new(),
        number => char::from_u32(number).map(String::from).unwrap_or_default(),
    }
}

fn read_name(text: &str) -> Option<(String, usize)> {
    let ends = |c: char| matches!(c, '\t' | '\n' | '\x0c' | ' ' | '<' | '&' | '#' | ';');
    let name = &text[1..];
    let length = name.char_indices().take(MAX_NAME).find(|&(_, c)| ends(c)).map(|(at, _)| at);
    let length = length.unwrap_or_else(|| name.char_indices().nth(MAX_NAME).map_or(name.len(), |(at, _)| at));
    let whole = 1 + length + usize::from(name[length..].starts_with(';'));
    // With its semicolon, or the longest name that needs none.
    let lengths = std::iter::once(whole).chain((3..whole).rev());
    lengths
        .filter(|&length| length > 1 && text.is_char_boundary(length))
        .find_map(|length| entity(&text[..length]).map(|meaning| (meaning.to_owned(), length)))
}

/// What a named entity means; of those that need none, also without semicolon.
fn entity(text: &str) -> Option<&'static str> {
    std::str::from_utf8(ENTITIES.get(text.as_bytes())?).ok()
}

/// The text with references replaced that end in a semicolon, as ftfy does: those in capitals too, which stand for the
/// capital.
pub(super) fn unescape_whole(text: &str) -> String {
    const MAX: usize = 24;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find('&') {
        out.push_str(&rest[..place]);
        rest = &rest[place..];
        let name = rest[1..].strip_prefix('#').unwrap_or(&rest[1..]);
        let length = name.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let is_reference = (1..=MAX).contains(&length) && name[length..].starts_with(';');
        let end = rest.len() - name.len() + length + 1;
        match is_reference.then(|| &rest[..end]) {
            Some(reference) => {
                out.push_str(&whole(reference));
                rest = &rest[reference.len()..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

/// What a reference with its semicolon means, or itself.
fn whole(reference: &str) -> String {
    if reference.starts_with("&#") {
        let read = unescape(reference);
        return if read.contains(';') { reference.to_owned() } else { read };
    }
    if let Some(meaning) = entity(reference) {
        return meaning.to_owned();
    }
    let lower = reference.to_ascii_lowercase();
    let is_capital = reference == lower.to_ascii_uppercase() && unescape(reference) == reference;
    match entity(&lower).filter(|_| is_capital) {
        Some(meaning) => meaning.to_uppercase(),
        None => reference.to_owned(),
    }
}
