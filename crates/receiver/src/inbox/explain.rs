//! Explains the failures in reports (RFC 8460 §4.3): what happened, what it means for mail, where the fault likely
//! is, and what to do. Commands, the API and the dashboard show these texts.

use formats::ResultType;
use jiff::SignedDuration;
use serde::Serialize;
use store::guard_probes::GuardProbeDay;
use store::reports::{CauseSum, SenderSum};

/// The explanation of a cause of failures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What happened, as one sentence with sender, host and number of sessions.
    pub what: String,
    /// What the failures mean for mail.
    pub means: &'static str,
    /// Where the fault likely is.
    pub whose: &'static str,
    /// What the operator should do, with commands to paste.
    pub remedy: String,
    /// Further observations that help to locate the fault, such as the guard's probes.
    pub hints: Vec<String>,
}

/// What is known about a domain besides the cause.
#[derive(Debug, Clone, Copy)]
pub struct CauseContext<'a> {
    /// The mail domain.
    pub domain: &'a str,
    /// All senders that report about the domain.
    pub senders: &'a [SenderSum],
    /// The guard's probes of the domain's MX hosts.
    pub probes: &'a [GuardProbeDay],
}

/// Explains a cause of failures.
pub fn explain(cause: &CauseSum, around: &CauseContext<'_>) -> Explanation {
    let text = text(&ResultType::parse(&cause.result_type), cause, around.domain);
    let place = place(cause);
    let times = if cause.sessions == 1 { "once".to_owned() } else { format!("{} times", cause.sessions) };
    let reporters = match cause.senders {
        1 => cause.sender.clone(),
        senders => format!("{senders} of {} senders", counting(around).max(usize_of(senders))),
    };
    Explanation {
        what: format!("{reporters} reported {}{place}, {times}", text.met),
        means: text.means,
        whose: text.whose,
        remedy: text.remedy,
        hints: hints(cause, around),
    }
}

struct Text {
    met: String,
    means: &'static str,
    whose: &'static str,
    remedy: String,
}

fn usize_of(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn counting(around: &CauseContext<'_>) -> usize {
    around.senders.iter().filter(|sender| sender.counts).count()
}

fn place(cause: &CauseSum) -> String {
    match (cause.host.as_str(), cause.address.as_str()) {
        ("", "") => String::new(),
        (host, "") => format!(" at {host}"),
        ("", address) => format!(" at {address}"),
        (host, address) => format!(" at {host} ({address})"),
    }
}

const CONSEQUENCE_ENFORCED: &str =
    "Under an enforced policy, such mail is queued at the sender and bounces after a few days.";
const CONSEQUENCE_NO_POLICY: &str =
    "Senders without a cached policy deliver as if there were none, so an attacker can strip TLS.";
const WHERE_MX: &str = "your MX host";
const WHERE_POLICY: &str = "your policy or its host";

fn text(result: &ResultType, cause: &CauseSum, domain: &str) -> Text {
    let host = if cause.host.is_empty() { "the MX host" } else { cause.host.as_str() };
    let check = format!("sternpost check {domain}");
    match result {
        ResultType::StarttlsNotSupported => Text {
            met: "no STARTTLS".into(),
            means: CONSEQUENCE_ENFORCED,
            whose: "your MX host, or a device on the path that strips STARTTLS",
            remedy: format!(
                "Check that {host} offers STARTTLS to every client:\n  openssl s_client -starttls smtp -connect {host}:25\nIf it does, STARTTLS is stripped on the path, by a firewall with SMTP inspection or by an attacker. Under an enforced policy the sender then refuses to deliver."
            ),
        },
        ResultType::CertificateHostMismatch => Text {
            met: "a certificate for another name".into(),
            means: CONSEQUENCE_ENFORCED,
            whose: "your MX host's certificate, or the mx lines of your policy",
            remedy: format!(
                "Give {host} a certificate that names it (in subjectAltName), and check that the policy names the MX host and not an alias of it:\n  {check}"
            ),
        },
        ResultType::CertificateExpired => Text {
            met: "an expired certificate".into(),
            means: CONSEQUENCE_ENFORCED,
            whose: WHERE_MX,
            remedy: format!(
                "Renew the certificate of {host} and reload the mail server, which may still use the old one. If the name has several addresses, check each of them:\n  openssl s_client -starttls smtp -connect {}:25 | openssl x509 -noout -dates",
                if cause.address.is_empty() { host } else { cause.address.as_str() }
            ),
        },
        ResultType::CertificateNotTrusted => Text {
            met: "an untrusted certificate".into(),
            means: CONSEQUENCE_ENFORCED,
            whose: "your MX host's certificate, most often a chain without its intermediate",
            remedy: format!(
                "Make {host} send the whole chain (Postfix: smtpd_tls_chain_files with fullchain.pem), issued by a public CA:\n  openssl s_client -starttls smtp -showcerts -connect {host}:25"
            ),
        },
        ResultType::ValidationFailure => Text {
            met: "a TLS session that could not be established or verified".into(),
            means: CONSEQUENCE_ENFORCED,
            whose: "your MX host, or the sender",
            remedy: format!(
                "This result type gives no detail, but the reports may include a reason. Check the TLS versions and the MX names:\n  {check}"
            ),
        },
        ResultType::StsPolicyFetchError => Text {
            met: "a policy that could not be fetched".into(),
            means: CONSEQUENCE_NO_POLICY,
            whose: WHERE_POLICY,
            remedy: format!(
                "Check that mta-sts.{domain} can be reached from outside, over IPv6 as well:\n  curl https://mta-sts.{domain}/.well-known/mta-sts.txt"
            ),
        },
        ResultType::StsPolicyInvalid => Text {
            met: "an invalid policy".into(),
            means: CONSEQUENCE_NO_POLICY,
            whose: WHERE_POLICY,
            remedy: format!("Check the policy file:\n  {check}"),
        },
        ResultType::StsWebpkiInvalid => Text {
            met: "a policy host without a valid certificate".into(),
            means: CONSEQUENCE_NO_POLICY,
            whose: WHERE_POLICY,
            remedy: format!(
                "Give mta-sts.{domain} a certificate for that name, and renew it in time:\n  curl -v https://mta-sts.{domain}/.well-known/mta-sts.txt"
            ),
        },
        ResultType::TlsaInvalid => Text {
            met: "TLSA records that are unusable or that no certificate matches".into(),
            means: "Senders that support DANE don't deliver to that host.",
            whose: "your TLSA records",
            remedy: format!(
                "Publish the TLSA record of a new key before the key is used, and remove the old record after its TTL:\n  {check}"
            ),
        },
        ResultType::DnssecInvalid => Text {
            met: "DNS answers that fail DNSSEC validation".into(),
            means: "Senders that validate DNSSEC can't deliver at all.",
            whose: "your DNS",
            remedy: format!("Check the signatures and the DS record of the zone:\n  delv {domain} MX"),
        },
        ResultType::DaneRequired => Text {
            met: "missing TLSA records".into(),
            means: "That sender only delivers to hosts with TLSA records.",
            whose: "the sender's own requirement",
            remedy: "If you need mail from that sender, publish TLSA records for your MX hosts in a signed zone. Otherwise there is nothing to do.".into(),
        },
        ResultType::Other(name) => Text {
            met: format!("{:?}, a result type that RFC 8460 does not define", shortened(name)),
            means: CONSEQUENCE_ENFORCED,
            whose: "unknown",
            remedy: format!("Ask the sender; the report names a contact. Check the domain from here:\n  {check}"),
        },
    }
}

fn shortened(name: &str) -> String {
    name.chars().take(60).collect()
}

fn hints(cause: &CauseSum, around: &CauseContext<'_>) -> Vec<String> {
    let mut hints = Vec::new();
    let senders = counting(around);
    if cause.counts && cause.senders == 1 && senders > 1 {
        hints.push(format!(
            "Only {} reports this; the other {} not. That points to the sender, or to the network path.",
            cause.sender,
            if senders == 2 { "sender does".to_owned() } else { format!("{} senders do", senders - 1) }
        ));
    }
    if !cause.counts {
        hints.push(
            "These reports have no valid signature: they are shown, but do not count as evidence.".to_owned(),
        );
    }
    let day = SignedDuration::from_hours(24);
    let then: Vec<&GuardProbeDay> = around
        .probes
        .iter()
        .filter(|probe| probe.host == cause.host && probe.day >= cause.first && probe.day < cause.last + day)
        .collect();
    let (good, bad) = then.iter().fold((0, 0), |(good, bad), probe| (good + probe.good, bad + probe.bad));
    match then.iter().rev().find(|probe| probe.bad > 0) {
        Some(probe) => hints.push(format!("Our own probes of {} failed in the same period ({bad} of {}): {}.", cause.host, good + bad, probe.problem)),
        None if good > 0 => hints.push(format!(
            "All {good} of our own probes of {} succeeded in the same period. That points to the sender, to the network path, or to one of several addresses.",
            cause.host
        )),
        None => {}
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::result_type::PolicyType;
    use jiff::Timestamp;

    fn cause(result: &str, senders: u64) -> CauseSum {
        CauseSum {
            result_type: result.into(),
            host: "mx2.a.example".into(),
            address: "192.0.2.7".into(),
            kind: PolicyType::Sts,
            sessions: 9,
            senders,
            sender: "big.example".into(),
            first: Timestamp::UNIX_EPOCH,
            last: Timestamp::UNIX_EPOCH,
            report: 1,
            counts: true,
        }
    }

    fn senders(count: usize) -> Vec<SenderSum> {
        (0..count)
            .map(|n| SenderSum {
                submitter: format!("s{n}.example"),
                counts: true,
                reports: 1,
                successful: 1,
                failed: 0,
                last: Timestamp::UNIX_EPOCH,
            })
            .collect()
    }

    #[test]
    fn every_result_type_has_its_own_explanation() {
        let around = CauseContext { domain: "a.example", senders: &senders(9), probes: &[] };
        let mut seen = std::collections::BTreeSet::new();
        for kind in ResultType::registered().chain([ResultType::Other("odd<b>".into())]) {
            let explanation = explain(&cause(kind.as_str(), 4), &around);
            assert!(!explanation.remedy.is_empty() && !explanation.whose.is_empty());
            assert!(seen.insert(explanation.what.clone()), "{}", explanation.what);
        }
        let explanation = explain(&cause("certificate-expired", 4), &around);
        assert_eq!(
            explanation.what,
            "4 of 9 senders reported an expired certificate at mx2.a.example (192.0.2.7), 9 times"
        );
    }

    #[test]
    fn hints_name_a_single_sender_and_our_own_probes() {
        let probe = |good, bad| GuardProbeDay {
            host: "mx2.a.example".into(),
            day: Timestamp::UNIX_EPOCH,
            policy: None,
            good,
            bad,
            problem: "it has expired".into(),
        };
        let hints = |probes: &[GuardProbeDay]| {
            explain(
                &cause("certificate-expired", 1),
                &CauseContext { domain: "a.example", senders: &senders(3), probes },
            )
            .hints
        };
        assert_eq!(hints(&[]).len(), 1);
        assert!(hints(&[])[0].starts_with("Only big.example reports this; the other 2 senders do not"));
        assert!(hints(&[probe(3, 0)])[1].contains("succeeded in the same period"));
        assert!(hints(&[probe(3, 1)])[1].contains("failed in the same period (1 of 4): it has expired"));
    }
}
