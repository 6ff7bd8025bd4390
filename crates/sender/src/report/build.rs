//! Builds the report of a policy domain from its tally of a UTC day (RFC 8460 §4).
//!
//! The scheduler passes in tallies and probe results from the store, and queues the resulting reports.

use super::testing_probe;
use formats::report::{DateRange, FailureDetail, PolicyReport, Report};
use formats::tlsrpt_record::MailAddress;
use formats::{DomainName, ResultType};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::net::IpAddr;
use store::tallies::DomainTally;
use store::testing_probes::TestingProbe;

/// The reporting organization, and how much its reports disclose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reporter {
    /// The `organization-name` in reports.
    pub organization: String,
    /// The sender of report mail. Its domain is the submitter, and the domain that signs (RFC 8460 §3, RPT-08).
    pub from: MailAddress,
    /// The `contact-info` in reports; it may be in another domain.
    pub contact: MailAddress,
    /// How reports show the IP addresses of sessions.
    pub addresses: Addresses,
}

/// How reports show the IP addresses of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Addresses {
    /// Full addresses.
    #[default]
    Full,
    /// The network only: 24 bits of IPv4, 48 bits of IPv6.
    Shortened,
    /// No addresses.
    Omitted,
}

impl Addresses {
    fn redact(self, address: Option<IpAddr>) -> Option<IpAddr> {
        match self {
            Self::Full => address,
            Self::Shortened => address.map(net::rate_limit::network),
            Self::Omitted => None,
        }
    }
}

impl Reporter {
    /// The submitter: the domain of the sender's address.
    pub fn submitter(&self) -> &DomainName {
        self.from.domain()
    }
}

/// The maximum number of failure details in a report. The rarest further ones are summed up by result type.
const MAX_DETAILS: usize = 10_000;

/// Builds the report about the UTC day that contains `within`; `None` when there was no session (RPT-25). `probes` are
/// the results of [`super::TestingProber`] for this domain and day.
///
/// The `report-id` consists of the day, `installation_id`, the domain and the submitter. The ID of the installation is
/// kept in the store ([`super::installation_id`]): a report that is rebuilt after a crash has the same ID, and the report of
/// another machine with the same submitter has another one. Receivers drop the second of two reports with one ID.
pub fn build(
    within: Timestamp,
    tally: DomainTally,
    probes: &[TestingProbe],
    reporter: &Reporter,
    installation_id: &str,
) -> Option<Report> {
    let date_range = DateRange::utc_day(within);
    let mut policies: Vec<PolicyReport> =
        tally.entries.into_iter().filter(|entry| entry.successful + entry.failed > 0).collect();
    let limit = MAX_DETAILS / policies.len().max(1);
    for policy in &mut policies {
        testing_probe::apply_probes(policy, probes);
        let details = std::mem::take(&mut policy.details).into_iter();
        policy.details = grouped(details.map(|detail| disclosed(detail, reporter.addresses)), limit.max(10));
    }
    let day = date_range.start.strftime("%Y%m%d");
    (!policies.is_empty()).then(|| Report {
        organization_name: Some(reporter.organization.clone()),
        date_range,
        contact_info: Some(reporter.contact.to_string()),
        report_id: format!("{day}-{installation_id}.{}@{}", tally.domain, reporter.submitter()),
        policies,
    })
}

/// A failure as the report shows it: addresses as configured, and a reason where RFC 8460 §4.3 requires one (RPT-10).
fn disclosed(detail: FailureDetail, addresses: Addresses) -> FailureDetail {
    let needs_reason =
        matches!(detail.result_type, ResultType::CertificateNotTrusted | ResultType::ValidationFailure);
    let no_reason = || needs_reason.then(|| "no reason given by the mail server".to_owned());
    FailureDetail {
        sending_mta_ip: addresses.redact(detail.sending_mta_ip),
        receiving_ip: addresses.redact(detail.receiving_ip),
        failure_reason_code: detail.failure_reason_code.or_else(no_reason),
        ..detail
    }
}

/// Merges equal failures and sorts them by frequency. Beyond `limit`, the rarest are summed up by result type.
fn grouped(details: impl Iterator<Item = FailureDetail>, limit: usize) -> Vec<FailureDetail> {
    let mut all = merged(details);
    if all.len() > limit {
        let rest = all.split_off(limit).into_iter();
        let summed = merged(rest.map(|detail| FailureDetail {
            sending_mta_ip: None,
            receiving_mx_hostname: None,
            receiving_mx_helo: None,
            receiving_ip: None,
            additional_information: Some("further failures, summed up".to_owned()),
            failure_reason_code: detail.failure_reason_code.map(|_| "various".to_owned()),
            ..detail
        }));
        all.extend(summed);
    }
    all
}

/// Merges failures that differ only in their count; the most frequent come first.
fn merged(details: impl Iterator<Item = FailureDetail>) -> Vec<FailureDetail> {
    let mut all: BTreeMap<String, FailureDetail> = BTreeMap::new();
    for detail in details {
        let count = detail.failed_session_count;
        let key = FailureDetail { failed_session_count: 0, ..detail };
        let sum = all.entry(format!("{key:?}")).or_insert(key);
        sum.failed_session_count = sum.failed_session_count.saturating_add(count);
    }
    let mut all: Vec<FailureDetail> = all.into_values().collect();
    all.sort_by_key(|detail| std::cmp::Reverse(detail.failed_session_count));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::result_type::PolicyType;

    const WORD: &str = "k3x9";

    fn reporter() -> Reporter {
        Reporter {
            organization: "Sender Mail".into(),
            from: MailAddress::parse("tlsrpt@sender.example").unwrap(),
            contact: MailAddress::parse("help@desk.example").unwrap(),
            addresses: Addresses::Full,
        }
    }

    fn detail(failed: u64) -> FailureDetail {
        FailureDetail {
            result_type: ResultType::StarttlsNotSupported,
            sending_mta_ip: "192.0.2.7".parse().ok(),
            receiving_mx_hostname: Some("mx1.example".into()),
            receiving_mx_helo: None,
            receiving_ip: "2001:db8:1:2::3".parse().ok(),
            failed_session_count: failed,
            additional_information: None,
            failure_reason_code: None,
        }
    }

    fn tally(domain: &str, successful: u64, failed: u64) -> DomainTally {
        let domain = DomainName::parse(domain).unwrap();
        let entry = PolicyReport {
            policy_type: PolicyType::Sts,
            policy_string: vec!["version: STSv1".into()],
            policy_domain: Some(domain.clone()),
            mx_host: vec![],
            successful,
            failed,
            details: if failed > 0 { vec![detail(failed)] } else { vec![] },
        };
        DomainTally { domain, entries: vec![entry] }
    }

    #[test]
    fn rpt_08_a_report_has_an_id_of_its_own_and_a_contact_of_the_submitter() {
        let day = "2026-11-24T13:00:00Z".parse().unwrap();
        let built = |day, domain| build(day, tally(domain, 1, 2), &[], &reporter(), WORD).unwrap();
        let reports = [built(day, "a.example"), built(day, "b.example")];
        let ids: Vec<_> = reports.iter().map(|report| report.report_id.as_str()).collect();
        assert_eq!(ids, ["20261124-k3x9.a.example@sender.example", "20261124-k3x9.b.example@sender.example"]);
        assert_eq!(reports[0].contact_info.as_deref(), Some("help@desk.example"));
        let next = built("2026-11-25T00:00:00Z".parse().unwrap(), "a.example");
        assert_ne!(next.report_id, reports[0].report_id);
        let other = build(day, tally("a.example", 1, 2), &[], &reporter(), "b7q2").unwrap();
        assert_ne!(other.report_id, reports[0].report_id, "another machine");
        for report in &reports {
            let read = Report::read(&report.to_json().unwrap()).unwrap();
            assert_eq!((&read.report, read.warnings.as_slice()), (report, &[][..]));
        }
    }

    #[test]
    fn rpt_05_a_dane_entry_keeps_the_tlsa_base_domain_and_the_report_is_about_the_domain_of_the_mail() {
        let day = "2026-11-24T13:00:00Z".parse().unwrap();
        let mut tally = tally("a.example", 1, 2);
        let mx = DomainName::parse("mx.provider.example").unwrap();
        tally.entries.push(PolicyReport {
            policy_type: PolicyType::Tlsa,
            policy_string: vec!["3 1 1 AB".into()],
            policy_domain: Some(mx.clone()),
            ..tally.entries[0].clone()
        });
        let report = build(day, tally, &[], &reporter(), WORD).unwrap();
        assert!(report.report_id.contains(".a.example@"), "{}", report.report_id);
        let domains: Vec<_> = report.policies.iter().map(|policy| policy.policy_domain.clone()).collect();
        assert_eq!(domains, [DomainName::parse("a.example").ok(), Some(mx)]);
        assert_eq!(Report::read(&report.to_json().unwrap()).unwrap().report, report);
    }

    #[test]
    fn rpt_25_no_report_for_a_day_without_a_session() {
        assert_eq!(build(Timestamp::UNIX_EPOCH, tally("a.example", 0, 0), &[], &reporter(), WORD), None);
    }

    #[test]
    fn rpt_10_a_reason_stands_where_the_rfc_wants_one() {
        for (result, reason) in [
            (ResultType::CertificateNotTrusted, Some("no reason given by the mail server")),
            (ResultType::ValidationFailure, Some("no reason given by the mail server")),
            (ResultType::CertificateExpired, None),
        ] {
            let mut tally = tally("a.example", 0, 1);
            tally.entries[0].details[0].result_type = result;
            let report = build(Timestamp::UNIX_EPOCH, tally, &[], &reporter(), WORD).unwrap();
            assert_eq!(report.policies[0].details[0].failure_reason_code.as_deref(), reason);
        }
    }

    #[test]
    fn addresses_are_shown_as_configured_and_equal_failures_are_merged() {
        for (addresses, sending, receiving) in [
            (Addresses::Full, Some("192.0.2.7"), Some("2001:db8:1:2::3")),
            (Addresses::Shortened, Some("192.0.2.0"), Some("2001:db8:1::")),
            (Addresses::Omitted, None, None),
        ] {
            let mut tally = tally("a.example", 0, 2);
            tally.entries[0]
                .details
                .push(FailureDetail { sending_mta_ip: "192.0.2.8".parse().ok(), ..detail(3) });
            let reporter = Reporter { addresses, ..reporter() };
            let report = build(Timestamp::UNIX_EPOCH, tally, &[], &reporter, WORD).unwrap();
            let details = &report.policies[0].details;
            assert_eq!(details.len(), if addresses == Addresses::Full { 2 } else { 1 });
            let last = details.last().unwrap();
            assert_eq!(last.sending_mta_ip, sending.and_then(|ip| ip.parse().ok()));
            assert_eq!(last.receiving_ip, receiving.and_then(|ip| ip.parse().ok()));
            assert_eq!(details.iter().map(|detail| detail.failed_session_count).sum::<u64>(), 5);
        }
    }

    #[test]
    fn too_many_kinds_of_failures_are_summed_up_and_marked() {
        let mut tally = tally("a.example", 0, 1);
        tally.entries[0].details = (0..MAX_DETAILS as u64 + 300)
            .map(|n| FailureDetail { receiving_mx_helo: Some(format!("h{n}")), ..detail(1 + n % 2) })
            .collect();
        let all: u64 = tally.entries[0].details.iter().map(|detail| detail.failed_session_count).sum();
        let report = build(Timestamp::UNIX_EPOCH, tally, &[], &reporter(), WORD).unwrap();
        let details = &report.policies[0].details;
        assert_eq!(details.len(), MAX_DETAILS + 1);
        assert_eq!(details.iter().map(|detail| detail.failed_session_count).sum::<u64>(), all);
        assert_eq!(
            details[MAX_DETAILS].additional_information.as_deref(),
            Some("further failures, summed up")
        );
    }
}
