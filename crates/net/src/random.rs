//! Random words: names that must differ on every machine and that nobody can guess, such as the word in the IDs of this
//! installation's reports.

use aws_lc_rs::rand;
use data_encoding::BASE32_NOPAD;

/// The system provides no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system provides no random bytes")]
pub struct NoRandomBytes;

/// Returns 80 random bits as 16 lower-case letters and digits, which fit into file names and message IDs.
///
/// # Errors
/// If the system provides no random bytes.
pub fn word() -> Result<String, NoRandomBytes> {
    let mut bytes = [0; 10];
    rand::fill(&mut bytes).map_err(|_| NoRandomBytes)?;
    Ok(BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_differ_and_consist_of_letters_and_digits() {
        let [one, other] = [word().unwrap(), word().unwrap()];
        assert_ne!(one, other);
        assert!(
            one.len() == 16 && one.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        );
    }
}
