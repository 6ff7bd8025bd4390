//! What needs action, grouped by cause: alerts of one cause, and domains with the same next step. The groups are in the order
//! in which an operator works through them.

use super::Entry;
use crate::judge::{StepCause, Urgency, sentence, urgency};
use crate::text;
use jiff::Timestamp;
use receiver::rollout::guard::{Alert, AlertKind};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use store::alerts::ActiveAlert;

/// Domains that need action for the same cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The identifier in links, such as `mx-unverified mx1.example.org`.
    pub id: String,
    pub need: Urgency,
    pub order: Order,
    /// What is wrong or due, in one sentence.
    pub what: String,
    /// What it means for mail; may be empty.
    pub means: String,
    /// What to do, in words; may be empty.
    pub remedy: String,
    /// The step, if it is one that Sternpost knows.
    pub step: Option<StepCause>,
    /// Since when, for the domain that has had it for the longest.
    pub since: Option<Timestamp>,
    /// The names of the domains, in the order of the snapshot.
    pub domains: Vec<String>,
}

/// The order of groups of one urgency: what becomes worse by itself, then what is broken, then what waits for a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Nothing is known about the domains until it is mended.
    Blind,
    /// It fails on a known day.
    Deadline,
    /// Something is broken.
    Broken,
    /// The operator has to decide about reported failures.
    Decision,
    /// A step of the rollout is due.
    Step,
    /// Evidence is missing or lost.
    Evidence,
    /// The domains can be enforced.
    Ready,
    /// The domains are not set up.
    New,
}

impl Order {
    fn of_alert(kind: AlertKind) -> Self {
        match kind {
            AlertKind::CheckFailed | AlertKind::MxUnreached => Self::Blind,
            AlertKind::PolicyCertificateEnds | AlertKind::MxCertificateEnds => Self::Deadline,
            AlertKind::MxUncovered
            | AlertKind::PolicyUnserved
            | AlertKind::RecordGone
            | AlertKind::MxUnverified
            | AlertKind::ReportedFailure
            | AlertKind::FailureRate
            | AlertKind::Unconfigured => Self::Broken,
            AlertKind::DecisionNeeded => Self::Decision,
            AlertKind::Silence | AlertKind::QuarantineFull => Self::Evidence,
        }
    }

    fn of_step(cause: StepCause) -> Self {
        match cause {
            StepCause::Damaged => Self::Blind,
            StepCause::Failures | StepCause::Alert => Self::Broken,
            StepCause::Decide => Self::Decision,
            StepCause::Apply => Self::Step,
            StepCause::Approve => Self::Ready,
            StepCause::SetUp => Self::New,
        }
    }
}

/// Groups alerts and steps by cause. One broken MX host of forty domains is one group.
pub fn grouped(domains: &[Entry], alerts: &[ActiveAlert<Alert>]) -> Vec<Group> {
    let place: BTreeMap<&str, usize> =
        domains.iter().enumerate().map(|(at, entry)| (entry.name.as_str(), at)).collect();
    let mut groups: BTreeMap<String, (Group, BTreeSet<usize>)> = BTreeMap::new();
    for active in alerts {
        let (group, members) = groups
            .entry(alert_id(&active.alert))
            .or_insert_with_key(|id| (Group { id: id.clone(), ..alert_group(active) }, BTreeSet::new()));
        group.since = group.since.min(Some(active.since));
        let entry = place.get(active.domain.as_str()).and_then(|at| domains.get(*at));
        let is_binding = entry.is_some_and(|entry| entry.binds);
        group.need = group.need.min(urgency(active.alert.kind, is_binding));
        // An alert of the server is of no domain.
        let is_new = place.get(active.domain.as_str()).is_some_and(|at| members.insert(*at));
        if is_new && members.len() == 2 {
            group.what = shared_title(&active.alert);
            group.remedy = active.alert.remedy.replace(&active.domain, "DOMAIN");
        }
    }
    for (at, entry) in domains.iter().enumerate() {
        let Some(cause) = entry.next.cause().filter(|cause| *cause != StepCause::Alert) else { continue };
        let (_, members) = groups
            .entry(format!("{cause:?}").to_ascii_lowercase())
            .or_insert_with_key(|id| (step_group(id, cause, entry), BTreeSet::new()));
        members.insert(at);
    }
    let mut all: Vec<Group> = groups
        .into_values()
        .map(|(group, members)| {
            let name = |at: &usize| domains.get(*at).map(|entry| entry.name.clone());
            Group { domains: members.iter().filter_map(name).collect(), ..group }
        })
        .collect();
    all.sort_by_key(|group| (group.need, group.order, Reverse(group.domains.len()), group.since));
    all
}

/// The identifier of an alert's group: the kind, and the cause that several domains may share.
fn alert_id(alert: &Alert) -> String {
    match (&alert.cause, alert.kind) {
        (Some(cause), kind) => format!("{kind} {cause}"),
        (
            None,
            kind @ (AlertKind::MxUncovered
            | AlertKind::MxUnverified
            | AlertKind::MxCertificateEnds
            | AlertKind::ReportedFailure),
        ) => format!("{kind} {}", alert.subject),
        (None, kind) => kind.to_string(),
    }
}

fn alert_group(active: &ActiveAlert<Alert>) -> Group {
    let alert = &active.alert;
    Group {
        id: String::new(),
        need: Urgency::Waiting,
        order: Order::of_alert(alert.kind),
        what: sentence(&text::readable(&alert.what)),
        means: alert.consequence.to_string(),
        remedy: alert.remedy.clone(),
        step: Some(StepCause::Alert),
        since: Some(active.since),
        domains: Vec::new(),
    }
}

/// What several domains with alike alerts have in common.
fn shared_title(alert: &Alert) -> String {
    let subject = &alert.subject;
    match alert.kind {
        AlertKind::MxUncovered => format!("{subject} is an MX host, but the policies do not name it"),
        AlertKind::ReportedFailure => format!("Senders reported {subject}"),
        AlertKind::PolicyUnserved => {
            "Policies can't be fetched, or are not those that were published".to_owned()
        }
        AlertKind::RecordGone => "_mta-sts records are missing".to_owned(),
        AlertKind::PolicyCertificateEnds => "Certificates of policy hosts expire soon".to_owned(),
        AlertKind::FailureRate => "More sessions failed in the last week than allowed".to_owned(),
        AlertKind::Silence => "Reports that used to arrive have stopped".to_owned(),
        AlertKind::DecisionNeeded => "Reported failures need your decision".to_owned(),
        AlertKind::CheckFailed => "Checks of the guard fail, so other alerts may be old".to_owned(),
        AlertKind::MxUnreached => "MX hosts can't be reached from this machine".to_owned(),
        AlertKind::Unconfigured => "Domains with a policy are not configured any more".to_owned(),
        AlertKind::MxUnverified | AlertKind::MxCertificateEnds | AlertKind::QuarantineFull => {
            sentence(&text::readable(&alert.what))
        }
    }
}

fn step_group(id: &str, cause: StepCause, entry: &Entry) -> Group {
    let (what, means) = match cause {
        StepCause::SetUp => {
            ("Not set up yet", "Mail to these domains is not protected against an attacker on the path.")
        }
        StepCause::Apply => {
            ("The next step of the rollout is due", "It changes the published policy or its records.")
        }
        StepCause::Approve => (
            "The evidence is sufficient: ready to enforce",
            "Until you approve, senders deliver even if TLS can't be verified.",
        ),
        StepCause::Decide => (
            "Only few senders report failures: your decision is needed",
            "Until you decide, the domains stay in testing, where mail is not protected.",
        ),
        StepCause::Failures => (
            "Sessions failed in the last week although the policy is enforced",
            "The mail of these sessions is queued by its sender, and bounces after a few days.",
        ),
        StepCause::Damaged | StepCause::Alert => {
            ("The stored state can't be read", "Sternpost does nothing for these domains.")
        }
    };
    Group {
        id: id.to_owned(),
        need: entry.need,
        order: Order::of_step(cause),
        what: what.to_owned(),
        means: means.to_owned(),
        remedy: if cause == StepCause::Damaged { entry.next.to_string() } else { String::new() },
        step: Some(cause),
        since: None,
        domains: Vec::new(),
    }
}
