//! Who signed a report mail (RFC 8460 §3, RFC 6376). The keys come through our own [`Dns`], so that
//! resolver, DNSSEC and limits are the same as everywhere else.

use formats::DomainName;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::{DomainKey, VerifySignature};
use mail_auth::hickory_resolver::config::{ResolverConfig, ResolverOpts};
use mail_auth::{
    AuthenticatedMessage, DkimResult, Error, MessageAuthenticator, Parameters, ResolverCache, Txt,
};
use net::dns::{Dns, Kind};
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// What the signatures of a message say about its submitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignatureState {
    /// A signature of the submitter's organization holds and covers the whole message (REC-01).
    Verified {
        /// The domain that signed.
        signer: DomainName,
        /// False notes a key whose record is not for TLS reports (REC-02).
        key_is_for_reports: bool,
    },
    /// There is no signature of the submitter's organization.
    Missing,
    /// There is one, and its key can't be looked up now.
    Unknown,
    /// There is one, and it does not hold.
    Failed,
}

/// Signatures of one message that are looked at.
const MAX_SIGNATURES: usize = 8;

/// The keys of one message, by name. It answers for every name, so that the library that verifies
/// never asks the network itself.
pub struct Signatures(HashMap<Box<str>, Key>);

enum Key {
    Found { key: Arc<DomainKey>, for_reports: bool },
    Absent,
    Unknown,
}

impl ResolverCache<Box<str>, Txt> for Signatures {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        Some(match self.0.get(name) {
            Some(Key::Found { key, .. }) => Txt::DomainKey(key.clone()),
            _ => Txt::Error(Error::Dns(mail_auth::DnsError::InvalidRecordType)),
        })
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: std::time::Instant) {}
}

/// Checks the signatures of `message` for one by the submitter's organization.
pub async fn check_signature(dns: &dyn Dns, message: &[u8], submitter: &DomainName) -> SignatureState {
    let Some(parsed) = AuthenticatedMessage::parse(message) else { return SignatureState::Missing };
    let ours = parsed
        .dkim_headers
        .iter()
        .take(MAX_SIGNATURES)
        .filter(|header| is_aligned(&header.header.d, submitter));
    let mut keys = Signatures(HashMap::new());
    for header in ours {
        let name = header.header.domain_key();
        let key = look_up(dns, &name).await;
        keys.0.insert(name.into(), key);
    }
    if keys.0.is_empty() {
        return SignatureState::Missing;
    }
    verdict(&parsed, &keys, submitter).await
}

async fn verdict(
    message: &AuthenticatedMessage<'_>,
    keys: &Signatures,
    submitter: &DomainName,
) -> SignatureState {
    let nowhere = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
    let Ok(authenticator) = MessageAuthenticator::new(nowhere, ResolverOpts::default()) else {
        return SignatureState::Unknown;
    };
    let outputs = authenticator.verify_dkim(Parameters::new(message).with_txt_cache(keys)).await;
    let mut state = SignatureState::Failed;
    for output in outputs {
        let Some(signature) = output.signature().filter(|signature| is_aligned(&signature.d, submitter))
        else {
            continue;
        };
        match keys.0.get(signature.domain_key().as_str()) {
            // A signature over a part of the body says nothing about the rest (RPT-16).
            Some(Key::Found { for_reports, .. })
                if *output.result() == DkimResult::Pass && signature.l == 0 =>
            {
                let Ok(signer) = DomainName::parse(&signature.d) else { continue };
                return SignatureState::Verified { signer, key_is_for_reports: *for_reports };
            }
            Some(Key::Unknown) => state = SignatureState::Unknown,
            _ => {}
        }
    }
    state
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
        Some(Key::Found { key: Arc::new(key), for_reports: is_for_reports(text) })
    });
    found.unwrap_or(Key::Absent)
}

/// True when the record's `s=` lists `tlsrpt` or `*`, or is not there (RFC 8460 §3).
fn is_for_reports(record: &[u8]) -> bool {
    let text = String::from_utf8_lossy(record);
    let services = text.split(';').find_map(|tag| tag.trim().strip_prefix("s=").map(str::to_owned));
    services.is_none_or(|list| list.split(':').any(|service| matches!(service.trim(), "tlsrpt" | "*")))
}

/// True when signer and submitter belong to one organization: the same registered domain.
fn is_aligned(signer: &str, submitter: &DomainName) -> bool {
    let Ok(signer) = DomainName::parse(signer) else { return false };
    let organization = |name: &DomainName| psl::domain_str(name.as_str()).map(str::to_owned);
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
        assert!(is_for_reports(b"v=DKIM1; k=rsa; s=tlsrpt; p=AAAA"));
        assert!(is_for_reports(b"v=DKIM1; s=email:tlsrpt; p=AAAA"));
        assert!(is_for_reports(b"v=DKIM1; s=*; p=AAAA"));
        assert!(is_for_reports(b"v=DKIM1; p=AAAA"));
        assert!(!is_for_reports(b"v=DKIM1; s=email; p=AAAA"));
    }
}
