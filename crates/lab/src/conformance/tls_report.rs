//! TLS reports (RFC 8460): what a case asks of them at the end of a day, and whether what arrived is that.
//!
//! [`super::inbox`] takes the reports that a mail server sends to the lab and reads them; [`super::run`] has them judged here when
//! the mail server has sent the reports of a day.

use super::oracle::Outcome;
use formats::DomainName;
use formats::report::{DateRange, PolicyReport, ReadReport};
use formats::result_type::PolicyType;
use std::collections::BTreeSet;

/// What the reports about the domain of a case have to be at the end of a day.
#[derive(Debug, Clone)]
pub struct Day {
    /// The number of messages of the day. They are the next phases of the case.
    pub messages: usize,
    /// The addresses and URLs that have to get the report; empty if there may be no report.
    pub targets: Vec<String>,
    /// The policies that the report has to have, whatever else it has.
    pub entries: Vec<Entry>,
    /// What else has to hold for each report of the day.
    pub checks: Vec<ReportCheck>,
}

/// What a report has to say about the sessions under one policy.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The type of the policy.
    pub policy: PolicyType,
    /// The number of successful sessions.
    pub successful: u64,
    /// The number of failed sessions.
    pub failed: u64,
    /// The result types, each with the names that describe the failure rightly. Empty: there is no failure.
    pub results: Vec<&'static [&'static str]>,
}

/// A condition on each report of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportCheck {
    /// The numbers of sessions are those of the entries.
    Counts,
    /// The entries have these lines of a policy, or lines that begin so.
    PolicyStrings(&'static [&'static str]),
    /// The text has the form of RFC 8460 §4 without deviations.
    Form,
    /// The mail has a DKIM signature of the submitter over the whole message.
    Signed,
    /// The mail has the subject, the headers and the media types of RFC 8460 §5.3.
    MailHeaders,
    /// The file has the name of RFC 8460 §5.1 and is compressed.
    FileName,
    /// The report covers one day, and not the one of an earlier report, whose ID it does not have.
    NextDay,
}

impl ReportCheck {
    /// The condition as a sentence.
    pub fn sentence(self) -> String {
        match self {
            Self::Counts => "the report counts each session once".into(),
            Self::PolicyStrings(lines) => format!("the report has the policy: {}", lines.join(", ")),
            Self::Form => "the report has the form of RFC 8460 §4".into(),
            Self::Signed => "the mail is signed by the submitter's domain".into(),
            Self::MailHeaders => "subject, headers and media types are those of RFC 8460 §5.3".into(),
            Self::FileName => "the file is compressed and its name is that of RFC 8460 §5.1".into(),
            Self::NextDay => "each report covers a day of its own and has an ID of its own".into(),
        }
    }
}

/// A report that reached the lab.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// The address or URL that got it, such as `mailto:report@reports.test`.
    pub to: String,
    /// The report, or why it can't be read.
    pub report: Result<ReadReport, String>,
    /// Why the mail is not signed by the submitter's domain; `Ok` for reports by HTTPS, which need no signature.
    pub signed: Result<(), String>,
    /// What is wrong with the headers of the mail or the media type of the request.
    pub headers: Result<(), String>,
    /// What is wrong with the name or the compression of the file.
    pub file: Result<(), String>,
}

impl Arrived {
    /// The report in one line, for the results.
    pub fn line(&self) -> String {
        let text = match &self.report {
            Err(why) => format!("unreadable: {why}"),
            Ok(read) => {
                let entries: Vec<String> = read.report.policies.iter().map(entry_line).collect();
                format!("{}: {}", read.report.report_id, entries.join("; "))
            }
        };
        format!("report to {}, {text}", self.to)
    }
}

fn entry_line(entry: &PolicyReport) -> String {
    let results: Vec<String> = entry
        .details
        .iter()
        .map(|detail| format!(" {} x {}", detail.failed_session_count, detail.result_type))
        .collect();
    format!(
        "{} {} successful {} failed {}{}",
        entry.policy_type.as_str(),
        entry.policy_domain.as_ref().map_or("-", DomainName::as_str),
        entry.successful,
        entry.failed,
        results.concat()
    )
}

impl Day {
    /// The expectation as a sentence, for reports.
    pub fn sentence(&self) -> String {
        if self.targets.is_empty() {
            return "no report is sent".into();
        }
        let entry = |entry: &Entry| {
            let results: Vec<String> = entry.results.iter().map(|names| names.join(" or ")).collect();
            match results.is_empty() {
                true => format!("{} with success", entry.policy.as_str()),
                false => format!("{} with {}", entry.policy.as_str(), results.join(", ")),
            }
        };
        let entries: Vec<String> = self.entries.iter().map(entry).collect();
        let mut text = format!("a report to {}: {}", self.targets.join(", "), entries.join("; "));
        for check in &self.checks {
            text += "; ";
            text += &check.sentence();
        }
        text
    }

    /// The outcome of a day with the reason unless it conforms. `earlier` are the reports of the days before.
    pub fn judge(&self, domain: &str, arrived: &[Arrived], earlier: &[Arrived]) -> (Outcome, Option<String>) {
        match self.first_fault(domain, arrived, earlier) {
            Some(why) => (Outcome::Violates, Some(why)),
            None => (Outcome::Conforms, None),
        }
    }

    fn first_fault(&self, domain: &str, arrived: &[Arrived], earlier: &[Arrived]) -> Option<String> {
        if self.targets.is_empty() {
            return arrived
                .first()
                .map(|one| format!("there may be no report, and there is a {}", one.line()));
        }
        if let Some(missing) =
            self.targets.iter().find(|target| !arrived.iter().any(|one| one.to == **target))
        {
            return Some(format!("no report reached {missing}"));
        }
        for target in &self.targets {
            let here: Vec<&Arrived> = arrived.iter().filter(|one| one.to == *target).collect();
            let fault = self.entries_fault(domain, &here).or_else(|| {
                here.iter()
                    .find_map(|one| {
                        self.checks
                            .iter()
                            .find_map(|check| one.fault(*check, earlier).map(|why| (*check, why)))
                    })
                    .map(|(check, why)| format!("not so: {}: {why}", check.sentence()))
            });
            if fault.is_some() {
                return fault;
            }
        }
        None
    }

    /// What is wrong with the entries of the reports to one target. A run over midnight has two reports, whose numbers add up.
    fn entries_fault(&self, domain: &str, here: &[&Arrived]) -> Option<String> {
        let mut entries: Vec<&PolicyReport> = Vec::new();
        for one in here {
            match &one.report {
                Err(why) => return Some(format!("the report to {} can't be read: {why}", one.to)),
                Ok(read) => entries.extend(&read.report.policies),
            }
        }
        let is_about = |entry: &&&PolicyReport| match (&entry.policy_type, &entry.policy_domain) {
            // RFC 8460 §4.4: the policy domain of DANE is the TLSA base domain.
            (PolicyType::Tlsa, Some(name)) => {
                name.as_str() == domain || name.as_str().ends_with(&format!(".{domain}"))
            }
            (_, Some(name)) => name.as_str() == domain,
            (_, None) => false,
        };
        for wanted in &self.entries {
            let of_policy: Vec<&PolicyReport> = entries
                .iter()
                .filter(is_about)
                .filter(|entry| entry.policy_type == wanted.policy)
                .copied()
                .collect();
            let kind = wanted.policy.as_str();
            if of_policy.is_empty() {
                return Some(format!("the report has no policy of the type {kind} for {domain}"));
            }
            let fault =
                wanted.results_fault(&of_policy).or_else(|| wanted.strings_fault(&of_policy, &self.checks));
            let fault = fault.or_else(|| wanted.counts_fault(&of_policy, &self.checks));
            if let Some(why) = fault {
                return Some(format!("{kind}: {why}"));
            }
        }
        None
    }
}

impl Entry {
    fn results_fault(&self, entries: &[&PolicyReport]) -> Option<String> {
        let seen: BTreeSet<&str> = entries
            .iter()
            .flat_map(|entry| &entry.details)
            .map(|detail| detail.result_type.as_str())
            .collect();
        let is_wanted = |name: &&&str| self.results.iter().any(|names| names.contains(*name));
        if let Some(other) = seen.iter().find(|name| !is_wanted(name)) {
            return Some(format!("the result type {other} is not what happened"));
        }
        let missing = self.results.iter().find(|names| !names.iter().any(|name| seen.contains(name)))?;
        Some(format!("no failure with the result type {}", missing.join(" or ")))
    }

    fn strings_fault(&self, entries: &[&PolicyReport], checks: &[ReportCheck]) -> Option<String> {
        let wanted = checks.iter().find_map(|check| match check {
            ReportCheck::PolicyStrings(lines) => Some(*lines),
            _ => None,
        })?;
        let has = |line: &str| {
            entries.iter().flat_map(|entry| &entry.policy_string).any(|string| string.starts_with(line))
        };
        let missing = wanted.iter().find(|line| !has(line))?;
        Some(format!("the policy-string has no line that begins with {missing:?}"))
    }

    fn counts_fault(&self, entries: &[&PolicyReport], checks: &[ReportCheck]) -> Option<String> {
        if !checks.contains(&ReportCheck::Counts) {
            return None;
        }
        let sum = |number: fn(&PolicyReport) -> u64| entries.iter().map(|entry| number(entry)).sum::<u64>();
        let seen = (sum(|entry| entry.successful), sum(|entry| entry.failed));
        let wanted = (self.successful, self.failed);
        (seen != wanted).then(|| {
            format!(
                "{} successful and {} failed sessions instead of {} and {}",
                seen.0, seen.1, wanted.0, wanted.1
            )
        })
    }
}

impl Arrived {
    fn fault(&self, check: ReportCheck, earlier: &[Self]) -> Option<String> {
        let read = self.report.as_ref().ok()?;
        match check {
            // Judged with the entries.
            ReportCheck::Counts | ReportCheck::PolicyStrings(_) => None,
            ReportCheck::Form => {
                read.warnings.first().map(|warning| format!("{}: {}", warning.path, warning.quirk))
            }
            ReportCheck::Signed => self.signed.clone().err(),
            ReportCheck::MailHeaders => self.headers.clone().err(),
            ReportCheck::FileName => self.file.clone().err(),
            ReportCheck::NextDay => {
                let range = read.report.date_range;
                if DateRange::utc_day(range.start) != range {
                    return Some(format!("it covers {} to {}", range.start, range.end));
                }
                let same = earlier.iter().filter_map(|one| one.report.as_ref().ok()).find(|one| {
                    one.report.report_id == read.report.report_id || one.report.date_range == range
                });
                same.map(|one| format!("an earlier report has the ID {}", one.report.report_id))
            }
        }
    }
}
