//! Pages that people pass on by a link, as outcomes of checks. The newest stay.

use crate::{Store, StoreError, TENANT};

impl Store {
    /// Keeps a page under the word of its link; of all pages the newest `most` stay.
    pub async fn put_shared_page(&self, word: &str, page: &str, most: u32) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        sqlx::query("INSERT INTO shared_page (tenant, word, page) VALUES ($1, $2, $3)")
            .bind(TENANT)
            .bind(word)
            .bind(page)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "DELETE FROM shared_page WHERE tenant = $1 AND number NOT IN
               (SELECT number FROM shared_page WHERE tenant = $1 ORDER BY number DESC LIMIT $2)",
        )
        .bind(TENANT)
        .bind(most)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The page behind a link, while it is kept.
    pub async fn shared_page(&self, word: &str) -> Result<Option<String>, StoreError> {
        let page = sqlx::query_scalar("SELECT page FROM shared_page WHERE tenant = $1 AND word = $2");
        Ok(page.bind(TENANT).bind(word).fetch_optional(&self.pool).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_pages_stay() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("s.db")).await.unwrap();
        for word in ["a", "b", "c"] {
            store.put_shared_page(word, &format!("page {word}"), 2).await.unwrap();
        }
        assert_eq!(store.shared_page("a").await.unwrap(), None);
        assert_eq!(store.shared_page("c").await.unwrap().as_deref(), Some("page c"));
        assert!(store.shared_page("b").await.unwrap().is_some());
    }
}
