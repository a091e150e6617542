//! What the tests share: frames to write, and how far others are from them.
#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod boxes;

use std::path::Path;
use wushi_media::{Encoder, Format, FrameRate, MediaError, Settings, Summary};

pub(crate) fn settings(width: u32, height: u32, rate: &str) -> Settings {
    Settings { width, height, rate: rate.parse::<FrameRate>().expect("a rate") }
}

/// A scene: a sky of soft colours, a ground with texture, a ball that moves.
pub(crate) fn frame(settings: &Settings, number: usize) -> Vec<u8> {
    let (width, height) = (settings.width as f32, settings.height as f32);
    let time = number as f32 / 16.0;
    let mut rgb = Vec::new();
    for row in 0..settings.height {
        for column in 0..settings.width {
            let (x, y) = (column as f32 / width, row as f32 / height);
            let texture = (x * 23.0 + 2.0 * time).sin() * (y * 17.0 - time).cos();
            let mut colour = [0.35 + 0.3 * y, 0.55 + 0.2 * y, 0.85 - 0.2 * x];
            // Edges are soft enough that half the resolution for colour loses little even in small pictures.
            let depth = ((y - 0.5) * 3.0).clamp(0.0, 1.0);
            let ground = [0.3 + 0.06 * texture, 0.45 + 0.1 * texture, 0.3 + 0.05 * texture];
            for (channel, ground) in colour.iter_mut().zip(ground) {
                *channel += depth * (ground - *channel);
            }
            let (dx, dy) = ((x - 0.3 - 0.3 * time) * width / height, y - 0.4 - 0.1 * (4.0 * time).sin());
            let inside = ((0.3 - (dx * dx + dy * dy).sqrt()) * 5.0).clamp(0.0, 1.0);
            for (channel, ball) in colour.iter_mut().zip([0.9, 0.75, 0.6 + 0.2 * dy]) {
                *channel += inside * (ball - *channel);
            }
            rgb.extend(colour.map(|channel| (channel.clamp(0.0, 1.0) * 255.0).round_ties_even() as u8));
        }
    }
    rgb
}

pub(crate) fn frames(settings: &Settings, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| frame(settings, number)).collect()
}

/// Writes frames.
pub(crate) fn write(
    path: &Path,
    format: Format,
    settings: Settings,
    frames: &[Vec<u8>],
) -> Result<Summary, MediaError> {
    let mut encoder = Encoder::create(path, format, settings)?;
    for frame in frames {
        encoder.push(frame)?;
    }
    encoder.finish()
}

/// Peak signal-to-noise ratio in decibels.
pub(crate) fn psnr(ours: &[u8], theirs: &[u8]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let squares: f64 = ours.iter().zip(theirs).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    20.0 * 255_f64.log10() - 10.0 * (squares / ours.len() as f64).log10()
}

/// The same of what a video keeps: the brightness of each pixel, and the colour of each square of four. In pictures as small
/// as a few blocks, colours change within such squares however soft the scene is.
pub(crate) fn psnr_kept(ours: &[u8], theirs: &[u8], width: u32) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let components = |rgb: &[u8]| {
        let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(f64::from);
        let y = 0.2126 * r + 0.7152 * g + 0.0722 * b;
        [y, (b - y) / 1.8556, (r - y) / 1.5748]
    };
    let row = 3 * width as usize;
    let mut squares = 0.0;
    for (ours, theirs) in ours.chunks_exact(2 * row).zip(theirs.chunks_exact(2 * row)) {
        for column in (0..row).step_by(6) {
            let mut colour = [0.0; 2];
            for at in [0, 3, row, row + 3].map(|offset| column + offset) {
                let (ours, theirs) = (components(&ours[at..]), components(&theirs[at..]));
                squares += (ours[0] - theirs[0]).powi(2);
                for kind in 0..2 {
                    colour[kind] += (ours[kind + 1] - theirs[kind + 1]) / 4.0;
                }
            }
            squares += colour[0].powi(2) + colour[1].powi(2);
        }
    }
    // One and a half numbers for each pixel.
    20.0 * 255_f64.log10() - 10.0 * (squares / (ours.len() as f64 / 2.0)).log10()
}

/// What is in a folder, hidden files too.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
