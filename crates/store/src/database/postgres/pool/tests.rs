//! The pool over connections of a simulated server, in simulated time: a model of what a server and a network can do.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use tokio::task::JoinSet;
use tokio::time::sleep;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// How the server answers an attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Works,
    /// It refuses at once, as with a wrong password.
    Refuses,
    /// It has no place for another connection.
    Full,
    /// It gives no answer.
    Hangs,
}

#[derive(Debug)]
struct World {
    mood: Mood,
    /// Moods of the next attempts, before `mood` counts.
    script: Vec<Mood>,
    /// The number of connections that the server allows.
    limit: usize,
    /// The number of processes that use the server.
    pools: usize,
    /// How long an attempt takes.
    latency: Duration,
    live: BTreeSet<u64>,
    /// Connections that the server has closed and the pool has not.
    dead: BTreeSet<u64>,
    next: u64,
    attempts: u32,
}

#[derive(Clone)]
struct Server(Arc<Mutex<World>>);

impl Server {
    fn new(limit: usize, latency: Duration) -> Self {
        Self(Arc::new(Mutex::new(World {
            mood: Mood::Works,
            script: Vec::new(),
            limit,
            pools: 1,
            latency,
            live: BTreeSet::new(),
            dead: BTreeSet::new(),
            next: 0,
            attempts: 0,
        })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// The server closes up to so many connections.
    fn kill(&self, count: usize) {
        let mut world = self.world();
        let killed: Vec<u64> = world.live.iter().copied().take(count).collect();
        for id in killed {
            world.live.remove(&id);
            world.dead.insert(id);
        }
    }
}

struct Link {
    id: u64,
    server: Server,
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut world = self.server.world();
        world.live.remove(&self.id);
        world.dead.remove(&self.id);
    }
}

impl Connector for Server {
    type Connection = Link;

    async fn connect(&self) -> Result<Link, Refusal> {
        let (latency, mood) = {
            let mut world = self.world();
            world.attempts += 1;
            let mood = world.script.pop().unwrap_or(world.mood);
            (world.latency, mood)
        };
        sleep(latency).await;
        let refusal = |why: &str, is_full| Refusal { is_full, ..why.to_owned().into() };
        let mut world = self.world();
        match mood {
            Mood::Refuses => Err(refusal("refused", false)),
            Mood::Hangs => {
                drop(world);
                sleep(ms(4000)).await;
                Err(refusal("no answer", false))
            }
            Mood::Works if world.live.len() < world.limit => {
                let id = world.next;
                world.next += 1;
                world.live.insert(id);
                assert!(world.live.len() + world.dead.len() <= world.pools * CONNECTIONS);
                drop(world);
                Ok(Link { id, server: self.clone() })
            }
            Mood::Works | Mood::Full => Err(refusal("too many connections", true)),
        }
    }

    async fn is_alive(&self, link: &mut Link) -> bool {
        sleep(ms(1)).await;
        self.world().live.contains(&link.id)
    }

    async fn close(&self, link: Link) {
        drop(link);
    }
}

/// Runs a statement that takes so long. The error says whether there was no connection.
async fn statement(pool: &Arc<Pool<Server>>, takes: Duration) -> Result<(), Option<NoConnection>> {
    let mut handle = pool.connection(false).await.map_err(Some)?;
    let id = handle.begin().unwrap().id;
    sleep(takes).await;
    if !pool.connector.world().live.contains(&id) {
        pool.forget_idle();
        return Err(None);
    }
    handle.end();
    Ok(())
}

fn in_simulated_time(work: impl Future<Output = ()>) {
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(work);
}

/// All places of the pool can be used at once, and it has counted its connections right.
async fn check_all_places(pool: &Arc<Pool<Server>>) {
    let mut handles = Vec::new();
    for _ in 0..CONNECTIONS {
        handles.push(pool.connection(false).await.map_err(|error| format!("{error:?}")).unwrap());
    }
    assert_eq!(pool.connector.world().live.len(), CONNECTIONS);
    drop(handles);
    let state = pool.state();
    assert_eq!(state.open, CONNECTIONS);
    // One may be about to leave its place to another process.
    assert!((CONNECTIONS - 1..=CONNECTIONS).contains(&state.idle.len()), "{}", state.idle.len());
}

#[test]
fn pauses_double_up_to_two_seconds_and_differ() {
    let millis = |failures, random| pause(failures, random).as_millis();
    assert_eq!([1, 2, 3, 5, 6, 40].map(|failures| millis(failures, 0)), [100, 200, 400, 1600, 2000, 2000]);
    assert_eq!([0, 250, 499, 500].map(|random| millis(6, random)), [2000, 1500, 1002, 2000]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_statement_fails_while_a_connection_works_whatever_becomes_of_further_ones(
        limit in 1_usize..12,
        latency in 0_u64..1500,
        callers in proptest::collection::vec((0_u64..3000, 1_u64..100, 1_u32..6), 1..25),
        script in proptest::collection::vec(
            prop_oneof![Just(Mood::Works), Just(Mood::Refuses), Just(Mood::Full), Just(Mood::Hangs)], 0..12),
        full_first in 0_usize..3,
    ) {
        in_simulated_time(async {
            let server = Server::new(limit, ms(latency));
            // The first attempts find no place; then there is a connection, and all that follows may fail.
            let mut script = script;
            script.push(Mood::Works);
            script.extend(vec![Mood::Full; full_first]);
            server.world().script = script;
            let pool = Pool::new(server);
            drop(pool.connection(false).await.unwrap());
            let mut tasks = JoinSet::new();
            for (begin, takes, count) in callers {
                let pool = pool.clone();
                tasks.spawn(async move {
                    sleep(ms(begin)).await;
                    for _ in 0..count {
                        statement(&pool, ms(takes)).await.unwrap();
                    }
                });
            }
            while let Some(done) = tasks.join_next().await {
                done.unwrap();
            }
            pool.connector.world().limit = CONNECTIONS;
            pool.connector.world().script.clear();
            check_all_places(&pool).await;
        });
    }

    #[test]
    fn whatever_happened_no_place_is_lost_and_statements_fail_only_without_connections(
        callers in proptest::collection::vec((0_u64..20_000, 1_u64..3000, 1_u32..5, 1_u64..30_000), 1..30),
        events in proptest::collection::vec((0_u64..2000, 0_usize..7, 1_usize..12), 0..25),
    ) {
        in_simulated_time(async {
            let pool = Pool::new(Server::new(CONNECTIONS, ms(20)));
            let mut tasks = JoinSet::new();
            for (begin, takes, count, patience) in callers {
                let pool = pool.clone();
                tasks.spawn(async move {
                    sleep(ms(begin)).await;
                    for _ in 0..count {
                        let begun = Instant::now();
                        // Some callers give up at any point.
                        let done = timeout(ms(patience), statement(&pool, ms(takes))).await;
                        if let Ok(Err(Some(_))) = done {
                            let open = pool.state().open;
                            assert!(open == 0 || begun.elapsed() >= WAIT_TIME, "{done:?} with {open}");
                        }
                    }
                });
            }
            for (after, event, number) in events {
                sleep(ms(after)).await;
                match event {
                    0 => pool.connector.kill(number),
                    1 => pool.connector.world().limit = number,
                    2 => pool.connector.world().mood = Mood::Refuses,
                    3 => pool.connector.world().mood = Mood::Full,
                    4 => pool.connector.world().mood = Mood::Hangs,
                    5 => pool.forget_idle(),
                    _ => pool.connector.world().mood = Mood::Works,
                }
            }
            while let Some(done) = tasks.join_next().await {
                done.unwrap();
            }
            pool.connector.world().mood = Mood::Works;
            pool.connector.world().limit = CONNECTIONS;
            // The longest pause, and an attempt that hangs.
            sleep(ms(8000)).await;
            check_all_places(&pool).await;
        });
    }
}

#[test]
fn while_the_database_is_away_statements_fail_at_once_apart_from_one_that_connects() {
    in_simulated_time(async {
        let server = Server::new(CONNECTIONS, ms(0));
        server.world().mood = Mood::Hangs;
        let pool = Pool::new(server);
        let attempts = || pool.connector.world().attempts;
        let away = NoConnection::Away("no answer".to_owned());
        let begun = Instant::now();
        assert_eq!(pool.connection(false).await.err(), Some(away.clone()));
        assert_eq!((begun.elapsed(), attempts()), (ms(4000), 1));
        // The next attempt is not due yet: nothing connects.
        assert_eq!(pool.connection(false).await.err(), Some(away.clone()));
        assert_eq!((begun.elapsed(), attempts()), (ms(4000), 1));
        // When it is due, one caller connects, and the others fail with what is known.
        sleep(ms(2000)).await;
        let first = tokio::spawn({
            let pool = pool.clone();
            async move { pool.connection(false).await.err() }
        });
        sleep(ms(1)).await;
        let begun = Instant::now();
        assert_eq!(pool.connection(true).await.err(), Some(away.clone()));
        assert_eq!(pool.connection(false).await.err(), Some(away.clone()));
        assert_eq!((begun.elapsed(), attempts()), (ms(0), 2));
        assert_eq!(first.await.unwrap(), Some(away));
        pool.connector.world().mood = Mood::Works;
        sleep(ms(2000)).await;
        check_all_places(&pool).await;
    });
}

#[test]
fn a_caller_that_can_go_on_without_the_store_does_not_wait_for_connections_that_hang() {
    in_simulated_time(async {
        let pool = Pool::new(Server::new(CONNECTIONS, ms(0)));
        let mut hanging = pool.connection(false).await.unwrap();
        hanging.begin().unwrap();
        pool.connector.world().mood = Mood::Hangs;
        let begun = Instant::now();
        let patient = tokio::spawn({
            let pool = pool.clone();
            async move { pool.connection(false).await.map(drop) }
        });
        sleep(ms(5000)).await;
        assert!(pool.connection(true).await.is_err());
        assert_eq!(begun.elapsed(), ms(5000));
        // It did not hang after all.
        hanging.end();
        drop(hanging);
        patient.await.unwrap().unwrap();
        assert!(pool.connection(true).await.is_ok());
        assert_eq!(begun.elapsed(), ms(5000));
    });
}

#[test]
fn connections_that_are_idle_for_long_leave_their_places_to_other_processes() {
    in_simulated_time(async {
        let server = Server::new(CONNECTIONS, ms(0));
        let (one, other) = (Pool::new(server.clone()), Pool::new(server));
        check_all_places(&one).await;
        // The server is full. The other process waits until the first has closed what it does not use.
        let mut waiting = JoinSet::new();
        for _ in 0..8 {
            let other = other.clone();
            waiting.spawn(async move { other.connection(false).await.map(drop) });
            sleep(ms(500)).await;
        }
        while let Some(done) = waiting.join_next().await {
            done.unwrap().unwrap();
        }
        sleep(IDLE_TIME * 3).await;
        assert_eq!((one.state().open, other.state().open), (KEPT_IDLE, KEPT_IDLE));
    });
}

/// Callers that use the pool without a pause until `end`. Returns the number of their statements.
async fn busy(pool: &Arc<Pool<Server>>, callers: usize, end: Instant) -> usize {
    let mut tasks = JoinSet::new();
    for number in 0..callers {
        let pool = pool.clone();
        tasks.spawn(async move {
            let mut statements = 0;
            while Instant::now() < end {
                statement(&pool, ms(20 + number as u64)).await.unwrap();
                statements += 1;
            }
            statements
        });
    }
    tasks.join_all().await.into_iter().sum()
}

#[test]
fn busy_processes_leave_places_to_one_that_has_none_and_no_statement_fails() {
    // Of max_connections = 20, three are reserved. With 20 places, the first two are never refused one.
    for (limit, callers, latency) in
        [(17, 20, 5), (17, 10, 5), (20, 20, 300), (20, 10, 5), (9, 10, 5), (30, 20, 5)]
    {
        in_simulated_time(async move {
            let server = Server::new(limit, ms(latency));
            server.world().pools = 3;
            let pools = [(); 3].map(|()| Pool::new(server.clone()));
            let end = Instant::now() + Duration::from_secs(120);
            let [first, second, third] = &pools;
            let late = async {
                sleep(ms(20_000)).await;
                let used = first.state().open + second.state().open;
                assert!(used + 2 >= limit.min(2 * CONNECTIONS), "{used} of {limit}");
                let begun = Instant::now();
                drop(third.connection(false).await.unwrap());
                assert!(begun.elapsed() < WAIT_TIME, "{:?}", begun.elapsed());
                busy(third, callers, end).await
            };
            let (one, two, three) = tokio::join!(busy(first, callers, end), busy(second, callers, end), late);
            let open = pools.each_ref().map(|pool| pool.state().open);
            assert!(open.iter().all(|open| *open >= FAIR_CONNECTIONS - 1), "{limit}, {callers}: {open:?}");
            // What is not used for a moment costs little.
            let most = (callers.min(CONNECTIONS) * 2).min(limit);
            let full = 100_000 / (20 + callers) * most;
            assert!(one + two + three > full / 2, "{limit}, {callers}: {one} {two} {three} of {full}");
        });
    }
}

#[test]
fn a_pool_that_closes_a_connection_for_others_has_all_of_them_again_after_a_pause() {
    in_simulated_time(async {
        let pool = Pool::new(Server::new(CONNECTIONS, ms(0)));
        busy(&pool, 2 * CONNECTIONS, Instant::now() + ms(30_000)).await;
        let begun = Instant::now();
        check_all_places(&pool).await;
        assert!(begun.elapsed() <= FULL_PAUSE, "{:?}", begun.elapsed());
    });
}

#[test]
fn a_pool_that_is_closed_closes_each_connection_and_fails_each_caller() {
    in_simulated_time(async {
        let pool = Pool::new(Server::new(2, ms(0)));
        let (one, other) = (pool.connection(false).await.unwrap(), pool.connection(false).await.unwrap());
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { pool.connection(false).await.err() }
        });
        drop(one);
        sleep(ms(1)).await;
        assert_eq!(waiting.await.unwrap(), None);
        pool.close().await;
        assert_eq!(pool.connection(false).await.err(), Some(NoConnection::Closed));
        assert_eq!(pool.connector.world().live.len(), 1);
        drop(other);
        assert_eq!((pool.connector.world().live.len(), pool.state().open), (0, 0));
    });
}
