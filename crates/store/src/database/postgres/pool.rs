//! The connections to a PostgreSQL database: up to [`CONNECTIONS`], each used by one statement or transaction at a time.
//!
//! A caller takes an idle connection, or waits for one in the order of arrival. While callers wait, a task connects for them,
//! and each connection that is returned goes to the first of them as well, so a failed attempt to connect is no failure of a
//! statement as long as other connections work: the server may refuse a further one (`max_connections`), or a password
//! file may just be changing. A server that is full is waited for, even without any connection.
//!
//! While the database is away, statements fail at once with [`StoreError::Unreachable`](crate::StoreError::Unreachable), apart
//! from one at a time that connects: a caller that can go on without the store, such as a policy lookup, must not wait for
//! it. The pause between two attempts grows, with jitter, so that many processes do not return together.
//!
//! Connections that are idle for long are closed, apart from one, since other processes may need their places in the server.
//! Where the server may be full, a pool that is always busy gives up places as well: it closes a connection from time to time
//! while it has more than [`FAIR_CONNECTIONS`], and waits before it makes the next one. Otherwise the process that comes last
//! would have no connection for as long as the others are busy.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

/// The maximum number of connections of one process.
pub(super) const CONNECTIONS: usize = 10;
/// How long a caller waits for one of them.
const WAIT_TIME: Duration = Duration::from_secs(10);
/// A connection that was idle for longer is tested before it is used.
const TESTED_AFTER: Duration = Duration::from_secs(1);
/// The time limit for the test of a connection that was idle.
const TEST_TIME: Duration = Duration::from_secs(2);
/// The first and the longest pause between two attempts to connect.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// If connecting fails and no statement has ended well for this long, the connections in use may hang. A caller that can go on
/// without the store does not wait for them.
const DOUBT_AFTER: Duration = Duration::from_secs(2);
/// Connections that are idle for this long are closed, apart from [`KEPT_IDLE`]. It is shorter than [`WAIT_TIME`], in which
/// another process waits for a place in the server.
const IDLE_TIME: Duration = Duration::from_secs(5);
const KEPT_IDLE: usize = 1;
/// So many connections a pool keeps although other processes may have none: five processes then fit into a server with
/// `max_connections = 20`, of which three are reserved.
const FAIR_CONNECTIONS: usize = 3;
/// A connection of a pool that has more of them may be closed at this age.
const SHARED_AFTER: Duration = Duration::from_secs(5);
/// How long a pool that has closed such a connection makes no other, and closes no other.
const SHARE_PAUSE: Duration = Duration::from_secs(3);
/// How long a pool that has its fair share makes no connection after the server refused one because it was full. Without a fair
/// share, the second pause ([`PAUSES`]) is the longest, so that such a pool comes first when there is a place.
const FULL_PAUSE: Duration = Duration::from_secs(5);
const HUNGRY_ATTEMPTS: u32 = 2;
/// How long a server counts as full after it refused a connection.
const FULL_TIME: Duration = Duration::from_secs(60);

/// Makes connections for a pool.
pub(crate) trait Connector: Send + Sync + 'static {
    type Connection: Send + 'static;

    /// Connects. Ends within seconds.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Refusal>> + Send;

    /// True if the server still answers on an idle connection.
    fn is_alive(&self, connection: &mut Self::Connection) -> impl Future<Output = bool> + Send;

    /// Closes a connection, with a word to the server.
    fn close(&self, connection: Self::Connection) -> impl Future<Output = ()> + Send;
}

/// Why an attempt to connect failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// In one line.
    pub why: String,
    /// True if the server works and has no place for another connection at the moment.
    pub is_full: bool,
    /// True if the server works and has no database of this name.
    pub is_missing: bool,
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self { why, is_full: false, is_missing: false }
    }
}

/// Why there is no connection for a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoConnection {
    /// The pool was closed.
    Closed,
    /// The reason, in one line.
    Away(String),
}

pub(super) struct Pool<C: Connector> {
    pub(super) connector: C,
    state: Mutex<State<C>>,
    /// Notified when a connection is lost: the server may have a place again.
    lost: Notify,
    /// Where connections are made and closed, whoever drops a handle.
    runtime: runtime::Handle,
}

struct State<C: Connector> {
    /// The last one returned is used first. While callers wait there is none.
    idle: Vec<Idle<C>>,
    /// The number of connections that exist: idle, in use, or on the way to a caller.
    open: usize,
    /// Whether a task makes connections. It ends when no caller waits.
    is_connecting: bool,
    /// Whether a task closes connections that are idle for long.
    is_trimming: bool,
    waiters: VecDeque<oneshot::Sender<Handle<C>>>,
    /// Why the last attempt to connect failed; `None` if it did not.
    failure: Option<Failure>,
    /// When a statement ended well, or a connection was made.
    worked_at: Option<Instant>,
    /// When the server refused a connection because it was full.
    full_at: Option<Instant>,
    /// When a connection was closed for the sake of other processes.
    left_at: Option<Instant>,
    /// Until then, no connection beyond [`FAIR_CONNECTIONS`] is made.
    shares_until: Option<Instant>,
    is_closed: bool,
}

struct Idle<C: Connector> {
    connection: C::Connection,
    /// When the connection was made.
    made_at: Instant,
    /// Since when it is idle.
    since: Instant,
}

struct Failure {
    why: String,
    /// The number of attempts that failed, one after the other.
    attempts: u32,
    /// No attempt begins before, unless a connection is lost.
    retry_at: Instant,
    /// True if there was no other connection, so that the database counts as away.
    is_outage: bool,
}

/// What a caller does next.
enum Turn<C: Connector> {
    /// Uses a connection that was idle since then.
    Use(Handle<C>, Instant),
    Wait(oneshot::Receiver<Handle<C>>),
}

impl<C: Connector> Pool<C> {
    pub(super) fn new(connector: C) -> Arc<Self> {
        Arc::new(Self {
            connector,
            state: Mutex::new(State {
                idle: Vec::new(),
                open: 0,
                is_connecting: false,
                is_trimming: false,
                waiters: VecDeque::new(),
                failure: None,
                worked_at: None,
                full_at: None,
                left_at: None,
                shares_until: None,
                is_closed: false,
            }),
            lost: Notify::new(),
            runtime: runtime::Handle::current(),
        })
    }

    /// Returns a connection that works, as far as is known. `is_brief` is true for a caller that can go on without the store:
    /// it does not wait for connections that may hang.
    pub(super) async fn connection(self: &Arc<Self>, is_brief: bool) -> Result<Handle<C>, NoConnection> {
        let deadline = Instant::now() + WAIT_TIME;
        loop {
            match self.turn(is_brief)? {
                Turn::Use(mut handle, since) => {
                    if since.elapsed() < TESTED_AFTER || handle.is_alive().await {
                        return Ok(handle);
                    }
                    // The others are as old.
                    drop(handle);
                    self.forget_idle();
                }
                Turn::Wait(turn) => match timeout_at(deadline, turn).await {
                    Ok(Ok(handle)) => return Ok(handle),
                    // The database is away, or the pool was closed: the next turn says so.
                    Ok(Err(_)) => {}
                    Err(_) => return Err(self.late()),
                },
            }
        }
    }

    fn turn(self: &Arc<Self>, is_brief: bool) -> Result<Turn<C>, NoConnection> {
        let mut state = self.state();
        if state.is_closed {
            return Err(NoConnection::Closed);
        }
        if let Some(Idle { connection, made_at, since }) = state.idle.pop() {
            return Ok(Turn::Use(self.handle(connection, made_at), since));
        }
        let now = Instant::now();
        if let Some(failure) = &state.failure {
            let is_due = now >= failure.retry_at && !state.is_connecting;
            let is_doubtful =
                state.worked_at.is_none_or(|worked| now.saturating_duration_since(worked) > DOUBT_AFTER);
            if !is_due && (failure.is_outage || is_brief && is_doubtful) {
                return Err(NoConnection::Away(failure.why.clone()));
            }
        }
        while state.waiters.front().is_some_and(oneshot::Sender::is_closed) {
            state.waiters.pop_front();
        }
        let (sender, receiver) = oneshot::channel();
        state.waiters.push_back(sender);
        self.connect_if_wanted(state);
        Ok(Turn::Wait(receiver))
    }

    /// The error of a caller that has waited for too long.
    fn late(&self) -> NoConnection {
        let state = self.state();
        NoConnection::Away(match &state.failure {
            Some(failure) if state.open == 0 => failure.why.clone(),
            Some(failure) if state.open < CONNECTIONS => {
                format!("all connections to it are in use, and a further one fails: {}", failure.why)
            }
            _ => "all connections to it are in use".to_owned(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(self: &Arc<Self>, connection: C::Connection, made_at: Instant) -> Handle<C> {
        Handle {
            connection: Some(connection),
            made_at,
            pool: self.clone(),
            is_busy: false,
            limit: super::STATEMENT_TIME,
        }
    }

    /// Starts the task that connects, if callers wait and it does not run.
    fn connect_if_wanted(self: &Arc<Self>, mut state: MutexGuard<'_, State<C>>) {
        if !state.is_connecting && state.goes_on_connecting() {
            // A runtime that ends drops the task at once, and so takes the lock.
            drop(state);
            // In a task of its own: the connection of a caller that gives up is of use to the next one.
            let task = Connecting { pool: self.clone(), is_over: false };
            self.runtime.spawn(task.run());
        }
    }

    /// Takes a new connection, and gives it to the first caller.
    fn opened(self: &Arc<Self>, connection: C::Connection) {
        let mut state = self.state();
        let now = Instant::now();
        state.failure = None;
        state.worked_at = Some(now);
        state.open += 1;
        drop(state);
        self.give(connection, now);
    }

    /// Notes that connecting failed. Returns true if callers still wait.
    fn refused(&self, refusal: Refusal) -> bool {
        let mut state = self.state();
        let attempts = state.failure.as_ref().map_or(0, |failure| failure.attempts).saturating_add(1);
        let is_outage = state.open == 0 && !refusal.is_full;
        let now = Instant::now();
        let is_hungry = refusal.is_full && state.open < FAIR_CONNECTIONS;
        let attempts_for_pause = if is_hungry { attempts.min(HUNGRY_ATTEMPTS) } else { attempts };
        let retry_at = now + pause(attempts_for_pause, random());
        if refusal.is_full {
            state.full_at = Some(now);
            state.shares_until = Some(now + FULL_PAUSE);
        }
        state.failure = Some(Failure { why: refusal.why, attempts, retry_at, is_outage });
        if is_outage {
            state.waiters.clear();
        }
        state.goes_on_connecting()
    }

    /// Gives a connection to the first caller that waits, or keeps it, or leaves its place to another process.
    fn give(self: &Arc<Self>, connection: C::Connection, made_at: Instant) {
        let mut handle = self.handle(connection, made_at);
        loop {
            let mut state = self.state();
            if state.leaves_place(made_at) {
                drop(state);
                let (pool, connection) = (self.clone(), handle.connection.take());
                self.runtime.spawn(async move {
                    if let Some(connection) = connection {
                        pool.connector.close(connection).await;
                        pool.lose(1);
                    }
                });
                return;
            }
            let Some(waiter) = state.waiters.pop_front() else {
                // Taken out of the handle, whose drop would return it once more.
                let connection = handle.connection.take();
                match state.is_closed {
                    true => state.open -= 1,
                    false => {
                        let since = Instant::now();
                        state.idle.extend(connection.map(|connection| Idle { connection, made_at, since }));
                    }
                }
                if state.idle.len() > KEPT_IDLE && !state.is_trimming {
                    state.is_trimming = true;
                    self.runtime.spawn(trim(Arc::downgrade(self)));
                }
                return;
            };
            drop(state);
            match waiter.send(handle) {
                Ok(()) => return,
                // This caller has given up.
                Err(back) => handle = back,
            }
        }
    }

    /// Notes that connections do not exist any more.
    fn lose(self: &Arc<Self>, count: usize) {
        if count > 0 {
            let mut state = self.state();
            state.open -= count;
            self.connect_if_wanted(state);
            self.lost.notify_one();
        }
    }

    /// Closes the connections that are not in use: the server has gone.
    pub(super) fn forget_idle(self: &Arc<Self>) {
        let idle = std::mem::take(&mut self.state().idle);
        self.lose(idle.len());
    }

    /// Closes all connections; those in use when they are returned.
    pub(super) async fn close(&self) {
        let idle = {
            let mut state = self.state();
            state.is_closed = true;
            state.waiters.clear();
            state.open -= state.idle.len();
            std::mem::take(&mut state.idle)
        };
        for idle in idle {
            self.connector.close(idle.connection).await;
        }
    }

    fn shares_until(&self) -> Option<Instant> {
        self.state().shares_until()
    }

    fn worked(&self) {
        self.state().worked_at = Some(Instant::now());
    }
}

impl<C: Connector> State<C> {
    fn wants_connection(&self) -> bool {
        !self.is_closed && self.open < CONNECTIONS && self.waiters.iter().any(|waiter| !waiter.is_closed())
    }

    /// Decides whether the task that connects goes on. It is over if not: the next caller starts it again.
    fn goes_on_connecting(&mut self) -> bool {
        self.is_connecting = self.wants_connection();
        self.is_connecting
    }

    /// Takes out what is idle for too long.
    fn take_old(&mut self) -> Vec<C::Connection> {
        let extra = self.idle.len().saturating_sub(KEPT_IDLE);
        // The oldest are first.
        let is_old = |idle: &&Idle<C>| idle.since.elapsed() >= IDLE_TIME;
        let old = self.idle.iter().take(extra).take_while(is_old).count();
        self.open -= old;
        self.idle.drain(..old).map(|idle| idle.connection).collect()
    }

    /// Decides whether a connection that is returned leaves its place in the server to another process: if this pool is busy
    /// and has many, and the server may be full. Another one follows after [`SHARE_PAUSE`] at the earliest.
    fn leaves_place(&mut self, made_at: Instant) -> bool {
        let now = Instant::now();
        let since = |at: Instant| now.saturating_duration_since(at);
        let is_full = self.open == CONNECTIONS || self.full_at.is_some_and(|at| since(at) < FULL_TIME);
        let leaves = !self.is_closed
            && is_full
            && self.open > FAIR_CONNECTIONS
            && self.idle.is_empty()
            && since(made_at) >= SHARED_AFTER
            && self.left_at.is_none_or(|at| since(at) >= SHARE_PAUSE);
        if leaves {
            self.left_at = Some(now);
            self.shares_until = Some(now + SHARE_PAUSE);
        }
        leaves
    }

    /// Until when no connection is made, so that another process can have the place.
    fn shares_until(&self) -> Option<Instant> {
        self.shares_until.filter(|until| self.open >= FAIR_CONNECTIONS && *until > Instant::now())
    }
}

/// The task that connects. If it ends in another way than by [`State::goes_on_connecting`], callers do not wait for it.
struct Connecting<C: Connector> {
    pool: Arc<Pool<C>>,
    is_over: bool,
}

impl<C: Connector> Connecting<C> {
    async fn run(mut self) {
        let pool = self.pool.clone();
        loop {
            let retry_at = pool.state().failure.as_ref().map(|failure| failure.retry_at);
            if let Some(retry_at) = retry_at {
                let _ = timeout_at(retry_at, pool.lost.notified()).await;
            }
            // With a lost connection, the pool may have less than its fair share.
            while let Some(until) = pool.shares_until() {
                let _ = timeout_at(until, pool.lost.notified()).await;
            }
            // Connections may have been returned during the pause.
            let mut goes_on = pool.state().goes_on_connecting();
            if goes_on {
                goes_on = match pool.connector.connect().await {
                    Ok(connection) => {
                        pool.opened(connection);
                        pool.state().goes_on_connecting()
                    }
                    Err(refusal) => pool.refused(refusal),
                };
            }
            if !goes_on {
                self.is_over = true;
                return;
            }
        }
    }
}

impl<C: Connector> Drop for Connecting<C> {
    fn drop(&mut self) {
        if !self.is_over {
            let mut state = self.pool.state();
            state.is_connecting = false;
            state.waiters.clear();
        }
    }
}

/// Closes connections that are idle for long, until few are left.
async fn trim<C: Connector>(pool: Weak<Pool<C>>) {
    let mut due = Instant::now() + IDLE_TIME;
    loop {
        tokio::time::sleep_until(due).await;
        let Some(pool) = pool.upgrade() else { return };
        let old = pool.state().take_old();
        for connection in old {
            pool.connector.close(connection).await;
        }
        let mut state = pool.state();
        state.is_trimming = state.idle.len() > KEPT_IDLE;
        match state.idle.first() {
            Some(idle) if state.is_trimming => due = idle.since + IDLE_TIME,
            _ => return,
        }
    }
}

/// A connection, which returns to the pool when it is dropped, unless a statement on it was interrupted.
pub(crate) struct Handle<C: Connector> {
    /// `None` only while it is dropped.
    connection: Option<C::Connection>,
    made_at: Instant,
    pool: Arc<Pool<C>>,
    is_busy: bool,
    /// The time limit of each statement.
    pub(crate) limit: Duration,
}

impl<C: Connector> Handle<C> {
    /// Closes the connection instead of returning it.
    pub(crate) fn close_on_drop(&mut self) {
        self.is_busy = true;
    }

    pub(super) fn pool(&self) -> &Arc<Pool<C>> {
        &self.pool
    }

    /// Returns the connection for a statement. Unless [`Self::end`] follows, it is not used again.
    pub(super) fn begin(&mut self) -> Result<&mut C::Connection, NoConnection> {
        self.is_busy = true;
        self.connection.as_mut().ok_or(NoConnection::Closed)
    }

    /// The statement has ended, and the connection is ready for the next one.
    pub(super) fn end(&mut self) {
        self.is_busy = false;
        self.pool.worked();
    }

    async fn is_alive(&mut self) -> bool {
        self.is_busy = true;
        let Some(connection) = &mut self.connection else { return false };
        let is_alive = timeout(TEST_TIME, self.pool.connector.is_alive(connection)).await.unwrap_or(false);
        self.is_busy = !is_alive;
        is_alive
    }
}

impl<C: Connector> Drop for Handle<C> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        match self.is_busy {
            true => {
                drop(connection);
                self.pool.lose(1);
            }
            false => self.pool.give(connection, self.made_at),
        }
    }
}

/// The pause after this number of failures. It doubles with each, and is shortened by up to a half at random.
fn pause(failures: u32, random: u64) -> Duration {
    let (first, longest) = RETRY_DELAYS;
    let full = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    let thousandths = u32::try_from(random % 500).unwrap_or_default();
    full - full * thousandths / 1000
}

fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests;
