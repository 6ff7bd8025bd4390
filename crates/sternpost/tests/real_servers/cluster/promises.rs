//! What was promised: what was to happen, what happened, and what happened twice.

use crate::patience::whole_lines;
use formats::limits::REPORTS_PER_HOST;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

/// A row of the table.
#[derive(Debug, Clone)]
pub struct Promise {
    pub what: String,
    pub expected: String,
    pub happened: String,
    pub twice: String,
    /// Each way in which it was broken.
    pub broken: Vec<String>,
}

impl Promise {
    pub fn is_kept(&self) -> bool {
        self.broken.is_empty()
    }

    /// What may never happen.
    pub fn none(what: &str, happened: usize) -> Self {
        Self::counted(what, 0, happened, "-".to_owned(), Vec::new())
    }

    fn counted(what: &str, expected: usize, happened: usize, twice: String, mut broken: Vec<String>) -> Self {
        if happened != expected {
            broken.push(format!("{happened} instead of {expected}"));
        }
        let (what, expected, happened) = (what.to_owned(), expected.to_string(), happened.to_string());
        Self { what, expected, happened, twice, broken }
    }
}

/// The rows as a table.
pub fn table(promises: &[Promise]) -> String {
    let mut text =
        format!("\n{:<50} {:>9}  {:<38} {:<14} kept\n", "promise", "expected", "happened", "twice");
    for Promise { what, expected, happened, twice, broken } in promises {
        let kept = if broken.is_empty() { "yes" } else { "NO" };
        let _ = writeln!(text, "{what:<50} {expected:>9}  {happened:<38} {twice:<14} {kept}");
    }
    text
}

/// Each of these was found once.
pub fn once_each(what: &str, found: &[String]) -> Promise {
    let distinct: BTreeSet<&String> = found.iter().collect();
    let more = found.len() - distinct.len();
    let broken = if more > 0 { vec![format!("{found:?}")] } else { Vec::new() };
    Promise::counted(what, distinct.len(), distinct.len(), more.to_string(), broken)
}

/// What was sent again, which is allowed as often as this.
fn again(count: usize, allowed: usize) -> (String, Vec<String>) {
    let broken = if count > allowed { vec![format!("{count} were sent again")] } else { Vec::new() };
    (format!("{count} (up to {allowed})"), broken)
}

/// Mails by their ID, and rows of the store by target. Twice only what a node was sending when it was killed.
pub fn mails(sent: &Path, reports: usize, targets: usize, killed: usize) -> Vec<Promise> {
    let text = whole_lines(sent);
    let ids: Vec<&str> =
        text.lines().filter_map(|line| line.split_once("Message-ID:")).map(|(_, id)| id).collect();
    let distinct: BTreeSet<&&str> = ids.iter().collect();
    let (twice, broken) = again(ids.len() - distinct.len(), killed * REPORTS_PER_HOST);
    let mut by_node: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines() {
        *by_node.entry(line.split(' ').next().unwrap()).or_default() += 1;
    }
    println!("reports by node: {by_node:?}");
    vec![
        Promise::counted("reports sent, by Message-ID", reports, distinct.len(), twice, broken),
        Promise::counted(
            "reports stored as accepted, by target",
            reports,
            targets,
            "-".to_owned(),
            Vec::new(),
        ),
    ]
}

/// What the webhook got: for each event its IDs, one for each time that it came.
pub struct Hooked(Vec<(String, Value)>);

impl Hooked {
    pub fn read(path: &Path) -> Self {
        let parse = |line: &str| {
            let (id, body) = line.split_once(' ').unwrap();
            (id.to_owned(), serde_json::from_str(body).unwrap())
        };
        Self(whole_lines(path).lines().map(parse).collect())
    }

    /// The IDs of the notices that the MX host of a domain is not covered by its policy.
    pub fn uncovered(&self, domain: &str, event: &str) -> Vec<&str> {
        let is_it = |body: &Value| {
            body["event"] == event && body["domain"] == domain && body["alert"]["kind"] == "mx-uncovered"
        };
        self.0.iter().filter(|(_, body)| is_it(body)).map(|(id, _)| id.as_str()).collect()
    }

    /// Of each alert of the story, its beginning and its end were announced once. All other notices alternate.
    pub fn promises(&self, alerts: usize, lost: usize) -> Vec<Promise> {
        let (mut ids, mut broken, mut told) = (BTreeSet::new(), Vec::new(), 0);
        for (number, event) in (0..alerts).flat_map(|number| [(number, "raised"), (number, "over")]) {
            let domain = format!("a{number}.test");
            let of_this: BTreeSet<&str> = self.uncovered(&domain, event).into_iter().collect();
            if of_this.len() > 1 {
                broken.push(format!("{domain} is {event}: {of_this:?}"));
            }
            told += usize::from(!of_this.is_empty());
            ids.extend(of_this);
        }
        let times = self.0.iter().filter(|(id, _)| ids.contains(id.as_str())).count();
        let (twice, more) = again(times - ids.len(), lost);
        broken.extend(more);
        vec![
            Promise::counted("notices of alerts, by webhook-id", 2 * alerts, told, twice, broken),
            self.in_order(),
        ]
    }

    /// An alert that was raised is not raised again before it is over.
    fn in_order(&self) -> Promise {
        let mut state: BTreeMap<String, String> = BTreeMap::new();
        let (mut known, mut broken) = (BTreeSet::new(), Vec::new());
        for (id, body) in &self.0 {
            if known.insert(id.clone()) {
                let alert = &body["alert"];
                let about = format!("{} {} {}", body["domain"], alert["kind"], alert["subject"]);
                let event = body["event"].to_string();
                if state.insert(about.clone(), event.clone()).as_ref() == Some(&event) {
                    broken.push(format!("{about} is {event} twice in a row"));
                }
            }
        }
        let twice = broken.len().to_string();
        Promise::counted(
            "all notices: each alert begins and ends in turn",
            known.len(),
            known.len(),
            twice,
            broken,
        )
    }
}
