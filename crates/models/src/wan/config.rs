//! A part's `config.json`. Shapes of tensors say most of what it says; where both do, they must agree.

use serde_json::Value;
use wushi_formats::pipeline::Object;

use crate::config::ModelError;
use crate::huggingface::shown;

/// The configuration of one part, if it has one. A key that is `null` is not there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings<'a> {
    object: Option<&'a Object>,
}

/// More than any size of a model.
const MAX: u64 = 1 << 32;

impl<'a> Settings<'a> {
    pub(crate) fn new(object: Option<&'a Object>) -> Settings<'a> {
        Settings { object }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.object?.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn count(&self, key: &str) -> Result<Option<usize>, ModelError> {
        self.get(key).map(|value| self.whole(key, value)).transpose()
    }

    fn whole(&self, key: &str, value: &Value) -> Result<usize, ModelError> {
        let count = value.as_u64().filter(|&count| count <= MAX);
        count.map(|count| count as usize).ok_or_else(|| invalid(key, value, "it must be a whole number"))
    }

    pub(crate) fn counts(&self, key: &str) -> Result<Option<Vec<usize>>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list =
            value.as_array().ok_or_else(|| invalid(key, value, "it must be a list of whole numbers"))?;
        list.iter().map(|value| self.whole(key, value)).collect::<Result<_, _>>().map(Some)
    }

    pub(crate) fn truths(&self, key: &str) -> Result<Option<Vec<bool>>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().and_then(|list| list.iter().map(Value::as_bool).collect());
        list.map(Some).ok_or_else(|| invalid(key, value, "it must be a list of true and false"))
    }

    /// A positive, finite number.
    pub(crate) fn number(&self, key: &str) -> Result<Option<f32>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().map(|number| number as f32).filter(|n| *n > 0.0 && n.is_finite());
        number.map(Some).ok_or_else(|| invalid(key, value, "it must be a positive number"))
    }

    /// A list of so many finite numbers.
    pub(crate) fn numbers(&self, key: &str, length: usize) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = |value: &Value| value.as_f64().map(|n| n as f32).filter(|n| n.is_finite());
        let list = value.as_array().and_then(|list| list.iter().map(number).collect::<Option<Vec<f32>>>());
        let list = list.filter(|list| list.len() == length);
        list.map(Some)
            .ok_or_else(|| invalid(key, value, "it must have a number for every channel of the latent"))
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| invalid(key, value, "it must be a text"))
    }

    fn truth(&self, key: &str) -> Result<Option<bool>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| invalid(key, value, "it must be true or false"))
    }

    /// Refuses another value than this one.
    pub(crate) fn only(&self, key: &str, allowed: &str, hint: &'static str) -> Result<(), ModelError> {
        match self.text(key)? {
            Some(found) if found != allowed => Err(self.unsupported(key, found, hint)),
            _ => Ok(()),
        }
    }

    /// Refuses other values than these.
    pub(crate) fn one_of(&self, key: &str, allowed: &[&str], hint: &'static str) -> Result<(), ModelError> {
        match self.text(key)? {
            Some(found) if !allowed.contains(&found) => Err(self.unsupported(key, found, hint)),
            _ => Ok(()),
        }
    }

    /// Refuses `true`.
    pub(crate) fn never(&self, key: &str) -> Result<(), ModelError> {
        match self.truth(key)? {
            Some(true) => Err(self.unsupported(key, true, "`false` is")),
            _ => Ok(()),
        }
    }

    /// Refuses any value.
    pub(crate) fn only_null(&self, key: &str) -> Result<(), ModelError> {
        match self.get(key) {
            None => Ok(()),
            Some(found) => Err(self.unsupported(key, found, "models without it are supported")),
        }
    }

    /// Refuses a configuration that says something else under one of these keys than the tensors do.
    pub(crate) fn agree(&self, keys: &[&str], found: usize) -> Result<(), ModelError> {
        for key in keys {
            if let Some(told) = self.count(key)? {
                self.agree_value(key, told, found)?;
            }
        }
        Ok(())
    }

    pub(crate) fn agree_value(&self, key: &str, told: usize, found: usize) -> Result<(), ModelError> {
        match told == found {
            true => Ok(()),
            false => Err(self.contradiction(key, told.to_string(), found.to_string())),
        }
    }

    pub(crate) fn agree_on(&self, key: &str, found: bool) -> Result<(), ModelError> {
        match self.truth(key)? {
            Some(told) if told != found => Err(self.contradiction(key, told.to_string(), found.to_string())),
            _ => Ok(()),
        }
    }

    pub(crate) fn contradiction(&self, key: &str, told: String, found: String) -> ModelError {
        ModelError::Contradiction { key: key.to_owned(), told, found }
    }

    pub(crate) fn unsupported(&self, key: &str, value: impl ToString, hint: &'static str) -> ModelError {
        ModelError::Unsupported { key: key.to_owned(), value: shown(&value.to_string()), hint }
    }
}

pub(crate) fn invalid(key: &str, value: impl ToString, reason: &'static str) -> ModelError {
    ModelError::Invalid { key: key.to_owned(), value: shown(&value.to_string()), reason }
}
