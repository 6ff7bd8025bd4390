//! The certificates of MX hosts as the guard last saw them, for the pages of domains. The store keeps them
//! (`store::mx_certificates`); this module makes the names of issuers short and readable.

use formats::DomainName;
use jiff::Timestamp;
use net::certificate::CertificateFacts;
use receiver::rollout::guard::Validity;
use std::collections::BTreeMap;
use store::mx_certificates::MxCertificate;
use store::{Store, StoreError};

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

/// Characters of an issuer's name.
const ISSUER_CHARACTERS: usize = 80;

/// Stores the certificate of a host, as seen at `at`.
pub async fn put(
    store: &Store,
    host: &DomainName,
    certificate: &CertificateFacts,
    at: Timestamp,
) -> Result<(), StoreError> {
    let new = MxCertificate {
        host: host.to_string(),
        issuer: issuer(&certificate.issuer),
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        seen_at: at,
    };
    store.put_mx_certificate(&new).await
}

/// The certificates of these hosts by their names. Hosts whose certificate was never seen are left out.
pub async fn of(
    store: &Store,
    hosts: &[&DomainName],
) -> Result<BTreeMap<String, SeenCertificate>, StoreError> {
    let seen = |one: MxCertificate| {
        let validity = Validity { from: one.not_before, until: one.not_after };
        (one.host, SeenCertificate { issuer: one.issuer, validity, at: one.seen_at })
    };
    Ok(store.mx_certificates(hosts).await?.into_iter().map(seen).collect())
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

    #[test]
    fn an_issuer_has_its_organization_and_its_name() {
        for (distinguished, expected) in [
            ("C=US, O=Let's Encrypt, CN=R11", "Let's Encrypt (R11)"),
            ("CN=x", "x"),
            ("O=x, CN=x", "x"),
            ("serialNumber=1", "serialNumber=1"),
        ] {
            assert_eq!(issuer(distinguished), expected, "{distinguished}");
        }
        assert_eq!(issuer(&format!("CN={}", "x".repeat(200))).len(), ISSUER_CHARACTERS);
    }
}
