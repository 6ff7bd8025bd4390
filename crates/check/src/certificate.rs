//! What policy hosts and MX hosts have in common: how a certificate is spoken of, finer than a sender has
//! to know (RFC 8461 §4.2, RFC 6125).

use jiff::{SignedDuration, Timestamp};
use net::certificate::{CertificateFacts, Problem};
use net::tls::TlsFacts;

/// What is wrong with a certificate, finer than a sender has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Expired,
    NotYet,
    Name,
    CommonNameOnly,
    OfItself,
    ChainCut,
    Untrusted,
}

impl Kind {
    pub(crate) fn of(problem: &Problem, facts: Option<&TlsFacts>) -> Self {
        let chain = facts.map(|facts| facts.chain.as_slice()).unwrap_or_default();
        let own = chain.first();
        match problem {
            Problem::Expired => Self::Expired,
            Problem::NotYetValid => Self::NotYet,
            Problem::WrongName
                if own.is_some_and(|own| own.names.is_empty() && own.common_name.is_some()) =>
            {
                Self::CommonNameOnly
            }
            Problem::WrongName => Self::Name,
            _ if own.is_some_and(|own| own.is_self_issued) => Self::OfItself,
            // Only its own certificate, by an issuer whose certificate would have to come along.
            Problem::UnknownIssuer if chain.len() == 1 => Self::ChainCut,
            _ => Self::Untrusted,
        }
    }
}

/// One certificate of a chain, for evidence.
pub(crate) fn chain_line(certificate: &CertificateFacts) -> String {
    format!(
        "certificate {} for {} by {}, {}, {} to {}",
        certificate.subject,
        if certificate.names.is_empty() { "no name".to_owned() } else { certificate.names.join(", ") },
        certificate.issuer,
        certificate.key,
        certificate.not_before,
        certificate.not_after
    )
}

/// How a certificate that ends soon is spoken of; `None` for one with time left: 14 days, or a third of a
/// life of less than 45 days.
pub(crate) fn ends_soon(certificate: &CertificateFacts, now: Timestamp) -> Option<String> {
    let fortnight = SignedDuration::from_hours(14 * 24);
    let third = certificate.not_after.duration_since(certificate.not_before) / 3;
    let left = certificate.not_after.duration_since(now);
    (left >= SignedDuration::ZERO && left < fortnight.min(third))
        .then(|| format!("ends in {} days ({})", left.as_hours() / 24, certificate.not_after))
}
