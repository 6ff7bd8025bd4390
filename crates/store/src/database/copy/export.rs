//! Everything that belongs to a tenant, row by row: for the tenant to keep, or to take elsewhere. Numbers of repeated texts
//! (table `name`) are replaced by the texts. What lets somebody sign in is left out: it is of no use elsewhere.

use super::catalog::{self, Column, Table};
use crate::query::{Row, Value, built, parameters, sql, unnumbered};
use crate::{Store, StoreError};
use data_encoding::BASE64;
use serde_json::{Map, Value as Json};

/// Tables of a tenant whose rows let somebody sign in.
const SECRET_TABLES: [&str; 6] =
    ["sign_in", "invitation", "second_factor", "recovery_code", "domain_proof", "api_token"];
/// Columns with hashes of passwords.
const SECRET_COLUMNS: [(&str, &str); 1] = [("person", "password")];
/// Columns that refer to the table `name` without saying so in the schema.
const UNDECLARED_NAMES: [(&str, &str); 2] = [("report", "about"), ("outcome", "host")];
/// The columns that hold numbers of the table `name`.
const NAMES: [(&str, &str); 9] = [
    ("report", "submitter"),
    ("report", "organization"),
    ("report", "signer"),
    ("outcome", "domain"),
    ("failure", "domain"),
    ("failure", "result_type"),
    ("failure", "host"),
    ("domain_day", "domain"),
    ("submitter_day", "submitter"),
];
/// Rows of one statement.
const BATCH: u32 = 200;

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The receiver of the rows failed.
    #[error(transparent)]
    Write(#[from] std::io::Error),
}

/// Takes the rows of an export: the name of the table, and the columns with their values.
pub type RowWriter<'w> = dyn FnMut(&str, Map<String, Json>) -> std::io::Result<()> + Send + 'w;

impl Store {
    /// Passes every row of the tenant of this handle to `write`, table by table. Bytes are in base64.
    ///
    /// # Errors
    ///
    /// If the database fails, or `write`.
    pub async fn export_tenant(&self, write: &mut RowWriter<'_>) -> Result<(), ExportError> {
        let tables = catalog::tables(self).await?;
        for table in &tables {
            let name = table.name.as_str();
            let is_of_tenant = name == "dmarc_row" || has_tenant(table);
            if !is_of_tenant || SECRET_TABLES.contains(&name) {
                continue;
            }
            match table.key.is_empty() {
                false => self.export_table(table, write).await?,
                true => self.export_part(table, write).await?,
            }
        }
        Ok(())
    }

    /// Exports a table in the order of its primary key.
    async fn export_table(&self, table: &Table, write: &mut RowWriter<'_>) -> Result<(), ExportError> {
        let keys: Vec<&Column> = table.key_columns().collect();
        let key_names = keys.iter().map(|key| format!("{}.{}", table.name, key.name)).collect::<Vec<_>>();
        let key_names = key_names.join(", ");
        let condition = match table.name.as_str() {
            "dmarc_row" => "report IN (SELECT id FROM dmarc_report WHERE tenant = ?)",
            _ => "tenant = ?",
        };
        let mut after: Option<Vec<Value<'static>>> = None;
        loop {
            let mut values = vec![Value::from(self.tenant)];
            let further = match &after {
                Some(after) => {
                    values.extend(after.iter().cloned());
                    format!(" AND ({key_names}) > ({})", parameters(after.len()))
                }
                None => String::new(),
            };
            let text = format!(
                "SELECT {key_names}, {} FROM {} WHERE {condition}{further} ORDER BY {key_names} LIMIT {BATCH}",
                shown(table),
                table.name
            );
            let mut found = Vec::new();
            unnumbered(text, values)
                .each(self, |row| {
                    let key = keys.iter().map(|column| column.read(row)).collect::<Result<Vec<_>, _>>()?;
                    found.push((key, exported(table, row)?));
                    Ok(())
                })
                .await?;
            let Some((last, _)) = found.last() else { return Ok(()) };
            after = Some(last.clone());
            for (_, row) in found {
                write(&table.name, row)?;
            }
        }
    }

    /// Exports a table without a primary key, with the rows of some reports in each statement.
    async fn export_part(&self, table: &Table, write: &mut RowWriter<'_>) -> Result<(), ExportError> {
        let mut last = i64::MIN;
        loop {
            let ids = "SELECT id FROM report WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3";
            let ids: Vec<(i64,)> = sql(ids).bind(self.tenant).bind(last).bind(BATCH).fetch_all(self).await?;
            let Some((end,)) = ids.last().copied() else { return Ok(()) };
            let text = format!(
                "SELECT {} FROM {} WHERE tenant = $1 AND report > $2 AND report <= $3 ORDER BY report",
                shown(table),
                table.name
            );
            let mut found = Vec::new();
            let query = built(text).bind(self.tenant).bind(last).bind(end);
            query
                .each(self, |row| {
                    found.push(exported(table, row)?);
                    Ok(())
                })
                .await?;
            last = end;
            for row in found {
                write(&table.name, row)?;
            }
        }
    }
}

/// True for a table with a column `tenant`.
pub(super) fn has_tenant(table: &Table) -> bool {
    table.columns.iter().any(|column| column.name == "tenant")
}

fn is_name(table: &str, column: &str) -> bool {
    NAMES.contains(&(table, column)) || UNDECLARED_NAMES.contains(&(table, column))
}

/// The columns of an export, for a statement.
fn shown(table: &Table) -> String {
    let name = &table.name;
    let one = |column: &Column| {
        let column = &column.name;
        match is_name(name, column) {
            true => format!("(SELECT name.text FROM name WHERE name.id = {name}.{column})"),
            false => format!("{name}.{column}"),
        }
    };
    exported_columns(table).map(one).collect::<Vec<_>>().join(", ")
}

fn exported_columns(table: &Table) -> impl Iterator<Item = &Column> {
    let is_secret = |column: &Column| SECRET_COLUMNS.contains(&(table.name.as_str(), column.name.as_str()));
    table.columns.iter().filter(move |column| column.name != "tenant" && !is_secret(column))
}

/// Reads a row of [`shown`] columns.
fn exported(table: &Table, row: &mut Row<'_>) -> Result<Map<String, Json>, StoreError> {
    let mut read = Map::new();
    for column in exported_columns(table) {
        let value = match is_name(&table.name, &column.name) {
            true => row.get::<Option<String>>()?.map_or(Json::Null, Json::String),
            false => json(column.read(row)?),
        };
        read.insert(column.name.clone(), value);
    }
    Ok(read)
}

fn json(value: Value<'static>) -> Json {
    match value {
        Value::Int(number) => number.into(),
        Value::Text(text) => Json::String(text.into_owned()),
        Value::Blob(bytes) => Json::String(BASE64.encode(&bytes)),
        Value::NullInt | Value::NullText => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[tokio::test]
    async fn every_column_that_refers_to_a_text_is_exported_as_the_text() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("s.db"), crate::Tenant::FIRST).await.unwrap();
        let mut declared = BTreeSet::new();
        for table in catalog::tables(&store).await.unwrap().iter().filter(|table| has_tenant(table)) {
            let query = "SELECT \"from\" FROM pragma_foreign_key_list($1) WHERE \"table\" = 'name'";
            let columns: Vec<(String,)> = sql(query).bind(&table.name).fetch_all(&store).await.unwrap();
            declared.extend(columns.into_iter().map(|(column,)| (table.name.clone(), column)));
        }
        let listed = NAMES.iter().map(|(table, column)| ((*table).to_owned(), (*column).to_owned()));
        assert_eq!(listed.collect::<BTreeSet<_>>(), declared);
    }
}
