//! Raises alerts from reports: failures of verified senders, a high failure rate, and a drop to zero reports. Each
//! cause raises one alert, however many reports name it. Pure; the guard supplies the sums from the store.

use super::RolloutState;
use super::decisions::Decisions;
use super::gate::{Cause, Gate};
use super::guard::{Alert, AlertKind};
use formats::counted::counted;
use formats::{DomainName, Mode};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use store::reports::{CauseSum, DaySum};
use suffix::independent_domain;

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// A cause counts as over when its last day ended this long ago. Reports arrive up to two days after the day that
/// they cover.
const RECENT_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 3);
/// A domain is silent when no report covers this period, although reports were regular before.
const SILENCE_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 5);
/// The period before the silence, and on how many of its days reports must have come for it to count as regular.
const BASELINE_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 19);
const MIN_BASELINE_DAYS: usize = 10;
/// Minimum number of sessions in a week for a failure rate to be meaningful.
const MIN_WEEK_SESSIONS: u64 = 50;

/// Causes that one sender alone reports raise an alert each, unless there are more of them.
const MAX_CAUSES_ALONE: usize = 10;

const CONSEQUENCE_ENFORCED: &str = "Their mail is queued and bounces after a few days.";
const CONSEQUENCE_TESTING: &str =
    "In testing mode their mail still arrives; under enforcement it would be queued and then bounce.";

/// The sums of reports about a domain, read from the store.
#[derive(Debug, Clone, Copy)]
pub struct ReportSums<'a> {
    /// The sums of each day, oldest first.
    pub days: &'a [DaySum],
    /// The sums of each cause of failures.
    pub causes: &'a [CauseSum],
}

/// Returns the alerts that the reports justify. `max_rate` is the highest acceptable fraction of failed sessions in a
/// week. A domain without a published policy raises none.
pub fn reported(
    domain: &DomainName,
    rollout: &RolloutState,
    decisions: &Decisions,
    sums: ReportSums<'_>,
    max_rate: f64,
    now: Timestamp,
) -> Vec<Alert> {
    let Some(mode) = rollout.mode.filter(|known| known.mode != Mode::None) else { return Vec::new() };
    let consequence = if mode.mode == Mode::Enforce { CONSEQUENCE_ENFORCED } else { CONSEQUENCE_TESTING };
    let remedy = match mode.mode {
        Mode::Enforce => format!(
            "Fix the cause; if that takes long, return to testing: sternpost hold {domain} --reason \"…\" && sternpost apply {domain}"
        ),
        _ => format!(
            "Fix the cause, or excuse it with a reason. The dashboard page of {domain} shows what to do, as does: sternpost check {domain}"
        ),
    };
    let mut all = Vec::new();
    let mut causes = recent_causes(sums.causes, decisions, mode.since, now);
    for (sender, of_sender) in take_many_of_one_sender(&mut causes) {
        let some: Vec<String> = of_sender.iter().take(3).map(Cause::to_string).collect();
        all.push(Alert {
            kind: AlertKind::ReportedFailure,
            subject: format!("many causes by {sender}"),
            what: format!(
                "{sender} reported {} or more causes of failures for mail to {domain} that no other verified sender did, among them {}",
                of_sender.len(),
                some.join(", ")
            ),
            consequence: consequence.into(),
            remedy: format!(
                "Read its reports: sternpost reports list --domain {domain} --failed. If the failures are not real, the sender can only delay enforcement; remove its reports with sternpost reports drop. Otherwise: {remedy}"
            ),
            cause: None,
            domains: Vec::new(),
        });
    }
    for (cause, (sessions, senders, sender)) in causes {
        all.push(Alert {
            kind: AlertKind::ReportedFailure,
            subject: cause.to_string(),
            what: match senders {
                1 => format!(
                    "{sender} reported {cause} for mail to {domain} ({}); no other verified sender did",
                    counted(sessions, "session")
                ),
                _ => format!(
                    "{senders} verified senders reported {cause} for mail to {domain} ({})",
                    counted(sessions, "session")
                ),
            },
            consequence: consequence.into(),
            remedy: remedy.clone(),
            cause: None,
            domains: Vec::new(),
        });
    }
    let week = sums.days.iter().filter(|day| day.day + DAY * 8 > now && day.day + DAY > mode.since);
    let (worked, failed) = week.fold((0u64, 0u64), |(worked, failed), day| {
        (worked.saturating_add(day.successful), failed.saturating_add(day.failed))
    });
    let share = failed as f64 / worked.saturating_add(failed).max(1) as f64;
    if worked.saturating_add(failed) >= MIN_WEEK_SESSIONS && share > max_rate {
        all.push(Alert {
            kind: AlertKind::FailureRate,
            subject: domain.to_string(),
            what: format!(
                "{:.1} % of the sessions of the last week failed, according to verified reports",
                share * 100.0
            ),
            consequence: consequence.into(),
            remedy,
            cause: None,
            domains: Vec::new(),
        });
    }
    let reports_on = |from: Timestamp, to: Timestamp| {
        sums.days
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
            what: format!("no verified report about {domain} has arrived for {} days, although they were regular before", SILENCE_WINDOW.as_hours() / 24),
            consequence: "New failures would not be noticed.".into(),
            remedy: format!("Check that the record _smtp._tls.{domain} exists and that its addresses accept mail: sternpost check {domain}"),
            cause: None,
            domains: Vec::new(),
        });
    }
    all
}

/// The alert for a domain whose evidence the operator has to judge; `None` if the gate needs no decision.
pub fn disputed(domain: &DomainName, gate: &Gate) -> Option<Alert> {
    let Gate::Ask(reasons) = gate else { return None };
    Some(Alert {
        kind: AlertKind::DecisionNeeded,
        subject: domain.to_string(),
        what: format!("the evidence about {domain} needs your decision: {}", reasons.join("; ")),
        consequence: "Until you decide, the domain stays in testing, where mail is not protected.".into(),
        remedy: format!(
            "Look at the reports: sternpost reports list --domain {domain} --failed. If the failures are real, fix their cause. If not, allow enforcement: sternpost promote {domain}, or exclude the cause: sternpost excuse"
        ),
        cause: None,
        domains: Vec::new(),
    })
}

/// The recent causes that count and are not excused, each with its number of sessions and of senders, and one sender.
fn recent_causes(
    causes: &[CauseSum],
    decisions: &Decisions,
    since: Timestamp,
    now: Timestamp,
) -> BTreeMap<Cause, (u64, u64, String)> {
    let excused = decisions.excused();
    let mut found: BTreeMap<Cause, (u64, u64, String)> = BTreeMap::new();
    for sum in causes
        .iter()
        .filter(|sum| sum.counts && sum.last + DAY > since && sum.last + DAY + RECENT_WINDOW > now)
    {
        let cause = Cause { result: sum.result_type.clone(), host: sum.host.clone() };
        if excused.contains(&cause) {
            continue;
        }
        let (sessions, senders, sender) = found.entry(cause).or_default();
        *sessions = sessions.saturating_add(sum.sessions);
        // The sums differ in the address only; their senders may be the same or not.
        let is_other = !sender.is_empty() && independent_domain(sender) != independent_domain(&sum.sender);
        *senders = (*senders).max(sum.senders).max(1 + u64::from(is_other));
        *sender = sum.sender.clone();
    }
    found
}

/// Removes the causes that one sender alone reports if they are more than [`MAX_CAUSES_ALONE`], and returns them by the sender's
/// registrable domain.
fn take_many_of_one_sender(causes: &mut BTreeMap<Cause, (u64, u64, String)>) -> BTreeMap<String, Vec<Cause>> {
    let mut alone: BTreeMap<String, Vec<Cause>> = BTreeMap::new();
    for (cause, (_, senders, sender)) in causes.iter() {
        if *senders == 1 {
            alone.entry(independent_domain(sender).to_owned()).or_default().push(cause.clone());
        }
    }
    alone.retain(|_, of_sender| of_sender.len() > MAX_CAUSES_ALONE);
    alone.values().flatten().for_each(|cause| drop(causes.remove(cause)));
    alone
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
    fn a_recent_cause_of_verified_senders_raises_one_alert_and_an_excused_or_old_one_none() {
        let none = Decisions::default();
        let both = [cause(99, true), cause(98, true)];
        assert_eq!(kinds(Mode::Enforce, &none, &[], &both), [AlertKind::ReportedFailure]);
        assert_eq!(kinds(Mode::Enforce, &none, &[], &[cause(90, true)]), []);
        assert_eq!(kinds(Mode::Enforce, &none, &[], &[cause(99, false)]), []);
        assert_eq!(kinds(Mode::None, &none, &[], &both), []);
        let mut excused = Decisions::default();
        let expired = Cause { result: "certificate-expired".into(), host: "mx1.a.example".into() };
        excused.excuse(expired, Decision { reason: "x".into(), who: "y".into(), at: at(1) });
        assert_eq!(kinds(Mode::Enforce, &excused, &[], &both), []);
    }

    #[test]
    fn an_alert_says_who_reports_and_asks_for_a_decision() {
        let rollout = RolloutState {
            mode: Some(InMode { mode: Mode::Testing, since: at(50) }),
            ..RolloutState::default()
        };
        let domain = DomainName::parse("a.example").unwrap();
        let one = CauseSum { senders: 1, ..cause(99, true) };
        let other = CauseSum { address: "192.0.2.2".into(), sender: "other.example".into(), ..one.clone() };
        let what = |causes: &[CauseSum]| {
            let sums = ReportSums { days: &[], causes };
            reported(&domain, &rollout, &Decisions::default(), sums, 0.01, at(100)).remove(0).what
        };
        assert!(what(std::slice::from_ref(&one)).starts_with("big.example reported certificate-expired"));
        assert!(what(&[one, other]).starts_with("2 verified senders reported"));
        assert_eq!(disputed(&domain, &Gate::Ready), None);
        let asked = disputed(&domain, &Gate::Ask(vec!["only big.example reported x".into()])).unwrap();
        assert!(asked.what.contains("only big.example reported x"), "{}", asked.what);
        assert!(asked.remedy.contains("sternpost promote a.example"), "{}", asked.remedy);
    }

    /// Through the store, as reports arrive.
    #[tokio::test]
    async fn invented_causes_neither_hide_a_genuine_one_nor_raise_an_alert_each() {
        use formats::ResultType;
        use formats::report::{FailureDetail, Report};
        use store::Store;
        use store::reports::{Arrival, NewReport, Trust};
        let domain = DomainName::parse("a.example").unwrap();
        let detail = |host: String, sessions| FailureDetail {
            result_type: ResultType::parse("certificate-expired"),
            sending_mta_ip: None,
            receiving_mx_hostname: Some(host),
            receiving_mx_helo: None,
            receiving_ip: None,
            failed_session_count: sessions,
            additional_information: None,
            failure_reason_code: None,
        };
        let report = |sender: &str, details: Vec<FailureDetail>| NewReport {
            submitter: sender.into(),
            signer: Some(sender.into()),
            trust: Trust::Verified,
            about: None,
            arrival: Arrival::Smtp,
            received_at: at(100),
            source: sender.into(),
            report: Report {
                organization_name: Some(sender.into()),
                date_range: formats::report::DateRange::utc_day(at(99)),
                contact_info: None,
                report_id: "1".into(),
                policies: vec![formats::report::PolicyReport {
                    policy_type: PolicyType::Sts,
                    policy_string: Vec::new(),
                    policy_domain: Some(domain.clone()),
                    mx_host: Vec::new(),
                    successful: 100_000,
                    failed: 3,
                    details,
                }],
            },
            warnings: 0,
            packed: vec![0],
        };
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let invented = (0..100_000).map(|number| detail(format!("mx{number}.invented.example"), 1 << 40));
        store.keep_report(&report("evil.example", invented.collect())).await.unwrap();
        store.keep_report(&report("big.example", vec![detail("mx1.a.example".into(), 3)])).await.unwrap();
        let causes = store.causes_of(&domain, at(90)).await.unwrap();
        for mode in [Mode::Testing, Mode::Enforce] {
            let rollout =
                RolloutState { mode: Some(InMode { mode, since: at(50) }), ..RolloutState::default() };
            let sums = ReportSums { days: &[], causes: &causes };
            let alerts = reported(&domain, &rollout, &Decisions::default(), sums, 0.01, at(100));
            let subjects: Vec<&str> = alerts.iter().map(|alert| alert.subject.as_str()).collect();
            assert_eq!(subjects, ["many causes by evil.example", "certificate-expired at mx1.a.example"]);
            assert!(alerts[1].what.starts_with("big.example reported"), "{}", alerts[1].what);
        }
    }

    #[test]
    fn a_high_failure_rate_and_silence_raise_alerts() {
        let none = Decisions::default();
        let steady: Vec<DaySum> = (70..100).map(|number| day(number, 100, 0)).collect();
        assert_eq!(kinds(Mode::Testing, &none, &steady, &[]), []);
        let failing: Vec<DaySum> = (70..100).map(|number| day(number, 100, 3)).collect();
        assert_eq!(kinds(Mode::Testing, &none, &failing, &[]), [AlertKind::FailureRate]);
        assert_eq!(kinds(Mode::Testing, &none, &steady[..20], &[]), [AlertKind::Silence]);
        assert_eq!(kinds(Mode::Testing, &none, &steady[..5], &[]), []);
    }
}
