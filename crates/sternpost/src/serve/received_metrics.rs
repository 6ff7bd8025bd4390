//! Metrics of received TLS reports (`/metrics`). Sums come from the store, over the last 30 days, and are read again when the
//! stored reports have changed, at most once a minute; counters of arrivals come from the inbox of this process.
//!
//! Strangers choose the domains and submitters in reports, so the number of series is bounded: series by domain exist for
//! own domains only, and for at most [`MAX_DOMAINS`] of them; series by submitter for the largest ones, and `other`.

use config::Config;
use formats::report::DateRange;
use jiff::{SignedDuration, Timestamp};
use net::clock::Clock;
use net::metrics::{self, Counter, Counters, Gauges, Registry};
use prometheus_client::encoding::text::encode;
use receiver::domain::DomainSpec;
use receiver::inbox::{InboxCounts, LeftAlone};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::reports::{DomainTotal, LastReport, SubmitterTotal};
use store::{Outage, Store, StoreError};
use tokio::sync::Mutex;

/// Maximum number of domains with series of their own.
const MAX_DOMAINS: usize = 1000;
/// Maximum number of submitters with series of their own, of those that are verified and of the others.
const MAX_SUBMITTERS: u32 = 50;
/// The submitter that stands for all further ones. It is not a domain.
const OTHER: &str = "other";
/// Days whose reports are summed.
const WINDOW: SignedDuration = SignedDuration::from_hours(24 * 30);
/// Least time between two readings of the sums.
const REFRESH: SignedDuration = SignedDuration::from_mins(1);

/// Reads the metrics of received reports.
pub struct ReceivedMetrics {
    store: Store,
    clock: Arc<dyn Clock>,
    counts: Arc<InboxCounts>,
    /// The domains of the configuration file.
    configured: Vec<String>,
    /// The domains of `metrics.domains`; empty for all.
    selected: BTreeSet<String>,
    held: Mutex<Option<Held>>,
    outage: Outage,
}

/// The sums as they were read.
struct Held {
    version: i64,
    at: Timestamp,
    sums: Arc<Sums>,
}

/// The sums over received reports.
#[derive(Debug, Default)]
struct Sums {
    /// The own domains with series of their own.
    domains: Vec<DomainTotal>,
    /// The sum of all own domains; its name is empty.
    all: Option<DomainTotal>,
    last: Vec<LastReport>,
    /// The largest submitters, and at the end the sum of all.
    verified: Vec<SubmitterTotal>,
    unverified: Vec<SubmitterTotal>,
}

/// The value of the label `evidence`: whether reports count as evidence.
fn evidence(counts: bool) -> &'static str {
    if counts { "verified" } else { "unverified" }
}

impl ReceivedMetrics {
    pub fn new(config: &Config, store: &Store, clock: Arc<dyn Clock>) -> Self {
        Self {
            store: store.clone(),
            clock,
            counts: InboxCounts::shared(),
            configured: config.domains.iter().map(|spec| spec.name.to_string()).collect(),
            selected: config.metrics_domains.iter().map(ToString::to_string).collect(),
            held: Mutex::new(None),
            outage: Outage::new(),
        }
    }

    /// The metrics in the OpenMetrics format, with its last line. If the store fails, the sums are omitted.
    pub async fn to_text(&self) -> String {
        let sums = self.sums().await;
        let (fails, again) = (
            "the metrics of received reports can't be read",
            "the metrics of received reports are read again",
        );
        self.outage.log(&sums, fails, again);
        let sums = sums.unwrap_or_default();
        text(&sums, &self.counts, self.clock.now())
    }

    async fn sums(&self) -> Result<Arc<Sums>, StoreError> {
        let mut held = self.held.lock().await;
        let now = self.clock.now();
        let age = |held: &Held| now.duration_since(held.at).abs();
        if let Some(current) = held.as_ref().filter(|held| age(held) < REFRESH) {
            return Ok(current.sums.clone());
        }
        let version = self.store.reports_version().await?;
        let is_same_day = |held: &Held| DateRange::utc_day(held.at) == DateRange::utc_day(now);
        let unchanged = held.take().filter(|held| held.version == version && is_same_day(held));
        let sums = match unchanged {
            Some(held) => held.sums,
            None => Arc::new(self.read(now).await?),
        };
        *held = Some(Held { version, at: now, sums: sums.clone() });
        Ok(sums)
    }

    async fn read(&self, now: Timestamp) -> Result<Sums, StoreError> {
        let since = DateRange::utc_day(now.saturating_sub(WINDOW).unwrap_or(now)).start;
        // A domain whose settings can't be read is one of ours all the same.
        let added = self.store.domains::<DomainSpec>().await?.into_iter().map(|(name, _)| name);
        let own: BTreeSet<String> = self.configured.iter().cloned().chain(added).collect();
        let names: Vec<&str> = own.iter().map(String::as_str).collect();
        let totals = self.store.domain_totals(&names, since).await?;
        let named = named(&own, &self.selected);
        let listed: Vec<&str> = named.iter().map(String::as_str).collect();
        Ok(Sums {
            last: self.store.last_reports(&listed, since).await?,
            all: Some(all(&totals)),
            domains: totals.into_iter().filter(|total| named.contains(&total.domain)).collect(),
            verified: self.store.submitter_totals(true, since, MAX_SUBMITTERS).await?,
            unverified: self.store.submitter_totals(false, since, MAX_SUBMITTERS).await?,
        })
    }
}

/// The domains with series of their own: the selected ones that are ours, or all if there are few enough.
fn named(own: &BTreeSet<String>, selected: &BTreeSet<String>) -> BTreeSet<String> {
    match selected.is_empty() {
        true if own.len() <= MAX_DOMAINS => own.clone(),
        true => BTreeSet::new(),
        false => selected.intersection(own).take(MAX_DOMAINS).cloned().collect(),
    }
}

fn all(totals: &[DomainTotal]) -> DomainTotal {
    let zero = DomainTotal { domain: String::new(), successful: 0, failed: 0, unproved: 0 };
    totals.iter().fold(zero, |sum, one| DomainTotal {
        domain: sum.domain,
        successful: sum.successful.saturating_add(one.successful),
        failed: sum.failed.saturating_add(one.failed),
        unproved: sum.unproved.saturating_add(one.unproved),
    })
}

/// The results of a domain's sessions, with their numbers.
fn results(total: &DomainTotal) -> [(&'static str, u64); 3] {
    [("successful", total.successful), ("failed", total.failed), ("unverified", total.unproved)]
}

fn text(sums: &Sums, counts: &InboxCounts, now: Timestamp) -> String {
    let mut registry = Registry::default();
    register_domains(&mut registry, sums, now);
    register_submitters(&mut registry, sums);
    register_arrivals(&mut registry, counts);
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = encode(&mut text, &registry);
    text
}

fn register_domains(registry: &mut Registry, sums: &Sums, now: Timestamp) {
    // Without the sums, zeros would look like numbers.
    if let Some(all) = &sums.all {
        let totals = Gauges::new(&metrics::RECEIVED_SESSIONS);
        results(all).into_iter().for_each(|(result, count)| totals.set(&[result], count));
        totals.register(registry);
    }
    let domains = Gauges::new(&metrics::RECEIVED_DOMAIN_SESSIONS);
    for total in &sums.domains {
        for (result, count) in results(total) {
            domains.set(&[&total.domain, result], count);
        }
    }
    domains.register(registry);
    let ages = Gauges::new(&metrics::RECEIVED_LAST_REPORT_AGE);
    for last in &sums.last {
        let age = now.duration_since(last.received_at).as_secs().max(0);
        ages.of(&[&last.domain, evidence(last.counts)]).set(age);
    }
    ages.register(registry);
}

fn register_submitters(registry: &mut Registry, sums: &Sums) {
    let submitters = Gauges::new(&metrics::RECEIVED_SUBMITTER_SESSIONS);
    for (counts, totals) in [(true, &sums.verified), (false, &sums.unverified)] {
        let evidence = evidence(counts);
        let Some((all, largest)) = totals.split_last() else { continue };
        let mut rest = (all.successful, all.failed);
        let set = |submitter: &str, successful: u64, failed: u64| {
            submitters.set(&[submitter, evidence, "successful"], successful);
            submitters.set(&[submitter, evidence, "failed"], failed);
        };
        for total in largest {
            set(&total.submitter, total.successful, total.failed);
            rest = (rest.0.saturating_sub(total.successful), rest.1.saturating_sub(total.failed));
        }
        set(OTHER, rest.0, rest.1);
    }
    submitters.register(registry);
}

fn register_arrivals(registry: &mut Registry, counts: &InboxCounts) {
    let counter = |count: u64| {
        let counter: Counter = Counter::default();
        counter.inc_by(count);
        counter
    };
    let arrived = Counters::new(&metrics::RECEIVED_REPORTS);
    for (arrival, trust, count) in counts.reports() {
        arrived.of(&[way(arrival), &trust.to_string()]).inc_by(count);
    }
    arrived.register(registry);
    let left_alone = Counters::new(&metrics::INBOX_LEFT_ALONE);
    for (name, kind) in [("dmarc", LeftAlone::Dmarc), ("other", LeftAlone::Other)] {
        left_alone.of(&[name]).inc_by(counts.left_alone(kind));
    }
    left_alone.register(registry);
    metrics::RECEIVED_DMARC_REPORTS.register(registry, counter(counts.dmarc()));
    metrics::INBOX_QUARANTINED.register(registry, counter(counts.quarantined()));
}

fn way(arrival: store::reports::Arrival) -> &'static str {
    use store::reports::Arrival;
    match arrival {
        Arrival::Smtp => "smtp",
        Arrival::Lmtp => "lmtp",
        Arrival::Https => "https",
        Arrival::Import => "import",
        Arrival::Imap => "imap",
    }
}

#[cfg(test)]
mod tests;
