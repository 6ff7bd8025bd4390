//! The metrics of `sternpost serve`, as one table. Each role registers its metrics by a row of this table, which has the
//! name, the type, the labels and the help text; [`reference()`] generates `docs/metrics.md` from it. A test compares the
//! table with what a running program shows, and others compare it with the alert rules and the dashboards in `packaging/`.
//!
//! The names follow the conventions of Prometheus: base units as suffixes, `_total` for counters, and no label whose values
//! strangers choose. A label either lists its values, which then exist from the start, or states what bounds their number.

#[cfg(test)]
mod packaging;
mod table;

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::registry::Registry;
pub use table::*;

use prometheus_client::metrics::family::Family;
use std::fmt::Write;

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricType {
    /// A number that only grows until the program ends.
    Counter,
    /// A number that may go up and down.
    Gauge,
    /// A distribution of observed values.
    Histogram,
}

impl MetricType {
    /// The word after `# TYPE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The values that a label can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// These values, which all exist from the start.
    Listed(&'static [&'static str]),
    /// Values that are not known beforehand; the text says what they are and what bounds their number.
    Bounded(&'static str),
}

/// A label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// The name of the label.
    pub name: &'static str,
    /// The values that the label can have.
    pub values: Values,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// The heading of its part of the table.
    pub part: &'static str,
    /// The name of the metric family: without the suffix `_total` of counters.
    pub family: &'static str,
    /// The type of the metric.
    pub metric_type: MetricType,
    /// The help text, as one sentence without its period.
    pub help: &'static str,
    /// The labels, in the order in which values are given; empty for a single series.
    pub labels: &'static [Label],
}

impl Metric {
    /// The name of the series in queries: for counters with `_total`. A histogram has further series with the suffixes
    /// `_bucket`, `_sum` and `_count`.
    pub fn series(&self) -> String {
        match self.metric_type {
            MetricType::Counter => format!("{}_total", self.family),
            MetricType::Gauge | MetricType::Histogram => self.family.to_owned(),
        }
    }

    /// Registers the metric under the name of this row.
    pub fn register(&self, registry: &mut Registry, metric: impl prometheus_client::registry::Metric) {
        registry.register(self.family, self.help, metric);
    }

    /// All combinations of the listed values; none if a label has values that are not listed.
    fn combinations(&self) -> Vec<Labels> {
        let begin = vec![Labels::new()];
        self.labels.iter().fold(begin, |all, label| {
            let Values::Listed(values) = label.values else { return Vec::new() };
            let with = |one: &Labels, value: &str| {
                let mut more = one.clone();
                more.push((label.name, value.to_owned()));
                more
            };
            all.iter().flat_map(|one| values.iter().map(move |value| with(one, value))).collect()
        })
    }
}

/// The labels of a series: names and values, in the order of the table.
pub type Labels = Vec<(&'static str, String)>;

/// The series of a metric with labels. Clones share them. Series whose label values are all listed in the table exist from
/// the start, with the value zero, so that a query finds them before the first event.
#[derive(Debug, Clone)]
pub struct Series<M> {
    row: &'static Metric,
    family: Family<Labels, M>,
}

/// Counters, one for each combination of label values.
pub type Counters = Series<Counter>;
/// Gauges, one for each combination of label values.
pub type Gauges = Series<Gauge>;

impl<M: Default + Clone> Series<M> {
    /// The series of a row.
    pub fn new(row: &'static Metric) -> Self {
        let new = Self { row, family: Family::default() };
        for labels in row.combinations() {
            drop(new.family.get_or_create_owned(&labels));
        }
        new
    }

    /// The series with these label values, in the order of the table. Missing values are empty.
    pub fn of(&self, values: &[&str]) -> M {
        let value = |at: usize| values.get(at).copied().unwrap_or_default().to_owned();
        let labels: Labels =
            self.row.labels.iter().enumerate().map(|(at, label)| (label.name, value(at))).collect();
        self.family.get_or_create_owned(&labels)
    }

    /// Removes all series, for example before the current ones are set.
    pub fn clear(&self) {
        self.family.clear();
    }
}

impl<M: prometheus_client::registry::Metric + Default + Clone> Series<M>
where
    Family<Labels, M>: prometheus_client::registry::Metric,
{
    /// Registers the series under the name of their row.
    pub fn register(&self, registry: &mut Registry) {
        self.row.register(registry, self.family.clone());
    }
}

impl Counters {
    /// Counts one event of these label values.
    pub fn inc(&self, values: &[&str]) {
        self.of(values).inc();
    }
}

impl Gauges {
    /// Sets the series of these label values; larger numbers become the largest integer.
    pub fn set(&self, values: &[&str], number: u64) {
        self.of(values).set(i64::try_from(number).unwrap_or(i64::MAX));
    }
}

/// Returns the text of the reference page, `docs/metrics.md`.
pub fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         `[metrics]` serves these metrics at `/metrics`. How to use them, with alert rules and dashboards:\n\
         [monitoring.md](monitoring.md). A role that is disabled has no metrics; a counter begins at zero when the program \
         starts.\n\n\
         `sternpost config metrics` generates this page from `crates/net/src/metrics/table.rs`.\n",
    );
    let mut part = "";
    for row in TABLE {
        if row.part != part {
            part = row.part;
            // Writing to a String does not fail.
            let _ = write!(
                page,
                "\n## {part}\n\n| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n"
            );
        }
        let labels: Vec<String> = row.labels.iter().map(in_words).collect();
        let (series, kind) = (row.series(), row.metric_type.as_str());
        let _ = writeln!(page, "| `{series}` | {kind} | {} | {} |", labels.join("; "), row.help);
    }
    page
}

fn in_words(label: &Label) -> String {
    match label.values {
        Values::Listed(values) => {
            let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            format!("`{}`: {}", label.name, values.join(", "))
        }
        Values::Bounded(about) => format!("`{}`: {about}", label.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut seen = BTreeSet::new();
        for row in TABLE {
            let name = row.family;
            assert!(seen.insert(name), "{name} occurs twice");
            let is_name = |text: &str| {
                text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            };
            assert!(
                is_name(name) && (name.starts_with("sternpost_") || name.starts_with("process_")),
                "{name}"
            );
            for suffix in ["_total", "_count", "_sum", "_bucket", "_info_total"] {
                assert!(!name.ends_with(suffix), "{name}: {suffix} is added by the format");
            }
            for unit in [
                "_ms",
                "_millis",
                "_milliseconds",
                "_minutes",
                "_hours",
                "_days",
                "_kb",
                "_mb",
                "_kib",
                "_percent",
            ] {
                assert!(!name.contains(unit), "{name} is not in a base unit");
            }
            assert!(
                row.metric_type != MetricType::Histogram
                    || name.ends_with("_seconds")
                    || name.ends_with("_bytes"),
                "{name} has no unit"
            );
            assert!(
                !row.help.ends_with('.') && !row.help.contains('\n') && !row.help.contains('|'),
                "{name}: {}",
                row.help
            );
            for label in row.labels {
                assert!(
                    is_name(label.name) && !["le", "quantile", "job", "instance"].contains(&label.name),
                    "{name}"
                );
                match label.values {
                    Values::Listed(values) => assert!(!values.is_empty() && values.len() <= 20, "{name}"),
                    Values::Bounded(about) => assert!(!about.is_empty() && !about.contains('|'), "{name}"),
                }
            }
        }
    }

    #[test]
    fn series_of_listed_values_exist_from_the_start() {
        let row = TABLE.iter().find(|row| row.family == "sternpost_inbox_refused_connections").unwrap();
        let (counters, mut registry) = (Counters::new(row), Registry::default());
        counters.register(&mut registry);
        counters.inc(&["smtp", "client"]);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("_total{protocol=\"smtp\",reason=\"client\"} 1\n"), "{text}");
        assert!(text.contains("_total{protocol=\"lmtp\",reason=\"total\"} 0\n"), "{text}");
    }

    #[test]
    fn docs_metrics_md_is_up_to_date() {
        let written = include_str!("../../../docs/metrics.md");
        assert_eq!(written, reference(), "run: sternpost config metrics > docs/metrics.md");
    }
}
