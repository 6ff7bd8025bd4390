//! What a check says, and the verdict over all of it.

use crate::catalogue::{Check, Part, Severity};
use crate::senders::SenderView;
use formats::limits::{EVIDENCE_CHARACTERS, EVIDENCE_LINES};
use formats::{DomainName, Mode, PolicyId};
use net::dns::DnsError;
use std::collections::BTreeSet;

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
    /// What it was seen by: records, certificates, what was said; may be empty.
    pub evidence: Vec<String>,
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
    /// Checks that were made and found nothing, in the order of the catalogue.
    pub passed: Vec<Check>,
    /// What senders of each kind do with mail for it.
    pub senders: Vec<SenderView>,
    /// The record's `id` and the file, when both could be had: what the next look is held against.
    #[serde(skip)]
    pub published: Option<(PolicyId, Vec<u8>)>,
}

impl Examination {
    /// How many findings are of this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// True when something that decides could not be looked up.
    pub fn is_blind(&self) -> bool {
        self.findings.iter().any(|finding| finding.check == Check::DnsServfail)
    }
}

#[derive(Default)]
pub(crate) struct Findings {
    all: Vec<Finding>,
    parts: BTreeSet<Part>,
    pub senders: Vec<SenderView>,
}

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
        let (what, why) = (what.into(), why.into());
        self.all.push(Finding { check, severity, what, why, remedy, evidence: Vec::new() });
    }

    /// A look-up that failed for another reason than absence.
    pub(crate) fn dns_failure(&mut self, what: &str, error: &DnsError) {
        let check = if *error == DnsError::Bogus { Check::DnssecBogus } else { Check::DnsServfail };
        let why = match check {
            Check::DnssecBogus => {
                "Validating resolvers answer with an error: to their users the record is not \
                 there, and mail waits. The DS at the parent and the zone's keys and \
                 signatures do not fit."
            }
            _ => {
                "Senders can't tell whether the record is there, and new senders get no \
                 policy. Look at the zone's name servers."
            }
        };
        self.add(check, format!("{what}: {error}"), why, []);
    }

    /// Lays evidence to the finding that was added last.
    pub(crate) fn seen_by(&mut self, evidence: impl IntoIterator<Item = String>) {
        if let Some(last) = self.all.last_mut() {
            let room = EVIDENCE_LINES.saturating_sub(last.evidence.len());
            let short = |line: String| match line.char_indices().nth(EVIDENCE_CHARACTERS) {
                Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
                None => line,
            };
            last.evidence.extend(evidence.into_iter().take(room).map(short));
        }
    }

    /// Says that the checks of these parts were made.
    pub(crate) fn looked_at(&mut self, parts: &[Part]) {
        self.parts.extend(parts);
    }

    pub(crate) fn has(&self, check: Check) -> bool {
        self.all.iter().any(|finding| finding.check == check)
    }

    pub(crate) fn conclude(mut self, domain: &DomainName, mode: Mode) -> Examination {
        self.all.sort_by_key(|finding| (finding.severity, finding.check));
        let verdict = self.verdict(domain, mode);
        let passed = Check::ALL
            .iter()
            .copied()
            .filter(|check| self.parts.contains(&check.part()) && !self.has(*check))
            .collect();
        Examination {
            domain: domain.clone(),
            verdict,
            mode,
            findings: self.all,
            passed,
            senders: self.senders,
            published: None,
        }
    }

    fn verdict(&self, domain: &DomainName, mode: Mode) -> String {
        if self.has(Check::MxNull) {
            return format!("{domain} takes no mail, so there is nothing to protect.");
        }
        if self.has(Check::DomNxdomain) {
            return format!("There is no domain {domain}.");
        }
        if let Some(worst) = self.all.first().filter(|worst| worst.severity == Severity::Error) {
            if mode == Mode::None && worst.check == Check::DnsServfail {
                return format!("Whether {domain} is protected can't be told: {}.", worst.what);
            }
            return format!("{domain} {}: {}.", consequence(self, mode), worst.what);
        }
        let has_warning = self.all.iter().any(|finding| finding.severity == Severity::Warning);
        match mode {
            Mode::Enforce if has_warning => format!("{domain} is protected, with something to look at."),
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

/// What follows from the errors, for the first sentence.
fn consequence(findings: &Findings, mode: Mode) -> &'static str {
    let touches_mail = |finding: &Finding| {
        let part = finding.check.part();
        finding.severity == Severity::Error
            && matches!(
                part,
                Part::Mx
                    | Part::Match
                    | Part::Session
                    | Part::Tls
                    | Part::Dane
                    | Part::Domain
                    | Part::Dns
                    | Part::Signed
            )
    };
    let refuses =
        |finding: &Finding| finding.severity == Severity::Error && finding.check.part() == Part::Dane;
    match mode {
        Mode::Enforce if findings.all.iter().any(touches_mail) => "loses mail, or is about to",
        Mode::Enforce => "is protected, but not all is in order",
        Mode::Testing => "is not protected yet, and not ready to be",
        Mode::None if findings.all.iter().any(refuses) => {
            "loses mail of senders that use DANE, or is about to"
        }
        Mode::None => "is not protected",
    }
}
