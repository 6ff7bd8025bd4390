//! The results of a run, as data: what the JSON output holds, and what the other formats are written from.

use super::case::{Case, Fate, Group, Level, Phase, Without};
use super::oracle::{Outcome, Seen};
use super::run::Stop;
use std::collections::BTreeMap;

/// The version of the JSON format.
pub const SCHEMA: u32 = 1;

/// A run of the yardstick.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// The version of the format, [`SCHEMA`].
    pub schema: u32,
    /// The mail server under test, in the words of its driver.
    pub server: String,
    /// The version of Sternpost that ran the cases.
    pub sternpost: String,
    /// The score over the cases that discriminate.
    pub score: Score,
    /// The results, in the order of the table.
    pub cases: Vec<CaseResult>,
}

/// How many of the cases that a sender without MTA-STS and DANE does not pass the server passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Score {
    /// The cases that discriminate and conform, or do more than asked.
    pub conforming: usize,
    /// The cases that discriminate and have a verdict.
    pub judged: usize,
}

/// The result of one case.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CaseResult {
    /// The name of the case.
    pub id: String,
    /// The part of the protocols.
    pub group: Group,
    /// The RFC and section.
    pub source: String,
    /// How strongly the rule binds.
    pub level: Level,
    /// What the domain publishes.
    pub about: String,
    /// The conforming behavior as a sentence.
    pub expected: String,
    /// Whether a sender without MTA-STS and DANE conforms too.
    pub without: Without,
    /// The outcome.
    pub outcome: Outcome,
    /// The reason, unless the outcome is `conforms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What was seen, message by message.
    pub phases: Vec<PhaseResult>,
    /// The TLS reports that arrived, day by day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<DayResult>,
}

/// The TLS reports of one day.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DayResult {
    /// What the reports have to be, as a sentence.
    pub expected: String,
    /// What arrived, a line for each report: its target, its ID and its policies with their counts.
    pub reports: Vec<String>,
}

/// What was seen of one message.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PhaseResult {
    /// The fates that conform.
    pub conforms: Vec<Fate>,
    /// The fate of the message.
    pub fate: Fate,
    /// The events on the wire, in order.
    pub events: Vec<Line>,
}

/// One event on the wire.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Line {
    /// Milliseconds since the first event of the phase.
    pub ms: u64,
    /// What the mail server did, such as `dns _mta-sts.record.test. TXT udp rd: genuine`.
    pub what: String,
}

impl PhaseResult {
    pub(super) fn new(phase: &Phase, seen: &Seen) -> Self {
        let first = seen.events.first().map(|event| event.at).unwrap_or_default();
        let line = |event: &crate::traffic::Event| Line {
            ms: u64::try_from(event.at.saturating_sub(first).as_millis()).unwrap_or(u64::MAX),
            what: event.what.to_string(),
        };
        Self {
            conforms: phase.conforms.clone(),
            fate: seen.fate,
            events: seen.events.iter().map(line).collect(),
        }
    }
}

impl CaseResult {
    pub(super) fn new(case: &Case) -> Self {
        Self {
            id: case.id.into(),
            group: case.group,
            source: case.source.into(),
            level: case.level,
            about: case.about.into(),
            expected: case.sentence(),
            without: case.without,
            outcome: Outcome::Conforms,
            why: None,
            phases: Vec::new(),
            days: Vec::new(),
        }
    }

    pub(super) fn stop(&mut self, stop: Stop) -> Outcome {
        let (outcome, why) = match stop {
            Stop::NotObservable(why) => (Outcome::NotObservable, why),
            Stop::LabFailed(why) => (Outcome::LabFailed, why),
        };
        (self.outcome, self.why) = (outcome, Some(why));
        outcome
    }

    /// Notes the outcome of a phase of `of` phases, which is that of the case unless a later phase has another one.
    pub(super) fn judged(
        &mut self,
        number: usize,
        of: usize,
        outcome: Outcome,
        why: Option<String>,
    ) -> Outcome {
        let message = if of > 1 { format!("message {number}: ") } else { String::new() };
        (self.outcome, self.why) = (outcome, why.map(|why| format!("{message}{why}")));
        outcome
    }
}

/// A case whose outcome differs between two runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The name of the case.
    pub id: String,
    /// The outcome in the older run; `None` if it had no such case.
    pub before: Option<Outcome>,
    /// The outcome in the newer run; `None` if it has no such case.
    pub now: Option<Outcome>,
}

impl Report {
    /// A report of these results.
    pub fn new(server: String, sternpost: &str, cases: Vec<CaseResult>) -> Self {
        let mut score = Score::default();
        for case in cases.iter().filter(|case| case.without == Without::FallsShort) {
            let passed = matches!(case.outcome, Outcome::Conforms | Outcome::DoesMore);
            score.conforming += usize::from(passed);
            score.judged += usize::from(passed || case.outcome == Outcome::Violates);
        }
        Self { schema: SCHEMA, server, sternpost: sternpost.into(), score, cases }
    }

    /// How many cases have this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.cases.iter().filter(|case| case.outcome == outcome).count()
    }

    /// The violations of at least this level.
    pub fn violations(&self, level: Level) -> impl Iterator<Item = &CaseResult> {
        self.cases.iter().filter(move |case| case.outcome == Outcome::Violates && case.level >= level)
    }

    /// The cases of which the outcome differs from an older run, by name.
    pub fn differences(&self, older: &Self) -> Vec<Difference> {
        let outcomes = |report: &Self| -> BTreeMap<String, Outcome> {
            report.cases.iter().map(|case| (case.id.clone(), case.outcome)).collect()
        };
        let (before, now) = (outcomes(older), outcomes(self));
        let mut ids: Vec<&String> = before.keys().chain(now.keys()).collect();
        ids.sort();
        ids.dedup();
        let both = |id: &String| (before.get(id).copied(), now.get(id).copied());
        ids.into_iter()
            .map(|id| (id, both(id)))
            .filter(|(_, (before, now))| before != now)
            .map(|(id, (before, now))| Difference { id: id.clone(), before, now })
            .collect()
    }
}
