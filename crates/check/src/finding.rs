//! Findings, and the verdict over them. The topic modules add their findings to a `Findings` list;
//! `Findings::conclude` sorts them, determines which checks passed and builds the [`Examination`].

use crate::catalogue::{Check, Part, Severity};
use crate::causes::behind_host::Remedied;
use crate::causes::{Cause, FoundCause};
use crate::protection::Protection;
use crate::senders::SenderView;
use formats::limits::{EVIDENCE_CHARACTERS, EVIDENCE_LINES};
use formats::printable::printable;
use formats::{DomainName, Mode, PolicyId};
use net::dns::DnsError;
use std::collections::BTreeSet;

/// One problem or fact that a check reports.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The check that reports it.
    pub check: Check,
    /// The severity for this domain, which may differ from the severity in the catalogue.
    pub severity: Severity,
    /// The finding in one sentence, including the observed value.
    pub what: String,
    /// How the problem came about; `None` where the check can't tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<FoundCause>,
    /// The consequence, and often the remedy in words.
    pub why: String,
    /// Records, configuration lines or commands to paste; may be empty.
    pub remedy: Vec<String>,
    /// The records, certificates or protocol lines behind the finding; may be empty.
    pub evidence: Vec<String>,
}

/// The result of checking one domain.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Examination {
    /// The checked domain.
    pub domain: DomainName,
    /// The overall result in one sentence.
    pub verdict: String,
    /// The verdict as one word.
    #[serde(skip)]
    pub protection: Protection,
    /// The mode that applies to new senders; [`Mode::None`] without a valid policy and record.
    pub mode: Mode,
    /// The findings, most severe first.
    pub findings: Vec<Finding>,
    /// Checks that were made and found nothing, in catalogue order.
    pub passed: Vec<Check>,
    /// What each kind of sender does with mail for the domain.
    pub senders: Vec<SenderView>,
    /// The record's `id` and the policy file, for comparison by the next check; `None` unless both were fetched.
    #[serde(skip)]
    pub published: Option<(PolicyId, Vec<u8>)>,
    /// The MX hosts, in order of preference.
    pub mx_hosts: Vec<CheckedMx>,
}

/// An MX host, and its certificate.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CheckedMx {
    /// The name in the MX record.
    pub host: DomainName,
    /// Whether senders accept the certificate under MTA-STS.
    pub certificate: CertificateState,
    /// The certificate that the host presented first, for comparison by the next check.
    #[serde(skip)]
    pub facts: Option<net::certificate::CertificateFacts>,
}

/// Whether the certificate of an MX host chains to a trusted root, and is valid now and for the name in the MX record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateState {
    /// It is valid at one address at least.
    Valid,
    /// It is not valid at any address.
    Invalid,
    /// No address presented a certificate, or none was connected to.
    Unknown,
}

impl Examination {
    /// The number of findings with this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// True when a required DNS lookup failed, so that the result is incomplete.
    pub fn is_incomplete(&self) -> bool {
        self.findings.iter().any(|finding| finding.check == Check::DnsServfail)
    }
}

/// Whether a session with an MX host came as far as TLS, so that something is known about certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum MxTls {
    #[default]
    Seen,
    NotSeen,
    /// The check was asked to leave the MX hosts out.
    Skipped,
}

#[derive(Default)]
pub(crate) struct Findings {
    all: Vec<Finding>,
    parts: BTreeSet<Part>,
    pub senders: Vec<SenderView>,
    pub mx_tls: MxTls,
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
        self.all.push(Finding { check, severity, what, cause: None, why, remedy, evidence: Vec::new() });
    }

    /// Adds a finding for a lookup that failed for a reason other than absence of the record.
    pub(crate) fn dns_failure(&mut self, what: &str, error: &DnsError) {
        let check = if *error == DnsError::Bogus { Check::DnssecBogus } else { Check::DnsServfail };
        let why = match check {
            Check::DnssecBogus => {
                "Validating resolvers return an error, so their users do not see the record and mail is \
                 delayed. Make sure that the DS record at the parent, the zone's keys and its signatures match."
            }
            _ => {
                "Senders can't determine whether the record exists, and new senders get no policy. Check the \
                 zone's name servers."
            }
        };
        self.add(check, format!("{what}: {error}"), why, []);
    }

    /// Names the cause of the finding that was added last.
    pub(crate) fn name_cause(&mut self, id: Cause, what: impl Into<String>) {
        if let Some(last) = self.all.last_mut() {
            last.cause = Some(FoundCause { id, what: what.into() });
        }
    }

    /// Names the cause of the finding that was added last, and replaces its remedy by that of the cause, if there is one.
    pub(crate) fn name_remedied(&mut self, found: Remedied) {
        if let Some(last) = self.all.last_mut() {
            last.cause = Some(found.cause);
            if !found.remedy.is_empty() {
                last.remedy = found.remedy;
            }
        }
    }

    /// Names the cause of the finding that was added last, if one was found.
    pub(crate) fn name_found(&mut self, found: Option<FoundCause>) {
        if let Some(last) = self.all.last_mut().filter(|_| found.is_some()) {
            last.cause = found;
        }
    }

    /// Attaches evidence to the finding that was added last, cut to [`EVIDENCE_LINES`] and [`EVIDENCE_CHARACTERS`].
    pub(crate) fn attach_evidence(&mut self, evidence: impl IntoIterator<Item = String>) {
        if let Some(last) = self.all.last_mut() {
            let room = EVIDENCE_LINES.saturating_sub(last.evidence.len());
            let short = |line: String| match line.char_indices().nth(EVIDENCE_CHARACTERS) {
                Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
                None => line,
            };
            last.evidence.extend(evidence.into_iter().take(room).map(short));
        }
    }

    /// Marks parts as examined: their checks without a finding count as passed.
    pub(crate) fn mark_examined(&mut self, parts: &[Part]) {
        self.parts.extend(parts);
    }

    pub(crate) fn has(&self, check: Check) -> bool {
        self.all.iter().any(|finding| finding.check == check)
    }

    pub(crate) fn conclude(mut self, domain: &DomainName, mode: Mode) -> Examination {
        self.all.iter_mut().for_each(make_printable);
        self.senders.iter_mut().for_each(|sender| sender.summary = plain(&sender.summary));
        self.all.sort_by_key(|finding| (finding.severity, finding.check));
        let verdict = self.verdict(domain, mode);
        let worst = self.all.first().map(|worst| (worst.severity, worst.check));
        let protection = Protection::of(&self, mode, worst);
        let passed = Check::ALL
            .iter()
            .copied()
            .filter(|check| self.parts.contains(&check.part()) && !self.has(*check))
            .collect();
        Examination {
            domain: domain.clone(),
            verdict,
            protection,
            mode,
            findings: self.all,
            passed,
            senders: self.senders,
            published: None,
            mx_hosts: Vec::new(),
        }
    }

    pub(crate) fn refuses_by_dane(&self) -> bool {
        let refuses =
            |finding: &Finding| finding.severity == Severity::Error && finding.check.part() == Part::Dane;
        self.all.iter().any(refuses)
    }

    fn verdict(&self, domain: &DomainName, mode: Mode) -> String {
        if self.has(Check::MxNull) {
            return format!("{domain} accepts no mail, so there is nothing to protect.");
        }
        if self.has(Check::DomNxdomain) {
            return format!("The domain {domain} does not exist.");
        }
        if let Some(worst) = self.all.first().filter(|worst| worst.severity == Severity::Error) {
            if mode == Mode::None && worst.check == Check::DnsServfail {
                return format!("Could not determine whether {domain} is protected: {}.", worst.what);
            }
            // A domain without a policy is not protected whatever its MX hosts do, so their errors are not the reason.
            let is_about_mx =
                matches!(worst.check.part(), Part::Mx | Part::Match | Part::Session | Part::Tls);
            if mode == Mode::None && is_about_mx && !self.refuses_by_dane() {
                return format!(
                    "{domain} is not protected: anyone on the path can strip TLS from mail to it. There is also an error: {}.",
                    worst.what
                );
            }
            return format!("{domain} {}: {}.", consequence(self, mode), worst.what);
        }
        let has_warning = self.all.iter().any(|finding| finding.severity == Severity::Warning);
        match mode {
            Mode::Enforce if self.mx_tls == MxTls::NotSeen => format!(
                "{domain} enforces its policy, but whether mail reaches it is not known: no session with an MX host came as far as TLS."
            ),
            Mode::Enforce if self.mx_tls == MxTls::Skipped => {
                format!("{domain} enforces its policy. The MX hosts were not checked.")
            }
            Mode::Enforce if has_warning => format!("{domain} is protected, but there are warnings."),
            Mode::Enforce => {
                format!("{domain} is protected: its policy is enforced, and no problems were found.")
            }
            Mode::Testing => format!("{domain} is not protected yet: its policy is in mode testing."),
            Mode::None if self.has(Check::DaneProtects) => {
                format!("{domain} is protected by DANE, but has no MTA-STS for senders without DANE.")
            }
            Mode::None => {
                format!("{domain} is not protected: anyone on the path can strip TLS from mail to it.")
            }
        }
    }
}

/// Makes all texts of a finding safe for terminals and pages: names in certificates, records, files and replies of servers
/// are chosen by others. This is the only place, so that no output can miss it.
fn make_printable(finding: &mut Finding) {
    let cause = finding.cause.iter_mut().map(|cause| &mut cause.what);
    let texts = [&mut finding.what, &mut finding.why].into_iter().chain(cause);
    texts.chain(&mut finding.remedy).chain(&mut finding.evidence).for_each(|text| *text = plain(text));
}

/// The text on one line, without control characters and without characters that change its direction.
fn plain(text: &str) -> String {
    printable(&text.replace(['\t', '\r', '\n'], " "), usize::MAX)
}

/// True for an error about MX hosts, their TLS or the zone, rather than about the policy.
fn is_about_mail(finding: &Finding) -> bool {
    finding.severity == Severity::Error
        && matches!(
            finding.check.part(),
            Part::Mx
                | Part::Match
                | Part::Session
                | Part::Tls
                | Part::Dane
                | Part::Domain
                | Part::Dns
                | Part::Signed
        )
}

/// The consequence of the errors, as the predicate of the verdict.
fn consequence(findings: &Findings, mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce if findings.all.iter().any(is_about_mail) => "is losing mail or is about to",
        Mode::Enforce => "is protected, but has errors",
        Mode::Testing => "is not protected yet and is not ready for mode enforce",
        Mode::None if findings.refuses_by_dane() => {
            "is losing mail from senders that use DANE, or is about to"
        }
        Mode::None => "is not protected",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_headline_joins_no_facts_that_do_not_belong_together() {
        let domain = DomainName::parse("example.org").unwrap();
        let verdict = |check: Check, mode| {
            let mut findings = Findings::default();
            findings.add_as(
                Severity::Error,
                check,
                "mx1: no connection".to_owned(),
                String::new(),
                Vec::<String>::new(),
            );
            findings.conclude(&domain, mode).verdict
        };
        assert_eq!(
            verdict(Check::SmtpUnreachable, Mode::None),
            "example.org is not protected: anyone on the path can strip TLS from mail to it. There is also an error: mx1: no connection."
        );
        let unseen = |mx_tls| {
            let mut findings = Findings { mx_tls, ..Findings::default() };
            findings.add(Check::SmtpBanner, "mx1: no answer", "", []);
            findings.conclude(&domain, Mode::Enforce).verdict
        };
        assert_eq!(unseen(MxTls::Seen), "example.org is protected, but there are warnings.");
        assert!(unseen(MxTls::NotSeen).starts_with("example.org enforces its policy, but whether mail"));
        assert_eq!(unseen(MxTls::Skipped), "example.org enforces its policy. The MX hosts were not checked.");
        // Here the error is the reason.
        assert_eq!(
            verdict(Check::StsTxtSyntax, Mode::None),
            "example.org is not protected: mx1: no connection."
        );
        assert_eq!(
            verdict(Check::SmtpUnreachable, Mode::Enforce),
            "example.org is losing mail or is about to: mx1: no connection."
        );
    }

    /// Characters that move the cursor, begin an escape sequence, forge a line or change the direction of the text.
    fn is_hostile(c: char) -> bool {
        printable(&c.to_string(), 1) != c.to_string()
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_of_others_reach_an_output_as_control_characters(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
            odd in "[\u{0}-\u{1f}\u{7f}-\u{9f}\u{200e}\u{202a}-\u{202e}\u{2028}\u{2066}-\u{2069}\u{feff}a-c]{1,20}",
        ) {
            let text = format!("{}{odd}\u{1b}]0;owned\u{7}", String::from_utf8_lossy(&bytes));
            let domain = DomainName::parse("example.org").unwrap();
            let mut findings = Findings::default();
            for severity in [Severity::Error, Severity::Warning, Severity::Info] {
                findings.add_as(severity, Check::HttpsCertName, text.clone(), text.clone(), [text.clone()]);
                findings.name_cause(Cause::CatchAll, text.clone());
                findings.attach_evidence([text.clone()]);
            }
            let sender = crate::senders::Sender::Strict;
            findings.senders.push(SenderView { sender, summary: text.clone(), hosts: Vec::new() });
            let seen = findings.conclude(&domain, Mode::Enforce);
            for finding in &seen.findings {
                let cause = finding.cause.iter().map(|cause| &cause.what);
                let texts = [&finding.what, &finding.why].into_iter().chain(cause);
                for text in texts.chain(&finding.remedy).chain(&finding.evidence) {
                    proptest::prop_assert!(!text.contains(is_hostile), "{text:?}");
                }
            }
            proptest::prop_assert!(!seen.verdict.contains(is_hostile), "{:?}", seen.verdict);
            proptest::prop_assert!(!seen.senders[0].summary.contains(is_hostile), "{:?}", seen.senders);
            use crate::render::{forms, page};
            let nagios = forms::nagios(&seen);
            proptest::prop_assert!(!nagios.contains(is_hostile), "{nagios:?}");
            let html = page::render(&[(seen.clone(), std::time::Duration::ZERO)], jiff::Timestamp::UNIX_EPOCH).unwrap();
            let junit = forms::junit(std::iter::once(&seen), true);
            for whole in [junit, html, forms::json(&seen), forms::prometheus(std::iter::once(&seen))] {
                proptest::prop_assert!(!whole.contains(|c| c != '\n' && is_hostile(c)), "{whole:?}");
            }
        }
    }
}
