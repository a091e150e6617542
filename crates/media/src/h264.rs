//! Frames to H.264, by OpenH264.
//!
//! Quality is constant: one quantiser for every block, whatever the size of the picture. The encoder runs on one thread, so
//! equal frames give equal bytes.

use crate::Settings;
use crate::yuv::Planes;
use openh264::OpenH264API;
use openh264::encoder::{
    BitRate, Complexity, Encoder, EncoderConfig, FrameRate, FrameType, IntraFramePeriod, QpRange,
    RateControlMode, UsageType, VuiConfig,
};

/// The quantiser, of 0 to 51: three steps finer than what OpenH264 takes for good quality, since videos of models are short.
const QUANTISER: u8 = 20;
/// Seconds after which a player can begin anew.
const SEEKABLE: f64 = 2.0;

/// What a decoder must know before the first frame, without start codes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) sequence: Vec<u8>,
    pub(crate) picture: Vec<u8>,
}

/// A compressed frame as MP4 wants it: units behind their lengths, of four bytes each.
pub(crate) struct Sample<'a> {
    pub(crate) bytes: &'a [u8],
    /// Whether a player can begin here.
    pub(crate) key: bool,
}

pub(crate) struct H264 {
    encoder: Encoder,
    planes: Planes,
    parameters: Parameters,
    sample: Vec<u8>,
}

impl H264 {
    pub(crate) fn new(settings: &Settings) -> Result<Self, String> {
        let rate = settings.rate.get();
        let config = EncoderConfig::new()
            .num_threads(1)
            // The only control of the rate that neither drops frames nor complains of being kept from it. Its bounds leave
            // it no choice, and the rate decides no more than which level the stream is said to have.
            .rate_control_mode(RateControlMode::Bufferbased)
            .bitrate(BitRate::from_bps(10_000_000))
            .qp(QpRange::new(QUANTISER, QUANTISER))
            .skip_frames(false)
            .adaptive_quantization(false)
            .background_detection(false)
            // It would make scenes after a cut coarser.
            .scene_change_detect(false)
            .usage_type(UsageType::CameraVideoRealTime)
            .complexity(Complexity::High)
            // What the encoder takes; players are told the rate by MP4.
            .max_frame_rate(FrameRate::from_hz(rate.clamp(1.0, 60.0) as f32))
            .intra_frame_period(IntraFramePeriod::from_num_frames((rate * SEEKABLE).ceil() as u32))
            .vui(VuiConfig::bt709());
        let encoder = Encoder::with_api_config(OpenH264API::from_source(), config).map_err(text)?;
        let planes = Planes::new(settings.width as usize, settings.height as usize);
        Ok(Self { encoder, planes, parameters: Parameters::default(), sample: Vec::new() })
    }

    /// Encodes a frame.
    pub(crate) fn encode(&mut self, rgb: &[u8]) -> Result<Sample<'_>, String> {
        self.planes.fill(rgb);
        let stream = self.encoder.encode(&self.planes).map_err(text)?;
        let key = match stream.frame_type() {
            FrameType::IDR => true,
            FrameType::I | FrameType::P => false,
            other => return Err(format!("the encoder gave a frame of the kind {other:?}")),
        };
        self.sample.clear();
        for layer in (0..stream.num_layers()).filter_map(|at| stream.layer(at)) {
            for unit in (0..layer.nal_count()).filter_map(|at| layer.nal_unit(at)) {
                sort_unit(without_start_code(unit)?, &mut self.parameters, &mut self.sample)?;
            }
        }
        if self.sample.is_empty() {
            return Err("the encoder gave an empty frame".into());
        }
        Ok(Sample { bytes: &self.sample, key })
    }

    /// What a decoder must know; empty before the first frame.
    pub(crate) fn parameters(&self) -> &Parameters {
        &self.parameters
    }
}

/// The text of an error, without the encoder's own numbers.
fn text(error: openh264::Error) -> String {
    error.to_string().replace('\n', " ")
}

fn without_start_code(unit: &[u8]) -> Result<&[u8], String> {
    let stripped = unit.strip_prefix(&[0, 0, 0, 1]).or_else(|| unit.strip_prefix(&[0, 0, 1]));
    stripped
        .filter(|unit| !unit.is_empty())
        .ok_or_else(|| "the encoder gave a unit without a start code".into())
}

/// Puts a unit where it belongs: parameters are said once, ahead of all frames, and everything else is part of its frame.
fn sort_unit(unit: &[u8], parameters: &mut Parameters, sample: &mut Vec<u8>) -> Result<(), String> {
    // Table 7-1 of the standard: 7 is a sequence's parameter set, 8 a picture's.
    let known = match unit[0] & 31 {
        7 => &mut parameters.sequence,
        8 => &mut parameters.picture,
        _ => {
            let length = u32::try_from(unit.len()).map_err(|_| "a frame has more than 4 GiB".to_string())?;
            sample.extend_from_slice(&length.to_be_bytes());
            sample.extend_from_slice(unit);
            return Ok(());
        }
    };
    // Repeated with each frame that a player can begin at.
    if known.is_empty() {
        known.extend_from_slice(unit);
    } else if known != unit {
        return Err("the encoder changed its parameters midway".into());
    }
    Ok(())
}
