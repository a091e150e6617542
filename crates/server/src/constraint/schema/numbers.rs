//! What schemas say about numbers.

use serde_json::{Map, Number, Value};

use super::{At, excerpt};
use crate::constraint::ConstraintError;

/// Whole numbers up to here are exact in double precision, in which bounds are compared.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The most remainders that are kept apart.
const MAX_STEP: f64 = 10_000.0;

/// Keywords about numbers. Whether this is one.
pub(super) fn keyword(
    key: &str,
    value: &Value,
    at: &At,
    out: &mut Map<String, Value>,
) -> Result<bool, ConstraintError> {
    match key {
        // Before 2019, exclusive bounds are flags of the others.
        "exclusiveMinimum" | "exclusiveMaximum" if value.is_boolean() => {}
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" => match value {
            Value::Number(number) => exact(number, at)?,
            _ => return at.refuse(format!("a number is expected, not {}", excerpt(value))),
        },
        _ => return Ok(false),
    }
    // A bound that a format gave is the narrower of both.
    if let Some(before) = out.get(key).and_then(Value::as_f64)
        && let Some(now) = value.as_f64()
        && (if key == "minimum" { before > now } else { before < now })
    {
        return Ok(true);
    }
    out.insert(key.to_owned(), value.clone());
    Ok(true)
}

/// Refuses a number that is not exact where it is compared.
pub(super) fn exact(number: &Number, at: &At) -> Result<(), ConstraintError> {
    match number.as_f64() {
        Some(value) if value.abs() < EXACT => Ok(()),
        _ => at.refuse(format!("the number {number} is too large to be kept exactly; less than 2^53 is")),
    }
}

/// Formats of numbers, as OpenAPI has them; gives their bounds. Whether this is one.
pub(super) fn format(name: &str, map: &Map<String, Value>, out: &mut Map<String, Value>) -> bool {
    let is_numeric = |name: &str| name == "integer" || name == "number";
    if !map.get("type").and_then(Value::as_str).is_some_and(is_numeric) {
        return false;
    }
    let (least, most) = match name {
        "int32" => (f64::from(i32::MIN), f64::from(i32::MAX)),
        "uint32" => (0.0, f64::from(u32::MAX)),
        // Not all of them, but none that are not.
        "int64" => (-EXACT, EXACT),
        "uint64" => (0.0, EXACT),
        // Every number in JSON is read as one.
        "float" | "double" => return true,
        _ => return false,
    };
    let said = |key: &str| map.get(key).and_then(Value::as_f64);
    if said("minimum").is_none_or(|said| said < least) {
        out.insert("minimum".to_owned(), Value::from(least as i64));
    }
    if said("maximum").is_none_or(|said| said > most) {
        out.insert("maximum".to_owned(), Value::from(most as i64));
    }
    true
}

/// Bounds against each other. `composed` means that other schemas speak about the same number.
pub(super) fn check(out: &Map<String, Value>, at: &At, composed: bool) -> Result<(), ConstraintError> {
    let number = |key: &str| out.get(key).and_then(Value::as_f64);
    let least = [number("minimum"), number("exclusiveMinimum")].into_iter().flatten().reduce(f64::max);
    let most = [number("maximum"), number("exclusiveMaximum")].into_iter().flatten().reduce(f64::min);
    if let (Some(least), Some(most)) = (least, most)
        && least > most
    {
        return at.refuse(format!("no number is at least {least} and at most {most}"));
    }
    let Some(step) = number("multipleOf") else { return Ok(()) };
    if step <= 0.0 {
        return at.refuse(format!("multipleOf is {step}; it must be more than 0"));
    }
    let digits = format!("{step:e}");
    let digits = digits.split('e').next().unwrap_or_default().replace('.', "");
    let whole = if step.fract() == 0.0 { step } else { digits.parse().unwrap_or(f64::INFINITY) };
    if whole > MAX_STEP {
        return at
            .refuse(format!("multipleOf {step} cannot be honoured: each remainder is a state of its own"));
    }
    // Whether a number is left is only seen where everything that is said about it stands together.
    if composed || out.contains_key("const") || out.contains_key("enum") {
        return at.refuse("multipleOf cannot be honoured beside const, enum, references or combined schemas");
    }
    if out.get("type").is_some_and(|name| name == "integer") && step.fract() != 0.0 {
        return at.refuse(format!("multipleOf {step} cannot be honoured for integers"));
    }
    if let (Some(least), Some(most)) = (least, most) {
        let first = (least / step).ceil() * step;
        let first =
            if number("exclusiveMinimum").is_some_and(|bound| first <= bound) { first + step } else { first };
        let is_past = first > most || number("exclusiveMaximum").is_some_and(|bound| first >= bound);
        if is_past {
            return at.refuse(format!("no multiple of {step} is between {least} and {most}"));
        }
    }
    Ok(())
}
