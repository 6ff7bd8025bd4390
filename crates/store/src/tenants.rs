//! The tenants: the installation's own, `main`, which always exists, and those that were added. Each has a number, which the
//! columns `tenant` hold and which is never used again, and a [`TenantName`] for commands, paths and people.

use crate::database::copy::tenant_tables;
use crate::query::{built, sql};
use crate::writing::Counter;
use crate::{Store, StoreError, Tenant, count, damaged, time};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::str::FromStr;

/// The name of a tenant, in commands and in paths: 1 to 40 lower-case letters, digits and hyphens. It begins with a letter, and
/// does not end with a hyphen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantName(String);

/// The longest name of a tenant.
const MAX_NAME: usize = 40;

/// Why a text is not the name of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the name of a tenant: 1 to {MAX_NAME} lower-case letters, digits and hyphens, of which the first is a letter and the last is not a hyphen"
)]
pub struct TenantNameError(String);

impl TenantName {
    /// The name of the first tenant.
    pub fn main() -> Self {
        Self("main".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantName {
    type Err = TenantNameError;

    fn from_str(text: &str) -> Result<Self, TenantNameError> {
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_valid = text.len() <= MAX_NAME
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && !text.ends_with('-')
            && text.chars().all(is_word);
        is_valid.then(|| Self(text.to_owned())).ok_or_else(|| TenantNameError(text.to_owned()))
    }
}

impl TryFrom<String> for TenantName {
    type Error = TenantNameError;

    fn try_from(text: String) -> Result<Self, TenantNameError> {
        text.parse()
    }
}

impl From<TenantName> for String {
    fn from(name: TenantName) -> Self {
        name.0
    }
}

impl Display for TenantName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tenant of the installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantInfo {
    /// Its number.
    pub tenant: Tenant,
    /// Its name.
    pub name: TenantName,
    /// Its name for people; the same as `name` if none was given.
    pub display_name: String,
    /// When it was added; `None` for the first one.
    pub created_at: Option<Timestamp>,
    /// Whether it is being erased: nothing is done for it any more.
    pub is_leaving: bool,
}

impl TenantInfo {
    /// The tenant `main`.
    pub fn main() -> Self {
        Self {
            tenant: Tenant::FIRST,
            name: TenantName::main(),
            display_name: "main".to_owned(),
            created_at: None,
            is_leaving: false,
        }
    }

    /// The name of a tenant other than the first one, for what names a tenant only where there are several.
    pub fn name_if_further(&self) -> Option<TenantName> {
        (self.tenant != Tenant::FIRST).then(|| self.name.clone())
    }
}

/// The number of rows of a tenant in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRows {
    /// The table.
    pub table: String,
    /// The number of its rows.
    pub rows: u64,
}

impl Store {
    /// Returns all tenants: `main`, and the others by name.
    pub async fn tenants(&self) -> Result<Vec<TenantInfo>, StoreError> {
        let rows: Vec<(i64, String, String, i64, i64)> =
            sql("SELECT number, name, display_name, created_at, is_leaving FROM tenant ORDER BY name")
                .fetch_all(self)
                .await?;
        let mut all = vec![TenantInfo::main()];
        for (number, name, display_name, created_at, is_leaving) in rows {
            all.push(TenantInfo {
                tenant: Tenant(number),
                name: name.parse().map_err(damaged("tenant"))?,
                display_name,
                created_at: Some(time("tenant", created_at)?),
                is_leaving: is_leaving != 0,
            });
        }
        Ok(all)
    }

    /// Adds a tenant. `None` if there is one of this name.
    pub async fn add_tenant(
        &self,
        name: &TenantName,
        display_name: &str,
        now: Timestamp,
    ) -> Result<Option<Tenant>, StoreError> {
        if *name == TenantName::main() {
            return Ok(None);
        }
        let mut transaction = self.writing().await?;
        let number = transaction.increase(Counter::TenantNumber, 1).await?;
        let added = sql("INSERT INTO tenant (number, name, display_name, created_at, is_leaving)
             VALUES ($1, $2, $3, $4, 0) ON CONFLICT (name) DO NOTHING");
        let added = added.bind(number).bind(name.as_str()).bind(display_name).bind(now.as_second());
        if added.execute(&mut transaction).await? == 0 {
            transaction.rollback().await?;
            return Ok(None);
        }
        transaction.commit().await?;
        Ok(Some(Tenant(number)))
    }

    /// The number of rows that the tenant of this handle has, of each table in which it has any.
    pub async fn tenant_rows(&self) -> Result<Vec<TenantRows>, StoreError> {
        let mut found = Vec::new();
        for table in tenant_tables(self).await? {
            let query = built(format!("SELECT count(*) FROM {table} WHERE tenant = $1")).bind(self.tenant);
            let (rows,): (i64,) = query.fetch_one(self).await?;
            if rows > 0 {
                found.push(TenantRows { table, rows: count(rows) });
            }
        }
        Ok(found)
    }

    /// Removes the row of the tenant of this handle if nothing else of it is left. The result is what is left otherwise.
    pub async fn remove_tenant(&self) -> Result<Vec<TenantRows>, StoreError> {
        let left = self.tenant_rows().await?;
        if left.is_empty() {
            sql("DELETE FROM tenant WHERE number = $1").bind(self.tenant).execute(self).await?;
        }
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_for_paths_and_commands() {
        for good in ["a", "main", "acme-2", "a1"] {
            assert_eq!(good.parse::<TenantName>().unwrap().as_str(), good);
        }
        let long = "a".repeat(41);
        for bad in ["", "-a", "a-", "2a", "Acme", "a.b", "a/b", "ä", long.as_str()] {
            assert!(bad.parse::<TenantName>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_tenant_is_added_once_and_removed_when_nothing_is_left() {
        let (_dir, store) = crate::scratch().await;
        let now = Timestamp::from_second(7).unwrap();
        let name = |text: &str| text.parse::<TenantName>().unwrap();
        assert_eq!(store.tenants().await.unwrap(), [TenantInfo::main()]);
        assert_eq!(store.add_tenant(&name("main"), "", now).await.unwrap(), None);
        let acme = store.add_tenant(&name("acme"), "Acme Inc.", now).await.unwrap().unwrap();
        assert_eq!(store.add_tenant(&name("acme"), "", now).await.unwrap(), None);
        let all = store.tenants().await.unwrap();
        assert_eq!((all.len(), all[1].tenant, all[1].display_name.as_str()), (2, acme, "Acme Inc."));
        let of_acme = store.of_tenant(acme);
        let domain = formats::DomainName::parse("a.example").unwrap();
        of_acme.put_domain(&domain, &1).await.unwrap();
        let left = of_acme.remove_tenant().await.unwrap();
        assert_eq!(left, [TenantRows { table: "domain".to_owned(), rows: 1 }]);
        assert_eq!(store.tenants().await.unwrap().len(), 2);
        of_acme.remove_domain(&domain).await.unwrap();
        assert_eq!(of_acme.remove_tenant().await.unwrap(), []);
        assert_eq!(store.tenants().await.unwrap().len(), 1);
        // A number is not used again.
        assert_ne!(store.add_tenant(&name("acme"), "", now).await.unwrap(), Some(acme));
    }
}
