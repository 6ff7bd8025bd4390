//! The `mx` patterns of a policy, and how MX host names are matched against them (RFC 8461 §3.2, §4.1). Policy files
//! contain them; the sender, the check and the rollout match hosts.

use crate::domain::{DomainError, DomainName};
use std::fmt;

/// An `mx` value: a host name, or `*.` followed by a host name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MxPattern {
    /// Matches this host only. Create it with [`MxPattern::exact`] or [`MxPattern::parse`], so that it can be read again.
    Exact(DomainName),
    /// Matches all hosts that have exactly one more label than this name.
    Wildcard(DomainName),
}

/// Why a text is not an `mx` pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MxPatternError {
    /// A `*` is not the complete leftmost label.
    #[error("`*` must be the complete leftmost label, followed by a host name")]
    Wildcard,
    /// The name contains characters outside ASCII.
    #[error("the name must be written as A-labels (xn--…), not in Unicode")]
    ULabel,
    /// The name is followed by a port, as in `mx.example.org:25`.
    #[error("an mx pattern must not contain a port")]
    Port,
    /// The name contains an underscore, which host names must not (RFC 5321 §4.1.2).
    #[error("a host name must not contain an underscore")]
    Underscore,
    /// The name is invalid for another reason.
    #[error(transparent)]
    Domain(#[from] DomainError),
}

impl MxPattern {
    /// Parses `host.example.org` or `*.example.org`. Upper case and a final dot are normalized.
    pub fn parse(text: &str) -> Result<Self, MxPatternError> {
        let (wildcard, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if memchr::memchr(b'_', name.as_bytes()).is_some() {
            return Err(MxPatternError::Underscore);
        }
        let name = DomainName::from_ascii(name).map_err(|error| match name.rsplit_once(':') {
            _ if !name.is_ascii() => MxPatternError::ULabel,
            _ if name.contains('*') => MxPatternError::Wildcard,
            Some((_, port))
                if !port.is_empty()
                    && port.bytes().all(|b| b.is_ascii_digit())
                    && !matches!(error, DomainError::Address(_)) =>
            {
                MxPatternError::Port
            }
            _ => MxPatternError::Domain(error),
        })?;
        Ok(if wildcard { Self::Wildcard(name) } else { Self::Exact(name) })
    }

    /// The pattern that matches this host only. Fails for a name that a policy can't contain, although MX records may: one
    /// with an underscore.
    pub fn exact(host: &DomainName) -> Result<Self, MxPatternError> {
        match memchr::memchr(b'_', host.as_str().as_bytes()) {
            Some(_) => Err(MxPatternError::Underscore),
            None => Ok(Self::Exact(host.clone())),
        }
    }

    /// True if the pattern matches `host`, the name in the MX record.
    pub fn matches(&self, host: &DomainName) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Wildcard(name) => match host.as_str().split_once('.') {
                Some((_, rest)) => rest == name.as_str(),
                None => false,
            },
        }
    }

    /// Returns the name without the `*.`.
    pub fn name(&self) -> &DomainName {
        match self {
            Self::Exact(name) | Self::Wildcard(name) => name,
        }
    }

    /// True if `self` matches every host that `other` matches.
    pub fn covers(&self, other: &MxPattern) -> bool {
        match other {
            Self::Exact(host) => self.matches(host),
            Self::Wildcard(_) => self == other,
        }
    }
}

impl fmt::Display for MxPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Wildcard(name) => write!(f, "*.{name}"),
        }
    }
}

impl serde::Serialize for MxPattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for MxPattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    #[test]
    fn val_01_the_mx_name_matches_in_any_case() {
        let pattern = MxPattern::parse("MX1.Example.org").unwrap();
        assert!(pattern.matches(&host("mx1.example.ORG")));
        assert!(!pattern.matches(&host("mx2.example.org")));
        assert!(!pattern.matches(&host("a.mx1.example.org")));
    }

    #[test]
    fn val_02_wildcard_matches_exactly_one_label() {
        let pattern = MxPattern::parse("*.example.com").unwrap();
        assert!(pattern.matches(&host("a.example.com")));
        assert!(!pattern.matches(&host("example.com")));
        assert!(!pattern.matches(&host("a.b.example.com")));
        assert!(!pattern.matches(&host("a.badexample.com")));
        assert!(!pattern.matches(&host("com")));
    }

    #[test]
    fn pol_19_only_a_label_host_names_and_one_leading_wildcard() {
        for good in ["mx.example", "*.example.com", "xn--bcher-kva.example", "a1.b-c.example"] {
            assert_eq!(MxPattern::parse(good).unwrap().to_string(), good);
        }
        let bad = |text: &str| MxPattern::parse(text).unwrap_err();
        assert_eq!(bad("bücher.example"), MxPatternError::ULabel);
        assert!(matches!(bad("192.0.2.1"), MxPatternError::Domain(DomainError::Address(_))));
        assert!(matches!(bad("2001:db8::1"), MxPatternError::Domain(DomainError::Address(_))));
        assert!(matches!(bad("[192.0.2.1]"), MxPatternError::Domain(_)));
        assert_eq!(bad("*"), MxPatternError::Wildcard);
        assert!(matches!(bad("*."), MxPatternError::Domain(DomainError::Empty)));
        assert_eq!(bad("mx.*.example"), MxPatternError::Wildcard);
        assert_eq!(bad("*.*.example"), MxPatternError::Wildcard);
        assert_eq!(bad("**.example"), MxPatternError::Wildcard);
        assert_eq!(bad("m*.example"), MxPatternError::Wildcard);
        assert_eq!(bad("mx.example:25"), MxPatternError::Port);
        assert_eq!(bad("mx_1.example"), MxPatternError::Underscore);
        assert!(matches!(bad("test.example-"), MxPatternError::Domain(DomainError::Hyphen(_))));
        assert!(matches!(bad(".example.com"), MxPatternError::Domain(DomainError::EmptyLabel)));
        assert!(matches!(bad("a.example, b.example"), MxPatternError::Domain(_)));
        assert!(matches!(bad(""), MxPatternError::Domain(DomainError::Empty)));
    }

    proptest! {
        #[test]
        fn a_host_of_an_mx_record_becomes_a_pattern_that_can_be_read_again_or_none(text in "\\PC{1,30}|[a-zA-Z0-9_.-]{1,30}") {
            if let Ok(host) = DomainName::parse(&text) {
                match MxPattern::exact(&host) {
                    Ok(pattern) => prop_assert_eq!(MxPattern::parse(&pattern.to_string()), Ok(pattern)),
                    Err(error) => prop_assert_eq!(MxPattern::parse(host.as_str()), Err(error)),
                }
            }
        }

        #[test]
        fn a_printed_pattern_parses_to_itself(text in "(\\*\\.)?[a-z0-9]{1,8}(\\.[a-z][a-z0-9]{0,7}){1,3}") {
            let pattern = MxPattern::parse(&text).unwrap();
            prop_assert_eq!(pattern.to_string(), text);
        }

        #[test]
        fn any_text_is_rejected_or_normalized(text in "\\PC{0,60}") {
            if let Ok(pattern) = MxPattern::parse(&text) {
                prop_assert_eq!(MxPattern::parse(&pattern.to_string()), Ok(pattern));
            }
        }
    }
}
