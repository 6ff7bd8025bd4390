use super::holder::tests::holders;
use super::*;
use crate::query::sql;
use jiff::SignedDuration;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

const MINUTE: Duration = Duration::from_secs(60);

/// Ends a lease in the database, as if its time had passed.
async fn expire(store: &Store, name: &str) {
    sql("UPDATE lease SET expires_at = 0 WHERE name = $1").bind(name).execute(store).await.unwrap();
}

async fn acquire(store: &Store, holder: &str) -> Option<HeldLease> {
    store.acquire("x", holder, Timestamp::now(), MINUTE).await.unwrap()
}

/// Whether the holder gets the lease from one second to another.
async fn lease(store: &Store, holder: &str, from: i64, to: u64) -> bool {
    let length = Duration::from_secs(to.saturating_sub_signed(from));
    store.acquire("x", holder, at(from), length).await.unwrap().is_some()
}

async fn domains(store: &Store) -> usize {
    store.domains::<u8>().await.unwrap().len()
}

async fn put(store: &Store, name: &str) -> Result<(), StoreError> {
    store.put_domain(&formats::DomainName::parse(name).unwrap(), &1).await
}

#[tokio::test]
async fn a_lease_has_one_holder_until_it_is_released_or_expires() {
    let (_dir, store) = crate::scratch().await;
    assert!(lease(&store, "one", 0, 60).await);
    assert!(lease(&store, "one", 30, 90).await);
    assert!(!lease(&store, "two", 89, 120).await);
    expire(&store, "x").await;
    assert!(lease(&store, "two", 90, 120).await);
    store.release("x", "one").await.unwrap();
    assert!(!lease(&store, "one", 100, 200).await);
    store.release("x", "two").await.unwrap();
    assert_eq!(store.lease_of("x").await.unwrap(), None);
    assert!(lease(&store, "one", 100, 200).await);
}

#[tokio::test]
async fn a_lease_ends_by_the_clock_of_the_database_or_by_the_time_since_the_start_of_the_machine() {
    let (_dir, store) = crate::scratch().await;
    // The clock of the other process is ten minutes ahead: on SQLite, the clock of the machine was set forward.
    let now = Timestamp::now();
    let ahead = now + MINUTE * 10;
    store.acquire("x", "one", now, MINUTE).await.unwrap().unwrap();
    assert!(store.acquire("x", "two", ahead, MINUTE).await.unwrap().is_none());
    // Its own lease is as long as that of others.
    store.acquire("y", "two", ahead, MINUTE).await.unwrap().unwrap();
    store.acquire("z", "one", now, MINUTE).await.unwrap().unwrap();
    let until = async |name: &str| store.lease_of(name).await.unwrap().unwrap().until.as_second();
    let difference = until("y").await - until("z").await;
    assert!(difference < 300, "{difference}");
    let in_force = store.leases_in_force("z", now).await.unwrap();
    assert_eq!(in_force.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["z"]);
    store.release("z", "one").await.unwrap();
    expire(&store, "y").await;
    assert_eq!(store.leases_in_force("", now).await.unwrap().len(), 1);
    let found = async |name: &str| store.lease_in_force(name, now).await.unwrap().map(|lease| lease.holder);
    assert_eq!((found("x").await.as_deref(), found("y").await, found("z").await), (Some("one"), None, None));
}

#[tokio::test]
async fn a_lease_that_was_given_by_a_clock_that_was_a_year_ahead_is_over() {
    let (_dir, store) = crate::scratch().await;
    acquire(&store, "one").await.unwrap();
    let year = sql("UPDATE lease SET expires_at = expires_at + 31536000 WHERE name = 'x'");
    year.execute(&store).await.unwrap();
    assert!(acquire(&store, "two").await.is_some());
    assert!(acquire(&store, "three").await.is_none());
}

#[tokio::test]
async fn time_on_sqlite_is_steady_from_one_start_of_the_machine_to_the_next() {
    let (_dir, store) = crate::scratch().await;
    let since = async |boot: &str, local| store.steady_since(boot, local).await.unwrap();
    let now = Timestamp::now();
    let first = since("first", now).await;
    assert!(first.duration_since(now).abs() < SignedDuration::from_secs(300), "{first}");
    // The clock is set forward, and back.
    for local in [now + MINUTE * 60, now - MINUTE * 60] {
        assert!(since("first", local).await.duration_since(first) < SignedDuration::from_secs(300));
    }
    let second = since("second", now + MINUTE * 60).await;
    assert!(second.duration_since(first) > SignedDuration::from_secs(3000), "{second}");
    since("third", now + MINUTE * 60 * 24 * 500).await;
    let rows: Vec<(String,)> = sql("SELECT name FROM lease").fetch_all(&store).await.unwrap();
    assert_eq!(rows, [("time of boot third".to_owned(),)], "old ones are deleted");
    assert!(store.leases_in_force("", now).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_fence_grows_with_each_holder_and_stays_with_each_renewal() {
    let (_dir, store) = crate::scratch().await;
    let now = Timestamp::now();
    let first = acquire(&store, "one").await.unwrap();
    assert_eq!(acquire(&store, "one").await.unwrap().fence(), first.fence());
    assert!(store.renew(&first, now).await.unwrap() && !first.is_over());
    assert!(acquire(&store, "two").await.is_none());
    expire(&store, "x").await;
    // Nobody has taken it meanwhile.
    assert!(store.renew(&first, now).await.unwrap());
    expire(&store, "x").await;
    let second = acquire(&store, "two").await.unwrap();
    assert!(second.fence() > first.fence());
    assert!(!store.renew(&first, now).await.unwrap() && first.is_over());
    store.give_back(&first).await.unwrap();
    assert_eq!(store.lease_of("x").await.unwrap().unwrap().holder, "two");
    store.give_back(&second).await.unwrap();
    let third = acquire(&store, "one").await.unwrap();
    assert!(third.fence() > second.fence());
    let taken = store.take_lease("x", "one", "three", now, MINUTE).await.unwrap().unwrap();
    assert!(taken.fence() > third.fence());
    assert!(store.take_lease("x", "one", "four", now, MINUTE).await.unwrap().is_none());
}

#[tokio::test]
async fn a_write_under_a_lease_takes_place_only_while_its_holder_has_it() {
    let (_dir, store) = crate::scratch().await;
    let first = acquire(&store, "one").await.unwrap();
    let under = store.under(&first);
    put(&under, "a.example").await.unwrap();
    under.check_lease().unwrap();
    expire(&store, "x").await;
    let second = acquire(&store, "two").await.unwrap();
    // The first holder does not know that it has lost the lease.
    assert!(!first.is_over());
    let name = formats::DomainName::parse("a.example").unwrap();
    let lost = [
        put(&under, "b.example").await,
        // A transaction of several statements.
        under.remove_domain(&name).await.map(drop),
        under.of_tenant(crate::Tenant::FIRST).remove_domain(&name).await.map(drop),
    ];
    for outcome in lost {
        assert!(matches!(outcome, Err(StoreError::LeaseLost { .. })), "{outcome:?}");
    }
    assert!(first.is_over() && under.check_lease().is_err());
    assert_eq!(domains(&store).await, 1);
    put(&store.under(&second), "b.example").await.unwrap();
    // A released lease, and one that is over by the clock of the holder, although nobody else has it.
    store.give_back(&second).await.unwrap();
    assert!(put(&store.under(&second), "c.example").await.is_err());
    let third = acquire(&store, "three").await.unwrap();
    third.give_up();
    assert!(put(&store.under(&third), "c.example").await.is_err());
    // A renewal in time makes it good again.
    assert!(store.renew(&third, Timestamp::now()).await.unwrap());
    put(&store.under(&third), "c.example").await.unwrap();
    assert_eq!(domains(&store).await, 3);
}

#[tokio::test]
async fn nobody_gets_a_lease_during_a_write_of_its_holder() {
    let (scratch, store) = crate::scratch().await;
    let first = acquire(&store, "one").await.unwrap();
    let other = scratch.open().await;
    let mut writing = store.under(&first).writing().await.unwrap();
    sql("INSERT INTO domain (tenant, name, spec) VALUES (0, 'a', '1')").execute(&mut writing).await.unwrap();
    // The lease ends during the write, which PostgreSQL knows only after it.
    let taking = tokio::spawn(async move {
        let taken = other.take_lease("x", "one", "two", Timestamp::now(), MINUTE).await.unwrap();
        let seen = domains(&other).await;
        (taken.is_some(), seen)
    });
    writing_waits(&store).await;
    writing.commit().await.unwrap();
    assert_eq!(taking.await.unwrap(), (true, 1), "the lease was taken before the write was done");
}

/// Waits until a statement waits for a lock of PostgreSQL. SQLite does not show it.
async fn writing_waits(store: &Store) {
    if store.dialect() == Dialect::Sqlite {
        return;
    }
    let query = || {
        sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = current_user")
    };
    while query().fetch_one::<(i64,)>(store).await.unwrap().0 == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn several_leases_are_renewed_at_once_and_those_of_others_are_over() {
    let (_dir, store) = crate::scratch().await;
    let now = Timestamp::now();
    let get = async |name: &str, holder: &str| store.acquire(name, holder, now, MINUTE).await.unwrap();
    let held =
        [get("b", "one").await.unwrap(), get("a", "one").await.unwrap(), get("x", "one").await.unwrap()];
    expire(&store, "a").await;
    expire(&store, "x").await;
    get("a", "two").await.unwrap();
    store.renew_all(&held, now).await.unwrap();
    assert_eq!(held.iter().map(HeldLease::is_over).collect::<Vec<_>>(), [false, true, false]);
    assert!(get("x", "two").await.is_none(), "it was extended before anybody took it");
}

#[tokio::test]
async fn a_holder_stops_a_second_before_the_end() {
    let (_dir, store) = crate::scratch().await;
    let lease = acquire(&store, "one").await.unwrap();
    assert!(lease.left() <= MINUTE - Duration::from_secs(1), "{:?}", lease.left());
    assert!(lease.left() > MINUTE / 2 && !lease.clone().is_over());
    let second = Duration::from_secs(1);
    let short = store.acquire("y", "one", Timestamp::now(), second).await.unwrap().unwrap();
    assert!(short.is_over());
    assert!(store.acquire("y", "two", Timestamp::now(), second).await.unwrap().is_none());
}

#[tokio::test]
async fn the_lease_of_a_process_that_ended_is_taken_over_and_no_other() {
    let (_dir, store) = crate::scratch().await;
    let me = LeaseHolder::new().to_string();
    for (holder, is_taken) in holders() {
        assert!(lease(&store, &holder, 0, 60).await);
        let taken = lease(&store, &me, 1, 61).await;
        assert_eq!(taken, is_taken, "{holder}");
        store.release("x", &holder).await.unwrap();
        store.release("x", &me).await.unwrap();
    }
}

#[tokio::test]
async fn a_lease_is_taken_from_the_holder_that_was_named_and_no_other() {
    let (_dir, store) = crate::scratch().await;
    assert_eq!(store.lease_of("x").await.unwrap(), None);
    let now = Timestamp::now();
    store.acquire("x", "mail 7 1 place 1", now, MINUTE).await.unwrap().unwrap();
    let lease = store.lease_of("x").await.unwrap().unwrap();
    assert_eq!(lease.process(), Some(("mail", 7)));
    assert!(lease.until > now + Duration::from_secs(30) && lease.until < now + MINUTE * 2);
    assert!(store.take_lease("x", "somebody else", "me", now, MINUTE).await.unwrap().is_none());
    assert!(store.take_lease("x", &lease.holder, "me", now, MINUTE).await.unwrap().is_some());
    assert!(store.acquire("x", &lease.holder, now, MINUTE).await.unwrap().is_none());
}
