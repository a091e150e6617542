//! Names of responses, and seeds: random numbers from the operating system.

use crate::error::ApiError;

/// A name nobody else has: a prefix, such as `chatcmpl-` or `resp_`, and 128 random bits in hexadecimal.
pub(crate) fn response_id(prefix: &str) -> Result<String, ApiError> {
    Ok(format!("{prefix}{:032x}", u128::from_le_bytes(random()?)))
}

/// A seed of 32 bits: to be typed again, and to survive any JSON reader.
pub(crate) fn seed() -> Result<u64, ApiError> {
    Ok(u32::from_le_bytes(random()?).into())
}

fn random<const N: usize>() -> Result<[u8; N], ApiError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| ApiError::internal(format!("the system gives no random numbers: {error}")))?;
    Ok(bytes)
}

/// A name for a call of a tool: 16 letters and digits after `call_`.
pub(crate) fn call_id() -> Result<String, ApiError> {
    const SIGNS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let bytes: [u8; 16] = random()?;
    let signs = bytes.iter().map(|byte| char::from(SIGNS[usize::from(byte % 32)]));
    Ok(format!("call_{}", signs.collect::<String>()))
}
