//! How a session counts in a report (RFC 8460 §4.2, §4.3; RPT-21).
//!
//! Under each of its policies it counts once: as a success when it worked in the end, else as a failure. Each thing
//! that failed is a detail with a count of its own, so that the details of a policy may add up to more than its
//! failures, and a success after a failure on another MX host has details as well (LIB-04).

use formats::datagram::{Session, SessionFailure, SessionPolicy};
use formats::report::{FailureDetail, PolicyReport};
use formats::result_type::PolicyType;

/// A policy of a kind that reports have no name for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the policy type {0} is not known")]
pub struct UnknownPolicy(pub String);

/// The first policy of a session that can't be reported.
pub(super) fn unknown_policy(session: &Session) -> Option<UnknownPolicy> {
    session.policies.iter().find_map(|policy| match &policy.policy_type {
        PolicyType::Other(name) => Some(UnknownPolicy(name.clone())),
        _ => None,
    })
}

/// The entries of a session that was there so many times.
pub fn entries(session: Session, times: u64) -> impl Iterator<Item = PolicyReport> {
    session.policies.into_iter().map(move |policy| entry(policy, times))
}

fn entry(policy: SessionPolicy, times: u64) -> PolicyReport {
    PolicyReport {
        policy_type: policy.policy_type,
        policy_string: policy.policy_string,
        policy_domain: Some(policy.policy_domain),
        mx_host: policy.mx_host,
        successful: if policy.succeeded { times } else { 0 },
        failed: if policy.succeeded { 0 } else { times },
        details: policy.failures.into_iter().map(|failure| detail(failure, times)).collect(),
    }
}

fn detail(failure: SessionFailure, times: u64) -> FailureDetail {
    FailureDetail {
        result_type: failure.result_type,
        sending_mta_ip: failure.sending_mta_ip,
        receiving_mx_hostname: failure.receiving_mx_hostname,
        receiving_mx_helo: failure.receiving_mx_helo,
        receiving_ip: failure.receiving_ip,
        failed_session_count: times,
        additional_information: failure.additional_information,
        failure_reason_code: failure.failure_reason_code,
    }
}
