//! What configurations say of rotary positions.

use std::f64::consts::PI;

use serde_json::Value;
use wushi_formats::checkpoint::Recipe;

use super::Importer;
use crate::config::ModelError;

/// Longer than any head.
const MAX_DIM: usize = 1 << 16;

/// Base of the frequencies unless the configuration says otherwise.
const BASE: f32 = 10_000.0;

impl Importer {
    /// Frequencies and how they are scaled, for heads of `head_dim` elements.
    pub(crate) fn rope(&mut self, head_dim: usize) -> Result<(), ModelError> {
        let dim = self.rotary_dim(head_dim)?;
        self.set_count("rope.dimension_count", dim);
        let base =
            self.rope_value("rope_theta").map(|value| self.to_number("rope_theta", value)).transpose()?;
        let base = base.unwrap_or(BASE);
        self.set("rope.freq_base", base);
        // Objects within, but none that is known: what they say would silently not happen.
        let nested = self.rope_parameters().and_then(Value::as_object);
        if let Some(value) = nested.and_then(|values| values.values().find(|value| value.is_object())) {
            return Err(self.unsupported(
                "rope_parameters",
                value,
                "one for all layers or `full_attention` is",
            ));
        }
        let kind = self.scaling("rope_type").or_else(|| self.scaling("type")).cloned().unwrap_or(Value::Null);
        match kind.as_str() {
            None | Some("default") => Ok(()),
            Some("linear") => {
                let factor = self.scale("factor")?;
                self.set("rope.scaling.type", "linear");
                self.set("rope.scaling.factor", factor as f32);
                Ok(())
            }
            Some("llama3") => {
                let factors = self.llama3_factors(base, dim)?;
                let length = factors.len();
                self.tensor("rope_freqs.weight", Recipe::computed(factors, &[length]));
                Ok(())
            }
            Some("yarn") => self.yarn(),
            // The first is what the first Phi 3 called it.
            Some("su" | "longrope") => self.longrope(dim),
            Some(_) => Err(self.unsupported(
                "rope_scaling.rope_type",
                &kind,
                "`default`, `linear`, `llama3`, `yarn` and `longrope` are",
            )),
        }
    }

    /// Elements of a head that rotate.
    fn rotary_dim(&self, head_dim: usize) -> Result<usize, ModelError> {
        let Some(value) = self.rope_value("partial_rotary_factor") else { return Ok(head_dim) };
        let dim = value.as_f64().map_or(0.0, |factor| factor * head_dim as f64);
        match dim >= 2.0 && dim <= head_dim as f64 {
            true => Ok(dim as usize),
            false => Err(self.invalid("partial_rotary_factor", value, "it must be above 0, and at most 1")),
        }
    }

    /// Newer configurations have one object for everything about positions, or one for each kind of layer in it: then
    /// that of the layers that see everything.
    fn rope_parameters(&self) -> Option<&Value> {
        let parameters = self.get("rope_parameters")?;
        Some(parameters.get("full_attention").unwrap_or(parameters))
    }

    fn rope_value(&self, key: &str) -> Option<&Value> {
        let inner = self.rope_parameters().and_then(|parameters| parameters.get(key));
        inner.or_else(|| self.get(key)).filter(|value| !value.is_null())
    }

    fn scaling(&self, key: &str) -> Option<&Value> {
        let scaling = self.rope_parameters().or_else(|| self.get("rope_scaling"));
        scaling.and_then(|scaling| scaling.get(key)).filter(|value| !value.is_null())
    }

    /// The base of the frequencies in layers that see a window only, where the configuration says so for each kind of
    /// layer. Scaling of those is refused: no family has it.
    pub(crate) fn local_rope_base(&self) -> Result<Option<f32>, ModelError> {
        let Some(local) = self.get("rope_parameters").and_then(|kinds| kinds.get("sliding_attention")) else {
            return Ok(None);
        };
        match local.get("rope_type").and_then(Value::as_str) {
            None | Some("default") => {}
            Some(_) => {
                return Err(self.unsupported("rope_parameters.sliding_attention", local, "`default` is"));
            }
        }
        local.get("rope_theta").map(|base| self.to_number("rope_theta", base)).transpose()
    }

    /// A positive number of the scaling that must be there.
    fn scale(&self, key: &str) -> Result<f64, ModelError> {
        let reason = "it must be a positive number";
        let value = self.scaling(key).unwrap_or(&Value::Null);
        value.as_f64().filter(|number| *number > 0.0).ok_or_else(|| self.invalid(key, value, reason))
    }

    /// LongRoPE: two vectors of factors, one for sequences of the original length and one for longer ones.
    fn longrope(&mut self, dim: usize) -> Result<(), ModelError> {
        let context = self.count("max_position_embeddings")? as f64;
        let original = match self.scaling("original_max_position_embeddings") {
            Some(_) => self.scale("original_max_position_embeddings")?,
            None => self.count("original_max_position_embeddings")? as f64,
        };
        self.set("rope.scaling.original_context_length", original as u32);
        let stretch = context / original;
        let attention = match self.scaling("attention_factor") {
            Some(_) => self.scale("attention_factor")?,
            None if stretch > 1.0 => (1.0 + stretch.ln() / original.ln()).sqrt(),
            None => 1.0,
        };
        self.set("rope.scaling.attn_factor", attention as f32);
        for (name, there) in [("rope_factors_long", "long_factor"), ("rope_factors_short", "short_factor")] {
            let value = self.scaling(there).unwrap_or(&Value::Null);
            let list = value.as_array().into_iter().flatten();
            let factors: Vec<f32> = list.filter_map(Value::as_f64).map(|factor| factor as f32).collect();
            if factors.len() != dim / 2 || !factors.iter().all(|factor| factor.is_finite() && *factor > 0.0) {
                return Err(self.invalid(
                    there,
                    value,
                    "it must be a positive number for each rotating pair",
                ));
            }
            self.tensor(format!("{name}.weight"), Recipe::computed(factors, &[dim / 2]));
        }
        Ok(())
    }

    fn yarn(&mut self) -> Result<(), ModelError> {
        self.set("rope.scaling.type", "yarn");
        let factor = self.scale("factor")?;
        self.set("rope.scaling.factor", factor as f32);
        let trained = self.scale("original_max_position_embeddings")?;
        self.set("rope.scaling.original_context_length", trained as u32);
        for unread in ["mscale", "mscale_all_dim", "truncate"] {
            if let Some(value) = self.scaling(unread) {
                return Err(self.unsupported(unread, value, "YaRN without it is"));
            }
        }
        for (key, there) in [
            ("ext_factor", "extrapolation_factor"),
            ("attn_factor", "attn_factor"),
            ("attn_factor", "attention_factor"),
            ("beta_fast", "beta_fast"),
            ("beta_slow", "beta_slow"),
        ] {
            if self.scaling(there).is_some() {
                let number = self.scale(there)?;
                self.set(&format!("rope.scaling.yarn_{key}"), number as f32);
            }
        }
        Ok(())
    }

    /// By what Llama 3 divides each frequency: 1 for short waves, `factor` for long ones, in between a blend
    /// (`_compute_llama3_parameters` of `transformers`).
    fn llama3_factors(&self, base: f32, dim: usize) -> Result<Vec<f32>, ModelError> {
        if !dim.is_multiple_of(2) || dim > MAX_DIM {
            return Err(self.invalid("head_dim", &dim.into(), "it must be even, and the length of a head"));
        }
        let (factor, trained) = (self.scale("factor")?, self.scale("original_max_position_embeddings")?);
        let (low, high) = (self.scale("low_freq_factor")?, self.scale("high_freq_factor")?);
        let factors = (0..dim / 2).map(|pair| {
            let wave = 2.0 * PI * libm::pow(f64::from(base), (2 * pair) as f64 / dim as f64);
            if wave < trained / high {
                1.0
            } else if wave > trained / low {
                factor as f32
            } else {
                let blend = (trained / wave - low) / (high - low);
                (1.0 / ((1.0 - blend) / factor + blend)) as f32
            }
        });
        let factors: Vec<f32> = factors.collect();
        match factors.iter().all(|factor| factor.is_finite() && *factor > 0.0) {
            true => Ok(factors),
            false => Err(self.invalid("rope_scaling", &Value::Null, "its numbers do not fit together")),
        }
    }
}
