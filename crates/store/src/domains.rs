//! Domains that were added by command rather than in the configuration. Their settings are stored as JSON; the text identifies a
//! version of them, so that a change that was made for another version can be refused.

use crate::query::{insert, parameters, sql, unnumbered};
use crate::{Store, StoreError, damaged};
use formats::DomainName;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// What the stored settings of a domain have to be for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected<'e> {
    /// Any settings, or none.
    Any,
    /// None: the domain is not stored.
    Absent,
    /// This text, as [`Store::domain_text`] returned it.
    Text(&'e str),
}

/// New settings of a domain for [`Store::put_domains`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSettings {
    /// The domain.
    pub name: String,
    /// Its settings, as JSON.
    pub spec: String,
    /// What the domain's journal says about the change.
    pub journal: String,
}

/// The number of rows in one statement.
const BATCH_ROWS: usize = 500;

impl Store {
    /// Adds a domain, or replaces its settings. The receiving side defines the type, which is stored as JSON.
    pub async fn put_domain<S: Serialize>(&self, name: &DomainName, spec: &S) -> Result<(), StoreError> {
        self.put_domain_if(name, spec, Expected::Any).await.map(drop)
    }

    /// As [`Self::put_domain`], if the stored settings are as expected. False if they are not.
    pub async fn put_domain_if<S: Serialize>(
        &self,
        name: &DomainName,
        spec: &S,
        expected: Expected<'_>,
    ) -> Result<bool, StoreError> {
        let json = serde_json::to_string(spec).map_err(damaged("domain"))?;
        let (text, before) = match expected {
            Expected::Any => (
                "INSERT INTO domain (tenant, name, spec) VALUES ($1, $2, $3)
                 ON CONFLICT (tenant, name) DO UPDATE SET spec = excluded.spec",
                None,
            ),
            Expected::Absent => (
                "INSERT INTO domain (tenant, name, spec) VALUES ($1, $2, $3) ON CONFLICT (tenant, name) DO NOTHING",
                None,
            ),
            Expected::Text(before) => {
                ("UPDATE domain SET spec = $3 WHERE tenant = $1 AND name = $2 AND spec = $4", Some(before))
            }
        };
        let statement = sql(text).bind(self.tenant).bind(name.as_str()).bind(json);
        let statement = match before {
            Some(before) => statement.bind(before),
            None => statement,
        };
        Ok(statement.execute(self).await? > 0)
    }

    /// Stores the settings of several domains with their journal entries, in one transaction.
    pub async fn put_domains(
        &self,
        domains: &[NewSettings],
        at: Timestamp,
        who: &str,
    ) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        // Two batches lock their rows in the same order.
        let mut sorted: Vec<&NewSettings> = domains.iter().collect();
        sorted.sort_by(|one, other| one.name.cmp(&other.name));
        for batch in sorted.chunks(BATCH_ROWS) {
            let row = |new: &'_ &NewSettings| (new.name.clone(), new.spec.clone());
            let rows: Vec<(String, String)> = batch.iter().map(row).collect();
            let tail = "ON CONFLICT (tenant, name) DO UPDATE SET spec = excluded.spec";
            let settings = insert("INSERT INTO domain (tenant, name, spec)", &rows, tail, |(name, spec)| {
                [self.tenant.into(), name.into(), spec.into()]
            });
            settings.execute(&mut transaction).await?;
            let entries = insert("INSERT INTO journal (tenant, domain, at, who, what)", batch, "", |new| {
                [
                    self.tenant.into(),
                    (&new.name).into(),
                    at.as_second().into(),
                    who.to_owned().into(),
                    (&new.journal).into(),
                ]
            });
            entries.execute(&mut transaction).await?;
        }
        transaction.commit().await
    }

    /// Removes a domain, which its tenant then owns no longer. False if there is no such domain.
    pub async fn remove_domain(&self, name: &DomainName) -> Result<bool, StoreError> {
        self.remove_domain_if(name, Expected::Any).await
    }

    /// As [`Self::remove_domain`], if the stored settings are as expected. False if they are not, or if there is no such domain.
    pub async fn remove_domain_if(
        &self,
        name: &DomainName,
        expected: Expected<'_>,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.writing().await?;
        let done = match expected {
            Expected::Absent => return transaction.rollback().await.map(|()| false),
            Expected::Any => sql("DELETE FROM domain WHERE tenant = $1 AND name = $2")
                .bind(self.tenant)
                .bind(name.as_str()),
            Expected::Text(before) => sql("DELETE FROM domain WHERE tenant = $1 AND name = $2 AND spec = $3")
                .bind(self.tenant)
                .bind(name.as_str())
                .bind(before),
        };
        let done = done.execute(&mut transaction).await?;
        if done == 0 && matches!(expected, Expected::Text(_)) {
            return transaction.rollback().await.map(|()| false);
        }
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

    /// Returns the settings of a domain as they are stored. `None` if it was not added by command.
    pub async fn domain_text(&self, name: &DomainName) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> = sql("SELECT spec FROM domain WHERE tenant = $1 AND name = $2")
            .bind(self.tenant)
            .bind(name.as_str())
            .fetch_optional(self)
            .await?;
        Ok(row.map(|(json,)| json))
    }

    /// Returns the settings of these domains as they are stored, by name.
    pub async fn domain_texts(&self, names: &[&str]) -> Result<BTreeMap<String, String>, StoreError> {
        let mut all = BTreeMap::new();
        for batch in names.chunks(BATCH_ROWS) {
            let text = format!(
                "SELECT name, spec FROM domain WHERE tenant = ? AND name IN ({})",
                parameters(batch.len())
            );
            let values = std::iter::once(self.tenant.into()).chain(batch.iter().map(|name| (*name).into()));
            all.extend(unnumbered(text, values).fetch_all::<(String, String)>(self).await?);
        }
        Ok(all)
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

    #[tokio::test]
    async fn a_change_for_another_version_of_the_settings_is_refused() {
        let (_dir, store) = crate::scratch().await;
        let name = DomainName::parse("a.example").unwrap();
        let put = async |spec: &str, expected| store.put_domain_if(&name, &spec, expected).await.unwrap();
        assert!(!put("1", Expected::Text("\"0\"")).await, "there is no domain");
        assert!(put("1", Expected::Absent).await);
        assert!(!put("2", Expected::Absent).await);
        let first = store.domain_text(&name).await.unwrap().unwrap();
        assert!(put("2", Expected::Text(&first)).await);
        assert!(!put("3", Expected::Text(&first)).await);
        assert!(!store.remove_domain_if(&name, Expected::Text(&first)).await.unwrap());
        assert!(!store.remove_domain_if(&name, Expected::Absent).await.unwrap());
        let second = store.domain_text(&name).await.unwrap().unwrap();
        assert_eq!(second, "\"2\"");
        assert!(store.remove_domain_if(&name, Expected::Text(&second)).await.unwrap());
    }

    #[tokio::test]
    async fn several_domains_are_stored_with_their_journal() {
        let (_dir, store) = crate::scratch().await;
        let new = |number: usize, spec: &str| NewSettings {
            name: format!("d{number:04}.example"),
            spec: spec.to_owned(),
            journal: format!("settings changed: {spec}"),
        };
        let all: Vec<NewSettings> = (0..=BATCH_ROWS).rev().map(|number| new(number, "1")).collect();
        store.put_domains(&all, Timestamp::UNIX_EPOCH, "api").await.unwrap();
        store.put_domains(&[new(0, "2")], Timestamp::UNIX_EPOCH, "api").await.unwrap();
        assert_eq!(store.domains::<u8>().await.unwrap().len(), BATCH_ROWS + 1);
        let texts = store.domain_texts(&["d0000.example", "d0001.example", "x.example"]).await.unwrap();
        let texts: Vec<(&str, &str)> =
            texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(texts, [("d0000.example", "2"), ("d0001.example", "1")]);
        let journal = store.journal_of(&DomainName::parse("d0000.example").unwrap()).await.unwrap();
        assert_eq!(journal.len(), 2);
        assert_eq!((journal[1].who.as_str(), journal[1].what.as_str()), ("api", "settings changed: 2"));
    }
}
