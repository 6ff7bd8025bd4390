//! SQL statements that run on SQLite and on PostgreSQL. All modules with tables use them:
//!
//! ```text
//! sql("SELECT name, role FROM person WHERE tenant = $1").bind(self.tenant).fetch_all(self)
//! ```
//!
//! A statement runs either on the [`Store`], as its own transaction, or within a [`Writing`]. The values of a statement
//! are integers, texts and bytes; a row is read column by column into a tuple or a type that implements [`FromRow`].
//! SQLx is called only in [`sqlite`] and `postgres`, so that the modules with tables are compiled once for both
//! databases.
//!
//! Most SQL texts run on both. Where the databases differ, [`Dialect::pick`] has both texts side by side.

#[cfg(feature = "postgres")]
use crate::database::postgres;
use crate::database::{Database, sqlite};
use crate::writing::{Connection, Writing};
use crate::{Store, StoreError};
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};
use std::borrow::Cow;
use std::time::Duration;

/// Which SQL a database understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    #[cfg(feature = "postgres")]
    Postgres,
}

impl Dialect {
    /// Selects one of two texts.
    #[cfg_attr(not(feature = "postgres"), expect(unused_variables))]
    pub fn pick(self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match self {
            Self::Sqlite => sqlite,
            #[cfg(feature = "postgres")]
            Self::Postgres => postgres,
        }
    }
}

/// A value that a statement is given.
#[derive(Debug, Clone)]
pub(crate) enum Value<'v> {
    Int(i64),
    Text(Cow<'v, str>),
    Blob(Cow<'v, [u8]>),
    /// PostgreSQL has a type for each NULL.
    NullInt,
    NullText,
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<bool> for Value<'_> {
    /// Columns for booleans are integers: 0 or 1.
    fn from(is_true: bool) -> Self {
        Self::Int(is_true.into())
    }
}

impl<'v> From<&'v str> for Value<'v> {
    fn from(text: &'v str) -> Self {
        Self::Text(text.into())
    }
}

impl<'v> From<&'v String> for Value<'v> {
    fn from(text: &'v String) -> Self {
        Self::Text(text.as_str().into())
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl<'v> From<&'v [u8]> for Value<'v> {
    fn from(bytes: &'v [u8]) -> Self {
        Self::Blob(bytes.into())
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(number: Option<i64>) -> Self {
        number.map_or(Self::NullInt, Self::Int)
    }
}

impl<'v> From<Option<&'v str>> for Value<'v> {
    fn from(text: Option<&'v str>) -> Self {
        text.map_or(Self::NullText, Self::from)
    }
}

/// The text without NUL characters, which PostgreSQL can't store. They occur in reports from strangers.
pub(crate) fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// A statement with its values, not yet run.
pub(crate) struct Query<'v> {
    pub(crate) text: SqlStr,
    pub(crate) values: Vec<Value<'v>>,
    /// Whether the connection keeps the prepared statement. False for texts that rarely occur twice.
    pub(crate) is_kept: bool,
    /// Whether the parameters are `?`, in the order of the values, instead of `$1`, `$2` and so on. SQLite looks for each
    /// numbered parameter in a list of all others, which takes most of the time of a batch with thousands.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code))]
    pub(crate) is_unnumbered: bool,
    /// How long the caller waits for a PostgreSQL database, if it can go on without the answer.
    pub(crate) limit: Option<Duration>,
}

/// A statement. Its parameters are `$1`, `$2` and so on.
pub(crate) fn sql<'v>(text: &'static str) -> Query<'v> {
    Query { text: text.into_sql_str(), values: Vec::new(), is_kept: true, is_unnumbered: false, limit: None }
}

/// A statement whose text is put together from texts of this crate. Values are never part of the text.
pub(crate) fn built<'v>(text: String) -> Query<'v> {
    Query {
        text: AssertSqlSafe(text).into_sql_str(),
        values: Vec::new(),
        is_kept: true,
        is_unnumbered: false,
        limit: None,
    }
}

/// Like [`built`], for a statement whose parameters are all `?`, in the order of `values`.
pub(crate) fn unnumbered<'v>(text: String, values: impl IntoIterator<Item = Value<'v>>) -> Query<'v> {
    Query { values: values.into_iter().collect(), is_unnumbered: true, ..built(text) }
}

/// An `INSERT` of several rows: `head VALUES (?, ?), (?, ?) tail`.
pub(crate) fn insert<'v, R, const N: usize>(
    head: &str,
    rows: &'v [R],
    tail: &str,
    values: impl Fn(&'v R) -> [Value<'v>; N],
) -> Query<'v> {
    let row = format!("({})", parameters(N));
    let mut text = String::with_capacity(head.len() + rows.len() * (row.len() + 2) + tail.len() + 8);
    text.push_str(head);
    for number in 0..rows.len() {
        text.push_str(if number == 0 { " VALUES " } else { ", " });
        text.push_str(&row);
    }
    text.push(' ');
    text.push_str(tail);
    let mut all = Vec::with_capacity(rows.len() * N);
    rows.iter().for_each(|row| all.extend(values(row)));
    unnumbered(text, all)
}

/// The parameters of a list of `count` values, for [`unnumbered`].
pub(crate) fn parameters(count: usize) -> String {
    vec!["?"; count].join(", ")
}

/// The text with `$1`, `$2` and so on instead of each `?`.
#[cfg(any(test, feature = "postgres"))]
pub(crate) fn numbered(text: &str) -> String {
    let mut numbered = String::with_capacity(text.len() * 3);
    for (number, part) in text.split('?').enumerate() {
        if number > 0 {
            numbered.push('$');
            numbered.push_str(&number.to_string());
        }
        numbered.push_str(part);
    }
    numbered
}

/// The SQL for the sum of a column over all rows, at most the largest integer. The counts come from strangers, so a sum
/// of integers could overflow, which is an error in SQLite.
macro_rules! total {
    ($column:literal) => {
        concat!(
            "CASE WHEN sum(CAST(",
            $column,
            " AS DOUBLE PRECISION)) >= 9223372036854775807 THEN 9223372036854775807 ELSE CAST(coalesce(sum(CAST(",
            $column,
            " AS DOUBLE PRECISION)), 0) AS BIGINT) END"
        )
    };
}
pub(crate) use total;

/// The assignments of an upsert that add the inserted values to the stored ones. The results stay between 0 and the
/// largest integer.
pub(crate) fn added(dialect: Dialect, table: &str, columns: &[&str]) -> String {
    let one = |column: &&str| match dialect {
        // SQLite makes a floating-point number of a sum that overflows.
        Dialect::Sqlite => {
            format!("{column} = max(0, CAST({table}.{column} + excluded.{column} AS INTEGER))")
        }
        #[cfg(feature = "postgres")]
        Dialect::Postgres => format!(
            "{column} = CAST(greatest(0, least(9223372036854775807, CAST({table}.{column} AS NUMERIC) + excluded.{column})) AS BIGINT)"
        ),
    };
    columns.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Where a statement runs.
pub(crate) enum On<'c> {
    /// As its own transaction. Reading statements use a connection for reading, the others the one for writing.
    Store(&'c Store),
    /// As a part of this transaction.
    Writing(&'c mut Writing),
}

impl<'c> From<&'c Store> for On<'c> {
    fn from(store: &'c Store) -> Self {
        Self::Store(store)
    }
}

impl<'c> From<&'c mut Writing> for On<'c> {
    fn from(writing: &'c mut Writing) -> Self {
        Self::Writing(writing)
    }
}

impl<'v> Query<'v> {
    /// Adds the value of the next parameter.
    pub fn bind(mut self, value: impl Into<Value<'v>>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Sets whether the connection keeps the prepared statement; the default is true.
    pub fn kept(self, is_kept: bool) -> Self {
        Self { is_kept, ..self }
    }

    /// Sets how long the caller waits for a PostgreSQL database, for callers that can go on without the answer. SQLite has
    /// a time limit of its own.
    pub fn within(self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Runs a statement that changes rows. Returns their number.
    pub async fn execute(self, on: impl Into<On<'_>>) -> Result<u64, StoreError> {
        match on.into() {
            On::Store(store) if store.lease.is_some() => store.write_under_lease(&self).await,
            On::Store(store) => match &store.database {
                Database::Sqlite(database) => database.write(self).await,
                #[cfg(feature = "postgres")]
                Database::Postgres(database) => database.write(self, store.reach()).await,
            },
            On::Writing(writing) => writing.execute(&self).await,
        }
    }

    /// Runs the statement, and returns all rows.
    pub async fn fetch_all<T: FromRow>(self, on: impl Into<On<'_>>) -> Result<Vec<T>, StoreError> {
        let rows = self.rows(on.into()).await?;
        let mut read = Vec::with_capacity(rows.len());
        rows.each(|row| {
            read.push(T::from_row(row)?);
            Ok(())
        })?;
        Ok(read)
    }

    /// Calls `read` for each row, which may have any columns.
    pub async fn each(
        self,
        on: impl Into<On<'_>>,
        read: impl FnMut(&mut Row<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.rows(on.into()).await?.each(read)
    }

    /// Returns the first row, or `None` if there is none.
    pub async fn fetch_optional<T: FromRow>(self, on: impl Into<On<'_>>) -> Result<Option<T>, StoreError> {
        Ok(self.fetch_all(on).await?.into_iter().next())
    }

    /// Returns the first row. It is an error if there is none.
    pub async fn fetch_one<T: FromRow>(self, on: impl Into<On<'_>>) -> Result<T, StoreError> {
        self.fetch_optional(on).await?.ok_or(StoreError::Query(sqlx::Error::RowNotFound))
    }

    async fn rows(self, on: On<'_>) -> Result<Rows, StoreError> {
        Ok(match on {
            On::Store(store) => match &store.database {
                Database::Sqlite(database) => Rows::Sqlite(database.read(self).await?),
                #[cfg(feature = "postgres")]
                Database::Postgres(database) => Rows::Postgres(database.read(self, store.reach()).await?),
            },
            On::Writing(writing) => match &mut writing.connection {
                Connection::Sqlite(connection) => Rows::Sqlite(sqlite::rows(connection, self).await?),
                #[cfg(feature = "postgres")]
                Connection::Postgres(connection) => Rows::Postgres(postgres::rows(connection, &self).await?),
            },
        })
    }
}

enum Rows {
    Sqlite(Vec<sqlite::SqliteRow>),
    #[cfg(feature = "postgres")]
    Postgres(Vec<postgres::PgRow>),
}

impl Rows {
    fn len(&self) -> usize {
        match self {
            Self::Sqlite(rows) => rows.len(),
            #[cfg(feature = "postgres")]
            Self::Postgres(rows) => rows.len(),
        }
    }

    fn each(self, mut read: impl FnMut(&mut Row<'_>) -> Result<(), StoreError>) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(rows) => {
                rows.iter().try_for_each(|row| read(&mut Row { cells: Cells::Sqlite(row), next: 0 }))
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(rows) => {
                rows.iter().try_for_each(|row| read(&mut Row { cells: Cells::Postgres(row), next: 0 }))
            }
        }
    }
}

/// A row, which is read from the first column to the last.
pub(crate) struct Row<'r> {
    cells: Cells<'r>,
    next: usize,
}

enum Cells<'r> {
    Sqlite(&'r sqlite::SqliteRow),
    #[cfg(feature = "postgres")]
    Postgres(&'r postgres::PgRow),
}

impl Row<'_> {
    /// Reads the next column of the row.
    pub fn get<T: Column>(&mut self) -> Result<T, StoreError> {
        T::next(self)
    }

    fn read<T>(
        &mut self,
        from_sqlite: impl Fn(&sqlite::SqliteRow, usize) -> Result<T, sqlx::Error>,
        #[cfg(feature = "postgres")] from_postgres: impl Fn(&postgres::PgRow, usize) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        let at = self.next;
        self.next += 1;
        Ok(match self.cells {
            Cells::Sqlite(row) => from_sqlite(row, at)?,
            #[cfg(feature = "postgres")]
            Cells::Postgres(row) => from_postgres(row, at)?,
        })
    }
}

/// A type that a column can be read as: `i64`, `String` or `Vec<u8>`, or an `Option` of one where the column may be
/// NULL.
pub(crate) trait Column: Sized {
    fn next(row: &mut Row<'_>) -> Result<Self, StoreError>;
}

macro_rules! column {
    ($type:ty, $read:ident) => {
        impl Column for Option<$type> {
            fn next(row: &mut Row<'_>) -> Result<Self, StoreError> {
                row.read(
                    sqlite::$read,
                    #[cfg(feature = "postgres")]
                    postgres::$read,
                )
            }
        }

        impl Column for $type {
            fn next(row: &mut Row<'_>) -> Result<Self, StoreError> {
                let null = || StoreError::Query(sqlx::Error::Decode("the column is NULL".into()));
                row.get::<Option<$type>>()?.ok_or_else(null)
            }
        }
    };
}
column!(i64, integer);
column!(String, text);
column!(Vec<u8>, bytes);

/// A type that a row can be read as.
pub(crate) trait FromRow: Sized {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError>;
}

macro_rules! tuple {
    ($($type:ident)+) => {
        impl<$($type: Column),+> FromRow for ($($type,)+) {
            fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
                Ok(($(row.get::<$type>()?,)+))
            }
        }
    };
}
tuple!(A);
tuple!(A B);
tuple!(A B C);
tuple!(A B C D);
tuple!(A B C D E);
tuple!(A B C D E F);
tuple!(A B C D E F G);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_a_parameter_for_each_value() {
        let query = insert("INSERT INTO t (a, b)", &[1_i64, 2], "ON CONFLICT DO NOTHING", |row| {
            [Value::from(*row), Value::from("x")]
        });
        let text = "INSERT INTO t (a, b) VALUES (?, ?), (?, ?) ON CONFLICT DO NOTHING";
        assert_eq!((query.text.as_str(), query.values.len()), (text, 4));
        let text = "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4) ON CONFLICT DO NOTHING";
        assert_eq!(numbered(query.text.as_str()), text);
    }
}
