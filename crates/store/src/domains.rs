//! Domains that were added by command rather than in the configuration, and leases. A lease keeps two processes that
//! share the database from doing the same work at once, e.g. applying a rollout.

use crate::query::sql;
use crate::{Store, StoreError, damaged};
use formats::DomainName;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

impl Store {
    /// Adds a domain, or replaces its settings. The receiving side defines the type, which is stored as JSON.
    pub async fn put_domain<S: Serialize>(&self, name: &DomainName, spec: &S) -> Result<(), StoreError> {
        let json = serde_json::to_string(spec).map_err(damaged("domain"))?;
        sql(
            "INSERT INTO domain (name, spec) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET spec = excluded.spec",
        )
        .bind(name.as_str())
        .bind(json)
        .execute(self)
        .await?;
        Ok(())
    }

    /// Removes a domain. False if there is no such domain.
    pub async fn remove_domain(&self, name: &DomainName) -> Result<bool, StoreError> {
        let done = sql("DELETE FROM domain WHERE name = $1").bind(name.as_str()).execute(self).await?;
        Ok(done > 0)
    }

    /// Returns the settings of all domains, in the order of their names.
    pub async fn domains<S: DeserializeOwned>(&self) -> Result<Vec<S>, StoreError> {
        let rows: Vec<(String,)> = sql("SELECT spec FROM domain ORDER BY name").fetch_all(self).await?;
        rows.into_iter().map(|(json,)| serde_json::from_str(&json).map_err(damaged("domain"))).collect()
    }

    /// Returns the settings of a domain. `None` if it was not added by command.
    pub async fn domain<S: DeserializeOwned>(&self, name: &DomainName) -> Result<Option<S>, StoreError> {
        let row: Option<(String,)> =
            sql("SELECT spec FROM domain WHERE name = $1").bind(name.as_str()).fetch_optional(self).await?;
        row.map(|(json,)| serde_json::from_str(&json).map_err(damaged("domain"))).transpose()
    }

    /// Returns the settings of up to `most` domains whose names sort after `after`, in that order.
    pub async fn domains_after<S: DeserializeOwned>(
        &self,
        after: &str,
        most: u32,
    ) -> Result<Vec<S>, StoreError> {
        let rows: Vec<(String,)> = sql("SELECT spec FROM domain WHERE name > $1 ORDER BY name LIMIT $2")
            .bind(after)
            .bind(most)
            .fetch_all(self)
            .await?;
        rows.into_iter().map(|(json,)| serde_json::from_str(&json).map_err(damaged("domain"))).collect()
    }

    /// Acquires or renews the lease `name` until `until`. False while a different holder has it at `now`.
    pub async fn lease(
        &self,
        name: &str,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = sql("INSERT INTO lease (name, holder, expires_at) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at \
             WHERE lease.holder = excluded.holder OR lease.expires_at <= $4")
        .bind(name)
        .bind(holder)
        .bind(until.as_second())
        .bind(now.as_second())
        .execute(self)
        .await?;
        Ok(done > 0)
    }

    /// Releases a lease. Does nothing unless `holder` has it.
    pub async fn release(&self, name: &str, holder: &str) -> Result<(), StoreError> {
        sql("DELETE FROM lease WHERE name = $1 AND holder = $2")
            .bind(name)
            .bind(holder)
            .execute(self)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[tokio::test]
    async fn domains_are_added_and_removed() {
        let (_dir, store) = crate::scratch().await;
        let name = DomainName::parse("a.example").unwrap();
        store.put_domain(&name, &"first").await.unwrap();
        store.put_domain(&name, &"second").await.unwrap();
        assert_eq!(store.domains::<String>().await.unwrap(), ["second"]);
        assert_eq!(store.domain::<String>(&name).await.unwrap().as_deref(), Some("second"));
        assert_eq!(store.domains_after::<String>("a", 9).await.unwrap(), ["second"]);
        assert!(store.domains_after::<String>("a.example", 9).await.unwrap().is_empty());
        assert!(store.remove_domain(&name).await.unwrap());
        assert!(!store.remove_domain(&name).await.unwrap());
    }

    #[tokio::test]
    async fn a_lease_has_one_holder_until_it_is_released_or_expires() {
        let (_dir, store) = crate::scratch().await;
        assert!(store.lease("x", "one", at(0), at(60)).await.unwrap());
        assert!(store.lease("x", "one", at(30), at(90)).await.unwrap());
        assert!(!store.lease("x", "two", at(89), at(120)).await.unwrap());
        assert!(store.lease("x", "two", at(90), at(120)).await.unwrap());
        store.release("x", "one").await.unwrap();
        assert!(!store.lease("x", "one", at(100), at(200)).await.unwrap());
        store.release("x", "two").await.unwrap();
        assert!(store.lease("x", "one", at(100), at(200)).await.unwrap());
    }
}
