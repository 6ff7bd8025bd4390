//! The signatures of webhook requests by the convention of Standard Webhooks 1.0 (standardwebhooks.com): an HMAC over id,
//! time and body, by which a receiver knows that a request comes from us and is not a replay of an old one. The program's
//! roles make the requests; libraries for receivers exist in most languages.

use aws_lc_rs::hmac;
use data_encoding::BASE64;

/// The prefix of a secret's text.
const PREFIX: &str = "whsec_";
/// The length of a secret in bytes, as the convention demands.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The secret that a sender of webhooks shares with a receiver.
pub struct WebhookSecret(hmac::Key);

/// Why the text of a secret is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not `whsec_` and 24 to 64 bytes in base64")]
pub struct InvalidSecret;

impl WebhookSecret {
    /// Parses a secret: `whsec_` and 24 to 64 bytes in base64. Surrounding white space is ignored.
    ///
    /// # Errors
    ///
    /// [`InvalidSecret`] if the text has another form.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(InvalidSecret)?;
        let bytes = BASE64.decode(encoded.as_bytes()).map_err(|_| InvalidSecret)?;
        if !SECRET_BYTES.contains(&bytes.len()) {
            return Err(InvalidSecret);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The value of the header `webhook-signature`. `id` is that of `webhook-id` and has no dot; `second` is that of
    /// `webhook-timestamp`.
    pub fn sign(&self, id: &str, second: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{second}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64.encode(context.sign().as_ref()))
    }
}

impl std::fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calculated with the hmac module of Python.
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let sign = |id, second| secret.sign(id, second, br#"{"test": 2432232314}"#);
        let known = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330), known);
        assert_ne!(sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_331), known);
        assert_ne!(sign("msg_p5jXN8AQM9LWM0D4loKWxJeK", 1_614_265_330), known);
        assert_eq!(format!("{secret:?}"), "WebhookSecret");
    }

    #[test]
    fn a_secret_has_its_prefix_and_24_to_64_bytes() {
        let secret = |bytes: usize| format!("whsec_{}", BASE64.encode(&vec![7; bytes]));
        for bytes in [24, 32, 64] {
            assert!(WebhookSecret::parse(&secret(bytes)).is_ok(), "{bytes}");
        }
        for text in
            [secret(23), secret(65), secret(0), "whsec_?".into(), BASE64.encode(&[7; 32]), String::new()]
        {
            assert_eq!(WebhookSecret::parse(&text).err(), Some(InvalidSecret), "{text}");
        }
    }
}
