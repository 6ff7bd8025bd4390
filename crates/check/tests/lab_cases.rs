//! Lab domains and the check that each has to trip, over real sockets.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use formats::DomainName;
use lab::{Lab, Ports};
use net::clock::{Clock, SystemClock};
use std::collections::BTreeSet;
use std::sync::Arc;
use sternpost_check::{Checker, Severity};

const TRIPS: &[(&str, &str)] = &[
    ("no-mta-sts", "STS-TXT-MISSING"),
    ("txt-missing", "STS-TXT-MISSING"),
    ("txt-two-records", "STS-TXT-MULTIPLE"),
    ("txt-version-case", "STS-TXT-VERSION-CASE"),
    ("txt-no-id", "STS-TXT-ID-MISSING"),
    ("txt-bad-id", "STS-TXT-ID-SYNTAX"),
    ("txt-empty-field", "STS-TXT-SYNTAX"),
    ("txt-space", "STS-TXT-DELIM"),
    ("txt-cname", "STS-TXT-CNAME"),
    ("txt-servfail", "DNS-SERVFAIL"),
    ("host-missing", "HOST-MISSING"),
    ("host-refused", "HOST-UNREACHABLE"),
    ("host-silent", "HTTPS-SLOW"),
    ("host-tls10", "HTTPS-TLS-OLD"),
    ("host-aborts", "HTTPS-HANDSHAKE"),
    ("cert-expired", "HTTPS-CERT-EXPIRED"),
    ("cert-not-yet", "HTTPS-CERT-NOT-YET"),
    ("cert-wrong-name", "HTTPS-CERT-NAME"),
    ("cert-untrusted", "HTTPS-CERT-UNTRUSTED"),
    ("http-redirect", "HTTPS-REDIRECT"),
    ("http-404", "HTTPS-STATUS"),
    ("http-html", "HTTPS-TYPE"),
    ("http-oversize", "HTTPS-SIZE"),
    ("http-cut-off", "HTTPS-BROKEN"),
    ("policy-mode-case", "POL-SYNTAX"),
    ("policy-no-mx", "POL-NO-MX"),
    ("good-testing", "POL-MODE-TESTING"),
    ("good-none", "POL-MODE-NONE"),
    ("mx-first-unlisted", "MATCH-MX-UNCOVERED"),
    ("mx-no-starttls", "SMTP-NO-STARTTLS"),
    ("mx-starttls-refused", "SMTP-STARTTLS-FAILS"),
    ("mx-expired", "SMTP-CERT-EXPIRED"),
    ("mx-wrong-name", "SMTP-CERT-NAME"),
    ("mx-self-signed", "SMTP-CERT-UNTRUSTED"),
    ("mx-not-yet", "SMTP-CERT-NOT-YET"),
    ("mx-busy", "SMTP-BANNER"),
    ("mx-silent", "SMTP-UNREACHABLE"),
    ("mx-null", "MX-NULL"),
    ("mx-implicit", "MX-NONE"),
    ("attack-strip-enforce", "SMTP-STRIPPED"),
    ("dane-bogus", "DNSSEC-BOGUS"),
    ("dane-ee", "DANE-PROTECTS"),
    ("dane-mismatch", "DANE-MISMATCH"),
    ("dane-tlsa-servfail", "DANE-LOOKUP"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_listed_case_trips_its_check_and_a_good_domain_trips_none() {
    let cases = lab::cases::all();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let lab = Lab::with_cases(Ports::free(), clock.now(), &cases).await.unwrap();
    let clients = lab.clients("checker.test", clock.clone()).unwrap();
    let checker = Checker { dns: clients.dns, policies: clients.policies, mail: clients.mail, clock };
    let mut wrong = Vec::new();
    for (name, id) in TRIPS {
        let case = cases.iter().find(|case| case.name == *name).unwrap_or_else(|| panic!("no case {name}"));
        lab.attack(case, true).unwrap();
        let seen = checker.examine(&DomainName::parse(&case.domain()).unwrap()).await;
        let ids: BTreeSet<_> = seen.findings.iter().map(|finding| finding.check.id()).collect();
        if !ids.contains(id) {
            wrong.push(format!("{name}: expected {id}, found {ids:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let good = checker.examine(&DomainName::parse("good-enforce.test").unwrap()).await;
    let bad: Vec<_> = good.findings.iter().filter(|finding| finding.severity != Severity::Info).collect();
    assert!(bad.is_empty(), "{bad:?}");
    assert!(good.verdict.contains("is protected"), "{}", good.verdict);
}
