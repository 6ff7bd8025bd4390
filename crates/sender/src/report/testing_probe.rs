//! Corrects report entries about policies in `testing` with the results of probes (RPT-26).
//!
//! Postfix counts every handshake under a policy in `testing` as a success, even with a wrong certificate or MX host.
//! [`super::TestingProber`] therefore runs its own handshakes under the full rules of MTA-STS. If all probes of a day
//! failed, enforcement would have failed all sessions, so the report counts them as failures. If only some failed, the
//! affected sessions are unknown, so the report adds only the failed probes themselves.

use formats::policy::Policy;
use formats::report::{FailureDetail, PolicyReport};
use formats::result_type::PolicyType;
use formats::{Mode, ResultType};
use store::PolicyDigest;
use store::testing_probes::TestingProbe;

/// Corrects an entry to what enforcement would have counted. Probes that were judged by another policy say nothing about
/// its sessions, and entries about other policies are not changed.
pub(super) fn apply_probes(entry: &mut PolicyReport, probes: &[TestingProbe]) {
    let Some(policy) = PolicyDigest::of_lines(&entry.policy_string) else { return };
    let probes: Vec<&TestingProbe> = probes.iter().filter(|probe| probe.policy == policy).collect();
    if probes.is_empty() || entry.policy_type != PolicyType::Sts || !is_testing(&entry.policy_string) {
        return;
    }
    let failures: Vec<(&TestingProbe, &ResultType)> =
        probes.iter().filter_map(|probe| Some((*probe, probe.failure.as_ref()?))).collect();
    let Some((first, result)) = failures.first() else { return };
    if failures.len() == probes.len() {
        // Probes are in order of MX preference, so the first is of the host that senders try first.
        if entry.successful > 0 {
            entry.details.push(detail(first, result, entry.successful));
        }
        entry.failed += std::mem::take(&mut entry.successful);
    } else {
        entry.failed += failures.len() as u64;
        entry.details.extend(failures.iter().map(|(probe, result)| detail(probe, result, 1)));
    }
}

/// True if the lines are a valid policy in mode `testing`.
pub(super) fn is_testing(lines: &[String]) -> bool {
    let text = lines.join("\n");
    Policy::parse(text.as_bytes()).is_ok_and(|policy| policy.mode == Mode::Testing)
}

fn detail(probe: &TestingProbe, result: &ResultType, sessions: u64) -> FailureDetail {
    FailureDetail {
        result_type: result.clone(),
        sending_mta_ip: None,
        receiving_mx_hostname: Some(probe.mx.to_string()),
        receiving_mx_helo: None,
        receiving_ip: probe.receiving_ip,
        failed_session_count: sessions,
        additional_information: None,
        failure_reason_code: Some(format!(
            "found by a separate handshake at {}: {}",
            probe.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            probe.reason
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

    fn probe(mx: &str, failure: Option<ResultType>) -> TestingProbe {
        TestingProbe {
            policy: PolicyDigest::of_lines(&["mx: mx1.a.example".into()]).unwrap(),
            mx: DomainName::parse(mx).unwrap(),
            at: Timestamp::UNIX_EPOCH,
            failure,
            receiving_ip: None,
            reason: "it is expired".into(),
        }
    }

    fn corrected(mode: &str, probes: &[TestingProbe]) -> (u64, u64, u64, Option<String>) {
        let mut entry = entry(mode, 7);
        apply_probes(&mut entry, probes);
        let counted = entry.details.iter().map(|detail| detail.failed_session_count).sum();
        let reason = entry.details.first().and_then(|detail| detail.failure_reason_code.clone());
        (entry.successful, entry.failed, counted, reason)
    }

    #[test]
    fn rpt_26_where_every_mx_fails_the_sessions_are_failures_else_only_our_own_handshakes() {
        let (good, bad) = (|mx| probe(mx, None), |mx| probe(mx, Some(ResultType::CertificateExpired)));
        let reason = Some("found by a separate handshake at 1970-01-01T00:00:00Z: it is expired".to_owned());
        assert_eq!(
            corrected("testing", &[bad("mx1.a.example"), bad("mx2.a.example")]),
            (0, 7, 7, reason.clone())
        );
        assert_eq!(
            corrected("testing", &[bad("mx1.a.example"), good("mx2.a.example")]),
            (7, 1, 1, reason.clone())
        );
        let twice = [bad("mx1.a.example"), bad("mx1.a.example"), good("mx2.a.example")];
        assert_eq!(corrected("testing", &twice), (7, 2, 2, reason));
        assert_eq!(corrected("testing", &[good("mx1.a.example")]), (7, 0, 0, None));
        assert_eq!(corrected("testing", &[]), (7, 0, 0, None));
    }

    /// On the day on which a wrong policy is corrected, sessions under both are reported.
    #[test]
    fn probes_change_only_the_entry_of_the_policy_that_judged_them() {
        let wrong = PolicyDigest::of_lines(&["mx: wrong.example".into()]).unwrap();
        let bad = probe("mx1.a.example", Some(ResultType::ValidationFailure));
        let probes = [TestingProbe { policy: wrong, ..bad.clone() }, probe("mx1.a.example", None)];
        assert_eq!(corrected("testing", &probes), (7, 0, 0, None));
        let mut entry = entry("testing", 4);
        entry.policy_string[2] = "mx: wrong.example".into();
        apply_probes(&mut entry, &probes);
        assert_eq!((entry.successful, entry.failed), (0, 4));
    }

    #[test]
    fn entries_about_other_policies_are_unchanged() {
        for mode in ["enforce", "none"] {
            let probes = [probe("mx1.a.example", Some(ResultType::CertificateExpired))];
            assert_eq!(corrected(mode, &probes), (7, 0, 0, None));
        }
    }
}
