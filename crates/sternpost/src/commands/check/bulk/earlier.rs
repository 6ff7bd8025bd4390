//! The lines of results of `sternpost check --from`, as a later run, `--since` and `merge` read them.

use super::first_pass::FirstPass;
use check::senders::{Outcome, Sender};
use check::{Cause, CertificateState, Check, Examination, Severity};
use formats::Mode;
use std::collections::HashMap;

/// What is counted of one checked domain.
#[derive(Default)]
pub struct Counted {
    /// The mode that applies to new senders; `None` if it could not be determined.
    pub mode: Option<Mode>,
    /// The findings, with their cause where it is known.
    pub findings: Vec<(Check, Severity, Option<Cause>)>,
    /// The certificates of its MX hosts.
    pub mx: MxCertificates,
    /// True if senders that honor MTA-STS refuse all MX hosts.
    pub is_lost: bool,
}

/// How many MX hosts there are, and how many of them have an invalid certificate.
#[derive(Default)]
pub struct MxCertificates {
    pub all: usize,
    pub invalid: usize,
}

impl MxCertificates {
    pub fn are_all_invalid(&self) -> bool {
        self.all > 0 && self.all == self.invalid
    }
}

impl Counted {
    /// The result of a check.
    pub fn of(seen: &Examination) -> Self {
        let findings = seen
            .findings
            .iter()
            .map(|finding| (finding.check, finding.severity, finding.cause.as_ref().map(|cause| cause.id)));
        let invalid = seen.mx_hosts.iter().filter(|mx| mx.certificate == CertificateState::Invalid).count();
        let strict = seen.senders.iter().find(|view| view.sender == Sender::Strict);
        let is_lost = strict.is_some_and(|view| {
            !view.hosts.is_empty() && view.hosts.iter().all(|host| host.outcome == Outcome::Refused)
        });
        Self {
            mode: Some(seen.mode).filter(|_| !seen.is_incomplete()),
            findings: findings.collect(),
            mx: MxCertificates { all: seen.mx_hosts.len(), invalid },
            is_lost,
        }
    }
}

/// A line of earlier results.
#[derive(serde::Deserialize)]
struct Line {
    domain: Option<String>,
    typed: Option<String>,
    mode: Option<Mode>,
    first_pass: Option<FirstPass>,
    failed: Option<String>,
    #[serde(default)]
    findings: Vec<StoredFinding>,
    #[serde(default)]
    senders: Vec<StoredSender>,
    #[serde(default)]
    mx_hosts: Vec<StoredMx>,
}

impl Line {
    fn is_lost(&self) -> bool {
        let strict = self.senders.iter().find(|view| view.sender == "strict");
        strict.is_some_and(|view| {
            !view.hosts.is_empty() && view.hosts.iter().all(|host| host.outcome == "refused")
        })
    }

    fn mx(&self) -> MxCertificates {
        let invalid = self.mx_hosts.iter().filter(|mx| mx.certificate == "invalid").count();
        MxCertificates { all: self.mx_hosts.len(), invalid }
    }
}

#[derive(serde::Deserialize)]
struct StoredSender {
    sender: String,
    hosts: Vec<StoredHost>,
}

#[derive(serde::Deserialize)]
struct StoredHost {
    outcome: String,
}

#[derive(serde::Deserialize)]
struct StoredMx {
    certificate: String,
}

#[derive(serde::Deserialize)]
struct StoredFinding {
    check: String,
    severity: String,
    cause: Option<StoredCause>,
}

#[derive(serde::Deserialize)]
struct StoredCause {
    id: String,
}

/// What an earlier line has.
pub struct Earlier {
    /// The domain, or the text that is not one.
    pub name: String,
    /// The first pass, if there was one.
    pub first_pass: Option<FirstPass>,
    /// The result; `None` for a name that was not checked.
    pub result: Option<Counted>,
    /// True if the name is not a domain.
    pub is_invalid: bool,
    /// True if its check ended without a result.
    pub has_failed: bool,
}

impl Earlier {
    /// True if DNS or the check failed, so that a later run may know more.
    pub fn is_undetermined(&self) -> bool {
        match &self.result {
            _ if self.has_failed => true,
            Some(result) => result.mode.is_none(),
            None => self.first_pass.is_some_and(FirstPass::is_undetermined),
        }
    }
}

/// Reads the lines of earlier results.
pub struct Reader {
    checks: HashMap<&'static str, Check>,
    causes: HashMap<&'static str, Cause>,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            checks: Check::ALL.iter().map(|check| (check.id(), *check)).collect(),
            causes: Cause::ALL.iter().map(|cause| (cause.id(), *cause)).collect(),
        }
    }
}

impl Reader {
    /// Reads a line. `None` for one that is not a result. Checks and causes of other versions are left out.
    pub fn read(&self, line: &[u8]) -> Option<Earlier> {
        let line: Line = serde_json::from_slice(line).ok()?;
        let is_invalid = line.domain.is_none();
        let severity = |text: &str| match text {
            "error" => Severity::Error,
            "warning" => Severity::Warning,
            _ => Severity::Info,
        };
        let findings = line.findings.iter().filter_map(|finding| {
            let cause = finding.cause.as_ref().and_then(|cause| self.causes.get(cause.id.as_str()).copied());
            Some((*self.checks.get(finding.check.as_str())?, severity(&finding.severity), cause))
        });
        let findings: Vec<_> = findings.collect();
        let is_incomplete = findings.iter().any(|(check, ..)| *check == Check::DnsServfail);
        let (mx, is_lost) = (line.mx(), line.is_lost());
        let counted = |mode| Counted { mode: Some(mode).filter(|_| !is_incomplete), findings, mx, is_lost };
        let result = line.mode.map(counted);
        let has_failed = line.failed.is_some();
        let name = line.domain.or(line.typed)?;
        Some(Earlier { name, first_pass: line.first_pass, result, is_invalid, has_failed })
    }
}
