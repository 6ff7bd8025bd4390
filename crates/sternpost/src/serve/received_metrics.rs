//! Metrics of received TLS reports (`/metrics`). Sums come from the store, over the last 30 days, and are read again when the
//! stored reports have changed, at most once a minute; counters of arrivals come from the inbox of this process.
//!
//! Strangers choose the domains and submitters in reports, so the number of series is bounded: series by domain exist for
//! own domains only, and for at most [`MAX_DOMAINS`] of them; series by submitter for the largest ones, and `other`.

use config::Config;
use formats::report::DateRange;
use jiff::{SignedDuration, Timestamp};
use net::clock::Clock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use receiver::domain::DomainSpec;
use receiver::inbox::{InboxCounts, LeftAlone};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::reports::{DomainTotal, LastReport, SubmitterTotal};
use store::{Store, StoreError};
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
    /// `metrics.domains`.
    selected: BTreeSet<String>,
    held: Mutex<Option<Held>>,
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDomain {
    domain: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySubmitter {
    submitter: String,
    evidence: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Age {
    domain: String,
    evidence: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByArrival {
    way: &'static str,
    trust: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
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
        }
    }

    /// The metrics in the OpenMetrics format, with its last line. If the store fails, the sums are omitted.
    pub async fn to_text(&self) -> String {
        let sums = self.sums().await.unwrap_or_else(|error| {
            tracing::error!("the metrics of received reports can't be read: {error}");
            Arc::default()
        });
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

/// The value of a gauge, at most the largest integer.
fn value(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn text(sums: &Sums, counts: &InboxCounts, now: Timestamp) -> String {
    let mut registry = Registry::with_prefix("sternpost");
    register_domains(&mut registry, sums, now);
    register_submitters(&mut registry, sums);
    register_arrivals(&mut registry, counts);
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = encode(&mut text, &registry);
    text
}

fn register_domains(registry: &mut Registry, sums: &Sums, now: Timestamp) {
    let totals = Family::<ByResult, Gauge>::default();
    for (result, count) in sums.all.iter().flat_map(results) {
        totals.get_or_create(&ByResult { result }).set(value(count));
    }
    let help = "Sessions in received reports about all own domains, over the days of the last 30 days";
    registry.register("received_sessions", help, totals);
    let domains = Family::<ByDomain, Gauge>::default();
    for total in &sums.domains {
        for (result, count) in results(total) {
            domains.get_or_create(&ByDomain { domain: total.domain.clone(), result }).set(value(count));
        }
    }
    let help = "Sessions in received reports by own domain, over the days of the last 30 days";
    registry.register("received_domain_sessions", help, domains);
    let ages = Family::<Age, Gauge>::default();
    for last in &sums.last {
        let label = Age { domain: last.domain.clone(), evidence: evidence(last.counts) };
        ages.get_or_create(&label).set(now.duration_since(last.received_at).as_secs().max(0));
    }
    let help = "Seconds since the newest report about an own domain arrived";
    registry.register("received_last_report_age_seconds", help, ages);
}

fn register_submitters(registry: &mut Registry, sums: &Sums) {
    let submitters = Family::<BySubmitter, Gauge>::default();
    for (counts, totals) in [(true, &sums.verified), (false, &sums.unverified)] {
        let evidence = evidence(counts);
        let Some((all, largest)) = totals.split_last() else { continue };
        let mut rest = (all.successful, all.failed);
        let set = |submitter: &str, successful: u64, failed: u64| {
            for (result, count) in [("successful", successful), ("failed", failed)] {
                let label = BySubmitter { submitter: submitter.to_owned(), evidence, result };
                submitters.get_or_create(&label).set(value(count));
            }
        };
        for total in largest {
            set(&total.submitter, total.successful, total.failed);
            rest = (rest.0.saturating_sub(total.successful), rest.1.saturating_sub(total.failed));
        }
        set(OTHER, rest.0, rest.1);
    }
    let help = "Sessions in received reports by submitter, the largest fifty and `other`, over the days of the last 30 days";
    registry.register("received_submitter_sessions", help, submitters);
}

fn register_arrivals(registry: &mut Registry, counts: &InboxCounts) {
    let counter = |count: u64| {
        let counter: Counter = Counter::default();
        counter.inc_by(count);
        counter
    };
    let arrived = Family::<ByArrival, Counter>::default();
    for (arrival, trust, count) in counts.reports() {
        let label = ByArrival { way: way(arrival), trust: trust.to_string() };
        arrived.get_or_create(&label).inc_by(count);
    }
    registry.register(
        "received_reports",
        "TLS reports received by this process, without duplicates",
        arrived,
    );
    let left_alone = Family::<ByKind, Counter>::default();
    for (name, kind) in [("dmarc", LeftAlone::Dmarc), ("other", LeftAlone::Other)] {
        left_alone.get_or_create(&ByKind { kind: name }).inc_by(counts.left_alone(kind));
    }
    let help = "Messages in mailboxes that are not TLS reports and were left alone by this process";
    registry.register("inbox_left_alone", help, left_alone);
    let help = "DMARC reports received by this process, without duplicates";
    registry.register("received_dmarc_reports", help, counter(counts.dmarc()));
    let help = "Messages and posted files that this process quarantined";
    registry.register("inbox_quarantined", help, counter(counts.quarantined()));
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
