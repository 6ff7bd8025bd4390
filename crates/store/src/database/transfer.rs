//! `sternpost store copy`: copies all data of one database into another one, of either kind, while no server runs.
//!
//! Each table is copied in the order of its primary key, some rows per transaction, so that an interrupted copy goes on after
//! the last key of the target ([`CopyOptions::resumes`]). While a copy is not complete, a row of the table `lease` says so, and
//! [`Store::connect`] refuses the target. Leases are not copied: they belong to processes.

mod catalog;

use super::{Access, Database, Location, Store, StoreError};
use crate::query::{Dialect, Value, built, sql, unnumbered};
use crate::writing::Writing;
use catalog::{Column, Table};
use std::collections::BTreeSet;
use std::time::Duration;

/// The name of the lease of an unfinished copy. Its holder is the location of the source.
const UNFINISHED: &str = "store copy";

/// The maximum number of values in one statement; SQLite's limit is 32766.
const MAX_VALUES: usize = 30_000;
/// The maximum number of rows in one transaction, and the same for tables with messages or reports.
const PAGE_ROWS: (u32, u32) = (1000, 32);

/// How often, and after which pauses, it is looked whether a connection has been closed.
const CLOSING_TRIES: u32 = 15;
const CLOSING_PAUSE: Duration = Duration::from_millis(100);

/// How a copy is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyOptions {
    /// Whether a copy from the same source that was interrupted goes on.
    pub resumes: bool,
}

/// Why a copy failed. The target keeps what was copied.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Source and target are the same database.
    #[error("{0} can't be copied into itself")]
    Same(String),
    /// The source has no store.
    #[error("{0} has no store to copy")]
    NoSource(String),
    /// Another program uses the source or the target.
    #[error("{0} is in use by another program")]
    InUse(String),
    /// The target contains data, and no copy into it was interrupted.
    #[error("{database} is not empty: its table {table} has rows")]
    NotEmpty {
        /// The target.
        database: String,
        /// A table with rows.
        table: String,
    },
    /// A copy into the target was interrupted, and `resumes` is not set.
    #[error("a copy from {source_of_copy} into {database} was interrupted")]
    Interrupted {
        /// The target.
        database: String,
        /// The source of that copy.
        source_of_copy: String,
    },
    /// A copy from another source into the target was interrupted.
    #[error("the interrupted copy into {database} was from {source_of_copy}")]
    OtherSource {
        /// The target.
        database: String,
        /// The source of that copy.
        source_of_copy: String,
    },
    /// The target does not have the rows of the source: one of them was written to.
    #[error("the table {table} has {from} rows in the source and {to} in the target")]
    Counts {
        /// The table.
        table: String,
        /// The number of rows of the source.
        from: u64,
        /// The number of rows of the target.
        to: u64,
    },
    /// A database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A table that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedTable {
    /// Its name.
    pub name: String,
    /// The number of its rows, the same in source and target.
    pub rows: u64,
}

impl Store {
    /// Copies all data from one database into another, which is created or migrated. `progress` is called after each
    /// transaction with the name of a table and the number of rows that were copied into it by this call.
    ///
    /// # Errors
    ///
    /// [`TransferError`]; the source is never changed, apart from its schema if it is an SQLite file of an earlier release.
    pub async fn copy(
        from: &Location,
        to: &Location,
        access: &Access,
        options: CopyOptions,
        progress: &mut (dyn FnMut(&str, u64) + Send),
    ) -> Result<Vec<CopiedTable>, TransferError> {
        if from == to {
            return Err(TransferError::Same(from.to_string()));
        }
        if Self::schema(from, access).await?.applied.is_none() {
            return Err(TransferError::NoSource(from.to_string()));
        }
        for location in [from, to] {
            if let Some(file) = location.file().filter(|file| file.exists())
                && super::copies::is_in_use(file).await
            {
                return Err(TransferError::InUse(location.to_string()));
            }
        }
        let source = Self::connect(from, &Access { may_migrate: false, ..access.clone() }).await?;
        // The schema of an unfinished copy is completed as well.
        Self::migrate(to, access).await?;
        let target = Self::attach(to, access).await?;
        let copy = Copy { source, target, from, to };
        let done = copy.run(options, progress).await;
        copy.source.close().await;
        copy.target.close().await;
        done
    }

    /// True if a copy into this database has not ended.
    pub(super) async fn is_unfinished_copy(&self) -> Result<bool, StoreError> {
        Ok(self.lease_of(UNFINISHED).await?.is_some())
    }

    fn dialect(&self) -> Dialect {
        match &self.database {
            Database::Sqlite(_) => Dialect::Sqlite,
            #[cfg(feature = "postgres")]
            Database::Postgres(_) => Dialect::Postgres,
        }
    }
}

/// A copy that is being made.
struct Copy<'l> {
    source: Store,
    target: Store,
    from: &'l Location,
    to: &'l Location,
}

impl Copy<'_> {
    async fn run(
        &self,
        options: CopyOptions,
        progress: &mut (dyn FnMut(&str, u64) + Send),
    ) -> Result<Vec<CopiedTable>, TransferError> {
        for (store, location) in [(&self.source, self.from), (&self.target, self.to)] {
            if is_in_use(store, location).await? {
                return Err(TransferError::InUse(location.to_string()));
            }
        }
        let tables = catalog::tables(&self.source).await?;
        self.begin(&tables, options).await?;
        for table in tables.iter().filter(|table| !table.key.is_empty()) {
            self.copy_table(table, &tables, progress).await?;
        }
        let copied = self.compare(&tables).await?;
        self.end(&tables).await?;
        Ok(copied)
    }

    /// Checks that the target is empty or that its copy may go on, and marks it as incomplete.
    async fn begin(&self, tables: &[Table], options: CopyOptions) -> Result<(), TransferError> {
        let (database, source) = (self.to.to_string(), self.from.to_string());
        if let Some(lease) = self.target.lease_of(UNFINISHED).await? {
            return match (lease.holder == source, options.resumes) {
                (true, true) => Ok(()),
                (true, false) => Err(TransferError::Interrupted { database, source_of_copy: source }),
                (false, _) => Err(TransferError::OtherSource { database, source_of_copy: lease.holder }),
            };
        }
        for table in tables {
            if count(&self.target, &table.name).await? > 0 {
                return Err(TransferError::NotEmpty { database, table: table.name.clone() });
            }
        }
        let insert = sql("INSERT INTO lease (name, holder, expires_at) VALUES ($1, $2, $3)");
        insert.bind(UNFINISHED).bind(&source).bind(i64::from(u32::MAX)).execute(&self.target).await?;
        Ok(())
    }

    /// Copies a table, and with each of its rows those of the tables without a primary key that belong to the row.
    async fn copy_table(
        &self,
        table: &Table,
        all: &[Table],
        progress: &mut (dyn FnMut(&str, u64) + Send),
    ) -> Result<(), StoreError> {
        let parts: Vec<&Table> = all.iter().filter(|part| part.parent() == Some(&table.name)).collect();
        let page = if table.columns.iter().any(Column::is_large) { PAGE_ROWS.1 } else { PAGE_ROWS.0 };
        let mut last = last_key(&self.target, table).await?;
        let mut copied = 0;
        loop {
            let rows = next_rows(&self.source, table, last.as_deref(), page).await?;
            let Some(end) = rows.last().map(|row| table.key_of(row)) else { return Ok(()) };
            let mut writing = self.target.writing().await?;
            insert(&mut writing, table, &rows).await?;
            for part in &parts {
                let of_rows = part_rows(&self.source, part, last.as_deref(), &end).await?;
                insert(&mut writing, part, &of_rows).await?;
            }
            writing.commit().await?;
            copied += rows.len() as u64;
            progress(&table.name, copied);
            last = Some(end);
        }
    }

    async fn compare(&self, tables: &[Table]) -> Result<Vec<CopiedTable>, TransferError> {
        let mut copied = Vec::new();
        for table in tables {
            let name = table.name.clone();
            let (from, to) = (count(&self.source, &name).await?, count(&self.target, &name).await?);
            if from != to {
                return Err(TransferError::Counts { table: name, from, to });
            }
            copied.push(CopiedTable { name, rows: from });
        }
        Ok(copied)
    }

    /// Takes over the numbers from which new ones follow, and marks the copy as complete, in one transaction.
    async fn end(&self, tables: &[Table]) -> Result<(), StoreError> {
        let counters: Vec<(String, i64)> =
            sql("SELECT name, value FROM version ORDER BY name").fetch_all(&self.source).await?;
        let mut writing = self.target.writing().await?;
        for (name, value) in &counters {
            let put = sql("INSERT INTO version (name, value) VALUES ($1, $2) \
                           ON CONFLICT (name) DO UPDATE SET value = excluded.value");
            put.bind(name).bind(*value).execute(&mut writing).await?;
        }
        if writing.dialect() != Dialect::Sqlite {
            for (table, column) in catalog::identities(&self.target, tables).await? {
                // SQLite finds the next number by itself.
                let set = format!(
                    "SELECT setval(pg_get_serial_sequence('{table}', '{column}'), \
                     (SELECT coalesce(max({column}), 0) + 1 FROM {table}), FALSE)"
                );
                built(set).fetch_one::<(i64,)>(&mut writing).await?;
            }
        }
        let delete = sql("DELETE FROM lease WHERE name = $1").bind(UNFINISHED);
        delete.execute(&mut writing).await?;
        writing.commit().await
    }
}

/// True for a PostgreSQL database behind a pooler, whose connections do not show which programs use the database.
fn is_pooled(location: &Location) -> bool {
    matches!(location, Location::Postgres(location) if location.kept_statements == 0)
}

/// True if another program of the same user is connected to a PostgreSQL database. For an SQLite file its lock has been
/// checked. A connection that was just closed is seen for a moment.
async fn is_in_use(store: &Store, location: &Location) -> Result<bool, StoreError> {
    if store.dialect() == Dialect::Sqlite || is_pooled(location) {
        return Ok(false);
    }
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user \
                  AND application_name = 'sternpost' AND pid <> pg_backend_pid()";
    for _ in 0..CLOSING_TRIES {
        if sql(others).fetch_one::<(i64,)>(store).await?.0 == 0 {
            return Ok(false);
        }
        tokio::time::sleep(CLOSING_PAUSE).await;
    }
    Ok(true)
}

async fn count(store: &Store, table: &str) -> Result<u64, StoreError> {
    let (count,) = built(format!("SELECT count(*) FROM {table}")).fetch_one::<(i64,)>(store).await?;
    Ok(super::count(count))
}

type Row = Vec<Value<'static>>;

/// The last key of a table in its order; `None` if it is empty.
async fn last_key(store: &Store, table: &Table) -> Result<Option<Row>, StoreError> {
    let keys: Vec<&str> = table.key_columns().map(|column| column.name.as_str()).collect();
    let order: Vec<String> = keys.iter().map(|key| format!("{key} DESC")).collect();
    let query =
        format!("SELECT {} FROM {} ORDER BY {} LIMIT 1", keys.join(", "), table.name, order.join(", "));
    let kinds: Vec<&Column> = table.key_columns().collect();
    Ok(read(store, query, Vec::new(), &kinds).await?.pop())
}

/// Up to `most` rows after a key.
async fn next_rows(
    store: &Store,
    table: &Table,
    after: Option<&[Value<'static>]>,
    most: u32,
) -> Result<Vec<Row>, StoreError> {
    let keys: Vec<&str> = table.key_columns().map(|column| column.name.as_str()).collect();
    let keys = keys.join(", ");
    let condition = match after {
        Some(after) => format!("WHERE ({keys}) > ({})", crate::query::parameters(after.len())),
        None => String::new(),
    };
    let names = table.column_names();
    let query = format!("SELECT {names} FROM {} {condition} ORDER BY {keys} LIMIT {most}", table.name);
    read(store, query, after.unwrap_or_default().to_vec(), &table.columns.iter().collect::<Vec<_>>()).await
}

/// The rows of a table without a primary key that belong to rows of its parent, which has a number as its key.
async fn part_rows(
    store: &Store,
    part: &Table,
    after: Option<&[Value<'static>]>,
    end: &[Value<'static>],
) -> Result<Vec<Row>, StoreError> {
    let reference = part.reference.as_deref().unwrap_or_default();
    let (names, name) = (part.column_names(), &part.name);
    let (condition, values) = match after {
        Some(after) => (format!("{reference} > ? AND {reference} <= ?"), [after, end].concat()),
        None => (format!("{reference} <= ?"), end.to_vec()),
    };
    let query = format!("SELECT {names} FROM {name} WHERE {condition} ORDER BY {reference}");
    read(store, query, values, &part.columns.iter().collect::<Vec<_>>()).await
}

async fn read(
    store: &Store,
    query: String,
    values: Row,
    columns: &[&Column],
) -> Result<Vec<Row>, StoreError> {
    let mut rows = Vec::new();
    unnumbered(query, values)
        .each(store, |row| {
            rows.push(columns.iter().map(|column| column.read(row)).collect::<Result<_, _>>()?);
            Ok(())
        })
        .await?;
    Ok(rows)
}

async fn insert(writing: &mut Writing, table: &Table, rows: &[Row]) -> Result<(), StoreError> {
    let names = table.column_names();
    // PostgreSQL otherwise gives out its own numbers.
    let overriding = writing.dialect().pick("", " OVERRIDING SYSTEM VALUE");
    let head = format!("INSERT INTO {} ({names}){overriding} VALUES ", table.name);
    let place = format!("({})", crate::query::parameters(table.columns.len()));
    for rows in rows.chunks((MAX_VALUES / table.columns.len().max(1)).max(1)) {
        let places = vec![place.as_str(); rows.len()].join(", ");
        unnumbered(format!("{head}{places}"), rows.iter().flatten().cloned())
            .kept(false)
            .execute(&mut *writing)
            .await?;
    }
    Ok(())
}

/// Tables whose content is not copied: numbers are taken over at the end, leases belong to processes, and the migrations of
/// the target are its own.
fn left_out() -> BTreeSet<&'static str> {
    BTreeSet::from(["version", "lease", "_sqlx_migrations"])
}

#[cfg(test)]
mod tests;
