//! Every check of the catalogue, with a lab domain that fails it and one that passes it, over real sockets.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use formats::{DomainName, PolicyId};
use lab::{Case, Lab, Ports};
use net::clock::{Clock, SystemClock};
use net::dns::AuthoritativeServers;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use sternpost_check::profile::{State, internet_nl};
use sternpost_check::{
    Cause, Check, Checker, Depth, Examination, Finding, Known, Options, Previous, SeenCertificate, SeenHost,
    Sessions, Severity,
};

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
    ("STS-TXT-VERSION", "txt-typo"),
    ("STS-TXT-VERSION", "txt-of-spf"),
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
    ("DNS-NS-IPV6", "ns-lame"),
    ("DNS-SERVFAIL", "txt-servfail"),
    ("DNSSEC-BOGUS", "dane-bogus"),
    ("DNSSEC-UNSIGNED", "good-enforce"),
    ("DNSSEC-MX", "dnssec-mx"),
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
    ("POL-MX-DOT", "policy-mx-dot"),
    ("POL-BLANK-END", "policy-blank-end"),
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
    ("SMTP-PQ", "good-enforce"),
    ("SMTP-HELLO-LARGE", "mx-hangs-on-large"),
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
    ("DANE-SELECTOR", "dane-selector-0"),
    ("DANE-ROLLOVER", "dane-rollover"),
    ("DANE-STS-CONFLICT", "dane-beats-sts"),
    ("DANE-STS-CONFLICT", "dane-fails-sts"),
    ("RPT-TXT-MISSING", "rpt-missing"),
    ("RPT-TXT-MULTIPLE", "rpt-two"),
    ("RPT-TXT-SYNTAX", "rpt-syntax"),
    ("RPT-TXT-VERSION", "rpt-typo"),
    ("RPT-TXT-VERSION-CASE", "rpt-case"),
    ("RPT-TXT-QUOTES", "rpt-quotes"),
    ("RPT-TXT-DELIM", "rpt-space"),
    ("RPT-TXT-UNKNOWN", "rpt-ruf"),
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
    ("PROVIDER-TWO", "two-providers"),
];

/// Cause, the domain whose findings name it, and the check of that finding. [`earlier`] has what earlier checks of a domain
/// saw.
const CAUSES: &[(&str, &str, &str)] = &[
    ("other-protocol", "txt-of-spf", "STS-TXT-VERSION"),
    ("policy-lines-in-record", "txt-policy-lines", "STS-TXT-SYNTAX"),
    ("zone-file-line", "txt-zone-line", "STS-TXT-SYNTAX"),
    ("field-before-version", "txt-id-first", "STS-TXT-SYNTAX"),
    ("look-alike", "txt-look-alike", "STS-TXT-SYNTAX"),
    ("invisible", "txt-invisible", "STS-TXT-SYNTAX"),
    ("line-break", "txt-line-break", "STS-TXT-SYNTAX"),
    ("space-in-field", "txt-space-in-field", "STS-TXT-SYNTAX"),
    ("key-case", "txt-key-case", "STS-TXT-SYNTAX"),
    ("key-case", "policy-key-case", "POL-CASE"),
    ("bad-field", "txt-bad-field", "STS-TXT-SYNTAX"),
    ("no-version", "txt-no-version", "STS-TXT-VERSION"),
    ("wrong-version", "txt-typo", "STS-TXT-VERSION"),
    ("wrong-version", "rpt-typo", "RPT-TXT-VERSION"),
    ("bare-version", "txt-bare", "STS-TXT-SYNTAX"),
    ("version-case", "txt-version-case", "STS-TXT-VERSION-CASE"),
    ("version-case", "rpt-case", "RPT-TXT-VERSION-CASE"),
    ("backslash", "txt-backslash", "STS-TXT-QUOTES"),
    ("quotes", "txt-quotes", "STS-TXT-QUOTES"),
    ("quotes", "rpt-quotes", "RPT-TXT-QUOTES"),
    ("leading-space", "txt-leading-space", "STS-TXT-SYNTAX"),
    ("full-width", "txt-full-width", "STS-TXT-SYNTAX"),
    ("no-break-space", "txt-nbsp", "STS-TXT-SYNTAX"),
    ("no-break-space", "policy-nbsp", "POL-MODE"),
    ("wrong-separator", "txt-comma", "STS-TXT-SYNTAX"),
    ("missing-semicolon", "txt-no-semicolon", "STS-TXT-SYNTAX"),
    ("missing-semicolon", "rpt-no-semicolon", "RPT-TXT-SYNTAX"),
    ("empty-field", "txt-empty-field", "STS-TXT-SYNTAX"),
    ("near-key", "rpt-syntax", "RPT-TXT-SYNTAX"),
    ("near-key", "rpt-ruf", "RPT-TXT-UNKNOWN"),
    ("near-key", "policy-near-key", "POL-MAX-AGE"),
    ("near-key", "policy-nmx", "POL-UNKNOWN"),
    ("no-id", "txt-no-id", "STS-TXT-ID-MISSING"),
    ("id-form", "txt-bad-id", "STS-TXT-ID-SYNTAX"),
    ("no-scheme", "rpt-no-scheme", "RPT-RUA-SCHEME"),
    ("near-scheme", "rpt-scheme", "RPT-RUA-SCHEME"),
    ("target-space", "rpt-two-spaced", "RPT-RUA-SCHEME"),
    ("empty-target", "rpt-comma-end", "RPT-RUA-SCHEME"),
    ("size-limit", "rpt-size", "RPT-RUA-ENCODE"),
    ("unencoded", "rpt-encode", "RPT-RUA-ENCODE"),
    ("bad-target", "rpt-one-bad", "RPT-RUA-SCHEME"),
    ("utf-16", "policy-utf16", "POL-SYNTAX"),
    ("not-utf-8", "policy-latin-1", "POL-SYNTAX"),
    ("byte-order-mark", "policy-bom", "POL-BOM"),
    ("web-page", "policy-in-page", "POL-HTML"),
    ("literal-newline", "policy-literal-newline", "POL-VERSION"),
    ("one-line", "policy-one-line", "POL-VERSION"),
    ("blank-line", "policy-blank-line", "POL-SYNTAX"),
    ("key-space", "policy-key-space", "POL-SYNTAX"),
    ("punctuation", "policy-punctuation", "POL-MODE"),
    ("record-in-policy", "policy-of-record", "POL-SYNTAX"),
    ("bad-line", "policy-bad-line", "POL-SYNTAX"),
    ("mx-preference", "policy-preference", "POL-MX-SYNTAX"),
    ("mx-wildcard", "policy-bad-wildcard", "POL-MX-SYNTAX"),
    ("empty-file", "policy-empty", "POL-SYNTAX"),
    ("comment", "policy-comment", "POL-SYNTAX"),
    ("template", "policy-template", "POL-MX-SYNTAX"),
    ("equals-sign", "policy-equals", "POL-SYNTAX"),
    ("no-colon", "policy-no-colon", "POL-SYNTAX"),
    ("value-case", "policy-mode-case", "POL-CASE"),
    ("near-value", "policy-bad-mode", "POL-MODE"),
    ("number", "policy-unit", "POL-MAX-AGE"),
    ("mx-list", "policy-mx-list", "POL-MX-SYNTAX"),
    ("mx-address", "policy-u-label", "POL-MX-SYNTAX"),
    ("provider-opt-out", "host-opted-out", "POL-SYNTAX"),
    ("catch-all", "host-parked", "HTTPS-CERT-NAME"),
    ("catch-all", "host-wildcard", "STS-TXT-MISSING"),
    ("unknown-to-provider", "host-not-customer", "HTTPS-HANDSHAKE"),
    ("policy-host-in-mx", "mx-policy-host", "MATCH-NONE"),
    ("policy-host-in-mx", "mx-policy-host", "POL-MX-UNUSED"),
    ("not-an-mx", "mx-apex", "MATCH-NONE"),
    ("former-provider", "mx-former", "MATCH-NONE"),
    ("former-host", "mx-moved", "MATCH-NONE"),
    ("former-host", "mx-moved", "POL-MX-UNUSED"),
    ("did-you-mean", "mx-typo", "MATCH-NONE"),
    ("other-tld", "mx-other-end", "MATCH-NONE"),
    ("empty-digest", "dane-nothing", "DANE-MISMATCH"),
    ("other-selector", "dane-other-selector", "DANE-MISMATCH"),
    ("other-usage", "dane-other-usage", "DANE-MISMATCH"),
    ("other-host", "dane-other-host", "DANE-MISMATCH"),
    ("other-address", "dane-other-address", "DANE-MISMATCH"),
    ("former-certificate", "dane-former", "DANE-MISMATCH"),
    ("new-certificate", "dane-renewed", "DANE-MISMATCH"),
    ("ds-wanted", "ds-wanted", "DNSSEC-NO-DS"),
    ("ds-not-entered", "ds-missing", "DNSSEC-NO-DS"),
];

/// Domains for which no finding names a cause: those without a fault, and some whose spelling is rare and correct.
const CAUSELESS: &[&str] = &[
    "good-all",
    "good-enforce",
    "good-testing",
    "good-none",
    "no-mta-sts",
    "nothing-yet",
    "txt-split",
    "txt-cname",
    "txt-others",
    "txt-unknown",
    "host-cname",
    "host-pages",
    "cert-wildcard",
    "policy-lf",
    "policy-unknown",
    "policy-wildcard",
    "policy-upper-case",
    "mx-alias",
    "mx-implicit",
    "mx-null",
    "mx-twin",
    "dane-ee",
    "dane-ta",
    "dane-two",
    "rpt-encoded",
];

/// What earlier checks of a domain saw.
fn earlier(name: &str) -> Known {
    let seen_at = SystemClock.now();
    let host = |text: &str| DomainName::parse(text).unwrap();
    match name {
        "mx-moved" => Known {
            hosts: vec![SeenHost { host: host(lab::causes::FORMER_HOST), seen_at }],
            ..Known::default()
        },
        "dane-former" => Known {
            certificates: vec![SeenCertificate {
                host: host("mx1.dane-former.test"),
                certificate: String::new(),
                public_key: lab::causes::FORMER_KEY.iter().map(|byte| format!("{byte:02x}")).collect(),
                seen_at,
            }],
            ..Known::default()
        },
        _ => Known::default(),
    }
}

/// The domain that passes a check, for the checks that `good-all` can't pass.
const PASSES: &[(&str, &str)] = &[
    ("MX-IPV6", "mx-ipv6"),
    ("HTTPS-SNI", "good-enforce-default"),
    ("DANE-PROTECTS", "good-enforce"),
    // Reported for every domain that accepts mail, so only a null MX passes.
    ("SENDER-STRICT", "mx-null"),
    ("DNS-NS-IPV6", "ns-ipv6"),
    // Told for every host that completes a handshake.
    ("SMTP-PQ", "mx-null"),
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
        options: Options { allow_special: true, slow: Duration::from_millis(1500), ..Options::default() },
    };
    Ground { lab, cases, checker }
}

impl Ground {
    async fn examine(&self, name: &str) -> Examination {
        if let Some(case) = self.cases.iter().find(|case| case.name == name) {
            self.lab.attack(case, true).unwrap();
        }
        let name = if name.contains('.') { name.to_owned() } else { format!("{name}.test") };
        let known = earlier(name.trim_end_matches(".test"));
        self.checker.examine_with(&DomainName::parse(&name).unwrap(), &known, &()).await
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
    // Nothing is claimed of hosts that nobody has seen.
    for name in ["mx-silent", "mx-busy", "mx-greylists", "mx-blocked"] {
        let verdict = &seen[name].verdict;
        assert!(verdict.contains("no session with an MX host came as far as TLS"), "{verdict}");
    }
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
async fn each_cause_is_named_for_a_domain_with_a_remedy_for_it() {
    let ground = ground().await;
    let mut wrong = Vec::new();
    let names: BTreeSet<&str> = CAUSES.iter().map(|(_, name, _)| *name).collect();
    let mut seen: BTreeMap<&str, Examination> = BTreeMap::new();
    for name in names {
        seen.insert(name, ground.examine(name).await);
    }
    for (cause, name, check) in CAUSES {
        let found = &seen[name].findings;
        let is_named = |finding: &&Finding| {
            finding.check.id() == *check
                && finding.cause.as_ref().is_some_and(|found| found.id.id() == *cause)
        };
        if !found.iter().any(|finding| is_named(&finding)) {
            let shown =
                found.iter().map(|finding| format!("{} {:?} {}", finding.check, finding.cause, finding.what));
            let shown: Vec<String> =
                shown.filter(|line| line.contains(check) || line.contains("Some")).collect();
            wrong.push(format!("{name}: {check} should have the cause {cause}, but there is {shown:#?}"));
        }
    }
    for cause in Cause::ALL {
        if !CAUSES.iter().any(|(id, ..)| *id == cause.id()) {
            wrong.push(format!("no domain shows the cause {cause}"));
        }
    }
    for name in CAUSELESS {
        let examined = ground.examine(name).await;
        for finding in examined.findings.iter().filter(|finding| finding.cause.is_some()) {
            wrong.push(format!("{name} has no fault, but {finding:?}"));
        }
    }
    for finding in seen.values().flat_map(|seen| &seen.findings) {
        let Some(found) = &finding.cause else { continue };
        if !found.id.checks().contains(&finding.check) {
            wrong.push(format!(
                "the table does not have {} for {}: {}",
                finding.check, found.id, finding.what
            ));
        }
        if !found.what.ends_with(['.', '?']) || found.what.len() < 20 {
            wrong.push(format!("{}: {}", found.id, found.what));
        }
    }
    // Records are corrected with the values of their owner.
    for (name, line) in [
        ("txt-comma", "_mta-sts.txt-comma.test.  TXT  \"v=STSv1; id=20260101000000;\""),
        (
            "rpt-no-scheme",
            "_smtp._tls.rpt-no-scheme.test.  TXT  \"v=TLSRPTv1; rua=mailto:postmaster@rpt-no-scheme.test\"",
        ),
        (
            "rpt-one-bad",
            "_smtp._tls.rpt-one-bad.test.  TXT  \"v=TLSRPTv1; rua=mailto:postmaster@rpt-one-bad.test,mailto:tls@good-enforce.test\"",
        ),
        // No sender has applied the file yet, so it is tested first.
        ("policy-equals", "mode: testing"),
        ("policy-unit", "max_age: 86400"),
    ] {
        let is_there = seen[name].findings.iter().any(|finding| finding.remedy.iter().any(|one| one == line));
        if !is_there {
            wrong.push(format!("{name} has no remedy {line}"));
        }
    }
    for name in [
        "rpt-case",
        "txt-comma",
        "txt-bare",
        "txt-of-spf",
        "txt-no-version",
        "rpt-no-semicolon",
        "rpt-no-scheme",
    ] {
        let examined = ground.examine(name).await;
        let missing = ids(&examined);
        let id = if name.starts_with("txt") { "STS-TXT-MISSING" } else { "RPT-TXT-MISSING" };
        if missing.contains(id) {
            wrong.push(format!("{name} has a record, and is said to have none"));
        }
    }
    let encoded = ground.examine("rpt-encoded").await;
    assert!(!ids(&encoded).contains("RPT-RUA-ENCODE"), "the address is encoded as it has to be");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_points_of_a_test_site_follow_from_the_findings() {
    let ground = ground().await;
    let state = |seen: &Examination, name: &str| {
        internet_nl(seen).iter().find(|point| point.name == name).unwrap().state
    };
    let good = ground.examine("good-all").await;
    let plain = ground.examine("mx-old-tls-too").await;
    for (name, of_good, of_plain) in [
        ("mail servers with IPv6", State::Failed, State::Failed),
        ("domain signed and valid", State::Met, State::Failed),
        ("DMARC record present", State::Met, State::Failed),
        ("DKIM record present", State::Unknown, State::Unknown),
        ("STARTTLS available", State::Met, State::Met),
        ("TLS version", State::Met, State::Failed),
        ("TLSA records at every mail server", State::Met, State::Failed),
    ] {
        assert_eq!((state(&good, name), state(&plain, name)), (of_good, of_plain), "{name}");
    }
    let mut ground = ground;
    ground.checker.options.depth = Depth::Quick;
    assert_eq!(state(&ground.examine("good-all").await, "TLS version"), State::Met);
    assert_eq!(state(&ground.examine("good-all").await, "ciphers"), State::Unknown);
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
