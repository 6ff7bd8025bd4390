//! Domains that were added by command rather than in the configuration.

use crate::query::sql;
use crate::{Store, StoreError, damaged};
use formats::DomainName;
use serde::Serialize;
use serde::de::DeserializeOwned;

impl Store {
    /// Adds a domain, or replaces its settings. The receiving side defines the type, which is stored as JSON.
    pub async fn put_domain<S: Serialize>(&self, name: &DomainName, spec: &S) -> Result<(), StoreError> {
        let json = serde_json::to_string(spec).map_err(damaged("domain"))?;
        sql("INSERT INTO domain (tenant, name, spec) VALUES ($1, $2, $3)
             ON CONFLICT (tenant, name) DO UPDATE SET spec = excluded.spec")
        .bind(self.tenant)
        .bind(name.as_str())
        .bind(json)
        .execute(self)
        .await?;
        Ok(())
    }

    /// Removes a domain, which its tenant then owns no longer. False if there is no such domain.
    pub async fn remove_domain(&self, name: &DomainName) -> Result<bool, StoreError> {
        let mut transaction = self.writing().await?;
        let done =
            sql("DELETE FROM domain WHERE tenant = $1 AND name = $2").bind(self.tenant).bind(name.as_str());
        let done = done.execute(&mut transaction).await?;
        for delete in [
            "DELETE FROM record_change WHERE tenant = $1 AND domain = $2",
            "DELETE FROM last_look WHERE tenant = $1 AND domain = $2",
            "DELETE FROM seen_host WHERE tenant = $1 AND domain = $2",
            "DELETE FROM domain_proof WHERE tenant = $1 AND domain = $2",
            "DELETE FROM domain_owner WHERE tenant = $1 AND domain = $2",
        ] {
            sql(delete).bind(self.tenant).bind(name.as_str()).execute(&mut transaction).await?;
        }
        transaction.commit().await?;
        Ok(done > 0)
    }

    /// Returns the names and settings of all domains, in the order of their names. Settings that can't be read are an
    /// error of their own domain only.
    pub async fn domains<S: DeserializeOwned>(
        &self,
    ) -> Result<Vec<(String, Result<S, StoreError>)>, StoreError> {
        let rows: Vec<(String, String)> =
            sql("SELECT name, spec FROM domain WHERE tenant = $1 ORDER BY name")
                .bind(self.tenant)
                .fetch_all(self)
                .await?;
        let read = |json: &str| serde_json::from_str(json).map_err(damaged("domain"));
        Ok(rows.into_iter().map(|(name, json)| (name, read(&json))).collect())
    }

    /// Returns the settings of a domain. `None` if it was not added by command.
    pub async fn domain<S: DeserializeOwned>(&self, name: &DomainName) -> Result<Option<S>, StoreError> {
        let row: Option<(String,)> = sql("SELECT spec FROM domain WHERE tenant = $1 AND name = $2")
            .bind(self.tenant)
            .bind(name.as_str())
            .fetch_optional(self)
            .await?;
        row.map(|(json,)| serde_json::from_str(&json).map_err(damaged("domain"))).transpose()
    }

    /// Returns the names and settings of up to `most` domains whose names sort after `after`, in that order. Settings that
    /// can't be read are an error of their own domain only.
    pub async fn domains_after<S: DeserializeOwned>(
        &self,
        after: &str,
        most: u32,
    ) -> Result<Vec<(String, Result<S, StoreError>)>, StoreError> {
        let rows: Vec<(String, String)> =
            sql("SELECT name, spec FROM domain WHERE tenant = $1 AND name > $2 ORDER BY name LIMIT $3")
                .bind(self.tenant)
                .bind(after)
                .bind(most)
                .fetch_all(self)
                .await?;
        let read = |json: &str| serde_json::from_str(json).map_err(damaged("domain"));
        Ok(rows.into_iter().map(|(name, json)| (name, read(&json))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn domains_are_added_and_removed() {
        let (_dir, store) = crate::scratch().await;
        let name = DomainName::parse("a.example").unwrap();
        store.put_domain(&name, &"first").await.unwrap();
        store.put_domain(&name, &"second").await.unwrap();
        let other = DomainName::parse("b.example").unwrap();
        store.put_domain(&other, &7).await.unwrap();
        let all = store.domains::<String>().await.unwrap();
        assert_eq!((all[0].0.as_str(), all[0].1.as_ref().unwrap().as_str()), ("a.example", "second"));
        assert!(all[1].0 == "b.example" && matches!(all[1].1, Err(StoreError::Damaged { .. })));
        assert!(store.remove_domain(&other).await.unwrap());
        assert_eq!(store.domain::<String>(&name).await.unwrap().as_deref(), Some("second"));
        let after = store.domains_after::<String>("a", 9).await.unwrap();
        assert_eq!((after.len(), after[0].1.as_ref().unwrap().as_str()), (1, "second"));
        assert!(store.domains_after::<String>("a.example", 9).await.unwrap().is_empty());
        assert!(store.remove_domain(&name).await.unwrap());
        assert!(!store.remove_domain(&name).await.unwrap());
    }
}
