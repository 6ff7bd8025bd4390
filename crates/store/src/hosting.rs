//! What the policy host serves: policies and certificates, the account at the certificate authority, and
//! the answers to its challenges. Versions only grow, so that a program can ask for what is new.

use crate::{Store, StoreError, damaged, time};
use formats::DomainName;
use jiff::Timestamp;

/// The certificate of a policy host, or the order for one.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredCertificate {
    /// The policy host.
    pub host: DomainName,
    /// The chain in PEM; empty until there is one.
    pub chain: String,
    /// The private key in PEM; empty until there is one.
    pub key: String,
    /// When the chain ends.
    pub expires_at: Timestamp,
    /// When something is to be done about it: an order, a renewal, another try.
    pub next_at: Timestamp,
    /// Failures since the last success.
    pub failures: u32,
    /// Why the last try failed; empty after a success.
    pub problem: String,
}

impl StoredCertificate {
    /// One that is to be ordered from `now` on.
    pub fn to_order(host: DomainName, now: Timestamp) -> Self {
        Self {
            host,
            chain: String::new(),
            key: String::new(),
            expires_at: now,
            next_at: now,
            failures: 0,
            problem: String::new(),
        }
    }

    /// One that is given, and that nobody has to renew.
    pub fn given(host: DomainName, chain: String, key: String) -> Self {
        let never = Timestamp::MAX;
        Self { chain, key, expires_at: never, next_at: never, ..Self::to_order(host, never) }
    }
}

impl std::fmt::Debug for StoredCertificate {
    /// The key stays out of every log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoredCertificate({}, until {}, {:?})", self.host, self.expires_at, self.problem)
    }
}

/// Which certificates something is due about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Hosts that have none yet.
    First,
    /// Hosts that have one.
    Renewal,
}

type Row = (String, String, String, i64, i64, i64, String);

impl Store {
    /// Serves a policy from now on, in place of any other; with `None`, none.
    pub async fn put_hosted(&self, domain: &DomainName, policy: Option<&str>) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO hosted (domain, policy, version) \
             VALUES ($1, $2, (SELECT COALESCE(MAX(version), 0) + 1 FROM hosted)) \
             ON CONFLICT (domain) DO UPDATE SET policy = excluded.policy, version = excluded.version",
        )
        .bind(domain.as_str())
        .bind(policy.unwrap_or_default())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The policy that is served for a domain.
    pub async fn hosted(&self, domain: &DomainName) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> = sqlx::query_as("SELECT policy FROM hosted WHERE domain = $1")
            .bind(domain.as_str())
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|(policy,)| policy).filter(|policy| !policy.is_empty()))
    }

    /// The last versions of policies and certificates.
    pub async fn hosting_versions(&self) -> Result<(i64, i64), StoreError> {
        let row: (i64, i64) = sqlx::query_as(
            "SELECT (SELECT COALESCE(MAX(version), 0) FROM hosted), \
             (SELECT COALESCE(MAX(version), 0) FROM certificate)",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(row)
    }

    /// Domains whose policy was changed after this version, oldest first, with the versions.
    pub async fn hosted_after(&self, version: i64, most: u32) -> Result<Vec<(DomainName, i64)>, StoreError> {
        let query = "SELECT domain, version FROM hosted WHERE version > $1 ORDER BY version LIMIT $2";
        self.changes(query, version, most).await
    }

    /// Hosts whose certificate was changed after this version, oldest first, with the versions.
    pub async fn certificates_after(
        &self,
        version: i64,
        most: u32,
    ) -> Result<Vec<(DomainName, i64)>, StoreError> {
        let query = "SELECT host, version FROM certificate WHERE version > $1 ORDER BY version LIMIT $2";
        self.changes(query, version, most).await
    }

    async fn changes(
        &self,
        query: &'static str,
        version: i64,
        most: u32,
    ) -> Result<Vec<(DomainName, i64)>, StoreError> {
        let rows: Vec<(String, i64)> =
            sqlx::query_as(query).bind(version).bind(i64::from(most)).fetch_all(&self.pool).await?;
        let parsed = |(name, version): (String, i64)| {
            Ok((DomainName::parse(&name).map_err(damaged("hosting"))?, version))
        };
        rows.into_iter().map(parsed).collect()
    }

    /// Keeps a certificate, or the state of its order.
    pub async fn put_certificate(&self, certificate: &StoredCertificate) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO certificate (host, chain, key, expires_at, next_at, failures, problem, version) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, (SELECT COALESCE(MAX(version), 0) + 1 FROM certificate)) \
             ON CONFLICT (host) DO UPDATE SET chain = excluded.chain, key = excluded.key, \
             expires_at = excluded.expires_at, next_at = excluded.next_at, failures = excluded.failures, \
             problem = excluded.problem, version = excluded.version",
        )
        .bind(certificate.host.as_str())
        .bind(&certificate.chain)
        .bind(&certificate.key)
        .bind(certificate.expires_at.as_second())
        .bind(certificate.next_at.as_second())
        .bind(i64::from(certificate.failures))
        .bind(&certificate.problem)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The certificate of a policy host.
    pub async fn certificate(&self, host: &DomainName) -> Result<Option<StoredCertificate>, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT host, chain, key, expires_at, next_at, failures, problem FROM certificate WHERE host = $1",
        )
        .bind(host.as_str())
        .fetch_optional(&self.pool)
        .await?;
        row.map(certificate).transpose()
    }

    /// Certificates about which something is to be done by `now`, the longest overdue first.
    pub async fn certificates_due(
        &self,
        due: Due,
        now: Timestamp,
        most: u32,
    ) -> Result<Vec<StoredCertificate>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT host, chain, key, expires_at, next_at, failures, problem FROM certificate \
             WHERE next_at <= $1 AND (chain = '') = $3 ORDER BY next_at LIMIT $2",
        )
        .bind(now.as_second())
        .bind(i64::from(most))
        .bind(due == Due::First)
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(certificate).collect()
    }

    /// Hosts after this one in the order of their names, with their private keys as they are kept.
    pub async fn certificate_keys(
        &self,
        after: &str,
        most: u32,
    ) -> Result<Vec<(DomainName, String)>, StoreError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT host, key FROM certificate WHERE host > $1 AND key <> '' ORDER BY host LIMIT $2",
        )
        .bind(after)
        .bind(i64::from(most))
        .fetch_all(&self.pool)
        .await?;
        let parsed = |(host, key): (String, String)| {
            Ok((DomainName::parse(&host).map_err(damaged("certificate"))?, key))
        };
        rows.into_iter().map(parsed).collect()
    }

    /// Keeps the same private key in another form, unless there is another key by now.
    pub async fn put_certificate_key(
        &self,
        host: &DomainName,
        before: &str,
        after: &str,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE certificate SET key = $3 WHERE host = $1 AND key = $2")
            .bind(host.as_str())
            .bind(before)
            .bind(after)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The account at a certificate authority, as its client keeps it.
    pub async fn acme_account(&self, directory: &str) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> =
            sqlx::query_as("SELECT credentials FROM acme_account WHERE directory = $1")
                .bind(directory)
                .fetch_optional(&self.pool)
                .await?;
        Ok(row.map(|(credentials,)| credentials))
    }

    /// Keeps the account. One that another program has put there first stays.
    pub async fn put_acme_account(&self, directory: &str, credentials: &str) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO acme_account (directory, credentials) VALUES ($1, $2) ON CONFLICT (directory) DO NOTHING",
        )
        .bind(directory)
        .bind(credentials)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Keeps the answer to a challenge until then, and forgets those that are over at `now`.
    pub async fn put_challenge(
        &self,
        token: &str,
        answer: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        sqlx::query("DELETE FROM challenge WHERE expires_at <= $1")
            .bind(now.as_second())
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "INSERT INTO challenge (token, answer, expires_at) VALUES ($1, $2, $3) \
             ON CONFLICT (token) DO UPDATE SET answer = excluded.answer, expires_at = excluded.expires_at",
        )
        .bind(token)
        .bind(answer)
        .bind(until.as_second())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    /// The answer to a challenge.
    pub async fn challenge(&self, token: &str) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> = sqlx::query_as("SELECT answer FROM challenge WHERE token = $1")
            .bind(token)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|(answer,)| answer))
    }
}

fn certificate(row: Row) -> Result<StoredCertificate, StoreError> {
    let (host, chain, key, expires_at, next_at, failures, problem) = row;
    Ok(StoredCertificate {
        host: DomainName::parse(&host).map_err(damaged("certificate"))?,
        chain,
        key,
        expires_at: time("certificate", expires_at)?,
        next_at: time("certificate", next_at)?,
        failures: failures.try_into().map_err(damaged("certificate"))?,
        problem,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[tokio::test]
    async fn what_is_new_is_found_by_its_version() {
        let (_dir, store) = crate::scratch().await;
        store.put_hosted(&domain("a.example"), Some("A")).await.unwrap();
        store.put_hosted(&domain("b.example"), Some("B")).await.unwrap();
        store.put_hosted(&domain("a.example"), None).await.unwrap();
        let changed = store.hosted_after(0, 10).await.unwrap();
        assert_eq!(changed, [(domain("b.example"), 2), (domain("a.example"), 3)]);
        assert_eq!(store.hosted(&domain("b.example")).await.unwrap().as_deref(), Some("B"));
        assert_eq!(store.hosted(&domain("a.example")).await.unwrap(), None);
        assert_eq!(store.hosted_after(3, 10).await.unwrap(), []);
    }

    #[tokio::test]
    async fn certificates_come_back_when_something_is_due_and_never_show_their_key() {
        let (_dir, store) = crate::scratch().await;
        let mut one = StoredCertificate {
            host: domain("mta-sts.a.example"),
            chain: "CHAIN".into(),
            key: "SECRET".into(),
            expires_at: at(900),
            next_at: at(600),
            failures: 2,
            problem: "no route".into(),
        };
        store.put_certificate(&one).await.unwrap();
        assert!(!format!("{one:?}").contains("SECRET"));
        assert_eq!(store.certificates_due(Due::Renewal, at(599), 9).await.unwrap(), []);
        assert_eq!(store.certificates_due(Due::Renewal, at(600), 9).await.unwrap(), [one.clone()]);
        assert_eq!(store.certificates_due(Due::First, at(600), 9).await.unwrap(), []);
        one.next_at = at(800);
        store.put_certificate(&one).await.unwrap();
        assert_eq!(store.certificate(&one.host).await.unwrap(), Some(one.clone()));
        assert_eq!(store.certificates_after(1, 9).await.unwrap(), [(one.host, 2)]);
    }

    #[tokio::test]
    async fn accounts_stay_and_challenges_go() {
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
