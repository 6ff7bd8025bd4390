//! The tables of a database with their columns and keys, read from the database itself, so that a copy includes tables that
//! later migrations create.

use super::left_out;
use crate::query::{Dialect, Row, Value, sql};
use crate::{Store, StoreError};
use std::borrow::Cow;

/// A table to copy.
#[derive(Debug)]
pub(super) struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    /// The places in `columns` of the primary key; empty for a table that is a part of others.
    pub key: Vec<usize>,
    /// The column that refers to the parent, for a table without a primary key.
    pub reference: Option<String>,
    parent: Option<String>,
}

#[derive(Debug)]
pub(super) struct Column {
    pub name: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int,
    Text,
    Blob,
}

/// Tables that others refer to, in an order in which each is copied after those that it refers to.
const FIRST: [&str; 6] = ["name", "report", "tally", "outgoing", "quarantine", "dmarc_report"];
/// Tables without a primary key, each with its column that refers to the table `report`.
const PARTS_OF_REPORTS: [(&str, &str); 2] = [("outcome", "report"), ("failure", "report")];

impl Table {
    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().filter_map(|at| self.columns.get(*at))
    }

    /// The names of all columns, for a statement.
    pub fn column_names(&self) -> String {
        self.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The bytes of all texts and blobs of a row, for a statement. Both databases know them without reading the values.
    pub fn size_of_row(&self) -> String {
        let long = self.columns.iter().filter(|column| column.kind != Kind::Int);
        let sizes = long.map(|column| format!("coalesce(CAST(octet_length({}) AS BIGINT), 0)", column.name));
        sizes.fold("CAST(0 AS BIGINT)".to_owned(), |sum, size| format!("{sum} + {size}"))
    }

    pub fn parent(&self) -> Option<&String> {
        self.parent.as_ref()
    }
}

impl Column {
    /// A column of integers.
    pub fn of_integers(name: &str) -> Self {
        Self { name: name.to_owned(), kind: Kind::Int }
    }

    /// Reads the value of this column, which is the next one of the row.
    pub fn read(&self, row: &mut Row<'_>) -> Result<Value<'static>, StoreError> {
        Ok(match self.kind {
            Kind::Int => row.get::<Option<i64>>()?.map_or(Value::NullInt, Value::Int),
            Kind::Text => {
                row.get::<Option<String>>()?.map_or(Value::NullText, |text| Value::Text(Cow::Owned(text)))
            }
            Kind::Blob => Value::Blob(Cow::Owned(row.get::<Vec<u8>>()?)),
        })
    }
}

/// The tables to copy, in an order in which each follows those that it refers to.
pub(super) async fn tables(store: &Store) -> Result<Vec<Table>, StoreError> {
    let names = match store.dialect() {
        Dialect::Sqlite => {
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND substr(name, 1, 7) <> 'sqlite_' ORDER BY name"
        }
        #[cfg(feature = "postgres")]
        Dialect::Postgres => {
            "SELECT CAST(relname AS TEXT) FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition \
             AND relnamespace = CAST(current_schema() AS regnamespace) ORDER BY relname"
        }
    };
    let names: Vec<(String,)> = sql(names).fetch_all(store).await?;
    let mut tables = Vec::new();
    for (name,) in names.into_iter().filter(|(name,)| !left_out().contains(name.as_str())) {
        tables.push(table(store, name).await?);
    }
    tables.sort_by_key(|table| FIRST.iter().position(|first| *first == table.name).unwrap_or(FIRST.len()));
    Ok(tables)
}

/// Reads the columns of a table: name, type and place in the primary key, from 1, or 0.
async fn table(store: &Store, name: String) -> Result<Table, StoreError> {
    let columns = match store.dialect() {
        Dialect::Sqlite => "SELECT name, lower(type), pk FROM pragma_table_info($1) ORDER BY cid",
        #[cfg(feature = "postgres")]
        Dialect::Postgres => {
            "SELECT CAST(attname AS TEXT), format_type(atttypid, NULL), \
             CAST(coalesce(array_position(CAST(indkey AS INT2[]), attnum) + 1, 0) AS BIGINT) \
             FROM pg_attribute LEFT JOIN pg_index ON indrelid = attrelid AND indisprimary \
             WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        }
    };
    let found: Vec<(String, String, i64)> = sql(columns).bind(&name).fetch_all(store).await?;
    let mut key: Vec<(i64, usize)> = found
        .iter()
        .enumerate()
        .filter(|(_, (_, _, place))| *place > 0)
        .map(|(at, (_, _, place))| (*place, at))
        .collect();
    key.sort_unstable();
    let column = |(name, kind, _): (String, String, i64)| {
        let kind = match kind.as_str() {
            "bytea" | "blob" => Kind::Blob,
            kind if kind.contains("int") => Kind::Int,
            _ => Kind::Text,
        };
        Column { name, kind }
    };
    let part = PARTS_OF_REPORTS.iter().find(|(part, _)| *part == name);
    Ok(Table {
        columns: found.into_iter().map(column).collect(),
        key: key.into_iter().map(|(_, at)| at).collect(),
        reference: part.map(|(_, column)| (*column).to_owned()),
        parent: part.map(|_| "report".to_owned()),
        name,
    })
}

/// The columns of a PostgreSQL database that take their numbers from a sequence, each with its table.
pub(super) async fn identities(store: &Store, tables: &[Table]) -> Result<Vec<(String, String)>, StoreError> {
    let mut found = Vec::new();
    for table in tables {
        let query = "SELECT CAST(attname AS TEXT) FROM pg_attribute \
             WHERE attrelid = to_regclass($1) AND attidentity <> '' AND NOT attisdropped";
        let columns: Vec<(String,)> = sql(query).bind(&table.name).fetch_all(store).await?;
        found.extend(columns.into_iter().map(|(column,)| (table.name.clone(), column)));
    }
    Ok(found)
}
