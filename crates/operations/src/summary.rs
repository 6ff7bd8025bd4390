//! The weekly summary of all domains: sessions, failures by cause, and the next step for each domain. `serve` mails it
//! (`guard.weekly`), `sternpost summary` prints it.
//!
//! The week is seven UTC days that end with the day before yesterday's end: reports about a day arrive until the end of the
//! following day. A mail is read only if it is short, so a domain without failures takes one line, and a week in which
//! nothing happened takes one sentence.

use crate::{RolloutContext, store_failure};
use config::failure::Failure;
use formats::Mode;
use formats::counted::{count, counted};
use formats::printable::printable;
use formats::report::DateRange;
use jiff::{SignedDuration, Timestamp};
use receiver::domain::DomainSpec;
use receiver::inbox::explain::{CauseContext, explain};
use receiver::rollout::RolloutState;
use receiver::rollout::gate::Gate;
use receiver::rollout::guard::Alert;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use store::StoreError;
use store::reports::DaySum;

/// The summary of one week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WeeklySummary {
    /// The first second of the first day.
    pub from: Timestamp,
    /// The first second of the last day.
    pub to: Timestamp,
    /// The domains, most urgent first; at most [`MAX_DOMAINS`].
    pub domains: Vec<DomainWeek>,
    /// The number of further domains.
    pub further: usize,
    /// The number of further domains with failures, alerts or a step to take.
    pub further_urgent: usize,
}

/// The week of one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DomainWeek {
    /// The name of the domain.
    pub domain: String,
    /// The mode of its policy; `None` if it was not observed yet.
    pub mode: Option<Mode>,
    /// Successful sessions in reports that count as evidence.
    pub successful: u64,
    /// Failed sessions in reports that count as evidence.
    pub failed: u64,
    /// Sessions in other reports, which are not verified.
    pub unverified: u64,
    /// The active alerts, one phrase each, at most [`MAX_CAUSES`].
    pub alerts: Vec<String>,
    /// The failures by cause, one sentence each, the most frequent first, at most [`MAX_CAUSES`].
    pub failures: Vec<String>,
    /// The next step for the domain.
    pub next: NextStep,
}

/// What comes next for a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "who", content = "what")]
pub enum NextStep {
    /// Nothing: the domain is in its desired state.
    Nothing,
    /// Nothing yet: the rollout waits for this.
    Wait(String),
    /// The operator has to do this; a command or a phrase.
    Operator(String),
}

/// A summary as a mail, as it waits in the store for its delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryMail {
    /// The subject of the message.
    pub subject: String,
    /// The body of the message, in plain text.
    pub body: String,
}

/// Domains that a summary describes.
pub const MAX_DOMAINS: usize = 100;
/// Causes of failures, and alerts, that a summary lists for one domain.
pub const MAX_CAUSES: usize = 3;
/// Characters of a line about a cause or an alert. It contains names that reporters chose.
const LINE_CHARACTERS: usize = 300;
/// The days of a summary.
const WEEK: SignedDuration = SignedDuration::from_hours(24 * 7);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The store's data about all domains, by domain name.
struct Known {
    days: BTreeMap<String, Vec<DaySum>>,
    rollouts: BTreeMap<String, Result<RolloutState, StoreError>>,
    alerts: BTreeMap<String, Vec<String>>,
}

/// Summarizes the week before `now`.
///
/// # Errors
///
/// If the store fails.
pub async fn weekly_summary(context: &RolloutContext, now: Timestamp) -> Result<WeeklySummary, Failure> {
    let fail = |error| store_failure(&error);
    let end = DateRange::utc_day(now).start.saturating_sub(DAY).unwrap_or(Timestamp::MIN);
    let from = end.saturating_sub(WEEK).unwrap_or(Timestamp::MIN);
    let mut alerts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for active in context.store.alerts::<Alert>().await.map_err(fail)? {
        alerts.entry(active.domain).or_default().push(active.alert.what);
    }
    let names: Vec<&str> = context.known.iter().map(|spec| spec.name.as_str()).collect();
    let known = Known {
        days: context.store.days_of_each(&names, from).await.map_err(fail)?,
        rollouts: context.store.rollouts().await.map_err(fail)?,
        alerts,
    };
    let mut all: Vec<(DomainWeek, &DomainSpec)> =
        context.known.iter().map(|spec| (of(context, spec, &known, end), spec)).collect();
    all.sort_by(|(one, _), (other, _)| {
        urgency(one).cmp(&urgency(other)).then_with(|| one.domain.cmp(&other.domain))
    });
    let rest = all.split_off(all.len().min(MAX_DOMAINS));
    let mut domains = Vec::with_capacity(all.len());
    for (mut week, spec) in all {
        if week.failed > 0 {
            week.failures = failures(context, spec, from, end).await?;
        }
        domains.push(DomainWeek { next: next_step(context, spec, &known).await?, ..week });
    }
    Ok(WeeklySummary {
        from,
        to: end.saturating_sub(DAY).unwrap_or(end),
        domains,
        further: rest.len(),
        further_urgent: rest.iter().filter(|(week, _)| urgency(week) < 3).count(),
    })
}

fn of(context: &RolloutContext, spec: &DomainSpec, known: &Known, end: Timestamp) -> DomainWeek {
    let name = spec.name.as_str();
    let days = known.days.get(name).map(Vec::as_slice).unwrap_or_default();
    let sum = |count: fn(&DaySum) -> u64| {
        days.iter().filter(|day| day.day < end).fold(0u64, |sum, day| sum.saturating_add(count(day)))
    };
    let alerts = known.alerts.get(name).map(Vec::as_slice).unwrap_or_default();
    let rollout = known.rollouts.get(name);
    // A state that can't be read does not hide the other domains.
    let damage = rollout.and_then(|rollout| rollout.as_ref().err()).map(ToString::to_string);
    let mode = rollout.and_then(|rollout| rollout.as_ref().ok()?.mode).map(|known| known.mode);
    let is_there = mode == Some(context.desired(spec).mode);
    DomainWeek {
        domain: name.to_owned(),
        mode,
        successful: sum(|day| day.successful),
        failed: sum(|day| day.failed),
        unverified: sum(|day| day.unproved),
        alerts: damage
            .iter()
            .chain(alerts)
            .take(MAX_CAUSES)
            .map(|what| printable(what, LINE_CHARACTERS))
            .collect(),
        failures: Vec::new(),
        next: if is_there { NextStep::Nothing } else { NextStep::Wait(String::new()) },
    }
}

/// The place of a domain in the summary: alerts first, then failures, then rollouts that are not complete.
fn urgency(week: &DomainWeek) -> u8 {
    match week {
        _ if !week.alerts.is_empty() => 0,
        _ if week.failed > 0 => 1,
        _ if week.next != NextStep::Nothing => 2,
        _ => 3,
    }
}

/// The failures of the week in reports that count, one sentence for each cause.
async fn failures(
    context: &RolloutContext,
    spec: &DomainSpec,
    from: Timestamp,
    end: Timestamp,
) -> Result<Vec<String>, Failure> {
    let fail = |error| store_failure(&error);
    let (store, name) = (&context.store, &spec.name);
    let senders = store.senders_about(name, from).await.map_err(fail)?;
    let probes = store.guard_probes(name, from).await.map_err(fail)?;
    let around = CauseContext { domain: name.as_str(), senders: &senders, probes: &probes };
    let causes = store.causes_of(name, from).await.map_err(fail)?;
    let counting = causes.iter().filter(|cause| cause.counts && cause.first < end);
    let said = counting.map(|cause| printable(&explain(cause, &around).what, LINE_CHARACTERS));
    Ok(said.take(MAX_CAUSES).collect())
}

/// What a domain without a policy waits for, whose plan the guard carries out.
fn first_round(spec: &DomainSpec) -> String {
    match spec.delegated {
        true => "the three aliases of the owner; then the guard applies the plan".to_owned(),
        false => "the next round of the guard, which applies the plan".to_owned(),
    }
}

async fn next_step(context: &RolloutContext, spec: &DomainSpec, known: &Known) -> Result<NextStep, Failure> {
    let name = &spec.name;
    let nothing = RolloutState::default();
    let rollout = match known.rollouts.get(name.as_str()) {
        Some(Ok(rollout)) => rollout,
        Some(Err(_)) => return Ok(NextStep::Operator(format!("sternpost status {name}"))),
        None => &nothing,
    };
    let desired = context.desired(spec).mode;
    let apply = || NextStep::Operator(format!("sternpost apply {name}"));
    if let Some(held) = context.decisions(name).held {
        let reason = printable(&held.reason, LINE_CHARACTERS);
        return Ok(NextStep::Wait(format!("held in testing by {}: {reason}", held.who)));
    }
    Ok(match rollout.mode.map(|known| known.mode) {
        None if desired == Mode::None => NextStep::Nothing,
        None if context.is_applied_by_guard(spec) => NextStep::Wait(first_round(spec)),
        Some(mode) if mode == desired && rollout.announce_due => apply(),
        Some(mode) if mode == desired => NextStep::Nothing,
        Some(Mode::Testing) if desired == Mode::Enforce && rollout.approved.is_none() => {
            match context.gate(name, rollout).await?.1 {
                Gate::Ready => NextStep::Operator(format!("sternpost promote {name}")),
                // The reasons are in the status, and so is what to decide.
                Gate::Ask(_) => NextStep::Operator(format!("sternpost status {name}")),
                Gate::NotYet(reasons) => NextStep::Wait(reasons.into_iter().next().unwrap_or_default()),
            }
        }
        _ => apply(),
    })
}

impl WeeklySummary {
    /// True if nothing was reported, nothing is wrong, and nothing is to do.
    pub fn is_quiet(&self) -> bool {
        let is_quiet = |week: &DomainWeek| {
            urgency(week) == 3 && week.successful == 0 && week.failed == 0 && week.unverified == 0
        };
        self.further_urgent == 0 && self.domains.iter().all(is_quiet)
    }

    /// The summary as a mail.
    pub fn mail(&self) -> SummaryMail {
        let date = |at: Timestamp| at.strftime("%Y-%m-%d").to_string();
        let week = format!("{} to {}", date(self.from), date(self.to));
        let all = self.domains.len() + self.further;
        let domains = counted(all, "domain");
        let is_urgent = |week: &&DomainWeek| {
            !week.alerts.is_empty() || week.failed > 0 || matches!(week.next, NextStep::Operator(_))
        };
        let urgent = self.domains.iter().filter(is_urgent).count() + self.further_urgent;
        let state = match urgent {
            0 => "nothing to do".to_owned(),
            urgent => format!("{urgent} of {domains} need action"),
        };
        let subject = format!("[sternpost] {week}: {state}");
        if self.is_quiet() {
            let body = format!(
                "A quiet week, {week} (UTC): no reports about your {domains}, no alerts, nothing to do.\n"
            );
            return SummaryMail { subject, body };
        }
        let mut body = format!("TLS reports about your {domains}, {week} (UTC).\n");
        // Writing to a String does not fail.
        self.domains.iter().for_each(|week| {
            let _ = week.write(&mut body);
        });
        if self.further > 0 {
            let _ = writeln!(
                body,
                "\n{}, {} of them with alerts, failures or an incomplete rollout: see `sternpost status` or the dashboard.",
                counted(self.further, "further domain"),
                self.further_urgent
            );
        }
        SummaryMail { subject, body }
    }
}

impl DomainWeek {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        let mode = self.mode.map_or("not set up".to_owned(), |mode| mode.to_string());
        let sessions = self.successful.saturating_add(self.failed);
        let said = match (sessions, self.failed) {
            (0, _) => "no verified report".to_owned(),
            (1, 0) => "1 session, successful".to_owned(),
            (all, 0) => format!("{}, all successful", counted(all, "session")),
            (all, failed) => format!("{}, {} failed", counted(all, "session"), count(failed)),
        };
        writeln!(out, "\n{} ({mode}): {said}", self.domain)?;
        if self.unverified > 0 {
            writeln!(out, "  {} in reports that are not verified", counted(self.unverified, "session"))?;
        }
        for alert in &self.alerts {
            writeln!(out, "  Alert: {alert}")?;
        }
        for failure in &self.failures {
            writeln!(out, "  Failure: {failure}")?;
        }
        match &self.next {
            NextStep::Nothing => Ok(()),
            NextStep::Wait(what) => writeln!(out, "  Waiting: {what}"),
            NextStep::Operator(what) => writeln!(out, "  To do: {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn week(domain: &str) -> DomainWeek {
        DomainWeek {
            domain: domain.into(),
            mode: Some(Mode::Enforce),
            successful: 0,
            failed: 0,
            unverified: 0,
            alerts: Vec::new(),
            failures: Vec::new(),
            next: NextStep::Nothing,
        }
    }

    fn summary(domains: Vec<DomainWeek>) -> WeeklySummary {
        let (from, to) = ("2026-11-15T00:00:00Z".parse().unwrap(), "2026-11-21T00:00:00Z".parse().unwrap());
        WeeklySummary { from, to, domains, further: 0, further_urgent: 0 }
    }

    #[test]
    fn a_quiet_week_is_one_sentence() {
        let mail = summary(vec![week("a.example"), week("b.example")]).mail();
        assert_eq!(mail.subject, "[sternpost] 2026-11-15 to 2026-11-21: nothing to do");
        assert_eq!(
            mail.body,
            "A quiet week, 2026-11-15 to 2026-11-21 (UTC): no reports about your 2 domains, no alerts, nothing to do.\n"
        );
    }

    #[test]
    fn each_domain_has_its_sessions_failures_and_next_step() {
        let failing = DomainWeek {
            mode: Some(Mode::Testing),
            successful: 1230,
            failed: 4,
            unverified: 7,
            alerts: vec!["mx9.a.example is an MX host, and the policy does not name it".into()],
            failures: vec!["big.example reported an expired certificate at mx1.a.example, 4 times".into()],
            next: NextStep::Wait("3 more clean days needed".into()),
            ..week("a.example")
        };
        let ready = DomainWeek {
            mode: Some(Mode::Testing),
            next: NextStep::Operator("sternpost promote b.example".into()),
            ..week("b.example")
        };
        let fine = DomainWeek { successful: 9, ..week("c.example") };
        let mail =
            WeeklySummary { further: 2, further_urgent: 1, ..summary(vec![failing, ready, fine]) }.mail();
        assert_eq!(mail.subject, "[sternpost] 2026-11-15 to 2026-11-21: 3 of 5 domains need action");
        assert_eq!(
            mail.body,
            "TLS reports about your 5 domains, 2026-11-15 to 2026-11-21 (UTC).\n\
             \n\
             a.example (testing): 1,234 sessions, 4 failed\n\
             \u{20} 7 sessions in reports that are not verified\n\
             \u{20} Alert: mx9.a.example is an MX host, and the policy does not name it\n\
             \u{20} Failure: big.example reported an expired certificate at mx1.a.example, 4 times\n\
             \u{20} Waiting: 3 more clean days needed\n\
             \n\
             b.example (testing): no verified report\n\
             \u{20} To do: sternpost promote b.example\n\
             \n\
             c.example (enforce): 9 sessions, all successful\n\
             \n\
             2 further domains, 1 of them with alerts, failures or an incomplete rollout: see `sternpost status` or the dashboard.\n"
        );
    }

    #[test]
    fn urgent_domains_come_first() {
        let mut all = [
            week("fine.example"),
            DomainWeek { next: NextStep::Wait(String::new()), ..week("way.example") },
            DomainWeek { failed: 1, ..week("failing.example") },
            DomainWeek { alerts: vec!["x".into()], ..week("alert.example") },
        ];
        all.sort_by_key(urgency);
        let names = all.map(|week| week.domain);
        assert_eq!(names, ["alert.example", "failing.example", "way.example", "fine.example"]);
    }
}
