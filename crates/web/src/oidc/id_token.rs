//! Verifies ID tokens (OpenID Connect Core 1.0 §3.1.3.7): the signature by a key of the provider, for whom and by whom the
//! token was issued, for which sign-in, and until when.

use jiff::Timestamp;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use serde_json::{Map, Value};

/// The claims of a verified token.
pub type Claims = Map<String, Value>;

/// What a token has to say.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'e> {
    pub issuer: &'e str,
    pub client_id: &'e str,
    pub nonce: &'e str,
    pub now: Timestamp,
}

/// Why a token is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    #[error("it is not a signed token: {0}")]
    Syntax(String),
    #[error("its algorithm is {0:?}; only signatures by public keys are accepted")]
    Algorithm(Algorithm),
    #[error("none of the provider's keys fits it")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("its claim {0} is missing, or not what this sign-in expects")]
    Claim(&'static str),
    #[error("it has expired, or the clocks of provider and dashboard differ")]
    Expired,
}

/// The algorithms that are accepted. Those with a shared secret are not: the key that verifies would also sign.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// How far the provider's clock may be ahead or behind, in seconds.
const CLOCK_TOLERANCE: i64 = 120;

/// Returns the claims of a valid token.
///
/// # Errors
///
/// If the token is not valid; [`TokenFault::UnknownKey`] may mean that the provider has newer keys.
pub fn verify(token: &str, keys: &JwkSet, expected: Expected<'_>) -> Result<Claims, TokenFault> {
    let header = decode_header(token).map_err(|error| TokenFault::Syntax(error.to_string()))?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(TokenFault::Algorithm(header.alg));
    }
    let claims = claims_signed_by(token, &header, keys)?;
    check(&claims, expected)?;
    Ok(claims)
}

/// The claims, if one of the keys has signed them.
fn claims_signed_by(token: &str, header: &Header, keys: &JwkSet) -> Result<Claims, TokenFault> {
    let mut validation = Validation::new(header.alg);
    // The claims are checked by `check`, with the program's own clock.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let mut outcome = Err(TokenFault::UnknownKey);
    for key in keys.keys.iter().filter(|key| may_sign(key, header)) {
        let Ok(key) = DecodingKey::from_jwk(key) else { continue };
        if key.family() != header.alg.family() {
            continue;
        }
        match decode::<Claims>(token, &key, &validation) {
            Ok(data) => return Ok(data.claims),
            Err(_) => outcome = Err(TokenFault::Signature),
        }
    }
    outcome
}

/// True for a key that can have signed a token with this header.
fn may_sign(key: &Jwk, header: &Header) -> bool {
    let is_named = match (&header.kid, &key.common.key_id) {
        (Some(wanted), Some(known)) => wanted == known,
        (Some(_), None) | (None, _) => true,
    };
    is_named && key.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
}

fn check(claims: &Claims, expected: Expected<'_>) -> Result<(), TokenFault> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let right = |name: &'static str, is_right: bool| is_right.then_some(()).ok_or(TokenFault::Claim(name));
    right("iss", text("iss") == Some(expected.issuer))?;
    right("sub", text("sub").is_some_and(|subject| (1..=255).contains(&subject.len())))?;
    let audiences: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    right("aud", audiences.contains(&expected.client_id))?;
    // A token for several parties says to whom it was issued.
    let party = text("azp");
    right("azp", party.map_or(audiences.len() == 1, |party| party == expected.client_id))?;
    right("nonce", text("nonce") == Some(expected.nonce))?;
    let seconds = |name: &str| claims.get(name).and_then(Value::as_f64).filter(|seconds| seconds.is_finite());
    let now = expected.now.as_second();
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
    let (earliest, latest) = ((now - CLOCK_TOLERANCE) as f64, (now + CLOCK_TOLERANCE) as f64);
    match (seconds("exp"), seconds("nbf")) {
        (Some(end), begin) if end > earliest && begin.is_none_or(|begin| begin < latest) => Ok(()),
        _ => Err(TokenFault::Expired),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{EcKey, token};
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn expected() -> Expected<'static> {
        Expected { issuer: "https://id.example", client_id: "sternpost", nonce: "n1", now: now() }
    }

    fn good() -> Value {
        json!({"iss": "https://id.example", "sub": "42", "aud": "sternpost", "nonce": "n1", "exp": 1_800_000_300, "iat": 1_800_000_000})
    }

    #[test]
    fn a_token_counts_only_for_this_issuer_client_sign_in_and_time() {
        let key = EcKey::new("k1");
        let keys = JwkSet { keys: vec![key.public()] };
        let verified = |claims: &Value| verify(&token(&key, claims), &keys, expected());
        assert_eq!(verified(&good()).unwrap()["sub"], "42");
        let with = |name: &str, value: Value| {
            let mut claims = good();
            claims[name] = value;
            verified(&claims)
        };
        for (name, value) in [
            ("iss", json!("https://id.example/")),
            ("iss", json!(null)),
            ("sub", json!("")),
            ("sub", json!(42)),
            ("aud", json!("other")),
            ("aud", json!([])),
            ("azp", json!("other")),
            ("nonce", json!("n2")),
            ("nonce", json!(null)),
        ] {
            assert_eq!(with(name, value.clone()), Err(TokenFault::Claim(name)), "{name} {value}");
        }
        assert_eq!(with("aud", json!(["sternpost", "other"])), Err(TokenFault::Claim("azp")));
        for (name, value) in [
            ("exp", json!(1_799_999_000)),
            ("exp", json!("1800000300")),
            ("exp", json!(null)),
            ("nbf", json!(1_800_009_000)),
        ] {
            assert_eq!(with(name, value.clone()), Err(TokenFault::Expired), "{name} {value}");
        }
        with("aud", json!(["sternpost"])).unwrap();
        with("exp", json!(1_800_000_300.5)).unwrap();
    }

    #[test]
    fn a_token_counts_only_with_the_signature_of_a_key_of_the_provider() {
        let (key, other) = (EcKey::new("k1"), EcKey::new("k2"));
        let signed = token(&key, &good());
        let verified = |token: &str, keys: Vec<Jwk>| verify(token, &JwkSet { keys }, expected());
        verified(&signed, vec![other.public(), key.public()]).unwrap();
        assert_eq!(verified(&signed, vec![other.public()]), Err(TokenFault::UnknownKey));
        assert_eq!(verified(&signed, vec![]), Err(TokenFault::UnknownKey));
        // The right name for the wrong key.
        let mut renamed = other.public();
        renamed.common.key_id = Some("k1".to_owned());
        assert_eq!(verified(&signed, vec![renamed]), Err(TokenFault::Signature));
        // A key for encryption.
        let mut for_encryption = key.public();
        for_encryption.common.public_key_use = Some(PublicKeyUse::Encryption);
        assert_eq!(verified(&signed, vec![for_encryption]), Err(TokenFault::UnknownKey));
        // A provider with one key need not name it.
        let mut unnamed = key.public();
        unnamed.common.key_id = None;
        verified(&signed, vec![unnamed]).unwrap();
    }

    #[test]
    fn neither_no_signature_nor_one_by_a_shared_secret_is_accepted() {
        use data_encoding::BASE64URL_NOPAD;
        let key = EcKey::new("k1");
        let keys = JwkSet { keys: vec![key.public()] };
        let claims = BASE64URL_NOPAD.encode(good().to_string().as_bytes());
        let none = format!("{}.{claims}.", BASE64URL_NOPAD.encode(br#"{"alg":"none","kid":"k1"}"#));
        assert!(matches!(verify(&none, &keys, expected()), Err(TokenFault::Syntax(_))));
        // The public key as the secret of an HMAC, as in CVE-2015-9235.
        let secret = serde_json::to_vec(&key.public()).unwrap();
        let secret = jsonwebtoken::EncodingKey::from_secret(&secret).unwrap();
        let header = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::HS256) };
        let forged = jsonwebtoken::encode(&header, &good(), &secret).unwrap();
        assert_eq!(verify(&forged, &keys, expected()), Err(TokenFault::Algorithm(Algorithm::HS256)));
    }

    proptest! {
        #[test]
        fn nothing_that_was_not_signed_is_accepted(text in "[A-Za-z0-9_.-]{0,200}", at in 0usize..400, to in "[A-Za-z0-9_.-]") {
            let key = EcKey::new("k1");
            let keys = JwkSet { keys: vec![key.public()] };
            prop_assert!(verify(&text, &keys, expected()).is_err());
            let mut changed = token(&key, &good());
            let at = at % changed.len();
            let before = changed.clone();
            changed.replace_range(at..=at, &to);
            // The last character of base64 may have bits that mean nothing.
            let is_same = changed == before || at + 1 == changed.len();
            prop_assert!(is_same || verify(&changed, &keys, expected()).is_err(), "{changed}");
        }
    }
}
