//! H.264 in MP4 (ISO/IEC 14496-12 and -15): `ftyp`, `moov`, `mdat`, in this order, so that a browser can play what it has
//! not yet read to the end.
//!
//! `moov` has the length of every frame, so it can only be written last, and it stands first: compressed frames go to a
//! nameless file beside the video and are copied behind `moov` in the end. Memory holds four bytes a frame.

use crate::encoder::Sink;
use crate::h264::H264;
use crate::output::OutputFile;
use crate::{Format, FrameRate, MediaError, Settings};
use mp4_atom::{
    Avc1, Avcc, Co64, Codec, Colr, Dinf, Dref, DrefEntry, Encode, FixedPoint, FourCC, Ftyp, Hdlr, Mdhd, Mdia,
    Minf, Moov, Mvhd, Stbl, Stco, Stsc, StscEntry, Stsd, Stss, Stsz, StszSamples, Stts, SttsEntry, Tkhd,
    Trak, Url, Visual, Vmhd,
};
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::Path;

pub(crate) struct Mp4 {
    output: OutputFile,
    settings: Settings,
    encoder: H264,
    /// Compressed frames, one after the other.
    frames: BufWriter<File>,
    track: Track,
}

/// What `moov` says of the frames.
#[derive(Default)]
struct Track {
    lengths: Vec<u32>,
    /// Which of them a player can begin at, from 1.
    keys: Vec<u32>,
    bytes: u64,
}

impl Mp4 {
    pub(crate) fn create(path: &Path, settings: Settings) -> Result<Self, MediaError> {
        let output = OutputFile::create(path, Format::Mp4)?;
        let encoder = H264::new(&settings).map_err(|why| encode_error(&output, why))?;
        let frames = BufWriter::new(output.scratch()?);
        Ok(Self { output, settings, encoder, frames, track: Track::default() })
    }
}

fn encode_error(output: &OutputFile, why: String) -> MediaError {
    MediaError::Encode { path: output.path().to_path_buf(), format: Format::Mp4.name(), why }
}

impl Sink for Mp4 {
    fn push(&mut self, rgb: &[u8]) -> Result<(), MediaError> {
        let sample = self.encoder.encode(rgb).map_err(|why| encode_error(&self.output, why))?;
        let length = u32::try_from(sample.bytes.len());
        let (Ok(length), Ok(number)) = (length, u32::try_from(self.track.lengths.len() + 1)) else {
            let path = self.output.path().to_path_buf();
            return Err(MediaError::TooLong { path, what: "MP4 counts frames and their bytes in 32 bits" });
        };
        self.frames.write_all(sample.bytes).map_err(|error| self.output.error(error))?;
        self.track.lengths.push(length);
        self.track.bytes += u64::from(length);
        if sample.key {
            self.track.keys.push(number);
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<u64, MediaError> {
        let Self { mut output, settings, encoder, frames, track } = *self;
        let parameters = encoder.parameters();
        let avcc = Avcc::new(&parameters.sequence, &parameters.picture);
        let avcc = avcc.map_err(|error| encode_error(&output, error.to_string()))?;
        let ahead = ahead_of_frames(&settings, &track, &avcc);
        let ahead = ahead.map_err(|error| encode_error(&output, error.to_string()))?;
        let copied = output.write_all(&ahead).and_then(|()| {
            let mut frames = frames.into_inner().map_err(io::IntoInnerError::into_error)?;
            frames.rewind()?;
            io::copy(&mut frames, &mut output)
        });
        let copied = copied.map_err(|error| output.error(error))?;
        if copied != track.bytes {
            let cut = io::Error::new(io::ErrorKind::UnexpectedEof, "what was set aside has become shorter");
            return Err(output.error(cut));
        }
        output.finish()
    }
}

/// Everything before the first frame: `ftyp`, `moov` and the head of `mdat`.
fn ahead_of_frames(settings: &Settings, track: &Track, avcc: &Avcc) -> Result<Vec<u8>, mp4_atom::Error> {
    let mut ahead = Vec::new();
    let brands = [b"isom", b"iso2", b"avc1", b"mp41"].map(FourCC::new).to_vec();
    Ftyp { major_brand: FourCC::new(b"isom"), minor_version: 512, compatible_brands: brands }
        .encode(&mut ahead)?;
    let moov_at = ahead.len();
    // Its length does not depend on where the frames begin, but on how many bytes it takes to say so.
    let long = track.bytes > u64::from(u32::MAX) - (1 << 30);
    let mdat = mdat_head(track.bytes);
    moov(settings, track, avcc, 0, long).encode(&mut ahead)?;
    let begin = (ahead.len() + mdat.len()) as u64;
    ahead.truncate(moov_at);
    moov(settings, track, avcc, begin, long).encode(&mut ahead)?;
    ahead.extend_from_slice(&mdat);
    debug_assert_eq!(ahead.len() as u64, begin);
    Ok(ahead)
}

/// The head of the box that the frames are in.
fn mdat_head(bytes: u64) -> Vec<u8> {
    match u32::try_from(bytes + 8) {
        Ok(length) => [&length.to_be_bytes()[..], b"mdat"].concat(),
        // A length of 1 says that the real one follows.
        Err(_) => [&1_u32.to_be_bytes()[..], b"mdat", &(bytes + 16).to_be_bytes()].concat(),
    }
}

/// Ticks a second, and ticks a frame: exactly the rate, with at least 10,000 ticks a second, as other writers have it.
fn clock(rate: FrameRate) -> (u32, u32) {
    let (numerator, denominator) = (u32::from(rate.numerator()), u32::from(rate.denominator()));
    let times = 10_000_u32.div_ceil(numerator);
    (numerator * times, denominator * times)
}

fn moov(settings: &Settings, track: &Track, avcc: &Avcc, begin: u64, long: bool) -> Moov {
    let (timescale, tick) = clock(settings.rate);
    let duration = track.lengths.len() as u64 * u64::from(tick);
    // At most 3840, as `Settings::check` has it.
    let (width, height) = (settings.width as u16, settings.height as u16);
    let mvhd = Mvhd {
        timescale,
        duration,
        rate: FixedPoint::new(1, 0),
        volume: FixedPoint::new(1, 0),
        next_track_id: 2,
        ..Mvhd::default()
    };
    let tkhd = Tkhd {
        track_id: 1,
        duration,
        enabled: true,
        in_movie: true,
        width: FixedPoint::new(width, 0),
        height: FixedPoint::new(height, 0),
        ..Tkhd::default()
    };
    let mdia = Mdia {
        mdhd: Mdhd { timescale, duration, language: "und".into(), ..Mdhd::default() },
        hdlr: Hdlr { handler: FourCC::new(b"vide"), name: "Video".into() },
        minf: Minf {
            vmhd: Some(Vmhd::default()),
            // The frames are in this file.
            dinf: Dinf { dref: Dref { entries: vec![DrefEntry::Url(Url::default())] } },
            stbl: stbl(track, sample_entry(width, height, avcc), tick, begin, long),
            ..Minf::default()
        },
    };
    Moov { mvhd, trak: vec![Trak { tkhd, mdia, ..Trak::default() }], ..Moov::default() }
}

fn sample_entry(width: u16, height: u16, avcc: &Avcc) -> Codec {
    Codec::Avc1(Avc1 {
        visual: Visual { data_reference_index: 1, width, height, ..Visual::default() },
        avcc: avcc.clone(),
        // BT.709 in limited range, as the bitstream says too (ISO/IEC 23091-2: 1 is BT.709 in all three tables).
        colr: Some(Colr::Nclx {
            colour_primaries: 1,
            transfer_characteristics: 1,
            matrix_coefficients: 1,
            full_range_flag: false,
        }),
        ..Avc1::default()
    })
}

/// The tables of frames. All of them are one chunk.
fn stbl(track: &Track, codec: Codec, tick: u32, begin: u64, long: bool) -> Stbl {
    let frames = track.lengths.len() as u32;
    let chunk = StscEntry { first_chunk: 1, samples_per_chunk: frames, sample_description_index: 1 };
    Stbl {
        stsd: Stsd { codecs: vec![codec] },
        stts: Stts { entries: vec![SttsEntry { sample_count: frames, sample_delta: tick }] },
        stss: Some(Stss { entries: track.keys.clone() }),
        stsc: Stsc { entries: vec![chunk] },
        stsz: Stsz { samples: StszSamples::Different { sizes: track.lengths.clone() } },
        stco: (!long).then(|| Stco { entries: vec![begin as u32] }),
        co64: long.then(|| Co64 { entries: vec![begin] }),
        ..Stbl::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_exact() {
        let of = |upper, lower| clock(FrameRate::new(upper, lower).expect("a rate"));
        assert_eq!(of(16, 1), (10_000, 625));
        assert_eq!(of(24, 1), (10_008, 417));
        assert_eq!(of(24000, 1001), (24_000, 1001));
        assert_eq!(of(1, 10), (10_000, 100_000));
    }

    #[test]
    fn an_mdat_beyond_32_bits_says_so() {
        assert_eq!(mdat_head(4), *b"\0\0\0\x0cmdat");
        assert_eq!(mdat_head(u64::from(u32::MAX) - 8), *b"\xff\xff\xff\xffmdat");
        assert_eq!(mdat_head(u64::from(u32::MAX) - 7), *b"\0\0\0\x01mdat\0\0\0\x01\0\0\0\x08");
    }

    #[test]
    fn frames_begin_where_moov_says() {
        let settings = Settings { width: 64, height: 32, rate: FrameRate::new(16, 1).expect("a rate") };
        let avcc = Avcc::new(&[0x67, 66, 0, 30], &[0x68]).expect("parameters");
        for bytes in [100, u64::from(u32::MAX) + 100] {
            let track = Track { lengths: vec![100], keys: vec![1], bytes };
            let ahead = ahead_of_frames(&settings, &track, &avcc).expect("boxes");
            let (name, width) = if bytes == 100 { (b"stco", 4) } else { (b"co64", 8) };
            let at = ahead.windows(4).position(|window| window == name).expect("an offset") + 12;
            let offset =
                ahead[at..at + width].iter().fold(0_usize, |sum, &byte| sum << 8 | usize::from(byte));
            assert_eq!(offset, ahead.len());
        }
    }
}
