//! Random identifiers: names that must differ on every machine and that nobody can guess, such as the one in the IDs of this
//! installation's reports.

use aws_lc_rs::rand;
use data_encoding::{BASE32_NOPAD, HEXLOWER};

/// The system provides no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system provides no random bytes")]
pub struct NoRandomBytes;

/// Returns 80 random bits as 16 lower-case letters and digits, which fit into file names and message IDs.
///
/// # Errors
/// If the system provides no random bytes.
pub fn random_id() -> Result<String, NoRandomBytes> {
    let mut bytes = [0; 10];
    rand::fill(&mut bytes).map_err(|_| NoRandomBytes)?;
    Ok(BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
}

/// Returns 128 random bits as 32 hexadecimal digits.
///
/// # Errors
/// If the system provides no random bytes.
pub fn random_hex() -> Result<String, NoRandomBytes> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| NoRandomBytes)?;
    Ok(HEXLOWER.encode(&bytes))
}

/// A source of random numbers.
pub trait Randomness: Send + Sync {
    /// A number from 0 (inclusive) to 1 (exclusive), all equally likely.
    fn fraction(&self) -> f64;
}

/// The random numbers of the system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandomness;

impl Randomness for SystemRandomness {
    /// One half if the system provides no random bytes.
    fn fraction(&self) -> f64 {
        let mut bytes = [0; 4];
        match rand::fill(&mut bytes) {
            Ok(()) => f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
            Err(_) => 0.5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_spread_over_the_range() {
        let all: Vec<f64> = (0..1000).map(|_| SystemRandomness.fraction()).collect();
        assert!(all.iter().all(|one| (0.0..1.0).contains(one)));
        assert!((0..4).all(|part| all.iter().any(|one| (*one * 4.0) as u32 == part)));
    }

    #[test]
    fn words_differ_and_consist_of_letters_and_digits() {
        let [one, other] = [random_id().unwrap(), random_id().unwrap()];
        assert_ne!(one, other);
        assert!(
            one.len() == 16 && one.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        );
    }
}
