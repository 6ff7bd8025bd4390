//! The receiving side of RFC 8461, 8460 and 7672 as a table for an auditor: what each RFC asks of a domain, how strongly, and
//! whether the domain does it. The verdicts derive from the findings of a check ([`Examination`]); nothing is looked up here.
//! Each row names the points of Internet.nl's mail test that ask for the same, as [`profile`](crate::profile) has them.

mod table;

use crate::catalogue::{Check, Severity};
use crate::finding::{Examination, Finding};
use crate::profile::{Point, internet_nl};
use formats::Mode;
use formats::requirement::Level;
use jiff::Timestamp;

/// The version of the JSON format of an [`Audit`].
pub const SCHEMA: u32 = 1;

/// Whether a domain does what a requirement asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The check found nothing against it.
    Met,
    /// The check found something against it.
    NotMet,
    /// The domain does not use the part of the protocol that the requirement is about.
    NotApplicable,
    /// The check did not get so far, such as to the policy file of a policy host that can't be reached.
    NotExamined,
}

impl Verdict {
    /// The words in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMet => "not met",
            Self::NotApplicable => "not applicable",
            Self::NotExamined => "not examined",
        }
    }
}

/// A requirement of an RFC, and the checks that speak against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Requirement {
    id: &'static str,
    rfc: &'static str,
    source: &'static str,
    level: Level,
    asks: &'static str,
    against: &'static [Check],
    /// Findings with which the requirement does not apply.
    unless: &'static [Check],
    /// The points of Internet.nl, by section and name, that ask for the same.
    points: &'static [(&'static str, &'static str)],
}

/// One row of an audit.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Item {
    /// The stable name of the row, such as `sts-record`.
    pub id: &'static str,
    /// The RFC: `RFC 8461`, `RFC 8460` or `RFC 7672`.
    pub rfc: &'static str,
    /// The section of that RFC, or of another document.
    pub source: &'static str,
    /// How strongly the requirement binds.
    pub level: Level,
    /// The requirement as a sentence.
    pub asks: &'static str,
    /// What else to know about the row, such as that it was judged although the domain has no policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
    /// Whether the domain does it.
    pub verdict: Verdict,
    /// The points of Internet.nl's mail test that ask for the same, as `section: name`.
    pub internet_nl: Vec<String>,
    /// What the check found against it.
    pub findings: Vec<Found>,
}

/// A finding that speaks against a requirement.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Found {
    /// The check, such as `STS-TXT-MISSING`.
    pub check: &'static str,
    /// The severity for this domain.
    pub severity: Severity,
    /// The finding in one sentence.
    pub what: String,
}

/// The table for one domain.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Audit {
    /// The version of the format, [`SCHEMA`].
    pub schema: u32,
    /// The domain.
    pub domain: String,
    /// When the domain was examined.
    pub time: Timestamp,
    /// The version of Sternpost that examined it.
    pub sternpost: &'static str,
    /// The result of the check in one sentence.
    pub summary: String,
    /// The mode that applies to new senders.
    pub mode: Mode,
    /// The rows, RFC by RFC.
    pub items: Vec<Item>,
    /// The points of Internet.nl's mail test, as an estimate.
    pub internet_nl: Vec<Point>,
}

impl Audit {
    /// The table for an examined domain. `time` is when it was examined.
    pub fn of(seen: &Examination, time: Timestamp) -> Self {
        Self {
            schema: SCHEMA,
            domain: seen.domain.to_string(),
            time,
            sternpost: env!("CARGO_PKG_VERSION"),
            summary: seen.verdict.clone(),
            mode: seen.mode,
            items: table::REQUIREMENTS.iter().map(|requirement| requirement.judged(seen)).collect(),
            internet_nl: internet_nl(seen),
        }
    }

    /// How many rows have this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.items.iter().filter(|item| item.verdict == verdict).count()
    }

    /// The rows of at least this level that the domain does not meet.
    pub fn unmet(&self, level: Level) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(move |item| item.verdict == Verdict::NotMet && item.level >= level)
    }

    /// The RFCs of the rows, in order.
    pub fn rfcs(&self) -> Vec<&'static str> {
        let mut all: Vec<&'static str> = self.items.iter().map(|item| item.rfc).collect();
        all.dedup();
        all
    }
}

/// The note of a row that RFC 8461 asks of domains with a policy, for a domain without one.
const WITHOUT_POLICY: &str = "judged without a policy: RFC 8461 asks it of domains with MTA-STS only; without it, mail is sent in cleartext";

impl Requirement {
    /// Whether RFC 8461 asks for it, and it is judged for domains without a policy as well.
    fn needs_no_policy(&self) -> bool {
        let names = |checks: &[Check]| checks.contains(&Check::StsTxtMissing);
        self.source.starts_with("RFC 8461") && !names(self.against) && !names(self.unless)
    }

    fn judged(&self, seen: &Examination) -> Item {
        let is_found = |check: &Check| seen.findings.iter().any(|finding| finding.check == *check);
        let against: Vec<&Finding> =
            seen.findings.iter().filter(|finding| self.against.contains(&finding.check)).collect();
        let verdict = if !against.is_empty() {
            Verdict::NotMet
        } else if self.unless.iter().any(is_found) {
            Verdict::NotApplicable
        } else if self.against.iter().any(|check| seen.passed.contains(check)) {
            Verdict::Met
        } else {
            Verdict::NotExamined
        };
        let is_without_policy = self.needs_no_policy() && is_found(&Check::StsTxtMissing);
        let found = |finding: &&Finding| Found {
            check: finding.check.id(),
            severity: finding.severity,
            what: finding.what.clone(),
        };
        Item {
            id: self.id,
            rfc: self.rfc,
            source: self.source,
            level: if is_without_policy { Level::May } else { self.level },
            asks: self.asks,
            note: is_without_policy.then_some(WITHOUT_POLICY),
            verdict,
            internet_nl: self.points.iter().map(|(section, name)| format!("{section}: {name}")).collect(),
            findings: against.iter().map(found).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Findings;
    use formats::DomainName;
    use std::collections::BTreeSet;

    fn seen(fill: impl FnOnce(&mut Findings)) -> Examination {
        let mut findings = Findings::default();
        fill(&mut findings);
        findings.conclude(&DomainName::parse("example.org").unwrap(), Mode::None)
    }

    fn audit(fill: impl FnOnce(&mut Findings)) -> Audit {
        Audit::of(&seen(fill), Timestamp::UNIX_EPOCH)
    }

    fn verdict(audit: &Audit, id: &str) -> Verdict {
        audit.items.iter().find(|item| item.id == id).unwrap().verdict
    }

    #[test]
    fn each_row_has_a_name_of_its_own_and_is_one_of_the_three_rfcs() {
        let names: BTreeSet<&str> = table::REQUIREMENTS.iter().map(|row| row.id).collect();
        assert_eq!(names.len(), table::REQUIREMENTS.len());
        assert_eq!(audit(|_| {}).rfcs(), ["RFC 8461", "RFC 8460", "RFC 7672"]);
    }

    /// A point of Internet.nl belongs to a row if a check that speaks against the one speaks against the other, and each point
    /// about these RFCs belongs to one.
    #[test]
    fn the_mapping_to_internet_nl_follows_from_the_checks() {
        let mut mapped = BTreeSet::new();
        for row in table::REQUIREMENTS {
            for check in row.against {
                let failing = internet_nl(&seen(|findings| findings.add(*check, "", "", [])));
                let failed = failing.iter().filter(|point| point.state == crate::profile::State::Failed);
                for point in failed {
                    let named = row.points.contains(&(point.section, point.name));
                    assert!(named, "{} does not name {}: {}", row.id, point.section, point.name);
                    mapped.insert((point.section, point.name));
                }
            }
            let named = row.points.iter().all(|point| mapped.contains(point));
            assert!(named, "{} names a point that none of its checks concerns", row.id);
        }
        let concerned = internet_nl(&seen(|_| {}))
            .into_iter()
            .filter(|point| ["DNSSEC", "STARTTLS", "DANE"].contains(&point.section))
            .filter(|point| !point.name.starts_with("TLS compression"));
        for point in concerned {
            assert!(mapped.contains(&(point.section, point.name)), "{}: {}", point.section, point.name);
        }
    }

    #[test]
    fn what_was_not_looked_at_is_neither_met_nor_unmet() {
        let nothing = audit(|_| {});
        assert_eq!(nothing.count(Verdict::NotExamined), nothing.items.len());
        assert_eq!(nothing.unmet(Level::May).count(), 0);
    }

    /// A domain that does not use MTA-STS violates nothing of RFC 8461.
    #[test]
    fn what_is_judged_without_a_policy_says_so_and_binds_nobody() {
        let stripped = |findings: &mut Findings| {
            findings.add(Check::SmtpNoStarttls, "mx1 does not offer STARTTLS", "", []);
            findings.add(Check::SmtpTlsLegacy, "mx1 accepts TLS 1.0", "", []);
        };
        let rows = |audit: &Audit, level| audit.unmet(level).map(|item| item.id).collect::<Vec<_>>();
        let with = audit(stripped);
        assert_eq!(rows(&with, Level::Must), ["mx-starttls"]);
        assert!(with.items.iter().all(|item| item.note.is_none()));
        let without = audit(|findings| {
            findings.add(Check::StsTxtMissing, "no record", "", []);
            stripped(findings);
        });
        assert_eq!(rows(&without, Level::Should), ["mx-strength"], "RFC 8996 asks it of every host");
        let noted: Vec<_> =
            without.items.iter().filter(|item| item.note.is_some()).map(|item| item.id).collect();
        assert_eq!(noted, ["mx-starttls", "mx-tls", "mx-addresses-agree"]);
        for page in [crate::render::audit::text(&without), crate::render::audit::markdown(&without)] {
            assert!(page.contains("judged without a policy"), "{page}");
        }
    }

    #[test]
    fn a_finding_speaks_against_its_row_and_the_rows_that_rest_on_it_do_not_apply() {
        let audit = audit(|findings| {
            findings.mark_examined(&[crate::catalogue::Part::Dane, crate::catalogue::Part::Tlsrpt]);
            findings.add(Check::DaneAbsent, "no MX host has TLSA records", "", []);
        });
        assert_eq!(verdict(&audit, "dane-records"), Verdict::NotMet);
        assert_eq!(verdict(&audit, "dane-match"), Verdict::NotApplicable);
        assert_eq!(verdict(&audit, "report-record"), Verdict::Met);
        assert_eq!(verdict(&audit, "policy-file"), Verdict::NotExamined);
        assert_eq!(audit.unmet(Level::Must).count(), 0);
        assert_eq!(audit.unmet(Level::May).map(|item| item.id).collect::<Vec<_>>(), ["dane-records"]);
    }
}
