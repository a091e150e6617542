//! Text that was UTF-8, was read as something else, and is made whole again, as the Python library ftfy 6.3 by Robyn
//! Speer (Apache-2.0) does: which characters and neighbours give it away is that library's finding.

use std::sync::LazyLock;

use fancy_regex::Regex;

use super::encodings::{ENCODINGS, is_in_windows_1252, windows_1252};

/// Deeper than text is wrong inside of wrong text.
const MAX_DEPTH: usize = 32;

/// Characters by what they do in text, as the inside of a character class.
const CLASSES: [(&str, &str); 14] = [
    ("{common}", "\u{a0}\u{ad}´·–-―’…"),
    ("{c1}", "\u{80}-\u{9f}"),
    ("{bad}", "¤¦¨ª¬¯¸ºƒˆˇ˘˛˜†‡‰⌐◊\u{fffd}"),
    ("{law}", "§¶"),
    ("{currency}", "¢£¥₧€"),
    ("{start}", "¡©«¿΄΅‘‚“„•‹\u{f8ff}"),
    ("{end}", "®»˝”›™"),
    ("{numeric}", "±-³µ¹¼-¾×÷⁄№∂∆∏∑√∞∩∫≈≠≡≤≥"),
    ("{kaomoji}", "°Ò-ÖÙ-Üò-öø-üŌŐŪŲ"),
    ("{upper}", "À-ÑØÜÝĀĂĄĆČĎĐĒĖĘĚĞĢĪİĶĹĻĽŁŃŅŇŒŘŚŞŠŢŤŮŰŸŹŻŽҐ"),
    ("{lower}", "ß-ñüāăąćčďđēėęěğģīįķĺļľłœŕśşšťźżžґ\u{fb01}\u{fb02}"),
    ("{upper_common}", "ÞΆΈ-ΊΌΎΏΑ-ΫЁ-Я"),
    ("{lower_common}", "ά-ωа-џ"),
    ("{box}", "│┌┐┘├┤┬┼═-╬▀▄█▌▐-▓"),
];

/// Neighbours that hardly any text means. `{space}` and `{word}` are what Python's `\s` and `\w` match.
const UNLIKELY: &[&str] = &[
    "[{c1}]",
    "[{bad}{lower}{upper}{box}{start}{end}{currency}{numeric}{law}][{bad}]",
    "[a-zA-Z][{lower_common}{upper_common}][{bad}]",
    "[{bad}][{lower}{upper}{box}{start}{end}{currency}{numeric}{law}]",
    "[{lower}{lower_common}{box}{end}{currency}{numeric}][{upper}]",
    "[{box}{end}{currency}{numeric}][{lower}]",
    "[{lower}{box}{end}][{currency}]",
    "{space}[{upper}][{currency}]",
    "[{upper}{box}][{numeric}{law}]",
    "[{lower}{upper}{box}{currency}{end}][{start}][{numeric}]",
    "[{lower}{upper}{currency}{numeric}{box}{law}][{end}][{start}]",
    "[{currency}{numeric}{box}][{start}]",
    "[a-z][{upper}][{start}{currency}]",
    "[{box}][{kaomoji}]",
    "[{lower}{upper}{currency}{numeric}{start}{end}{law}][{box}]",
    "[{box}][{end}]",
    "[{lower}{upper}][{start}{end}]{word}",
    // This ligature without a plain letter behind it.
    "[Œœ][^A-Za-z]",
    "[{upper}]°",
    // Windows-1252, two bytes a character.
    "[ÂÃÎÐ][€œŠš¢£Ÿž\u{a0}\u{ad}®©°·»{start}{end}–—´]",
    "×[²³]",
    // The same for Arabic, of which it takes two.
    "[ØÙ][{common}{currency}{bad}{numeric}{start}ŸŠ®°µ»][ØÙ][{common}{currency}{bad}{numeric}{start}ŸŠ®°µ»]",
    // The same for scripts of South Asia, three bytes.
    "à[²µ¹¼½¾]",
    // MacRoman.
    "√[±∂†≠®™´≤≥¥µø]",
    "≈[°¢]",
    "‚Ä[ìîïòôúùû†°¢π]",
    "‚[âó][àä°ê]",
    // Windows-1251: general punctuation, Latin-1 and Cyrillic, and Windows-1252 on top of it.
    "вЂ",
    "[ВГРС][{c1}{bad}{start}{end}{currency}°µ][ВГРС]",
    "ГўВЂВ.[A-Za-z ]",
    // `à` and `á` in Windows-1252, and the space that does not break.
    "Ã[\u{a0}¡]",
    "[a-z]{space}?[ÃÂ] ",
    "^[ÃÂ] ",
    "[a-z.,?!{end}]Â[ {start}{end}]",
    // Windows-1253: general punctuation, Latin-1 and Greek.
    "β€[™\u{a0}Ά\u{ad}®°]",
    "[ΒΓΞΟ][{c1}{bad}{start}{end}{currency}°][ΒΓΞΟ]",
    // Windows-1257: general punctuation.
    "ā€",
];

static UNLIKELY_TEXT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let mut pattern = UNLIKELY.join("|");
    for (name, class) in CLASSES {
        pattern = pattern.replace(name, class);
    }
    let pattern = pattern.replace("{space}", r"[\s\x1c-\x1f]").replace("{word}", r"[\p{L}\p{N}_]");
    // A test holds that it is a pattern.
    Regex::new(&pattern).ok()
});

/// Whether a text looks like one that was read in the wrong encoding.
fn is_bad(text: &str) -> bool {
    UNLIKELY_TEXT.as_ref().is_some_and(|pattern| pattern.is_match(text).unwrap_or(false))
}

/// The text as it was meant.
pub(super) fn fix_encoding(text: &str) -> String {
    fix(text, 0)
}

fn fix(text: &str, depth: usize) -> String {
    let mut text = text.to_owned();
    while let Some(fixed) = fix_once(&text, depth).filter(|fixed| *fixed != text) {
        text = fixed;
    }
    text
}

/// One step of the way, or nothing if there is none.
fn fix_once(text: &str, depth: usize) -> Option<String> {
    if text.is_ascii() || !is_bad(text) {
        return None;
    }
    for encoding in ENCODINGS.iter() {
        let Some(mut bytes) = encoding.encode(text) else { continue };
        if encoding.restores_spaces && find(&bytes, ALTERED).is_some() {
            bytes = restore_spaces(&bytes);
        }
        if encoding.sloppy {
            bytes = replace(&bytes, LOSSY, |_| "\u{fffd}".into());
        }
        if let Some(fixed) = decode(&bytes) {
            return Some(fixed);
        }
    }
    if depth < MAX_DEPTH {
        let fixed = fix_embedded(text, depth);
        if fixed != text {
            return Some(fixed);
        }
    }
    let is_c1 = |c: char| ('\u{80}'..='\u{9f}').contains(&c);
    let is_latin_1 = text.chars().all(|c| u32::from(c) < 0x100);
    let as_windows: Option<String> = text
        .chars()
        .map(|c| match c {
            c if !is_c1(c) => Some(c),
            c => Some(c as u8).filter(|&byte| is_in_windows_1252(byte)).map(windows_1252),
        })
        .collect();
    if let Some(fixed) = as_windows.filter(|fixed| is_latin_1 && fixed != text) {
        return Some(fixed);
    }
    text.contains(is_c1).then(|| fix_c1(text))
}

/// Control characters from U+80 to U+9F as what Windows-1252 has in their places.
pub(super) fn fix_c1(text: &str) -> String {
    let fixed = |c: char| if ('\u{80}'..='\u{9f}').contains(&c) { windows_1252(c as u8) } else { c };
    text.chars().map(fixed).collect()
}

/// Characters that first bytes of two, three and four, and those that follow, look like in any of the encodings.
const FIRST: [&str; 3] =
    ["Â-ßĀĂĆČĎĐĒĖĘĚĞĢĪİĶĹĻŁŃŅŇŌŐŘŚŞŠŢŪŮŰŲŹŻŽΒ-ΡΣ-ίВ-Я", "à-ïāăąćčďēėęěģīįķĺļŕźΰ-οа-п", "ðóđğšπσру"];
const FOLLOWING: &str = "\u{80}-¿ÆØæøĄąĽľŁłŒœŖŗŚśŞ-šŤťŸ-žƒˆˇ˘˛-˝΄-ΆΈ-ΊΌΎΏЁ-ЌЎЏё-ќўџҐґ–-―‘-‚“-„†-•…‰‹›€№™ ";
/// Of those that follow, the ones that have no place in other text.
const FOLLOWING_ONLY: &str = "\u{80}-¿ÆØæøĄąĽľŁłŒœŖŗŚśŞ-šŤťŸ-žƒˆˇ˘˛-˝΄-ΆΈ-ΊΌΎΏЁ-ЌЎЏё-ќўџҐґ†‡‰‹›€№™";

/// Whether a character is in the inside of a character class.
fn is_in(class: &str, c: char) -> bool {
    let mut chars = class.chars().peekable();
    while let Some(from) = chars.next() {
        let mut to = from;
        if chars.peek() == Some(&'-') {
            chars.next();
            to = chars.next().unwrap_or(from);
        }
        if (from..=to).contains(&c) {
            return true;
        }
    }
    false
}

/// Mends the parts of a text that look like wrong UTF-8, where the whole is not of one kind.
fn fix_embedded(text: &str, depth: usize) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let follows = at > 0 && is_in(FOLLOWING_ONLY, chars[at - 1]);
        let length = if follows { 0 } else { sequences(&chars[at..]) };
        if length == 0 {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        let part: String = chars[at..at + length].iter().collect();
        match length < chars.len() && is_bad(&part) {
            true => out.push_str(&fix(&part, depth + 1)),
            false => out.push_str(&part),
        }
        at += length;
    }
    out
}

/// How many characters at the beginning look like bytes of UTF-8.
fn sequences(chars: &[char]) -> usize {
    let mut length = 0;
    loop {
        let rest = &chars[length..];
        let sequence = FIRST.iter().enumerate().find_map(|(place, first)| {
            let follow = rest.get(1..place + 2)?;
            let is_sequence = is_in(first, rest[0]) && follow.iter().all(|&c| is_in(FOLLOWING, c));
            is_sequence.then_some(place + 2)
        });
        match sequence {
            Some(sequence) => length += sequence,
            None => return length,
        }
    }
}

/// The bytes that may stand at each place of a sequence, as ranges.
type Sequence = &'static [&'static [(u8, u8)]];

const SPACE: &[(u8, u8)] = &[(b' ', b' ')];
const FOLLOW: &[(u8, u8)] = &[(0x80, 0xbf)];
/// Without what text in other encodings has in such places.
const SAFE: &[(u8, u8)] = &[(0x80, 0x84), (0x86, 0x9f), (0xa1, 0xbf)];

/// Sequences of UTF-8 but for a space where the byte A0, a space that does not break, would be.
const ALTERED: &[Sequence] = &[
    &[&[(0xc2, 0xc3), (0xc5, 0xc5), (0xce, 0xce), (0xd0, 0xd0), (0xd9, 0xd9)], SPACE],
    &[&[(0xe2, 0xe3)], SPACE, SAFE],
    &[&[(0xe0, 0xe3)], SAFE, SPACE],
    &[&[(0xf0, 0xf0)], SPACE, FOLLOW, FOLLOW],
    &[&[(0xf0, 0xf0)], FOLLOW, SPACE, FOLLOW],
    &[&[(0xf0, 0xf0)], FOLLOW, FOLLOW, SPACE],
];

const LOST: &[(u8, u8)] = &[(0x1a, 0x1a)];
const LOST_OR_MARK: &[(u8, u8)] = &[(0x1a, 0x1a), (b'?', b'?')];
const LOST_OR_FOLLOW: &[(u8, u8)] = &[(0x1a, 0x1a), (0x80, 0xbf)];
const ANY_LOST: &[(u8, u8)] = &[(0x1a, 0x1a), (b'?', b'?'), (0x80, 0xbf)];
const HIGH: &[(u8, u8)] = &[(0xa0, 0xaf)];
const LOW: &[(u8, u8)] = &[(0xb0, 0xbf)];
const SURROGATE: &[(u8, u8)] = &[(0xed, 0xed)];
const THREE: &[(u8, u8)] = &[(0xe0, 0xef)];
const FOUR: &[(u8, u8)] = &[(0xf0, 0xf4)];

/// Sequences of UTF-8, or of UTF-16 in it, of which bytes are lost.
const LOSSY: &[Sequence] = &[
    &[&[(0xc2, 0xdf)], LOST],
    &[&[(0xc2, 0xc3)], &[(b'?', b'?')]],
    &[SURROGATE, HIGH, LOST_OR_MARK, SURROGATE, LOW, ANY_LOST],
    &[SURROGATE, HIGH, ANY_LOST, SURROGATE, LOW, LOST_OR_MARK],
    &[THREE, LOST_OR_MARK, LOST_OR_FOLLOW],
    &[THREE, LOST_OR_FOLLOW, LOST_OR_MARK],
    &[FOUR, LOST_OR_MARK, LOST_OR_FOLLOW, LOST_OR_FOLLOW],
    &[FOUR, LOST_OR_FOLLOW, LOST_OR_MARK, LOST_OR_FOLLOW],
    &[FOUR, LOST_OR_FOLLOW, LOST_OR_FOLLOW, LOST_OR_MARK],
    &[LOST],
];

/// The length of the first of the sequences that the bytes begin with.
fn length_of(bytes: &[u8], sequences: &[Sequence]) -> Option<usize> {
    let is_one = |ranges: &[(u8, u8)], byte: u8| ranges.iter().any(|&(from, to)| (from..=to).contains(&byte));
    let begins = |sequence: &&Sequence| {
        sequence.len() <= bytes.len()
            && sequence.iter().zip(bytes).all(|(ranges, &byte)| is_one(ranges, byte))
    };
    sequences.iter().find(begins).map(|sequence| sequence.len())
}

fn find(bytes: &[u8], sequences: &[Sequence]) -> Option<usize> {
    (0..bytes.len()).find(|&at| length_of(&bytes[at..], sequences).is_some())
}

/// The bytes with something else in place of each of the sequences.
fn replace(bytes: &[u8], sequences: &[Sequence], with: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        match length_of(&bytes[at..], sequences) {
            Some(length) => {
                out.extend(with(&bytes[at..at + length]));
                at += length;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

/// Puts byte A0 back where a space stands for it. An `à` alone keeps its space, unless a Portuguese word follows that
/// begins with it.
fn restore_spaces(bytes: &[u8]) -> Vec<u8> {
    const GOES_ON: [&[u8]; 5] = [b" ", b"quele", b"quela", b"quilo", b"s "];
    let mut words = Vec::with_capacity(bytes.len() + 8);
    for (at, &byte) in bytes.iter().enumerate() {
        let is_word = byte == b' '
            && at > 0
            && bytes[at - 1] == 0xc3
            && !GOES_ON.iter().any(|word| bytes[at + 1..].starts_with(word));
        words.extend(is_word.then_some(0xa0));
        words.push(byte);
    }
    let with_a0 =
        |sequence: &[u8]| sequence.iter().map(|&byte| if byte == b' ' { 0xa0 } else { byte }).collect();
    replace(&words, ALTERED, with_a0)
}

/// UTF-8, with the two variants of it that programs write: pairs of surrogates as three bytes each, and two bytes for
/// zero.
fn decode(bytes: &[u8]) -> Option<String> {
    if !bytes.contains(&0xed) && !bytes.contains(&0xc0) {
        return String::from_utf8(bytes.to_vec()).ok();
    }
    let (mut whole, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        match bytes[at..] {
            [0xed, a @ 0xa0..=0xaf, b @ 0x80..=0xbf, 0xed, c @ 0xb0..=0xbf, d @ 0x80..=0xbf, ..] => {
                let bits = |byte: u8, mask: u8, shift: u32| u32::from(byte & mask) << shift;
                let code =
                    0x10000 + (bits(a, 0x0f, 16) | bits(b, 0x3f, 10) | bits(c, 0x0f, 6) | bits(d, 0x3f, 0));
                let mut utf8 = [0; 4];
                whole.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut utf8).as_bytes());
                at += 6;
            }
            [0xc0, 0x80, ..] | [0xc0, b'\n'] => {
                whole.push(0);
                at += 2;
            }
            _ => {
                whole.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(whole).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_one() {
        assert!(UNLIKELY_TEXT.is_some());
        assert!(is_bad("sÃ³") && is_bad("â€œ") && !is_bad("schön, größer, l'été à la plage, 你好"));
    }

    #[test]
    fn classes_are_read_as_patterns_read_them() {
        assert!(is_in("a-cx", 'b') && is_in("a-cx", 'x') && !is_in("a-cx", '-') && !is_in("a-cx", 'd'));
        assert!(is_in(FOLLOWING, ' ') && is_in(FOLLOWING, '–') && !is_in(FOLLOWING_ONLY, '–'));
    }
}
