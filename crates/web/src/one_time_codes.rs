//! Time-based one-time passwords as a second factor (RFC 6238: SHA-1, 30 seconds, 6 digits, as all authenticator apps
//! have them), and recovery codes for users who lose their device.

use crate::auth::digest;
use config::failure::Failure;
use data_encoding::BASE32_NOPAD;
use jiff::Timestamp;
use store::Tenant;
use totp_rs::{Builder, Secret};

/// The length of a secret in bytes, as RFC 4226 §4 recommends.
const SECRET_BYTES: usize = 20;
/// The number of recovery codes.
pub const RECOVERY_CODES: usize = 10;
/// The random bytes of a recovery code: 80 bits, since a digest of fewer could be guessed.
const RECOVERY_BYTES: usize = 10;
/// The maximum length of what a user types as a code.
const MAX_TYPED_CHARS: usize = 40;

/// A new secret, in base32.
///
/// # Errors
///
/// If the system can't provide random bytes.
pub fn new_secret() -> Result<String, Failure> {
    let mut bytes = [0_u8; SECRET_BYTES];
    crate::auth::fill_random(&mut bytes)?;
    Ok(BASE32_NOPAD.encode(&bytes))
}

/// The time step whose code was typed: the current one, or the one before or after it. `None` if the code is wrong.
pub fn time_step(secret: &str, typed: &str, now: Timestamp) -> Option<i64> {
    let bytes = BASE32_NOPAD.decode(secret.as_bytes()).ok()?;
    let bytes = <[u8; SECRET_BYTES]>::try_from(bytes).ok()?;
    let totp = Builder::new().with_secret(Secret::new_stack(bytes)).build().ok()?;
    let code = normalized(typed);
    let is_code = code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = u64::try_from(now.as_second()).ok().filter(|_| is_code)?;
    totp.check(&code, seconds).and_then(|step| i64::try_from(step).ok())
}

/// The URI that authenticator apps read, also from a QR code.
pub fn uri(host: &str, name: &str, secret: &str) -> String {
    let encoded = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
                other => format!("%{other:02X}"),
            })
            .collect()
    };
    let issuer = encoded(&format!("Sternpost {host}"));
    format!("otpauth://totp/{issuer}:{}?secret={secret}&issuer={issuer}", encoded(name))
}

/// New recovery codes, in groups of four characters.
///
/// # Errors
///
/// If the system can't provide random bytes.
pub fn new_recovery_codes() -> Result<Vec<String>, Failure> {
    let code = |_| {
        let mut bytes = [0_u8; RECOVERY_BYTES];
        crate::auth::fill_random(&mut bytes)?;
        Ok(grouped(&BASE32_NOPAD.encode(&bytes), "-"))
    };
    (0..RECOVERY_CODES).map(code).collect()
}

/// A text in groups of four characters.
pub fn grouped(text: &str, between: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join(between)
}

/// True for a text of the form of a recovery code, as users type it.
pub fn is_recovery_code(typed: &str) -> bool {
    let bytes = BASE32_NOPAD.decode(normalized(typed).as_bytes());
    bytes.is_ok_and(|bytes| bytes.len() == RECOVERY_BYTES)
}

/// The digest of a recovery code, as it is stored and as it was typed.
pub fn recovery_digest(tenant: Tenant, name: &str, typed: &str) -> String {
    digest(&format!("recovery {tenant} {name} {}", normalized(typed)))
}

/// Without spaces and hyphens, in upper case.
fn normalized(typed: &str) -> String {
    let all = typed.chars().take(MAX_TYPED_CHARS).filter(|c| !c.is_whitespace() && *c != '-');
    all.map(|c| c.to_ascii_uppercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The secret of RFC 6238, appendix B.
    const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn codes_are_those_of_rfc_6238_in_the_step_and_the_two_beside_it() {
        for (second, code) in [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")] {
            assert_eq!(time_step(SECRET, code, at(second)), Some(second / 30), "{second}");
        }
        assert_eq!(time_step(SECRET, " 287 082 ", at(29)), Some(1));
        assert_eq!(time_step(SECRET, "287082", at(89)), Some(1));
        for (typed, second) in [
            ("287082", 90),
            ("287083", 59),
            ("", 59),
            ("0287082", 59),
            ("28708", 59),
            ("+87082", 59),
            ("٢٨٧٠٨٢", 59),
        ] {
            assert_eq!(time_step(SECRET, typed, at(second)), None, "{typed} {second}");
        }
        assert_eq!(time_step("no secret", "287082", at(59)), None);
        assert_eq!(time_step(SECRET, "287082", at(-59)), None);
    }

    #[test]
    fn a_new_secret_has_160_bits_and_its_uri_is_escaped() {
        let (one, two) = (new_secret().unwrap(), new_secret().unwrap());
        assert!(one != two && BASE32_NOPAD.decode(one.as_bytes()).unwrap().len() == 20);
        let uri = uri("tools.example.org:8443", "zoë&x", "ABCD");
        let issuer = "Sternpost%20tools.example.org%3A8443";
        assert_eq!(uri, format!("otpauth://totp/{issuer}:zo%C3%AB%26x?secret=ABCD&issuer={issuer}"));
    }

    #[test]
    fn a_recovery_code_is_read_as_people_type_it_and_belongs_to_one_user() {
        let codes = new_recovery_codes().unwrap();
        assert_eq!(codes.len(), RECOVERY_CODES);
        assert!(
            codes
                .iter()
                .all(|code| code.len() == 19 && codes.iter().filter(|other| *other == code).count() == 1)
        );
        assert!(is_recovery_code(&codes[0]) && is_recovery_code(&codes[0].to_lowercase().replace('-', " ")));
        for other in ["", "287082", "no code", &codes[0][1..], &format!("{}A", codes[0])] {
            assert!(!is_recovery_code(other), "{other}");
        }
        let digest = |name: &str, typed: &str| recovery_digest(Tenant::FIRST, name, typed);
        let stored = digest("ann", &codes[0]);
        assert_eq!(digest("ann", &codes[0].to_lowercase().replace('-', " ")), stored);
        assert!(digest("bob", &codes[0]) != stored && digest("ann", &codes[1]) != stored);
    }
}
