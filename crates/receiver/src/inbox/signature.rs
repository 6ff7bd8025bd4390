//! Verifies the DKIM signatures of a report mail (RFC 8460 §3, RFC 6376). Keys are looked up through [`Dns`], so that
//! resolver, DNSSEC and limits are the same as everywhere else. There are three steps, since only the second waits for
//! others, and the third hashes the whole message: [`key_names`] lists the keys of the signatures that count,
//! [`look_up_keys`] asks DNS for them, and [`verify`] checks the signatures.
//!
//! The header is hostile. Its size, its fields and the names that a signature lists are bounded, since the work grows
//! with their product, and few signatures are looked at.

use super::mime::{Head, fields};
use formats::DomainName;
use formats::report::{Held, ReportMail, UnpackError, UnpackMemory};
use jiff::Timestamp;
use mail_auth::AuthenticatedMessage;
use mail_auth::common::crypto::{Algorithm, HashAlgorithm};
use mail_auth::common::headers::Header;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::{DomainKey, VerifySignature};
use mail_auth::dkim::Signature;
use net::BoxFuture;
use net::dns::{Dns, Kind};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use tokio::time::{Instant, timeout_at};

/// What the signatures of a message say about its submitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignatureState {
    /// A signature of the submitter's organization is valid and covers the whole message (REC-01).
    Verified {
        /// The signing domain (`d=`).
        signer: DomainName,
        /// False when the key's record is not meant for TLS reports (REC-02).
        key_is_for_reports: bool,
        /// False if what says which domain the report is about is not signed: the header `TLS-Report-Domain`, or the
        /// subject if the mail has no such header or the header names the same domain (RFC 8460 §5.3).
        signs_domain: bool,
    },
    /// The submitter's organization has not signed the message.
    Missing,
    /// The organization has signed, but the key can't be looked up at the moment.
    Unknown,
    /// The organization has signed, but the key is not in DNS, as for old mail whose key was retired. RFC 6376 §6.1.2
    /// counts this as a failure, but it says nothing about whether the message was changed.
    KeyAbsent,
    /// The organization has signed, but the signature is invalid.
    Failed,
}

/// Maximum number of keys that are looked up for one message, and of signatures that are verified.
const MAX_SIGNATURES: usize = 8;
/// Signatures of one message that are looked at to find those by the submitter's organization.
const MAX_EXAMINED: usize = 50;
/// A longer signature does not count.
const SIGNATURE_BYTES: usize = 16_384;
/// Header fields that a signature may list (`h=`). Signers list those of the message, some of them twice.
const MAX_SIGNED_FIELDS: usize = 500;
/// A message with a longer header, or with more fields, counts as unsigned.
const HEADER_BYTES: usize = 262_144;
const MAX_FIELDS: usize = 2000;
/// The memory for verifying, as a multiple of the header's size, at most.
const PARSED_FACTOR: usize = 40;

/// The key of one signature.
pub(super) enum Key {
    Found { key: Box<DomainKey>, text: String },
    Absent,
    Unknown,
}

/// The signing domain and the key's DNS name, as a signature states them.
pub(super) type KeyName = (String, String);

/// The keys of a message's signatures.
pub(super) type Keys = BTreeMap<KeyName, Arc<Key>>;

/// Checks the signatures of `message` for one by the submitter's organization, at the time `now`. The keys are looked up
/// until `deadline`.
pub async fn check_signature(
    dns: &dyn Dns,
    message: &[u8],
    submitter: &DomainName,
    now: Timestamp,
    deadline: Instant,
) -> SignatureState {
    let submitters = [submitter.clone()];
    let keys = look_up_keys(dns, key_names(message, &submitters), deadline).await;
    verify(message, &submitters, &keys, now).pop().unwrap_or(SignatureState::Missing)
}

/// The keys of the signatures by any submitter's organization, at most [`MAX_SIGNATURES`].
pub(super) fn key_names(message: &[u8], submitters: &[DomainName]) -> Vec<KeyName> {
    let mut names: Vec<KeyName> = Vec::new();
    if header_bytes(message).is_none() {
        return names;
    }
    let signatures = fields(message).filter(|field| field.is_named("DKIM-Signature")).take(MAX_EXAMINED);
    for field in signatures.filter(|field| field.value.len() <= SIGNATURE_BYTES) {
        let Ok(signature) = Signature::parse(field.value) else { continue };
        let name = (signature.d.clone(), signature.domain_key());
        if !names.contains(&name) && submitters.iter().any(|submitter| is_aligned(&signature.d, submitter)) {
            names.push(name);
        }
        if names.len() == MAX_SIGNATURES {
            break;
        }
    }
    names
}

/// The length of the header; `None` if it exceeds a limit, so that signatures do not count.
fn header_bytes(message: &[u8]) -> Option<usize> {
    let (mut lines, mut length) = (0, 0);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        let is_continued = line.starts_with(b" ") || line.starts_with(b"\t");
        lines += usize::from(!is_continued);
        length += line.len();
        if matches!(line, b"\n" | b"\r\n") || length > HEADER_BYTES || lines > MAX_FIELDS {
            break;
        }
    }
    (length <= HEADER_BYTES && lines <= MAX_FIELDS).then_some(length)
}

/// Reserves the memory for [`verify`].
///
/// # Errors
///
/// [`UnpackError::Busy`] or [`UnpackError::Memory`].
pub(super) fn reserve_for_verifying<'r>(
    message: &[u8],
    memory: &'r dyn UnpackMemory,
) -> Result<Held<'r>, UnpackError> {
    let mut held = Held::new(memory);
    held.grow(header_bytes(message).unwrap_or(0) * PARSED_FACTOR)?;
    Ok(held)
}

/// Looks up keys at the same time. One that is not there at the deadline is unknown; the others count.
pub(super) async fn look_up_keys(dns: &dyn Dns, names: Vec<KeyName>, deadline: Instant) -> Keys {
    let mut waiting: Vec<BoxFuture<'_, (KeyName, Arc<Key>)>> = Vec::new();
    for name in names.into_iter().take(MAX_SIGNATURES) {
        waiting.push(Box::pin(async move {
            let key = timeout_at(deadline, look_up(dns, &name.1)).await.unwrap_or(Key::Unknown);
            (name, Arc::new(key))
        }));
    }
    let mut keys = Keys::new();
    poll_fn(|context| {
        waiting.retain_mut(|one| match one.as_mut().poll(context) {
            Poll::Ready((name, key)) => {
                keys.insert(name, key);
                false
            }
            Poll::Pending => true,
        });
        if waiting.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    keys
}

/// The state of the signatures for each submitter, in order, at the time `now`. Hashes the whole message if a key was
/// found.
pub(super) fn verify(
    message: &[u8],
    submitters: &[DomainName],
    keys: &Keys,
    now: Timestamp,
) -> Vec<SignatureState> {
    if header_bytes(message).is_none() {
        return vec![SignatureState::Missing; submitters.len()];
    }
    let has_key = keys.values().any(|key| matches!(**key, Key::Found { .. }));
    let parsed = if has_key { AuthenticatedMessage::parse(message) } else { None };
    // Each signature is verified once, however many submitters there are.
    let valid = parsed.map(|parsed| valid_keys(message, &parsed, keys, now)).unwrap_or_default();
    submitters.iter().map(|submitter| state_for(submitter, &valid, keys)).collect()
}

/// The keys by which a signature is valid, and whether it covers the headers that say which domain the report is about.
type ValidKeys<'k> = BTreeMap<&'k KeyName, bool>;

fn valid_keys<'k>(
    message: &[u8],
    parsed: &AuthenticatedMessage<'_>,
    keys: &'k Keys,
    now: Timestamp,
) -> ValidKeys<'k> {
    let mut valid = ValidKeys::new();
    let mut left = MAX_SIGNATURES;
    for header in parsed.dkim_headers.iter().take(MAX_EXAMINED) {
        let signature = &header.header;
        let is_bounded = signature.h.len() <= MAX_SIGNED_FIELDS && header.value.len() <= SIGNATURE_BYTES;
        let name = (signature.d.clone(), signature.domain_key());
        let Some((name, key)) = keys.get_key_value(&name).filter(|_| is_bounded && left > 0) else {
            continue;
        };
        let Key::Found { key, text } = &**key else { continue };
        left -= 1;
        if valid.get(name) != Some(&true) && verifies(parsed, header, key, text, now) {
            *valid.entry(name).or_default() |= signs_domain(message, parsed, signature);
        }
    }
    valid
}

fn state_for(submitter: &DomainName, valid: &ValidKeys<'_>, keys: &Keys) -> SignatureState {
    let (mut state, mut verified) = (SignatureState::Missing, None);
    for (name, key) in keys.iter().filter(|((domain, _), _)| is_aligned(domain, submitter)) {
        match (&**key, &state) {
            (Key::Unknown, _) => state = SignatureState::Unknown,
            (Key::Found { .. }, SignatureState::Missing | SignatureState::KeyAbsent) => {
                state = SignatureState::Failed
            }
            (Key::Absent, SignatureState::Missing) => state = SignatureState::KeyAbsent,
            _ => {}
        }
        let (Key::Found { text, .. }, Some(signs_domain)) = (&**key, valid.get(name)) else { continue };
        let Ok(signer) = DomainName::parse(&name.0) else { continue };
        let (key_is_for_reports, signs_domain) = (is_for_reports(text), *signs_domain);
        if signs_domain || verified.is_none() {
            verified = Some(SignatureState::Verified { signer, key_is_for_reports, signs_domain });
        }
        if signs_domain {
            break;
        }
    }
    verified.unwrap_or(state)
}

/// Verifies one signature over the whole message (RFC 6376 §6.1). The library hashes, canonicalizes and checks the
/// signature itself; its own verifier brings a resolver along.
fn verifies(
    message: &AuthenticatedMessage<'_>,
    header: &Header<'_, Signature>,
    key: &DomainKey,
    record: &str,
    now: Timestamp,
) -> bool {
    let signature = &header.header;
    // RFC 6376 §5.4: the signature covers From. RFC 8301 §3.1: SHA-1 does not count.
    let signs_from = signature.h.iter().any(|name| name.eq_ignore_ascii_case("from"));
    if !signs_from || matches!(signature.a, Algorithm::RsaSha1) {
        return false;
    }
    let expires = i64::try_from(signature.x).unwrap_or(i64::MAX);
    let is_current = signature.x == 0 || (signature.x > signature.t && expires > now.as_second());
    let hash = HashAlgorithm::from(signature.a);
    let mut bodies = message.body_hashes.iter();
    let body =
        bodies.find(|(form, by, length, _)| *form == signature.cb && *by == hash && *length == signature.l);
    // A signature over a part of the body says nothing about the rest (RPT-16).
    let covers_the_body = signature.l == 0 && body.is_some_and(|(_, _, _, digest)| *digest == signature.bh);
    if !is_current || !covers_the_body || !is_agent_of_domain(signature, record) {
        return false;
    }
    let unsigned = without_signature(header.value);
    let mut signed = message.signed_headers(&signature.h, header.name, &unsigned);
    key.p.verify(&mut signed, &signature.b, signature.ch, signature.a).is_ok()
}

/// True if the signature covers what says which domain the report is about: the header `TLS-Report-Domain`, or the subject
/// (RFC 8460 §5.3). Signers that sign the fields of RFC 6376 §5.4.1 leave the header out, so a signed subject is enough if it
/// names the same domain. A second field of that name, which no signature needs to cover, could say something else, and so
/// could one that only one of the two parsers of headers finds.
fn signs_domain(message: &[u8], parsed: &AuthenticatedMessage<'_>, signature: &Signature) -> bool {
    let count = |wanted: &str| {
        let is_named =
            |(name, _): &&(&[u8], &[u8])| name.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes());
        let signed = parsed.headers.iter().filter(is_named).count();
        (signed, fields(message).filter(|field| field.is_named(wanted)).count())
    };
    let signs = |wanted: &str| {
        count(wanted) == (1, 1) && signature.h.iter().any(|name| name.trim().eq_ignore_ascii_case(wanted))
    };
    match count("TLS-Report-Domain") {
        (0, 0) => signs("Subject"),
        (1, 1) => signs("TLS-Report-Domain") || (signs("Subject") && subject_names_domain(message)),
        _ => false,
    }
}

/// True if the subject has the form of RFC 8460 §5.3, and names the domain of the header `TLS-Report-Domain`.
fn subject_names_domain(message: &[u8]) -> bool {
    let head = Head::of(message);
    let by_header = head.raw("TLS-Report-Domain").and_then(|text| DomainName::parse(text).ok());
    let by_subject = head.subject().and_then(ReportMail::parse_subject).map(|subject| subject.policy_domain);
    by_header.is_some() && by_header == by_subject
}

/// True unless `i=` names an agent outside of the signing domain, or below it where the key's `t=s` forbids that
/// (RFC 6376 §3.5, §3.6.1).
fn is_agent_of_domain(signature: &Signature, record: &str) -> bool {
    let Some((_, agent)) = signature.i.rsplit_once('@') else { return signature.i.is_empty() };
    let (agent, domain) = (agent.to_ascii_lowercase(), signature.d.to_ascii_lowercase());
    let is_strict = tag(record, "t").is_some_and(|flags| flags.split(':').any(|flag| flag.trim() == "s"));
    match agent.strip_suffix(&domain) {
        Some("") => true,
        Some(parent) => !is_strict && parent.ends_with('.'),
        None => false,
    }
}

/// The value of a DKIM-Signature header with the value of its `b=` tag removed, as the signer hashed it, without the line
/// end (RFC 6376 §3.7).
fn without_signature(value: &[u8]) -> Vec<u8> {
    let value = value.strip_suffix(b"\r\n").or_else(|| value.strip_suffix(b"\n")).unwrap_or(value);
    let tags = value.split(|byte| *byte == b';').map(|tag| {
        let end_of_name = tag.iter().position(|byte| *byte == b'=');
        let is_signature =
            end_of_name.and_then(|end| tag.get(..end)).is_some_and(|name| name.trim_ascii() == b"b");
        match end_of_name {
            Some(end) if is_signature => tag.get(..=end).unwrap_or(tag),
            _ => tag,
        }
    });
    tags.collect::<Vec<_>>().join(&b';')
}

async fn look_up(dns: &dyn Dns, name: &str) -> Key {
    let Ok(name) = DomainName::parse(name) else { return Key::Absent };
    let answer = match dns.lookup(&name, Kind::Txt).await {
        Ok(answer) => answer,
        Err(error) if error.is_absence() => return Key::Absent,
        Err(_) => return Key::Unknown,
    };
    let found = answer.texts().find_map(|text| {
        let key = DomainKey::parse(text).ok()?;
        Some(Key::Found { key: Box::new(key), text: String::from_utf8_lossy(text).into_owned() })
    });
    found.unwrap_or(Key::Absent)
}

/// The value of a tag of a DKIM key record.
fn tag<'r>(record: &'r str, name: &str) -> Option<&'r str> {
    record.split(';').find_map(|tag| tag.trim().strip_prefix(name)?.trim_start().strip_prefix('='))
}

/// True when the record's `s=` lists `tlsrpt` or `*`, or is not there (RFC 8460 §3).
fn is_for_reports(record: &str) -> bool {
    tag(record, "s")
        .is_none_or(|list| list.split(':').any(|service| matches!(service.trim(), "tlsrpt" | "*")))
}

/// True when signer and submitter belong to one organization: the same registered domain.
fn is_aligned(signer: &str, submitter: &DomainName) -> bool {
    let Ok(signer) = DomainName::parse(signer) else { return false };
    let organization = |name: &DomainName| suffix::registered_domain(name.as_str()).map(str::to_owned);
    signer == *submitter || organization(&signer).is_some_and(|one| Some(one) == organization(submitter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signer_and_submitter_belong_to_one_organization() {
        let aligned =
            |signer: &str, submitter: &str| is_aligned(signer, &DomainName::parse(submitter).unwrap());
        assert!(aligned("example.com", "mail.example.com"));
        assert!(aligned("a.example.com", "b.example.com"));
        assert!(aligned("Example.COM", "example.com"));
        assert!(!aligned("com", "example.com"));
        assert!(!aligned("example.co.uk", "other.co.uk"));
        assert!(!aligned("github.io", "victim.github.io"));
        assert!(!aligned("evil-example.com", "example.com"));
    }

    /// A header field with a signature by this domain and selector over these fields.
    fn signature(domain: &str, selector: usize, fields: &str) -> String {
        format!(
            "DKIM-Signature: v=1; a=ed25519-sha256; d={domain}; s=s{selector}; h={fields}; bh=AAAA; b=AAAA\r\n"
        )
    }

    fn names(header: &str) -> Vec<KeyName> {
        let submitter = DomainName::parse("big.example").unwrap();
        key_names(format!("{header}From: a@big.example\r\n\r\nbody\r\n").as_bytes(), &[submitter])
    }

    #[test]
    fn few_of_many_signatures_are_looked_at() {
        let many = |domain: &str, count: usize| {
            (0..count).map(|number| signature(domain, number, "from")).collect::<String>()
        };
        assert_eq!(names(&many("big.example", 40)).len(), MAX_SIGNATURES);
        assert_eq!(names(&many("big.example", 1).repeat(40)).len(), 1);
        let others = many("evil.example", MAX_EXAMINED - 1) + &many("big.example", 5);
        assert_eq!(names(&others).len(), 1);
        let long =
            signature("big.example", 1, &"from:".repeat(SIGNATURE_BYTES / 5)) + &many("big.example", 1);
        assert_eq!(names(&long).len(), 1);
    }

    #[test]
    fn signatures_in_a_header_beyond_the_limits_do_not_count() {
        let signed = signature("big.example", 1, "from");
        assert_eq!(names(&(signed.clone() + &"X: y\r\n".repeat(MAX_FIELDS - 4))).len(), 1);
        assert_eq!(names(&(signed.clone() + &"X: y\r\n".repeat(MAX_FIELDS))).len(), 0);
        let field = format!("X: {}\r\n", "y".repeat(65_000));
        assert_eq!(names(&(signed.clone() + &field.repeat(3))).len(), 1);
        assert_eq!(names(&(signed + &field.repeat(5))).len(), 0);
    }

    #[test]
    fn rec_02_a_key_that_is_not_for_reports_is_noted() {
        assert!(is_for_reports("v=DKIM1; k=rsa; s=tlsrpt; p=AAAA"));
        assert!(is_for_reports("v=DKIM1; s=email:tlsrpt; p=AAAA"));
        assert!(is_for_reports("v=DKIM1; s=*; p=AAAA"));
        assert!(is_for_reports("v=DKIM1; p=AAAA"));
        assert!(!is_for_reports("v=DKIM1; s=email; p=AAAA"));
    }

    #[test]
    fn the_signature_is_removed_from_its_header_and_nothing_else() {
        let text = |value: &str| String::from_utf8(without_signature(value.as_bytes())).unwrap();
        assert_eq!(text(" v=1; b=AB\r\n CD==; bh=EF==\r\n"), " v=1; b=; bh=EF==");
        assert_eq!(text(" bh=EF==;\r\n b = AB== ;"), " bh=EF==;\r\n b =;");
        assert_eq!(text("b=AB"), "b=");
        assert_eq!(text("v=1; bb=b=AB; xb=1"), "v=1; bb=b=AB; xb=1");
        assert_eq!(text(""), "");
    }

    #[test]
    fn an_agent_is_in_the_signing_domain_and_below_it_unless_the_key_is_strict() {
        let allowed = |agent: &str, record: &str| {
            let signature = Signature { d: "Example.com".into(), i: agent.into(), ..Signature::default() };
            is_agent_of_domain(&signature, record)
        };
        assert!(
            allowed("", "v=DKIM1") && allowed("@example.com", "t=s") && allowed("a@b.example.com", "t=y")
        );
        assert!(!allowed("a@b.example.com", "v=DKIM1; t=y:s; p=A"));
        assert!(
            !allowed("a@evilexample.com", "v=DKIM1") && !allowed("example.com", "") && !allowed("a@com", "")
        );
    }
}
