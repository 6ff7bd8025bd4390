//! `sternpost reports key`: creates the DKIM keys that `[reporter]` names and that do not exist, and prints the DNS
//! records to publish (RFC 8460 §3; RPT-16).

use crate::serve::reporting::key;
use crate::terminal::{say, show};
use config::failure::{Exit, Failure};
use config::{Chosen, Config, KeySpec};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;

/// Creates missing keys and prints the record of each key.
pub fn run(chosen: Chosen<'_>) -> Result<Exit, Failure> {
    let config = Config::load_for(chosen)?;
    let role = super::reporter(&config)?;
    if role.keys.is_empty() {
        return Err(Failure::usage(
            "no DKIM key is configured",
            "[reporter] has no key dkim",
            "Add to sternpost.toml\n  [reporter]\n  dkim = { selector = \"tlsrpt\", key_file = \"dkim.pem\" }",
        ));
    }
    for spec in &role.keys {
        if !spec.key_file.exists() {
            create(spec)?;
            say(&format!("Created the key {} (RSA, 2048 bits).", spec.key_file.display()));
        }
        let Some((name, value)) = key(spec, role)?.record() else {
            return Err(Failure::usage(
                format!("the DKIM key {}", spec.key_file.display()),
                "its public key can't be derived",
                "",
            ));
        };
        show(&format!("Publish:\n{name}.  TXT  {}\n", strings(&value)));
    }
    Ok(Exit::Fine)
}

fn create(spec: &KeySpec) -> Result<(), Failure> {
    let shown = spec.key_file.display();
    let fail = |why: &dyn std::fmt::Display| {
        Failure::usage(
            format!("the DKIM key {shown} can't be created"),
            why,
            "Its folder must exist and be writable for you.",
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
    // The service runs as another user than root.
    config::machine::give_to_service(&file, &spec.key_file).map_err(|error| fail(&error))?;
    file.write_all(pair.serialize_pem().as_bytes()).map_err(|error| fail(&error))
}

/// Formats a TXT value for a zone file: quoted strings of at most 250 bytes (RFC 1035 §3.3.14 allows 255).
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
