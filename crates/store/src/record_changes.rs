//! Changes of DNS records by the receiving side, each stored before it begins, and what was seen at a domain's last
//! observation. A change that is still [`ChangeState::Begun`] when a domain's plan is applied again was cut off. The receiving
//! side defines both types, which are stored as JSON.

use crate::query::sql;
use crate::{Store, StoreError, damaged, time};
use formats::DomainName;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How far a change has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeState {
    /// The change may have been made, completely or in part.
    Begun,
    /// The change was made.
    Done,
    /// The change was not made, or the old records were restored.
    Unmade,
    /// The operator has undone the change.
    Undone,
}

/// A change of DNS records, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChange<C> {
    /// The row id; newer changes have larger ids.
    pub id: i64,
    /// When the change began.
    pub at: Timestamp,
    /// The old records and those that replace them.
    pub change: C,
    /// How far the change has come.
    pub state: ChangeState,
}

/// Changes that are kept for each domain; older ones are deleted.
const KEPT: i64 = 100;

impl ChangeState {
    fn column(self) -> i64 {
        match self {
            Self::Begun => 0,
            Self::Done => 1,
            Self::Unmade => 2,
            Self::Undone => 3,
        }
    }

    fn of(column: i64) -> Self {
        match column {
            1 => Self::Done,
            2 => Self::Unmade,
            3 => Self::Undone,
            _ => Self::Begun,
        }
    }
}

impl Store {
    /// Stores a change that is about to be made, and returns its row id.
    pub async fn begin_record_change<C: Serialize>(
        &self,
        domain: &DomainName,
        at: Timestamp,
        change: &C,
    ) -> Result<i64, StoreError> {
        let json = serde_json::to_string(change).map_err(damaged("record_change"))?;
        let mut transaction = self.writing().await?;
        let (id,): (i64,) = sql("INSERT INTO record_change (tenant, domain, at, change, state)
             VALUES ($1, $2, $3, $4, 0) RETURNING id")
        .bind(self.tenant)
        .bind(domain.as_str())
        .bind(at.as_second())
        .bind(json)
        .fetch_one(&mut transaction)
        .await?;
        sql("DELETE FROM record_change WHERE tenant = $1 AND domain = $2 AND state <> 0 AND id NOT IN
             (SELECT id FROM record_change WHERE tenant = $1 AND domain = $2 ORDER BY id DESC LIMIT $3)")
        .bind(self.tenant)
        .bind(domain.as_str())
        .bind(KEPT)
        .execute(&mut transaction)
        .await?;
        transaction.commit().await?;
        Ok(id)
    }

    /// Records how far a change has come.
    pub async fn set_record_change(&self, id: i64, state: ChangeState) -> Result<(), StoreError> {
        sql("UPDATE record_change SET state = $3 WHERE tenant = $1 AND id = $2")
            .bind(self.tenant)
            .bind(id)
            .bind(state.column())
            .execute(self)
            .await?;
        Ok(())
    }

    /// Returns the changes of a domain's records, the newest first.
    pub async fn record_changes<C: DeserializeOwned>(
        &self,
        domain: &DomainName,
    ) -> Result<Vec<StoredChange<C>>, StoreError> {
        let rows: Vec<(i64, i64, String, i64)> = sql(
            "SELECT id, at, change, state FROM record_change WHERE tenant = $1 AND domain = $2 ORDER BY id DESC",
        )
        .bind(self.tenant)
        .bind(domain.as_str())
        .fetch_all(self)
        .await?;
        let read = |(id, at, json, state): (i64, i64, String, i64)| {
            Ok(StoredChange {
                id,
                at: time("record_change", at)?,
                change: serde_json::from_str(&json).map_err(damaged("record_change"))?,
                state: ChangeState::of(state),
            })
        };
        rows.into_iter().map(read).collect()
    }

    /// Replaces what was seen at a domain's last observation.
    pub async fn put_last_look<S: Serialize>(
        &self,
        domain: &DomainName,
        at: Timestamp,
        seen: &S,
    ) -> Result<(), StoreError> {
        let json = serde_json::to_string(seen).map_err(damaged("last_look"))?;
        sql("INSERT INTO last_look (tenant, domain, at, seen) VALUES ($1, $2, $3, $4)
             ON CONFLICT (tenant, domain) DO UPDATE SET at = excluded.at, seen = excluded.seen")
        .bind(self.tenant)
        .bind(domain.as_str())
        .bind(at.as_second())
        .bind(json)
        .execute(self)
        .await?;
        Ok(())
    }

    /// Returns what was seen at a domain's last observation, and when. `None` if it was never observed.
    pub async fn last_look<S: DeserializeOwned>(
        &self,
        domain: &DomainName,
    ) -> Result<Option<(Timestamp, S)>, StoreError> {
        let row: Option<(i64, String)> =
            sql("SELECT at, seen FROM last_look WHERE tenant = $1 AND domain = $2")
                .bind(self.tenant)
                .bind(domain.as_str())
                .fetch_optional(self)
                .await?;
        let read = |(at, json): (i64, String)| {
            Ok((time("last_look", at)?, serde_json::from_str(&json).map_err(damaged("last_look"))?))
        };
        row.map(read).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_are_kept_newest_first_and_unfinished_ones_are_never_dropped() {
        let (_dir, store) = crate::scratch().await;
        let [domain, other] = ["example.org", "other.example"].map(|name| DomainName::parse(name).unwrap());
        let at = Timestamp::UNIX_EPOCH;
        let first = store.begin_record_change(&domain, at, &0).await.unwrap();
        store.begin_record_change(&other, at, &0).await.unwrap();
        for number in 1..=KEPT + 5 {
            let id = store.begin_record_change(&domain, at, &number).await.unwrap();
            let state = if number == 7 { ChangeState::Undone } else { ChangeState::Done };
            store.set_record_change(id, state).await.unwrap();
        }
        let all = store.record_changes::<i64>(&domain).await.unwrap();
        let numbers: Vec<i64> = all.iter().map(|stored| stored.change).collect();
        let mut expected: Vec<i64> = (6..=KEPT + 5).rev().collect();
        expected.push(0);
        assert_eq!(numbers, expected);
        let state = |number| all.iter().find(|stored| stored.change == number).unwrap().state;
        assert_eq!(
            (state(0), state(7), state(8)),
            (ChangeState::Begun, ChangeState::Undone, ChangeState::Done)
        );
        store.set_record_change(first, ChangeState::Unmade).await.unwrap();
        let all = store.record_changes::<i64>(&domain).await.unwrap();
        assert_eq!(all.last().unwrap().state, ChangeState::Unmade);
        assert_eq!(store.record_changes::<i64>(&other).await.unwrap().len(), 1);
        store.remove_domain(&domain).await.unwrap();
        assert_eq!(store.record_changes::<i64>(&domain).await.unwrap(), []);
    }

    #[tokio::test]
    async fn the_last_look_replaces_the_one_before() {
        let (_dir, store) = crate::scratch().await;
        let domain = DomainName::parse("example.org").unwrap();
        assert_eq!(store.last_look::<u8>(&domain).await.unwrap(), None);
        let later = Timestamp::from_second(60).unwrap();
        store.put_last_look(&domain, Timestamp::UNIX_EPOCH, &1).await.unwrap();
        store.put_last_look(&domain, later, &2).await.unwrap();
        assert_eq!(store.last_look::<u8>(&domain).await.unwrap(), Some((later, 2)));
    }
}
