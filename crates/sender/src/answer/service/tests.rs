mod model;
mod world;

use super::*;
use crate::answer::overrides::{Rule, Scope};
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
    let impatient = Settings { patience: Duration::ZERO, ..Settings::default() };
    bench.answers.set(impatient);
    let told = bench.ask(NAME).await;
    assert!(told.starts_with("TEMP the policy of example.org is still being looked up"), "{told}");
    bench.answers.set(Settings { patience: Duration::from_secs(60), ..Settings::default() });
    let askers: Vec<_> = (0..100)
        .map(|_| {
            let answers = bench.answers.clone();
            tokio::spawn(async move { answers.ask(NAME).await.text(false) })
        })
        .collect();
    while bench.answers.metrics.misses.get() < 101 {
        tokio::task::yield_now().await;
    }
    bench.world.open(&gate);
    for asker in askers {
        assert_eq!(format!("OK {}", asker.await.unwrap()), secure("1"));
    }
    assert_eq!((bench.world.asked(NAME), bench.world.fetched(NAME)), (1, 1));
}

#[tokio::test]
async fn smk_13_past_the_deadline_it_is_a_temporary_failure_or_the_policy_that_is_remembered() {
    let mut bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    assert_eq!(bench.ask(NAME).await, secure("1"));
    bench.restart();
    bench.world.hold();
    bench.answers.set(Settings { patience: Duration::from_millis(200), ..Settings::default() });
    assert_eq!(bench.ask(NAME).await, secure("1"), "the policy that is remembered");
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
    assert_eq!(bench.world.asked(NAME), 1);
}

#[tokio::test]
async fn val_12_the_policy_of_the_parent_is_never_taken() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    assert_eq!(bench.ask("sub.example.org").await, "NOTFOUND");
    assert_eq!(bench.ask(".example.org").await, "NOTFOUND");
    assert_eq!(bench.world.asked(NAME), 0);
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
async fn a_changed_id_is_acted_on_within_the_ttl_and_nobody_waits_for_that() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 31_557_600));
    assert_eq!(bench.ask(NAME).await, secure("1"));
    bench.world.publish(NAME, Published::policy("2", "enforce", 31_557_600));
    bench.clock.advance(299);
    assert_eq!(bench.ask(NAME).await, secure("1"));
    bench.settle().await;
    assert_eq!(bench.world.asked(NAME), 1, "the TTL is not over");
    bench.clock.advance(1);
    let gate = bench.world.hold();
    assert_eq!(bench.ask(NAME).await, secure("1"), "answered while the look-up hangs");
    bench.world.open(&gate);
    bench.settle().await;
    assert_eq!(bench.ask(NAME).await, secure("2"));
    assert_eq!((bench.world.asked(NAME), bench.world.fetched(NAME)), (2, 2));
}

#[tokio::test]
async fn a_short_ttl_does_not_make_it_look_more_than_once_a_minute() {
    let bench = Bench::new().await;
    let short = |id| Published { ttl: 0, ..Published::policy(id, "enforce", 604_800) };
    bench.world.publish(NAME, short("1"));
    for _ in 0..60 {
        assert_eq!(bench.ask(NAME).await, secure("1"));
        bench.clock.advance(1);
    }
    bench.settle().await;
    assert_eq!(bench.world.asked(NAME), 1);
    bench.ask(NAME).await;
    bench.settle().await;
    assert_eq!(bench.world.asked(NAME), 2);
}

#[tokio::test]
async fn a_failed_fetch_is_not_repeated_for_five_minutes_and_leaves_what_there_was() {
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
    assert_eq!((bench.world.fetched(NAME), bench.world.fetched("kept.example")), (1, 2));
    bench.clock.advance(61);
    bench.ask(NAME).await;
    bench.settle().await;
    assert_eq!(bench.world.fetched(NAME), 2);
}

#[tokio::test]
async fn a_resolver_that_is_down_takes_no_answer_away_and_a_bogus_chain_does() {
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
    let told = bench.ask(NAME).await;
    assert!(told.starts_with("TEMP the MX records of example.org fail DNSSEC validation"), "{told}");
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
        // The failure is forgotten, the chain is still bogus.
        bench.clock.advance(31);
        bench.settle().await;
    }
    bench.restart();
    assert!(bench.ask(NAME).await.starts_with("TEMP the MX records"), "nor after a restart");
}

/// Every MX answer that names no host, as anybody on the path can forge it.
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
        assert_eq!(bench.ask(NAME).await, secure("1"), "{mx:?}, after a restart and a look");
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
    let small = Answers::new(
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
async fn after_a_restart_answers_come_from_the_store_at_once_and_are_looked_at_one_by_one() {
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
    let under_way = bench.answers.in_flight.len();
    assert_eq!(under_way, BACKGROUND_LOOKUPS, "never more at once");
    bench.world.open(&gate);
    bench.settle().await;
}

#[tokio::test]
async fn policies_are_refreshed_daily_also_when_nobody_asks_and_failures_wait() {
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
    assert_eq!(bench.answers.refresh_due().await.unwrap(), 0, "a failed one waits");
    bench.clock.advance(3600);
    assert_eq!(bench.answers.refresh_due().await.unwrap(), 1);
    bench.clock.advance(604_800);
    bench.answers.refresh_due().await.unwrap();
    assert_eq!(bench.store.count_policies(bench.answers.discovery.now()).await.unwrap().enforce, 0);
}

#[tokio::test]
async fn overrides_come_first_and_a_reload_takes_them_in() {
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
async fn a_purged_domain_is_looked_up_as_if_it_were_new_and_a_refreshed_one_at_once() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    bench.ask(NAME).await;
    bench.world.publish(NAME, Published::policy("2", "enforce", 604_800));
    let hop = NextHop::Domain(DomainName::parse(NAME).unwrap());
    bench.answers.refresh(hop.clone()).await.unwrap();
    assert_eq!(bench.ask(NAME).await, secure("2"));
    bench.world.publish(NAME, Published::nothing());
    assert!(bench.answers.purge(&hop).await.unwrap());
    assert_eq!(bench.ask(NAME).await, "NOTFOUND");
    assert!(bench.answers.purge(&hop).await.unwrap(), "the answer that there is nothing");
    assert!(!bench.answers.purge(&hop).await.unwrap());
}

#[tokio::test]
async fn val_27_no_answer_is_weaker_than_what_the_mail_server_does_by_itself() {
    // REQUIRETLS and TLS-Required are the mail server's: where no policy restricts, it hears
    // nothing rather than a level, and never the level `none`.
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
    // All in all the calendar went back by a day; that is the most that it may gain.
    bench.clock.advance(200 + 86_400);
    assert_eq!(bench.ask(NAME).await, "NOTFOUND", "its 1000 seconds are over");
}

#[tokio::test]
async fn when_the_store_fails_answers_go_on_and_are_written_when_it_works_again() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    bench.store.close().await;
    assert_eq!(bench.ask(NAME).await, secure("1"));
    assert!(bench.answers.refresh_due().await.is_err());
    assert_eq!(bench.answers.metrics.store_up.get(), 0);
    // The attacker can't use the fault: what was found is still known.
    bench.world.publish(NAME, Published::nothing());
    bench.clock.advance(400);
    bench.ask(NAME).await;
    bench.settle().await;
    assert_eq!(bench.ask(NAME).await, secure("1"));
}

#[tokio::test]
async fn a_policy_without_life_is_answered_once_and_not_kept() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 0));
    assert_eq!(bench.ask(NAME).await, secure("1"));
    bench.world.publish(NAME, Published::nothing());
    assert_eq!(bench.ask(NAME).await, "NOTFOUND");
}

#[tokio::test]
async fn settings_of_testing_are_heard() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "testing", 604_800));
    let settings = Settings { testing: Some(Level::Encrypt), tlsrpt: true, ..Settings::default() };
    let answers = service(&bench.world, &bench.clock, &bench.store, settings);
    let entry = answers.ask(NAME).await;
    assert_eq!(entry.text(false), "encrypt");
    assert!(
        answers.reports("any") && !bench.answers.reports("any") && bench.answers.reports("QUERYwithTLSRPT")
    );
    assert_eq!(
        answers.remembered(&DomainName::parse(NAME).unwrap()).await.unwrap().0.policy.mode,
        Mode::Testing
    );
}
