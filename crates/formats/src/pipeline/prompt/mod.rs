//! Prompts as the text encoders of video models were trained to see them: text made whole (as ftfy does), references to
//! characters in HTML resolved, runs of white space one space.

use tokenizers::{NormalizedString, Normalizer};

use crate::FormatError;

mod encodings;
mod html;
mod mojibake;

/// Longer prompts are refused: what is wrong with text can be wrong many times over, and each takes a pass.
const MAX_PROMPT: usize = 1 << 16;

/// A prompt as the text encoder's tokenizer is to see it.
///
/// `ftfy.fix_text` with its defaults, `html.unescape` twice, white space collapsed and stripped, as the pipelines of
/// `diffusers` and of the models' authors do.
///
/// # Errors
/// A prompt of more than 64 KiB.
pub fn clean(prompt: &str) -> Result<String, FormatError> {
    if prompt.len() > MAX_PROMPT {
        let problem = format!("the prompt has {} bytes; at most {MAX_PROMPT} make sense", prompt.len());
        return Err(FormatError::Tokenize(problem));
    }
    let text = html::unescape(&html::unescape(&fix_text(prompt)?));
    let words = text.split(is_space).filter(|word| !word.is_empty());
    Ok(words.collect::<Vec<_>>().join(" "))
}

/// What Python calls a space.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// All lines, each mended on its own. Where one has a tag, references in it and behind it are left alone.
fn fix_text(text: &str) -> Result<String, FormatError> {
    let mut unescapes = true;
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        unescapes &= !line.contains('<');
        out.push_str(&fix_line(line, unescapes)?);
    }
    Ok(out)
}

fn fix_line(line: &str, unescapes: bool) -> Result<String, FormatError> {
    let mut text = line.to_owned();
    // Every pass that changes something leaves less to change; the bound only says so.
    for _ in 0..=line.len() {
        let mut fixed = if unescapes { html::unescape_whole(&text) } else { text.clone() };
        fixed = mojibake::fix_encoding(&fixed);
        fixed = mojibake::fix_c1(&fixed);
        fixed = plain_characters(&fixed)?;
        fixed = fixed.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n");
        fixed = without_escapes(&fixed);
        fixed.retain(|c| !is_control(c));
        fixed = normalized(&fixed, &tokenizers::normalizers::NFC)?;
        if fixed == text {
            break;
        }
        text = fixed;
    }
    Ok(text)
}

/// Ligatures taken apart, characters of half and full width made ordinary, quotes straight.
fn plain_characters(text: &str) -> Result<String, FormatError> {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{2bc}' | '‘'..='‛' => out.push('\''),
            '“'..='‟' => out.push('"'),
            '\u{3000}' => out.push(' '),
            '\u{ff01}'..='\u{ffef}' => {
                out.push_str(&normalized(c.encode_utf8(&mut [0; 4]), &tokenizers::normalizers::NFKC)?);
            }
            c => match LIGATURES.iter().find(|(ligature, _)| *ligature == c) {
                // The apostrophe of this one is made straight like any other.
                Some((_, letters)) => out.push_str(letters),
                None => out.push(c),
            },
        }
    }
    Ok(out)
}

/// Latin ligatures and digraphs that are one character, and their letters.
const LIGATURES: [(char, &str); 22] = [
    ('Ĳ', "IJ"),
    ('ĳ', "ij"),
    ('ŉ', "'n"),
    ('Ǳ', "DZ"),
    ('ǲ', "Dz"),
    ('ǳ', "dz"),
    ('Ǆ', "DŽ"),
    ('ǅ', "Dž"),
    ('ǆ', "dž"),
    ('Ǉ', "LJ"),
    ('ǈ', "Lj"),
    ('ǉ', "lj"),
    ('Ǌ', "NJ"),
    ('ǋ', "Nj"),
    ('ǌ', "nj"),
    ('\u{fb00}', "ff"),
    ('\u{fb01}', "fi"),
    ('\u{fb02}', "fl"),
    ('\u{fb03}', "ffi"),
    ('\u{fb04}', "ffl"),
    ('\u{fb05}', "ſt"),
    ('\u{fb06}', "st"),
];

/// The text without the sequences that colour terminals: `ESC [`, numbers and semicolons, a letter.
fn without_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find("\u{1b}[") {
        out.push_str(&rest[..place]);
        let inside = &rest[place + 2..];
        let end = inside.find(|c: char| c != ';' && !c.is_ascii_digit());
        let end = end.filter(|&end| inside[end..].starts_with(|c: char| c.is_ascii_alphabetic()));
        rest = match end {
            Some(end) => &inside[end + 1..],
            None => {
                out.push('\u{1b}');
                &rest[place + 1..]
            }
        };
    }
    out + rest
}

/// Characters that steer machines or annotations and are no white space.
fn is_control(c: char) -> bool {
    matches!(c,
        '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
}

fn normalized(text: &str, form: &impl Normalizer) -> Result<String, FormatError> {
    if text.is_ascii() {
        return Ok(text.to_owned());
    }
    let mut normalized = NormalizedString::from(text);
    form.normalize(&mut normalized).map_err(|error| FormatError::Tokenize(error.to_string()))?;
    Ok(normalized.get().to_owned())
}
