//! The certificates of MX hosts as the guard last saw them, for the pages of domains. They are kept in memory: the guard sees
//! all of them again after a restart.

use formats::DomainName;
use jiff::Timestamp;
use net::certificate::CertificateFacts;
use receiver::rollout::guard::Validity;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A certificate that an MX host presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenCertificate {
    /// The organization or the common name of its issuer.
    pub issuer: String,
    /// Its validity period.
    pub validity: Validity,
    /// When the host last presented it.
    pub at: Timestamp,
}

/// The maximum number of hosts. Beyond it, those that were not seen for the longest time are forgotten.
const MAX_HOSTS: usize = 20_000;
/// Characters of an issuer's name.
const ISSUER_CHARACTERS: usize = 80;

/// The certificates by MX host.
#[derive(Debug, Default)]
pub struct SeenCertificates(Mutex<BTreeMap<DomainName, SeenCertificate>>);

impl SeenCertificates {
    /// Remembers the certificate of a host, as seen at `at`.
    pub fn put(&self, host: &DomainName, certificate: &CertificateFacts, at: Timestamp) {
        let issuer = issuer(&certificate.issuer);
        let seen = SeenCertificate { issuer, validity: Validity::from(certificate), at };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_HOSTS && !all.contains_key(host) {
            let oldest = all.iter().min_by_key(|(_, seen)| seen.at).map(|(host, _)| host.clone());
            oldest.map(|host| all.remove(&host));
        }
        all.insert(host.clone(), seen);
    }

    /// The certificate of a host; `None` if none was seen since the program started.
    pub fn get(&self, host: &DomainName) -> Option<SeenCertificate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }
}

/// The name of an issuer for people: its organization and common name, or the whole distinguished name.
fn issuer(distinguished: &str) -> String {
    let part = |key: &str| {
        let parts = distinguished.split(',').map(str::trim);
        parts.filter_map(|part| part.strip_prefix(key)).map(|value| value.trim_matches('"')).next()
    };
    let name = match (part("O="), part("CN=")) {
        (Some(organization), Some(name)) if organization != name => format!("{organization} ({name})"),
        (Some(one), _) | (None, Some(one)) => one.to_owned(),
        (None, None) => distinguished.to_owned(),
    };
    name.chars().take(ISSUER_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(issuer: &str) -> CertificateFacts {
        CertificateFacts {
            subject: String::new(),
            issuer: issuer.to_owned(),
            names: Vec::new(),
            not_before: Timestamp::UNIX_EPOCH,
            not_after: Timestamp::from_second(9).unwrap(),
            fingerprint: String::new(),
            key_digest: String::new(),
            common_name: None,
            key: String::new(),
            is_weak: false,
            is_self_issued: false,
            is_for_servers: true,
            is_for_clients: false,
        }
    }

    #[test]
    fn the_last_certificate_of_a_host_is_remembered_and_the_oldest_host_forgotten() {
        let all = SeenCertificates::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let host = |number: usize| DomainName::parse(&format!("mx{number}.example")).unwrap();
        all.put(&host(0), &certificate("C=US, O=Let's Encrypt, CN=R11"), at(1));
        let seen = all.get(&host(0)).unwrap();
        assert_eq!(
            (seen.issuer.as_str(), seen.validity.until, seen.at),
            ("Let's Encrypt (R11)", at(9), at(1))
        );
        for number in 1..=MAX_HOSTS {
            all.put(&host(number), &certificate("CN=x"), at(2));
        }
        assert_eq!((all.get(&host(0)), all.get(&host(MAX_HOSTS)).unwrap().issuer), (None, "x".to_owned()));
        assert_eq!(issuer("serialNumber=1"), "serialNumber=1");
    }
}
