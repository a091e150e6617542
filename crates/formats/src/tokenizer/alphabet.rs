//! The alphabet of byte-level BPE: every byte has a printable character.
//!
//! Printable Latin-1 bytes stand for themselves; the other 68 take the characters from U+0100 on, in order (GPT-2's
//! `bytes_to_unicode`; Radford et al. 2019). So a space is `Ġ` (U+0120) and a line feed `Ċ` (U+010A).

/// How many bytes are not printable.
const UNPRINTABLE: u32 = 68;

const fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// The character of each byte.
static CHARS: [char; 256] = {
    let mut chars = ['\0'; 256];
    let (mut byte, mut next) = (0usize, 0x100u32);
    while byte < 256 {
        let code = if is_printable(byte as u8) {
            byte as u32
        } else {
            next += 1;
            next - 1
        };
        chars[byte] = match char::from_u32(code) {
            Some(c) => c,
            None => panic!("below the surrogates"),
        };
        byte += 1;
    }
    assert!(next == 0x100 + UNPRINTABLE);
    chars
};

/// The bytes of the characters U+0100 to U+0143.
static UNPRINTABLE_BYTES: [u8; UNPRINTABLE as usize] = {
    let mut bytes = [0; UNPRINTABLE as usize];
    let mut byte = 0;
    while byte < 256 {
        if CHARS[byte] as u32 >= 0x100 {
            bytes[CHARS[byte] as usize - 0x100] = byte as u8;
        }
        byte += 1;
    }
    bytes
};

/// The character that stands for a byte.
pub(super) fn char_of(byte: u8) -> char {
    CHARS[usize::from(byte)]
}

/// Appends the characters that stand for the text's bytes.
pub(super) fn encode(text: &str, out: &mut String) {
    out.extend(text.bytes().map(|byte| CHARS[byte as usize]));
}

/// The byte a character stands for, if it stands for one.
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ 0..=0xff => is_printable(code as u8).then_some(code as u8),
        code => UNPRINTABLE_BYTES.get(code as usize - 0x100).copied(),
    }
}

/// Appends the bytes a token's text stands for. A text with a character from outside the alphabet stands for itself.
pub(super) fn decode(text: &str, out: &mut Vec<u8>) {
    let start = out.len();
    for c in text.chars() {
        match byte_of(c) {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                out.extend(text.as_bytes());
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_and_the_known_ones_are_right() {
        for byte in 0..=255u8 {
            assert_eq!(byte_of(CHARS[byte as usize]), Some(byte));
        }
        assert_eq!(
            [CHARS[b' ' as usize], CHARS[b'\n' as usize], CHARS[0xad], CHARS[0x7f]],
            ['Ġ', 'Ċ', 'Ń', 'ġ']
        );
    }

    #[test]
    fn texts_outside_the_alphabet_stand_for_themselves() {
        let bytes = |text: &str| {
            let mut out = vec![7];
            decode(text, &mut out);
            out
        };
        assert_eq!(bytes("Ġhé"), [7, b' ', b'h', 0xe9]);
        assert_eq!(bytes("a b"), [7, b'a', b' ', b'b']);
        assert_eq!(bytes("a你"), [&[7, b'a'][..], "你".as_bytes()].concat());
    }
}
