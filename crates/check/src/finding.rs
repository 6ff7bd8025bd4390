//! What a check says, and the verdict over all of it.

use crate::catalogue::{Check, Severity};
use formats::{DomainName, Mode};
use jiff::{SignedDuration, Timestamp};

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Which check.
    pub check: Check,
    /// How bad it is for this domain.
    pub severity: Severity,
    /// What was found, with the value seen.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// Lines to paste; may be empty.
    pub remedy: Vec<String>,
}

/// Everything that was found about a domain.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Examination {
    /// The domain.
    pub domain: DomainName,
    /// In one sentence.
    pub verdict: String,
    /// The mode of its policy.
    pub mode: Mode,
    /// The worst first.
    pub findings: Vec<Finding>,
}

/// How a certificate that ends within 14 days is spoken of; `None` for one with more time left.
pub(crate) fn ends_soon(not_after: Timestamp, now: Timestamp) -> Option<String> {
    let left = not_after.duration_since(now);
    (left < SignedDuration::from_hours(14 * 24))
        .then(|| format!("ends in {} days ({not_after})", left.as_hours() / 24))
}

#[derive(Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    pub(crate) fn add(
        &mut self,
        check: Check,
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl IntoIterator<Item = String>,
    ) {
        self.add_as(check.severity(), check, what, why, remedy);
    }

    pub(crate) fn add_as(
        &mut self,
        severity: Severity,
        check: Check,
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl IntoIterator<Item = String>,
    ) {
        let remedy = remedy.into_iter().collect();
        self.0.push(Finding { check, severity, what: what.into(), why: why.into(), remedy });
    }

    pub(crate) fn has(&self, check: Check) -> bool {
        self.0.iter().any(|finding| finding.check == check)
    }

    pub(crate) fn conclude(mut self, domain: &DomainName, mode: Mode) -> Examination {
        self.0.sort_by_key(|finding| (finding.severity, finding.check));
        let verdict = self.verdict(domain, mode);
        Examination { domain: domain.clone(), verdict, mode, findings: self.0 }
    }

    fn verdict(&self, domain: &DomainName, mode: Mode) -> String {
        if self.has(Check::MxNull) {
            return format!("{domain} takes no mail, so there is nothing to protect.");
        }
        if self.has(Check::DomNxdomain) {
            return format!("There is no domain {domain}.");
        }
        if let Some(worst) = self.0.first().filter(|worst| worst.severity == Severity::Error) {
            let consequence = match mode {
                Mode::Enforce => "loses mail, or is about to",
                Mode::Testing => "is not protected yet, and would lose mail once enforced",
                Mode::None => "is not protected",
            };
            return format!("{domain} {consequence}: {}.", worst.what);
        }
        match mode {
            Mode::Enforce if self.0.iter().any(|finding| finding.severity == Severity::Warning) => {
                format!("{domain} is protected, with something to look at.")
            }
            Mode::Enforce => format!(
                "{domain} is protected: its policy is enforced, and all that was looked at is in order."
            ),
            Mode::Testing => format!("{domain} is not protected yet: its policy is in testing."),
            Mode::None if self.has(Check::DaneProtects) => {
                format!("{domain} is protected by DANE, and has no MTA-STS for senders that do not use it.")
            }
            Mode::None => {
                format!("{domain} is not protected: anyone on the path can strip TLS from mail to it.")
            }
        }
    }
}
