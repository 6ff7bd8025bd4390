//! What a test site would most likely say about a domain, derived from the findings of a check. It is an estimate: the sites
//! have their own rules and look from elsewhere. So far there is one profile, the mail test of Internet.nl.

use crate::catalogue::Check;
use crate::finding::Examination;

/// One point of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Point {
    /// The section of the test, such as `IPv6`.
    pub section: &'static str,
    /// The requirement, in a few words.
    pub name: &'static str,
    /// Whether the domain most likely meets it.
    pub state: State,
}

/// Whether a domain meets a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The check found nothing against it.
    Met,
    /// The check found something against it.
    Failed,
    /// The check did not examine it, such as for a domain without MX hosts, or does not cover it.
    Unknown,
}

/// The points of Internet.nl's mail test with the checks that speak against them. A point without checks is not covered.
const INTERNET_NL: &[(&str, &str, &[Check])] = &[
    ("IPv6", "two name servers with IPv6", &[Check::DnsNsIpv6]),
    ("IPv6", "mail servers with IPv6", &[Check::MxIpv6]),
    ("DNSSEC", "domain signed and valid", &[Check::DnssecUnsigned, Check::DnssecNoDs, Check::DnssecBogus]),
    ("DNSSEC", "domains of the mail servers signed", &[Check::DnssecMx]),
    ("DMARC, DKIM and SPF", "DMARC record present", &[Check::DmarcMissing]),
    ("DMARC, DKIM and SPF", "SPF record present", &[Check::SpfMissing]),
    ("DMARC, DKIM and SPF", "DKIM record present", &[]),
    ("DMARC, DKIM and SPF", "policies of DMARC and SPF strict enough", &[]),
    (
        "STARTTLS",
        "STARTTLS available",
        &[Check::SmtpNoStarttls, Check::SmtpStripped, Check::SmtpStarttlsFails],
    ),
    ("STARTTLS", "TLS version", &[Check::SmtpTlsOld, Check::SmtpTlsLegacy]),
    ("STARTTLS", "ciphers", &[Check::SmtpCipherWeak]),
    ("STARTTLS", "keys and signatures", &[Check::SmtpKeyWeak]),
    ("STARTTLS", "TLS compression, renegotiation and cipher order", &[]),
    (
        "DANE",
        "TLSA records at every mail server",
        &[Check::DaneAbsent, Check::DanePartial, Check::DaneUnsigned, Check::DaneUnknown],
    ),
    (
        "DANE",
        "TLSA records valid",
        &[Check::DaneMismatch, Check::DaneTaName, Check::DaneSyntax, Check::DaneUsage],
    ),
    ("DANE", "TLSA records ready for the next certificate", &[Check::DaneRollover]),
    ("RPKI", "routes of mail and name servers", &[]),
];

/// The points of Internet.nl's mail test for an examined domain, as an estimate.
pub fn internet_nl(seen: &Examination) -> Vec<Point> {
    let point = |(section, name, checks): &(&'static str, &'static str, &[Check])| {
        let fails = checks.iter().any(|check| seen.findings.iter().any(|finding| finding.check == *check));
        let is_examined = !checks.is_empty() && checks.iter().any(|check| seen.passed.contains(check));
        let state = match (fails, is_examined) {
            (true, _) => State::Failed,
            (false, true) => State::Met,
            (false, false) => State::Unknown,
        };
        Point { section, name, state }
    };
    INTERNET_NL.iter().map(point).collect()
}
