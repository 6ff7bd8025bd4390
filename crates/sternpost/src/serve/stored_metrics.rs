//! Metrics that are counted in the store: the queue of reports, the spool of sessions, and what the policy host serves. They
//! are read at a request, at most every 15 seconds. If the store fails, these metrics are omitted.

use config::Config;
use jiff::{SignedDuration, Timestamp};
use net::clock::Clock;
use net::key_files::KeyFiles;
use net::metrics::{self, Gauge, Gauges, Registry};
use operations::nodes::NodeState;
use prometheus_client::encoding::text::encode;
use std::sync::Arc;
use store::outgoing::DeliveryState;
use store::{Outage, Store, StoreError};
use tokio::sync::Mutex;

/// Least time between two readings.
const REFRESH: SignedDuration = SignedDuration::from_secs(15);
/// Maximum number of certificates in the store with series of their own.
const MAX_CERTIFICATES: u32 = 1000;

/// A certificate in files, with the role that uses it.
pub type UsedFiles = (&'static str, Arc<KeyFiles>);

/// Reads the metrics that are counted in the store.
pub struct StoredMetrics {
    store: Store,
    clock: Arc<dyn Clock>,
    has_reporter: bool,
    has_forwarder: bool,
    has_host: bool,
    files: Vec<UsedFiles>,
    /// The last text, and when it was read.
    held: Mutex<Option<(Timestamp, String)>>,
    outage: Outage,
}

impl StoredMetrics {
    pub fn new(config: &Config, store: &Store, clock: Arc<dyn Clock>, files: Vec<UsedFiles>) -> Self {
        Self {
            store: store.clone(),
            clock,
            has_reporter: config.reporter.is_some(),
            has_forwarder: config.collector.as_ref().is_some_and(|role| role.forward_to.is_some()),
            has_host: config.host.is_some(),
            files,
            held: Mutex::new(None),
            outage: Outage::new(),
        }
    }

    /// The metrics in the OpenMetrics format, with its last line.
    pub async fn to_text(&self) -> String {
        let mut held = self.held.lock().await;
        let now = self.clock.now();
        if let Some((at, text)) = held.as_ref()
            && now.duration_since(*at).abs() < REFRESH
        {
            return text.clone();
        }
        let mut registry = Registry::default();
        let read = self.read(&mut registry, now).await;
        self.outage.log(
            &read,
            "metrics can't be read from the store",
            "metrics are read from the store again",
        );
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &registry);
        *held = Some((now, text.clone()));
        text
    }

    async fn read(&self, registry: &mut Registry, now: Timestamp) -> Result<(), StoreError> {
        let nodes = Gauges::new(&metrics::NODES);
        let all = operations::nodes::nodes(&self.store, now).await?;
        for state in [NodeState::Running, NodeState::Silent] {
            let count = all.iter().filter(|node| node.state == state).count();
            nodes.set(&[state.as_str()], u64::try_from(count).unwrap_or(u64::MAX));
        }
        nodes.register(registry);
        let ends = Gauges::new(&metrics::CERTIFICATE_EXPIRY);
        for (role, files) in &self.files {
            let current = files.current();
            let name = current.names.first().map(String::as_str).unwrap_or_default();
            ends.of(&[role, name]).set(current.ends.as_second());
        }
        if self.has_host {
            let counts = self.store.count_hosted(now).await?;
            let policies: Gauge = Gauge::default();
            policies.set(i64::try_from(counts.policies).unwrap_or(i64::MAX));
            metrics::HOSTED_POLICIES.register(registry, policies);
            let certificates = Gauges::new(&metrics::CERTIFICATES);
            for (state, count) in [
                ("missing", counts.missing),
                ("failing", counts.failing),
                ("valid", counts.valid),
                ("retrying", counts.retrying),
                ("expired", counts.expired),
            ] {
                certificates.set(&[state], count);
            }
            certificates.register(registry);
            for end in self.store.certificate_ends(None, MAX_CERTIFICATES).await? {
                ends.of(&["host", end.host.as_str()]).set(end.ends.as_second());
            }
        }
        ends.register(registry);
        if self.has_reporter {
            let reports = Gauges::new(&metrics::OUTGOING_REPORTS);
            for (state, count) in self.store.outgoing_counts().await? {
                reports.set(&[DeliveryState::as_str(state)], count);
            }
            reports.register(registry);
        }
        if self.has_forwarder {
            let spooled: Gauge = Gauge::default();
            spooled.set(i64::try_from(self.store.spooled_sessions().await?).unwrap_or(i64::MAX));
            metrics::SESSIONS_SPOOLED.register(registry, spooled);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::DomainName;
    use net::clock::ManualClock;
    use store::hosting::StoredCertificate;

    #[tokio::test]
    async fn certificates_are_counted_by_state_and_those_that_end_first_have_series() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let put = async |host: &str, chain: &str, end: i64, failures: u32| {
            let certificate = StoredCertificate {
                host: DomainName::parse(host).unwrap(),
                chain: chain.to_owned(),
                key: String::new(),
                expires_at: at(end),
                next_at: at(0),
                failures,
                problem: String::new(),
            };
            store.put_certificate(&certificate).await.unwrap();
        };
        put("mta-sts.valid.example", "c", 2000, 0).await;
        put("mta-sts.retrying.example", "c", 1500, 3).await;
        put("mta-sts.expired.example", "c", 900, 1).await;
        put("mta-sts.failing.example", "", 0, 1).await;
        store.put_hosted(&DomainName::parse("valid.example").unwrap(), Some("policy")).await.unwrap();
        let config = Config::parse("[host]\nlisten = [\"127.0.0.1:8443\"]\n", None).unwrap();
        let clock = Arc::new(ManualClock::new(at(1000)));
        let stored = StoredMetrics::new(&config, &store, clock.clone(), Vec::new());
        let text = stored.to_text().await;
        for line in [
            "sternpost_nodes{state=\"running\"} 0",
            "sternpost_hosted_policies 1",
            "sternpost_certificates{state=\"missing\"} 0",
            "sternpost_certificates{state=\"failing\"} 1",
            "sternpost_certificates{state=\"valid\"} 1",
            "sternpost_certificates{state=\"retrying\"} 1",
            "sternpost_certificates{state=\"expired\"} 1",
            "sternpost_certificate_expiry_timestamp_seconds{role=\"host\",name=\"mta-sts.retrying.example\"} 1500",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
        }
        put("mta-sts.failing.example", "c", 3000, 0).await;
        assert_eq!(stored.to_text().await, text, "the store is not read at each request");
        clock.set_by(15);
        assert!(stored.to_text().await.contains("state=\"failing\"} 0\n"));
    }
}
