//! MP4: what a player finds in it, and what it shows.

mod support;

use openh264::decoder::Decoder;
use openh264::formats::YUVSource;
use proptest::prelude::*;
use std::fs;
use support::boxes::{Movie, boxes, colours};
use support::{frames, psnr, psnr_kept, settings, write};
use wushi_media::{Encoder, Format, Settings};

/// A decoded picture as RGB, by the definition of BT.709 in limited range.
fn rgb(picture: &impl YUVSource) -> Vec<u8> {
    let (width, height) = picture.dimensions();
    let (y_stride, u_stride, v_stride) = picture.strides();
    let mut rgb = Vec::new();
    for row in 0..height {
        for column in 0..width {
            let y = (f64::from(picture.y()[row * y_stride + column]) - 16.0) / 219.0;
            let cb = (f64::from(picture.u()[row / 2 * u_stride + column / 2]) - 128.0) / 224.0;
            let cr = (f64::from(picture.v()[row / 2 * v_stride + column / 2]) - 128.0) / 224.0;
            let (red, blue) = (y + 1.5748 * cr, y + 1.8556 * cb);
            let green = (y - 0.2126 * red - 0.0722 * blue) / 0.7152;
            rgb.extend([red, green, blue].map(|channel| (channel * 255.0).round().clamp(0.0, 255.0) as u8));
        }
    }
    rgb
}

/// All frames of a movie, decoded.
fn decode(movie: &Movie) -> Vec<Vec<u8>> {
    let mut decoder = Decoder::new().expect("a decoder");
    let stream = |sample| movie.stream(sample);
    let mut shown = Vec::new();
    for sample in 0..movie.samples.len() {
        if let Some(picture) = decoder.decode(&stream(sample)).expect("decodable") {
            shown.push(rgb(&picture));
        }
    }
    shown.extend(decoder.flush_remaining().expect("decodable").iter().map(rgb));
    shown
}

/// Writes frames, reads them back, and gives the movie and its frames.
fn written(settings: Settings, frames: &[Vec<u8>]) -> (Vec<u8>, Movie) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.mp4");
    let summary = write(&path, Format::Mp4, settings, frames).expect("written");
    let file = fs::read(&path).expect("the file");
    assert_eq!(summary.bytes, file.len() as u64);
    assert_eq!(summary.frames, frames.len() as u64);
    assert_eq!(support::names(folder.path()), ["a.mp4"]);
    let movie = Movie::read(&file);
    (file, movie)
}

#[test]
fn a_player_finds_everything_before_the_frames() {
    let settings = settings(96, 64, "16");
    let (file, movie) = written(settings, &frames(&settings, 40));
    let order: Vec<String> = boxes(&file).into_iter().map(|found| found.name).collect();
    assert_eq!(order, ["ftyp", "moov", "mdat"]);
    assert_eq!(movie.shown, (96, 64));
    assert_eq!(movie.coded, (96, 64));
    assert_eq!(movie.avcc[..4], [&[1][..], &movie.sequence[1..4]].concat());
    assert_eq!(movie.avcc[4] & 3, 3, "lengths of four bytes");
    // A player can begin every two seconds.
    assert_eq!(movie.keys, [1, 33]);
    for (at, sample) in movie.samples.iter().enumerate() {
        let kind = sample[4] & 31;
        assert_eq!(kind, if [0, 32].contains(&at) { 5 } else { 1 }, "one unit, of the right kind");
    }
    let mdat = boxes(&file).pop().expect("mdat");
    assert_eq!(movie.samples.concat(), mdat.body);
}

#[test]
fn colours_are_declared_in_both_places() {
    let settings = settings(32, 32, "24");
    let (_, movie) = written(settings, &frames(&settings, 1));
    assert_eq!(movie.colour, b"nclx\0\x01\0\x01\0\x01\0");
    assert_eq!(colours(&movie.sequence), Some([0, 1, 1, 1]));
}

#[test]
fn time_is_exact() {
    for (rate, count, seconds) in [
        ("24", 25, 25.0 / 24.0),
        ("16", 81, 81.0 / 16.0),
        ("23.976", 48, 2.002),
        ("0.5", 3, 6.0),
        ("120", 30, 0.25),
    ] {
        let settings = settings(16, 16, rate);
        let (_, movie) = written(settings, &frames(&settings, count));
        assert_eq!(movie.times.len(), 1, "every frame lasts as long");
        assert_eq!(movie.times[0].0 as usize, count);
        assert_eq!(movie.samples.len(), count);
        assert_eq!(movie.track_duration, u64::from(movie.times[0].1) * count as u64);
        for (duration, scale) in
            [(movie.duration, movie.timescale), (movie.track_duration, movie.track_timescale)]
        {
            assert!((duration as f64 / scale as f64 - seconds).abs() < 1e-12, "{rate}: {duration}/{scale}");
        }
    }
}

#[test]
fn a_lone_frame_lasts_its_time() {
    let settings = settings(64, 64, "16");
    let source = frames(&settings, 1);
    let (_, movie) = written(settings, &source);
    assert_eq!(movie.duration * 16, movie.timescale);
    assert!(psnr(&decode(&movie)[0], &source[0]) > 35.0);
}

#[test]
fn every_frame_looks_like_its_source() {
    for (width, height) in [(320, 192), (48, 32), (130, 98)] {
        let settings = settings(width, height, "16");
        let source = frames(&settings, 17);
        let (file, movie) = written(settings, &source);
        let shown = decode(&movie);
        assert_eq!(shown.len(), source.len());
        let worst = shown.iter().zip(&source).map(|(a, b)| psnr(a, b)).fold(f64::INFINITY, f64::min);
        assert!(worst >= 35.0, "{width}x{height}: {worst:.2} dB, {} bytes", file.len());
    }
}

#[test]
fn noise_and_a_change_of_scene_keep_their_quality() {
    let settings = settings(64, 64, "16");
    let mut state = 1_u32;
    let mut noise = || {
        let bytes = (0..64 * 64).flat_map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // The same in all channels, since colour has half the resolution.
            [(state >> 24) as u8; 3]
        });
        bytes.collect::<Vec<u8>>()
    };
    let mut source = frames(&settings, 3);
    source.extend([noise(), noise(), vec![255; 64 * 64 * 3], vec![0; 64 * 64 * 3]]);
    let (_, movie) = written(settings, &source);
    for (at, (shown, source)) in decode(&movie).iter().zip(&source).enumerate() {
        assert!(psnr(shown, source) >= 35.0, "frame {at}: {:.2} dB", psnr(shown, source));
    }
}

#[test]
fn equal_frames_give_equal_bytes() {
    let settings = settings(96, 64, "16");
    let source = frames(&settings, 9);
    let first = written(settings, &source).0;
    let others: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| written(settings, &source).0)).collect();
        threads.into_iter().map(|thread| thread.join().expect("written")).collect()
    });
    assert!(others.iter().all(|other| *other == first));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn even_sizes_are_written_and_odd_ones_refused(
        width in 16_u32..90, height in 16_u32..90, rate in prop::sample::select(vec!["24", "16", "23.976"]), count in 1_usize..6,
    ) {
        let settings = settings(width, height, rate);
        if width % 2 == 1 || height % 2 == 1 {
            let folder = tempfile::tempdir().expect("a folder");
            let error = Encoder::create(&folder.path().join("a.mp4"), Format::Mp4, settings).expect_err("odd");
            prop_assert_eq!(
                error.to_string(),
                format!("{width}x{height} cannot be written as mp4: width and height must be even")
            );
            prop_assert!(support::names(folder.path()).is_empty());
            return Ok(());
        }
        let source = frames(&settings, count);
        let (_, movie) = written(settings, &source);
        prop_assert_eq!(movie.shown, (u64::from(width), u64::from(height)));
        let seconds = count as f64 / settings.rate.get();
        prop_assert!((movie.duration as f64 / movie.timescale as f64 - seconds).abs() < 1e-9);
        let shown = decode(&movie);
        prop_assert_eq!(shown.len(), count);
        for (shown, source) in shown.iter().zip(&source) {
            prop_assert_eq!(shown.len(), source.len());
            let likeness = psnr_kept(shown, source, width);
            prop_assert!(likeness >= 38.0, "{likeness:.2} dB");
        }
    }
}
