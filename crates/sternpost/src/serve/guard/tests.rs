//! Plays the guard with domains whose lookups hang, at the smallest number of slots.

use super::*;
use config::Config;
use formats::{MxPattern, Policy};
use jiff::Timestamp;
use net::BoxFuture;
use net::dns::{Answer, Dns, DnsError, Kind};
use operations::world::World;
use receiver::rollout::state::InMode;
use store::Store;

/// A resolver that never answers about one domain, and fails at once for the others.
struct HangsFor(&'static str);

impl Dns for HangsFor {
    fn lookup<'a>(&'a self, name: &'a DomainName, _: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async move {
            if name.as_str().ends_with(self.0) {
                std::future::pending::<()>().await;
            }
            Err(DnsError::Timeout)
        })
    }
}

/// A guard with one slot for three enforced domains, of which the first one's checks never end.
async fn guard(folder: &std::path::Path) -> GuardRole {
    let mut text = "[guard]\nat_once = 1\n[dns]\nservers = [\"127.0.0.1:1\"]\n".to_owned();
    let names = ["hangs.example", "one.example", "two.example"];
    for name in names {
        text.push_str(&format!("[[domain]]\nname = \"{name}\"\n"));
    }
    let config = Config::parse(&text, None).unwrap();
    let store = Store::open(&folder.join("s.db"), store::Tenant::FIRST).await.unwrap();
    let policy = Policy::new(Mode::Enforce, 600, vec![MxPattern::parse("mx.example").unwrap()]).unwrap();
    for name in names {
        let enforced = |rollout: &mut RolloutState| {
            rollout.intend(&policy);
            rollout.mode = Some(InMode { mode: Mode::Enforce, since: Timestamp::UNIX_EPOCH });
        };
        store.change_rollout(&DomainName::parse(name).unwrap(), enforced).await.unwrap();
    }
    let mut world = World::new(&config).unwrap();
    world.dns = Arc::new(HangsFor("hangs.example"));
    let settings = config.guard.clone().unwrap();
    assert_eq!(settings.at_once, 1);
    // Passes follow each other closely, and no check ends by its deadline.
    let settings =
        GuardConfig { every: Duration::from_millis(30), deadline: Duration::from_secs(3600), ..settings };
    GuardRole::new(RolloutContext::at(config, store, Arc::new(world)).await.unwrap(), settings)
}

#[tokio::test]
async fn with_one_place_a_domain_that_hangs_holds_up_no_other_and_a_restart_forgets_its_check() {
    let folder = tempfile::tempdir().unwrap();
    let mut guard = guard(folder.path()).await;
    // Its last check was slow: it has the slot of slow domains.
    guard.slots.set_slow(&DomainName::parse("hangs.example").unwrap(), true);
    let counts = guard.counts.clone();
    // Each of the others is checked again and again.
    while counts.failed.get() < 6 {
        guard.pass(Instant::now()).await;
    }
    assert!(counts.running.get() >= 1, "the one that hangs");
    guard.forget_tasks();
    while counts.running.get() > 0 {
        tokio::task::yield_now().await;
    }
    // Its slot is free again, and it gets its turn.
    guard.slots.set_slow(&DomainName::parse("hangs.example").unwrap(), true);
    let before = counts.looks.get();
    guard.pass(Instant::now()).await;
    assert!(counts.looks.get() > before && counts.running.get() >= 1);
}
