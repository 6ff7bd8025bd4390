//! Named sets of settings: each has its own answers, and all share the policies and the cache's memory.

use super::*;
use crate::answer::maps::Maps;
use std::collections::BTreeMap;

fn sets() -> BTreeMap<String, Settings> {
    let strict = Settings { testing: Some(Level::Secure(Vec::new())), ..Settings::default() };
    let mut overrides = Overrides::default();
    overrides.add(Scope::Everything, Rule { answer: Some(Answer::NotFound), ..Rule::default() });
    let lax = Settings { overrides, ..Settings::default() };
    [("strict".to_owned(), strict), ("lax".to_owned(), lax)].into()
}

async fn ask(bench: &Bench, set: &str, key: &str) -> String {
    let entry = bench.answers.ask_in(Some(set), key).await;
    format!("{} {}", entry.reply_status(false), entry.text(false)).trim_end().to_owned()
}

async fn bench(mode: &str) -> Bench {
    let bench = Bench::new().await;
    bench.answers.set_with_maps(Settings::default(), sets());
    bench.world.publish(NAME, Published::policy("1", mode, 604_800));
    bench
}

#[tokio::test]
async fn each_map_answers_by_its_own_settings_and_the_policy_is_fetched_once() {
    let bench = bench("testing").await;
    for _ in 0..2 {
        assert_eq!(bench.ask(NAME).await, "NOTFOUND");
        assert_eq!(ask(&bench, "strict", NAME).await, secure("1"));
        assert_eq!(ask(&bench, "strict", "EXAMPLE.org:25").await, secure("1"));
        assert_eq!(ask(&bench, "lax", NAME).await, "NOTFOUND");
        assert_eq!(ask(&bench, "unknown", NAME).await, "NOTFOUND", "the default settings");
        bench.settle().await;
    }
    assert_eq!(bench.world.fetches(NAME), 1);
    assert_eq!(bench.answers.hit(NAME).unwrap().source, Source::MtaSts);
    assert_eq!(bench.answers.hit_in("lax", NAME).unwrap().source, Source::Override);
    assert!(bench.answers.hit_in("strict", "other.example").is_none());
    assert_eq!(
        ask(&bench, "lax", "sternpost.invalid").await,
        "OK secure match=sternpost.invalid servername=hostname"
    );
}

#[tokio::test]
async fn a_changed_policy_reaches_every_map_within_the_ttl() {
    let bench = bench("enforce").await;
    assert_eq!((bench.ask(NAME).await, ask(&bench, "strict", NAME).await), (secure("1"), secure("1")));
    bench.world.publish(NAME, Published::policy("2", "testing", 604_800));
    bench.clock.advance(300);
    bench.ask(NAME).await;
    ask(&bench, "strict", NAME).await;
    bench.settle().await;
    assert_eq!(bench.ask(NAME).await, "NOTFOUND");
    assert_eq!(ask(&bench, "strict", NAME).await, secure("2"));
}

#[tokio::test]
async fn a_purge_and_a_refresh_reach_every_map() {
    let bench = bench("testing").await;
    let hop = NextHop::domain(DomainName::parse(NAME).unwrap());
    assert_eq!(ask(&bench, "strict", NAME).await, secure("1"));
    bench.world.publish(NAME, Published::policy("2", "testing", 604_800));
    bench.answers.refresh(hop.clone()).await;
    assert_eq!(ask(&bench, "strict", NAME).await, secure("2"));
    bench.settle().await;
    bench.world.publish(NAME, Published::nothing());
    assert!(bench.answers.purge(&hop).await.unwrap());
    assert_eq!(ask(&bench, "strict", NAME).await, "NOTFOUND");
    // A lookup that runs during the purge brings nothing back.
    bench.world.publish(NAME, Published::policy("3", "testing", 604_800));
    bench.answers.purge(&hop).await.unwrap();
    let gate = bench.world.hold();
    let answers = bench.answers.clone();
    let request = tokio::spawn(async move { answers.ask_in(Some("strict"), NAME).await.text(false) });
    while bench.answers.is_idle() {
        tokio::task::yield_now().await;
    }
    bench.answers.purge(&hop).await.unwrap();
    bench.world.publish(NAME, Published::nothing());
    bench.world.open(&gate);
    request.await.unwrap();
    bench.settle().await;
    assert_eq!(bench.answers.cache.len(), 0);
    assert_eq!(ask(&bench, "strict", NAME).await, "NOTFOUND");
}

#[tokio::test]
async fn a_reload_changes_adds_and_removes_maps() {
    let bench = bench("testing").await;
    assert_eq!(ask(&bench, "strict", NAME).await, secure("1"));
    let before = bench.answers.named_maps(None);
    let is_same = |maps: &Option<Arc<Maps>>, other: &Option<Arc<Maps>>| match (maps, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        _ => false,
    };
    assert!(is_same(&bench.answers.named_maps(before.clone()), &before));
    let mut changed = sets();
    let strict = changed.remove("strict").unwrap();
    changed.insert("new".to_owned(), strict);
    bench.answers.set_with_maps(Settings::default(), changed);
    let after = bench.answers.named_maps(before.clone());
    assert!(!is_same(&after, &before));
    assert!(after.as_ref().unwrap().select("strict").is_none() && after.unwrap().select("new").is_some());
    assert_eq!(ask(&bench, "new", NAME).await, secure("1"));
    assert_eq!(ask(&bench, "strict", NAME).await, "NOTFOUND", "the default settings");
    bench.answers.set_with_maps(Settings::default(), BTreeMap::new());
    assert!(bench.answers.named_maps(before).is_none());
    bench.answers.set_with_maps(Settings::default(), sets());
    assert!(bench.answers.named_maps(None).unwrap().select("strict").is_some());
    assert_eq!(ask(&bench, "strict", NAME).await, secure("1"));
}
