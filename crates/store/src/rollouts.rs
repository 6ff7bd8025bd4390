//! The rollout state of each domain, and the journal of all steps and decisions. The receiving side's planner writes
//! both; commands and the dashboard show them. The receiving side defines the state's type, which is stored as JSON.

use crate::query::{built, parameters, sql, unnumbered};
use crate::{Store, StoreError, damaged, time};
use formats::DomainName;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// An entry of a domain's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalEntry {
    /// The time of the event.
    pub at: Timestamp,
    /// The actor, e.g. `operator` or `planner`.
    pub who: String,
    /// What happened, in a sentence.
    pub what: String,
}

/// A journal entry with its row id and domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalLine {
    /// The row id; newer entries have larger ids.
    pub id: i64,
    /// The domain whose journal contains the entry.
    pub domain: String,
    /// The entry itself.
    #[serde(flatten)]
    pub entry: JournalEntry,
}

/// The number of names in one statement.
const BATCH_ROWS: usize = 500;

const UPSERT: &str = "INSERT INTO rollout (tenant, domain, state) VALUES ($1, $2, $3) ON CONFLICT (tenant, domain) DO UPDATE SET state = excluded.state";

impl Store {
    /// Replaces the rollout state of a domain.
    pub async fn put_rollout<S: Serialize>(&self, domain: &DomainName, state: &S) -> Result<(), StoreError> {
        let json = serde_json::to_string(state).map_err(damaged("rollout"))?;
        sql(UPSERT).bind(self.tenant).bind(domain.as_str()).bind(json).execute(self).await?;
        Ok(())
    }

    /// Returns the rollout state of a domain. `None` if none is stored.
    pub async fn rollout<S: DeserializeOwned>(&self, domain: &DomainName) -> Result<Option<S>, StoreError> {
        let row: Option<(String,)> = sql("SELECT state FROM rollout WHERE tenant = $1 AND domain = $2")
            .bind(self.tenant)
            .bind(domain.as_str())
            .fetch_optional(self)
            .await?;
        row.map(|(json,)| serde_json::from_str(&json).map_err(damaged("rollout"))).transpose()
    }

    /// Changes the rollout state of a domain in one transaction, so that a concurrent change by another process is not
    /// lost. If no state is stored, `change` gets the default.
    pub async fn change_rollout<S: Serialize + DeserializeOwned + Default>(
        &self,
        domain: &DomainName,
        change: impl FnOnce(&mut S) + Send,
    ) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        // The row has to exist, so that it can be locked.
        sql("INSERT INTO rollout (tenant, domain, state) VALUES ($1, $2, $3) ON CONFLICT (tenant, domain) DO NOTHING")
            .bind(self.tenant)
            .bind(domain.as_str())
            .bind(serde_json::to_string(&S::default()).map_err(damaged("rollout"))?)
            .execute(&mut transaction)
            .await?;
        let select = format!(
            "SELECT state FROM rollout WHERE tenant = $1 AND domain = $2{}",
            transaction.for_update()
        );
        let select = built(select).bind(self.tenant).bind(domain.as_str());
        let (json,): (String,) = select.fetch_one(&mut transaction).await?;
        let mut state: S = serde_json::from_str(&json).map_err(damaged("rollout"))?;
        change(&mut state);
        sql(UPSERT)
            .bind(self.tenant)
            .bind(domain.as_str())
            .bind(serde_json::to_string(&state).map_err(damaged("rollout"))?)
            .execute(&mut transaction)
            .await?;
        transaction.commit().await
    }

    /// Returns all rollout states by domain name. A state that can't be read is an error of its own domain only.
    pub async fn rollouts<S: DeserializeOwned>(
        &self,
    ) -> Result<BTreeMap<String, Result<S, StoreError>>, StoreError> {
        let rows: Vec<(String, String)> = sql("SELECT domain, state FROM rollout WHERE tenant = $1")
            .bind(self.tenant)
            .fetch_all(self)
            .await?;
        let read = |json: &str| serde_json::from_str(json).map_err(damaged("rollout"));
        Ok(rows.into_iter().map(|(domain, json)| (domain, read(&json))).collect())
    }

    /// Returns the rollout states of these domains by name, as [`Self::rollouts`] does.
    pub async fn rollouts_of<S: DeserializeOwned>(
        &self,
        domains: &[&str],
    ) -> Result<BTreeMap<String, Result<S, StoreError>>, StoreError> {
        let mut all = BTreeMap::new();
        for batch in domains.chunks(BATCH_ROWS) {
            let text = format!(
                "SELECT domain, state FROM rollout WHERE tenant = ? AND domain IN ({})",
                parameters(batch.len())
            );
            let values = std::iter::once(self.tenant.into()).chain(batch.iter().map(|name| (*name).into()));
            for (domain, json) in unnumbered(text, values).fetch_all::<(String, String)>(self).await? {
                all.insert(domain, serde_json::from_str(&json).map_err(damaged("rollout")));
            }
        }
        Ok(all)
    }

    /// Returns up to `most` journal entries with ids below `before`, newest first: of one domain, or of all.
    pub async fn journal_page(
        &self,
        domain: Option<&str>,
        before: i64,
        most: u32,
    ) -> Result<Vec<JournalLine>, StoreError> {
        let select = "SELECT id, domain, at, who, what FROM journal WHERE tenant = $1 AND id < $2";
        let query = match domain {
            Some(domain) => built(format!("{select} AND domain = $4 ORDER BY id DESC LIMIT $3"))
                .bind(self.tenant)
                .bind(before)
                .bind(most)
                .bind(domain),
            None => {
                built(format!("{select} ORDER BY id DESC LIMIT $3")).bind(self.tenant).bind(before).bind(most)
            }
        };
        let rows: Vec<(i64, String, i64, String, String)> = query.fetch_all(self).await?;
        rows.into_iter()
            .map(|(id, domain, at, who, what)| {
                Ok(JournalLine { id, domain, entry: JournalEntry { at: time("journal", at)?, who, what } })
            })
            .collect()
    }

    /// Adds an entry to the journal of a domain.
    pub async fn journal(
        &self,
        domain: &DomainName,
        at: Timestamp,
        who: &str,
        what: &str,
    ) -> Result<(), StoreError> {
        sql("INSERT INTO journal (tenant, domain, at, who, what) VALUES ($1, $2, $3, $4, $5)")
            .bind(self.tenant)
            .bind(domain.as_str())
            .bind(at.as_second())
            .bind(who)
            .bind(what)
            .execute(self)
            .await?;
        Ok(())
    }

    /// Returns the journal of a domain, oldest entry first.
    pub async fn journal_of(&self, domain: &DomainName) -> Result<Vec<JournalEntry>, StoreError> {
        let rows: Vec<(i64, String, String)> =
            sql("SELECT at, who, what FROM journal WHERE tenant = $1 AND domain = $2 ORDER BY id")
                .bind(self.tenant)
                .bind(domain.as_str())
                .fetch_all(self)
                .await?;
        rows.into_iter()
            .map(|(at, who, what)| Ok(JournalEntry { at: time("journal", at)?, who, what }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn states_and_journal_are_stored_and_read() {
        let (_dir, store) = crate::scratch().await;
        let domain = DomainName::parse("example.org").unwrap();
        assert_eq!(store.rollout::<Vec<u8>>(&domain).await.unwrap(), None);
        store.put_rollout(&domain, &vec![1, 2]).await.unwrap();
        store.put_rollout(&domain, &vec![3]).await.unwrap();
        assert_eq!(store.rollout::<Vec<u8>>(&domain).await.unwrap(), Some(vec![3]));
        store.change_rollout(&domain, |state: &mut Vec<u8>| state.push(4)).await.unwrap();
        assert_eq!(store.rollout::<Vec<u8>>(&domain).await.unwrap(), Some(vec![3, 4]));
        store.change_rollout(&domain, |state: &mut Vec<u8>| state.truncate(1)).await.unwrap();
        assert!(store.rollout::<String>(&domain).await.is_err());
        let other = DomainName::parse("other.example").unwrap();
        store.put_rollout(&other, &"not a list").await.unwrap();
        let all = store.rollouts::<Vec<u8>>().await.unwrap();
        assert_eq!(all["example.org"].as_ref().unwrap(), &[3]);
        assert!(matches!(all["other.example"], Err(StoreError::Damaged { table: "rollout", .. })));
        store.journal(&domain, Timestamp::UNIX_EPOCH, "operator", "held back").await.unwrap();
        assert_eq!(
            store.journal_of(&domain).await.unwrap(),
            [JournalEntry { at: Timestamp::UNIX_EPOCH, who: "operator".into(), what: "held back".into() }]
        );
        let all = store.journal_page(None, i64::MAX, 10).await.unwrap();
        assert_eq!((all.len(), all[0].domain.as_str()), (1, "example.org"));
        assert_eq!(store.journal_page(None, all[0].id, 10).await.unwrap(), []);
        assert_eq!(store.journal_page(Some("example.org"), i64::MAX, 10).await.unwrap(), all);
        assert_eq!(store.journal_page(Some("other.example"), i64::MAX, 10).await.unwrap(), []);
    }
}
