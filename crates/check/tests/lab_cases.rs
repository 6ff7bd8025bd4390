//! Every check of the catalogue, with a lab domain that fails it and one that passes it, over real sockets.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use formats::{DomainName, PolicyId};
use lab::{Case, Lab, Ports};
use net::clock::{Clock, SystemClock};
use net::dns::AuthoritativeServers;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use sternpost_check::{Check, Checker, Depth, Examination, Known, Options, Previous, Sessions, Severity};

/// Check, and a domain that fails it. `good-all` passes it unless [`PASSES`] names another domain.
const TRIPS: &[(&str, &str)] = &[
    ("DOM-IDN", "xn--bcher-kva"),
    ("DOM-NXDOMAIN", "no-such-domain"),
    ("DOM-SUBDOMAIN", "sub.good-all.test"),
    ("DOM-PUBLIC-SUFFIX", "co.uk"),
    ("MX-NONE", "mx-implicit"),
    ("MX-NULL", "mx-null"),
    ("MX-NULL", "mx-null-beside"),
    ("MX-CNAME", "mx-alias"),
    ("MX-ADDRESS", "mx-address"),
    ("MX-UNRESOLVED", "mx-unaddressed"),
    ("MX-PRIVATE", "mx-private"),
    ("MX-SINGLE", "good-enforce"),
    ("MX-IPV6", "good-enforce"),
    ("MX-DUPLICATE-PREF", "mx-equal"),
    ("MX-TTL", "ttl-long"),
    ("STS-TXT-MISSING", "no-mta-sts"),
    ("STS-TXT-MISSING", "txt-missing"),
    ("STS-TXT-MULTIPLE", "txt-two-records"),
    ("STS-TXT-VERSION-CASE", "txt-version-case"),
    ("STS-TXT-ID-MISSING", "txt-no-id"),
    ("STS-TXT-ID-SYNTAX", "txt-bad-id"),
    ("STS-TXT-SYNTAX", "txt-empty-field"),
    ("STS-TXT-APEX", "txt-wrong-name"),
    ("STS-TXT-QUOTES", "txt-quotes"),
    ("STS-TXT-ID-STYLE", "txt-id-word"),
    ("STS-TXT-ID-FUTURE", "txt-id-future"),
    ("STS-TXT-DELIM", "txt-space"),
    ("STS-TXT-UNKNOWN", "txt-unknown"),
    ("STS-TXT-SPLIT", "txt-split"),
    ("STS-TXT-CNAME", "txt-cname"),
    ("STS-TXT-TTL", "ttl-long"),
    ("STS-TXT-WILDCARD", "txt-wildcard"),
    ("DNS-NS-DISAGREE", "ns-disagree"),
    ("DNS-NS-LAME", "ns-lame"),
    ("DNS-SERVFAIL", "txt-servfail"),
    ("DNSSEC-BOGUS", "dane-bogus"),
    ("DNSSEC-UNSIGNED", "good-enforce"),
    ("DNSSEC-NO-DS", "ds-missing"),
    ("DNSSEC-NO-DS", "ds-wanted"),
    ("HOST-MISSING", "host-missing"),
    ("HOST-CNAME", "host-cname"),
    ("HOST-PRIVATE", "host-private"),
    ("HOST-IPV6-BROKEN", "host-ipv6-broken"),
    ("HOST-UNREACHABLE", "host-refused"),
    ("HOST-PARTIAL", "host-partial"),
    ("HTTPS-HANDSHAKE", "host-aborts"),
    ("HTTPS-TLS-OLD", "host-tls10"),
    ("HTTPS-CERT-EXPIRED", "cert-expired"),
    ("HTTPS-CERT-NOT-YET", "cert-not-yet"),
    ("HTTPS-CERT-NAME", "cert-wrong-name"),
    ("HTTPS-CERT-UNTRUSTED", "cert-untrusted"),
    ("HTTPS-CERT-CHAIN", "cert-chain-cut"),
    ("HTTPS-CERT-SELF", "cert-self-signed"),
    ("HTTPS-CERT-EXPIRING", "cert-expiring"),
    ("HTTPS-CERT-CN-ONLY", "cert-cn-only"),
    ("HTTPS-CERT-USAGE", "cert-clients-only"),
    ("HTTPS-CERT-LIFE", "cert-long-lived"),
    ("HTTPS-SNI", "good-enforce"),
    ("HTTPS-REDIRECT", "http-redirect"),
    ("HTTPS-STATUS", "http-404"),
    ("HTTPS-TYPE", "http-html"),
    ("HTTPS-SIZE", "http-oversize"),
    ("HTTPS-SLOW", "http-slow"),
    ("HTTPS-REVOKED", "cert-revoked"),
    ("HTTPS-SLOW", "http-stalls"),
    ("HTTPS-AUTH", "http-challenge"),
    ("HTTPS-USER-AGENT", "http-browsers"),
    ("HTTPS-CACHE", "http-cached"),
    ("HTTPS-BROKEN", "http-cut-off"),
    ("HTTPS-CAA", "caa-nobody"),
    ("POL-SYNTAX", "policy-no-colon"),
    ("POL-VERSION", "policy-no-version"),
    ("POL-MODE", "policy-bad-mode"),
    ("POL-MAX-AGE", "policy-no-max-age"),
    ("POL-CASE", "policy-mode-case"),
    ("POL-HTML", "policy-html"),
    ("POL-BOM", "policy-bom"),
    ("POL-NO-MX", "policy-no-mx"),
    ("POL-MX-SYNTAX", "policy-u-label"),
    ("POL-LF", "policy-lf"),
    ("POL-UNKNOWN", "policy-unknown"),
    ("POL-DUPLICATE", "policy-duplicate"),
    ("POL-MAX-AGE-SHORT", "policy-short"),
    ("POL-MAX-AGE-LONG", "policy-long-max-age"),
    ("POL-MODE-TESTING", "good-testing"),
    ("POL-MODE-NONE", "good-none"),
    ("POL-WILDCARD-BROAD", "policy-broad"),
    ("POL-MX-UNUSED", "policy-broad"),
    ("MATCH-MX-UNCOVERED", "mx-first-unlisted"),
    ("MATCH-NONE", "mx-not-listed"),
    ("MATCH-WILDCARD-DEPTH", "mx-too-deep"),
    ("MATCH-CNAME-TARGET", "policy-alias"),
    ("MATCH-MX-UNCOVERED", "microsoft-move"),
    ("SMTP-UNREACHABLE", "mx-first-down"),
    ("SMTP-PORT-BLOCKED", "mx-blocked"),
    ("SMTP-BANNER", "mx-busy"),
    ("SMTP-BANNER", "mx-silent"),
    ("SMTP-GREYLIST", "mx-greylists"),
    ("SMTP-NO-STARTTLS", "mx-no-starttls"),
    ("SMTP-STRIPPED", "attack-strip-enforce"),
    ("SMTP-STARTTLS-FAILS", "mx-starttls-refused"),
    ("SMTP-INJECTION", "mx-injection"),
    ("SMTP-TLS-OLD", "mx-tls10"),
    ("SMTP-TLS-LEGACY", "mx-old-tls-too"),
    ("SMTP-TLS13", "mx-only-tls12"),
    ("SMTP-CIPHER-WEAK", "mx-weak-cipher"),
    ("SMTP-KEY-WEAK", "mx-weak-key"),
    ("SMTP-CERT-EXPIRED", "mx-expired"),
    ("SMTP-CERT-NOT-YET", "mx-not-yet"),
    ("SMTP-CERT-NAME", "mx-wrong-name"),
    ("SMTP-CERT-UNTRUSTED", "mx-untrusted"),
    ("SMTP-CERT-CHAIN", "mx-chain-cut"),
    ("SMTP-CERT-SELF", "mx-self-signed"),
    ("SMTP-CERT-EXPIRING", "mx-expiring"),
    ("SMTP-CERT-CN-ONLY", "mx-cn-only"),
    ("SMTP-CERT-USAGE", "mx-clients-only"),
    ("SMTP-CERT-LIFE", "mx-long-lived"),
    ("SMTP-CERT-CLIENT-AUTH", "mx-clients-too"),
    ("SMTP-SNI-REQUIRED", "mx-only-sni"),
    ("SMTP-ADDRESS-DISAGREE", "mx-twin"),
    ("SMTP-FLAPPING", "mx-flaps"),
    ("SMTP-CLIENT-CERT", "mx-wants-certificate"),
    ("SMTP-REQUIRETLS", "mx-requiretls"),
    ("DANE-ABSENT", "good-enforce"),
    ("DANE-PROTECTS", "dane-ee"),
    ("DANE-UNSIGNED", "dane-unsigned"),
    ("DANE-LOOKUP", "dane-tlsa-servfail"),
    ("DANE-SYNTAX", "dane-short"),
    ("DANE-USAGE", "dane-unusable"),
    ("DANE-MISMATCH", "dane-mismatch"),
    ("DANE-PARTIAL", "dane-partial"),
    ("DANE-TA-NAME", "dane-ta-name"),
    ("DANE-DIGEST", "dane-ee-full"),
    ("DANE-ROLLOVER", "dane-rollover"),
    ("DANE-STS-CONFLICT", "dane-beats-sts"),
    ("DANE-STS-CONFLICT", "dane-fails-sts"),
    ("RPT-TXT-MISSING", "rpt-missing"),
    ("RPT-TXT-MULTIPLE", "rpt-two"),
    ("RPT-TXT-SYNTAX", "rpt-syntax"),
    ("RPT-TXT-WRONG-NAME", "rpt-wrong-name"),
    ("RPT-RUA-SCHEME", "rpt-scheme"),
    ("RPT-RUA-MAILTO", "rpt-nobody"),
    ("RPT-RUA-LOOP", "good-enforce"),
    ("RPT-RUA-HTTPS", "rpt-https"),
    ("RPT-RUA-MANY", "rpt-many"),
    ("RPT-RUA-ENCODE", "rpt-encode"),
    ("READY-ENFORCE", "good-testing"),
    ("SENDER-STRICT", "good-enforce"),
    ("SENDER-TESTING", "good-enforce"),
    ("SENDER-DANE", "good-enforce"),
    ("SENDER-PLAIN", "good-enforce"),
    ("DMARC-MISSING", "good-enforce"),
    ("SPF-MISSING", "good-enforce"),
    ("BIMI", "with-bimi"),
    ("PROVIDER", "host-pages"),
];

/// The domain that passes a check, for the checks that `good-all` can't pass.
const PASSES: &[(&str, &str)] = &[
    ("MX-IPV6", "mx-ipv6"),
    ("HTTPS-SNI", "good-enforce-default"),
    ("DANE-PROTECTS", "good-enforce"),
    // Reported for every domain that accepts mail, so only a null MX passes.
    ("SENDER-STRICT", "mx-null"),
    ("SENDER-TESTING", "mx-null"),
    ("SENDER-DANE", "mx-null"),
    ("SENDER-PLAIN", "mx-null"),
    ("READY-ENFORCE", "good-all"),
];

/// Checks that need earlier knowledge or a special argument, and have tests of their own.
const ELSEWHERE: &[&str] =
    &["DOM-SYNTAX", "DNSSEC-UNSEEN", "STS-TXT-UNCHANGED", "STS-TXT-CHANGED", "READY-ID-ORDER", "RPT-SILENT"];

struct Ground {
    lab: Lab,
    cases: Vec<Case>,
    checker: Checker,
}

async fn ground() -> Ground {
    let cases = [lab::cases::all(), lab::oddities::all()].concat();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let lab = Lab::with_cases(Ports::free(), clock.now(), &cases).await.unwrap();
    // Clients without SNI get this site, like the default site of a web server.
    lab.sites.put_default("mta-sts.http-cached.test");
    let clients = lab.clients("checker.test", clock.clone()).unwrap();
    let servers = AuthoritativeServers::new(clients.dns.clone(), lab.names.address.port(), true);
    let checker = Checker {
        unvalidated: clients.dns.clone(),
        dns: clients.dns,
        servers: Some(Arc::new(servers)),
        visits: clients.policies,
        mail: Sessions::new(clients.probes, false),
        clock,
        options: Options { allow_special: true, slow: Duration::from_millis(600), ..Options::default() },
    };
    Ground { lab, cases, checker }
}

impl Ground {
    async fn examine(&self, name: &str) -> Examination {
        if let Some(case) = self.cases.iter().find(|case| case.name == name) {
            self.lab.attack(case, true).unwrap();
        }
        let name = if name.contains('.') { name.to_owned() } else { format!("{name}.test") };
        self.checker.examine(&DomainName::parse(&name).unwrap()).await
    }
}

fn ids(seen: &Examination) -> BTreeSet<&'static str> {
    seen.findings.iter().map(|finding| finding.check.id()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_check_of_the_catalogue_fails_for_one_domain_and_passes_for_another() {
    let ground = ground().await;
    let mut seen: BTreeMap<&str, Examination> = BTreeMap::new();
    let passes =
        |check: &Check| PASSES.iter().find(|(id, _)| *id == check.id()).map_or("good-all", |(_, name)| *name);
    let wanted: BTreeSet<&str> =
        TRIPS.iter().map(|(_, name)| *name).chain(Check::ALL.iter().map(passes)).collect();
    for name in wanted {
        let name_of_case = if name == "good-enforce-default" { "http-cached" } else { name };
        seen.insert(name, ground.examine(name_of_case).await);
    }
    let mut wrong = Vec::new();
    for (id, name) in TRIPS {
        let found = ids(&seen[name]);
        if !found.contains(id) {
            wrong.push(format!("{name} should fail {id}, but fails {found:?}"));
        }
    }
    for check in Check::ALL {
        if !TRIPS.iter().any(|(id, _)| *id == check.id()) && !ELSEWHERE.contains(&check.id()) {
            wrong.push(format!("no domain fails {check}"));
        }
        let name = passes(check);
        if ids(&seen[name]).contains(check.id()) {
            wrong.push(format!("{name} should pass {check}, but fails it"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let good = &seen["good-all"];
    let bad: Vec<_> = good.findings.iter().filter(|finding| finding.severity != Severity::Info).collect();
    assert!(bad.is_empty(), "{bad:?}");
    assert!(good.verdict.contains("is protected: its policy is enforced"), "{}", good.verdict);
    assert!(good.passed.len() > 90, "{}", good.passed.len());
    // What follows depends on more than the check that failed.
    let said = |name: &str, id: &str| {
        let found = seen[name].findings.iter().find(|finding| finding.check.id() == id).unwrap();
        format!("{} {} {}", found.what, found.why, found.remedy.join(" "))
    };
    for (name, id, part) in [
        ("ds-missing", "DNSSEC-NO-DS", "dnssec-dsfromkey"),
        ("ds-wanted", "DNSSEC-NO-DS", "dig +short ds-wanted.test CDS"),
        ("microsoft-move", "MATCH-MX-UNCOVERED", "Microsoft 365 moves the domain"),
        ("microsoft-move", "MATCH-MX-UNCOVERED", "mx: microsoft-move-test.o-v1.mx.microsoft"),
        ("microsoft-move", "PROVIDER", "mx: microsoft-move-test.o-v1.mx.microsoft"),
        ("mx-long-lived", "SMTP-CERT-LIFE", "198 days"),
        ("mx-wants-certificate", "SMTP-CLIENT-CERT", "public CAs issue none for clients"),
    ] {
        assert!(said(name, id).contains(part), "{name}: {}", said(name, id));
    }
    assert!(!ids(&seen["ds-missing"]).contains("DNSSEC-UNSIGNED"), "the zone is signed");
    assert!(!ids(&seen["mx-clients-only"]).contains("SMTP-CERT-UNTRUSTED"));
    // Checks that were not made do not count as passed.
    let mut ground = ground;
    ground.checker.options.depth = Depth::Quick;
    let quick = ground.examine("good-all").await;
    for check in
        ["SMTP-TLS-LEGACY", "STS-TXT-UNCHANGED", "DNS-NS-LAME", "HTTPS-SNI", "RPT-SILENT", "STS-TXT-WILDCARD"]
    {
        assert!(!quick.passed.iter().any(|passed| passed.id() == check), "{check}");
    }
    ground.checker.options.sees_signatures = false;
    let blind = ground.examine("dane-mismatch").await;
    assert!(ids(&blind).contains("DNSSEC-UNSEEN"));
    assert!(!ids(good).contains("DNSSEC-UNSEEN"));
    assert!(!good.passed.iter().any(|passed| passed.id() == "STS-TXT-UNCHANGED"));
    assert!(good.passed.iter().any(|passed| passed.id() == "SMTP-TLS-LEGACY"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visit_and_a_fetch_give_the_same_result_for_a_policy_host() {
    use net::https::{Call, PolicyHosts, Visits};
    let ground = ground().await;
    let clients = ground.lab.clients("checker.test", Arc::new(SystemClock)).unwrap();
    for case in &ground.cases {
        if !matches!(case.setup.host_address, lab::case::HostAddress::Direct) {
            continue;
        }
        let domain = DomainName::parse(&case.domain()).unwrap();
        let host = domain.below("mta-sts").unwrap();
        let fetched = clients.policies.fetch(&domain).await;
        let visit =
            clients.policies.visit(&Call::policy(&host, ground.lab.policy_host_address().into())).await;
        let kind = |outcome: &Result<net::https::Fetched, net::https::FetchError>| match outcome {
            Ok(fetched) => format!("{:?}", fetched.body),
            Err(error) => format!("{:?}", std::mem::discriminant(error)),
        };
        assert_eq!(kind(&visit.judged()), kind(&fetched), "{}: {:?} {fetched:?}", case.name, visit.judged());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_check_is_compared_with_this_one() {
    let ground = ground().await;
    let domain = DomainName::parse("good-enforce.test").unwrap();
    let now = SystemClock.now();
    let file = |body: &str| body.as_bytes().to_vec();
    let same = file("version: STSv1\r\nmode: enforce\r\nmx: mx1.good-enforce.test\r\nmax_age: 604800\r\n");
    let before = |id: &str, file: Vec<u8>| Known {
        previous: Some(Previous { id: PolicyId::parse(id).unwrap(), file, at: now }),
        ..Known::default()
    };
    let silent = |last| Known { last_report: Some(last), ..Known::default() };
    let hour = jiff::SignedDuration::from_hours(1);
    for (known, trips, not) in [
        (before("20260101000000", same.clone()), vec![], vec!["STS-TXT-UNCHANGED", "STS-TXT-CHANGED"]),
        (
            before("20260101000000", file("old")),
            vec!["STS-TXT-UNCHANGED", "READY-ID-ORDER"],
            vec!["STS-TXT-CHANGED"],
        ),
        (
            before("20250101000000", same),
            vec!["STS-TXT-CHANGED"],
            vec!["STS-TXT-UNCHANGED", "READY-ID-ORDER"],
        ),
        (before("20250101000000", file("old")), vec![], vec!["STS-TXT-UNCHANGED", "STS-TXT-CHANGED"]),
        (silent(None), vec!["RPT-SILENT"], vec![]),
        (silent(Some(now.saturating_sub(hour * 24 * 8).unwrap())), vec!["RPT-SILENT"], vec![]),
        (silent(Some(now.saturating_sub(hour).unwrap())), vec![], vec!["RPT-SILENT"]),
        (Known::default(), vec![], ELSEWHERE.to_vec()),
    ] {
        let seen = ground.checker.examine_with(&domain, &known, &()).await;
        let found = ids(&seen);
        for id in trips {
            assert!(found.contains(id), "{id} is missing with {known:?}: {found:?}");
        }
        for id in not {
            assert!(!found.contains(id), "{id} is wrongly reported with {known:?}");
        }
    }
}
