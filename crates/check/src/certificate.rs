//! Classification and description of certificates, shared by the topics of policy hosts and MX hosts
//! (RFC 8461 §4.2, RFC 9525). Senders only need a verdict; the findings name the exact mistake.

use formats::counted::counted;
use jiff::{SignedDuration, Timestamp};
use net::certificate::{CertificateFacts, Problem};
use net::tls::TlsFacts;

/// The mistake in a certificate or its chain, in more detail than [`Problem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CertificateFault {
    Expired,
    NotYetValid,
    WrongName,
    CommonNameOnly,
    SelfSigned,
    MissingIntermediate,
    NotForServers,
    Untrusted,
}

impl CertificateFault {
    pub(crate) fn of(problem: &Problem, facts: Option<&TlsFacts>) -> Self {
        let chain = facts.map(|facts| facts.chain.as_slice()).unwrap_or_default();
        let own = chain.first();
        match problem {
            Problem::Expired => Self::Expired,
            Problem::NotYetValid => Self::NotYetValid,
            Problem::WrongName
                if own.is_some_and(|own| own.names.is_empty() && own.common_name.is_some()) =>
            {
                Self::CommonNameOnly
            }
            Problem::WrongName => Self::WrongName,
            Problem::Other(_) if own.is_some_and(|own| !own.is_for_servers) => Self::NotForServers,
            _ if own.is_some_and(|own| own.is_self_issued) => Self::SelfSigned,
            // The chain is the leaf only: the server has to send the issuer's certificate as well.
            Problem::UnknownIssuer if chain.len() == 1 => Self::MissingIntermediate,
            _ => Self::Untrusted,
        }
    }
}

/// Describes one certificate of a chain in a line of evidence.
pub(crate) fn chain_line(certificate: &CertificateFacts) -> String {
    let usage = match (certificate.is_for_servers, certificate.is_for_clients) {
        (true, false) => "",
        (true, true) => ", for TLS servers and clients",
        (false, true) => ", for TLS clients only",
        (false, false) => ", not for TLS",
    };
    format!(
        "certificate {} for {}, issued by {}, {}, valid {} to {}{usage}",
        certificate.subject,
        if certificate.names.is_empty() { "no names".to_owned() } else { certificate.names.join(", ") },
        certificate.issuer,
        certificate.key,
        certificate.not_before,
        certificate.not_after
    )
}

/// Says when a certificate expires; `None` when at least 14 days are left, or a third of the lifetime if that
/// is shorter, or when it has already expired.
pub(crate) fn ends_soon(certificate: &CertificateFacts, now: Timestamp) -> Option<String> {
    let fortnight = SignedDuration::from_hours(14 * 24);
    let third = certificate.not_after.duration_since(certificate.not_before) / 3;
    let left = certificate.not_after.duration_since(now);
    (left >= SignedDuration::ZERO && left < fortnight.min(third))
        .then(|| format!("expires in {} ({})", counted(left.as_hours() / 24, "day"), certificate.not_after))
}

/// The longest validity of certificates that public CAs have ever issued since 2020, in days. Those of private CAs may be
/// longer.
const LONGEST_PUBLIC_DAYS: i64 = 398;
/// The longest validity that public CAs may issue from 2027-03-15 on, in days (CA/Browser Forum ballot SC-081v3).
const LONGEST_DAYS_IN_2027: i64 = 100;

/// The validity of a certificate in days, if public CAs will issue none that long from March 2027 on. `None` for shorter
/// ones, and for those that only a private CA can have issued.
pub(crate) fn is_too_long_from_2027(certificate: &CertificateFacts) -> Option<i64> {
    let life = certificate.not_after.duration_since(certificate.not_before);
    let is_too_long = life > SignedDuration::from_hours(LONGEST_DAYS_IN_2027 * 24)
        && life <= SignedDuration::from_hours(LONGEST_PUBLIC_DAYS * 24);
    is_too_long.then(|| life.as_hours().saturating_add(12) / 24)
}

/// The consequence of a certificate with a longer validity period than public CAs will issue.
pub(crate) const SHORTER_LIVES: &str = "From 2027-03-15 public CAs issue certificates for 100 days at most, and from \
     2029-03-15 for 47 (SC-081v3). Have this certificate renewed by a machine before then: by hand it would be due several \
     times a year.";

#[cfg(test)]
mod tests {
    use super::*;

    fn valid_for(days: i64) -> CertificateFacts {
        let not_before = Timestamp::from_second(1_790_000_000).unwrap();
        CertificateFacts {
            subject: String::new(),
            issuer: String::new(),
            names: Vec::new(),
            not_before,
            // The last second is part of the period (RFC 5280 §4.1.2.5).
            not_after: not_before + SignedDuration::from_secs(days * 86_400 - 1),
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
    fn certificates_for_101_to_398_days_are_longer_than_public_cas_will_issue() {
        for (days, told) in [(6, None), (90, None), (100, None), (101, Some(101)), (200, Some(200))] {
            assert_eq!(is_too_long_from_2027(&valid_for(days)), told, "{days}");
        }
        for (days, told) in [(398, Some(398)), (399, None), (3652, None), (0, None), (-3, None)] {
            assert_eq!(is_too_long_from_2027(&valid_for(days)), told, "{days}");
        }
    }
}
