//! The PostgreSQL database: runs statements on it. SQLx's PostgreSQL driver is used only here and in the modules below:
//! [`link`] connects to a server, [`pool`] keeps the connections, [`schema`] migrates.
//!
//! Transactions run beside each other at the level READ COMMITTED. Each row that a decision rests on is locked first,
//! and batches of rows are written in the order of their keys, so that two transactions do not wait for each other.

mod link;
mod pool;
pub(crate) mod schema;

use super::StoreError;
use super::location::PostgresLocation;
use crate::query::{Query, Value, numbered, without_nul};
use crate::writing::Tries;
use crate::{Access, Reach};
use link::{Servers, reason, unreachable};
use pool::Pool;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments, AssertSqlSafe, Column, PgConnection, Row, SqlSafeStr, SqlStr, TypeInfo};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use sqlx::postgres::PgRow;

/// A connection of the pool.
pub(crate) type PgHandle = pool::Handle<Servers>;

/// The connections to a database.
#[derive(Clone)]
pub(crate) struct PostgresPool {
    pool: Arc<Pool<Servers>>,
}

/// The time limit of a statement: after it the database counts as away. That of the server is shorter where it applies.
const STATEMENT_TIME: Duration = Duration::from_secs(65);

impl PostgresPool {
    /// Connects. The schema is neither looked at nor changed.
    pub(super) async fn open(location: &PostgresLocation, access: &Access) -> Result<Self, StoreError> {
        let opened = Self { pool: Pool::new(Servers::new(location, access)) };
        drop(opened.connection(None).await?);
        Ok(opened)
    }

    /// Returns a connection whose statements have this time limit, for a caller that can go on without them; `None` stands
    /// for the usual one.
    pub(crate) async fn connection(&self, limit: Option<Duration>) -> Result<PgHandle, StoreError> {
        let handle = self.pool.connection(limit.is_some()).await;
        let mut handle = handle.map_err(|error| self.pool.connector.error(error))?;
        handle.limit = limit.unwrap_or(handle.limit);
        Ok(handle)
    }

    fn location(&self) -> &PostgresLocation {
        &self.pool.connector.location
    }

    /// Runs a statement that changes rows, as its own transaction. Returns their number.
    pub(crate) async fn write(&self, query: Query<'_>, reach: Reach) -> Result<u64, StoreError> {
        let mut tries = Tries::default();
        loop {
            let done = self.within(query.limit, self.write_once(&query, reach)).await;
            if !tries.again(&done) {
                return done;
            }
        }
    }

    /// Begins and commits also where the statement alone would be a transaction: a statement that is given up, while it waits
    /// for a lock, must not be carried out when the lock is free.
    async fn write_once(&self, query: &Query<'_>, reach: Reach) -> Result<u64, StoreError> {
        let mut handle = self.connection(query.limit).await?;
        begin(&mut handle, reach).await?;
        let done = execute(&mut handle, query).await;
        end(&mut handle, done).await
    }

    /// Runs a statement that reads. On a connection that turns out to be lost, it is run again on another one.
    pub(crate) async fn read(&self, query: Query<'_>, reach: Reach) -> Result<Vec<PgRow>, StoreError> {
        let reading = async {
            match self.read_once(&query, reach).await {
                Err(StoreError::Unreachable { .. }) => self.read_once(&query, reach).await,
                done => done,
            }
        };
        self.within(query.limit, reading).await
    }

    async fn read_once(&self, query: &Query<'_>, reach: Reach) -> Result<Vec<PgRow>, StoreError> {
        let mut handle = self.connection(query.limit).await?;
        if self.location().kept_statements > 0 && reach == Reach::DEFAULT {
            return rows(&mut handle, query).await;
        }
        begin(&mut handle, reach).await?;
        let done = rows(&mut handle, query).await;
        end(&mut handle, done).await
    }

    /// Ends after `limit`, with the wait for a connection.
    async fn within<T>(
        &self,
        limit: Option<Duration>,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let Some(limit) = limit else { return work.await };
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            // What hangs here hangs for the next caller as well.
            self.pool.forget_idle();
            Err(unreachable(self.location(), format!("no answer within {} seconds", limit.as_secs_f32())))
        })
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '30s'; \
    SET LOCAL statement_timeout = '60s'; SET LOCAL idle_in_transaction_session_timeout = '60s'";
/// As [`BEGIN`], with the settings that a direct connection has anyway (`link`).
const BEGIN_POOLED: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '30s'; \
    SET LOCAL statement_timeout = '60s'; SET LOCAL idle_in_transaction_session_timeout = '60s'; \
    SELECT set_config('client_connection_check_interval', '1s', true) \
    WHERE current_setting('client_connection_check_interval', true) IS NOT NULL AND version() LIKE '%linux%'";

/// Begins a transaction. The timeouts are part of it, since a pooler between the program and the database refuses them
/// as parameters of the connection. They end a wait behind a process that hangs, and this one's transaction if it hangs.
/// So is the tenant whose rows row-level security shows.
pub(crate) async fn begin(handle: &mut PgHandle, reach: Reach) -> Result<(), StoreError> {
    let limit = handle.limit;
    let (begin, is_set) = match location(handle).kept_statements > 0 {
        true => (BEGIN, reach == Reach::DEFAULT),
        false => (BEGIN_POOLED, false),
    };
    let text = match is_set {
        true => begin.into_sql_str(),
        false => AssertSqlSafe(format!("{begin}; SET LOCAL sternpost.tenant = '{reach}'")).into_sql_str(),
    };
    run_text(handle, text, limit).await
}

/// Ends the transaction of a single statement. If the connection does not answer any more, it is closed instead, which undoes
/// the transaction.
async fn end<T>(handle: &mut PgHandle, done: Result<T, StoreError>) -> Result<T, StoreError> {
    let text = match &done {
        Ok(_) => "COMMIT",
        Err(StoreError::Unreachable { .. }) => return done,
        Err(_) => "ROLLBACK",
    };
    let limit = handle.limit;
    let ended = run_text(handle, text.into_sql_str(), limit).await;
    // Of two errors the first is the cause.
    done.and_then(|done| ended.map(|()| done))
}

fn location(handle: &PgHandle) -> &PostgresLocation {
    &handle.pool().connector.location
}

/// The connection for a statement, which [`ended`] follows.
fn connection(handle: &mut PgHandle) -> Result<&mut PgConnection, StoreError> {
    let closed = |_| StoreError::Query(sqlx::Error::PoolClosed);
    handle.begin().map_err(closed)
}

/// Runs statements without values and rows.
async fn run_text(handle: &mut PgHandle, text: SqlStr, limit: Duration) -> Result<(), StoreError> {
    let work = sqlx::raw_sql(text).execute(connection(handle)?);
    let done = tokio::time::timeout(limit, work).await;
    ended(handle, done, limit).map(drop)
}

pub(crate) async fn execute(handle: &mut PgHandle, query: &Query<'_>) -> Result<u64, StoreError> {
    let is_kept = query.is_kept && location(handle).kept_statements > 0;
    let statement = sqlx::query_with(text_of(query), arguments(&query.values)?).persistent(is_kept);
    let limit = handle.limit;
    let done = tokio::time::timeout(limit, statement.execute(connection(handle)?)).await;
    Ok(ended(handle, done, limit)?.rows_affected())
}

pub(crate) async fn rows(handle: &mut PgHandle, query: &Query<'_>) -> Result<Vec<PgRow>, StoreError> {
    let is_kept = query.is_kept && location(handle).kept_statements > 0;
    let statement = sqlx::query_with(text_of(query), arguments(&query.values)?).persistent(is_kept);
    let limit = handle.limit;
    let done = tokio::time::timeout(limit, statement.fetch_all(connection(handle)?)).await;
    ended(handle, done, limit)
}

/// Decides from the outcome of a statement whether the connection can be used again, and whether the others can.
fn ended<T>(
    handle: &mut PgHandle,
    done: Result<Result<T, sqlx::Error>, tokio::time::error::Elapsed>,
    limit: Duration,
) -> Result<T, StoreError> {
    let why = match done {
        Ok(Ok(done)) => {
            handle.end();
            return Ok(done);
        }
        Ok(Err(error)) if is_lost(&error) => reason(&error),
        Ok(Err(error)) => {
            handle.end();
            return Err(conflict(error));
        }
        Err(_) => format!("no answer within {} seconds", limit.as_secs()),
    };
    handle.pool().forget_idle();
    Err(unreachable(location(handle), why))
}

/// True if the server has gone, is about to go, or has become read-only, as after a failover.
fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            true
        }
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // A time limit of the server for idle transactions (25P03) closes the connection as well.
            code.starts_with("08")
                || matches!(&*code, "25006" | "25P03" | "57P01" | "57P02" | "57P03" | "57P05")
        }),
        _ => false,
    }
}

/// The text of a statement with numbered parameters, since PostgreSQL has no others.
fn text_of(query: &Query<'_>) -> SqlStr {
    match query.is_unnumbered {
        true => AssertSqlSafe(numbered(query.text.as_str())).into_sql_str(),
        false => query.text.clone(),
    }
}

/// Recognizes a serialization failure (40001) and a deadlock (40P01).
fn conflict(error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(|error| error.code());
    let is_conflict = matches!(code.as_deref(), Some("40001" | "40P01"));
    if is_conflict { StoreError::Conflict(error) } else { StoreError::Query(error) }
}

fn arguments(values: &[Value<'_>]) -> Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    arguments.reserve(values.len(), 0);
    for value in values {
        let added = match value {
            Value::Int(number) => arguments.add(*number),
            Value::Text(text) => arguments.add(&*without_nul(text)),
            Value::Blob(bytes) => arguments.add(Cow::as_ref(bytes)),
            Value::NullInt => arguments.add(None::<i64>),
            Value::NullText => arguments.add(None::<&str>),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// Reads a column of any integer type.
pub(crate) fn integer(row: &PgRow, at: usize) -> Result<Option<i64>, sqlx::Error> {
    match row.try_column(at)?.type_info().name() {
        "INT4" => Ok(row.try_get::<Option<i32>, _>(at)?.map(i64::from)),
        _ => row.try_get(at),
    }
}

pub(crate) fn text(row: &PgRow, at: usize) -> Result<Option<String>, sqlx::Error> {
    row.try_get(at)
}

pub(crate) fn bytes(row: &PgRow, at: usize) -> Result<Option<Vec<u8>>, sqlx::Error> {
    row.try_get(at)
}

#[cfg(test)]
pub(crate) mod tests;
