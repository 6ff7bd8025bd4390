//! The connections to a PostgreSQL database: up to [`CONNECTIONS`], each used by one statement or transaction at a time.
//!
//! While the database is away, statements fail at once with [`StoreError::Unreachable`], apart from one at a time that
//! connects: a caller that can go on without the store, such as a policy look-up, must not wait for it. The pause between
//! two attempts grows, with jitter, so that many processes do not return together.

use super::link::{self, unreachable};
use crate::database::location::PostgresLocation;
use crate::{Access, StoreError};
use sqlx::{Connection, PgConnection};
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
    idle: Mutex<Vec<(PgConnection, Instant)>>,
    outage: Mutex<Option<Outage>>,
    /// The number of the server that the last connection was made to.
    last_host: AtomicUsize,
    is_closed: AtomicBool,
}

/// A database that can't be used.
struct Outage {
    why: String,
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
            outage: Mutex::default(),
            last_host: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
        })
    }

    /// Returns a connection that works, as far as is known.
    pub(super) async fn connection(self: &Arc<Self>) -> Result<PgHandle, StoreError> {
        self.fail_during_outage()?;
        let place = tokio::time::timeout(WAIT_TIME, self.places.clone().acquire_owned()).await;
        let place = match place {
            Ok(place) => place.map_err(|_| StoreError::Query(sqlx::Error::PoolClosed))?,
            Err(_) => return Err(unreachable(&self.location, "all connections to it are in use")),
        };
        let mut handle = PgHandle {
            connection: None,
            pool: self.clone(),
            is_busy: false,
            limit: super::STATEMENT_TIME,
            _place: place,
        };
        while let Some((mut connection, since)) = self.take_idle() {
            let is_alive = since.elapsed() < TESTED_AFTER
                || tokio::time::timeout(TEST_TIME, connection.ping()).await.is_ok_and(|done| done.is_ok());
            if is_alive {
                handle.connection = Some(connection);
                return Ok(handle);
            }
            // The others are as old.
            self.forget_idle();
        }
        self.begin_attempt()?;
        // In a task of its own: the connection of a caller that gives up is of use to the next one.
        let pool = self.clone();
        let attempt = tokio::spawn(async move { pool.connect(handle).await });
        attempt.await.map_err(|error| unreachable(&self.location, error.to_string()))?
    }

    async fn connect(&self, mut handle: PgHandle) -> Result<PgHandle, StoreError> {
        let first = self.last_host.load(Ordering::Relaxed);
        let attempt = link::connect(&self.location, &self.access, first);
        let connected = tokio::time::timeout(ATTEMPT_TIME, attempt).await;
        let connected = connected.unwrap_or_else(|_| Err("the servers do not answer".to_owned()));
        let mut outage = lock(&self.outage);
        match connected {
            Ok((connection, number)) => {
                self.last_host.store(number, Ordering::Relaxed);
                *outage = None;
                handle.connection = Some(connection);
                Ok(handle)
            }
            Err(why) => {
                // If the time was over before the last server was tried, the next attempt begins with another one.
                self.last_host.store((first + 1) % self.location.hosts.len().max(1), Ordering::Relaxed);
                let failures = outage.as_ref().map_or(0, |outage| outage.failures).saturating_add(1);
                let retry_at = Instant::now() + pause(failures, random());
                *outage = Some(Outage { why: why.clone(), failures, retry_at });
                Err(unreachable(&self.location, why))
            }
        }
    }

    /// Fails if the database is away and the next attempt is not due.
    fn fail_during_outage(&self) -> Result<(), StoreError> {
        match &*lock(&self.outage) {
            Some(outage) if Instant::now() < outage.retry_at => {
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

    fn take_idle(&self) -> Option<(PgConnection, Instant)> {
        lock(&self.idle).pop()
    }

    /// Closes the connections that are not in use: the server has gone.
    pub(super) fn forget_idle(&self) {
        lock(&self.idle).clear();
    }

    /// Closes all connections; those in use when they are returned.
    pub(super) async fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.places.close();
        let idle = std::mem::take(&mut *lock(&self.idle));
        for (connection, _) in idle {
            // The server closes it as well when it notices.
            let _ = tokio::time::timeout(TEST_TIME, connection.close()).await;
        }
    }
}

/// A connection, which returns to the pool when it is dropped, unless a statement on it was interrupted.
pub(crate) struct PgHandle {
    connection: Option<PgConnection>,
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
        self.connection.as_mut().ok_or(StoreError::Query(sqlx::Error::PoolClosed))
    }

    /// The statement has ended, and the connection is ready for the next one.
    pub(super) fn end(&mut self) {
        self.is_busy = false;
    }
}

impl Drop for PgHandle {
    fn drop(&mut self) {
        let reusable = self.connection.take().filter(|_| !self.is_busy);
        if let Some(connection) = reusable.filter(|_| !self.pool.is_closed.load(Ordering::SeqCst)) {
            lock(&self.pool.idle).push((connection, Instant::now()));
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
