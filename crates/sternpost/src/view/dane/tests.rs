//! Tables of DANE states with the reason and with Postfix's own behavior.

use super::*;
use formats::tls_policy::Answer;
use formats::tlsa::{TlsaRecord, rule};
use sender::answer::overrides::Rule;

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn applies(record: &str) -> Dane {
    let records = vec![TlsaRecord::parse(record).unwrap()];
    Dane::Applies { rule: rule(&records), records, base: name("mx.example") }
}

fn usable() -> Dane {
    applies(&format!("3 1 1 {}", "ab".repeat(32)))
}

fn host(mx: Security, dane: Dane, why_absent: Option<NoDane>) -> HostLookup {
    HostLookup { host: name("mx.example"), mx, dane, why_absent }
}

fn looked(hosts: Vec<HostLookup>, source: Source) -> LookupTrace {
    LookupTrace { route: Route::Hosts(hosts), discovery: None, rule: None, answer: Answer::NotFound, source }
}

#[test]
fn each_reason_why_dane_does_not_apply_has_its_state_consequence_and_remedy() {
    let (secure, insecure) = (Security::Secure, Security::Insecure);
    let absent = |why| host(secure, Dane::Absent, Some(why));
    let unusable = || applies(&format!("9 1 1 {}", "ab".repeat(32)));
    let failed = |mx| host(mx, Dane::Unknown(DnsError::Bogus), None);
    for (seen, source, is_enforced, expected, state) in [
        (
            absent(NoDane::NoTlsa),
            Source::NoPolicy,
            false,
            Reason::NoTlsa,
            "no TLSA records at _25._tcp.mx.example",
        ),
        (
            absent(NoDane::UnsignedHost),
            Source::NoPolicy,
            false,
            Reason::UnsignedHost,
            "zone of mx.example is not signed",
        ),
        (absent(NoDane::UnsignedTlsa), Source::MtaSts, true, Reason::UnsignedTlsa, "records are not signed"),
        (absent(NoDane::NoAddresses), Source::NoPolicy, false, Reason::NoAddresses, "no addresses"),
        (absent(NoDane::NotLookedUp), Source::NoPolicy, false, Reason::NotLookedUp, "first 32 MX hosts"),
        (host(insecure, usable(), None), Source::NoPolicy, false, Reason::UnsignedMx, "left to Postfix"),
        (host(insecure, usable(), None), Source::MtaSts, true, Reason::SetAside, "set aside by the policy"),
        (
            host(secure, unusable(), None),
            Source::Dane,
            false,
            Reason::UnusableTlsa,
            "none of the 1 TLSA records is usable",
        ),
        (failed(secure), Source::Failure, false, Reason::LookupFailed, "so the host is skipped"),
        (
            failed(insecure),
            Source::NoPolicy,
            false,
            Reason::LookupFailed,
            "MX records of cust.example are not signed",
        ),
    ] {
        let hosts = hosts(&name("cust.example"), &looked(vec![seen], source), is_enforced, true);
        let [one] = hosts.as_slice() else { panic!("{hosts:?}") };
        assert_eq!(one.reason, Some(expected));
        assert!(one.state.contains(state), "{one:?}");
        assert!(!one.consequence.is_empty() && !one.remedy.is_empty(), "{one:?}");
        assert_eq!(one.consequence.contains("policy in mode enforce"), is_enforced, "{one:?}");
    }
    let good = || vec![host(secure, usable(), None)];
    let one = &hosts(&name("cust.example"), &looked(good(), Source::Dane), false, true)[0];
    assert_eq!((one.reason, one.remedy.as_str(), one.mx_signed), (None, "", true));
    let one = &hosts(&name("cust.example"), &looked(good(), Source::NoPolicy), false, false)[0];
    assert_eq!(one.reason, Some(Reason::DnssecOff));
    let mut skipped = looked(good(), Source::NoPolicy);
    skipped.rule = Some(Rule { skip_dane: true, ..Rule::default() });
    assert_eq!(hosts(&name("cust.example"), &skipped, false, true)[0].reason, Some(Reason::Override));
}

#[test]
fn what_postfix_does_alone_depends_on_its_level_and_on_each_host() {
    let (secure, insecure) = (Security::Secure, Security::Insecure);
    let absent = || host(secure, Dane::Absent, Some(NoDane::NoTlsa));
    let stripped = "TLS is opportunistic, and anyone on the path can strip it";
    let unusable = || host(secure, applies(&format!("9 1 1 {}", "ab".repeat(32))), None);
    let unknown = || host(secure, Dane::Unknown(DnsError::Bogus), None);
    for (hosts, dane) in [
        (vec![absent()], format!("{stripped}, at every MX host")),
        // smtp_tls_dane_insecure_mx_policy is `dane` at level `dane`.
        (vec![host(insecure, usable(), None)], "DANE authenticates every MX host".to_owned()),
        (
            vec![host(secure, usable(), None), absent(), absent()],
            format!("DANE authenticates 1 of 3 MX hosts; {stripped}, at 2 of 3 MX hosts"),
        ),
        (vec![unusable()], "TLS is mandatory, without authentication, at every MX host".to_owned()),
        (vec![unknown()], "the TLSA records are unknown, so Postfix skips every MX host".to_owned()),
    ] {
        let alone = PostfixAlone::of_route(&looked(hosts.clone(), Source::NoPolicy), true).unwrap();
        assert_eq!((alone.may.as_str(), &alone.dane), (stripped, &dane));
        let counts = PostfixAlone::of_counts(DaneHosts::of(&hosts)).unwrap();
        assert_eq!(counts, alone, "as far as the counts show it");
    }
    assert_eq!(PostfixAlone::of_route(&looked(Vec::new(), Source::Override), true), None);
    assert_eq!(PostfixAlone::of_counts(DaneHosts::default()), None);
    let mut gone = looked(Vec::new(), Source::NoPolicy);
    for (route, text) in [
        (Route::NoDomain, "bounces: the domain does not exist"),
        (Route::NullMx, "null MX"),
        (Route::Unknown(DnsError::Bogus), "deferred: the MX records fail DNSSEC validation"),
    ] {
        gone.route = route;
        let alone = PostfixAlone::of_route(&gone, true).unwrap();
        assert!(alone.may.contains(text) && alone.dane == alone.may, "{alone:?}");
    }
}

#[test]
fn a_source_has_the_same_name_in_json_and_in_metrics() {
    for source in Source::ALL {
        assert_eq!(serde_json::to_value(source).unwrap(), source.as_str());
    }
}
