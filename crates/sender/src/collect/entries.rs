//! Converts a session to entries of a report (RFC 8460 §4.2, §4.3; RPT-21).
//!
//! A session counts once under each of its policies: as a success if it succeeded in the end, otherwise as a failure.
//! Each failure within the session is a detail with its own count. The details of a policy may therefore add up to
//! more than its failures, and a success after a failure on another MX host has details as well (LIB-04).

use formats::datagram::{Session, SessionFailure, SessionPolicy};
use formats::report::{FailureDetail, PolicyReport};
use formats::result_type::PolicyType;

/// A session has a policy type that reports can't express; the text is that type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown policy type {0}")]
pub struct UnknownPolicy(pub String);

/// The first policy of a session whose type can't be reported; `None` if all types are known.
pub(super) fn unknown_policy(session: &Session) -> Option<UnknownPolicy> {
    session.policies.iter().find_map(|policy| match &policy.policy_type {
        PolicyType::Other(name) => Some(UnknownPolicy(name.clone())),
        _ => None,
    })
}

/// The entries of a session that occurred `times` times, one per policy.
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
