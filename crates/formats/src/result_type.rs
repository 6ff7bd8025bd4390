//! Result types of failed sessions (RFC 8460 §4.3) and policy types (§4.2), with their names in reports. Validation
//! in the sending side sets them; imported reports are parsed with them.

use std::fmt;

/// Why a session failed, or would fail under an enforced policy (RFC 8460 §4.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResultType {
    /// The MX host does not offer STARTTLS.
    StarttlsNotSupported,
    /// The certificate does not match the MX host's name.
    CertificateHostMismatch,
    /// The certificate has expired or is not yet valid.
    CertificateExpired,
    /// The certificate does not chain to a trusted root.
    CertificateNotTrusted,
    /// Any other failure of a session under the policy.
    ValidationFailure,
    /// The policy file could not be fetched.
    StsPolicyFetchError,
    /// The policy file is malformed.
    StsPolicyInvalid,
    /// The policy host's certificate failed verification.
    StsWebpkiInvalid,
    /// The TLSA records are malformed or unusable.
    TlsaInvalid,
    /// DNSSEC validation failed.
    DnssecInvalid,
    /// The sender requires DANE, but found no TLSA records.
    DaneRequired,
    /// A name that RFC 8460 does not define, as received (REC-07).
    Other(String),
}

const NAMES: [(ResultType, &str); 11] = [
    (ResultType::StarttlsNotSupported, "starttls-not-supported"),
    (ResultType::CertificateHostMismatch, "certificate-host-mismatch"),
    (ResultType::CertificateExpired, "certificate-expired"),
    (ResultType::CertificateNotTrusted, "certificate-not-trusted"),
    (ResultType::ValidationFailure, "validation-failure"),
    (ResultType::StsPolicyFetchError, "sts-policy-fetch-error"),
    (ResultType::StsPolicyInvalid, "sts-policy-invalid"),
    (ResultType::StsWebpkiInvalid, "sts-webpki-invalid"),
    (ResultType::TlsaInvalid, "tlsa-invalid"),
    (ResultType::DnssecInvalid, "dnssec-invalid"),
    (ResultType::DaneRequired, "dane-required"),
];

impl ResultType {
    /// Returns all registered result types.
    pub fn registered() -> impl Iterator<Item = ResultType> {
        NAMES.iter().map(|(kind, _)| kind.clone())
    }

    /// Parses a name in a report, in any case. An unregistered name becomes [`Self::Other`].
    pub fn parse(text: &str) -> Self {
        let known = NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
        known.map_or_else(|| Self::Other(text.to_owned()), |(kind, _)| kind.clone())
    }

    /// Returns the name in reports.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(name) => name,
            known => {
                NAMES.iter().find(|(kind, _)| kind == known).map_or("validation-failure", |(_, name)| name)
            }
        }
    }

    /// True for failures to obtain a policy, as opposed to failures of a session under it.
    pub fn is_policy_failure(&self) -> bool {
        matches!(
            self,
            Self::StsPolicyFetchError
                | Self::StsPolicyInvalid
                | Self::StsWebpkiInvalid
                | Self::TlsaInvalid
                | Self::DnssecInvalid
                | Self::DaneRequired
        )
    }
}

impl fmt::Display for ResultType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl serde::Serialize for ResultType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for ResultType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::parse(&std::borrow::Cow::<'de, str>::deserialize(deserializer)?))
    }
}

/// The type of the policy that applied to a session (RFC 8460 §4.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyType {
    /// An MTA-STS policy.
    Sts,
    /// DANE TLSA records.
    Tlsa,
    /// Neither a policy nor TLSA records were found.
    NoPolicyFound,
    /// A name that RFC 8460 does not define, as received (REC-07).
    Other(String),
}

impl PolicyType {
    /// Parses a name in a report, in any case. An unregistered name becomes [`Self::Other`].
    pub fn parse(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "sts" => Self::Sts,
            "tlsa" => Self::Tlsa,
            "no-policy-found" => Self::NoPolicyFound,
            _ => Self::Other(text.to_owned()),
        }
    }

    /// Returns the name in reports.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Sts => "sts",
            Self::Tlsa => "tlsa",
            Self::NoPolicyFound => "no-policy-found",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for PolicyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl serde::Serialize for PolicyType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for PolicyType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::parse(&std::borrow::Cow::<'de, str>::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rpt_09_the_eleven_result_types_have_their_registered_names() {
        let expected = [
            "starttls-not-supported",
            "certificate-host-mismatch",
            "certificate-expired",
            "certificate-not-trusted",
            "validation-failure",
            "sts-policy-fetch-error",
            "sts-policy-invalid",
            "sts-webpki-invalid",
            "tlsa-invalid",
            "dnssec-invalid",
            "dane-required",
        ];
        let names: Vec<_> = ResultType::registered().map(|kind| kind.to_string()).collect();
        for name in expected {
            assert!(names.iter().any(|n| n == name), "{name}");
            assert_eq!(ResultType::parse(name).as_str(), name);
            assert!(!matches!(ResultType::parse(name), ResultType::Other(_)));
        }
        assert_eq!(names.len(), expected.len());
    }

    #[test]
    fn rec_07_unknown_names_are_kept() {
        assert_eq!(ResultType::parse("my-own-Type").as_str(), "my-own-Type");
        assert_eq!(PolicyType::parse("invalid-policy-type").as_str(), "invalid-policy-type");
        assert_eq!(PolicyType::parse("STS"), PolicyType::Sts);
    }
}
