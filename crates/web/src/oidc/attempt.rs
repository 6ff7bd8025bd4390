//! A sign-in that this browser has begun: the random values that tie the provider's response and token to it. The browser
//! holds them in a signed cookie until the provider sends it back.

use crate::auth::random_token;
use crate::signer::Signer;
use config::failure::Failure;
use data_encoding::BASE64URL_NOPAD;
use jiff::{SignedDuration, Timestamp};
use net::clock::later;
use sha2::{Digest, Sha256};

/// The name of the cookie, after the prefix of the dashboard's cookies.
pub const COOKIE_NAME: &str = "sternpost-oidc";
/// How long a user may take at the provider.
pub const LIFETIME: SignedDuration = SignedDuration::from_mins(15);
/// The purpose that the signature is bound to.
const PURPOSE: &str = "oidc";

/// The random values of a sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Comes back in the provider's response.
    pub state: String,
    /// Comes back in the ID token.
    pub nonce: String,
    /// Shows the token endpoint that the code was requested here (RFC 7636).
    pub verifier: String,
    end: Timestamp,
}

impl Attempt {
    /// A new sign-in.
    ///
    /// # Errors
    ///
    /// If the system provides no random bytes.
    pub fn new(now: Timestamp) -> Result<Self, Failure> {
        Ok(Self {
            state: random_token()?,
            nonce: random_token()?,
            verifier: random_token()?,
            end: later(now, LIFETIME),
        })
    }

    /// The challenge of the verifier, by the method S256.
    pub fn challenge(&self) -> String {
        BASE64URL_NOPAD.encode(&Sha256::digest(&self.verifier))
    }

    /// The cookie's value.
    pub fn sign(&self, signer: &Signer) -> String {
        let end = self.end.as_second().to_string();
        let parts = [end.as_str(), &self.state, &self.nonce, &self.verifier];
        format!("{}.{}", parts.join("."), signer.sign(PURPOSE, &parts))
    }

    /// The sign-in of a cookie; `None` if it is not this program's, has ended, or has another state.
    pub fn read(cookie: &str, signer: &Signer, now: Timestamp, state: &str) -> Option<Self> {
        let parts: Vec<&str> = cookie.split('.').collect();
        let [end, own, nonce, verifier, signature] = parts.as_slice() else { return None };
        let until = Timestamp::from_second(end.parse().ok()?).ok()?;
        let is_own = *own == state && signer.is_signed(PURPOSE, &[end, own, nonce, verifier], signature);
        (is_own && now < until).then(|| Self {
            state: (*own).to_owned(),
            nonce: (*nonce).to_owned(),
            verifier: (*verifier).to_owned(),
            end: until,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_counts_only_unchanged_with_its_state_and_in_time() {
        let (signer, now) = (Signer::new("key"), Timestamp::from_second(1_800_000_000).unwrap());
        let attempt = Attempt::new(now).unwrap();
        let cookie = attempt.sign(&signer);
        let read = |cookie: &str, now, state: &str| Attempt::read(cookie, &signer, now, state);
        assert_eq!(read(&cookie, now, &attempt.state), Some(attempt.clone()));
        assert_eq!(read(&cookie, now, "other"), None);
        assert_eq!(read(&cookie, now, ""), None);
        assert_eq!(read(&cookie, later(now, LIFETIME), &attempt.state), None);
        assert_eq!(read(&cookie.replace(&attempt.nonce, "n"), now, &attempt.state), None);
        assert_eq!(read("", now, ""), None);
        assert_eq!(Attempt::read(&cookie, &Signer::new("other"), now, &attempt.state), None);
    }

    #[test]
    fn the_challenge_is_that_of_rfc_7636_appendix_b() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned();
        let attempt =
            Attempt { state: String::new(), nonce: String::new(), verifier, end: Timestamp::UNIX_EPOCH };
        assert_eq!(attempt.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
