//! The metrics of the answer service, in the Prometheus text format.
//!
//! [`super::PolicyService`] and the protocols in [`crate::serve`] update [`Metrics`]; the metrics page serves its text.
//! Counters on the hot path are plain atomics, and their labels are resolved once, at start.

use super::decide::Source;
use super::entry::Status;
use super::sts::PolicyUnavailable;
use net::metrics::{self, Counters, Gauges};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// The metrics of the answer service.
pub struct Metrics {
    registry: Registry,
    /// Answers by [`Status`] and [`Source`], in the order of their variants.
    answers: Vec<Counter>,
    hits: Counter,
    /// Answers for keys that never have a policy, such as address literals.
    pub trivial: Counter,
    /// Answers that needed a lookup.
    pub misses: Counter,
    /// Seconds from request to reply, answered from the cache; sampled.
    pub hit_seconds: Histogram,
    /// Seconds from request to reply, when the request waited for a lookup.
    pub miss_seconds: Histogram,
    /// Lookups in flight.
    pub looking: Gauge,
    /// Open connections of mail servers.
    pub connections: Gauge,
    fetches: Counters,
    /// Lookups whose answer is an MTA-STS policy although hosts have TLSA records behind an insecure MX answer.
    pub dane_set_aside: Counter,
    /// Answers in the cache, as last set by [`Self::set_cache`].
    pub cached: Gauge,
    /// Bytes of the answers in the cache, as last set by [`Self::set_cache`].
    pub cached_bytes: Gauge,
    policies: Gauges,
    /// Seconds by which the refresh of the most overdue policy is late.
    pub overdue: Gauge,
    /// 1 if the last refresh could read the store, 0 if it could not; for the status page.
    pub store_up: Gauge,
}

impl Metrics {
    /// A registry with all metrics at zero.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let answered = Counters::new(&metrics::ANSWERS);
        answered.register(&mut registry);
        let kinds = Status::ALL.iter().flat_map(|result| Source::ALL.map(|source| (*result, source)));
        let answers = kinds.map(|(result, source)| answered.of(&[result.label(), source.as_str()])).collect();
        let latency = || Histogram::new([0.000_01, 0.000_1, 0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0]);
        let new = Self {
            answers,
            hits: Counter::default(),
            trivial: Counter::default(),
            misses: Counter::default(),
            hit_seconds: latency(),
            miss_seconds: latency(),
            looking: Gauge::default(),
            connections: Gauge::default(),
            fetches: Counters::new(&metrics::FETCHES),
            dane_set_aside: Counter::default(),
            cached: Gauge::default(),
            cached_bytes: Gauge::default(),
            policies: Gauges::new(&metrics::POLICIES),
            overdue: Gauge::default(),
            store_up: Gauge::default(),
            registry,
        };
        new.registered()
    }

    fn registered(mut self) -> Self {
        let all = &mut self.registry;
        metrics::CACHE_HITS.register(all, self.hits.clone());
        metrics::CACHE_MISSES.register(all, self.misses.clone());
        metrics::CACHE_HIT_SECONDS.register(all, self.hit_seconds.clone());
        metrics::CACHE_MISS_SECONDS.register(all, self.miss_seconds.clone());
        metrics::DANE_SET_ASIDE.register(all, self.dane_set_aside.clone());
        metrics::LOOKUPS_RUNNING.register(all, self.looking.clone());
        metrics::CONNECTIONS.register(all, self.connections.clone());
        self.fetches.register(all);
        metrics::CACHE_ENTRIES.register(all, self.cached.clone());
        metrics::CACHE_BYTES.register(all, self.cached_bytes.clone());
        self.policies.register(all);
        metrics::REFRESH_OVERDUE.register(all, self.overdue.clone());
        self
    }

    /// Counts an answer.
    pub fn answered(&self, status: Status, source: Source) {
        if let Some(counter) = self.answers.get(status as usize * Source::ALL.len() + source as usize) {
            counter.inc();
        }
    }

    /// Counts a policy fetch.
    pub fn fetched(&self, outcome: &Result<(), PolicyUnavailable>) {
        let outcome = match outcome {
            Ok(()) => "ok",
            Err(PolicyUnavailable::Invalid(_)) => "sts-policy-invalid",
            Err(PolicyUnavailable::Fetch(error))
                if error.result_type() == formats::ResultType::StsWebpkiInvalid =>
            {
                "sts-webpki-invalid"
            }
            Err(PolicyUnavailable::Fetch(_)) => "sts-policy-fetch-error",
        };
        self.fetches.inc(&[outcome]);
    }

    /// Sets the number of live policies in the store, and by how much the oldest refresh is late.
    pub fn set_policies(&self, counts: &store::policies::PolicyCounts, overdue: Duration) {
        for (mode, count) in [("enforce", counts.enforce), ("testing", counts.testing), ("none", counts.none)]
        {
            self.policies.set(&[mode], count);
        }
        self.overdue.set(i64::try_from(overdue.as_secs()).unwrap_or(i64::MAX));
    }

    /// Sets the size of the cache.
    pub fn set_cache(&self, cache: &super::cache::Cache) {
        self.cached.set(i64::try_from(cache.len()).unwrap_or(i64::MAX));
        self.cached_bytes.set(i64::try_from(cache.bytes()).unwrap_or(i64::MAX));
    }

    /// The number of answers from a source.
    pub fn answers_by(&self, source: Source) -> u64 {
        let of_source = self.answers.iter().skip(source as usize).step_by(Source::ALL.len());
        of_source.map(Counter::get).sum()
    }

    /// The number of live policies by mode, as last set by [`Self::set_policies`].
    pub fn policies(&self) -> Vec<(&'static str, i64)> {
        let count = |mode| self.policies.of(&[mode]).get();
        ["enforce", "testing", "none"].into_iter().map(|mode| (mode, count(mode))).collect()
    }

    /// The number of answers from the cache. It is computed as all answers minus misses and trivial ones, so the hot
    /// path increments a single counter.
    pub fn hits(&self) -> u64 {
        let all: u64 = self.answers.iter().map(Counter::get).sum();
        all.saturating_sub(self.misses.get()).saturating_sub(self.trivial.get())
    }

    /// The metrics in the Prometheus text format.
    pub fn to_text(&self) -> String {
        let hits = self.hits();
        self.hits.inner().fetch_max(hits, std::sync::atomic::Ordering::Relaxed);
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_result_and_source() {
        let metrics = Metrics::new();
        metrics.answered(Status::Temporary, Source::Failure);
        metrics.answered(Status::Ok, Source::Dane);
        let text = metrics.to_text();
        assert!(
            text.contains("sternpost_answers_total{result=\"temporary\",source=\"failure\"} 1"),
            "{text}"
        );
        assert!(text.contains("sternpost_answers_total{result=\"ok\",source=\"dane\"} 1"), "{text}");
        assert!(text.contains("sternpost_answers_total{result=\"ok\",source=\"mta-sts\"} 0"), "{text}");
    }
}
