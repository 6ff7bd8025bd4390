//! What `sternpost query` says beside the answer.

use super::*;
use formats::tls_policy::{Answer, Level};
use formats::tlsa::{TlsaRecord, rule};
use net::dane::Dane;
use net::dns::Security;
use net::https::FetchError;
use sender::answer::DiscoveryOutcome;
use sender::answer::route::HostLookup;
use sender::answer::sts::PolicyUnavailable;

fn looked_up(found: EffectivePolicy) -> LookupTrace {
    let records = vec![TlsaRecord::parse(&format!("3 1 1 {}", "ab".repeat(32))).unwrap()];
    let base = DomainName::parse("mx.example.org").unwrap();
    let host = HostLookup {
        host: base.clone(),
        mx: Security::Secure,
        dane: Dane::Applies { rule: rule(&records), records, base },
        why_absent: None,
    };
    let seen = RecordLookup::Absent;
    LookupTrace {
        route: Route::Hosts(vec![host]),
        discovery: Some(DiscoveryOutcome { found, seen, ttl: None, fetched: None, stored: None, order: 0 }),
        rule: None,
        answer: Answer::Level(Level::DaneOnly, None),
        source: Source::Dane,
    }
}

#[test]
fn where_dane_decides_a_policy_that_is_not_available_is_told() {
    let hop = NextHop::domain(DomainName::parse("example.org").unwrap());
    let why = PolicyUnavailable::Fetch(FetchError::Status(404));
    let explained = Explained::of(&hop, &looked_up(EffectivePolicy::Unavailable(why)), true);
    let [note] = explained.notes.as_slice() else { panic!("{:?}", explained.notes) };
    assert!(
        note.finding.starts_with("example.org announces an MTA-STS policy that is not available: "),
        "{note:?}"
    );
    assert!(
        note.consequence.contains("sts-policy-fetch-error") && note.consequence.contains("RFC 8460 §4.3"),
        "{note:?}"
    );
    assert!(note.remedy.contains("sternpost check example.org"), "{note:?}");
    assert_eq!(explained.postfix, "OK dane-only");
    let explained = Explained::of(&hop, &looked_up(EffectivePolicy::None), true);
    assert!(explained.notes.is_empty(), "{:?}", explained.notes);
}
