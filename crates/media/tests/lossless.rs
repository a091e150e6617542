//! APNG and the folder of PNG give back exactly the frames; GIF gives back their number, size and time.

mod support;

use proptest::prelude::*;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use support::{frames, psnr, settings, write};
use wushi_media::Format;

/// An animation as a decoder sees it: how many frames its head names, how often it is repeated, and each frame with its
/// delay as a fraction of a second.
struct Animation {
    count: u32,
    plays: u32,
    frames: Vec<(Vec<u8>, (u16, u16))>,
}

fn apng(path: &Path) -> Animation {
    let mut reader =
        png::Decoder::new(BufReader::new(File::open(path).expect("a file"))).read_info().expect("PNG");
    let control = *reader.info().animation_control().expect("animated");
    let mut frames = Vec::new();
    for _ in 0..control.num_frames {
        let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut pixels).expect("a frame");
        pixels.truncate(info.buffer_size());
        let frame = reader.info().frame_control().expect("a frame of the animation");
        frames.push((pixels, (frame.delay_num, frame.delay_den)));
    }
    assert!(reader.next_frame(&mut vec![0; 1 << 20]).is_err(), "no frame beyond");
    reader.finish().expect("an end");
    Animation { count: control.num_frames, plays: control.num_plays, frames }
}

fn picture(path: &Path) -> (u32, u32, Vec<u8>) {
    let mut reader =
        png::Decoder::new(BufReader::new(File::open(path).expect("a file"))).read_info().expect("PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut pixels).expect("a picture");
    pixels.truncate(info.buffer_size());
    (info.width, info.height, pixels)
}

#[test]
fn apng_is_exactly_the_frames() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.apng");
    for (count, rate, delay) in [(1, "16", (1, 16)), (13, "24", (1, 24)), (5, "23.976", (1001, 24000))] {
        let settings = settings(48, 33, rate);
        let source = frames(&settings, count);
        let summary = write(&path, Format::Apng, settings, &source).expect("written");
        let read = apng(&path);
        assert_eq!((read.count as usize, read.plays), (count, 0));
        assert_eq!(summary.bytes, fs::metadata(&path).expect("a file").len());
        assert!((summary.seconds - count as f64 / settings.rate.get()).abs() < 1e-12);
        for ((pixels, shown), source) in read.frames.iter().zip(&source) {
            assert_eq!((pixels, *shown), (source, delay));
        }
    }
    assert_eq!(support::names(folder.path()), ["a.apng"]);
}

#[test]
fn a_folder_is_exactly_the_frames() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("frames");
    let settings = settings(31, 20, "16");
    let source = frames(&settings, 11);
    let summary = write(&path, Format::PngDir, settings, &source).expect("written");
    let names = support::names(&path);
    assert_eq!(names.len(), 11);
    assert_eq!((&*names[0], &*names[10]), ("000001.png", "000011.png"));
    for (name, source) in names.iter().zip(&source) {
        assert_eq!(picture(&path.join(name)), (31, 20, source.clone()));
    }
    let bytes: u64 = names.iter().map(|name| fs::metadata(path.join(name)).expect("a file").len()).sum();
    assert_eq!((summary.bytes, summary.frames), (bytes, 11));
}

/// Size, repetition, and each frame's delay in hundredths of a second and pixels.
type Gif = (u16, u16, gif::Repeat, Vec<(u16, Vec<u8>)>);

fn gif(path: &Path) -> Gif {
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::RGBA);
    let mut decoder = options.read_info(BufReader::new(File::open(path).expect("a file"))).expect("GIF");
    let mut frames = Vec::new();
    while let Some(frame) = decoder.read_next_frame().expect("a frame") {
        let rgb = frame.buffer.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
        frames.push((frame.delay, rgb));
    }
    (decoder.width(), decoder.height(), decoder.repeat(), frames)
}

#[test]
fn gif_has_every_frame_in_its_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.gif");
    for (rate, count, hundredths) in [("16", 16, 100), ("24", 12, 50), ("23.976", 24, 100), ("50", 5, 10)] {
        let settings = settings(61, 40, rate);
        let source = frames(&settings, count);
        let summary = write(&path, Format::Gif, settings, &source).expect("written");
        assert_eq!(summary.bytes, fs::metadata(&path).expect("a file").len());
        let (width, height, repeat, read) = gif(&path);
        assert_eq!((width, height, repeat, read.len()), (61, 40, gif::Repeat::Infinite, count));
        assert_eq!(read.iter().map(|(delay, _)| u32::from(*delay)).sum::<u32>(), hundredths);
        for ((delay, pixels), source) in read.iter().zip(&source) {
            let exact = 100.0 / settings.rate.get();
            assert!((f64::from(*delay) - exact).abs() < 1.0, "{delay} for {exact}");
            let likeness = psnr(pixels, source);
            assert!(likeness >= 30.0, "{likeness:.2} dB");
        }
    }
}

#[test]
fn gif_keeps_few_colours_exactly() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.gif");
    let settings = settings(16, 16, "10");
    let source: Vec<Vec<u8>> = (0..3_u8)
        .map(|frame| (0..=255_u8).flat_map(|level| [level, 255 - level, 40 * frame]).collect())
        .collect();
    write(&path, Format::Gif, settings, &source).expect("written");
    let read: Vec<Vec<u8>> = gif(&path).3.into_iter().map(|(_, pixels)| pixels).collect();
    assert_eq!(read, source);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_size_and_any_bytes(
        width in 1_u32..40, height in 1_u32..40, count in 1_usize..5,
        rate in prop::sample::select(vec!["24", "16", "23.976"]), seed in any::<u32>(),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = settings(width, height, rate);
        let mut state = seed;
        let source: Vec<Vec<u8>> = (0..count).map(|_| {
            let bytes = (0..width * height * 3).map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            });
            bytes.collect()
        }).collect();
        let path = |name: &str| folder.path().join(name);
        for (name, format) in [("a.apng", Format::Apng), ("a.gif", Format::Gif), ("a", Format::PngDir)] {
            write(&path(name), format, settings, &source).expect("written");
        }
        let read: Vec<_> = apng(&path("a.apng")).frames.into_iter().map(|(pixels, _)| pixels).collect();
        prop_assert_eq!(&read, &source);
        for (number, source) in source.iter().enumerate() {
            let read = picture(&path("a").join(format!("{:06}.png", number + 1)));
            prop_assert_eq!(&read, &(width, height, source.clone()));
        }
        let (read_width, read_height, _, read) = gif(&path("a.gif"));
        prop_assert_eq!((u32::from(read_width), u32::from(read_height), read.len()), (width, height, count));
    }
}
