//! Values as people write them. Every function says what it expected of a text that it cannot take.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;

use wushi_cpu::InstructionSet;
use wushi_engine::load::DEFAULT_MAX_ROWS;
use wushi_engine::video::{Rounding, SamplerKind, Spacing};
use wushi_graph::{CacheType, DType};
use wushi_media::Format;
use wushi_models::Stretch;

/// A number for which `fits` holds, else `expected` with an article.
fn number<T: FromStr>(text: &str, fits: impl Fn(&T) -> bool, expected: impl Display) -> Result<T, String> {
    text.trim().parse().ok().filter(fits).ok_or_else(|| format!("expected {expected}"))
}

pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    number(text, |&n| n >= 1, "a whole number, at least 1")
}

/// Tokens of a step: no step is larger than what a model is loaded for.
pub(crate) fn step_rows(text: &str) -> Result<usize, String> {
    number(
        text,
        |n| (1..=DEFAULT_MAX_ROWS).contains(n),
        format!("a whole number from 1 to {DEFAULT_MAX_ROWS}"),
    )
}

/// More threads than any machine has processors would only cost memory.
pub(crate) fn threads(text: &str) -> Result<usize, String> {
    number(text, |n| (1..=1024).contains(n), "a whole number from 1 to 1024")
}

/// Requests of a key within a minute.
pub(crate) fn requests(text: &str) -> Result<u32, String> {
    number(text, |&n| n >= 1, format!("a whole number from 1 to {}", u32::MAX))
}

/// Tokens of a key within a day.
pub(crate) fn tokens(text: &str) -> Result<u64, String> {
    let most = i64::MAX as u64;
    number(text, |n| (1..=most).contains(n), format!("a whole number from 1 to {most}"))
}

pub(crate) fn count(text: &str) -> Result<usize, String> {
    number(text, |_| true, "a whole number, at least 0")
}

pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    number(text, |&n| n <= 86_400, "a whole number of seconds, at most 86400")
}

pub(crate) fn port(text: &str) -> Result<u16, String> {
    number(text, |_| true, "a port, 0 to 65535")
}

pub(crate) fn address(text: &str) -> Result<IpAddr, String> {
    match text.trim() {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        text => number(text, |_| true, "an address of this machine, as in 127.0.0.1, 0.0.0.0 or ::1"),
    }
}

pub(crate) fn seed(text: &str) -> Result<u64, String> {
    number(text, |_| true, format!("a whole number from 0 to {}", u64::MAX))
}

pub(crate) fn temperature(text: &str) -> Result<f32, String> {
    number(text, |&t: &f32| t.is_finite() && t >= 0.0, "a number, at least 0")
}

pub(crate) fn top_p(text: &str) -> Result<f32, String> {
    number(text, |&p| p > 0.0 && p <= 1.0, "a number above 0 and at most 1")
}

pub(crate) fn min_p(text: &str) -> Result<f32, String> {
    number(text, |p| (0.0..=1.0).contains(p), "a number from 0 to 1")
}

pub(crate) fn repetition_penalty(text: &str) -> Result<f32, String> {
    number(text, |&r| r > 0.0 && r <= 100.0, "a number above 0 and at most 100")
}

pub(crate) fn penalty(text: &str) -> Result<f32, String> {
    number(text, |a| (-2.0..=2.0).contains(a), "a number from -2 to 2")
}

/// `ID=BIAS`.
pub(crate) fn bias(text: &str) -> Result<(u32, f32), String> {
    let expected = "a token id, =, and a number from -100 to 100 or -inf, as in 42=-5";
    let (id, bias) = text.split_once('=').ok_or_else(|| format!("expected {expected}"))?;
    let fits = |b: &f32| (-100.0..=100.0).contains(b) || *b == f32::NEG_INFINITY;
    Ok((number(id, |_| true, expected)?, number(bias, fits, expected)?))
}

/// A number of bytes: `1500000`, `900M`, `2.5G`, `2GiB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let expected = || "expected a number of bytes, as in 900M (10^6), 2.5G (10^9) or 2GiB (2^30)".to_owned();
    let text = text.trim();
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1u64,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(expected()),
    };
    let bytes = number.trim().parse::<f64>().map_err(|_| expected())? * unit as f64;
    if (1.0..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err(expected()) }
}

pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

pub(crate) fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

pub(crate) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("expected a path".to_owned()) } else { Ok(PathBuf::from(text)) }
}

pub(crate) fn cache_type(text: &str) -> Result<CacheType, String> {
    let named = |cache: &CacheType| cache.name() == text.trim().to_ascii_lowercase();
    CacheType::ALL.into_iter().find(named).ok_or_else(|| "expected f16, f32 or q8_0".to_owned())
}

/// The types that a denoiser rounds keys and values to.
pub(crate) fn denoiser_cache(text: &str) -> Result<CacheType, String> {
    let fits = |cache: &CacheType| *cache != CacheType::Q8_0;
    cache_type(text).ok().filter(fits).ok_or_else(|| "expected f32 or f16".to_owned())
}

/// The types of a VAE's convolutions.
pub(crate) fn vae_type(text: &str) -> Result<DType, String> {
    let fits = |dtype: &DType| matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
    DType::named(text.trim()).filter(fits).ok_or_else(|| "expected f32, f16 or bf16".to_owned())
}

/// Width and height: `832x480`.
pub(crate) fn video_size(text: &str) -> Result<(usize, usize), String> {
    let expected = "width and height in pixels, as in 832x480";
    let (width, height) = text.split_once(['x', 'X', '×']).ok_or_else(|| format!("expected {expected}"))?;
    let side = |text| number(text, |&n: &usize| n >= 1, expected);
    Ok((side(width)?, side(height)?))
}

/// Frames a second.
pub(crate) fn frame_rate(text: &str) -> Result<u32, String> {
    number(text, |n| (1..=240).contains(n), "a whole number from 1 to 240")
}

/// A number whose range the model's settings know.
pub(crate) fn guidance(text: &str) -> Result<f32, String> {
    number(text, |&g: &f32| g.is_finite() && g >= 1.0, "a number, at least 1 (which is no guidance)")
}

pub(crate) fn share(text: &str) -> Result<f32, String> {
    number(text, |share: &f32| (0.0..=1.0).contains(share), "a share, 0 to 1")
}

pub(crate) fn flow_shift(text: &str) -> Result<f32, String> {
    number(text, |&s: &f32| s.is_finite() && s > 0.0, "a number above 0")
}

pub(crate) fn sampler(text: &str) -> Result<SamplerKind, String> {
    text.trim().to_ascii_lowercase().parse().map_err(|_| "expected unipc or euler".to_owned())
}

/// How noise levels lie.
pub(crate) fn spacing(text: &str) -> Result<Spacing, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "training" => Ok(Spacing::Training),
        "whole" => Ok(Spacing::Whole),
        "twice-shifted" => Ok(Spacing::TwiceShifted),
        _ => Err("expected training, whole or twice-shifted".to_owned()),
    }
}

/// Whether timesteps are whole numbers.
pub(crate) fn rounding(text: &str) -> Result<Rounding, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "floor" => Ok(Rounding::Floor),
        "exact" => Ok(Rounding::Exact),
        _ => Err("expected floor or exact".to_owned()),
    }
}

pub(crate) fn video_format(text: &str) -> Result<Format, String> {
    text.trim().to_ascii_lowercase().parse().map_err(|_| "expected mp4, apng, gif or png-dir".to_owned())
}

/// How a model is stretched beyond the context it was trained for.
pub(crate) fn stretch(text: &str) -> Result<Stretch, String> {
    let named = |stretch: &Stretch| stretch.to_string() == text.trim().to_ascii_lowercase();
    [Stretch::Yarn, Stretch::Linear]
        .into_iter()
        .find(named)
        .ok_or_else(|| "expected yarn or linear".to_owned())
}

/// A storage type of weights.
pub(crate) fn storage_type(text: &str) -> Result<DType, String> {
    let names =
        || DType::ALL.iter().map(|dtype| dtype.name().to_ascii_lowercase()).collect::<Vec<_>>().join(", ");
    DType::named(text.trim()).ok_or_else(|| format!("expected one of {}", names()))
}

/// An instruction set that this machine has.
pub(crate) fn instruction_set(text: &str) -> Result<InstructionSet, String> {
    text.trim().to_ascii_lowercase().parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("1500"), Ok(1500));
        assert_eq!(size("2.5G"), Ok(2_500_000_000));
        assert_eq!(size(" 2 GiB "), Ok(2 << 30));
        assert_eq!(size("900mb"), Ok(900_000_000));
        for bad in ["", "G", "-1G", "1X", "nan", "infG", "1e30", "0"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_stay_in_their_ranges() {
        assert!(at_least_one("0").is_err() && count("0") == Ok(0) && count("-1").is_err());
        assert!(seed("18446744073709551615").is_ok() && seed("18446744073709551616").is_err());
        assert!(temperature("inf").is_err() && temperature("nan").is_err() && temperature("-0.1").is_err());
        assert!(top_p("0").is_err() && min_p("0") == Ok(0.0) && penalty("-2") == Ok(-2.0));
        assert_eq!(bias("42=-5"), Ok((42, -5.0)));
        assert_eq!(bias("42=-inf"), Ok((42, f32::NEG_INFINITY)));
        assert!(bias("42=inf").is_err() && bias("=1").is_err() && bias("42").is_err());
    }

    #[test]
    fn names() {
        assert_eq!(cache_type("F16"), Ok(CacheType::F16));
        assert_eq!(cache_type("q8_0"), Ok(CacheType::Q8_0));
        assert!(cache_type("q8").is_err());
        assert_eq!(storage_type("q4_k"), Ok(DType::Q4_K));
        assert!(storage_type("q4_k_m").unwrap_err().contains("q4_k, q5_k"));
        assert!(instruction_set("portable").is_ok());
        assert!(instruction_set("sse9").unwrap_err().contains("portable"));
        assert_eq!((denoiser_cache("f16"), vae_type("BF16")), (Ok(CacheType::F16), Ok(DType::BF16)));
        assert!(denoiser_cache("q8_0").is_err() && vae_type("q8_0").is_err());
        assert_eq!((sampler("UniPC"), video_format("png-dir")), (Ok(SamplerKind::UniPc), Ok(Format::PngDir)));
        assert!(sampler("ddim").is_err() && video_format("webm").is_err() && spacing("").is_err());
    }

    #[test]
    fn videos() {
        assert_eq!(video_size("832x480"), Ok((832, 480)));
        assert_eq!(video_size(" 16 X 32 "), Ok((16, 32)));
        for bad in ["", "x", "832", "832x", "0x480", "832x480x3", "-1x2"] {
            assert!(video_size(bad).unwrap_err().contains("832x480"), "{bad}");
        }
        assert!(frame_rate("0").is_err() && frame_rate("241").is_err() && frame_rate("16") == Ok(16));
        assert!(guidance("0.5").is_err() && guidance("inf").is_err() && flow_shift("0").is_err());
    }
}
