//! An alert about a domain, and the groups that alerts of several domains form. Alerts whose kind and cause are the same
//! have one condition behind them, such as an MX host of 40 domains whose certificate has expired. They are announced
//! once and shown once, with the domains that they concern.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// An alert about one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// The kind of condition.
    pub kind: AlertKind,
    /// The host, record or cause that the alert is about.
    pub subject: String,
    /// What was observed.
    pub what: String,
    /// What it means for mail.
    pub consequence: Cow<'static, str>,
    /// What the operator should do.
    pub remedy: String,
    /// The condition that other domains may share, such as the name of an MX host. `None` if the alert is about this domain
    /// only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The domains that were announced together, the one that names the announcement first. Empty in a stored alert that
    /// was not announced by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
}

/// The kinds of alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertKind {
    /// An MX host is not named by a policy that senders may hold.
    MxUncovered,
    /// The policy can't be fetched, or is invalid.
    PolicyUnserved,
    /// The record `_mta-sts` is missing.
    RecordGone,
    /// The policy host's certificate expires soon.
    PolicyCertificateEnds,
    /// An MX host failed TLS authentication.
    MxUnverified,
    /// An MX host's certificate expires soon.
    MxCertificateEnds,
    /// No MX host can be reached from here, so nothing is known about their certificates.
    MxUnreached,
    /// Verified senders reported a failure.
    ReportedFailure,
    /// The failure rate in verified reports is too high.
    FailureRate,
    /// No reports arrive any more.
    Silence,
    /// The quarantine reached its quota and lost something. Raised by the server, not by a check of a domain.
    QuarantineFull,
    /// Only failures that few senders report keep the domain from enforcement, and the operator has to decide.
    DecisionNeeded,
    /// The last checks of the domain failed or did not end in time, so its other alerts are those of an earlier check.
    CheckFailed,
    /// The domain is no longer configured, although senders may hold its policy.
    Unconfigured,
}

impl AlertKind {
    /// Whether the alert is raised only after several checks in a row: a connection may fail once for reasons of the
    /// network between.
    pub fn needs_repetition(self) -> bool {
        self == Self::MxUnreached
    }

    /// All kinds that a check of a domain raises.
    pub const ALL: [Self; 13] = [
        Self::MxUncovered,
        Self::PolicyUnserved,
        Self::RecordGone,
        Self::PolicyCertificateEnds,
        Self::MxUnverified,
        Self::MxCertificateEnds,
        Self::MxUnreached,
        Self::ReportedFailure,
        Self::FailureRate,
        Self::Silence,
        Self::DecisionNeeded,
        Self::CheckFailed,
        Self::Unconfigured,
    ];
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MxUncovered => "mx-uncovered",
            Self::PolicyUnserved => "policy-unserved",
            Self::RecordGone => "record-gone",
            Self::PolicyCertificateEnds => "policy-certificate-ends",
            Self::MxUnverified => "mx-unverified",
            Self::MxCertificateEnds => "mx-certificate-ends",
            Self::MxUnreached => "mx-unreached",
            Self::ReportedFailure => "reported-failure",
            Self::FailureRate => "failure-rate",
            Self::Silence => "silence",
            Self::QuarantineFull => "quarantine-full",
            Self::DecisionNeeded => "decision-needed",
            Self::CheckFailed => "check-failed",
            Self::Unconfigured => "unconfigured",
        })
    }
}

impl Alert {
    /// Whether both alerts have the same condition behind them.
    pub fn shares_cause_with(&self, other: &Self) -> bool {
        self.kind == other.kind && self.cause.is_some() && self.cause == other.cause
    }
}

/// The active alerts with one condition behind them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AlertGroup {
    /// When the first of them was raised.
    pub since: Timestamp,
    /// The first of them; its `domains` are all domains that the group concerns, the first one first.
    #[serde(flatten)]
    pub alert: Alert,
}

/// Groups active alerts by their conditions, in the order in which the conditions began. Each alert comes with its domain
/// and the time since which it is active.
pub fn groups(active: impl IntoIterator<Item = (String, Timestamp, Alert)>) -> Vec<AlertGroup> {
    let mut groups: Vec<AlertGroup> = Vec::new();
    let mut known: BTreeMap<(AlertKind, String), usize> = BTreeMap::new();
    for (domain, since, alert) in active {
        let key = alert.cause.clone().map(|cause| (alert.kind, cause));
        let place = key.as_ref().and_then(|key| known.get(key).copied());
        if let Some(group) = place.and_then(|place| groups.get_mut(place)) {
            group.alert.domains.push(domain);
            continue;
        }
        if let Some(key) = key {
            known.insert(key, groups.len());
        }
        groups.push(AlertGroup { since, alert: Alert { domains: vec![domain], ..alert } });
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(kind: AlertKind, subject: &str, cause: Option<&str>) -> Alert {
        Alert {
            kind,
            subject: subject.to_owned(),
            what: "w".to_owned(),
            consequence: "c".into(),
            remedy: "r".to_owned(),
            cause: cause.map(str::to_owned),
            domains: Vec::new(),
        }
    }

    #[test]
    fn alerts_of_one_cause_are_one_group_with_their_domains() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let broken = || alert(AlertKind::MxUnverified, "mx.example", Some("mx.example"));
        let gone = |domain: &str| alert(AlertKind::RecordGone, domain, None);
        let ends = alert(AlertKind::MxCertificateEnds, "mx.example", Some("mx.example"));
        let mut active = vec![("a.example".to_owned(), at(1), gone("a.example"))];
        active.extend((0..40).map(|number| (format!("{number}.example"), at(2 + number), broken())));
        active.push(("b.example".to_owned(), at(50), gone("b.example")));
        active.push(("0.example".to_owned(), at(51), ends));
        let groups = groups(active);
        let shown: Vec<_> =
            groups.iter().map(|group| (group.since, group.alert.kind, group.alert.domains.len())).collect();
        assert_eq!(
            shown,
            [
                (at(1), AlertKind::RecordGone, 1),
                (at(2), AlertKind::MxUnverified, 40),
                (at(50), AlertKind::RecordGone, 1),
                (at(51), AlertKind::MxCertificateEnds, 1),
            ]
        );
        let json = serde_json::to_value(&groups[1]).unwrap();
        assert_eq!((&json["kind"], &json["domains"][0]), (&"mx-unverified".into(), &"0.example".into()));
    }
}
