//! Which tenant owns a domain. A tenant other than the first one proves that it controls the domain's zone before anything is
//! served for it: it publishes a word that was made for it. A name that was typed and not proved blocks nobody: several tenants
//! may have the same domain, and the one that has proved it owns it, until that one removes the domain. The first tenant is the
//! operator of the installation, and owns what it has configured unless another tenant owns it.

use crate::query::{parameters, sql, unnumbered};
use crate::{Store, StoreError, Tenant, time};
use formats::DomainName;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// What a tenant publishes to prove that it owns a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnershipWord {
    /// A word that nobody can guess.
    pub word: String,
    /// From when on the word proves nothing.
    pub expires_at: Timestamp,
}

/// The outcome of [`Store::own_domain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// The tenant owns the domain.
    Own,
    /// Another tenant has proved it before, or the first tenant has the domain.
    OfOther(Tenant),
}

/// Domains in one statement.
const BATCH: usize = 500;

impl Store {
    /// Returns the word by which the tenant proves the domain. If it has none that is valid at `now`, it gets `new`.
    pub async fn ownership_word(
        &self,
        domain: &DomainName,
        new: &OwnershipWord,
        now: Timestamp,
    ) -> Result<OwnershipWord, StoreError> {
        let known = "SELECT word, expires_at FROM domain_proof WHERE tenant = $1 AND domain = $2";
        let read = || sql(known).bind(self.tenant).bind(domain.as_str());
        let is_valid = |row: &(String, i64)| row.1 > now.as_second();
        let mut row: Option<(String, i64)> = read().fetch_optional(self).await?;
        if !row.as_ref().is_some_and(is_valid) {
            let put = sql("INSERT INTO domain_proof (tenant, domain, word, expires_at) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (tenant, domain) DO UPDATE SET word = excluded.word, expires_at = excluded.expires_at
                 WHERE domain_proof.expires_at <= $5");
            let put = put.bind(self.tenant).bind(domain.as_str()).bind(&new.word);
            put.bind(new.expires_at.as_second()).bind(now.as_second()).execute(self).await?;
            // Another process may have been first.
            row = read().fetch_optional(self).await?;
        }
        let (word, expires_at) = row.ok_or(StoreError::Query(sqlx::Error::RowNotFound))?;
        Ok(OwnershipWord { word, expires_at: time("domain_proof", expires_at)? })
    }

    /// Records that the tenant has proved the domain, unless another one owns it.
    pub async fn own_domain(&self, domain: &DomainName, now: Timestamp) -> Result<Ownership, StoreError> {
        let mut transaction = self.across().writing().await?;
        let of_first = sql("SELECT name FROM domain WHERE tenant = $1 AND name = $2");
        let of_first = of_first.bind(Tenant::FIRST).bind(domain.as_str());
        let of_first: Option<(String,)> = of_first.fetch_optional(&mut transaction).await?;
        if self.tenant != Tenant::FIRST && of_first.is_some() {
            transaction.rollback().await?;
            return Ok(Ownership::OfOther(Tenant::FIRST));
        }
        let put = sql("INSERT INTO domain_owner (domain, tenant, proved_at) VALUES ($1, $2, $3)
             ON CONFLICT (domain) DO NOTHING");
        put.bind(domain.as_str()).bind(self.tenant).bind(now.as_second()).execute(&mut transaction).await?;
        let owner = sql("SELECT tenant FROM domain_owner WHERE domain = $1").bind(domain.as_str());
        let (owner,): (i64,) = owner.fetch_one(&mut transaction).await?;
        transaction.commit().await?;
        Ok(if owner == self.tenant.0 { Ownership::Own } else { Ownership::OfOther(Tenant(owner)) })
    }

    /// Returns the tenant that has proved the domain; `None` if none has.
    pub async fn domain_owner(&self, domain: &DomainName) -> Result<Option<Tenant>, StoreError> {
        Ok(self.domain_owners(&[domain.as_str()]).await?.into_values().next())
    }

    /// Returns the tenants that have proved these domains, by domain.
    pub async fn domain_owners(&self, domains: &[&str]) -> Result<BTreeMap<String, Tenant>, StoreError> {
        let mut owners = BTreeMap::new();
        for batch in domains.chunks(BATCH) {
            let text = format!(
                "SELECT domain, tenant FROM domain_owner WHERE domain IN ({})",
                parameters(batch.len())
            );
            let query = unnumbered(text, batch.iter().map(|domain| (*domain).into())).kept(false);
            let rows: Vec<(String, i64)> = query.fetch_all(&self.across()).await?;
            owners.extend(rows.into_iter().map(|(domain, tenant)| (domain, Tenant(tenant))));
        }
        Ok(owners)
    }

    /// Returns the domains that the tenant of this handle owns.
    pub async fn owned_domains(&self) -> Result<Vec<String>, StoreError> {
        let query = sql("SELECT domain FROM domain_owner WHERE tenant = $1 ORDER BY domain");
        let rows: Vec<(String,)> = query.bind(self.tenant).fetch_all(self).await?;
        Ok(rows.into_iter().map(|(domain,)| domain).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(word: &str, expires_at: i64) -> OwnershipWord {
        OwnershipWord { word: word.to_owned(), expires_at: Timestamp::from_second(expires_at).unwrap() }
    }

    #[tokio::test]
    async fn a_word_stays_until_it_expires() {
        let (_dir, store) = crate::scratch().await;
        let (name, at) = (DomainName::parse("a.example").unwrap(), |s| Timestamp::from_second(s).unwrap());
        let given = async |new: &str, now: i64| {
            store.ownership_word(&name, &word(new, now + 100), at(now)).await.unwrap().word
        };
        assert_eq!(given("first", 0).await, "first");
        assert_eq!(given("second", 99).await, "first");
        assert_eq!(given("third", 100).await, "third");
    }

    #[tokio::test]
    async fn a_domain_has_one_owner_and_is_free_when_that_one_removes_it() {
        let (_dir, store) = crate::scratch().await;
        let (first, second) = (store.of_tenant(Tenant::numbered(1)), store.of_tenant(Tenant::numbered(2)));
        let (name, now) = (DomainName::parse("a.example").unwrap(), Timestamp::UNIX_EPOCH);
        for tenant in [&first, &second] {
            tenant.put_domain(&name, &1).await.unwrap();
        }
        assert_eq!(store.domain_owner(&name).await.unwrap(), None);
        assert_eq!(first.own_domain(&name, now).await.unwrap(), Ownership::Own);
        assert_eq!(second.own_domain(&name, now).await.unwrap(), Ownership::OfOther(Tenant::numbered(1)));
        assert_eq!(first.own_domain(&name, now).await.unwrap(), Ownership::Own);
        assert_eq!(store.domain_owner(&name).await.unwrap(), Some(Tenant::numbered(1)));
        assert_eq!(first.owned_domains().await.unwrap(), ["a.example"]);
        // Who does not own it frees nothing.
        second.remove_domain(&name).await.unwrap();
        assert_eq!(store.domain_owner(&name).await.unwrap(), Some(Tenant::numbered(1)));
        first.remove_domain(&name).await.unwrap();
        assert_eq!(second.own_domain(&name, now).await.unwrap(), Ownership::Own);
        // What the operator has configured in the store belongs to the operator.
        let other = DomainName::parse("b.example").unwrap();
        store.put_domain(&other, &1).await.unwrap();
        assert_eq!(second.own_domain(&other, now).await.unwrap(), Ownership::OfOther(Tenant::FIRST));
    }
}
