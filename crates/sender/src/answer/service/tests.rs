mod clock;
mod interrupted;
mod maps;
mod model;
mod newest;
mod outage;
mod outdated;
mod overload;
mod refresh;
mod rfc_model;
mod transfer;
mod unused;
mod weaker;
mod world;

use super::*;
use crate::answer::decide::DefaultLevel;
use crate::answer::overrides::{Overrides, Rule, Scope};
use formats::tls_policy::Level;
use formats::{DomainName, Mode};
use net::dns::DnsError;
use net::https::FetchError;
use world::{Bench, MxAnswer, Published, forged_nothing, secure, service};

const NAME: &str = "example.org";

#[tokio::test]
async fn val_23_however_many_ask_there_is_one_look_up_and_each_waits_as_long_as_it_likes() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    let gate = bench.world.hold();
    let impatient = Settings { patience: Duration::from_secs(5), ..Settings::default() };
    bench.answers.set(impatient);
    let reply = bench.ask(NAME).await;
    assert!(reply.starts_with("TEMP the policy of example.org is still being looked up"), "{reply}");
    let requests: Vec<_> = (0..100)
        .map(|_| {
            let answers = bench.answers.clone();
            tokio::spawn(async move { answers.ask(NAME).await.text(false) })
        })
        .collect();
    while bench.answers.metrics.misses.get() < 101 {
        tokio::task::yield_now().await;
    }
    bench.world.open(&gate);
    for request in requests {
        assert_eq!(format!("OK {}", request.await.unwrap()), secure("1"));
    }
    assert_eq!((bench.world.queries(NAME), bench.world.fetches(NAME)), (1, 1));
}

#[tokio::test]
async fn smk_13_past_the_deadline_it_is_a_temporary_failure_or_the_policy_that_is_remembered() {
    let mut bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    assert_eq!(bench.ask(NAME).await, secure("1"));
    bench.restart();
    bench.world.hold();
    bench.answers.set(Settings { patience: Duration::from_secs(2), ..Settings::default() });
    assert_eq!(bench.ask(NAME).await, secure("1"), "the stored policy");
    assert!(bench.ask("other.example").await.starts_with("TEMP"));
}

#[tokio::test]
async fn val_13_a_smart_host_is_its_own_policy_domain() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    bench.world.publish("relay.example", Published::policy("2", "enforce", 604_800));
    for key in [NAME, "EXAMPLE.org", "example.org.", "example.org:25", "example.org:smtp"] {
        assert_eq!(bench.ask(key).await, secure("1"), "{key}");
    }
    for key in
        ["mail.example.org", ".example.org", "[192.0.2.1]", "192.0.2.1", "[IPv6:::1]:25", "", "a b", "["]
    {
        assert_eq!(bench.ask(key).await, "NOTFOUND", "{key}");
    }
    assert_eq!(bench.world.queries(NAME), 1);
}

#[tokio::test]
async fn val_12_the_policy_of_the_parent_is_never_taken() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    assert_eq!(bench.ask("sub.example.org").await, "NOTFOUND");
    assert_eq!(bench.ask(".example.org").await, "NOTFOUND");
    assert_eq!(bench.world.queries(NAME), 0);
}

#[tokio::test]
async fn val_14_address_literals_have_no_policy_and_are_not_looked_up() {
    let bench = Bench::new().await;
    for key in ["[192.0.2.1]", "[192.0.2.1]:25", "[IPv6:2001:db8::1]", "2001:db8::1"] {
        assert_eq!(bench.ask(key).await, "NOTFOUND", "{key}");
    }
    assert_eq!(bench.answers.cache.len(), 0);
}

#[tokio::test]
async fn a_changed_id_takes_effect_within_the_ttl_and_no_request_waits_for_it() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 31_557_600));
    assert_eq!(bench.ask(NAME).await, secure("1"));
    bench.world.publish(NAME, Published::policy("2", "enforce", 31_557_600));
    bench.clock.advance(299);
    assert_eq!(bench.ask(NAME).await, secure("1"));
    bench.settle().await;
    assert_eq!(bench.world.queries(NAME), 1, "the TTL has not expired");
    bench.clock.advance(1);
    let gate = bench.world.hold();
    assert_eq!(bench.ask(NAME).await, secure("1"), "answered while the lookup hangs");
    bench.world.open(&gate);
    bench.settle().await;
    assert_eq!(bench.ask(NAME).await, secure("2"));
    assert_eq!((bench.world.queries(NAME), bench.world.fetches(NAME)), (2, 2));
}

#[tokio::test]
async fn a_short_ttl_causes_at_most_one_look_up_a_minute() {
    let bench = Bench::new().await;
    let short = |id| Published { ttl: 0, ..Published::policy(id, "enforce", 604_800) };
    bench.world.publish(NAME, short("1"));
    for _ in 0..60 {
        assert_eq!(bench.ask(NAME).await, secure("1"));
        bench.clock.advance(1);
    }
    bench.settle().await;
    assert_eq!(bench.world.queries(NAME), 1);
    bench.ask(NAME).await;
    bench.settle().await;
    assert_eq!(bench.world.queries(NAME), 2);
}

#[tokio::test]
async fn a_failed_fetch_is_not_repeated_for_five_minutes_and_keeps_the_policy_in_force() {
    let bench = Bench::new().await;
    let down = |id| Published {
        policy: Err(FetchError::Status(503)),
        ttl: 60,
        ..Published::policy(id, "enforce", 9)
    };
    bench.world.publish(NAME, down("1"));
    bench.world.publish("kept.example", Published { ttl: 60, ..Published::policy("1", "enforce", 604_800) });
    assert_eq!(bench.ask(NAME).await, "NOTFOUND");
    assert_eq!(bench.ask("kept.example").await, secure("1"));
    bench.world.publish("kept.example", down("2"));
    for _ in 0..4 {
        bench.clock.advance(60);
        assert_eq!(bench.ask(NAME).await, "NOTFOUND");
        assert_eq!(bench.ask("kept.example").await, secure("1"));
        bench.settle().await;
    }
    assert_eq!((bench.world.fetches(NAME), bench.world.fetches("kept.example")), (1, 2));
    bench.clock.advance(61);
    bench.ask(NAME).await;
    bench.settle().await;
    assert_eq!(bench.world.fetches(NAME), 2);
}

#[tokio::test]
async fn a_failing_resolver_removes_no_answer_but_a_bogus_chain_does() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    assert_eq!(bench.ask(NAME).await, secure("1"));
    for (error, expected) in [
        (DnsError::Timeout, true),
        (DnsError::ServerFailure("REFUSED".into()), true),
        (DnsError::Bogus, false),
    ] {
        let down = Published {
            record: Err(error.clone()),
            mx: Err(error.clone()),
            ..Published::policy("1", "enforce", 604_800)
        };
        bench.world.publish(NAME, down);
        bench.clock.advance(400);
        bench.ask(NAME).await;
        bench.settle().await;
        assert_eq!(bench.ask(NAME).await == secure("1"), expected, "{error}");
    }
    let reply = bench.ask(NAME).await;
    assert!(reply.starts_with("TEMP the MX records of example.org fail DNSSEC validation"), "{reply}");
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    bench.clock.advance(31);
    assert_eq!(bench.ask(NAME).await, secure("1"), "the policy was not lost");
}

#[tokio::test]
async fn val_10_a_bogus_chain_is_not_answered_over_by_the_policy_in_the_store() {
    let mut bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    assert_eq!(bench.ask(NAME).await, secure("1"));
    bench
        .world
        .publish(NAME, Published { mx: Err(DnsError::Bogus), ..Published::policy("1", "enforce", 604_800) });
    bench.clock.advance(400);
    bench.ask(NAME).await;
    bench.settle().await;
    for _ in 0..3 {
        assert!(bench.ask(NAME).await.starts_with("TEMP the MX records"));
        // The cached failure has expired; the chain is still bogus.
        bench.clock.advance(31);
        bench.settle().await;
    }
    bench.restart();
    assert!(bench.ask(NAME).await.starts_with("TEMP the MX records"), "also after a restart");
}

/// Every kind of MX answer without a host, which anyone on the path can forge.
fn mx_answers_without_a_host() -> [Result<MxAnswer, DnsError>; 3] {
    let nothing = forged_nothing(86_400);
    [Err(DnsError::NoSuchName(nothing)), Err(DnsError::NoSuchRecord(nothing)), Ok(MxAnswer::Null)]
}

#[tokio::test]
async fn val_24_an_mx_answer_without_a_host_strips_no_live_policy() {
    for mx in mx_answers_without_a_host() {
        let mut bench = Bench::new().await;
        let good = Published::policy("1", "enforce", 604_800);
        let forged = Published { mx: mx.clone(), ttl: 86_400, ..good.clone() };
        bench.world.publish(NAME, good.clone());
        assert_eq!(bench.ask(NAME).await, secure("1"));
        bench.world.publish(NAME, forged.clone());
        for seconds in [301, 0, 299, 3000, 86_400] {
            bench.clock.advance(seconds);
            assert_eq!(bench.ask(NAME).await, secure("1"), "{mx:?}, {seconds} s later");
            bench.settle().await;
            assert_eq!(bench.ask(NAME).await, secure("1"), "{mx:?}, {seconds} s later, looked up again");
        }
        bench.restart();
        assert_eq!(bench.ask(NAME).await, secure("1"), "{mx:?}, after a restart");
        bench.settle().await;
        assert_eq!(bench.ask(NAME).await, secure("1"), "{mx:?}, after a restart and a lookup");
        bench.answers.set(Settings::default());
        assert_eq!(bench.ask(NAME).await, secure("1"), "{mx:?}, after a reload");
        bench.world.publish("first.example", forged);
        assert_eq!(bench.ask("first.example").await, secure("1"), "{mx:?}, at first contact");
    }
}

#[tokio::test]
async fn val_24_without_a_policy_a_domain_without_hosts_has_no_answer() {
    for mx in mx_answers_without_a_host() {
        let bench = Bench::new().await;
        bench.world.publish(NAME, Published { mx, ..Published::nothing() });
        assert_eq!(bench.ask(NAME).await, "NOTFOUND");
    }
}

#[tokio::test]
async fn val_26_a_flood_of_names_evicts_no_live_policy_from_the_store() {
    let bench = Bench::new().await;
    let small = PolicyService::new(
        bench.world.clone(),
        Discovery::new(bench.world.clone(), bench.world.clone(), bench.store.clone(), bench.clock.clone()),
        bench.store.clone(),
        bench.clock.clone(),
        40_000,
        Settings::default(),
    );
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    small.ask(NAME).await;
    // The attacker suppresses the record while the flood runs.
    bench.world.publish(NAME, Published::nothing());
    for number in 0..5000 {
        small.ask(&format!("flood{number}.example")).await;
    }
    assert!(small.cache.bytes() <= 40_000);
    assert_eq!(format!("OK {}", small.ask(NAME).await.text(false)), secure("1"));
}

#[tokio::test]
async fn after_a_restart_answers_come_from_the_store_at_once_and_few_look_ups_run_at_a_time() {
    let mut bench = Bench::new().await;
    for number in 0..20 {
        bench.world.publish(&format!("d{number}.example"), Published::policy("1", "enforce", 604_800));
        bench.ask(&format!("d{number}.example")).await;
    }
    bench.restart();
    let gate = bench.world.hold();
    for _ in 0..2 {
        for number in 0..20 {
            assert_eq!(bench.ask(&format!("d{number}.example")).await, secure("1"));
        }
    }
    let in_flight = bench.answers.in_flight.len();
    assert_eq!(in_flight, BACKGROUND_LOOKUPS, "the limit of background lookups");
    bench.world.open(&gate);
    bench.settle().await;
}

#[tokio::test]
async fn each_refresh_is_one_look_up_and_one_fetch_although_it_is_spread_over_hours() {
    let bench = Bench::new().await;
    let domains: Vec<String> = (0..20).map(|n| format!("d{n}.example")).collect();
    for domain in &domains {
        bench.world.publish(domain, Published::policy("1", "enforce", 604_800));
        bench.ask(domain).await;
    }
    bench.settle().await;
    for _ in 0..25 * 4 {
        bench.clock.advance(900);
        bench.answers.refresh_due().await.unwrap();
    }
    for domain in &domains {
        assert_eq!((bench.world.queries(domain), bench.world.fetches(domain)), (2, 2), "{domain}");
    }
}

#[tokio::test]
async fn policies_are_refreshed_daily_without_requests_and_a_failed_refresh_is_delayed() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    bench.ask(NAME).await;
    assert_eq!(bench.answers.refresh_due().await.unwrap(), 0);
    let newer = Published { record: Ok(Some("1".into())), ..Published::policy("2", "enforce", 604_800) };
    bench.world.publish(NAME, newer);
    bench.clock.advance(86_400);
    assert_eq!(bench.answers.refresh_due().await.unwrap(), 1);
    assert_eq!(bench.ask(NAME).await, secure("2"), "fetched again under the same id");
    bench.world.publish(
        NAME,
        Published { policy: Err(FetchError::Status(500)), ..Published::policy("2", "enforce", 9) },
    );
    bench.clock.advance(86_400);
    assert_eq!(bench.answers.refresh_due().await.unwrap(), 1);
    assert_eq!(bench.answers.refresh_due().await.unwrap(), 0, "a failed refresh is delayed");
    bench.clock.advance(3600);
    assert_eq!(bench.answers.refresh_due().await.unwrap(), 1);
    bench.clock.advance(604_800);
    bench.answers.refresh_due().await.unwrap();
    assert_eq!(bench.store.policies_after("", 1).await.unwrap().len(), 0);
}

#[tokio::test]
async fn overrides_come_first_and_a_reload_applies_them() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    assert_eq!(bench.ask(NAME).await, secure("1"));
    let set = |rule: Rule| {
        let mut settings = Settings::default();
        settings.overrides.add(Scope::parse(NAME).unwrap(), rule);
        bench.answers.set(settings);
    };
    set(Rule { answer: Some(Answer::Level(Level::May, None)), ..Rule::default() });
    assert_eq!(bench.ask(NAME).await, "OK may");
    set(Rule { skip_mta_sts: true, ..Rule::default() });
    assert_eq!(bench.ask(NAME).await, "NOTFOUND");
    let pinned = "version: STSv1\nmode: enforce\nmx: pinned.example\nmax_age: 5\n";
    set(Rule { policy: formats::Policy::parse(pinned.as_bytes()).ok(), ..Rule::default() });
    assert_eq!(bench.ask(NAME).await, "OK secure match=pinned.example servername=hostname");
    bench.clock.advance(1_000_000);
    bench.settle().await;
    assert_eq!(
        bench.ask(NAME).await,
        "OK secure match=pinned.example servername=hostname",
        "it does not expire"
    );
    bench.answers.set(Settings::default());
    assert_eq!(bench.ask(NAME).await, secure("1"));
}

#[tokio::test]
async fn a_purged_domain_is_looked_up_as_a_new_one_and_a_refreshed_domain_at_once() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    bench.ask(NAME).await;
    bench.world.publish(NAME, Published::policy("2", "enforce", 604_800));
    let hop = NextHop::domain(DomainName::parse(NAME).unwrap());
    bench.answers.refresh(hop.clone()).await.unwrap();
    assert_eq!(bench.ask(NAME).await, secure("2"));
    // The corrected policy is there before its id, or a resolver still has the old record in its cache.
    let corrected =
        Published { record: Ok(Some("2".to_owned())), ..Published::policy("3", "enforce", 604_800) };
    bench.world.publish(NAME, corrected);
    bench.answers.refresh(hop.clone()).await.unwrap();
    assert_eq!(bench.ask(NAME).await, secure("3"));
    let fetches = bench.world.fetches(NAME);
    bench.clock.advance(400);
    bench.ask(NAME).await;
    bench.settle().await;
    assert_eq!(bench.world.fetches(NAME), fetches, "only once");
    bench.world.publish(NAME, Published::nothing());
    assert!(bench.answers.purge(&hop).await.unwrap());
    assert_eq!(bench.ask(NAME).await, "NOTFOUND");
    assert!(bench.answers.purge(&hop).await.unwrap(), "the cached negative answer");
    assert!(!bench.answers.purge(&hop).await.unwrap());
}

#[tokio::test]
async fn val_27_no_answer_is_weaker_than_what_the_mail_server_does_by_itself() {
    // The mail server handles REQUIRETLS and TLS-Required. Without a restricting policy the reply must be NOTFOUND,
    // not a level, and never the level `none`.
    let bench = Bench::new().await;
    for (name, published) in [
        ("none.example", Published::policy("1", "none", 604_800)),
        ("testing.example", Published::policy("1", "testing", 604_800)),
        ("nothing.example", Published::nothing()),
    ] {
        bench.world.publish(name, published);
        assert_eq!(bench.ask(name).await, "NOTFOUND", "{name}");
    }
}

#[tokio::test]
async fn val_22_steps_of_the_calendar_neither_drop_nor_lengthen_what_is_in_memory() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 1000));
    bench.ask(NAME).await;
    bench.world.publish(NAME, Published::nothing());
    for step in [86_400, -172_800, 86_400_000, -86_400_000] {
        bench.clock.set_by(step);
        bench.clock.advance(200);
        bench.ask(NAME).await;
        bench.settle().await;
        bench.answers.refresh_due().await.unwrap();
        assert_eq!(bench.ask(NAME).await, secure("1"), "after a step of {step} s");
    }
    // In sum the clock stepped back by a day, so the policy may last at most a day longer.
    bench.clock.advance(200 + 86_400);
    assert_eq!(bench.ask(NAME).await, "NOTFOUND", "its 1000 seconds have passed");
}

#[tokio::test]
async fn when_the_store_fails_answers_continue_from_memory() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    bench.store.close().await;
    assert_eq!(bench.ask(NAME).await, secure("1"));
    assert!(bench.answers.refresh_due().await.is_err());
    assert_eq!(bench.answers.metrics.store_up.get(), 0);
    // An attacker can't exploit the failure: the policy is still in memory.
    bench.world.publish(NAME, Published::nothing());
    bench.clock.advance(400);
    bench.ask(NAME).await;
    bench.settle().await;
    assert_eq!(bench.ask(NAME).await, secure("1"));
}

#[tokio::test]
async fn a_store_that_fails_later_does_not_remove_a_policy_from_the_cache() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    assert_eq!(bench.ask(NAME).await, secure("1"));
    bench.store.close().await;
    // The attacker hides the record, while nobody can say from the store that a policy is held.
    bench.world.publish(NAME, Published::nothing());
    for _ in 0..3 {
        bench.clock.advance(400);
        bench.ask(NAME).await;
        bench.settle().await;
        assert_eq!(bench.ask(NAME).await, secure("1"));
    }
    // A domain without a policy in the cache has no answer all the same.
    assert_eq!(bench.ask("other.example").await, "NOTFOUND");
}

#[tokio::test]
async fn no_policy_is_answered_only_briefly_while_the_store_fails() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published { ttl: 86_400, ..Published::nothing() });
    bench.store.close().await;
    assert_eq!(bench.ask(NAME).await, "NOTFOUND");
    let entry = bench.answers.cache.get(NAME).unwrap();
    assert!(entry.until <= bench.answers.second() + 30, "the store may hold a policy");
}

#[tokio::test]
async fn a_policy_that_could_not_be_stored_precedes_the_older_one_in_the_store() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "testing", 604_800));
    assert_eq!(bench.ask(NAME).await, "NOTFOUND");
    // Now the store can be read and not written.
    std::fs::rename(bench.store_file(), bench.store_file().with_extension("away")).unwrap();
    bench.world.publish(NAME, Published::policy("2", "enforce", 604_800));
    bench.answers.refresh(NextHop::domain(DomainName::parse(NAME).unwrap())).await;
    bench.answers.set(Settings::default());
    bench.world.publish(NAME, Published::nothing());
    assert_eq!(bench.ask(NAME).await, secure("2"));
}

#[tokio::test]
async fn a_cached_answer_weaker_than_a_policy_that_is_known_by_now_does_not_stay() {
    let bench = Bench::new().await;
    for mode in ["testing", "none"] {
        bench.world.publish(NAME, Published::policy("1", mode, 31_557_600));
        bench.clock.advance(400);
        bench.answers.refresh(NextHop::domain(DomainName::parse(NAME).unwrap())).await;
        assert_eq!(bench.ask(NAME).await, "NOTFOUND", "{mode}");
        // The domain enforces its policy now, and the attacker drops the MX queries.
        let enforced = Published::policy("2", "enforce", 604_800);
        bench.world.publish(NAME, Published { mx: Err(DnsError::Timeout), ..enforced.clone() });
        bench.clock.advance(400);
        bench.ask(NAME).await;
        bench.settle().await;
        let reply = bench.ask(NAME).await;
        assert!(reply.starts_with("TEMP "), "{mode}: {reply}");
        bench.clock.advance(31);
        assert_eq!(bench.ask(NAME).await, secure("2"), "{mode}: the policy in the store answers");
    }
}

#[tokio::test]
async fn a_policy_with_max_age_0_is_used_once_and_not_stored() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 0));
    assert_eq!(bench.ask(NAME).await, secure("1"));
    bench.world.publish(NAME, Published::nothing());
    assert_eq!(bench.ask(NAME).await, "NOTFOUND");
}

#[tokio::test]
async fn the_settings_for_testing_and_tlsrpt_are_applied() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "testing", 604_800));
    let settings = Settings { testing: Some(Level::Encrypt), tlsrpt: true, ..Settings::default() };
    let answers = service(&bench.world, &bench.clock, &bench.store, settings);
    let entry = answers.ask(NAME).await;
    assert_eq!(entry.text(false), "encrypt");
    assert!(
        answers.wants_tlsrpt("any")
            && !bench.answers.wants_tlsrpt("any")
            && bench.answers.wants_tlsrpt("QUERYwithTLSRPT")
    );
    assert_eq!(
        answers.remembered(&DomainName::parse(NAME).unwrap()).await.unwrap().0.policy.mode,
        Mode::Testing
    );
}

#[tokio::test]
async fn the_test_domain_is_answered_without_a_look_up_whatever_the_settings_say() {
    let bench = Bench::new().await;
    let mut overrides = Overrides::default();
    overrides.add(Scope::Everything, Rule { answer: Some(Answer::NotFound), ..Rule::default() });
    bench.answers.set(Settings { overrides, default_level: DefaultLevel::Stricter, ..Settings::default() });
    bench.store.close().await;
    bench.world.hold();
    let expected = "OK secure match=sternpost.invalid servername=hostname";
    for key in ["sternpost.invalid", "STERNPOST.invalid.", "sternpost.invalid:587", "[sternpost.invalid]"] {
        assert_eq!(bench.ask(key).await, expected, "{key}");
        let hop = LookupKey::parse(key).map(NextHop::of).unwrap().unwrap();
        let refreshed = bench.answers.refresh(hop.clone()).await.unwrap();
        assert_eq!((refreshed.source, refreshed.text(true)), (Source::Test, expected[3..].to_owned()));
        assert_eq!(bench.answers.explain(&hop).await.source, Source::Test);
        assert_eq!(bench.answers.remembered(hop.policy_domain()).await, None);
    }
    assert_eq!((bench.answers.cache.len(), bench.answers.metrics.misses.get()), (0, 0));
    assert_eq!(bench.ask("other.sternpost.invalid").await, "NOTFOUND", "the override applies");
}
