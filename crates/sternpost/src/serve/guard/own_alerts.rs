//! Alerts about the guard's own work and about the configuration, which no observation of a domain raises.

use super::FAILED_CHECKS;
use formats::DomainName;
use operations::unconfigured::Unconfigured;
use receiver::rollout::guard::{Alert, AlertKind};

/// The alert about checks that fail.
pub(super) fn check_failed(domain: &DomainName, why: &str) -> Alert {
    Alert {
        kind: AlertKind::CheckFailed,
        subject: domain.to_string(),
        what: format!("the last {FAILED_CHECKS} checks of {domain} or more have failed: {why}"),
        consequence: "Its other alerts are those of the last complete check: new problems are not noticed, and solved ones stay.".into(),
        remedy: format!("See what the check meets: sternpost check {domain}. If many domains have this alert, check the resolver and the network of this machine"),
        cause: None,
        domains: Vec::new(),
    }
}

/// The alert about a domain that has disappeared from the configuration.
pub(super) fn missed(domain: &Unconfigured) -> Alert {
    Alert {
        kind: AlertKind::Unconfigured,
        subject: domain.name.to_string(),
        what: domain.what(),
        consequence: domain.consequence().into(),
        remedy: domain.remedy(),
        cause: None,
        domains: Vec::new(),
    }
}
