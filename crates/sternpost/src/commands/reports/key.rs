//! Makes DKIM keys that are missing, and prints the records to publish (RFC 8460 §3; RPT-16).

use crate::serve::reporting::key;
use crate::terminal::{say, show};
use config::failure::{Exit, Failure};
use config::{Config, KeySpec};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Makes and prints.
pub fn run(named: Option<&Path>) -> Result<Exit, Failure> {
    let config = Config::load(named)?;
    let role = super::reporter(&config)?;
    if role.keys.is_empty() {
        return Err(Failure::usage(
            "no key is named",
            "[reporter] has no dkim",
            "Write\n  [reporter]\n  dkim = { selector = \"tlsrpt\", key_file = \"dkim.pem\" }",
        ));
    }
    for spec in &role.keys {
        if !spec.key_file.exists() {
            make(spec)?;
            say(&format!("The key {} is made (RSA, 2048 bits).", spec.key_file.display()));
        }
        let Some((name, value)) = key(spec, role)?.record() else {
            return Err(Failure::usage(
                format!("the DKIM key {}", spec.key_file.display()),
                "its public key can't be told",
                "",
            ));
        };
        show(&format!("Publish:\n{name}.  TXT  {}\n", strings(&value)));
    }
    Ok(Exit::Fine)
}

fn make(spec: &KeySpec) -> Result<(), Failure> {
    let shown = spec.key_file.display();
    let fail = |why: &dyn std::fmt::Display| {
        Failure::usage(
            format!("the DKIM key {shown} can't be made"),
            why,
            "Its folder has to be there, and you have to be allowed to write in it.",
        )
    };
    let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
        .map_err(|error| fail(&error))?;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&spec.key_file)
        .map_err(|error| fail(&error))?;
    file.write_all(pair.serialize_pem().as_bytes()).map_err(|error| fail(&error))
}

/// A value as zone files have it: in strings of at most 255 bytes.
fn strings(value: &str) -> String {
    let mut out = String::new();
    for part in value.as_bytes().chunks(250) {
        let lead = if out.is_empty() { "" } else { " " };
        let _ = write!(out, "{lead}\"{}\"", String::from_utf8_lossy(part));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_split_into_strings() {
        assert_eq!(strings("v=DKIM1"), "\"v=DKIM1\"");
        let parts = strings(&"x".repeat(600));
        assert_eq!(parts.matches('"').count(), 6);
        assert_eq!(parts.replace(['"', ' '], ""), "x".repeat(600));
    }
}
