//! What an administrator watches (Prometheus text format). Hot counters are plain atomics; labels
//! are resolved once, at start.

use super::decide::Source;
use super::entry::Status;
use super::sts::PolicyUnavailable;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// Labels of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    result: &'static str,
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InMode {
    mode: &'static str,
}

/// All of them.
pub struct Metrics {
    registry: Registry,
    /// By [`Status`] and [`Source`], in the order of their variants.
    answers: Vec<Counter>,
    hits: Counter,
    /// Answers for keys that never have a policy.
    pub trivial: Counter,
    /// Answers that had to be looked up.
    pub misses: Counter,
    /// Seconds from request to reply, from memory.
    pub hit_seconds: Histogram,
    /// Seconds from request to reply, where a look-up was waited for.
    pub miss_seconds: Histogram,
    /// Look-ups under way.
    pub looking: Gauge,
    /// Open connections.
    pub connections: Gauge,
    fetches: Family<Outcome, Counter>,
    /// Answers in memory.
    pub cached: Gauge,
    /// Bytes of them.
    pub cached_bytes: Gauge,
    policies: Family<InMode, Gauge>,
    /// Seconds for which the policy that is most overdue waits for its refresh.
    pub overdue: Gauge,
    /// 1 while the store works.
    pub store_up: Gauge,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("sternpost");
        let answered = Family::<Answered, Counter>::default();
        registry.register("answers", "Answers by result and by what decided them", answered.clone());
        let kinds = Status::ALL.iter().flat_map(|result| Source::ALL.map(|source| (*result, source)));
        let labels =
            kinds.map(|(result, source)| Answered { result: result.label(), source: source.as_str() });
        let answers = labels.map(|labels| answered.get_or_create_owned(&labels)).collect();
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
            fetches: Family::default(),
            cached: Gauge::default(),
            cached_bytes: Gauge::default(),
            policies: Family::default(),
            overdue: Gauge::default(),
            store_up: Gauge::default(),
            registry,
        };
        new.registered()
    }

    fn registered(mut self) -> Self {
        let all = &mut self.registry;
        all.register("cache_hits", "Answers that were in memory", self.hits.clone());
        all.register("cache_misses", "Answers that had to be looked up", self.misses.clone());
        all.register(
            "hit_seconds",
            "Request to reply, from memory; one in 64 is measured",
            self.hit_seconds.clone(),
        );
        all.register("miss_seconds", "Request to reply, with a look-up", self.miss_seconds.clone());
        all.register("lookups_running", "Look-ups under way", self.looking.clone());
        all.register("connections", "Open connections of mail servers", self.connections.clone());
        all.register("fetches", "Policy fetches by outcome", self.fetches.clone());
        all.register("cache_entries", "Answers in memory", self.cached.clone());
        all.register("cache_bytes", "Bytes of the answers in memory", self.cached_bytes.clone());
        all.register("policies", "Live policies in the store by mode", self.policies.clone());
        all.register(
            "refresh_overdue_seconds",
            "How long the oldest refresh is overdue",
            self.overdue.clone(),
        );
        all.register("store_up", "1 while the store works", self.store_up.clone());
        self
    }

    /// Counts answers of one kind.
    pub fn answered(&self, status: Status, source: Source) {
        if let Some(counter) = self.answers.get(status as usize * Source::ALL.len() + source as usize) {
            counter.inc();
        }
    }

    /// Counts a fetch.
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
        self.fetches.get_or_create(&Outcome { outcome }).inc();
    }

    /// Says how many live policies the store has, and since when the oldest refresh is due.
    pub fn set_policies(&self, counts: &store::policies::PolicyCounts, overdue: Duration) {
        for (mode, count) in [("enforce", counts.enforce), ("testing", counts.testing), ("none", counts.none)]
        {
            self.policies.get_or_create(&InMode { mode }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.overdue.set(i64::try_from(overdue.as_secs()).unwrap_or(i64::MAX));
    }

    /// Says what is in memory.
    pub fn set_cache(&self, cache: &super::cache::Cache) {
        self.cached.set(i64::try_from(cache.len()).unwrap_or(i64::MAX));
        self.cached_bytes.set(i64::try_from(cache.bytes()).unwrap_or(i64::MAX));
    }

    /// How many answers a source decided.
    pub fn answers_by(&self, source: Source) -> u64 {
        let of_source = self.answers.iter().skip(source as usize).step_by(Source::ALL.len());
        of_source.map(Counter::get).sum()
    }

    /// Live policies by mode, as last counted.
    pub fn policies(&self) -> Vec<(&'static str, i64)> {
        let count = |mode| self.policies.get_or_create(&InMode { mode }).get();
        ["enforce", "testing", "none"].into_iter().map(|mode| (mode, count(mode))).collect()
    }

    /// Answers that were in memory: those that were neither looked up nor trivial, so that the hot path
    /// counts once.
    pub fn hits(&self) -> u64 {
        let all: u64 = self.answers.iter().map(Counter::get).sum();
        all.saturating_sub(self.misses.get()).saturating_sub(self.trivial.get())
    }

    /// All as text.
    pub fn to_text(&self) -> String {
        let hits = self.hits();
        self.hits.inner().fetch_max(hits, std::sync::atomic::Ordering::Relaxed);
        let mut text = String::new();
        // Writing to a string does not fail.
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
    fn answers_are_counted_under_what_they_were() {
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
