//! What ordering certificates needs (RFC 8555): accounts at CAs, and the responses to challenges.

use crate::query::{built, sql};
use crate::writing::{Tries, Writing};
use crate::{Store, StoreError, damaged};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

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

    /// Returns what is stored about the orders that the CA with this directory URL may get. `None` before the first change.
    pub async fn acme_budget<B: DeserializeOwned>(&self, directory: &str) -> Result<Option<B>, StoreError> {
        let query = sql("SELECT state FROM acme_budget WHERE directory = $1");
        let row: Option<(String,)> = query.bind(directory).fetch_optional(self).await?;
        row.map(|(json,)| serde_json::from_str(&json).map_err(damaged("acme_budget"))).transpose()
    }

    /// Changes what is stored about the orders that a CA may get, in one transaction: other processes wait for its end.
    /// `change` gets `None` before the first change, and may run more than once.
    pub async fn change_acme_budget<B: Serialize + DeserializeOwned, R>(
        &self,
        directory: &str,
        change: impl Fn(Option<B>) -> (B, R) + Send + Sync,
    ) -> Result<R, StoreError> {
        let mut tries = Tries::default();
        loop {
            let mut writing = self.writing().await?;
            let changed = change_budget(&mut writing, directory, &change).await;
            if tries.again(&changed) {
                writing.rollback().await?;
                continue;
            }
            let result = changed?;
            writing.commit().await?;
            return Ok(result);
        }
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

async fn change_budget<B: Serialize + DeserializeOwned, R>(
    writing: &mut Writing,
    directory: &str,
    change: &(impl Fn(Option<B>) -> (B, R) + Send + Sync),
) -> Result<R, StoreError> {
    // A row to lock; an empty state is none.
    sql("INSERT INTO acme_budget (directory, state) VALUES ($1, '') ON CONFLICT (directory) DO NOTHING")
        .bind(directory)
        .execute(&mut *writing)
        .await?;
    let text = format!("SELECT state FROM acme_budget WHERE directory = $1{}", writing.for_update());
    let (json,): (String,) = built(text).bind(directory).fetch_one(&mut *writing).await?;
    let read = |json: &str| serde_json::from_str(json).map_err(damaged("acme_budget"));
    let before = if json.is_empty() { None } else { Some(read(&json)?) };
    let (after, result) = change(before);
    let json = serde_json::to_string(&after).map_err(damaged("acme_budget"))?;
    let update = sql("UPDATE acme_budget SET state = $2 WHERE directory = $1");
    update.bind(directory).bind(json).execute(writing).await?;
    Ok(result)
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

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn all_processes_spend_from_one_budget() {
        let (scratch, store) = crate::scratch().await;
        assert_eq!(store.acme_budget::<u32>("https://ca/").await.unwrap(), None);
        let mut processes = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let store = scratch.open().await;
            processes.spawn(async move {
                let mut spent = 0;
                for _ in 0..10 {
                    let spend = |left: Option<u32>| match left.unwrap_or(25) {
                        0 => (0, 0),
                        left => (left - 1, 1),
                    };
                    spent += store.change_acme_budget("https://ca/", spend).await.unwrap();
                }
                spent
            });
        }
        assert_eq!(processes.join_all().await.iter().sum::<u32>(), 25);
        assert_eq!(store.acme_budget::<u32>("https://ca/").await.unwrap(), Some(0));
        assert_eq!(store.acme_budget::<u32>("https://other/").await.unwrap(), None);
    }
}
