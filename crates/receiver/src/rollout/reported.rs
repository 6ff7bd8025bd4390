//! What reports tell that needs somebody: failures of verified senders, a rate of them that is too high,
//! and silence where reports used to come. One alert a cause, however many reports name it. Pure.

use super::RolloutState;
use super::decisions::Decisions;
use super::gate::Cause;
use super::guard::{Alert, AlertKind};
use formats::{DomainName, Mode};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use store::reports::{CauseSum, DaySum};

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// A cause that nobody met for so long is over; reports come up to two days after the day that they cover.
const RECENT_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 3);
/// For so long a domain that had reports on most days before is silent.
const SILENCE_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 5);
/// The days before, and on how many of them there were reports.
const BASELINE_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 19);
const MIN_BASELINE_DAYS: usize = 10;
/// Sessions of a week below which a rate says nothing.
const MIN_WEEK_SESSIONS: u64 = 50;

const CONSEQUENCE_ENFORCED: &str = "Their mail waits and bounces after some days.";
const CONSEQUENCE_TESTING: &str =
    "In testing their mail still comes; under enforcement it would wait and bounce.";

/// What is known of a domain from reports.
#[derive(Debug, Clone, Copy)]
pub struct ReportSums<'a> {
    /// Its days, oldest first.
    pub days: &'a [DaySum],
    /// Its causes of failures.
    pub causes: &'a [CauseSum],
}

/// What needs somebody; `rate` is the fraction of failed sessions in a week that is too much. Nothing for a
/// domain without a policy of ours.
pub fn reported(
    domain: &DomainName,
    rollout: &RolloutState,
    decisions: &Decisions,
    told: ReportSums<'_>,
    rate: f64,
    now: Timestamp,
) -> Vec<Alert> {
    let Some(mode) = rollout.mode.filter(|known| known.mode != Mode::None) else { return Vec::new() };
    let refused = if mode.mode == Mode::Enforce { CONSEQUENCE_ENFORCED } else { CONSEQUENCE_TESTING };
    let back = match mode.mode {
        Mode::Enforce => format!(
            "Mend it; if that takes long, go back to testing: sternpost hold {domain} --reason \"…\" && sternpost apply {domain}"
        ),
        _ => format!(
            "Mend it, or excuse it with a reason; what to do is shown by the page of {domain}, and by: sternpost check {domain}"
        ),
    };
    let mut all = Vec::new();
    for (cause, (sessions, senders)) in fresh(told.causes, decisions, mode.since, now) {
        all.push(Alert {
            kind: AlertKind::ReportedFailure,
            subject: cause.to_string(),
            what: format!("{senders} verified senders met {cause} in mail to {domain} ({sessions} sessions)"),
            consequence: refused.into(),
            remedy: back.clone(),
        });
    }
    let week = told.days.iter().filter(|day| day.day + DAY * 8 > now && day.day + DAY > mode.since);
    let (worked, failed) = week.fold((0u64, 0u64), |(worked, failed), day| {
        (worked.saturating_add(day.successful), failed.saturating_add(day.failed))
    });
    let share = failed as f64 / worked.saturating_add(failed).max(1) as f64;
    if worked.saturating_add(failed) >= MIN_WEEK_SESSIONS && share > rate {
        all.push(Alert {
            kind: AlertKind::FailureRate,
            subject: domain.to_string(),
            what: format!(
                "{:.1} % of the sessions of the last week failed, by verified reports",
                share * 100.0
            ),
            consequence: refused.into(),
            remedy: back,
        });
    }
    let reports_on = |from: Timestamp, to: Timestamp| {
        told.days
            .iter()
            .filter(|day| day.day >= from && day.day < to && (day.successful > 0 || day.failed > 0))
            .count()
    };
    let lately = now.saturating_sub(SILENCE_WINDOW).unwrap_or(now);
    if reports_on(lately, now) == 0
        && reports_on(lately.saturating_sub(BASELINE_WINDOW).unwrap_or(lately), lately) >= MIN_BASELINE_DAYS
    {
        all.push(Alert {
            kind: AlertKind::Silence,
            subject: domain.to_string(),
            what: format!("no verified report about {domain} has come for {} days, and they used to", SILENCE_WINDOW.as_hours() / 24),
            consequence: "New failures would not be noticed.".into(),
            remedy: format!("See that the record _smtp._tls.{domain} is there and that its addresses take mail: sternpost check {domain}"),
        });
    }
    all
}

/// Causes that count, that nobody excused, and that were met lately: how often, and by how many.
fn fresh(
    causes: &[CauseSum],
    decisions: &Decisions,
    since: Timestamp,
    now: Timestamp,
) -> BTreeMap<Cause, (u64, u64)> {
    let excused = decisions.excused();
    let mut found: BTreeMap<Cause, (u64, u64)> = BTreeMap::new();
    for sum in causes
        .iter()
        .filter(|sum| sum.counts && sum.last + DAY > since && sum.last + DAY + RECENT_WINDOW > now)
    {
        let cause = Cause { result: sum.result_type.clone(), host: sum.host.clone() };
        if excused.contains(&cause) {
            continue;
        }
        let (sessions, senders) = found.entry(cause).or_default();
        *sessions = sessions.saturating_add(sum.sessions);
        *senders = (*senders).max(sum.senders);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::decisions::Decision;
    use super::super::state::InMode;
    use super::*;
    use formats::result_type::PolicyType;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(day * 86_400).unwrap()
    }

    fn cause(last: i64, counts: bool) -> CauseSum {
        CauseSum {
            result_type: "certificate-expired".into(),
            host: "mx1.a.example".into(),
            address: String::new(),
            kind: PolicyType::Sts,
            sessions: 4,
            senders: 2,
            sender: "big.example".into(),
            first: at(last),
            last: at(last),
            report: 1,
            counts,
        }
    }

    fn day(number: i64, successful: u64, failed: u64) -> DaySum {
        DaySum { day: at(number), successful, failed, sts_sessions: 0, tainted: 0, unproved: 0 }
    }

    fn kinds(mode: Mode, decisions: &Decisions, days: &[DaySum], causes: &[CauseSum]) -> Vec<AlertKind> {
        let rollout = RolloutState { mode: Some(InMode { mode, since: at(50) }), ..RolloutState::default() };
        let domain = DomainName::parse("a.example").unwrap();
        let alerts = reported(&domain, &rollout, decisions, ReportSums { days, causes }, 0.01, at(100));
        assert!(alerts.iter().all(|alert| !alert.remedy.is_empty()));
        alerts.iter().map(|alert| alert.kind).collect()
    }

    #[test]
    fn a_fresh_cause_of_verified_senders_is_told_once_and_an_excused_or_old_one_is_not() {
        let free = Decisions::default();
        let both = [cause(99, true), cause(98, true)];
        assert_eq!(kinds(Mode::Enforce, &free, &[], &both), [AlertKind::ReportedFailure]);
        assert_eq!(kinds(Mode::Enforce, &free, &[], &[cause(90, true)]), []);
        assert_eq!(kinds(Mode::Enforce, &free, &[], &[cause(99, false)]), []);
        assert_eq!(kinds(Mode::None, &free, &[], &both), []);
        let mut excused = Decisions::default();
        let expired = Cause { result: "certificate-expired".into(), host: "mx1.a.example".into() };
        excused.excuse(expired, Decision { reason: "x".into(), who: "y".into(), at: at(1) });
        assert_eq!(kinds(Mode::Enforce, &excused, &[], &both), []);
    }

    #[test]
    fn a_high_rate_and_silence_are_told() {
        let free = Decisions::default();
        let steady: Vec<DaySum> = (70..100).map(|number| day(number, 100, 0)).collect();
        assert_eq!(kinds(Mode::Testing, &free, &steady, &[]), []);
        let failing: Vec<DaySum> = (70..100).map(|number| day(number, 100, 3)).collect();
        assert_eq!(kinds(Mode::Testing, &free, &failing, &[]), [AlertKind::FailureRate]);
        assert_eq!(kinds(Mode::Testing, &free, &steady[..20], &[]), [AlertKind::Silence]);
        assert_eq!(kinds(Mode::Testing, &free, &steady[..5], &[]), []);
    }
}
