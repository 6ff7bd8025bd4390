//! Verifies the DKIM signatures of a report mail (RFC 8460 §3, RFC 6376). Keys are looked up through [`Dns`], so that
//! resolver, DNSSEC and limits are the same as everywhere else. There are three steps, since only the second waits for
//! others, and the third hashes the whole message: [`key_names`] lists the keys of the signatures that count,
//! [`look_up_keys`] asks DNS for them, and [`verify`] checks the signatures.

use formats::DomainName;
use jiff::Timestamp;
use mail_auth::AuthenticatedMessage;
use mail_auth::common::crypto::{Algorithm, HashAlgorithm};
use mail_auth::common::headers::Header;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::{DomainKey, VerifySignature};
use mail_auth::dkim::Signature;
use mail_parser::{HeaderName, MessageParser};
use net::dns::{Dns, Kind};
use std::collections::BTreeMap;

/// What the signatures of a message say about its submitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignatureState {
    /// A signature of the submitter's organization is valid and covers the whole message (REC-01).
    Verified {
        /// The signing domain (`d=`).
        signer: DomainName,
        /// False when the key's record is not meant for TLS reports (REC-02).
        key_is_for_reports: bool,
        /// False if the headers that say which domain the report is about are not signed: the subject, and
        /// `TLS-Report-Domain` if the mail has it (RFC 8460 §5.3).
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

/// Maximum number of keys that are looked up for one message, and of signatures that are verified for one submitter.
const MAX_SIGNATURES: usize = 8;

/// The key of one signature.
pub(super) enum Key {
    Found { key: DomainKey, text: String },
    Absent,
    Unknown,
}

/// The signing domain and the key's DNS name, as a signature states them.
pub(super) type KeyName = (String, String);

/// The keys of a message's signatures.
pub(super) type Keys = BTreeMap<KeyName, Key>;

/// Checks the signatures of `message` for one by the submitter's organization, at the time `now`.
pub async fn check_signature(
    dns: &dyn Dns,
    message: &[u8],
    submitter: &DomainName,
    now: Timestamp,
) -> SignatureState {
    let submitters = [submitter.clone()];
    let keys = look_up_keys(dns, key_names(message, &submitters)).await;
    verify(message, &submitters, &keys, now).pop().unwrap_or(SignatureState::Missing)
}

/// The keys of the signatures by any submitter's organization, at most [`MAX_SIGNATURES`].
pub(super) fn key_names(message: &[u8], submitters: &[DomainName]) -> Vec<KeyName> {
    let mut names: Vec<KeyName> = Vec::new();
    let Some(parsed) = MessageParser::default().parse_headers(message) else { return names };
    for header in parsed.headers().iter().filter(|header| header.name == HeaderName::DkimSignature) {
        let range = header.offset_start as usize..header.offset_end as usize;
        let value = message.get(range).unwrap_or_default();
        let Ok(signature) = Signature::parse(value) else { continue };
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

pub(super) async fn look_up_keys(dns: &dyn Dns, names: Vec<KeyName>) -> Keys {
    let mut keys = Keys::new();
    for name in names {
        let key = look_up(dns, &name.1).await;
        keys.insert(name, key);
    }
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
    let has_key = keys.values().any(|key| matches!(key, Key::Found { .. }));
    let parsed = if has_key { AuthenticatedMessage::parse(message) } else { None };
    submitters.iter().map(|submitter| state_for(submitter, parsed.as_ref(), keys, now)).collect()
}

fn state_for(
    submitter: &DomainName,
    message: Option<&AuthenticatedMessage<'_>>,
    keys: &Keys,
    now: Timestamp,
) -> SignatureState {
    let mut state = SignatureState::Missing;
    for ((domain, name), key) in keys.iter().filter(|((domain, _), _)| is_aligned(domain, submitter)) {
        match (key, &state) {
            (Key::Unknown, _) => state = SignatureState::Unknown,
            (Key::Found { .. }, SignatureState::Missing | SignatureState::KeyAbsent) => {
                state = SignatureState::Failed
            }
            (Key::Absent, SignatureState::Missing) => state = SignatureState::KeyAbsent,
            _ => {}
        }
        let (Key::Found { key, text }, Some(message)) = (key, message) else { continue };
        let Ok(signer) = DomainName::parse(domain) else { continue };
        let signatures = message.dkim_headers.iter();
        let mut signatures = signatures
            .filter(|one| one.header.d == *domain && one.header.domain_key() == *name)
            .take(MAX_SIGNATURES);
        if let Some(valid) = signatures.find(|header| verifies(message, header, key, text, now)) {
            let (key_is_for_reports, signs_domain) =
                (is_for_reports(text), signs_domain(message, &valid.header));
            return SignatureState::Verified { signer, key_is_for_reports, signs_domain };
        }
    }
    state
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

/// True if the signature covers the header that says which domain the report is about. A second header of that name, which
/// no signature needs to cover, could say something else.
fn signs_domain(message: &AuthenticatedMessage<'_>, signature: &Signature) -> bool {
    let count = |wanted: &str| {
        let is_named =
            |(name, _): &&(&[u8], &[u8])| name.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes());
        message.headers.iter().filter(is_named).count()
    };
    let wanted = if count("tls-report-domain") > 0 { "tls-report-domain" } else { "subject" };
    count(wanted) == 1 && signature.h.iter().any(|name| name.trim().eq_ignore_ascii_case(wanted))
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
        Some(Key::Found { key, text: String::from_utf8_lossy(text).into_owned() })
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
