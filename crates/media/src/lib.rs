//! Frames to videos, animations and pictures in a terminal.
//!
//! [`Encoder`] takes frames one by one and writes each as it comes: [`Format::Mp4`] (H.264, `h264.rs` and `mp4.rs`),
//! [`Format::Apng`] and [`Format::PngDir`] (lossless), [`Format::Gif`]. What it writes appears under its name when it is
//! finished and not before (`output.rs`). [`preview`] draws a frame with characters.
//!
//! A frame is RGB with 8 bits a channel: `height * width * 3` bytes, rows from top to bottom.

mod apng;
mod encoder;
mod error;
mod gif;
mod h264;
mod mp4;
mod output;
mod png_dir;
mod preview;
mod settings;
mod yuv;

pub use encoder::{Encoder, Summary};
pub use error::MediaError;
pub use preview::preview;
pub use settings::{Format, FrameRate, Settings};
