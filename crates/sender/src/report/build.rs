//! One report a policy domain from the tally of a UTC day (RFC 8460 §4).

use formats::DomainName;
use formats::report::{DateRange, PolicyReport, Report};
use formats::tlsrpt_record::MailAddress;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Who reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reporter {
    /// The organization's name as it stands in reports.
    pub organization: String,
    /// Whom to ask; its domain is the submitter (RPT-08).
    pub contact: MailAddress,
}

impl Reporter {
    /// The domain that submits.
    pub fn submitter(&self) -> &DomainName {
        self.contact.domain()
    }
}

/// The reports for the day that `within` lies in, one a policy domain that had a session (RPT-25).
///
/// The `report-id` is made of the day, the domain and the submitter, so that a report that is built
/// again after a crash is the same report.
pub fn build(within: Timestamp, tally: Vec<PolicyReport>, reporter: &Reporter) -> Vec<(DomainName, Report)> {
    let date_range = DateRange::utc_day(within);
    let mut by_domain: BTreeMap<DomainName, Vec<PolicyReport>> = BTreeMap::new();
    for mut entry in tally.into_iter().filter(|entry| entry.successful + entry.failed > 0) {
        let Some(domain) = entry.policy_domain.clone() else { continue };
        entry.details.sort_by_key(|detail| std::cmp::Reverse(detail.failed_session_count));
        entry.details.truncate(DETAILS);
        by_domain.entry(domain).or_default().push(entry);
    }
    let report = |domain: DomainName, policies| {
        let day = date_range.start.strftime("%Y%m%d");
        let report = Report {
            organization_name: Some(reporter.organization.clone()),
            date_range,
            contact_info: Some(reporter.contact.to_string()),
            report_id: format!("{day}.{domain}@{}", reporter.submitter()),
            policies,
        };
        (domain, report)
    };
    by_domain.into_iter().map(|(domain, policies)| report(domain, policies)).collect()
}

/// Groups of failures that one policy of a report lists; the most frequent ones stay.
const DETAILS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use formats::ResultType;
    use formats::report::FailureDetail;
    use formats::result_type::PolicyType;

    fn reporter() -> Reporter {
        Reporter {
            organization: "Sender Mail".into(),
            contact: MailAddress::parse("tlsrpt@sender.example").unwrap(),
        }
    }

    fn entry(domain: &str, successful: u64, failed: u64) -> PolicyReport {
        let detail = FailureDetail {
            result_type: ResultType::StarttlsNotSupported,
            sending_mta_ip: None,
            receiving_mx_hostname: Some("mx1.example".into()),
            receiving_mx_helo: None,
            receiving_ip: None,
            failed_session_count: failed,
            additional_information: None,
            failure_reason_code: None,
        };
        PolicyReport {
            policy_type: PolicyType::Sts,
            policy_string: vec!["version: STSv1".into()],
            policy_domain: DomainName::parse(domain).ok(),
            mx_host: vec![],
            successful,
            failed,
            details: if failed > 0 { vec![detail] } else { vec![] },
        }
    }

    #[test]
    fn rpt_08_a_report_has_an_id_of_its_own_and_a_contact_of_the_submitter() {
        let day = "2026-11-24T13:00:00Z".parse().unwrap();
        let reports = build(day, vec![entry("a.example", 1, 0), entry("b.example", 1, 2)], &reporter());
        let ids: Vec<_> = reports.iter().map(|(_, report)| report.report_id.as_str()).collect();
        assert_eq!(ids, ["20261124.a.example@sender.example", "20261124.b.example@sender.example"]);
        assert_eq!(reports[0].1.contact_info.as_deref(), Some("tlsrpt@sender.example"));
        let next =
            build("2026-11-25T00:00:00Z".parse().unwrap(), vec![entry("a.example", 1, 0)], &reporter());
        assert_ne!(next[0].1.report_id, reports[0].1.report_id);
        for (_, report) in &reports {
            let read = Report::read(&report.to_json().unwrap()).unwrap();
            assert_eq!((&read.report, read.warnings.as_slice()), (report, &[][..]));
        }
    }

    #[test]
    fn rpt_25_no_report_for_a_day_without_a_session() {
        let day = Timestamp::UNIX_EPOCH;
        assert!(build(day, vec![], &reporter()).is_empty());
        assert!(build(day, vec![entry("a.example", 0, 0)], &reporter()).is_empty());
    }
}
