//! Of which domains the guard reaches MX hosts. The alert that it reaches none of a domain is raised after several checks in
//! a row. If it reaches no MX host of any domain, the alerts of all domains have one cause, which is this machine's network.

use formats::DomainName;
use receiver::rollout::guard::Alert;
use std::collections::{BTreeMap, BTreeSet};

/// The cause of the alerts of all domains while no MX host of any domain is reached.
const NETWORK: &str = "outgoing port 25";

/// What the last checks of each domain reached.
#[derive(Debug, Default)]
pub struct MxReach {
    /// Domains of which the last check reached an MX host.
    reached: BTreeSet<DomainName>,
    /// Checks in a row that reached no MX host, by domain.
    unreached: BTreeMap<DomainName, u32>,
}

impl MxReach {
    /// Records a check of a domain, and returns its alerts without those that need more repetitions. An alert that is active
    /// already, as from before a restart, stays.
    pub fn settle(
        &mut self,
        domain: &DomainName,
        has_reached: bool,
        repetitions: u32,
        is_active: bool,
        alerts: Vec<Alert>,
    ) -> Vec<Alert> {
        match has_reached {
            true => drop(self.reached.insert(domain.clone())),
            false => drop(self.reached.remove(domain)),
        }
        if !alerts.iter().any(|alert| alert.kind.needs_repetition()) {
            self.unreached.remove(domain);
            return alerts;
        }
        let count = self.unreached.entry(domain.clone()).or_insert(0);
        *count = count.saturating_add(1);
        let is_raised = is_active || *count >= repetitions;
        let with_cause = |alert: Alert| match alert.kind.needs_repetition() {
            false => Some(alert),
            true if !is_raised => None,
            true if self.reached.is_empty() => Some(Alert { cause: Some(NETWORK.to_owned()), ..alert }),
            true => Some(alert),
        };
        alerts.into_iter().filter_map(with_cause).collect()
    }

    /// Forgets domains that are not known any more.
    pub fn keep_only(&mut self, known: &BTreeSet<&str>) {
        self.reached.retain(|domain| known.contains(domain.as_str()));
        self.unreached.retain(|domain, _| known.contains(domain.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use receiver::rollout::guard::AlertKind;

    fn alert(kind: AlertKind, cause: Option<&str>) -> Alert {
        Alert {
            kind,
            subject: "a.example".to_owned(),
            what: "w".to_owned(),
            consequence: "c".into(),
            remedy: "r".to_owned(),
            cause: cause.map(str::to_owned),
            domains: Vec::new(),
        }
    }

    #[test]
    fn an_alert_about_the_reach_needs_checks_in_a_row_and_one_network_is_one_cause() {
        let [one, two] = ["one.example", "two.example"].map(|name| DomainName::parse(name).unwrap());
        let unreached =
            || vec![alert(AlertKind::MxUnreached, Some("mx.example")), alert(AlertKind::RecordGone, None)];
        let mut reach = MxReach::default();
        let causes = |alerts: Vec<Alert>| {
            alerts.into_iter().map(|alert| (alert.kind, alert.cause)).collect::<Vec<_>>()
        };
        let gone = (AlertKind::RecordGone, None);
        let blind = |cause: &str| (AlertKind::MxUnreached, Some(cause.to_owned()));
        reach.settle(&two, true, 3, false, Vec::new());
        for _ in 0..2 {
            assert_eq!(causes(reach.settle(&one, false, 3, false, unreached())), std::slice::from_ref(&gone));
        }
        // A check that reaches a host begins the count anew.
        assert!(reach.settle(&one, true, 3, false, Vec::new()).is_empty());
        for _ in 0..2 {
            assert_eq!(causes(reach.settle(&one, false, 3, false, unreached())), std::slice::from_ref(&gone));
        }
        assert_eq!(
            causes(reach.settle(&one, false, 3, false, unreached())),
            [blind("mx.example"), gone.clone()]
        );
        reach.settle(&two, false, 3, false, unreached());
        assert_eq!(causes(reach.settle(&one, false, 3, true, unreached())), [blind(NETWORK), gone.clone()]);
        // After a restart, an alert that is active stays active.
        let mut reach = MxReach::default();
        assert_eq!(causes(reach.settle(&one, false, 3, true, unreached())), [blind(NETWORK), gone]);
        reach.keep_only(&["two.example"].into());
        assert!(reach.reached.is_empty() && reach.unreached.is_empty());
    }
}
