//! Check result pages that users share by link. Only the newest pages are kept. The public check of the dashboard
//! stores a page; a request for its link reads it.

use crate::query::sql;
use crate::{Store, StoreError};

impl Store {
    /// Stores a page under `word`, the random part of its link. Then deletes all but the newest `most` pages.
    pub async fn put_shared_page(&self, word: &str, page: &str, most: u32) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        sql("INSERT INTO shared_page (tenant, word, page) VALUES ($1, $2, $3)")
            .bind(self.tenant)
            .bind(word)
            .bind(page)
            .execute(&mut transaction)
            .await?;
        sql("DELETE FROM shared_page WHERE tenant = $1 AND number NOT IN
               (SELECT number FROM shared_page WHERE tenant = $1 ORDER BY number DESC LIMIT $2)")
        .bind(self.tenant)
        .bind(most)
        .execute(&mut transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Returns the page behind a link. `None` if it was deleted or never existed.
    pub async fn shared_page(&self, word: &str) -> Result<Option<String>, StoreError> {
        let page = sql("SELECT page FROM shared_page WHERE tenant = $1 AND word = $2");
        let row: Option<(String,)> = page.bind(self.tenant).bind(word).fetch_optional(self).await?;
        Ok(row.map(|(page,)| page))
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn only_the_newest_pages_are_kept() {
        let (_dir, store) = crate::scratch().await;
        for word in ["a", "b", "c"] {
            store.put_shared_page(word, &format!("page {word}"), 2).await.unwrap();
        }
        assert_eq!(store.shared_page("a").await.unwrap(), None);
        assert_eq!(store.shared_page("c").await.unwrap().as_deref(), Some("page c"));
        assert!(store.shared_page("b").await.unwrap().is_some());
    }
}
