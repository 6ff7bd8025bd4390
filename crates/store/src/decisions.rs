//! The operator's decisions about the rollout of a domain. They are stored separately from the rollout state
//! ([`crate::rollouts`]), so that the planner never overwrites them. The receiving side defines the type.

use crate::query::sql;
use crate::{Store, StoreError, damaged};
use formats::DomainName;
use serde::Serialize;
use serde::de::DeserializeOwned;

impl Store {
    /// Replaces the decisions about a domain. They are stored as JSON.
    pub async fn put_decisions<S: Serialize>(
        &self,
        domain: &DomainName,
        state: &S,
    ) -> Result<(), StoreError> {
        let json = serde_json::to_string(state).map_err(damaged("decision"))?;
        sql("INSERT INTO decision (tenant, domain, state) VALUES ($1, $2, $3)
             ON CONFLICT (tenant, domain) DO UPDATE SET state = excluded.state")
        .bind(self.tenant)
        .bind(domain.as_str())
        .bind(json)
        .execute(self)
        .await?;
        Ok(())
    }

    /// Returns the decisions about a domain, or the default if there are none.
    pub async fn decisions<S: DeserializeOwned + Default>(
        &self,
        domain: &DomainName,
    ) -> Result<S, StoreError> {
        let row: Option<(String,)> = sql("SELECT state FROM decision WHERE tenant = $1 AND domain = $2")
            .bind(self.tenant)
            .bind(domain.as_str())
            .fetch_optional(self)
            .await?;
        match row {
            Some((json,)) => serde_json::from_str(&json).map_err(damaged("decision")),
            None => Ok(S::default()),
        }
    }

    /// Returns all decisions with their domains, in the order of the domain names. Decisions that can't be read are an error of
    /// their own domain only.
    pub async fn all_decisions<S: DeserializeOwned>(
        &self,
    ) -> Result<Vec<(String, Result<S, StoreError>)>, StoreError> {
        let rows: Vec<(String, String)> =
            sql("SELECT domain, state FROM decision WHERE tenant = $1 ORDER BY domain")
                .bind(self.tenant)
                .fetch_all(self)
                .await?;
        let read = |json: &str| serde_json::from_str(json).map_err(damaged("decision"));
        Ok(rows.into_iter().map(|(domain, json)| (domain, read(&json))).collect())
    }
}
