//! The PostgreSQL database: connects to it, and runs statements on it. SQLx's PostgreSQL driver is used only here.
//!
//! Transactions run beside each other at the level READ COMMITTED. Each row that a decision rests on is locked first,
//! and batches of rows are written in the order of their keys, so that two transactions do not wait for each other.

use super::StoreError;
use crate::query::{Query, Value, numbered, without_nul};
use crate::writing::Tries;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions};
use sqlx::{Arguments, AssertSqlSafe, Column, PgConnection, PgPool, Row, SqlSafeStr, SqlStr, TypeInfo};
use std::borrow::Cow;
use std::fmt;

pub(crate) use sqlx::postgres::PgRow;
pub(crate) type PgHandle = PoolConnection<sqlx::Postgres>;

/// Where a PostgreSQL database is, and how to sign in there.
#[derive(Clone)]
pub struct PostgresLocation(Box<PgConnectOptions>);

impl PostgresLocation {
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let options = url.parse::<PgConnectOptions>();
        let options = options.map_err(|error| StoreError::Open {
            // The URL may contain a password.
            path: "postgres://…".to_owned(),
            why: error.to_string(),
        })?;
        Ok(Self(Box::new(options)))
    }
}

impl fmt::Debug for PostgresLocation {
    /// Omits the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(options) = self;
        let (user, host, port) = (options.get_username(), options.get_host(), options.get_port());
        let database = options.get_database().unwrap_or(user);
        match options.get_socket() {
            Some(folder) => write!(f, "postgres://{user}@{}:{port}/{database}", folder.display()),
            None => write!(f, "postgres://{user}@{host}:{port}/{database}"),
        }
    }
}

/// The connections to a database.
#[derive(Clone)]
pub(crate) struct PostgresPool {
    pool: PgPool,
}

/// The maximum number of connections of one process.
const CONNECTIONS: u32 = 10;

impl PostgresPool {
    /// Connects and migrates.
    pub(super) async fn open(location: &PostgresLocation) -> Result<Self, StoreError> {
        let open =
            |error: sqlx::Error| StoreError::Open { path: format!("{location:?}"), why: error.to_string() };
        let options = PgPoolOptions::new().max_connections(CONNECTIONS);
        let pool = options.connect_with(location.0.as_ref().clone()).await.map_err(open)?;
        let migrated = crate::migrations::postgres().run(&pool).await;
        migrated.map_err(|error| super::migration_error(&format!("{location:?}"), error))?;
        Ok(Self { pool })
    }

    pub(crate) async fn connection(&self) -> Result<PgHandle, StoreError> {
        Ok(self.pool.acquire().await?)
    }

    /// Runs a statement that changes rows, as its own transaction. Returns their number.
    pub(crate) async fn write(&self, query: Query<'_>) -> Result<u64, StoreError> {
        let mut tries = Tries::default();
        loop {
            let done = execute(&mut *self.connection().await?, &query).await;
            if !tries.again(&done) {
                return done;
            }
        }
    }

    /// Runs a statement that reads.
    pub(crate) async fn read(&self, query: Query<'_>) -> Result<Vec<PgRow>, StoreError> {
        rows(&mut *self.connection().await?, query).await
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

/// Begins a transaction. The timeouts are part of it, since a pooler between the program and the database refuses them
/// as parameters of the connection. They end a wait behind a process that hangs, and this one's transaction if it hangs.
pub(crate) async fn begin(connection: &mut PgConnection) -> Result<(), StoreError> {
    let begin = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '30s'; \
                 SET LOCAL statement_timeout = '60s'; SET LOCAL idle_in_transaction_session_timeout = '60s'";
    sqlx::raw_sql(begin).execute(connection).await?;
    Ok(())
}

pub(crate) async fn execute(connection: &mut PgConnection, query: &Query<'_>) -> Result<u64, StoreError> {
    let statement = sqlx::query_with(text_of(query), arguments(&query.values)?).persistent(query.is_kept);
    Ok(statement.execute(connection).await.map_err(conflict)?.rows_affected())
}

pub(crate) async fn rows(connection: &mut PgConnection, query: Query<'_>) -> Result<Vec<PgRow>, StoreError> {
    let statement = sqlx::query_with(text_of(&query), arguments(&query.values)?).persistent(query.is_kept);
    statement.fetch_all(connection).await.map_err(conflict)
}

/// PostgreSQL knows numbered parameters only.
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

/// Creates a schema for one test in the database at the URL in the variable `STERNPOST_TEST_POSTGRES`.
#[cfg(test)]
pub(crate) async fn scratch() -> PostgresLocation {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let url = std::env::var("STERNPOST_TEST_POSTGRES")
        .expect("`./test` sets STERNPOST_TEST_POSTGRES to the URL of a server");
    let PostgresLocation(options) = PostgresLocation::parse(&url).unwrap();
    let schema = format!("t{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let mut connection = <PgConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).execute(&mut connection).await.unwrap();
    PostgresLocation(Box::new(options.options([("search_path", schema)])))
}
