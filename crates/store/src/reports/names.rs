//! Integer ids for texts that occur in many reports, such as host names. Tables refer to the texts by these ids.

use crate::StoreError;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};
use std::collections::HashMap;

/// The maximum number of texts in one statement. Each text is one parameter.
const BATCH_ROWS: usize = 500;

/// Returns the ids of these texts. Assigns an id to each text that has none.
pub async fn text_ids<'t>(
    connection: &mut SqliteConnection,
    texts: impl IntoIterator<Item = &'t str>,
) -> Result<HashMap<&'t str, i64>, StoreError> {
    let mut found: HashMap<&str, i64> = texts.into_iter().map(|text| (text, 0)).collect();
    let all: Vec<&str> = found.keys().copied().collect();
    for texts in all.chunks(BATCH_ROWS) {
        look_up(connection, texts, &mut found).await?;
        let fresh: Vec<&str> =
            texts.iter().copied().filter(|text| found.get(text).is_none_or(|id| *id == 0)).collect();
        if fresh.is_empty() {
            continue;
        }
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO name (text) ");
        insert.push_values(&fresh, |mut row, text| {
            row.push_bind(*text);
        });
        insert.build().execute(&mut *connection).await?;
        look_up(connection, &fresh, &mut found).await?;
    }
    Ok(found)
}

async fn look_up(
    connection: &mut SqliteConnection,
    texts: &[&str],
    found: &mut HashMap<&str, i64>,
) -> Result<(), StoreError> {
    let mut query = QueryBuilder::<Sqlite>::new("SELECT id, text FROM name WHERE text IN (");
    let mut list = query.separated(", ");
    texts.iter().for_each(|text| {
        list.push_bind(*text);
    });
    list.push_unseparated(")");
    for row in query.build().fetch_all(&mut *connection).await? {
        let text: &str = row.try_get(1)?;
        if let Some(id) = found.get_mut(text) {
            *id = row.try_get(0)?;
        }
    }
    Ok(())
}
