//! The MX hosts on a domain's page: what the guard's probes found, the certificates that they saw, and the failures that
//! reports name.

use super::DomainData;
use super::failures::is_recent;
use crate::judge::Mark;
use crate::text;
use formats::DomainName;
use jiff::Timestamp;
use operations::seen_certificates::{self, SeenCertificate};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use store::{Store, StoreError};

/// A row of the table of MX hosts.
#[derive(Serialize)]
pub struct HostRow {
    pub host: String,
    /// Probes that passed.
    pub good: u64,
    /// Probes that failed.
    pub bad: u64,
    /// The problem of the last failed probe, with its day; empty if none failed.
    pub last_problem: String,
    /// Failed sessions in reports.
    pub reported: u64,
    /// The state by the last day with probes.
    #[serde(skip)]
    pub mark: Mark,
    /// True if it is an MX host now, as far as is known.
    #[serde(skip)]
    pub is_mx: bool,
    #[serde(skip)]
    pub certificate: Option<SeenCertificate>,
    /// True if senders reported failures of the last days.
    #[serde(skip)]
    pub is_reported_now: bool,
    /// The last day with probes, and whether all of that day passed.
    #[serde(skip)]
    last: Option<(Timestamp, bool)>,
}

impl HostRow {
    fn new(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            good: 0,
            bad: 0,
            last_problem: String::new(),
            reported: 0,
            mark: Mark("way", "· No data yet"),
            is_mx: false,
            certificate: None,
            is_reported_now: false,
            last: None,
        }
    }

    /// True if the certificate ends soon.
    pub fn is_ending(&self, now: &Timestamp) -> bool {
        self.certificate.as_ref().is_some_and(|seen| seen.validity.ends_soon(*now))
    }

    /// The time that the certificate is still valid, in words.
    pub fn left(&self, now: &Timestamp) -> String {
        match &self.certificate {
            Some(seen) if seen.validity.until <= *now => "expired".to_owned(),
            Some(seen) => format!("{} left", text::age(*now, seen.validity.until)),
            None => String::new(),
        }
    }
}

/// The hosts that are MX hosts, that were probed, or that reports name. MX hosts come first, since a report may contain
/// any name.
pub async fn hosts(facts: &DomainData, store: &Store, now: Timestamp) -> Result<Vec<HostRow>, StoreError> {
    let mut rows = rows(facts, now);
    let names: Vec<DomainName> = rows.iter().filter_map(|row| DomainName::parse(&row.host).ok()).collect();
    let mut seen = seen_certificates::of(store, &names.iter().collect::<Vec<_>>()).await?;
    for row in &mut rows {
        row.certificate = seen.remove(&row.host);
    }
    Ok(rows)
}

fn rows(facts: &DomainData, now: Timestamp) -> Vec<HostRow> {
    let mx: BTreeSet<&str> = facts.rollout.mx.iter().map(DomainName::as_str).collect();
    let mut rows: BTreeMap<&str, HostRow> = mx.iter().map(|host| (*host, HostRow::new(host))).collect();
    let names: BTreeSet<&str> = facts.host_days.iter().map(|day| day.name.as_str()).collect();
    for name in names {
        let row = rows.entry(name).or_insert_with(|| HostRow::new(name));
        let days = facts.host_days.iter().filter(|day| day.name == name);
        row.reported = days.clone().fold(0_u64, |sum, day| sum.saturating_add(day.failed));
        row.is_reported_now = days.clone().any(|day| day.failed > 0 && is_recent(day.day, now));
    }
    // The oldest day comes first.
    for probe in &facts.probes {
        let row = rows.entry(&probe.host).or_insert_with(|| HostRow::new(&probe.host));
        row.good += probe.good;
        row.bad += probe.bad;
        let was_good = row.last.is_none_or(|(day, is_good)| day < probe.day || is_good);
        row.last = Some((probe.day, was_good && probe.bad == 0));
        if !probe.problem.is_empty() {
            row.last_problem = format!("{} ({})", probe.problem, text::date(&probe.day));
        }
    }
    let mut rows: Vec<HostRow> = rows
        .into_values()
        .map(|row| HostRow {
            mark: match row.last {
                Some((_, true)) => Mark("fine", "✓ Passed"),
                Some((_, false)) => Mark("failing", "✗ Failed"),
                None => row.mark,
            },
            // Before an observation, every host may be one.
            is_mx: mx.is_empty() || mx.contains(row.host.as_str()),
            ..row
        })
        .collect();
    rows.sort_by_key(|row| (!row.is_mx, row.last.is_none()));
    rows
}
