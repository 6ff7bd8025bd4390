//! Decides which domain each result of a report is about. Usually this is its `policy-domain`. A DANE policy belongs to an
//! MX host, so reporters name the host there, and the domain of the mail in `TLS-Report-Domain` (RFC 8460 §5.3). Such a
//! result is filed under the domain if the host was one of its MX hosts at that time. Otherwise it stays under the host's
//! name, where it counts for no domain: else one report about a shared MX host would concern all its customers. If the host
//! is observed later, `refiling` moves the result.

use super::NewReport;
use super::columns::domain;
use crate::StoreError;
use crate::mx_history::MxHistory;
use crate::writing::Writing;
use formats::DomainName;
use formats::result_type::PolicyType;
use std::collections::BTreeSet;

/// Where a result of a report is filed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filed<'r> {
    /// The domain; empty if the report names none.
    pub domain: &'r str,
    /// The MX host that the report names in place of the domain; empty if it names the domain.
    pub host: &'r str,
}

/// Files the results of each report, in the order of its policies.
pub async fn file<'r>(
    writing: &mut Writing,
    reports: &'r [NewReport],
) -> Result<Vec<Vec<Filed<'r>>>, StoreError> {
    let about: BTreeSet<&str> = reports
        .iter()
        .filter(|new| new.report.policies.iter().any(|policy| policy.policy_type == PolicyType::Tlsa))
        .filter_map(|new| new.about.as_ref().map(DomainName::as_str))
        .collect();
    let history = match about.is_empty() {
        true => MxHistory::default(),
        false => MxHistory::of(writing, &about).await?,
    };
    Ok(reports.iter().map(|new| of_report(new, &history)).collect())
}

fn of_report<'r>(new: &'r NewReport, history: &MxHistory) -> Vec<Filed<'r>> {
    let about = new.about.as_ref().map(DomainName::as_str);
    let policies = new.report.policies.iter();
    policies
        .map(|policy| {
            let named = domain(policy);
            match about.filter(|about| *about != named) {
                Some(about) if named.is_empty() => Filed { domain: about, host: "" },
                Some(about)
                    if policy.policy_type == PolicyType::Tlsa
                        && history.is_mx_host(about, named, &new.report.date_range) =>
                {
                    Filed { domain: about, host: named }
                }
                _ => Filed { domain: named, host: "" },
            }
        })
        .collect()
}
