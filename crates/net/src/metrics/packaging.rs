//! Compares the alert rules and the dashboards in `packaging/` with the table: each query names metrics, labels and label
//! values that exist, each alert has a section in the runbook and cases that fire and that do not, and the recommended
//! expressions in the documentation exist too.

use super::{Label, Metric, MetricType, TABLE, Values};
use std::collections::BTreeSet;
use std::path::PathBuf;

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap()
}

/// Labels that Prometheus adds to every series.
const TARGET_LABELS: [&str; 2] = ["job", "instance"];

/// The row of a series in a query.
fn row(series: &str) -> Option<&'static Metric> {
    let is_of = |row: &&&Metric| {
        series == row.series()
            || row.metric_type == MetricType::Histogram
                && ["_bucket", "_sum", "_count"]
                    .iter()
                    .any(|suffix| series == format!("{}{suffix}", row.family))
    };
    TABLE.iter().find(is_of).copied()
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// What is wrong with a query; an empty list if nothing is.
fn faults(query: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut labels: BTreeSet<&str> = TARGET_LABELS.into();
    let mut found = 0;
    let mut rest = query;
    while let Some(at) = rest.find(['s', 'p', 'u']) {
        let is_begin = !rest[..at].ends_with(is_name);
        let word: &str = &rest[at..];
        let end = word.find(|c| !is_name(c)).unwrap_or(word.len());
        let (series, after) = word.split_at(end);
        let is_metric =
            ["sternpost_", "process_"].iter().any(|prefix| series.starts_with(prefix)) || series == "up";
        rest = after;
        if !is_begin || !is_metric {
            continue;
        }
        found += 1;
        let matchers =
            after.strip_prefix('{').and_then(|inner| inner.split_once('}')).map_or("", |(inner, _)| inner);
        let row = row(series);
        if row.is_none() && series != "up" {
            faults.push(format!("{series} is not in the table"));
        }
        let own: &[Label] = row.map_or(&[], |row| row.labels);
        labels.extend(own.iter().map(|label| label.name));
        if row.is_some_and(|row| row.metric_type == MetricType::Histogram) {
            labels.insert("le");
        }
        for matcher in matchers.split("\",").filter(|matcher| !matcher.trim().is_empty()) {
            let (name, rest) = matcher.split_at(matcher.find(['=', '!']).unwrap());
            let value = rest.trim_start_matches(['=', '!', '~']);
            let is_pattern = rest[..rest.len() - value.len()].ends_with('~');
            let (name, value) = (name.trim(), value.trim_matches('"'));
            if TARGET_LABELS.contains(&name) {
                continue;
            }
            match own.iter().find(|label| label.name == name) {
                None => faults.push(format!("{series} has no label {name}")),
                Some(Label { values: Values::Listed(listed), .. }) => {
                    let asked: Vec<&str> = if is_pattern { value.split('|').collect() } else { vec![value] };
                    let unknown = asked.into_iter().filter(|asked| !listed.contains(asked));
                    faults.extend(unknown.map(|asked| format!("{series}: {name} is never {asked}")));
                }
                Some(_) => {}
            }
        }
    }
    if found == 0 {
        faults.push("it names no metric".to_owned());
    }
    for grouping in ["by (", "on (", "without ("] {
        for part in query.split(grouping).skip(1) {
            let named = part.split(')').next().unwrap().split(',').map(str::trim);
            let unknown = named.filter(|label| !labels.contains(label));
            faults.extend(unknown.map(|label| format!("no metric of the query has the label {label}")));
        }
    }
    faults
}

/// The values of `expr` in a file of rules: on the same line, or on the more indented lines after it.
fn expressions(rules: &str) -> Vec<String> {
    let lines: Vec<&str> = rules.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut all = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(value) = line.trim_start().strip_prefix("expr: ") else { continue };
        all.push(match value.trim() {
            "|" => lines[at + 1..].iter().take_while(|next| indent(next) > indent(line)).copied().collect(),
            inline => inline.to_owned(),
        });
    }
    all
}

/// All values of the member `expr` in a dashboard, and the queries of its variables.
fn queries(dashboard: &serde_json::Value, all: &mut Vec<String>) {
    match dashboard {
        serde_json::Value::Object(members) => {
            for (name, value) in members {
                match value.as_str() {
                    Some(text) if name == "expr" || (name == "query" && text.contains('(')) => {
                        all.push(text.to_owned())
                    }
                    _ => queries(value, all),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| queries(item, all)),
        _ => {}
    }
}

#[test]
fn a_query_with_an_unknown_metric_label_or_value_is_found() {
    for (query, fault) in [
        ("rate(sternpost_answers_total{result=\"temporary\"}[5m])", None),
        (
            "sum by (instance, source) (sternpost_answers_total{job=\"sternpost\",result=~\"ok|temporary\"})",
            None,
        ),
        ("histogram_quantile(0.9, sum by (le) (rate(sternpost_cache_hit_seconds_bucket[5m])))", None),
        ("sternpost_answers", Some("sternpost_answers is not in the table")),
        ("sternpost_answer_total > 0", Some("sternpost_answer_total is not in the table")),
        ("process_open_files", Some("process_open_files is not in the table")),
        ("sternpost_answers_total{results=\"ok\"}", Some("has no label results")),
        ("sternpost_answers_total{instance=~\"$i\",result=\"fine\"}", Some("result is never fine")),
        ("sternpost_answers_total{result!~\"ok|fine\"}", Some("result is never fine")),
        ("sum by (mode) (sternpost_answers_total)", Some("the label mode")),
        ("sternpost_cache_hits_bucket", Some("is not in the table")),
        ("1 > 0", Some("names no metric")),
    ] {
        let found = faults(query);
        match fault {
            None => assert_eq!(found, [] as [String; 0], "{query}"),
            Some(fault) => assert!(found.len() == 1 && found[0].contains(fault), "{query}: {found:?}"),
        }
    }
}

#[test]
fn every_query_of_the_alert_rules_names_what_exists() {
    let queries = expressions(&read("packaging/prometheus/sternpost.rules.yml"));
    assert!(queries.len() > 20);
    for query in queries {
        assert_eq!(faults(&query), [] as [String; 0], "{query}");
    }
}

#[test]
fn every_query_of_the_dashboards_names_what_exists() {
    for name in ["sending", "receiving"] {
        let dashboard =
            serde_json::from_str(&read(&format!("packaging/grafana/sternpost-{name}.json"))).unwrap();
        let mut all = Vec::new();
        queries(&dashboard, &mut all);
        assert!(all.len() > 15, "{name}");
        for query in all {
            assert_eq!(faults(&query), [] as [String; 0], "{name}: {query}");
        }
    }
}

#[test]
fn every_alert_has_a_section_in_the_runbook_and_cases_that_fire_and_that_do_not() {
    let rules = read("packaging/prometheus/sternpost.rules.yml");
    let (runbook, cases) = (read("docs/runbook.md"), read("packaging/prometheus/tests/alerts.yml"));
    let parts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(parts.len() > 20);
    for part in parts {
        let name = part.lines().next().unwrap().trim();
        let link = format!("docs/runbook.md#{}\"", name.to_lowercase());
        assert!(
            part.contains(&format!("runbook_url: \"https://github.com/sternpost/sternpost/blob/main/{link}")),
            "{name}"
        );
        assert!(
            runbook.lines().any(|line| line == format!("### {name}")),
            "the runbook has no section {name}"
        );
        assert!(part.contains("severity: critical") || part.contains("severity: warning"), "{name}");
        let case =
            cases.split(&format!("- name: {name}\n")).nth(1).unwrap_or_else(|| panic!("{name} has no case"));
        let case = case.split("- name: ").next().unwrap();
        assert!(
            case.contains("exp_samples: []") && case.contains(&format!("alertname=\"{name}\"")),
            "{name}"
        );
    }
}

#[test]
fn every_metric_that_the_documentation_names_exists() {
    let pages = std::fs::read_dir(repository("docs")).unwrap().map(|file| file.unwrap().path());
    let pages = pages
        .filter(|path| path.extension().is_some_and(|name| name == "md"))
        .chain([repository("README.md")]);
    for page in pages {
        // Exim's settings there have names of the same form.
        if page.ends_with("exim.md") {
            continue;
        }
        let text = std::fs::read_to_string(&page).unwrap();
        for (at, _) in text.match_indices("sternpost_") {
            let word: String = text[at..].chars().take_while(|c| is_name(*c)).collect();
            let is_code = text[..at].ends_with(['`', ' ', '(', '{']);
            // Metrics of one check (docs/check.md), files of packages and names of crates are something else.
            let is_file = word
                .strip_prefix("sternpost_")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            let is_other =
                word.starts_with("sternpost_check") || word.ends_with('_') || word.contains(':') || is_file;
            let is_crate = ["sender", "receiver", "net", "web", "store", "formats", "config", "smtp"]
                .iter()
                .any(|name| word == format!("sternpost_{name}"));
            if is_code && !is_other && !is_crate {
                assert!(row(&word).is_some(), "{}: {word}", page.display());
            }
        }
    }
}
