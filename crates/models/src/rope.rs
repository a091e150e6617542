//! Rotary positions as files configure them, for the context a model is loaded with.

use wushi_graph::{Builder, GraphError, Rope, RopePairs, RopeScaling, Value};

use crate::config::{Keys, ModelError};

/// What is done where a model that says nothing of it shall run longer sequences than it was trained for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// Positions are divided (Chen et al., 2023).
    Linear,
    /// Low frequencies are divided, high ones kept (Peng et al., 2023).
    Yarn,
}

impl std::fmt::Display for Stretch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stretch::Linear => "linear",
            Stretch::Yarn => "yarn",
        })
    }
}

/// How long sequences will be. Some models choose rope's frequencies by it, once and for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    /// The longest sequence, in tokens.
    pub context: usize,
    /// What to do beyond what the model was trained for; it changes nothing within.
    pub stretch: Option<Stretch>,
}

/// Keys of rope's configuration, without the architecture's name in front.
pub(crate) const KEYS: &[&str] = &[
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.finetuned",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
];

/// One kind of rotary position embedding of a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotary {
    rope: Rope,
    /// The vector that divides its frequencies.
    factors: Option<&'static str>,
}

impl Rotary {
    /// Whole heads, nothing scaled.
    pub(crate) fn plain(head_dim: usize, base: f32, pairs: RopePairs) -> Self {
        Rotary { rope: Rope::plain(head_dim, base, pairs), factors: None }
    }

    /// As the file says, for a family that rotates whole heads. `base` is the frequency base if it says none.
    pub(crate) fn read(
        keys: &Keys<'_>,
        head_dim: usize,
        base: f32,
        pairs: RopePairs,
        positions: &Positions,
    ) -> Result<Self, ModelError> {
        let rotary = Self::read_partial(keys, head_dim, base, pairs, positions)?;
        match rotary.rope.rotary_dim {
            whole if whole == head_dim => Ok(rotary),
            part => Err(keys.invalid("rope.dimension_count", part, "this family rotates whole heads")),
        }
    }

    /// The same for a family of whose heads a part may rotate.
    pub(crate) fn read_partial(
        keys: &Keys<'_>,
        head_dim: usize,
        base: f32,
        pairs: RopePairs,
        positions: &Positions,
    ) -> Result<Self, ModelError> {
        let rotary_dim = keys.count_or("rope.dimension_count", head_dim)?;
        if rotary_dim > head_dim {
            let reason = "no more than a head's elements can be rotated";
            return Err(keys.invalid("rope.dimension_count", rotary_dim, reason));
        }
        let (scaling, magnitude) = scaling(keys, positions)?;
        let rope = Rope {
            head_dim,
            rotary_dim,
            base: keys.number_or("rope.freq_base", base)?,
            scaling,
            magnitude,
            pairs,
        };
        Ok(Rotary { rope, factors: factors(keys, positions)? })
    }

    /// Rotates the heads of a value.
    pub(crate) fn apply(&self, b: &Builder, x: Value) -> Result<Value, GraphError> {
        match self.factors {
            Some(name) => b.rope_with_factors(x, self.rope, name),
            None => b.rope(x, self.rope),
        }
    }
}

/// The longest sequence the model was trained for, or that its own scaling makes of it.
pub(crate) fn trained_context(keys: &Keys<'_>) -> Result<usize, ModelError> {
    let trained = keys.count("context_length")?;
    match keys.text("rope.scaling.type")? {
        Some("yarn") => {
            let original = keys.count_or("rope.scaling.original_context_length", trained)?;
            Ok(trained.max((original as f64 * f64::from(keys.number("rope.scaling.factor")?)) as usize))
        }
        _ => Ok(trained),
    }
}

/// How frequencies are scaled, and what cosines and sines are multiplied by.
fn scaling(keys: &Keys<'_>, positions: &Positions) -> Result<(RopeScaling, f32), ModelError> {
    let magnitude = keys.number_or("rope.scaling.attn_factor", 1.0)?;
    let kind = keys.text("rope.scaling.type")?;
    // A factor without a type divides positions, and 0 stands for none.
    let linear = match keys.optional_factor("rope.scaling.factor")? {
        Some(factor) => factor,
        None => keys.optional_factor("rope.scale_linear")?.unwrap_or(1.0),
    };
    let factors = ["rope_factors_long.weight", "rope_freqs.weight"].into_iter().any(|name| keys.has(name));
    let own = !matches!(kind, None | Some("none")) || linear != 1.0 || factors;
    if own && positions.stretch.is_some() && positions.context > trained_context(keys)? {
        let hint = "the model scales its positions itself: a longer context cannot be made on top of that";
        return Err(keys.unsupported("context_length", positions.context, hint));
    }
    match kind {
        None if linear != 1.0 => Ok((RopeScaling::Linear(linear), magnitude)),
        None | Some("none") => stretched(keys, positions, magnitude),
        Some("linear") => Ok((RopeScaling::Linear(keys.number("rope.scaling.factor")?), magnitude)),
        Some("yarn") => {
            let factor = keys.number("rope.scaling.factor")?;
            let original = keys.count("rope.scaling.original_context_length")?;
            let mixed = keys.number_or("rope.scaling.yarn_ext_factor", 1.0)?;
            if mixed != 1.0 {
                return Err(keys.unsupported("rope.scaling.yarn_ext_factor", mixed, "1 is"));
            }
            let own = keys.number_or("rope.scaling.yarn_attn_factor", yarn_magnitude(factor))?;
            let scaling = RopeScaling::Yarn {
                factor,
                original_context: original as f32,
                beta_fast: keys.number_or("rope.scaling.yarn_beta_fast", BETA_FAST)?,
                beta_slow: keys.number_or("rope.scaling.yarn_beta_slow", BETA_SLOW)?,
            };
            Ok((scaling, magnitude * own))
        }
        // By factors alone.
        Some("longrope") => Ok((RopeScaling::None, magnitude)),
        Some(other) => Err(keys.unsupported(
            "rope.scaling.type",
            other,
            "supported are none, linear, yarn, longrope and Llama 3's factors",
        )),
    }
}

/// YaRN's own choice of where frequencies are kept and where they are divided.
const BETA_FAST: f32 = 32.0;
const BETA_SLOW: f32 = 1.0;

/// YaRN's correction of attention's temperature, shared out to queries and keys.
fn yarn_magnitude(factor: f32) -> f32 {
    if factor > 1.0 { (0.1 * f64::from(factor).ln() + 1.0) as f32 } else { 1.0 }
}

/// What is done beyond the trained context of a model that says nothing.
fn stretched(
    keys: &Keys<'_>,
    positions: &Positions,
    magnitude: f32,
) -> Result<(RopeScaling, f32), ModelError> {
    let trained = keys.count("context_length")?;
    let factor = positions.context as f32 / trained as f32;
    match positions.stretch {
        Some(Stretch::Linear) if factor > 1.0 => Ok((RopeScaling::Linear(factor), magnitude)),
        Some(Stretch::Yarn) if factor > 1.0 => {
            let original_context = trained as f32;
            let scaling =
                RopeScaling::Yarn { factor, original_context, beta_fast: BETA_FAST, beta_slow: BETA_SLOW };
            Ok((scaling, magnitude * yarn_magnitude(factor)))
        }
        _ => Ok((RopeScaling::None, magnitude)),
    }
}

/// The vector that divides frequencies: Llama 3's, or of LongRoPE's two the one for this context.
fn factors(keys: &Keys<'_>, positions: &Positions) -> Result<Option<&'static str>, ModelError> {
    const LONG: &str = "rope_factors_long";
    if keys.has(&format!("{LONG}.weight")) {
        let original = keys.count("rope.scaling.original_context_length")?;
        return Ok(Some(if positions.context > original { LONG } else { "rope_factors_short" }));
    }
    Ok(keys.has("rope_freqs.weight").then_some("rope_freqs"))
}
