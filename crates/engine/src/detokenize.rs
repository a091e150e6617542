//! From token bytes to text, piece by piece: no piece breaks a UTF-8 sequence, and no piece contains what
//! may still turn out to be a stop string.

/// Turns the bytes of tokens into text that is final.
///
/// The pieces put together equal `String::from_utf8_lossy` of all bytes, up to the stop string if one came.
pub(crate) struct Detokenizer {
    utf8: Utf8Stream,
    stops: StopStrings,
}

impl Detokenizer {
    pub(crate) fn new(stop_strings: &[String]) -> Self {
        Detokenizer { utf8: Utf8Stream::default(), stops: StopStrings::new(stop_strings) }
    }

    /// Takes a token's bytes; returns the text that became certain, and the index of the stop string if
    /// one was completed.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> (String, Option<usize>) {
        self.stops.push(&self.utf8.push(bytes))
    }

    /// What was held back, now that nothing more comes. It may, by completing a broken sequence with U+FFFD,
    /// still complete a stop string.
    pub(crate) fn finish(&mut self) -> (String, Option<usize>) {
        let (mut text, stop) = self.stops.push(&self.utf8.finish());
        if stop.is_none() {
            text.push_str(&self.stops.take_held());
        }
        (text, stop)
    }
}

/// Incremental `String::from_utf8_lossy`.
#[derive(Default)]
struct Utf8Stream {
    /// The beginning of a sequence that may still become valid: at most three bytes between calls.
    pending: Vec<u8>,
}

impl Utf8Stream {
    fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.pending.len());
        let mut incomplete = 0;
        let mut chunks = self.pending.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            // An error without a length is one that more bytes could still mend; only the last can be.
            if chunks.peek().is_none()
                && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none())
            {
                incomplete = invalid.len();
            } else if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.pending.drain(..self.pending.len() - incomplete);
        text
    }

    fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

/// Searches a stream for several strings at once (Knuth, Morris and Pratt 1977), each byte looked at once per
/// string. Of all occurrences the one that ends first counts, of those the longest: so where tokens begin
/// and end makes no difference.
struct StopStrings {
    patterns: Vec<Pattern>,
    /// Text not given out yet: as long as the longest match under way.
    held: String,
}

struct Pattern {
    bytes: Vec<u8>,
    /// For each number of matched bytes, the length of the longest proper prefix that is also their suffix.
    fallback: Vec<usize>,
    /// Bytes matched so far; below the pattern's length between calls.
    matched: usize,
}

impl StopStrings {
    fn new(strings: &[String]) -> Self {
        StopStrings {
            patterns: strings.iter().map(|string| Pattern::new(string)).collect(),
            held: String::new(),
        }
    }

    fn push(&mut self, text: &str) -> (String, Option<usize>) {
        let before = self.held.len();
        self.held.push_str(text);
        for (read, byte) in text.bytes().enumerate() {
            let mut found: Option<(usize, usize)> = None;
            for (index, pattern) in self.patterns.iter_mut().enumerate() {
                let length = pattern.bytes.len();
                if pattern.advance(byte) && found.is_none_or(|(_, longest)| length > longest) {
                    found = Some((index, length));
                }
            }
            if let Some((index, length)) = found {
                // A match lies within what was held and read, and starts where a character does.
                self.held.truncate(before + read + 1 - length);
                return (self.take_held(), Some(index));
            }
        }
        let uncertain = self.patterns.iter().map(|pattern| pattern.matched).max().unwrap_or(0);
        let held = self.held.split_off(self.held.len() - uncertain);
        (std::mem::replace(&mut self.held, held), None)
    }

    fn take_held(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

impl Pattern {
    fn new(string: &str) -> Self {
        let mut pattern = Pattern { bytes: string.into(), fallback: vec![0, 0], matched: 0 };
        for index in 1..pattern.bytes.len() {
            pattern.advance(pattern.bytes[index]);
            pattern.fallback.push(pattern.matched);
        }
        pattern.matched = 0;
        pattern
    }

    /// Reads a byte; true if it completes the pattern.
    fn advance(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.fallback[self.matched];
        }
        if self.bytes[self.matched] == byte {
            self.matched += 1;
        }
        let complete = self.matched == self.bytes.len();
        if complete {
            self.matched = self.fallback[self.matched];
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(pieces: &[Vec<u8>], stops: &[String]) -> (String, Option<usize>) {
        let mut detokenizer = Detokenizer::new(stops);
        let mut all = String::new();
        for piece in pieces {
            let (text, stop) = detokenizer.push(piece);
            all.push_str(&text);
            if stop.is_some() {
                return (all, stop);
            }
        }
        let (text, stop) = detokenizer.finish();
        (all + &text, stop)
    }

    /// The definition, directly: the occurrence that ends first, of those the longest.
    fn cut(text: &str, stops: &[String]) -> (String, Option<usize>) {
        let mut best: Option<(usize, usize, usize)> = None;
        for (index, stop) in stops.iter().enumerate() {
            if let Some(start) = text.find(stop.as_str()) {
                let candidate = (start + stop.len(), start, index);
                best = Some(best.map_or(candidate, |best| best.min(candidate)));
            }
        }
        match best {
            Some((_, start, index)) => (text[..start].into(), Some(index)),
            None => (text.into(), None),
        }
    }

    /// Bytes that often form, or nearly form, characters.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let fragment = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..4),
            prop::sample::select(vec!["é", "务实", "🦀", "a", "\u{fffd}"])
                .prop_map(|text| text.as_bytes().to_vec()),
            Just(vec![0xf0, 0x9f]),
            Just(vec![0xa6, 0x80]),
            Just(vec![0xed, 0xa0]),
            Just(vec![0xe5]),
        ];
        prop::collection::vec(fragment, 0..12).prop_map(|fragments| fragments.concat())
    }

    fn split(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn pieces_equal_the_whole(bytes in bytes(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            let (text, _) = run(&split(&bytes, &cuts), &[]);
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn stops_do_not_depend_on_borders(
            text in "[ab]{0,12}|[aé🦀]{0,8}",
            stops in prop::collection::vec("[ab]{1,4}|[aé🦀]{1,3}", 0..4),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            prop_assert_eq!(run(&split(text.as_bytes(), &cuts), &stops), cut(&text, &stops));
        }
    }

    #[test]
    fn text_comes_as_early_as_it_is_certain() {
        let mut detokenizer = Detokenizer::new(&["stop".into()]);
        assert_eq!(detokenizer.push(b"one s"), ("one ".into(), None));
        assert_eq!(detokenizer.push(b"t"), (String::new(), None));
        assert_eq!(detokenizer.push(b"ep st"), ("step ".into(), None));
        assert_eq!(detokenizer.push(b"op!"), (String::new(), Some(0)));

        let mut detokenizer = Detokenizer::new(&[]);
        assert_eq!(detokenizer.push(&[0xe5, 0x8a]), (String::new(), None));
        assert_eq!(detokenizer.push(&[0xa1, b'a']), ("务a".into(), None));
        assert_eq!(detokenizer.push(&[0xe5]), (String::new(), None));
        assert_eq!(detokenizer.finish(), ("\u{fffd}".into(), None));
    }

    #[test]
    fn a_replacement_character_can_be_a_stop_string() {
        assert_eq!(run(&[vec![b'a', 0xe5]], &["\u{fffd}".into()]), ("a".into(), Some(0)));
    }
}
