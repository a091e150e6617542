//! What is to be written: format, size, frames a second.

use crate::MediaError;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// What a video is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// H.264 in MP4, which browsers play. Sizes are even.
    Mp4,
    /// Animated PNG: exactly the frames.
    Apng,
    /// GIF with 256 colours for each frame, repeated for ever.
    Gif,
    /// A folder with `000001.png` and so on: exactly the frames.
    PngDir,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Mp4, Self::Apng, Self::Gif, Self::PngDir];

    /// The name people give it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::Apng => "apng",
            Self::Gif => "gif",
            Self::PngDir => "png-dir",
        }
    }

    /// The format that a file's ending stands for. A name that ends in `/` is a folder's.
    ///
    /// # Errors
    /// [`MediaError::UnknownEnding`].
    pub fn from_path(path: &Path) -> Result<Self, MediaError> {
        if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Ok(Self::PngDir);
        }
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some("mp4" | "m4v") => Ok(Self::Mp4),
            Some("apng" | "png") => Ok(Self::Apng),
            Some("gif") => Ok(Self::Gif),
            _ => Err(MediaError::UnknownEnding { path: path.to_path_buf() }),
        }
    }

    /// What every width and height of this format is a multiple of.
    pub fn multiple(self) -> u32 {
        match self {
            // Colour has half the resolution.
            Self::Mp4 => 2,
            Self::Apng | Self::Gif | Self::PngDir => 1,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = MediaError;

    fn from_str(text: &str) -> Result<Self, MediaError> {
        let found = Self::ALL.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| MediaError::UnknownFormat { given: text.to_string() })
    }
}

/// Frames a second, as a fraction: what television calls 23.976 is 24000/1001.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameRate {
    numerator: u16,
    denominator: u16,
}

impl FrameRate {
    /// `numerator / denominator` frames a second, reduced.
    ///
    /// # Errors
    /// [`MediaError::FrameRate`] outside of 0.1 to 240.
    pub fn new(numerator: u16, denominator: u16) -> Result<Self, MediaError> {
        let wrong = || MediaError::FrameRate { given: format!("{numerator}/{denominator}") };
        if denominator == 0 || !(0.1..=240.0).contains(&(f64::from(numerator) / f64::from(denominator))) {
            return Err(wrong());
        }
        let common = common_divisor(numerator, denominator);
        Ok(Self { numerator: numerator / common, denominator: denominator / common })
    }

    /// The fraction nearest to a number: n·1000/1001 where that is meant (within half a thousandth), otherwise to three
    /// digits behind the point, above 65 to two.
    ///
    /// # Errors
    /// [`MediaError::FrameRate`] outside of 0.1 to 240.
    pub fn nearest(rate: f64) -> Result<Self, MediaError> {
        if !(0.1..=240.0).contains(&rate) {
            return Err(MediaError::FrameRate { given: rate.to_string() });
        }
        let whole = rate.ceil();
        let television = whole * 1000.0 / 1001.0;
        if whole <= 65.0 && rate < whole && (rate - television).abs() < 5e-4 {
            return Self::new(whole as u16 * 1000, 1001);
        }
        let denominator = if rate > 65.0 { 100 } else { 1000 };
        Self::new((rate * f64::from(denominator)).round() as u16, denominator)
    }

    /// The upper part of the fraction.
    pub fn numerator(self) -> u16 {
        self.numerator
    }

    /// The lower part of the fraction.
    pub fn denominator(self) -> u16 {
        self.denominator
    }

    /// Frames a second.
    pub fn get(self) -> f64 {
        f64::from(self.numerator) / f64::from(self.denominator)
    }

    /// How many seconds these frames last.
    pub fn seconds(self, frames: u64) -> f64 {
        frames as f64 * f64::from(self.denominator) / f64::from(self.numerator)
    }
}

impl fmt::Display for FrameRate {
    /// As a number where three digits say it all, otherwise as the fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if u32::from(self.numerator) * 1000 % u32::from(self.denominator) == 0 {
            write!(f, "{}", self.get())
        } else {
            write!(f, "{}/{}", self.numerator, self.denominator)
        }
    }
}

impl FromStr for FrameRate {
    type Err = MediaError;

    /// `16`, `23.976` or `24000/1001`.
    fn from_str(text: &str) -> Result<Self, MediaError> {
        let wrong = || MediaError::FrameRate { given: format!("`{text}`") };
        match text.split_once('/') {
            Some((upper, lower)) => match (upper.parse(), lower.parse()) {
                (Ok(upper), Ok(lower)) => Self::new(upper, lower),
                _ => Err(wrong()),
            },
            None => Self::nearest(text.parse().map_err(|_| wrong())?),
        }
    }
}

fn common_divisor(mut a: u16, mut b: u16) -> u16 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// What every frame has in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Columns of a frame.
    pub width: u32,
    /// Rows of a frame.
    pub height: u32,
    /// Frames a second.
    pub rate: FrameRate,
}

impl Settings {
    /// Whether a video like this can be written, so that nobody computes one that cannot.
    ///
    /// # Errors
    /// [`MediaError::Size`], [`MediaError::TooFast`].
    pub fn check(&self, format: Format) -> Result<(), MediaError> {
        let (width, height) = (self.width, self.height);
        let wrong = |why| Err(MediaError::Size { width, height, format: format.name(), why });
        if width == 0 || height == 0 {
            return wrong("width and height must be at least 1");
        }
        match format {
            Format::Mp4 => {
                if width % 2 != 0 || height % 2 != 0 {
                    return wrong("width and height must be even");
                }
                if width < 16 || height < 16 {
                    return wrong("width and height must be at least 16");
                }
                if width.max(height) > 3840 || width.min(height) > 2160 {
                    return wrong("at most 3840x2160 or 2160x3840 can be encoded");
                }
            }
            Format::Gif => {
                if width.max(height) > u32::from(u16::MAX) {
                    return wrong("width and height must be at most 65535");
                }
                // Browsers show a frame of 10 ms for 100 ms.
                if self.rate.get() > 50.0 {
                    return Err(MediaError::TooFast { rate: self.rate.get() });
                }
            }
            Format::Apng | Format::PngDir => {}
        }
        // One frame in memory, and PNG's own limit on sizes.
        if u64::from(width) * u64::from(height) > 1 << 28 {
            return wrong("a frame has at most 268,435,456 pixels");
        }
        Ok(())
    }

    /// Bytes of a frame.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.width as usize * self.height as usize * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_name_formats() {
        let of = |name: &str| Format::from_path(Path::new(name)).ok();
        assert_eq!(of("a.mp4"), Some(Format::Mp4));
        assert_eq!(of("a.MP4"), Some(Format::Mp4));
        assert_eq!(of("b/a.apng"), Some(Format::Apng));
        assert_eq!(of("a.png"), Some(Format::Apng));
        assert_eq!(of("a.gif"), Some(Format::Gif));
        assert_eq!(of("frames/"), Some(Format::PngDir));
        for unknown in ["a", "a.webm", "mp4", ".mp4", ""] {
            let error = Format::from_path(Path::new(unknown)).expect_err(unknown).to_string();
            assert!(error.contains(".mp4, .apng, .png or .gif"), "{error}");
        }
    }

    #[test]
    fn names_and_formats_are_one_to_one() {
        for format in Format::ALL {
            assert_eq!(format.name().parse::<Format>().expect("a name"), format);
        }
        let error = "webm".parse::<Format>().expect_err("no format").to_string();
        assert_eq!(error, "`webm` is no format; there are mp4, apng, gif and png-dir");
    }

    #[test]
    fn rates_are_fractions() {
        let of = |text: &str| {
            let rate: FrameRate = text.parse().expect(text);
            (rate.numerator(), rate.denominator(), rate.to_string())
        };
        assert_eq!(of("16"), (16, 1, "16".into()));
        assert_eq!(of("24.0"), (24, 1, "24".into()));
        assert_eq!(of("12.5"), (25, 2, "12.5".into()));
        assert_eq!(of("23.976"), (24000, 1001, "24000/1001".into()));
        assert_eq!(of("29.97"), (30000, 1001, "30000/1001".into()));
        assert_eq!(of("59.94"), (60000, 1001, "60000/1001".into()));
        assert_eq!(of("48/3"), (16, 1, "16".into()));
        assert_eq!(of("0.1"), (1, 10, "0.1".into()));
        assert_eq!(of("240"), (240, 1, "240".into()));
        assert_eq!(of("23.9"), (239, 10, "23.9".into()));
        for wrong in ["", "x", "0", "-3", "NaN", "inf", "241", "1/0", "0/1", "70000/1", "0.05"] {
            let error = wrong.parse::<FrameRate>().expect_err(wrong).to_string();
            assert!(error.contains("from 0.1 to 240"), "{error}");
        }
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let rate = FrameRate::new(16, 1).expect("a rate");
        let check = |format, width, height| Settings { width, height, rate }.check(format);
        let refused = |format, width, height| check(format, width, height).expect_err("refused").to_string();
        assert_eq!(
            refused(Format::Mp4, 33, 48),
            "33x48 cannot be written as mp4: width and height must be even"
        );
        assert_eq!(
            refused(Format::Mp4, 32, 47),
            "32x47 cannot be written as mp4: width and height must be even"
        );
        assert!(refused(Format::Mp4, 3842, 16).contains("3840x2160"));
        assert!(refused(Format::Gif, 65536, 1).contains("65535"));
        assert!(refused(Format::Apng, 0, 1).contains("at least 1"));
        assert!(refused(Format::PngDir, u32::MAX, u32::MAX).contains("pixels"));
        for format in Format::ALL {
            check(format, 832, 480).expect("allowed");
        }
        let fast = Settings { width: 8, height: 8, rate: FrameRate::new(60, 1).expect("a rate") };
        assert!(
            fast.check(Format::Gif).expect_err("refused").to_string().contains("50 frames a second, not 60")
        );
    }
}
