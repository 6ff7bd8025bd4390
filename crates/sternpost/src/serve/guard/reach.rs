//! Alerts about MX hosts that the guard does not reach. The alert that it reaches none of a domain is raised after several checks
//! in a row. If no MX host of any domain is reached, the alerts of all domains have one cause, which is the network.

use receiver::rollout::guard::Alert;

/// The cause of the alerts of all domains while no MX host of any domain is reached.
const NETWORK: &str = "outgoing port 25";

/// The alerts of a check without those that need more repetitions, unless `is_raised`.
pub fn raised_after(alerts: Vec<Alert>, is_raised: bool, reaches_any: bool) -> Vec<Alert> {
    let with_cause = |alert: Alert| match alert.kind.needs_repetition() {
        false => Some(alert),
        true if !is_raised => None,
        true if !reaches_any => Some(Alert { cause: Some(NETWORK.to_owned()), ..alert }),
        true => Some(alert),
    };
    alerts.into_iter().filter_map(with_cause).collect()
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
        let found =
            || vec![alert(AlertKind::MxUnreached, Some("mx.example")), alert(AlertKind::RecordGone, None)];
        let causes = |is_raised, reaches_any| {
            let alerts = raised_after(found(), is_raised, reaches_any);
            alerts.into_iter().map(|alert| (alert.kind, alert.cause)).collect::<Vec<_>>()
        };
        let gone = (AlertKind::RecordGone, None);
        let blind = |cause: &str| (AlertKind::MxUnreached, Some(cause.to_owned()));
        assert_eq!(causes(false, true), std::slice::from_ref(&gone));
        assert_eq!(causes(true, true), [blind("mx.example"), gone.clone()]);
        assert_eq!(causes(true, false), [blind(NETWORK), gone]);
    }
}
