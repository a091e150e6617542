//! Encodings of one byte a character: what text that was UTF-8 may have been read as.

use std::collections::HashMap;
use std::sync::LazyLock;

/// One of them: the bytes from 128 on, in order. Below they are ASCII.
pub(super) struct Encoding {
    /// Whether bytes that have no character stand for themselves, and byte 26 for the character of what is lost.
    pub(super) sloppy: bool,
    /// Whether a space may have been a space that does not break.
    pub(super) restores_spaces: bool,
    bytes: HashMap<char, u8>,
}

/// What is tried, in this order, which is that of ftfy 6.3 (Apache-2.0): the most likely first.
pub(super) static ENCODINGS: LazyLock<Vec<Encoding>> = LazyLock::new(|| {
    let latin_1: String = (0x80..=0xffu8).map(char::from).collect();
    let mut encodings = vec![Encoding::new(&latin_1, false, true)];
    encodings.extend(WINDOWS.iter().map(|upper| Encoding::new(upper, true, true)));
    encodings.push(Encoding::new(ISO_8859_2, false, true));
    // A dash and a space would be taken for a letter.
    encodings.push(Encoding::new(MAC_ROMAN, false, false));
    encodings.push(Encoding::new(CODE_PAGE_437, false, true));
    encodings
});

impl Encoding {
    fn new(upper: &str, sloppy: bool, restores_spaces: bool) -> Encoding {
        let mut bytes: HashMap<char, u8> = (0..0x80u8).map(|byte| (char::from(byte), byte)).collect();
        bytes.extend(upper.chars().zip(0x80..=0xffu8));
        if sloppy {
            bytes.remove(&LOST);
            bytes.insert(char::REPLACEMENT_CHARACTER, LOST as u8);
        }
        Encoding { sloppy, restores_spaces, bytes }
    }

    /// The text's bytes, if it has only characters of this encoding.
    pub(super) fn encode(&self, text: &str) -> Option<Vec<u8>> {
        text.chars().map(|c| self.bytes.get(&c).copied()).collect()
    }
}

/// What a byte stands for that could not be read.
const LOST: char = '\u{1a}';

/// The character of a byte from 128 to 159 in Windows-1252, as browsers read it.
pub(super) fn windows_1252(byte: u8) -> char {
    WINDOWS[0].chars().nth(usize::from(byte.saturating_sub(0x80))).unwrap_or(char::from(byte))
}

/// Whether Windows-1252 has a character for each of the bytes from 128 to 159.
pub(super) fn is_in_windows_1252(byte: u8) -> bool {
    !matches!(byte, 0x81 | 0x8d | 0x8f | 0x90 | 0x9d)
}

/// Windows-1252, 1251, 1250, 1253, 1254 and 1257.
#[rustfmt::skip]
const WINDOWS: [&str; 6] = [
    "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ\u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ",
    "ЂЃ‚ѓ„…†‡€‰Љ‹ЊЌЋЏђ‘’“”•–—\u{98}™љ›њќћџ\u{a0}ЎўЈ¤Ґ¦§Ё©Є«¬\u{ad}®Ї°±Ііґµ¶·ё№є»јЅѕїАБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюя",
    "€\u{81}‚\u{83}„…†‡\u{88}‰Š‹ŚŤŽŹ\u{90}‘’“”•–—\u{98}™š›śťžź\u{a0}ˇ˘Ł¤Ą¦§¨©Ş«¬\u{ad}®Ż°±˛ł´µ¶·¸ąş»Ľ˝ľżŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙",
    "€\u{81}‚ƒ„…†‡\u{88}‰\u{8a}‹\u{8c}\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—\u{98}™\u{9a}›\u{9c}\u{9d}\u{9e}\u{9f}\u{a0}΅Ά£¤¥¦§¨©ª«¬\u{ad}®―°±²³΄µ¶·ΈΉΊ»Ό½ΎΏΐΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡÒΣΤΥΦΧΨΩΪΫάέήίΰαβγδεζηθικλμνξοπρςστυφχψωϊϋόύώÿ",
    "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}\u{9e}Ÿ\u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏĞÑÒÓÔÕÖ×ØÙÚÛÜİŞßàáâãäåæçèéêëìíîïğñòóôõö÷øùúûüışÿ",
    "€\u{81}‚\u{83}„…†‡\u{88}‰\u{8a}‹\u{8c}¨ˇ¸\u{90}‘’“”•–—\u{98}™\u{9a}›\u{9c}¯˛\u{9f}\u{a0}¡¢£¤¥¦§Ø©Ŗ«¬\u{ad}®Æ°±²³´µ¶·ø¹ŗ»¼½¾æĄĮĀĆÄÅĘĒČÉŹĖĢĶĪĻŠŃŅÓŌÕÖ×ŲŁŚŪÜŻŽßąįāćäåęēčéźėģķīļšńņóōõö÷ųłśūüżž˙",
];
#[rustfmt::skip]
const ISO_8859_2: &str = "\u{80}\u{81}\u{82}\u{83}\u{84}\u{85}\u{86}\u{87}\u{88}\u{89}\u{8a}\u{8b}\u{8c}\u{8d}\u{8e}\u{8f}\u{90}\u{91}\u{92}\u{93}\u{94}\u{95}\u{96}\u{97}\u{98}\u{99}\u{9a}\u{9b}\u{9c}\u{9d}\u{9e}\u{9f}\u{a0}Ą˘Ł¤ĽŚ§¨ŠŞŤŹ\u{ad}ŽŻ°ą˛ł´ľśˇ¸šşťź˝žżŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";
#[rustfmt::skip]
const MAC_ROMAN: &str = "ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü†°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø¿¡¬√ƒ≈∆«»…\u{a0}ÀÃÕŒœ–—“”‘’÷◊ÿŸ⁄€‹›\u{fb01}\u{fb02}‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ\u{f8ff}ÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ";
#[rustfmt::skip]
const CODE_PAGE_437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        for encoding in ENCODINGS.iter() {
            assert_eq!(encoding.bytes.len(), 256);
        }
        assert_eq!((windows_1252(0x80), windows_1252(0x81), windows_1252(0x9f)), ('€', '\u{81}', 'Ÿ'));
        assert_eq!(ENCODINGS[0].encode("é€"), None);
        assert_eq!(ENCODINGS[1].encode("é€\u{fffd}"), Some(vec![0xe9, 0x80, 0x1a]));
    }
}
