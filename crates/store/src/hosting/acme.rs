//! What ordering certificates needs (RFC 8555): accounts at CAs, and the responses to challenges.

use crate::query::sql;
use crate::{Store, StoreError};
use jiff::Timestamp;

impl Store {
    /// Returns the account credentials for the CA with this directory URL, as the ACME client serialized them.
    pub async fn acme_account(&self, directory: &str) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> = sql("SELECT credentials FROM acme_account WHERE directory = $1")
            .bind(directory)
            .fetch_optional(self)
            .await?;
        Ok(row.map(|(credentials,)| credentials))
    }

    /// Stores account credentials, unless another process has already stored some for this directory URL.
    pub async fn put_acme_account(&self, directory: &str, credentials: &str) -> Result<(), StoreError> {
        sql(
            "INSERT INTO acme_account (directory, credentials) VALUES ($1, $2) ON CONFLICT (directory) DO NOTHING",
        )
        .bind(directory)
        .bind(credentials)
        .execute(self)
        .await?;
        Ok(())
    }

    /// Stores the response to an ACME challenge until `until`, and deletes those that have expired by `now`. `token`
    /// is the token of an HTTP-01 challenge, or the name that the caller chose for a TLS-ALPN-01 challenge.
    pub async fn put_challenge(
        &self,
        token: &str,
        answer: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        sql("DELETE FROM challenge WHERE expires_at <= $1")
            .bind(now.as_second())
            .execute(&mut transaction)
            .await?;
        sql("INSERT INTO challenge (token, answer, expires_at) VALUES ($1, $2, $3) \
             ON CONFLICT (token) DO UPDATE SET answer = excluded.answer, expires_at = excluded.expires_at")
        .bind(token)
        .bind(answer)
        .bind(until.as_second())
        .execute(&mut transaction)
        .await?;
        transaction.commit().await
    }

    /// Returns the response that was stored under `token`. `None` if it is unknown.
    pub async fn challenge(&self, token: &str) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> =
            sql("SELECT answer FROM challenge WHERE token = $1").bind(token).fetch_optional(self).await?;
        Ok(row.map(|(answer,)| answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[tokio::test]
    async fn accounts_are_kept_and_challenges_expire() {
        let (_dir, store) = crate::scratch().await;
        store.put_acme_account("https://ca/", "first").await.unwrap();
        store.put_acme_account("https://ca/", "second").await.unwrap();
        assert_eq!(store.acme_account("https://ca/").await.unwrap().as_deref(), Some("first"));
        store.put_challenge("t", "answer", at(0), at(60)).await.unwrap();
        assert_eq!(store.challenge("t").await.unwrap().as_deref(), Some("answer"));
        store.put_challenge("u", "answer", at(60), at(120)).await.unwrap();
        assert_eq!(store.challenge("t").await.unwrap(), None);
    }
}
