//! Classification and description of certificates, shared by the topics of policy hosts and MX hosts
//! (RFC 8461 §4.2, RFC 9525). Senders only need a verdict; the findings name the exact mistake.

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
            _ if own.is_some_and(|own| own.is_self_issued) => Self::SelfSigned,
            // The chain is the leaf only: the server has to send the issuer's certificate as well.
            Problem::UnknownIssuer if chain.len() == 1 => Self::MissingIntermediate,
            _ => Self::Untrusted,
        }
    }
}

/// Describes one certificate of a chain in a line of evidence.
pub(crate) fn chain_line(certificate: &CertificateFacts) -> String {
    format!(
        "certificate {} for {}, issued by {}, {}, valid {} to {}",
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
        .then(|| format!("expires in {} days ({})", left.as_hours() / 24, certificate.not_after))
}
