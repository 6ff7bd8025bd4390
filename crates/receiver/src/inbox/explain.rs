//! What a failure in a report means, whose it likely is, and what to do (RFC 8460 §4.3).

use formats::ResultType;
use jiff::SignedDuration;
use serde::Serialize;
use store::guard_probes::GuardProbeDay;
use store::reports::{CauseSum, SenderSum};

/// A cause, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What happened, in a sentence with the names.
    pub what: String,
    /// What it means for mail.
    pub means: &'static str,
    /// Whose it likely is.
    pub whose: &'static str,
    /// What to do.
    pub remedy: String,
    /// What else is known that helps to tell, such as what our own looks saw.
    pub hints: Vec<String>,
}

/// What is known about a domain besides one cause.
#[derive(Debug, Clone, Copy)]
pub struct CauseContext<'a> {
    /// The domain.
    pub domain: &'a str,
    /// All who report about it.
    pub senders: &'a [SenderSum],
    /// Our own looks at its MX hosts.
    pub probes: &'a [GuardProbeDay],
}

/// Explains a cause.
pub fn explain(cause: &CauseSum, around: &CauseContext<'_>) -> Explanation {
    let text = text(&ResultType::parse(&cause.result_type), cause, around.domain);
    let place = place(cause);
    let times = if cause.sessions == 1 { "once".to_owned() } else { format!("{} times", cause.sessions) };
    let who = match cause.senders {
        1 => cause.sender.clone(),
        senders => format!("{senders} of {} senders", counting(around).max(usize_of(senders))),
    };
    Explanation {
        what: format!("{who} met {}{place}, {times}", text.met),
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
    "Under an enforced policy such mail waits at the sender and bounces after some days.";
const CONSEQUENCE_NO_POLICY: &str =
    "Senders without an earlier copy of the policy deliver as if there were none: TLS can be stripped.";
const WHERE_MX: &str = "your MX host";
const WHERE_POLICY: &str = "your policy or its host";

fn text(result: &ResultType, cause: &CauseSum, domain: &str) -> Text {
    let host = if cause.host.is_empty() { "the MX host" } else { cause.host.as_str() };
    let check = format!("sternpost check {domain}");
    match result {
        ResultType::StarttlsNotSupported => Text {
            met: "no STARTTLS".into(),
            means: CONSEQUENCE_ENFORCED,
            whose: "your MX host, or somebody on the path who strips STARTTLS",
            remedy: format!(
                "Look whether {host} offers STARTTLS to everyone:\n  openssl s_client -starttls smtp -connect {host}:25\nIf it always does, the offer is lost on the way: a firewall with SMTP inspection, or an attack. With an enforced policy the sender does not fall for it."
            ),
        },
        ResultType::CertificateHostMismatch => Text {
            met: "a certificate for another name".into(),
            means: CONSEQUENCE_ENFORCED,
            whose: "your MX host's certificate, or the mx lines of your policy",
            remedy: format!(
                "Give {host} a certificate that names it (in subjectAltName), and see that the policy names the MX host and not another name of it:\n  {check}"
            ),
        },
        ResultType::CertificateExpired => Text {
            met: "an expired certificate".into(),
            means: CONSEQUENCE_ENFORCED,
            whose: WHERE_MX,
            remedy: format!(
                "Renew the certificate of {host} and reload the mail server, which may still hold the old one. Where a name has several addresses, look at each of them:\n  openssl s_client -starttls smtp -connect {}:25 | openssl x509 -noout -dates",
                if cause.address.is_empty() { host } else { cause.address.as_str() }
            ),
        },
        ResultType::CertificateNotTrusted => Text {
            met: "a certificate that it does not trust".into(),
            means: CONSEQUENCE_ENFORCED,
            whose: "your MX host's certificate, most often a chain without its intermediate",
            remedy: format!(
                "Have {host} send the whole chain (Postfix: smtpd_tls_chain_files with fullchain.pem), from a public authority:\n  openssl s_client -starttls smtp -showcerts -connect {host}:25"
            ),
        },
        ResultType::ValidationFailure => Text {
            met: "a TLS session that could not be made or verified".into(),
            means: CONSEQUENCE_ENFORCED,
            whose: "your MX host, or the sender",
            remedy: format!(
                "The sender does not say what; the reports may give a reason. Look at the TLS versions and the MX names:\n  {check}"
            ),
        },
        ResultType::StsPolicyFetchError => Text {
            met: "a policy that it could not fetch".into(),
            means: CONSEQUENCE_NO_POLICY,
            whose: WHERE_POLICY,
            remedy: format!(
                "See that mta-sts.{domain} answers from outside, on IPv6 too:\n  curl https://mta-sts.{domain}/.well-known/mta-sts.txt"
            ),
        },
        ResultType::StsPolicyInvalid => Text {
            met: "a policy that it could not read".into(),
            means: CONSEQUENCE_NO_POLICY,
            whose: WHERE_POLICY,
            remedy: format!("See what is wrong with the file:\n  {check}"),
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
            met: "TLSA records that it can't use, or that no certificate matches".into(),
            means: "Senders that honour DANE don't deliver to that host.",
            whose: "your TLSA records",
            remedy: format!(
                "Publish the record of the new key before the key is in use, and take the old one away after the TTL:\n  {check}"
            ),
        },
        ResultType::DnssecInvalid => Text {
            met: "DNS answers that fail DNSSEC validation".into(),
            means: "Senders that validate can't deliver at all.",
            whose: "your DNS",
            remedy: format!("Look at the signatures and the DS record of the zone:\n  delv {domain} MX"),
        },
        ResultType::DaneRequired => Text {
            met: "no DANE, which it insists on".into(),
            means: "That sender delivers to hosts with TLSA records only.",
            whose: "the sender, by its own choice",
            remedy: "If mail of that sender matters, publish TLSA records for your MX hosts in a signed zone; else nothing.".into(),
        },
        ResultType::Other(name) => Text {
            met: format!("{:?}, a kind of failure that RFC 8460 does not have", shortened(name)),
            means: CONSEQUENCE_ENFORCED,
            whose: "unknown",
            remedy: format!("Ask the sender; the report names a contact. What can be seen from here:\n  {check}"),
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
            "Only {} meets this; the other {} do not. That points to the sender, or to the path between.",
            cause.sender,
            if senders == 2 { "one".to_owned() } else { format!("{} senders", senders - 1) }
        ));
    }
    if !cause.counts {
        hints.push(
            "Nobody signed the reports that say so: they are shown, and count neither for nor against."
                .to_owned(),
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
        Some(probe) => hints.push(format!("Our own looks at {} in that time saw it too ({bad} of {}): {}.", cause.host, good + bad, probe.problem)),
        None if good > 0 => hints.push(format!(
            "Our own {good} looks at {} in that time were all fine: that points to the sender, to the path, or to one address of several.",
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
    fn every_result_type_has_its_own_words() {
        let around = CauseContext { domain: "a.example", senders: &senders(9), probes: &[] };
        let mut seen = std::collections::BTreeSet::new();
        for kind in ResultType::registered().chain([ResultType::Other("odd<b>".into())]) {
            let told = explain(&cause(kind.as_str(), 4), &around);
            assert!(!told.remedy.is_empty() && !told.whose.is_empty());
            assert!(seen.insert(told.what.clone()), "{}", told.what);
        }
        let told = explain(&cause("certificate-expired", 4), &around);
        assert_eq!(
            told.what,
            "4 of 9 senders met an expired certificate at mx2.a.example (192.0.2.7), 9 times"
        );
    }

    #[test]
    fn one_sender_alone_and_our_own_looks_are_said() {
        let look = |good, bad| GuardProbeDay {
            host: "mx2.a.example".into(),
            day: Timestamp::UNIX_EPOCH,
            good,
            bad,
            problem: "it is over".into(),
        };
        let told = |probes: &[GuardProbeDay]| {
            explain(
                &cause("certificate-expired", 1),
                &CauseContext { domain: "a.example", senders: &senders(3), probes },
            )
            .hints
        };
        assert_eq!(told(&[]).len(), 1);
        assert!(told(&[])[0].starts_with("Only big.example meets this; the other 2 senders do not"));
        assert!(told(&[look(3, 0)])[1].contains("all fine"));
        assert!(told(&[look(3, 1)])[1].contains("saw it too (1 of 4): it is over"));
    }
}
