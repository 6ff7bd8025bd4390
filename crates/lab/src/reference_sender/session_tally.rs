//! Counts one delivery as the entries of a TLS report (RFC 8460 §4.2, §4.3).
//!
//! A delivery is one session. Under each policy that was applied it counts as a success when the message was delivered
//! and no lasting failure occurred under that policy, else as one failure with its details. A success after failures on
//! other hosts counts as a success and keeps the details (RPT-21, LIB-04).

use super::PolicyInForce;
use formats::policy::lines;
use formats::report::{FailureDetail, PolicyReport};
use formats::result_type::PolicyType;
use formats::tlsa::TlsaRecord;
use formats::{DomainName, Mode, ResultType};
use net::smtp::{Fault, SessionFailure, SessionReport, Target};

pub(super) struct SessionTally {
    domain: DomainName,
    sts: Option<PolicyReport>,
    tlsa: Vec<PolicyReport>,
    /// A failure that a later success does not cancel: the policy is unavailable, or in `testing`.
    lasting: bool,
}

impl SessionTally {
    pub(super) fn new(domain: &DomainName) -> Self {
        Self { domain: domain.clone(), sts: None, tlsa: Vec::new(), lasting: false }
    }

    fn entry(&self, policy_type: PolicyType) -> PolicyReport {
        PolicyReport {
            policy_type,
            policy_string: Vec::new(),
            policy_domain: Some(self.domain.clone()),
            mx_host: Vec::new(),
            successful: 0,
            failed: 0,
            details: Vec::new(),
        }
    }

    pub(super) fn sts(&mut self, policy: &PolicyInForce) {
        let mut entry = self.entry(PolicyType::Sts);
        match policy {
            PolicyInForce::Policy { policy, body } if policy.mode != Mode::None => {
                entry.policy_string = lines(body).map(str::to_owned).collect();
                entry.mx_host = policy.mx.iter().map(ToString::to_string).collect();
            }
            PolicyInForce::Unavailable { result, why } => {
                entry.details.push(detail(result.clone(), None, why));
                self.lasting = true;
            }
            // VAL-09: mode `none` is reported like no policy at all.
            PolicyInForce::Policy { .. } | PolicyInForce::None => return,
        }
        self.sts = Some(entry);
    }

    pub(super) fn sts_failure(
        &mut self,
        result: ResultType,
        host: &DomainName,
        target: Option<&Target>,
        why: &str,
    ) {
        if let Some(entry) = &mut self.sts {
            let mut detail = detail(result, target, why);
            detail.receiving_mx_hostname = Some(host.to_string());
            entry.details.push(detail);
        }
    }

    pub(super) fn sts_fault(&mut self, target: &Target, fault: &Fault) {
        if let Some(result) = fault.result_type() {
            self.sts_failure(result, &target.host, Some(target), &fault.to_string());
        }
    }

    /// Counts a session under a policy in `testing`: the failure that enforcement would have caused (RPT-26).
    pub(super) fn testing(&mut self, target: &Target, fault: Option<&Fault>, report: Option<&SessionReport>) {
        if let Some(fault) = fault {
            self.sts_fault(target, fault);
        } else if let Some(report) = report {
            match report.tls.as_ref().map(|tls| &tls.pkix) {
                Some(Err(problem)) => self.sts_failure(
                    problem.session_result(),
                    &target.host,
                    Some(target),
                    &problem.to_string(),
                ),
                Some(Ok(())) => {}
                None => self.sts_failure(
                    ResultType::StarttlsNotSupported,
                    &target.host,
                    Some(target),
                    "the host does not offer STARTTLS",
                ),
            }
        }
        self.lasting |= self.sts.as_ref().is_some_and(|entry| !entry.details.is_empty());
    }

    pub(super) fn dane(
        &mut self,
        records: &[TlsaRecord],
        target: &Target,
        outcome: &Result<SessionReport, Box<SessionFailure>>,
    ) {
        let mut entry = self.entry(PolicyType::Tlsa);
        entry.policy_string = records.iter().map(ToString::to_string).collect();
        entry.mx_host = vec![target.host.to_string()];
        match outcome {
            Ok(_) => entry.successful = 1,
            Err(failure) => {
                if let Some(result) = failure.fault.result_type() {
                    entry.failed = 1;
                    entry.details.push(detail(result, Some(target), &failure.fault.to_string()));
                }
            }
        }
        self.tlsa.push(entry);
    }

    pub(super) fn dnssec_failure(&mut self, host: Option<&DomainName>, why: &str) {
        let mut entry = self.entry(PolicyType::Tlsa);
        let mut detail = detail(ResultType::DnssecInvalid, None, why);
        detail.receiving_mx_hostname = host.map(ToString::to_string);
        entry.details.push(detail);
        entry.failed = 1;
        self.tlsa.push(entry);
    }

    /// Returns the entries. Where DANE decided, an MTA-STS policy that was not applied is left out.
    pub(super) fn entries(mut self, delivered: bool) -> Vec<PolicyReport> {
        let by_dane = self.tlsa.iter().any(|entry| entry.successful > 0);
        if let Some(mut sts) = self.sts.take() {
            let used = !sts.details.is_empty() || self.tlsa.is_empty();
            if delivered && !by_dane && !self.lasting {
                sts.successful = 1;
            } else if !sts.details.is_empty() {
                sts.failed = 1;
            }
            if used {
                self.tlsa.push(sts);
            }
        } else if self.tlsa.is_empty() {
            let mut none = self.entry(PolicyType::NoPolicyFound);
            none.successful = u64::from(delivered);
            self.tlsa.push(none);
        }
        self.tlsa
    }
}

fn detail(result_type: ResultType, target: Option<&Target>, why: &str) -> FailureDetail {
    FailureDetail {
        result_type,
        sending_mta_ip: None,
        receiving_mx_hostname: target.map(|target| target.host.to_string()),
        receiving_mx_helo: None,
        receiving_ip: target.and_then(super::ip),
        failed_session_count: 1,
        additional_information: None,
        failure_reason_code: Some(why.chars().take(200).collect()),
    }
}
