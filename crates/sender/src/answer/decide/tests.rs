//! Tables of facts. Each row ends with the expected answer, its source and its lifetime.

use super::*;
use crate::answer::route::HostLookup;
use crate::answer::sts::HeldPolicy;
use formats::PolicyId;
use jiff::Timestamp;
use net::dane::Dane;
use net::dns::Security;
use net::https::FetchError;
use std::collections::BTreeSet;

/// The TTL of the DNS answers in the tables, in seconds.
const TTL: u64 = 300;
/// The remaining lifetime of a policy in the tables, in seconds.
const REST: u64 = 100_000;

/// Facts without a rule: hosts, policy; then the answer, its source, and the seconds until the recheck and the expiry.
/// [`hosts`] and [`found`] define the names. Every pair has a row.
const WITHOUT_RULE: &str = "
    no-tlsa         none         NOTFOUND   nothing  240  300
    no-tlsa         unavailable  NOTFOUND   nothing  240  300
    no-tlsa         enforce      secure     mta-sts  300  100000
    no-tlsa         unmatchable  TEMP       mta-sts  300  100000
    no-tlsa         testing      NOTFOUND   mta-sts  240  300
    no-tlsa         mode-none    NOTFOUND   mta-sts  240  300
    half-signed     none         NOTFOUND   nothing  240  300
    half-signed     unavailable  NOTFOUND   nothing  240  300
    half-signed     enforce      secure     mta-sts  300  100000
    half-signed     unmatchable  TEMP       mta-sts  300  100000
    half-signed     testing      NOTFOUND   mta-sts  240  300
    half-signed     mode-none    NOTFOUND   mta-sts  240  300
    all-tlsa        none         dane-only  dane     240  300
    all-tlsa        unavailable  dane-only  dane     240  300
    all-tlsa        enforce      dane-only  dane     240  300
    all-tlsa        unmatchable  dane-only  dane     240  300
    all-tlsa        testing      dane-only  dane     240  300
    all-tlsa        mode-none    dane-only  dane     240  300
    some-tlsa       none         dane       dane     240  300
    some-tlsa       unavailable  dane       dane     240  300
    some-tlsa       enforce      dane-only  dane     240  300
    some-tlsa       unmatchable  dane-only  dane     240  300
    some-tlsa       testing      dane       dane     240  300
    some-tlsa       mode-none    dane       dane     240  300
    some-unusable   none         dane       dane     240  300
    some-unusable   unavailable  dane       dane     240  300
    some-unusable   enforce      dane-only  dane     240  300
    some-unusable   unmatchable  dane-only  dane     240  300
    some-unusable   testing      dane       dane     240  300
    some-unusable   mode-none    dane       dane     240  300
    only-unusable   none         dane       dane     240  300
    only-unusable   unavailable  dane       dane     240  300
    only-unusable   enforce      secure     mta-sts  300  100000
    only-unusable   unmatchable  TEMP       mta-sts  300  100000
    only-unusable   testing      dane       dane     240  300
    only-unusable   mode-none    dane       dane     240  300
    tlsa-or-unknown none         dane       dane     240  300
    tlsa-or-unknown unavailable  dane       dane     240  300
    tlsa-or-unknown enforce      dane-only  dane     240  300
    tlsa-or-unknown unmatchable  dane-only  dane     240  300
    tlsa-or-unknown testing      dane       dane     240  300
    tlsa-or-unknown mode-none    dane       dane     240  300
    none-or-unknown none         dane       dane     240  300
    none-or-unknown unavailable  dane       dane     240  300
    none-or-unknown enforce      TEMP       failure  30   30
    none-or-unknown unmatchable  TEMP       failure  30   30
    none-or-unknown testing      dane       dane     240  300
    none-or-unknown mode-none    dane       dane     240  300
    all-unknown     none         TEMP       failure  30   30
    all-unknown     unavailable  TEMP       failure  30   30
    all-unknown     enforce      TEMP       failure  30   30
    all-unknown     unmatchable  TEMP       failure  30   30
    all-unknown     testing      TEMP       failure  30   30
    all-unknown     mode-none    TEMP       failure  30   30
    no-mx-host      none         NOTFOUND   nothing  240  300
    no-mx-host      unavailable  NOTFOUND   nothing  240  300
    no-mx-host      enforce      secure     mta-sts  300  100000
    no-mx-host      unmatchable  TEMP       mta-sts  300  100000
    no-mx-host      testing      NOTFOUND   mta-sts  240  300
    no-mx-host      mode-none    NOTFOUND   mta-sts  240  300
    mx-timeout      none         TEMP       failure  30   30
    mx-timeout      unavailable  TEMP       failure  30   30
    mx-timeout      enforce      TEMP       failure  30   30
    mx-timeout      unmatchable  TEMP       failure  30   30
    mx-timeout      testing      TEMP       failure  30   30
    mx-timeout      mode-none    TEMP       failure  30   30
    mx-bogus        none         TEMP       failure  30   30
    mx-bogus        unavailable  TEMP       failure  30   30
    mx-bogus        enforce      TEMP       failure  30   30
    mx-bogus        unmatchable  TEMP       failure  30   30
    mx-bogus        testing      TEMP       failure  30   30
    mx-bogus        mode-none    TEMP       failure  30   30
";

/// Facts with an override rule, whose names [`rule`] defines: hosts, policy, rule; then as above.
const WITH_RULE: &str = "
    no-tlsa         enforce      answer        may        override  never  never
    all-tlsa        none         answer        may        override  never  never
    no-mx-host      none         answer        may        override  never  never
    no-tlsa         not-sought   pin           secure     override  300    never
    no-mx-host      not-sought   pin           secure     override  300    never
    some-tlsa       not-sought   pin           dane-only  dane      240    300
    all-tlsa        not-sought   pin           dane-only  dane      240    300
    mx-timeout      not-sought   pin           TEMP       failure   30     30
    all-tlsa        not-sought   pin-skip-dane secure     override  300    never
    no-tlsa         enforce      skip-mta-sts  NOTFOUND   nothing   240    300
    no-tlsa         not-sought   skip-mta-sts  NOTFOUND   nothing   240    300
    all-tlsa        not-sought   skip-mta-sts  dane-only  dane      240    300
    no-mx-host      not-sought   skip-mta-sts  NOTFOUND   nothing   240    300
    all-tlsa        none         skip-dane     NOTFOUND   nothing   240    300
    all-tlsa        enforce      skip-dane     secure     mta-sts   300    100000
    all-unknown     enforce      skip-dane     secure     mta-sts   300    100000
    mx-bogus        enforce      skip-dane     TEMP       failure   30     30
    all-tlsa        not-sought   skip-both     NOTFOUND   nothing   240    300
";

/// Facts with other times in seconds: hosts, policy, TTL, minimum recheck, remaining lifetime of the policy; then as
/// above.
const LIFETIMES: &str = "
    no-tlsa   enforce   0       60     100000  secure     mta-sts  60     100000
    no-tlsa   enforce   none    60     100000  secure     mta-sts  60     100000
    no-tlsa   enforce   604800  60     999999  secure     mta-sts  86400  999999
    no-tlsa   enforce   604800  60     50      secure     mta-sts  50     50
    no-tlsa   enforce   300     60     0       secure     mta-sts  0      0
    no-tlsa   enforce   300     100000 999999  secure     mta-sts  100000 999999
    no-tlsa   testing   604800  60     999999  NOTFOUND   mta-sts  69120  86400
    no-tlsa   testing   300     60     50      NOTFOUND   mta-sts  40     50
    no-tlsa   none      0       60     -       NOTFOUND   nothing  48     60
    no-tlsa   none      604800  60     -       NOTFOUND   nothing  2880   3600
    no-tlsa   none      604800  7200   -       NOTFOUND   nothing  5760   7200
    all-tlsa  none      604800  60     -       dane-only  dane     69120  86400
    all-tlsa  enforce   300     60     50      dane-only  dane     240    300
    mx-bogus  enforce   604800  60     100000  TEMP       failure  30     30
";

/// Facts from the store: hosts, policy; then as in [`WITHOUT_RULE`].
const STORED: &str = "
    no-tlsa         enforce      secure     mta-sts  0  100000
    no-tlsa         testing      NOTFOUND   mta-sts  0  0
    no-tlsa         mode-none    NOTFOUND   mta-sts  0  0
    all-tlsa        enforce      dane-only  dane     0  0
    some-tlsa       testing      dane       dane     0  0
    all-unknown     enforce      TEMP       failure  0  0
";

fn name() -> DomainName {
    DomainName::parse("example.org").unwrap()
}

fn hosts(word: &str) -> MxHosts<'static> {
    let known = |[usable, unusable, absent, unknown]: [u8; 4]| {
        MxHosts::Known(DaneHosts { usable, unusable, absent, unknown, behind_insecure_mx: 0 })
    };
    match word {
        "no-tlsa" => known([0, 0, 2, 0]),
        "half-signed" => {
            MxHosts::Known(DaneHosts { absent: 2, behind_insecure_mx: 1, ..DaneHosts::default() })
        }
        "all-tlsa" => known([2, 0, 0, 0]),
        "some-tlsa" => known([1, 0, 1, 0]),
        "some-unusable" => known([1, 1, 0, 0]),
        "only-unusable" => known([0, 1, 1, 0]),
        "tlsa-or-unknown" => known([1, 0, 0, 1]),
        "none-or-unknown" => known([0, 0, 1, 1]),
        "all-unknown" => known([0, 0, 0, 2]),
        "no-mx-host" => MxHosts::None,
        "mx-timeout" => MxHosts::Unknown(&DnsError::Timeout),
        "mx-bogus" => MxHosts::Unknown(&DnsError::Bogus),
        other => panic!("unknown hosts: {other}"),
    }
}

fn policy(mode: &str) -> EffectivePolicy {
    let (mode, mx) = match mode {
        "unmatchable" => ("enforce", "mx: 192.0.2.56"),
        mode => (mode, "mx: mx.example.org\nmx: *.example.net"),
    };
    let body = format!("version: STSv1\nmode: {mode}\n{mx}\nmax_age: 86400\n");
    let policy = Policy::parse(body.as_bytes()).unwrap();
    let held =
        HeldPolicy { policy, body, id: PolicyId::parse("1").unwrap(), fetched_at: Timestamp::UNIX_EPOCH };
    EffectivePolicy::Policy { held, refresh_error: None }
}

fn found(word: &str) -> Option<EffectivePolicy> {
    match word {
        "not-sought" => None,
        "none" => Some(EffectivePolicy::None),
        "unavailable" => {
            Some(EffectivePolicy::Unavailable(PolicyUnavailable::Fetch(FetchError::Status(404))))
        }
        "mode-none" => Some(policy("none")),
        mode => Some(policy(mode)),
    }
}

fn rule(word: &str) -> Option<Rule> {
    let pin = "version: STSv1\nmode: enforce\nmx: pinned.example\nmax_age: 5\n";
    let pin = Policy::parse(pin.as_bytes()).ok();
    let rule = Rule::default();
    Some(match word {
        "no-rule" => return None,
        "answer" => Rule { answer: Some(Answer::Level(Level::May, None)), ..rule },
        "pin" => Rule { policy: pin, ..rule },
        "pin-skip-dane" => Rule { policy: pin, skip_dane: true, ..rule },
        "skip-mta-sts" => Rule { skip_mta_sts: true, ..rule },
        "skip-dane" => Rule { skip_dane: true, ..rule },
        "skip-both" => Rule { skip_mta_sts: true, skip_dane: true, ..rule },
        other => panic!("unknown rule: {other}"),
    })
}

/// The facts of a row, by name.
struct Given<'t> {
    hosts: &'t str,
    found: &'t str,
    rule: &'t str,
    origin: Origin,
    min_recheck: u64,
    rest: u64,
    testing: Option<Level>,
}

impl<'t> Given<'t> {
    fn new(hosts: &'t str, found: &'t str) -> Self {
        let origin = Origin::LookedUp { ttl: Some(Duration::from_secs(TTL)) };
        Self { hosts, found, rule: "no-rule", origin, min_recheck: 60, rest: REST, testing: None }
    }

    fn decide(&self) -> Decision {
        let (found, rule, domain) = (found(self.found), rule(self.rule), name());
        let is_policy = matches!(found, Some(EffectivePolicy::Policy { .. }));
        decide(&DecisionInput {
            domain: &domain,
            hosts: hosts(self.hosts),
            found: found.as_ref(),
            policy_rest: is_policy.then_some(Duration::from_secs(self.rest)),
            rule: rule.as_ref(),
            testing: self.testing.as_ref(),
            default_level: DefaultLevel::May,
            min_recheck: Duration::from_secs(self.min_recheck),
            origin: self.origin,
        })
    }

    /// The decision as the last four columns of a row.
    fn decided(&self) -> [String; 4] {
        let decision = self.decide();
        let seconds = |time: Duration| match time {
            Duration::MAX => "never".to_owned(),
            time => time.as_secs().to_string(),
        };
        let source = decision.source.as_str().to_owned();
        [level_or_status(&decision.answer), source, seconds(decision.recheck), seconds(decision.until)]
    }
}

/// The level in the reply without TLSRPT attributes, or the status when the reply has no level.
fn level_or_status(answer: &Answer) -> String {
    let (status, text) = answer.reply(false).parts();
    let level = text.split(' ').next().unwrap_or_default();
    if status == "OK" { level.to_owned() } else { status.to_owned() }
}

fn rows(table: &str) -> Vec<Vec<&str>> {
    let lines = table.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn without_a_rule_dane_and_the_policy_decide() {
    let rows = rows(WITHOUT_RULE);
    for row in &rows {
        assert_eq!(Given::new(row[0], row[1]).decided(), row[2..], "{row:?}");
    }
    let column = |at: usize| rows.iter().map(|row| row[at]).collect::<BTreeSet<_>>().len();
    let pairs: BTreeSet<_> = rows.iter().map(|row| &row[..2]).collect();
    assert_eq!(
        (pairs.len(), rows.len()),
        (column(0) * column(1), column(0) * column(1)),
        "a pair is missing"
    );
}

#[test]
fn at_testing_level_secure_a_policy_in_testing_is_enforced() {
    let rows = rows(WITHOUT_RULE);
    for row in &rows {
        let strict = || Given { testing: Some(Level::Secure(Vec::new())), ..Given::new(row[0], row[1]) };
        let enforced = rows.iter().find(|other| other[0] == row[0] && other[1] == "enforce").unwrap();
        let expected = if row[1] == "testing" { &enforced[2..] } else { &row[2..] };
        assert_eq!(strict().decided(), expected, "{row:?}");
        let text = strict().decide().answer.reply(true).parts().1;
        assert!(!text.starts_with("secure ") || text.starts_with("secure match=mx.example.org:"), "{text}");
    }
}

#[test]
fn an_override_rule_precedes_what_is_published() {
    for row in rows(WITH_RULE) {
        let given = Given { rule: row[2], ..Given::new(row[0], row[1]) };
        assert_eq!(given.decided(), row[3..], "{row:?}");
    }
}

#[test]
fn lifetimes_follow_the_ttl_the_minimum_recheck_and_the_policy() {
    for row in rows(LIFETIMES) {
        let ttl = row[2].parse().ok().map(Duration::from_secs);
        let given = Given {
            origin: Origin::LookedUp { ttl },
            min_recheck: row[3].parse().unwrap(),
            rest: row[4].parse().unwrap_or_default(),
            ..Given::new(row[0], row[1])
        };
        assert_eq!(given.decided(), row[5..], "{row:?}");
    }
}

#[test]
fn a_stored_enforced_policy_is_due_for_a_look_up_at_once_and_valid_until_it_expires_and_nothing_else_is_answered()
 {
    for row in rows(STORED) {
        let given = Given { origin: Origin::Stored, ..Given::new(row[0], row[1]) };
        assert_eq!(given.decided(), row[2..], "{row:?}");
    }
}

#[test]
fn only_a_failing_resolver_keeps_a_cached_answer() {
    for row in rows(WITHOUT_RULE) {
        let yields = Given::new(row[0], row[1]).decide().yields_to_cached;
        assert_eq!(yields, row[0] == "mx-timeout", "{row:?}");
    }
    let answered = Given { rule: "answer", ..Given::new("mx-timeout", "not-sought") };
    assert!(!answered.decide().yields_to_cached);
}

#[test]
fn counts_that_a_rule_skips_are_zero() {
    let counts = |given: Given<'_>| given.decide().dane.usable;
    assert_eq!(counts(Given::new("all-tlsa", "none")), 2);
    assert_eq!(counts(Given { rule: "skip-dane", ..Given::new("all-tlsa", "none") }), 0);
}

#[test]
fn stored_dane_counts_change_only_with_known_hosts_or_a_bogus_chain() {
    let hosts = Route::Hosts(vec![HostLookup {
        host: name(),
        mx: Security::Secure,
        dane: Dane::Absent,
        why_absent: None,
    }]);
    let (domain, host) = (NextHop::domain(name()), NextHop::Host(name(), 25));
    for (hop, route, kept) in [
        (&domain, &hosts, "0 0 1 0 0"),
        (&NextHop::Domain(name(), 587), &hosts, "2 0 0 0"),
        (&domain, &Route::NoDomain, "2 0 0 0"),
        (&domain, &Route::NullMx, "2 0 0 0"),
        (&domain, &Route::Unknown(DnsError::Timeout), "2 0 0 0"),
        (&domain, &Route::Unknown(DnsError::Bogus), ""),
        (&host, &hosts, "2 0 0 0"),
        (&host, &Route::Unknown(DnsError::Bogus), "2 0 0 0"),
    ] {
        assert_eq!(dane_to_store(hop, route, "2 0 0 0"), kept, "{hop:?} {route:?}");
    }
}

#[test]
fn dane_12_dane_answers_are_dane_only_or_dane_and_never_secure() {
    for row in rows(WITHOUT_RULE).into_iter().filter(|row| row[0].contains("tlsa") && row[0] != "no-tlsa") {
        let [answer, source, ..] = Given::new(row[0], row[1]).decided();
        assert!(matches!(answer.as_str(), "dane-only" | "dane"), "{row:?}");
        assert_eq!(source, "dane", "{row:?}");
    }
}

#[test]
fn dane_13_hosts_that_differ_are_protected_as_well_as_can_be() {
    let level = |hosts, found| Given::new(hosts, found).decided()[0].clone();
    assert_eq!(level("some-tlsa", "none"), "dane");
    assert_eq!(level("some-tlsa", "testing"), "dane");
    assert_eq!(level("some-tlsa", "enforce"), "dane-only");
    assert_eq!(level("tlsa-or-unknown", "none"), "dane");
    assert_eq!(level("none-or-unknown", "enforce"), "TEMP");
    assert_eq!(level("none-or-unknown", "none"), "dane");
}

#[test]
fn an_enforced_policy_names_its_mx_patterns() {
    let decision = Given::new("no-tlsa", "enforce").decide();
    let secure = "secure match=mx.example.org:.example.net servername=hostname";
    assert_eq!(decision.answer.reply(false).parts().1, secure);
}

#[test]
fn pol_19_an_enforced_policy_without_a_valid_mx_host_defers_with_the_reason() {
    let decision = Given::new("no-tlsa", "unmatchable").decide();
    let why = "the enforced MTA-STS policy of example.org names no valid MX host (its mx: 192.0.2.56)";
    for tlsrpt in [false, true] {
        let (status, text) = decision.answer.reply(tlsrpt).parts();
        assert!(status == "TEMP" && text.starts_with(why), "{status} {text}");
    }
}

#[test]
fn smk_08_a_policy_that_can_not_be_had_is_told_to_those_who_report() {
    let decision = Given::new("no-tlsa", "unavailable").decide();
    assert_eq!((level_or_status(&decision.answer).as_str(), decision.source), ("NOTFOUND", Source::NoPolicy));
    let expected = "may policy_type=sts policy_domain=example.org policy_failure=sts-policy-fetch-error";
    assert_eq!(decision.answer.reply(true).parts().1, expected);
}

#[test]
fn the_operator_may_set_a_level_for_testing() {
    let (domain, found) = (name(), policy("testing"));
    let decision = decide(&DecisionInput {
        domain: &domain,
        hosts: hosts("no-tlsa"),
        found: Some(&found),
        policy_rest: Some(Duration::from_secs(REST)),
        rule: None,
        testing: Some(&Level::Encrypt),
        default_level: DefaultLevel::May,
        min_recheck: Duration::from_secs(60),
        origin: Origin::LookedUp { ttl: None },
    });
    assert_eq!(decision.answer.reply(false).parts().1, "encrypt");
    assert!(decision.answer.reply(true).parts().1.starts_with("encrypt policy_type=sts"));
}

/// The replies without and with TLSRPT attributes.
fn replies(
    hosts_word: &str,
    found_word: &str,
    testing: Option<&Level>,
    default_level: DefaultLevel,
) -> [String; 2] {
    let (domain, found) = (name(), found(found_word));
    let answer = decide(&DecisionInput {
        domain: &domain,
        hosts: hosts(hosts_word),
        found: found.as_ref(),
        policy_rest: Some(Duration::from_secs(REST)),
        rule: None,
        testing,
        default_level,
        min_recheck: Duration::from_secs(60),
        origin: Origin::LookedUp { ttl: None },
    })
    .answer;
    [false, true].map(|tlsrpt| {
        let reply = answer.reply(tlsrpt);
        let (status, text) = reply.parts();
        let level = text.split(' ').next().unwrap_or_default();
        if status == "OK" { level.to_owned() } else { status.to_owned() }
    })
}

#[test]
fn val_27_no_answer_is_weaker_than_dane_behind_unsigned_mx_records() {
    for policy in ["testing", "unavailable", "none", "mode-none"] {
        assert_eq!(
            replies("half-signed", policy, None, DefaultLevel::May),
            ["NOTFOUND", "NOTFOUND"],
            "{policy}"
        );
    }
    let encrypt = |default| replies("half-signed", "testing", Some(&Level::Encrypt), default);
    assert_eq!(encrypt(DefaultLevel::May), ["encrypt", "encrypt"], "the mail server alone does not use DANE");
    assert_eq!(encrypt(DefaultLevel::Dane), ["NOTFOUND", "NOTFOUND"]);
    assert_eq!(replies("half-signed", "testing", Some(&Level::Dane), DefaultLevel::May), ["dane", "dane"]);
    assert_eq!(replies("half-signed", "enforce", None, DefaultLevel::May), ["secure", "secure"]);
    assert_eq!(replies("no-tlsa", "testing", None, DefaultLevel::May), ["NOTFOUND", "may"]);
}

#[test]
fn val_27_may_is_no_answer_where_the_mail_server_is_stricter_by_itself() {
    for policy in ["testing", "unavailable"] {
        assert_eq!(replies("no-tlsa", policy, None, DefaultLevel::May), ["NOTFOUND", "may"], "{policy}");
        assert_eq!(
            replies("no-tlsa", policy, None, DefaultLevel::Stricter),
            ["NOTFOUND", "NOTFOUND"],
            "{policy}"
        );
    }
    assert_eq!(
        replies("no-tlsa", "testing", Some(&Level::Encrypt), DefaultLevel::Stricter),
        ["encrypt", "encrypt"]
    );
    assert_eq!(replies("no-tlsa", "enforce", None, DefaultLevel::Stricter), ["secure", "secure"]);
}

#[test]
fn val_27_dane_is_no_answer_for_hosts_without_tlsa_where_the_mail_server_requires_tls_by_itself() {
    for hosts in ["some-tlsa", "some-unusable", "tlsa-or-unknown"] {
        assert_eq!(replies(hosts, "none", None, DefaultLevel::Stricter)[0], "dane-only", "{hosts}");
        assert_eq!(replies(hosts, "none", None, DefaultLevel::Dane)[0], "dane", "{hosts}");
    }
    for hosts in ["only-unusable", "none-or-unknown"] {
        assert_eq!(replies(hosts, "none", None, DefaultLevel::Stricter)[0], "NOTFOUND", "{hosts}");
    }
}
