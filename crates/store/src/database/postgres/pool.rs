//! The connections to a PostgreSQL database: up to [`CONNECTIONS`], each used by one statement or transaction at a time.
//!
//! While the database is away, statements fail at once with [`StoreError::Unreachable`], apart from one at a time that
//! connects: a caller that can go on without the store, such as a policy look-up, must not wait for it. The pause between
//! two attempts grows, with jitter, so that many processes do not return together.
//!
//! A server that refuses one more connection, as by its limit for a user, is not away while others work: then callers wait
//! until one of these is returned.

use super::link::{self, ConnectError, unreachable};
use crate::database::location::PostgresLocation;
use crate::{Access, StoreError};
use sqlx::{Connection, PgConnection};
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::task::JoinError;
use tokio::time::timeout_at;

/// The maximum number of connections of one process.
pub(super) const CONNECTIONS: usize = 10;
/// How long a caller waits for one of them while all are in use.
const WAIT_TIME: Duration = Duration::from_secs(10);
/// A connection that was idle for longer is tested before it is used.
const TESTED_AFTER: Duration = Duration::from_secs(1);
/// The time limit of that test.
const TEST_TIME: Duration = Duration::from_secs(2);
/// The longest time until the outcome of an attempt to connect is known. Other callers fail meanwhile.
const ATTEMPT_TIME: Duration = Duration::from_secs(10);
/// The first and the longest pause between two attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

pub(super) struct Pool {
    pub(super) location: PostgresLocation,
    access: Access,
    places: Arc<Semaphore>,
    /// The last one returned is used first, and with it the time since when it is idle.
    idle: Mutex<Vec<(Live, Instant)>>,
    /// A permit for each of `idle`, for which callers wait in their order.
    returned: Semaphore,
    live: Arc<LiveConnections>,
    /// The last attempts to connect, if they failed. While a server is there and connections work, this only delays the next
    /// attempt.
    outage: Mutex<Option<Outage>>,
    /// The number of the server that the last connection was made to.
    last_host: AtomicUsize,
    is_closed: AtomicBool,
}

/// The connections that exist, idle or in use.
#[derive(Default)]
struct LiveConnections {
    number: AtomicUsize,
    /// Wakes the callers that wait for one when one is closed: it may have been the last.
    closed: Notify,
}

/// A connection, which is counted while it exists.
struct Live {
    connection: PgConnection,
    _count: Count,
}

struct Count(Arc<LiveConnections>);

impl Count {
    fn of(all: &Arc<LiveConnections>) -> Self {
        all.number.fetch_add(1, Ordering::SeqCst);
        Self(all.clone())
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.number.fetch_sub(1, Ordering::SeqCst);
        self.0.closed.notify_waiters();
    }
}

/// Failed attempts to connect.
struct Outage {
    why: String,
    /// [`ConnectError::is_away`].
    is_away: bool,
    /// The number of attempts to connect that failed.
    failures: u32,
    /// No attempt begins before.
    retry_at: Instant,
}

impl Pool {
    pub(super) fn new(location: &PostgresLocation, access: &Access) -> Arc<Self> {
        Arc::new(Self {
            location: location.clone(),
            access: access.clone(),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
            idle: Mutex::default(),
            returned: Semaphore::new(0),
            live: Arc::default(),
            outage: Mutex::default(),
            last_host: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
        })
    }

    /// Returns a connection that works, as far as is known.
    pub(super) async fn connection(self: &Arc<Self>) -> Result<PgHandle, StoreError> {
        if self.returned.available_permits() == 0 {
            self.fail_during_outage()?;
        }
        let end = tokio::time::Instant::now() + WAIT_TIME;
        let in_use = |_| unreachable(&self.location, "all connections to it are in use");
        let place = timeout_at(end, self.places.clone().acquire_owned()).await.map_err(in_use)?;
        let mut handle = PgHandle {
            connection: None,
            pool: self.clone(),
            is_busy: false,
            limit: super::STATEMENT_TIME,
            _place: place.map_err(|_| StoreError::Query(sqlx::Error::PoolClosed))?,
        };
        loop {
            handle.connection = self.idle_connection().await;
            if handle.connection.is_some() {
                return Ok(handle);
            }
            let away = match self.begin_attempt() {
                Ok(()) => {
                    // In a task of its own: the connection of a caller that gives up is of use to the next one.
                    let pool = self.clone();
                    let attempt = tokio::spawn(async move { pool.connect(handle).await });
                    let failed = |error: JoinError| unreachable(&self.location, error.to_string());
                    match attempt.await.map_err(failed)? {
                        Ok(connected) => return Ok(connected),
                        Err(failed) => {
                            let away;
                            (handle, away) = *failed;
                            away
                        }
                    }
                }
                Err(away) => away,
            };
            handle.connection = self.await_returned(away, end).await?;
            if handle.connection.is_some() {
                return Ok(handle);
            }
        }
    }

    /// An idle connection that works, as far as is known. Callers that wait for one come first.
    async fn idle_connection(&self) -> Option<Live> {
        while let Some((live, since)) = self.take_idle() {
            let live = self.tested(live, since).await;
            if live.is_some() {
                return live;
            }
        }
        None
    }

    /// The connection, if it works.
    async fn tested(&self, mut live: Live, since: Instant) -> Option<Live> {
        if since.elapsed() < TESTED_AFTER {
            return Some(live);
        }
        let answer = tokio::time::timeout(TEST_TIME, live.connection.ping()).await;
        if answer.is_ok_and(|done| done.is_ok()) {
            return Some(live);
        }
        // The others are as old.
        self.forget_idle();
        None
    }

    /// Waits until a connection is returned, after an attempt to connect has failed or was not due. `None` when the next attempt
    /// is due. Fails with the reason of the last one if there is no connection, or if none is returned in time.
    async fn await_returned(
        &self,
        away: StoreError,
        end: tokio::time::Instant,
    ) -> Result<Option<Live>, StoreError> {
        let closed = self.live.closed.notified();
        let due = match &*lock(&self.outage) {
            Some(outage) if self.is_closed_by(outage) => return Err(away),
            outage => outage.as_ref().map_or(end, |outage| outage.retry_at.into()),
        };
        tokio::select! {
            permit = self.returned.acquire() => {
                let Some((live, since)) = permit.ok().and_then(|permit| self.take_permitted(permit)) else {
                    return Ok(None);
                };
                Ok(self.tested(live, since).await)
            }
            () = closed => Ok(None),
            () = tokio::time::sleep_until(due.min(end)) => if due < end { Ok(None) } else { Err(away) },
        }
    }

    /// Whether callers fail because of failed attempts to connect, and do not wait for a connection that is in use.
    fn is_closed_by(&self, outage: &Outage) -> bool {
        outage.is_away || self.live.number.load(Ordering::SeqCst) == 0
    }

    /// Connects. A failure returns the handle, so that its caller keeps its place.
    async fn connect(&self, mut handle: PgHandle) -> Result<PgHandle, Box<(PgHandle, StoreError)>> {
        let first = self.last_host.load(Ordering::Relaxed);
        let attempt = link::connect(&self.location, &self.access, first);
        let connected = tokio::time::timeout(ATTEMPT_TIME, attempt).await;
        let silent = || ConnectError::from("the servers do not answer".to_owned());
        let connected = connected.unwrap_or_else(|_| Err(silent()));
        let mut outage = lock(&self.outage);
        match connected {
            Ok((connection, number)) => {
                self.last_host.store(number, Ordering::Relaxed);
                *outage = None;
                handle.connection = Some(Live { connection, _count: Count::of(&self.live) });
                Ok(handle)
            }
            Err(ConnectError { why, is_away }) => {
                // If the time was over before the last server was tried, the next attempt begins with another one.
                self.last_host.store((first + 1) % self.location.hosts.len().max(1), Ordering::Relaxed);
                let failures = outage.as_ref().map_or(0, |outage| outage.failures).saturating_add(1);
                let retry_at = Instant::now() + pause(failures, random());
                *outage = Some(Outage { why: why.clone(), is_away, failures, retry_at });
                Err(Box::new((handle, unreachable(&self.location, why))))
            }
        }
    }

    fn give_back(&self, live: Live) {
        if !self.is_closed.load(Ordering::SeqCst) {
            lock(&self.idle).push((live, Instant::now()));
            self.returned.add_permits(1);
        }
    }

    /// Fails if the database is away and the next attempt is not due.
    fn fail_during_outage(&self) -> Result<(), StoreError> {
        match &*lock(&self.outage) {
            Some(outage) if Instant::now() < outage.retry_at && self.is_closed_by(outage) => {
                Err(unreachable(&self.location, outage.why.clone()))
            }
            _ => Ok(()),
        }
    }

    /// The same; if it does not fail, the caller makes the next attempt, and the other callers fail until it has ended.
    fn begin_attempt(&self) -> Result<(), StoreError> {
        let mut outage = lock(&self.outage);
        match &mut *outage {
            Some(outage) if Instant::now() < outage.retry_at => {
                Err(unreachable(&self.location, outage.why.clone()))
            }
            Some(outage) => {
                outage.retry_at = Instant::now() + ATTEMPT_TIME;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn take_idle(&self) -> Option<(Live, Instant)> {
        self.take_permitted(self.returned.try_acquire().ok()?)
    }

    /// The connection that a permit stands for. `None` if all were closed meanwhile.
    fn take_permitted(&self, permit: SemaphorePermit<'_>) -> Option<(Live, Instant)> {
        permit.forget();
        lock(&self.idle).pop()
    }

    /// Closes the connections that are not in use: the server has gone.
    pub(super) fn forget_idle(&self) {
        let idle = std::mem::take(&mut *lock(&self.idle));
        self.returned.forget_permits(idle.len());
    }

    /// Closes all connections; those in use when they are returned.
    pub(super) async fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.places.close();
        let idle = std::mem::take(&mut *lock(&self.idle));
        for (live, _) in idle {
            // The server closes it as well when it notices.
            let _ = tokio::time::timeout(TEST_TIME, live.connection.close()).await;
        }
    }
}

/// A connection, which returns to the pool when it is dropped, unless a statement on it was interrupted.
pub(crate) struct PgHandle {
    connection: Option<Live>,
    pool: Arc<Pool>,
    is_busy: bool,
    /// The time limit of each statement.
    pub(crate) limit: Duration,
    _place: OwnedSemaphorePermit,
}

impl PgHandle {
    /// Closes the connection instead of returning it.
    pub(crate) fn close_on_drop(&mut self) {
        self.is_busy = true;
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Returns the connection for a statement. Unless [`Self::end`] follows, it is not used again.
    pub(super) fn begin(&mut self) -> Result<&mut PgConnection, StoreError> {
        self.is_busy = true;
        let live = self.connection.as_mut();
        live.map(|live| &mut live.connection).ok_or(StoreError::Query(sqlx::Error::PoolClosed))
    }

    /// The statement has ended, and the connection is ready for the next one.
    pub(super) fn end(&mut self) {
        self.is_busy = false;
    }
}

impl Drop for PgHandle {
    fn drop(&mut self) {
        // If a statement was interrupted, the connection is closed.
        if let Some(live) = self.connection.take().filter(|_| !self.is_busy) {
            self.pool.give_back(live);
        }
    }
}

/// The pause after so many failures: it doubles, and is shortened by up to a half at random.
fn pause(failures: u32, random: u64) -> Duration {
    let (first, longest) = PAUSES;
    let full = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    let thousandths = u32::try_from(random % 500).unwrap_or_default();
    full - full * thousandths / 1000
}

fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_two_seconds_and_differ() {
        let millis = |failures, random| pause(failures, random).as_millis();
        assert_eq!(
            [1, 2, 3, 5, 6, 40].map(|failures| millis(failures, 0)),
            [100, 200, 400, 1600, 2000, 2000]
        );
        assert_eq!([0, 250, 499, 500].map(|random| millis(6, random)), [2000, 1500, 1002, 2000]);
    }

    #[tokio::test]
    async fn each_attempt_begins_with_another_server() {
        use crate::database::{Connecting, Location, Network, Stream};
        use std::path::Path;
        use tokio::net::TcpStream;
        /// Records which servers are tried, and reaches none.
        #[derive(Default)]
        struct Unreachable(Mutex<Vec<String>>);
        impl Network for Unreachable {
            fn connect<'a>(&'a self, host: &'a str, _: u16) -> Connecting<'a, TcpStream> {
                lock(&self.0).push(host.to_owned());
                Box::pin(std::future::ready(Err("refused".to_owned())))
            }

            fn begin_tls<'a>(
                &'a self,
                _: TcpStream,
                _: &'a str,
                _: Option<&'a Path>,
            ) -> Connecting<'a, Box<dyn Stream>> {
                Box::pin(std::future::ready(Err("refused".to_owned())))
            }
        }
        let Ok(Location::Postgres(location)) = Location::parse("postgres://u@a,b,c/d", Path::new("/")) else {
            panic!()
        };
        let network = Arc::new(Unreachable::default());
        let access = Access { network: network.clone(), password: None, may_migrate: false };
        let pool = Pool::new(&location, &access);
        for expected in [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]] {
            pool.connection().await.map(drop).unwrap_err();
            assert_eq!(std::mem::take(&mut *lock(&network.0)), expected);
            lock(&pool.outage).as_mut().unwrap().retry_at = Instant::now();
        }
    }

    #[tokio::test]
    async fn while_a_server_hangs_statements_fail_at_once_apart_from_one_that_connects() {
        use crate::database::Location;
        use crate::scratch::access;
        // A server that accepts and says nothing.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgres://u@{}/d", silent.local_addr().unwrap());
        let Ok(Location::Postgres(location)) = Location::parse(&url, std::path::Path::new("/")) else {
            panic!()
        };
        let pool = Pool::new(&location, &access());
        let attempt = async || pool.connection().await.map(drop).unwrap_err().to_string();
        let first = attempt().await;
        assert!(first.contains("no answer within 4 seconds"), "{first}");
        // The next attempt is not due yet: nothing connects.
        let due = |at| lock(&pool.outage).as_mut().unwrap().retry_at = at;
        due(Instant::now() + Duration::from_secs(3600));
        let connected = async || {
            let mut count = 0;
            while tokio::time::timeout(Duration::ZERO, silent.accept()).await.is_ok() {
                count += 1;
            }
            count
        };
        assert_eq!(connected().await, 1);
        assert_eq!(attempt().await, first);
        assert_eq!(connected().await, 0);
        // When it is due, one caller connects, and the others fail with what is known.
        due(Instant::now());
        pool.begin_attempt().unwrap();
        assert!(pool.begin_attempt().is_err() && pool.fail_during_outage().is_err());
        // A caller that gives up leaves its place to others.
        assert_eq!(pool.places.available_permits(), CONNECTIONS);
    }
}
