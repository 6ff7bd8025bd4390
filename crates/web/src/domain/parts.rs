//! The verdict of each part of a domain: MTA-STS, policy host, MX hosts, DANE, TLS reports, rollout. A part is only called
//! good if something was observed that shows it; without an observation it says that there is no data yet.

use super::DomainData;
use super::failures::is_recent;
use super::hosts::HostRow;
use crate::judge::{Mark, Urgency, sentence, urgency};
use crate::snapshot::ENDS_SOON;
use crate::text;
use formats::Mode;
use formats::result_type::{PolicyType, ResultType};
use jiff::Timestamp;
use receiver::domain::DomainSpec;
use receiver::rollout::gate::Gate;
use receiver::rollout::guard::{Alert, AlertKind};
use store::hosting::CertificateEnd;
use store::reports::FailureGroup;

/// The verdict of one part.
pub struct Part {
    pub title: &'static str,
    pub mark: Mark,
    pub text: String,
    /// The anchor of the section with the details.
    pub anchor: &'static str,
}

const NO_DATA: Mark = Mark("way", "· No data yet");
const GOOD: Mark = Mark("fine", "✓ OK");

/// The data that verdicts are made from, besides the facts.
pub struct PartsContext<'a> {
    pub spec: &'a DomainSpec,
    pub alerts: &'a [&'a Alert],
    pub hosts: &'a [HostRow],
    /// When the certificate of our policy host expires; `None` if it is not managed here.
    pub certificate: Option<CertificateEnd>,
    pub now: Timestamp,
}

impl PartsContext<'_> {
    /// The verdict by the most urgent alert of some kinds.
    fn alert(&self, kinds: &[AlertKind]) -> Option<(Mark, String)> {
        let found = self.alerts.iter().filter(|alert| kinds.contains(&alert.kind));
        found.min_by_key(|alert| urgency(alert.kind, true)).map(|alert| {
            let mark = match urgency(alert.kind, true) {
                Urgency::Failing => Mark("failing", "✗ Problem"),
                _ => Mark("waiting", "! Attention"),
            };
            (mark, format!("{}.", sentence(text::readable(alert.what.trim_end_matches('.')).as_str())))
        })
    }
}

/// The verdict of each part, in the order in which a sender meets them.
pub fn parts(facts: &DomainData, around: &PartsContext<'_>) -> Vec<Part> {
    let part = |title, anchor, (mark, text)| Part { title, mark, text, anchor };
    vec![
        part("MTA-STS", "records", sts(facts, around)),
        part("Policy host", "records", policy_host(facts, around)),
        part("MX hosts", "mx", mx(facts, around)),
        part("DANE", "failures", dane(facts, around)),
        part("TLS reports", "senders", reports(facts, around)),
        part("Rollout", "rollout", rollout(facts, around)),
    ]
}

fn sts(facts: &DomainData, around: &PartsContext<'_>) -> (Mark, String) {
    if let Some(found) = around.alert(&[AlertKind::RecordGone]) {
        return found;
    }
    match facts.rollout.mode {
        None => (Mark("way", "· Not set up"), "No policy is published.".to_owned()),
        Some(known) => {
            let since = text::date(&known.since);
            match known.mode {
                Mode::Enforce => (
                    Mark("fine", "✓ Enforced"),
                    format!("Since {since}. Senders that support MTA-STS deliver with verified TLS only."),
                ),
                Mode::Testing => (
                    Mark("way", "· Testing"),
                    format!("Since {since}. Senders deliver even if TLS can't be verified."),
                ),
                Mode::None => (Mark("way", "· Retiring"), format!("Mode none since {since}.")),
            }
        }
    }
}

fn policy_host(facts: &DomainData, around: &PartsContext<'_>) -> (Mark, String) {
    let now = around.now;
    if let Some(found) = around.alert(&[AlertKind::PolicyUnserved, AlertKind::PolicyCertificateEnds]) {
        return found;
    }
    if let Some(CertificateEnd { ends: end, .. }) =
        around.certificate.as_ref().filter(|end| end.is_soon(now, ENDS_SOON))
    {
        return match *end <= now {
            true => {
                (Mark("failing", "✗ Problem"), format!("Its certificate expired on {}.", text::date(end)))
            }
            false => {
                (Mark("waiting", "! Attention"), format!("Its certificate expires on {}.", text::date(end)))
            }
        };
    }
    let is_about_host = |group: &&FailureGroup| {
        matches!(
            ResultType::parse(&group.result_type),
            ResultType::StsPolicyFetchError | ResultType::StsPolicyInvalid | ResultType::StsWebpkiInvalid
        )
    };
    if let Some(group) = facts.current_failures(now).find(is_about_host) {
        return (Mark("waiting", "! Attention"), format!("Senders reported {}.", group.result_type));
    }
    let ends = around
        .certificate
        .as_ref()
        .map_or(String::new(), |end| format!(" Its certificate has {} left.", text::age(now, end.ends)));
    let fetched = facts.days.iter().rev().find(|day| day.sts_sessions > 0 && is_recent(day.day, now));
    match fetched {
        Some(day) => (GOOD, format!("Senders had its policy on {}.{ends}", text::date(&day.day))),
        None => (NO_DATA, format!("No sender reported lately that it has the policy.{ends}")),
    }
}

fn mx(facts: &DomainData, around: &PartsContext<'_>) -> (Mark, String) {
    let kinds = [AlertKind::MxUncovered, AlertKind::MxUnverified, AlertKind::MxCertificateEnds];
    if let Some(found) = around.alert(&kinds) {
        return found;
    }
    let is_about_mx = |group: &&FailureGroup| {
        matches!(
            ResultType::parse(&group.result_type),
            ResultType::StarttlsNotSupported
                | ResultType::CertificateHostMismatch
                | ResultType::CertificateExpired
                | ResultType::CertificateNotTrusted
                | ResultType::ValidationFailure
        )
    };
    let of = |class: &'static str| around.hosts.iter().filter(move |host| host.mark.0 == class);
    let passed = of("fine").count();
    if let Some(first) = of("failing").next() {
        let text = match of("failing").count() {
            1 => format!("{} failed the last probe.", text::unicode(&first.host)),
            all => format!("{} and {} failed the last probe.", text::unicode(&first.host), more(all - 1)),
        };
        return (Mark("failing", "✗ Problem"), text);
    }
    if let Some(group) = facts.current_failures(around.now).find(is_about_mx) {
        let at = if group.host.is_empty() { String::new() } else { format!(" at {}", group.host) };
        return (Mark("failing", "✗ Problem"), format!("Senders reported {}{at}.", group.result_type));
    }
    if passed > 0 {
        return match passed {
            1 => (GOOD, "The host that was probed passed.".to_owned()),
            all => (GOOD, format!("All {all} hosts that were probed passed.")),
        };
    }
    let verified = facts.kinds.iter().find(|sum| sum.kind == PolicyType::Sts && sum.successful > 0);
    match verified.filter(|sum| is_recent(sum.last, around.now)) {
        Some(sum) => (GOOD, format!("Senders verified TLS in {}.", text::counted(sum.successful, "session"))),
        None => (NO_DATA, "No probe has run, and no sender reported lately.".to_owned()),
    }
}

/// The number of hosts that a sentence does not name, in words.
fn more(hosts: usize) -> String {
    format!("{} more", text::counted(hosts, "host"))
}

fn dane(facts: &DomainData, around: &PartsContext<'_>) -> (Mark, String) {
    let is_about_dane = |group: &&FailureGroup| {
        matches!(
            ResultType::parse(&group.result_type),
            ResultType::TlsaInvalid | ResultType::DnssecInvalid | ResultType::DaneRequired
        )
    };
    if let Some(group) = facts.current_failures(around.now).find(is_about_dane) {
        return (Mark("failing", "✗ Problem"), format!("Senders reported {}.", group.result_type));
    }
    // TLSA records that were removed since are not in use, however long the range is.
    let used = facts.kinds.iter().find(|sum| sum.kind == PolicyType::Tlsa && sum.successful > 0);
    match used.filter(|sum| is_recent(sum.last, around.now)) {
        Some(sum) => {
            let sessions = text::counted(sum.successful, "session");
            (GOOD, format!("Senders used TLSA records in {sessions}, last on {}.", text::date(&sum.last)))
        }
        None => (NO_DATA, "No sender reported lately that it used TLSA records.".to_owned()),
    }
}

fn reports(facts: &DomainData, around: &PartsContext<'_>) -> (Mark, String) {
    if let Some(found) = around.alert(&[AlertKind::Silence]) {
        return found;
    }
    let counting = facts.senders.iter().filter(|sender| sender.counts);
    let (senders, last) = (counting.clone().count(), counting.map(|sender| sender.last).max());
    match last {
        Some(last) if is_recent(last, around.now) => (
            GOOD,
            format!("{} reported, last about {}.", text::counted(senders, "sender"), text::date(&last)),
        ),
        Some(last) => (NO_DATA, format!("The last verified report is about {}.", text::date(&last))),
        None if around.spec.rua.is_empty() => {
            (NO_DATA, "No report address is configured (rua), so its record is not managed.".to_owned())
        }
        None => (NO_DATA, "No verified report has arrived. Senders report once a day.".to_owned()),
    }
}

fn rollout(facts: &DomainData, around: &PartsContext<'_>) -> (Mark, String) {
    if facts.decisions.held.is_some() {
        return (Mark("way", "· Held"), "An operator holds the domain in testing.".to_owned());
    }
    let mode = facts.rollout.mode.map(|known| known.mode);
    let wanted = around.spec.mode;
    match mode {
        Some(mode) if mode == wanted && !facts.rollout.announce_due => match mode {
            Mode::Enforce => {
                (Mark("fine", "✓ Complete"), "The desired mode is published: enforce.".to_owned())
            }
            other => (Mark("way", "· Complete"), format!("The desired mode is published: {other}.")),
        },
        Some(Mode::Testing) if wanted == Mode::Enforce && facts.rollout.approved.is_none() => match &facts
            .gate
        {
            Gate::Ready => {
                (Mark("waiting", "! Ready"), "The evidence is sufficient. Approve enforcement.".to_owned())
            }
            Gate::Ask(_) => (Mark("waiting", "! Decide"), "Only few senders report failures.".to_owned()),
            Gate::NotYet(reasons) => (
                Mark("way", "· Collecting evidence"),
                reasons.first().map_or(String::new(), |why| format!("{}.", sentence(why))),
            ),
        },
        _ => (Mark("waiting", "! Step due"), "A step of the plan is due.".to_owned()),
    }
}
