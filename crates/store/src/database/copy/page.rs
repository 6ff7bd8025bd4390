//! Reads a table page by page in the order of its primary key, and computes what its contents are compared by.

use super::catalog::{Column, Table};
use crate::query::{Value, parameters, unnumbered, without_nul};
use crate::{Store, StoreError};
use sha2::{Digest, Sha256};

/// The maximum number of rows of a page, and the same for tables with rows of other tables that belong to theirs.
const PAGE_ROWS: (u32, u32) = (1000, 32);
/// The maximum number of bytes in the texts and blobs of a page, unless its only row has more.
const PAGE_BYTES: u64 = 4 << 20;

/// The values of a row in the order of the columns.
pub(super) type Row = Vec<Value<'static>>;

/// Some rows of a table.
#[derive(Debug)]
pub(super) struct Page {
    pub rows: Vec<Row>,
    /// For each table without a primary key: the rows that belong to `rows`.
    pub of_parts: Vec<Vec<Row>>,
    /// The last key.
    pub end: Row,
}

/// The last key of a table in its order; `None` if it is empty.
pub(super) async fn last_key(store: &Store, table: &Table) -> Result<Option<Row>, StoreError> {
    let keys: Vec<&str> = table.key_columns().map(|column| column.name.as_str()).collect();
    let order: Vec<String> = keys.iter().map(|key| format!("{key} DESC")).collect();
    let query =
        format!("SELECT {} FROM {} ORDER BY {} LIMIT 1", keys.join(", "), table.name, order.join(", "));
    let kinds: Vec<&Column> = table.key_columns().collect();
    Ok(read(store, query, Vec::new(), &kinds).await?.pop())
}

/// The rows after a key, up to the size of a page, with the rows of its parts; `None` if there are no more.
pub(super) async fn next_page(
    store: &Store,
    table: &Table,
    parts: &[&Table],
    after: Option<&[Value<'static>]>,
) -> Result<Option<Page>, StoreError> {
    let most = if parts.is_empty() { PAGE_ROWS.0 } else { PAGE_ROWS.1 };
    let Some(end) = end_of_page(store, table, after, most).await? else { return Ok(None) };
    let columns: Vec<&Column> = table.columns.iter().collect();
    let keys = key_names(table);
    let place = parameters(end.len());
    let (condition, values) = match after {
        Some(after) => {
            (format!("({keys}) > ({place}) AND ({keys}) <= ({place})"), [after, end.as_slice()].concat())
        }
        None => (format!("({keys}) <= ({place})"), end.clone()),
    };
    let (names, name) = (table.column_names(), &table.name);
    let query = format!("SELECT {names} FROM {name} WHERE {condition} ORDER BY {keys}");
    let rows = read(store, query, values, &columns).await?;
    let mut of_parts = Vec::with_capacity(parts.len());
    for part in parts {
        of_parts.push(part_rows(store, part, after, &end).await?);
    }
    Ok(Some(Page { rows, of_parts, end }))
}

fn key_names(table: &Table) -> String {
    table.key_columns().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The key at which a page ends that begins after a key; `None` if there is no row after it.
async fn end_of_page(
    store: &Store,
    table: &Table,
    after: Option<&[Value<'static>]>,
    most: u32,
) -> Result<Option<Row>, StoreError> {
    let keys = key_names(table);
    let condition = match after {
        Some(after) => format!("WHERE ({keys}) > ({})", parameters(after.len())),
        None => String::new(),
    };
    let size = table.size_of_row();
    let query = format!("SELECT {keys}, {size} FROM {} {condition} ORDER BY {keys} LIMIT {most}", table.name);
    let bytes = Column::of_integers("bytes");
    let columns: Vec<&Column> = table.key_columns().chain([&bytes]).collect();
    let (mut end, mut sum) = (None, 0_u64);
    for mut row in read(store, query, after.unwrap_or_default().to_vec(), &columns).await? {
        if let Some(Value::Int(bytes)) = row.pop() {
            sum = sum.saturating_add(u64::try_from(bytes).unwrap_or_default());
        }
        if sum > PAGE_BYTES && end.is_some() {
            break;
        }
        end = Some(row);
    }
    Ok(end)
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

pub(super) async fn read(
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

/// What the rows of a table are compared by: the sum of their digests, which does not depend on an order, as databases have
/// different ones for texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Contents(u128);

impl Contents {
    pub fn add(&mut self, row: &[Value<'static>]) {
        let mut digest = Sha256::new();
        for value in row {
            match value {
                Value::Int(number) => {
                    digest.update(b"i");
                    digest.update(number.to_be_bytes());
                }
                Value::Text(text) => add_bytes(&mut digest, b"t", without_nul(text).as_bytes()),
                Value::Blob(bytes) => add_bytes(&mut digest, b"b", bytes),
                Value::NullInt | Value::NullText => digest.update(b"n"),
            }
        }
        let digest: [u8; 32] = digest.finalize().into();
        let first = digest.first_chunk().copied().unwrap_or_default();
        self.0 = self.0.wrapping_add(u128::from_be_bytes(first));
    }
}

fn add_bytes(digest: &mut Sha256, kind: &[u8; 1], bytes: &[u8]) {
    digest.update(kind);
    digest.update((bytes.len() as u64).to_be_bytes());
    digest.update(bytes);
}
