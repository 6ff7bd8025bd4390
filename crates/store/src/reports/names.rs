//! Integer ids for texts that occur in many reports, such as host names. Tables refer to the texts by these ids.

use crate::StoreError;
use crate::query::{insert, parameters, unnumbered, without_nul};
use crate::writing::Writing;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The maximum number of texts in one statement. Each text is one parameter.
const BATCH_ROWS: usize = 500;

/// The ids of texts.
pub struct TextIds<'t>(BTreeMap<Cow<'t, str>, i64>);

impl<'t> TextIds<'t> {
    /// Looks up the ids of these texts. Assigns an id to each text that has none.
    pub async fn of(
        writing: &mut Writing,
        texts: impl IntoIterator<Item = &'t str>,
    ) -> Result<Self, StoreError> {
        let mut ids = Self(texts.into_iter().map(|text| (without_nul(text), 0)).collect());
        let all: Vec<Cow<'t, str>> = ids.0.keys().cloned().collect();
        for texts in all.chunks(BATCH_ROWS) {
            ids.look_up(writing, texts).await?;
            let fresh: Vec<Cow<'t, str>> =
                texts.iter().filter(|text| ids.of_text(text) == 0).cloned().collect();
            if fresh.is_empty() {
                continue;
            }
            let head = "INSERT INTO name (text)";
            let rows = insert(head, &fresh, "ON CONFLICT (text) DO NOTHING", |text| [text.as_ref().into()]);
            rows.execute(&mut *writing).await?;
            ids.look_up(writing, &fresh).await?;
        }
        Ok(ids)
    }

    /// Returns the id of a text that was looked up, else 0.
    pub fn of_text(&self, text: &str) -> i64 {
        self.0.get(without_nul(text).as_ref()).copied().unwrap_or_default()
    }

    async fn look_up(&mut self, writing: &mut Writing, texts: &[Cow<'t, str>]) -> Result<(), StoreError> {
        let list = parameters(texts.len());
        let select = format!("SELECT id, text FROM name WHERE text IN ({list})");
        let query = unnumbered(select, texts.iter().map(|text| text.as_ref().into()));
        for (id, text) in query.fetch_all::<(i64, String)>(&mut *writing).await? {
            if let Some(known) = self.0.get_mut(text.as_str()) {
                *known = id;
            }
        }
        Ok(())
    }
}
