//! Stores of each earlier schema, with rows in every table, are migrated to the newest one: every row is there afterwards, with
//! the same content. Tables, columns and references are read from the database, so that a new migration is tested without
//! another line here, unless it drops or renames something.

#[cfg(feature = "postgres")]
use crate::migrations::POSTGRES;
use crate::migrations::{SQLITE, newest, sqlite_before};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, SqlitePool};
use std::collections::{BTreeMap, BTreeSet};

/// Rows that are written into each table.
const ROWS: usize = 3;

/// What migrations drop on purpose: the table, and the number of the migration.
const DROPPED: [(&str, i64); 7] = [
    ("report_policy", 4),
    ("report", 4),
    ("quarantine", 4),
    ("tally_failure", 6),
    ("tally", 6),
    ("tested", 11),
    ("shared_page", 39),
];
/// Tables that a migration writes anew under another name.
const RENAMED: [(&str, &str, i64); 1] = [("probe", "guard_probe", 11)];
/// Numbers of the installation that migration 34 makes those of a tenant.
const NOW_OF_TENANT: &str = "('report count', 'quarantine evicted', 'quarantine expired', 'reports evicted')";

/// A database whose statements return one column of texts.
enum Database {
    Sqlite(SqlitePool),
    #[cfg(feature = "postgres")]
    Postgres(crate::Store),
}

/// A column as the catalog describes it.
struct Column {
    name: String,
    kind: String,
    may_be_null: bool,
    /// The table and the column that it refers to.
    reference: Option<(String, String)>,
}

impl Database {
    async fn execute(&self, text: String) {
        match self {
            Self::Sqlite(pool) => {
                let done = sqlx::query(AssertSqlSafe(text.clone())).execute(pool).await;
                done.map(drop).unwrap_or_else(|error| panic!("{text}: {error}"));
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => {
                let done = crate::query::built(text.clone()).execute(store).await;
                done.map(drop).unwrap_or_else(|error| panic!("{text}: {error}"));
            }
        }
    }

    async fn texts(&self, text: String) -> Vec<String> {
        match self {
            Self::Sqlite(pool) => {
                let rows = sqlx::query_scalar(AssertSqlSafe(text.clone())).fetch_all(pool).await;
                rows.unwrap_or_else(|error| panic!("{text}: {error}"))
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => {
                let rows = crate::query::built(text.clone()).fetch_all::<(String,)>(store).await;
                let rows = rows.unwrap_or_else(|error| panic!("{text}: {error}"));
                rows.into_iter().map(|(one,)| one).collect()
            }
        }
    }

    #[cfg_attr(not(feature = "postgres"), expect(unused_variables))]
    fn pick<'t>(&self, sqlite: &'t str, postgres: &'t str) -> &'t str {
        match self {
            Self::Sqlite(_) => sqlite,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => postgres,
        }
    }

    async fn tables(&self) -> Vec<String> {
        let text = self.pick(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND substr(name, 1, 7) <> 'sqlite_' \
             AND name <> '_sqlx_migrations' ORDER BY name",
            "SELECT CAST(relname AS TEXT) FROM pg_class WHERE relkind = 'r' AND relname <> '_sqlx_migrations' \
             AND relnamespace = CAST(current_schema() AS regnamespace) ORDER BY relname",
        );
        self.texts(text.to_owned()).await
    }

    async fn columns(&self, table: &str) -> Vec<Column> {
        let references = self.pick(
            "SELECT \"from\" || ' ' || \"table\" || ' ' || \"to\" FROM pragma_foreign_key_list('TABLE')",
            "SELECT CAST(ours.attname || ' ' || CAST(c.confrelid AS regclass) || ' ' || theirs.attname AS TEXT) \
             FROM pg_constraint c \
             JOIN pg_attribute ours ON ours.attrelid = c.conrelid AND ours.attnum = c.conkey[1] \
             JOIN pg_attribute theirs ON theirs.attrelid = c.confrelid AND theirs.attnum = c.confkey[1] \
             WHERE c.contype = 'f' AND c.conrelid = to_regclass('TABLE')",
        );
        let mut parents = BTreeMap::new();
        for line in self.texts(references.replace("TABLE", table)).await {
            let [column, parent, key] = words(&line);
            parents.insert(column, (parent, key));
        }
        // SQLite's integer keys are not declared NOT NULL.
        let columns = self.pick(
            "SELECT name || ' ' || lower(type) || ' ' || (\"notnull\" = 0 AND pk = 0) FROM pragma_table_info('TABLE') \
             ORDER BY cid",
            "SELECT CAST(attname || ' ' || format_type(atttypid, NULL) || ' ' || CASE WHEN attnotnull THEN '0' ELSE '1' END \
             AS TEXT) FROM pg_attribute WHERE attrelid = to_regclass('TABLE') AND attnum > 0 AND NOT attisdropped \
             ORDER BY attnum",
        );
        let column = |line: &String| {
            let [name, kind, may_be_null] = words(line);
            let reference = parents.get(&name).cloned();
            Column { may_be_null: may_be_null == "1", name, kind, reference }
        };
        self.texts(columns.replace("TABLE", table)).await.iter().map(column).collect()
    }

    /// Every row of a table as a text of these columns, sorted.
    async fn rows(&self, table: &str, columns: &[String], condition: &str) -> Vec<String> {
        let quote = self.pick("quote(COLUMN)", "quote_nullable(CAST(COLUMN AS TEXT))");
        let shown: Vec<String> = columns.iter().map(|column| quote.replace("COLUMN", column)).collect();
        let mut rows =
            self.texts(format!("SELECT {} FROM {table} {condition}", shown.join(" || ' ' || "))).await;
        rows.sort();
        rows
    }

    /// Writes rows into every table; each after those that it refers to.
    async fn fill(&self) {
        let mut values: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        let mut waiting = self.tables().await;
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut left = Vec::new();
            for table in waiting {
                let columns = self.columns(&table).await;
                let parents = columns.iter().filter_map(|column| column.reference.as_ref());
                if !parents.clone().all(|parent| values.contains_key(parent)) {
                    left.push(table);
                    continue;
                }
                let of_columns: Vec<Vec<String>> = columns
                    .iter()
                    .enumerate()
                    .map(|(place, column)| match &column.reference {
                        Some(parent) => nullable(column, values[parent].clone()),
                        None => (0..ROWS).map(|row| self.value(&table, place, column, row)).collect(),
                    })
                    .collect();
                self.insert(&table, &columns, &of_columns).await;
                values.extend(columns.into_iter().map(|column| (table.clone(), column.name)).zip(of_columns));
            }
            assert!(left.len() < before, "references in a circle: {left:?}");
            waiting = left;
        }
        if values.contains_key(&("version".to_owned(), "value".to_owned())) {
            self.execute("UPDATE version SET value = value + 7".to_owned()).await;
        }
    }

    async fn insert(&self, table: &str, columns: &[Column], values: &[Vec<String>]) {
        let row = |row: usize| {
            format!("({})", values.iter().map(|all| all[row].as_str()).collect::<Vec<_>>().join(", "))
        };
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let all: Vec<String> = (0..ROWS).map(row).collect();
        let overriding = self.pick("", "OVERRIDING SYSTEM VALUE");
        self.execute(format!(
            "INSERT INTO {table} ({}) {overriding} VALUES {}",
            names.join(", "),
            all.join(", ")
        ))
        .await;
    }

    /// A value as SQL: one of its own for each column and row. All earlier data belongs to the first tenant.
    fn value(&self, table: &str, place: usize, column: &Column, row: usize) -> String {
        match column.kind.as_str() {
            _ if column.may_be_null && row == ROWS - 1 => "NULL".to_owned(),
            _ if column.name == "tenant" => "0".to_owned(),
            kind if kind.contains("int") => (100 * (place + 1) + row).to_string(),
            "blob" | "bytea" => self.pick("x'00ffROW0'", "'\\x00ffROW0'").replace("ROW", &row.to_string()),
            _ => format!("'{table}.{}.{row} \"ä\" ''\n'", column.name),
        }
    }
}

/// The values of a column that refers to another one; the last one is NULL where that is allowed.
fn nullable(column: &Column, mut values: Vec<String>) -> Vec<String> {
    if let (true, Some(last)) = (column.may_be_null, values.last_mut()) {
        *last = "NULL".to_owned();
    }
    values
}

fn words<const N: usize>(line: &str) -> [String; N] {
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    words.try_into().unwrap_or_else(|words| panic!("{words:?}"))
}

/// What a table has before the migrations: the columns, and the rows as texts.
struct Content {
    columns: Vec<String>,
    rows: Vec<String>,
}

/// Fills a database of schema `version`, and returns its content.
async fn filled(database: &Database) -> BTreeMap<String, Content> {
    database.fill().await;
    let mut all = BTreeMap::new();
    for table in database.tables().await {
        let columns: Vec<String> =
            database.columns(&table).await.into_iter().map(|column| column.name).collect();
        let moved = format!("WHERE name NOT IN {NOW_OF_TENANT}");
        let condition = if table == "version" { moved.as_str() } else { "" };
        let rows = database.rows(&table, &columns, condition).await;
        assert!(rows.len() >= ROWS, "{table}: {rows:?}");
        all.insert(table, Content { columns, rows });
    }
    all
}

/// Compares a migrated database with what it had.
async fn compare(database: &Database, version: i64, before: &BTreeMap<String, Content>, counters: &[String]) {
    let tables: BTreeSet<String> = database.tables().await.into_iter().collect();
    for (table, content) in before {
        let renamed = RENAMED.iter().find(|(from, _, number)| from == table && *number > version);
        let is_dropped = DROPPED.iter().any(|(name, number)| name == table && *number > version);
        let table = renamed.map_or(table.as_str(), |(_, to, _)| to);
        if is_dropped {
            continue;
        }
        assert!(tables.contains(table), "migrations after {version} drop {table}");
        let after = database.rows(table, &content.columns, "").await;
        if table == "version" {
            // Later migrations add numbers.
            let lost: Vec<_> = content.rows.iter().filter(|row| !after.contains(row)).collect();
            assert!(lost.is_empty(), "after schema {version}, {table} has lost {lost:?}");
            continue;
        }
        assert_eq!(after, content.rows, "after schema {version}, {table} is another");
    }
    for table in &tables {
        if database.columns(table).await.iter().any(|column| column.name == "tenant") {
            let foreign = database.rows(table, &["tenant".to_owned()], "WHERE tenant <> 0").await;
            assert!(foreign.is_empty(), "after schema {version}, rows of {table} belong to {foreign:?}");
        }
    }
    let columns = ["name".to_owned(), "value".to_owned()];
    let now = database.rows("tenant_counter", &columns, "").await;
    let lost: Vec<_> = counters.iter().filter(|row| !now.contains(row)).collect();
    assert!(lost.is_empty(), "after schema {version}, the numbers of the tenant lack {lost:?}");
}

/// The numbers that migration 34 moves, as they are before it.
async fn counters(database: &Database) -> Vec<String> {
    if !database.tables().await.contains(&"version".to_owned()) {
        return Vec::new();
    }
    let columns = ["name".to_owned(), "value".to_owned()];
    database.rows("version", &columns, &format!("WHERE name IN {NOW_OF_TENANT}")).await
}

async fn open(file: &std::path::Path) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true).foreign_keys(true);
    SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap()
}

#[tokio::test]
async fn every_row_of_every_earlier_sqlite_schema_is_there_after_the_migrations() {
    for (version, ..) in SQLITE {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s.db");
        let pool = open(&file).await;
        sqlite_before(version + 1).run(&pool).await.unwrap();
        let database = Database::Sqlite(pool.clone());
        let before = filled(&database).await;
        let moved = counters(&database).await;
        pool.close().await;
        crate::Store::open(&file, crate::Tenant::FIRST).await.unwrap().close().await;
        let pool = open(&file).await;
        let database = Database::Sqlite(pool.clone());
        let applied =
            database.texts("SELECT CAST(max(version) AS TEXT) FROM _sqlx_migrations".to_owned()).await;
        assert_eq!(applied, [newest().to_string()]);
        compare(&database, version, &before, &moved).await;
        let broken = database.texts("SELECT \"table\" FROM pragma_foreign_key_check".to_owned()).await;
        assert!(broken.is_empty(), "after schema {version}, rows of {broken:?} refer to nothing");
        pool.close().await;
    }
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn every_row_of_every_earlier_postgresql_schema_is_there_after_the_migrations() {
    use crate::database::postgres::{schema, tests::new_schema};
    use crate::scratch::access;
    for (version, ..) in POSTGRES {
        let Some(location) = new_schema().await else { return };
        let store = crate::Store::attach(&location, &access(), crate::Tenant::FIRST).await.unwrap();
        let files: Vec<_> = POSTGRES.into_iter().filter(|file| file.0 <= version).collect();
        schema::migrate_by(&store, &super::migrator(&files)).await.unwrap();
        let database = Database::Postgres(store);
        let before = filled(&database).await;
        let moved = counters(&database).await;
        let Database::Postgres(store) = &database else { return };
        schema::migrate(store).await.unwrap();
        assert_eq!(schema::state(store).await.unwrap().applied, Some(newest()));
        compare(&database, version, &before, &moved).await;
        store.close().await;
    }
}
