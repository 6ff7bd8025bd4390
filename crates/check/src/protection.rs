//! How a domain is protected, as one word: for badges, and to compare one check with the next. The verdict is the same in a
//! sentence.

use crate::catalogue::{Check, Severity};
use crate::finding::Findings;
use formats::Mode;

/// How mail to a domain is protected. Variants are in the order in which they are decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// The domain accepts no mail.
    NoMail,
    /// The domain does not exist.
    NoSuchDomain,
    /// Lookups failed, so that it can't be determined.
    Unknown,
    /// Senders find an error in what is published, or at MX hosts that senders have to verify.
    Errors,
    /// An enforced policy without errors and warnings.
    Enforced,
    /// An enforced policy, with warnings.
    EnforcedWithWarnings,
    /// A policy in mode `testing`, without errors.
    Testing,
    /// No policy, but DANE.
    Dane,
    /// Anyone on the path can strip TLS.
    None,
}

impl Protection {
    /// All values.
    pub const ALL: [Self; 9] = [
        Self::NoMail,
        Self::NoSuchDomain,
        Self::Unknown,
        Self::Errors,
        Self::Enforced,
        Self::EnforcedWithWarnings,
        Self::Testing,
        Self::Dane,
        Self::None,
    ];

    /// The identifier, for programs and the store.
    pub fn id(self) -> &'static str {
        match self {
            Self::NoMail => "no-mail",
            Self::NoSuchDomain => "no-domain",
            Self::Unknown => "unknown",
            Self::Errors => "errors",
            Self::Enforced => "enforced",
            Self::EnforcedWithWarnings => "enforced-with-warnings",
            Self::Testing => "testing",
            Self::Dane => "dane",
            Self::None => "none",
        }
    }

    /// The value with this identifier.
    pub fn by_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protection| protection.id() == id)
    }

    /// The value in words, for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoMail => "accepts no mail",
            Self::NoSuchDomain => "no such domain",
            Self::Unknown => "unknown",
            Self::Errors => "errors",
            Self::Enforced => "enforced",
            Self::EnforcedWithWarnings => "enforced, warnings",
            Self::Testing => "testing",
            Self::Dane => "DANE",
            Self::None => "not protected",
        }
    }

    /// Derives the value from the findings, sorted by severity, and the mode that applies to new senders.
    pub(crate) fn of(findings: &Findings, mode: Mode, worst: Option<(Severity, Check)>) -> Self {
        if findings.has(Check::MxNull) {
            return Self::NoMail;
        }
        if findings.has(Check::DomNxdomain) {
            return Self::NoSuchDomain;
        }
        if let Some((Severity::Error, check)) = worst {
            return match mode {
                Mode::None if check == Check::DnsServfail => Self::Unknown,
                Mode::None if !findings.refuses_by_dane() => Self::None,
                _ => Self::Errors,
            };
        }
        match mode {
            Mode::Enforce if matches!(worst, Some((Severity::Warning, _))) => Self::EnforcedWithWarnings,
            Mode::Enforce => Self::Enforced,
            Mode::Testing => Self::Testing,
            Mode::None if findings.has(Check::DaneProtects) => Self::Dane,
            Mode::None => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::DomainName;

    fn protection(checks: &[(Check, Severity)], mode: Mode) -> Protection {
        let mut findings = Findings::default();
        for (check, severity) in checks {
            findings.add_as(*severity, *check, "what", "why", []);
        }
        findings.conclude(&DomainName::parse("example.org").unwrap(), mode).protection
    }

    #[test]
    fn identifiers_are_read_back() {
        for one in Protection::ALL {
            assert_eq!(Protection::by_id(one.id()), Some(one));
        }
        assert_eq!(Protection::by_id("other"), None);
    }

    #[test]
    fn the_worst_finding_and_the_mode_decide() {
        use Severity::{Error, Info, Warning};
        for (checks, mode, expected) in [
            (&[][..], Mode::Enforce, Protection::Enforced),
            (&[(Check::SmtpPq, Info)], Mode::Enforce, Protection::Enforced),
            (&[(Check::PolMxDot, Warning)], Mode::Enforce, Protection::EnforcedWithWarnings),
            (&[(Check::PolMxDot, Warning)], Mode::Testing, Protection::Testing),
            (
                &[(Check::PolMxDot, Warning), (Check::SmtpUnreachable, Error)],
                Mode::Enforce,
                Protection::Errors,
            ),
            (&[(Check::SmtpUnreachable, Error)], Mode::Testing, Protection::Errors),
            (&[(Check::SmtpUnreachable, Error)], Mode::None, Protection::None),
            (&[(Check::DnsServfail, Error)], Mode::None, Protection::Unknown),
            (&[(Check::DaneProtects, Info)], Mode::None, Protection::Dane),
            (&[(Check::DaneTaName, Error)], Mode::None, Protection::Errors),
            (&[(Check::MxNull, Info)], Mode::None, Protection::NoMail),
            (&[(Check::DomNxdomain, Error)], Mode::None, Protection::NoSuchDomain),
            (&[], Mode::None, Protection::None),
        ] {
            assert_eq!(protection(checks, mode), expected, "{checks:?} {mode}");
        }
    }
}
