//! `sternpost store copy`: copies all data of one database into another one, of either kind, while no server runs.
//!
//! Each table is copied in the order of its primary key, a page per transaction, so that an interrupted copy goes on after
//! the last key of the target ([`CopyOptions::resumes`]). At the end, all rows of both databases are compared. While a copy is
//! not complete, a row of the table `lease` says so, and [`Store::connect`] refuses the target. Leases are not copied: they
//! belong to processes.

mod catalog;
pub(crate) mod export;
mod page;

use super::{Access, Location, Store, StoreError};
use crate::query::{Dialect, built, sql, unnumbered};
use crate::writing::Writing;
use catalog::Table;
use page::{Contents, Page, Row, last_key, next_page};
use std::collections::BTreeSet;
use std::time::Duration;

/// The name of the lease of an unfinished copy. Its holder is the location of the source.
const UNFINISHED: &str = "store copy";

/// The maximum number of values in one statement; SQLite's limit is 32766.
const MAX_VALUES: usize = 30_000;
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
pub enum CopyError {
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
    /// The target has other rows than the source: one of them was written to.
    #[error("the rows of the table {0} are not the same in the source and in the target")]
    Contents(String),
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
    /// [`CopyError`]; the source is never changed, apart from its schema if it is an SQLite file of an earlier release.
    pub async fn copy(
        from: &Location,
        to: &Location,
        access: &Access,
        options: CopyOptions,
        progress: &mut (dyn FnMut(&str, u64) + Send),
    ) -> Result<Vec<CopiedTable>, CopyError> {
        if from == to {
            return Err(CopyError::Same(from.to_string()));
        }
        if Self::schema(from, access).await?.applied.is_none() {
            return Err(CopyError::NoSource(from.to_string()));
        }
        for location in [from, to] {
            if let Some(file) = location.file().filter(|file| file.exists())
                && super::backup::is_in_use(file).await
            {
                return Err(CopyError::InUse(location.to_string()));
            }
        }
        let source =
            Self::connect(from, &Access { may_migrate: false, ..access.clone() }, crate::Tenant::FIRST)
                .await?
                .across();
        // The schema of an unfinished copy is completed as well.
        Self::migrate(to, access).await?;
        let target = Self::attach(to, access, crate::Tenant::FIRST).await?.across();
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
    ) -> Result<Vec<CopiedTable>, CopyError> {
        for (store, location) in [(&self.source, self.from), (&self.target, self.to)] {
            if is_in_use(store, location).await? {
                return Err(CopyError::InUse(location.to_string()));
            }
        }
        let tables = catalog::tables(&self.source).await?;
        self.begin(&tables, options).await?;
        for table in tables.iter().filter(|table| !table.key.is_empty()) {
            self.copy_table(table, &tables, progress).await?;
        }
        let copied = self.compare(&tables).await?;
        let counters: Vec<(String, i64)> =
            sql("SELECT name, value FROM version ORDER BY name").fetch_all(&self.source).await?;
        self.check_unused().await?;
        self.end(&tables, &counters).await?;
        Ok(copied)
    }

    /// Checks that no other program has begun to use the source or the target. Ends the use of a source that is a file.
    async fn check_unused(&self) -> Result<(), CopyError> {
        for (store, location) in [(&self.source, self.from), (&self.target, self.to)] {
            if is_in_use(store, location).await? {
                return Err(CopyError::InUse(location.to_string()));
            }
        }
        // The target can't be opened before the copy is complete.
        if let Some(file) = self.from.file() {
            self.source.close().await;
            if super::backup::is_in_use(file).await {
                return Err(CopyError::InUse(self.from.to_string()));
            }
        }
        Ok(())
    }

    /// Checks that the target is empty or that its copy may go on, and marks it as incomplete.
    async fn begin(&self, tables: &[Table], options: CopyOptions) -> Result<(), CopyError> {
        let (database, source) = (self.to.to_string(), self.from.to_string());
        if let Some(lease) = self.target.lease_of(UNFINISHED).await? {
            return match (lease.holder == source, options.resumes) {
                (true, true) => Ok(()),
                (true, false) => Err(CopyError::Interrupted { database, source_of_copy: source }),
                (false, _) => Err(CopyError::OtherSource { database, source_of_copy: lease.holder }),
            };
        }
        for table in tables {
            if count(&self.target, &table.name).await? > 0 {
                return Err(CopyError::NotEmpty { database, table: table.name.clone() });
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
        let parts = parts_of(table, all);
        let mut last = last_key(&self.target, table).await?;
        let mut copied = 0;
        while let Some(page) = next_page(&self.source, table, &parts, last.as_deref()).await? {
            let Page { rows, of_parts, end } = page;
            let count = rows.len() as u64;
            let mut writing = self.target.writing().await?;
            insert(&mut writing, table, rows).await?;
            for (part, rows) in parts.iter().zip(of_parts) {
                insert(&mut writing, part, rows).await?;
            }
            writing.commit().await?;
            copied += count;
            progress(&table.name, copied);
            last = Some(end);
        }
        Ok(())
    }

    /// Compares all rows of both databases. The numbers of rows are compared first, since they say more.
    async fn compare(&self, tables: &[Table]) -> Result<Vec<CopiedTable>, CopyError> {
        let mut copied = Vec::new();
        for table in tables {
            let name = table.name.clone();
            let (from, to) = (count(&self.source, &name).await?, count(&self.target, &name).await?);
            if from != to {
                return Err(CopyError::Counts { table: name, from, to });
            }
            copied.push(CopiedTable { name, rows: from });
        }
        for table in tables.iter().filter(|table| !table.key.is_empty()) {
            let parts = parts_of(table, tables);
            let from = contents(&self.source, table, &parts).await?;
            let to = contents(&self.target, table, &parts).await?;
            let named = [table].into_iter().chain(parts);
            for (table, (from, to)) in named.zip(from.into_iter().zip(to)) {
                if from != to {
                    return Err(CopyError::Contents(table.name.clone()));
                }
            }
        }
        Ok(copied)
    }

    /// Takes over the numbers from which new ones follow, and marks the copy as complete, in one transaction.
    async fn end(&self, tables: &[Table], counters: &[(String, i64)]) -> Result<(), CopyError> {
        let mut writing = self.target.writing().await?;
        for (name, value) in counters {
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
        let delete = sql("DELETE FROM lease WHERE name = $1 AND holder = $2");
        let deleted = delete.bind(UNFINISHED).bind(self.from.to_string()).execute(&mut writing).await?;
        if deleted == 0 {
            // Another program has ended this copy, and may use the target.
            return Err(CopyError::InUse(self.to.to_string()));
        }
        Ok(writing.commit().await?)
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

/// The names of all tables with a column `tenant`.
pub(crate) async fn tenant_tables(store: &Store) -> Result<Vec<String>, StoreError> {
    let tables = catalog::tables(store).await?.into_iter().filter(export::has_tenant);
    Ok(tables.map(|table| table.name).collect())
}

/// The rows of a tenant as text, in all tables that have a tenant or belong to rows of such a table.
#[cfg(test)]
pub(crate) async fn tables_of_tenants(
    store: &Store,
    tenant: crate::Tenant,
) -> Result<std::collections::BTreeMap<String, Vec<String>>, StoreError> {
    let mut all = std::collections::BTreeMap::new();
    for table in catalog::tables(store).await? {
        let condition = match table.name.as_str() {
            "dmarc_row" => "report IN (SELECT id FROM dmarc_report WHERE tenant = $1)",
            _ if table.columns.iter().any(|column| column.name == "tenant") => "tenant = $1",
            _ => continue,
        };
        let text = format!("SELECT {} FROM {} WHERE {condition}", table.column_names(), table.name);
        let mut rows = Vec::new();
        let read = |row: &mut crate::query::Row<'_>| {
            let values: Result<Vec<_>, _> = table.columns.iter().map(|column| column.read(row)).collect();
            rows.push(format!("{:?}", values?));
            Ok(())
        };
        built(text).bind(tenant).each(store, read).await?;
        rows.sort();
        all.insert(table.name, rows);
    }
    Ok(all)
}

/// The tables without a primary key whose rows belong to those of a table.
fn parts_of<'t>(table: &Table, all: &'t [Table]) -> Vec<&'t Table> {
    all.iter().filter(|part| part.parent() == Some(&table.name)).collect()
}

/// The contents of a table and of its parts.
async fn contents(store: &Store, table: &Table, parts: &[&Table]) -> Result<Vec<Contents>, StoreError> {
    let mut found = vec![Contents::default(); parts.len() + 1];
    let mut last = None;
    while let Some(Page { rows, of_parts, end }) = next_page(store, table, parts, last.as_deref()).await? {
        for (contents, rows) in found.iter_mut().zip([rows].iter().chain(&of_parts)) {
            rows.iter().for_each(|row| contents.add(row));
        }
        last = Some(end);
    }
    Ok(found)
}

async fn insert(writing: &mut Writing, table: &Table, rows: Vec<Row>) -> Result<(), StoreError> {
    let names = table.column_names();
    // PostgreSQL otherwise gives out its own numbers.
    let overriding = writing.dialect().pick("", " OVERRIDING SYSTEM VALUE");
    let head = format!("INSERT INTO {} ({names}){overriding} VALUES ", table.name);
    let place = format!("({})", crate::query::parameters(table.columns.len()));
    let most = (MAX_VALUES / table.columns.len().max(1)).max(1);
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let chunk: Vec<Row> = rows.by_ref().take(most).collect();
        let places = vec![place.as_str(); chunk.len()].join(", ");
        unnumbered(format!("{head}{places}"), chunk.into_iter().flatten())
            .kept(false)
            .execute(&mut *writing)
            .await?;
    }
    Ok(())
}

/// Tables whose content is not copied: numbers are taken over at the end, leases and nodes belong to processes, and the migrations of
/// the target are its own.
fn left_out() -> BTreeSet<&'static str> {
    BTreeSet::from(["version", "lease", "node", "_sqlx_migrations"])
}

#[cfg(test)]
mod tests;
