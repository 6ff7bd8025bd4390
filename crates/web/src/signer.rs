//! Signs short texts that browsers keep for the dashboard: which browser has signed in before, who has given the right
//! password but no code yet, and the notice of the last action. The key is a secret of the store. Who reads the database file can sign such texts too, which
//! saves them no password.

use aws_lc_rs::hmac;
use config::failure::Failure;
use data_encoding::BASE64URL_NOPAD;
use operations::store_failure;
use store::Store;

/// Signs cookies and forms with HMAC-SHA-256.
pub struct Signer(hmac::Key);

impl Signer {
    pub fn new(secret: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
    }

    /// Reads the key from the store, which creates it at the first call.
    ///
    /// # Errors
    ///
    /// If the store or the random number generator fails.
    pub async fn of(store: &Store) -> Result<Self, Failure> {
        let token = crate::auth::random_token()?;
        let secret =
            store.secret("dashboard signatures", &token).await.map_err(|error| store_failure(&error))?;
        Ok(Self::new(&secret))
    }

    /// The signature of the parts, for this purpose only.
    pub fn sign(&self, purpose: &str, parts: &[&str]) -> String {
        BASE64URL_NOPAD.encode(hmac::sign(&self.0, &message(purpose, parts)).as_ref())
    }

    /// True if this is the signature of the parts for the purpose.
    pub fn is_signed(&self, purpose: &str, parts: &[&str], signature: &str) -> bool {
        BASE64URL_NOPAD
            .decode(signature.as_bytes())
            .is_ok_and(|signature| hmac::verify(&self.0, &message(purpose, parts), &signature).is_ok())
    }
}

/// The parts, each with its length, so that no other parts give the same message.
fn message(purpose: &str, parts: &[&str]) -> Vec<u8> {
    let mut message = Vec::new();
    for part in [purpose].iter().chain(parts) {
        message.extend_from_slice(format!("{}:", part.len()).as_bytes());
        message.extend_from_slice(part.as_bytes());
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_purpose_parts_and_key_only() {
        let signer = Signer::new("one");
        let signature = signer.sign("browser", &["ab", "c"]);
        assert!(signer.is_signed("browser", &["ab", "c"], &signature));
        for (purpose, parts) in [("code", ["ab", "c"]), ("browser", ["a", "bc"]), ("browser", ["ab", "d"])] {
            assert!(!signer.is_signed(purpose, &parts, &signature), "{purpose} {parts:?}");
        }
        assert!(!Signer::new("two").is_signed("browser", &["ab", "c"], &signature));
        for wrong in ["", "=", "é", &signature[1..]] {
            assert!(!signer.is_signed("browser", &["ab", "c"], wrong));
        }
    }
}
