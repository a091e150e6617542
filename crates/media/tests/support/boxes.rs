//! A reader of MP4 and of H.264's parameters, written from the standards and not from what writes them.

use std::ops::Range;

/// A box: its name and what it holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Box<'a> {
    pub(crate) name: String,
    pub(crate) place: Range<usize>,
    pub(crate) body: &'a [u8],
}

/// The boxes that follow each other in some bytes.
pub(crate) fn boxes(bytes: &[u8]) -> Vec<Box<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = number(&bytes[at..at + 4]) as usize;
        let head = if length == 1 { 16 } else { 8 };
        let length = if length == 1 { number(&bytes[at + 8..at + 16]) as usize } else { length };
        let name = String::from_utf8(bytes[at + 4..at + 8].to_vec()).expect("a name");
        found.push(Box { name, place: at + head..at + length, body: &bytes[at + head..at + length] });
        at += length;
    }
    found
}

/// The body of the only box at a path below some bytes.
pub(crate) fn body<'a>(bytes: &'a [u8], path: &[&str]) -> &'a [u8] {
    let Some((first, rest)) = path.split_first() else { return bytes };
    let mut found = boxes(bytes).into_iter().filter(|found| found.name == *first);
    let (Some(one), None) = (found.next(), found.next()) else { panic!("not one {first}") };
    let inner = match *first {
        // Version, flags and a count; the fields of a video.
        "stsd" | "dref" => &one.body[8..],
        "avc1" => &one.body[78..],
        _ => one.body,
    };
    body(if rest.is_empty() { one.body } else { inner }, rest)
}

/// A number, highest byte first.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| number(word) as u32).collect()
}

/// What a player reads from an MP4 file with one track.
#[derive(Debug)]
pub(crate) struct Movie {
    pub(crate) timescale: u64,
    pub(crate) duration: u64,
    pub(crate) track_timescale: u64,
    pub(crate) track_duration: u64,
    pub(crate) shown: (u64, u64),
    pub(crate) coded: (u64, u64),
    /// Frames and how long each of them lasts.
    pub(crate) times: Vec<(u32, u32)>,
    pub(crate) keys: Vec<u32>,
    pub(crate) avcc: Vec<u8>,
    pub(crate) sequence: Vec<u8>,
    pub(crate) picture: Vec<u8>,
    pub(crate) colour: Vec<u8>,
    pub(crate) samples: Vec<Vec<u8>>,
}

impl Movie {
    pub(crate) fn read(file: &[u8]) -> Self {
        let moov = body(file, &["moov"]);
        // Version 1 has 64 bits for times.
        let times = |header: &[u8]| match header[0] {
            0 => (number(&header[12..16]), number(&header[16..20])),
            1 => (number(&header[20..24]), number(&header[24..32])),
            version => panic!("version {version}"),
        };
        let (timescale, duration) = times(body(moov, &["mvhd"]));
        let (track_timescale, track_duration) = times(body(moov, &["trak", "mdia", "mdhd"]));
        let tkhd = body(moov, &["trak", "tkhd"]);
        assert_eq!(tkhd[3] & 3, 3, "enabled and in the movie");
        let shown = &tkhd[tkhd.len() - 8..];
        let stbl = body(moov, &["trak", "mdia", "minf", "stbl"]);
        let avc1 = body(stbl, &["stsd", "avc1"]);
        let avcc = body(stbl, &["stsd", "avc1", "avcC"]).to_vec();
        let sequence_length = number(&avcc[6..8]) as usize;
        let (sequence, rest) = avcc[8..].split_at(sequence_length);
        assert_eq!((avcc[5] & 31, rest[0]), (1, 1), "one set of each kind");
        let picture = &rest[3..3 + number(&rest[1..3]) as usize];
        let stts = words(&body(stbl, &["stts"])[8..]);
        let sizes = words(&body(stbl, &["stsz"])[12..]);
        let offsets = words(&body(stbl, &["stco"])[8..]);
        let per_chunk = words(&body(stbl, &["stsc"])[8..]);
        assert_eq!((offsets.len(), per_chunk), (1, vec![1, sizes.len() as u32, 1]), "one chunk");
        let mut at = offsets[0] as usize;
        let samples = sizes.iter().map(|size| {
            at += *size as usize;
            file[at - *size as usize..at].to_vec()
        });
        Self {
            timescale,
            duration,
            track_timescale,
            track_duration,
            shown: (number(&shown[..2]), number(&shown[4..6])),
            coded: (number(&avc1[24..26]), number(&avc1[26..28])),
            times: stts.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(),
            keys: words(&body(stbl, &["stss"])[8..]),
            sequence: sequence.to_vec(),
            picture: picture.to_vec(),
            colour: body(stbl, &["stsd", "avc1", "colr"]).to_vec(),
            samples: samples.collect(),
            avcc,
        }
    }

    /// A sample as a decoder outside MP4 wants it, the first behind its parameters.
    pub(crate) fn stream(&self, sample: usize) -> Vec<u8> {
        let mut stream = Vec::new();
        let mut put = |unit: &[u8]| {
            stream.extend_from_slice(&[0, 0, 0, 1]);
            stream.extend_from_slice(unit);
        };
        if sample == 0 {
            put(&self.sequence);
            put(&self.picture);
        }
        let mut rest = &self.samples[sample][..];
        while !rest.is_empty() {
            let (unit, after) = rest[4..].split_at(number(&rest[..4]) as usize);
            put(unit);
            rest = after;
        }
        stream
    }
}

/// What the sequence's parameters say of colours: full range, primaries, transfer, matrix (H.264, 7.3.2.1.1 and E.1.1).
pub(crate) fn colours(sequence: &[u8]) -> Option<[u32; 4]> {
    let mut bits = Bits::new(&sequence[4..]);
    assert!([66, 77].contains(&sequence[1]), "no fields of the high profiles");
    bits.golomb(); // Which set.
    bits.golomb(); // Bits of frame numbers.
    match bits.golomb() {
        0 => {
            bits.golomb();
        }
        2 => {}
        kind => panic!("order of pictures {kind}"),
    }
    bits.golomb(); // Frames referred to.
    bits.take(1); // Gaps.
    bits.golomb(); // Width.
    bits.golomb(); // Height.
    assert_eq!(bits.take(1), 1, "whole frames");
    bits.take(1); // Direct inference.
    if bits.take(1) == 1 {
        (0..4).for_each(|_| {
            bits.golomb();
        }); // Cropping.
    }
    assert_eq!(bits.take(1), 1, "no usability information");
    assert_eq!(bits.take(2), 0, "shape of pixels and overscan");
    if bits.take(1) == 0 {
        return None;
    }
    bits.take(3); // Kind of video.
    let range = bits.take(1);
    assert_eq!(bits.take(1), 1, "no description of colours");
    Some([range, bits.take(8), bits.take(8), bits.take(8)])
}

struct Bits {
    bits: std::vec::IntoIter<u32>,
}

impl Bits {
    fn new(bytes: &[u8]) -> Self {
        let mut bits = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            // A 3 behind two zeros only keeps them from being taken for a start code.
            if *byte == 3 && at >= 2 && bytes[at - 2..at] == [0, 0] {
                continue;
            }
            bits.extend((0..8).rev().map(|shift| u32::from(byte >> shift & 1)));
        }
        Self { bits: bits.into_iter() }
    }

    fn take(&mut self, count: usize) -> u32 {
        (0..count).fold(0, |sum, _| sum << 1 | self.bits.next().expect("a bit"))
    }

    fn golomb(&mut self) -> u32 {
        let mut zeros = 0;
        while self.take(1) == 0 {
            zeros += 1;
        }
        (1 << zeros) - 1 + self.take(zeros)
    }
}
