//! The truth about policies that are only tested (RPT-26).
//!
//! Postfix counts every handshake under a policy in `testing` as a success, whatever the certificate and the MX host
//! are. So handshakes of our own, under the full rules of MTA-STS, say what enforcement would have met. Where every
//! one of them failed on a day, so would the sessions: they are told as failures. Where some did not, nobody knows
//! which sessions would have, and our own handshakes alone are told as failures.

use formats::policy::Policy;
use formats::report::{FailureDetail, PolicyReport};
use formats::result_type::PolicyType;
use formats::{Mode, ResultType};
use store::testing_probes::TestingProbe;

/// Tells an entry as enforcement would have met it, if it is about a policy in `testing`.
pub(super) fn apply_probes(entry: &mut PolicyReport, looks: &[TestingProbe]) {
    if looks.is_empty() || entry.policy_type != PolicyType::Sts || !is_testing(&entry.policy_string) {
        return;
    }
    let failures: Vec<(&TestingProbe, &ResultType)> =
        looks.iter().filter_map(|look| Some((look, look.failure.as_ref()?))).collect();
    let Some((first, result)) = failures.first() else { return };
    if failures.len() == looks.len() {
        // The preferred host's comes first: a sender meets that one.
        if entry.successful > 0 {
            entry.details.push(detail(first, result, entry.successful));
        }
        entry.failed += std::mem::take(&mut entry.successful);
    } else {
        entry.failed += failures.len() as u64;
        entry.details.extend(failures.iter().map(|(look, result)| detail(look, result, 1)));
    }
}

/// True for the lines of a policy in `testing`.
pub(super) fn is_testing(lines: &[String]) -> bool {
    let text = lines.join("\n");
    Policy::parse(text.as_bytes()).is_ok_and(|policy| policy.mode == Mode::Testing)
}

fn detail(look: &TestingProbe, result: &ResultType, sessions: u64) -> FailureDetail {
    FailureDetail {
        result_type: result.clone(),
        sending_mta_ip: None,
        receiving_mx_hostname: Some(look.mx.to_string()),
        receiving_mx_helo: None,
        receiving_ip: look.receiving_ip,
        failed_session_count: sessions,
        additional_information: None,
        failure_reason_code: Some(format!(
            "found by a separate handshake at {}: {}",
            look.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            look.reason
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::DomainName;
    use jiff::Timestamp;

    fn entry(mode: &str, successful: u64) -> PolicyReport {
        let lines = [
            "version: STSv1".to_owned(),
            format!("mode: {mode}"),
            "mx: mx1.a.example".to_owned(),
            "max_age: 86400".to_owned(),
        ];
        PolicyReport {
            policy_type: PolicyType::Sts,
            policy_string: lines.to_vec(),
            policy_domain: DomainName::parse("a.example").ok(),
            mx_host: vec!["mx1.a.example".into()],
            successful,
            failed: 0,
            details: Vec::new(),
        }
    }

    fn look(mx: &str, failure: Option<ResultType>) -> TestingProbe {
        TestingProbe {
            mx: DomainName::parse(mx).unwrap(),
            at: Timestamp::UNIX_EPOCH,
            failure,
            receiving_ip: None,
            reason: "it is expired".into(),
        }
    }

    fn told(mode: &str, looks: &[TestingProbe]) -> (u64, u64, u64, Option<String>) {
        let mut entry = entry(mode, 7);
        apply_probes(&mut entry, looks);
        let counted = entry.details.iter().map(|detail| detail.failed_session_count).sum();
        let reason = entry.details.first().and_then(|detail| detail.failure_reason_code.clone());
        (entry.successful, entry.failed, counted, reason)
    }

    #[test]
    fn rpt_26_where_every_mx_fails_the_sessions_are_failures_else_only_our_own_handshakes() {
        let (good, bad) = (|mx| look(mx, None), |mx| look(mx, Some(ResultType::CertificateExpired)));
        let reason = Some("found by a separate handshake at 1970-01-01T00:00:00Z: it is expired".to_owned());
        assert_eq!(told("testing", &[bad("mx1.a.example"), bad("mx2.a.example")]), (0, 7, 7, reason.clone()));
        assert_eq!(
            told("testing", &[bad("mx1.a.example"), good("mx2.a.example")]),
            (7, 1, 1, reason.clone())
        );
        let twice = [bad("mx1.a.example"), bad("mx1.a.example"), good("mx2.a.example")];
        assert_eq!(told("testing", &twice), (7, 2, 2, reason));
        assert_eq!(told("testing", &[good("mx1.a.example")]), (7, 0, 0, None));
        assert_eq!(told("testing", &[]), (7, 0, 0, None));
    }

    #[test]
    fn other_policies_are_told_as_they_were() {
        for mode in ["enforce", "none"] {
            let looks = [look("mx1.a.example", Some(ResultType::CertificateExpired))];
            assert_eq!(told(mode, &looks), (7, 0, 0, None));
        }
    }
}
