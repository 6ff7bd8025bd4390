//! The state of the policy host (RFC 8461 §3.3): the policies and certificates that it serves, ACME accounts, and the
//! responses to ACME challenges (RFC 8555). Rollouts and certificate orders write it; the HTTPS server reads it.
//!
//! Every change of a policy or certificate gets a new, higher version, so that a server can load only what changed.

use crate::query::sql;
use crate::writing::Counter;
use crate::{Store, StoreError, TENANT, count, damaged, time};
use formats::DomainName;
use jiff::{SignedDuration, Timestamp};

/// The longest time until a failed order is repeated.
pub const LONGEST_RETRY: SignedDuration = SignedDuration::from_hours(12);
/// The longest time until a CA is asked again about a renewal (RFC 9773 §4.3).
pub const LONGEST_ASK: SignedDuration = SignedDuration::from_hours(24);

/// The certificate of a policy host, or the state of its order while there is none.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredCertificate {
    /// The policy host's name.
    pub host: DomainName,
    /// The certificate chain in PEM; empty until one is issued.
    pub chain: String,
    /// The private key, in PEM or sealed with the operator's key; empty until a certificate is issued.
    pub key: String,
    /// When the certificate expires; without meaning while `chain` is empty.
    pub expires_at: Timestamp,
    /// The time of the next order, renewal or retry.
    pub next_at: Timestamp,
    /// The number of failed orders since the last success.
    pub failures: u32,
    /// Why the last order failed; empty after a success.
    pub problem: String,
}

/// When a certificate expires, and whether its renewal is on time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateEnd {
    /// The policy host's name.
    pub host: DomainName,
    /// When the certificate expires.
    pub ends: Timestamp,
    /// The time of the next order, renewal or retry.
    pub renews: Timestamp,
    /// True if orders have failed since the last success.
    pub has_failed: bool,
}

impl CertificateEnd {
    /// True if the certificate should have been replaced: its renewal is due or has failed, and it expires within
    /// `warning`. A certificate for six days whose renewal is planned is on time.
    pub fn is_soon(&self, now: Timestamp, warning: SignedDuration) -> bool {
        let is_overdue = self.has_failed || self.renews <= now;
        self.ends <= now || is_overdue && self.ends.duration_since(now) <= warning
    }
}

impl StoredCertificate {
    /// Creates an entry without a certificate, whose first order is due at `now`.
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

    /// Creates an entry for a certificate that Sternpost did not order. The entry never expires and is never renewed.
    pub fn given(host: DomainName, chain: String, key: String) -> Self {
        let never = Timestamp::MAX;
        Self { chain, key, expires_at: never, next_at: never, ..Self::to_order(host, never) }
    }
}

impl std::fmt::Debug for StoredCertificate {
    /// Omits the private key and the chain, so that no log contains them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoredCertificate({}, until {}, {:?})", self.host, self.expires_at, self.problem)
    }
}

/// Selects which due certificates [`Store::certificates_due`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Hosts without a certificate, which wait for their first order.
    First,
    /// Hosts with a certificate, which wait for its renewal.
    Renewal,
    /// Hosts without a certificate whose last order failed.
    FirstRetry,
    /// Hosts with a certificate whose renewal failed.
    RenewalRetry,
}

impl Due {
    fn is_first(self) -> bool {
        matches!(self, Self::First | Self::FirstRetry)
    }

    fn is_retry(self) -> bool {
        matches!(self, Self::FirstRetry | Self::RenewalRetry)
    }
}

type Row = (String, String, String, i64, i64, i64, String);

/// What a policy host serves, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostedCounts {
    /// Policies that are served.
    pub policies: u64,
    /// Certificates that were not issued yet, and whose order has not failed.
    pub missing: u64,
    /// Certificates that were not issued yet, and whose last order failed.
    pub failing: u64,
    /// Valid certificates whose last order succeeded.
    pub valid: u64,
    /// Valid certificates whose renewal failed.
    pub retrying: u64,
    /// Certificates that have expired.
    pub expired: u64,
}

impl Store {
    /// Replaces the served policy of a domain. With `None`, the domain is no longer served.
    pub async fn put_hosted(&self, domain: &DomainName, policy: Option<&str>) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        let version = transaction.increase(Counter::Hosted, 1).await?;
        sql("INSERT INTO hosted (domain, policy, version) VALUES ($1, $2, $3) \
             ON CONFLICT (domain) DO UPDATE SET policy = excluded.policy, version = excluded.version")
        .bind(domain.as_str())
        .bind(policy.unwrap_or_default())
        .bind(version)
        .execute(&mut transaction)
        .await?;
        transaction.commit().await
    }

    /// Returns the policy file that is served for a domain, or `None` if none is.
    pub async fn hosted(&self, domain: &DomainName) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> = sql("SELECT policy FROM hosted WHERE domain = $1")
            .bind(domain.as_str())
            .fetch_optional(self)
            .await?;
        Ok(row.map(|(policy,)| policy).filter(|policy| !policy.is_empty()))
    }

    /// Returns the highest versions of policies and of certificates; 0 if there are none.
    pub async fn hosting_versions(&self) -> Result<(i64, i64), StoreError> {
        Ok((self.counter(Counter::Hosted).await?, self.counter(Counter::Certificate).await?))
    }

    /// Returns up to `most` domains whose policy changed after `version`, with their versions, oldest change first.
    pub async fn hosted_after(&self, version: i64, most: u32) -> Result<Vec<(DomainName, i64)>, StoreError> {
        let query = "SELECT domain, version FROM hosted WHERE version > $1 ORDER BY version LIMIT $2";
        self.changes(query, version, most).await
    }

    /// Returns up to `most` hosts whose certificate changed after `version`, with their versions, oldest change first.
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
        let rows: Vec<(String, i64)> = sql(query).bind(version).bind(i64::from(most)).fetch_all(self).await?;
        let parsed = |(name, version): (String, i64)| {
            Ok((DomainName::parse(&name).map_err(damaged("hosting"))?, version))
        };
        rows.into_iter().map(parsed).collect()
    }

    /// Replaces the certificate of a host, or the state of its order.
    pub async fn put_certificate(&self, certificate: &StoredCertificate) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        let version = transaction.increase(Counter::Certificate, 1).await?;
        sql("INSERT INTO certificate (host, chain, key, expires_at, next_at, failures, problem, version) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
             ON CONFLICT (host) DO UPDATE SET chain = excluded.chain, key = excluded.key, \
             expires_at = excluded.expires_at, next_at = excluded.next_at, failures = excluded.failures, \
             problem = excluded.problem, version = excluded.version")
        .bind(certificate.host.as_str())
        .bind(&certificate.chain)
        .bind(&certificate.key)
        .bind(certificate.expires_at.as_second())
        .bind(certificate.next_at.as_second())
        .bind(i64::from(certificate.failures))
        .bind(&certificate.problem)
        .bind(version)
        .execute(&mut transaction)
        .await?;
        transaction.commit().await
    }

    /// Returns the certificate of a policy host. `None` if the host is not known.
    pub async fn certificate(&self, host: &DomainName) -> Result<Option<StoredCertificate>, StoreError> {
        let row: Option<Row> = sql(
            "SELECT host, chain, key, expires_at, next_at, failures, problem FROM certificate WHERE host = $1",
        )
        .bind(host.as_str())
        .fetch_optional(self)
        .await?;
        row.map(certificate).transpose()
    }

    /// Returns up to `most` certificates whose `next_at` is `now` or earlier, the most overdue first.
    pub async fn certificates_due(
        &self,
        due: Due,
        now: Timestamp,
        most: u32,
    ) -> Result<Vec<StoredCertificate>, StoreError> {
        let rows: Vec<Row> =
            sql("SELECT host, chain, key, expires_at, next_at, failures, problem FROM certificate \
             WHERE next_at <= $1 AND CAST(chain = '' AS INTEGER) = $3 AND CAST(failures > 0 AS INTEGER) = $4 \
             ORDER BY next_at LIMIT $2")
            .bind(now.as_second())
            .bind(i64::from(most))
            .bind(due.is_first())
            .bind(due.is_retry())
            .fetch_all(self)
            .await?;
        rows.into_iter().map(certificate).collect()
    }

    /// Makes certificates due at `now` whose next order was planned by a clock that was ahead: a first order or a retry more
    /// than [`LONGEST_RETRY`] away, or a renewal after the end of the certificate. The same for questions about renewals that
    /// are more than [`LONGEST_ASK`] away. Returns how many certificates became due.
    pub async fn correct_certificate_plans(&self, now: Timestamp) -> Result<u64, StoreError> {
        let after = |duration: SignedDuration| now.as_second().saturating_add(duration.as_secs());
        let mut transaction = self.writing().await?;
        let corrected = sql("UPDATE certificate SET next_at = $1 \
             WHERE next_at > $2 AND (chain = '' OR failures > 0 OR next_at > expires_at)")
        .bind(now.as_second())
        .bind(after(LONGEST_RETRY))
        .execute(&mut transaction)
        .await?;
        sql("UPDATE certificate_renewal SET ask_at = $1 WHERE tenant = $2 AND ask_at > $3")
            .bind(now.as_second())
            .bind(TENANT)
            .bind(after(LONGEST_ASK))
            .execute(&mut transaction)
            .await?;
        transaction.commit().await?;
        Ok(corrected)
    }

    /// Returns when issued certificates expire, with their hosts, the earliest first: up to `most` of all hosts, or that of one
    /// host. Those that never expire are left out.
    pub async fn certificate_ends(
        &self,
        of: Option<&DomainName>,
        most: u32,
    ) -> Result<Vec<CertificateEnd>, StoreError> {
        let never = Timestamp::MAX.as_second();
        let rows: Vec<(String, i64, i64, i64)> = match of {
            Some(host) => {
                sql("SELECT host, expires_at, next_at, failures FROM certificate WHERE chain <> '' AND expires_at < $1 AND host = $2")
                    .bind(never)
                    .bind(host.as_str())
                    .fetch_all(self)
                    .await?
            }
            None => {
                sql("SELECT host, expires_at, next_at, failures FROM certificate \
                     WHERE chain <> '' AND expires_at < $1 ORDER BY expires_at, host LIMIT $2")
                .bind(never)
                .bind(most)
                .fetch_all(self)
                .await?
            }
        };
        let parsed = |(host, ends, renews, failures): (String, i64, i64, i64)| {
            Ok(CertificateEnd {
                host: DomainName::parse(&host).map_err(damaged("certificate"))?,
                ends: time("certificate", ends)?,
                renews: time("certificate", renews)?,
                has_failed: failures > 0,
            })
        };
        rows.into_iter().map(parsed).collect()
    }

    /// Counts the policies that are served, and the certificates by state at the time `now`.
    pub async fn count_hosted(&self, now: Timestamp) -> Result<HostedCounts, StoreError> {
        let (policies,): (i64,) =
            sql("SELECT COUNT(*) FROM hosted WHERE policy <> ''").fetch_one(self).await?;
        let rows: Vec<(i64, i64, i64, i64)> = sql("SELECT CAST(chain = '' AS INTEGER), \
             CAST(expires_at <= $1 AS INTEGER), CAST(failures > 0 AS INTEGER), COUNT(*) \
             FROM certificate GROUP BY 1, 2, 3")
        .bind(now.as_second())
        .fetch_all(self)
        .await?;
        let mut counts = HostedCounts { policies: count(policies), ..HostedCounts::default() };
        for (is_missing, has_expired, has_failed, rows) in rows {
            let counted = match (is_missing != 0, has_expired != 0, has_failed != 0) {
                (true, _, false) => &mut counts.missing,
                (true, _, true) => &mut counts.failing,
                (false, true, _) => &mut counts.expired,
                (false, false, false) => &mut counts.valid,
                (false, false, true) => &mut counts.retrying,
            };
            *counted += count(rows);
        }
        Ok(counts)
    }

    /// Makes the order of a host's certificate due at `now`, if it has none that is valid. An order that failed keeps its time.
    /// A certificate that is issued meanwhile stays.
    pub async fn order_certificate(&self, host: &DomainName, now: Timestamp) -> Result<(), StoreError> {
        if self.certificate(host).await?.is_none() {
            return self.put_certificate(&StoredCertificate::to_order(host.clone(), now)).await;
        }
        sql("UPDATE certificate SET next_at = $2 WHERE host = $1 AND failures = 0 AND next_at > $2 \
             AND (chain = '' OR expires_at <= $2)")
        .bind(host.as_str())
        .bind(now.as_second())
        .execute(self)
        .await?;
        Ok(())
    }

    /// Makes the renewal of a host's certificate due at `now`; the current one stays until then. False if the store has
    /// no certificate of this host.
    pub async fn renew_certificate(&self, host: &DomainName, now: Timestamp) -> Result<bool, StoreError> {
        let changed = sql("UPDATE certificate SET next_at = $2 WHERE host = $1 AND chain <> ''")
            .bind(host.as_str())
            .bind(now.as_second())
            .execute(self);
        Ok(changed.await? > 0)
    }

    /// Returns up to `most` hosts whose names sort after `after`, with their private keys as stored.
    pub async fn certificate_keys(
        &self,
        after: &str,
        most: u32,
    ) -> Result<Vec<(DomainName, String)>, StoreError> {
        let rows: Vec<(String, String)> =
            sql("SELECT host, key FROM certificate WHERE host > $1 AND key <> '' ORDER BY host LIMIT $2")
                .bind(after)
                .bind(i64::from(most))
                .fetch_all(self)
                .await?;
        let parsed = |(host, key): (String, String)| {
            Ok((DomainName::parse(&host).map_err(damaged("certificate"))?, key))
        };
        rows.into_iter().map(parsed).collect()
    }

    /// Replaces the stored form of a private key, e.g. by its sealed form. Does nothing if the stored form is no longer
    /// `before`.
    pub async fn put_certificate_key(
        &self,
        host: &DomainName,
        before: &str,
        after: &str,
    ) -> Result<(), StoreError> {
        sql("UPDATE certificate SET key = $3 WHERE host = $1 AND key = $2")
            .bind(host.as_str())
            .bind(before)
            .bind(after)
            .execute(self)
            .await?;
        Ok(())
    }

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
    async fn changes_are_found_by_their_version() {
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
    async fn plans_of_a_clock_that_was_ahead_are_corrected_and_no_others() {
        let (_dir, store) = crate::scratch().await;
        let (now, hour, year) = (1_000_000, 3600, 31_536_000);
        let put = async |name: &str, chain: &str, failures: u32, next_at: i64, expires_at: i64| {
            let host = domain(&format!("mta-sts.{name}.example"));
            let first = StoredCertificate::to_order(host, at(next_at));
            let (chain, expires_at) = (chain.to_owned(), at(expires_at));
            store.put_certificate(&StoredCertificate { chain, failures, expires_at, ..first }).await.unwrap();
        };
        put("first-ahead", "", 3, now + year, 0).await;
        put("never-tried-ahead", "", 0, now + year, 0).await;
        put("retry-ahead", "C", 2, now + 13 * hour, now + 90 * 24 * hour).await;
        put("renewal-ahead", "C", 0, now + year, now + 90 * 24 * hour).await;
        put("retry", "C", 9, now + 12 * hour, now + hour).await;
        put("first", "", 9, now + 12 * hour, 0).await;
        put("renewal", "C", 0, now + 60 * 24 * hour, now + 90 * 24 * hour).await;
        let given = StoredCertificate::given(domain("mta-sts.given.example"), "C".into(), "K".into());
        store.put_certificate(&given).await.unwrap();
        assert_eq!(store.correct_certificate_plans(at(now)).await.unwrap(), 4);
        let mut due = Vec::new();
        for kind in [Due::First, Due::Renewal, Due::FirstRetry, Due::RenewalRetry] {
            due.extend(store.certificates_due(kind, at(now), 9).await.unwrap());
        }
        let mut due: Vec<_> = due.iter().map(|one| one.host.to_string()).collect();
        due.sort();
        let hosts = ["first-ahead", "never-tried-ahead", "renewal-ahead", "retry-ahead"];
        assert_eq!(due, hosts.map(|name| format!("mta-sts.{name}.example")));
        assert_eq!(store.correct_certificate_plans(at(now)).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn certificates_are_found_when_due_and_never_show_their_key() {
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
        assert_eq!(store.certificates_due(Due::RenewalRetry, at(599), 9).await.unwrap(), []);
        assert_eq!(store.certificates_due(Due::RenewalRetry, at(600), 9).await.unwrap(), [one.clone()]);
        assert_eq!(store.certificates_due(Due::Renewal, at(600), 9).await.unwrap(), []);
        one.failures = 0;
        assert_eq!(store.certificates_due(Due::First, at(600), 9).await.unwrap(), []);
        one.next_at = at(800);
        store.put_certificate(&one).await.unwrap();
        assert_eq!(store.certificate(&one.host).await.unwrap(), Some(one.clone()));
        // The operator wants a new one at once; the current one stays until it is there.
        assert!(store.renew_certificate(&one.host, at(700)).await.unwrap());
        one.next_at = at(700);
        assert_eq!(store.certificates_due(Due::Renewal, at(700), 9).await.unwrap(), [one.clone()]);
        let missing = StoredCertificate::to_order(domain("mta-sts.b.example"), at(900));
        assert!(!store.renew_certificate(&missing.host, at(700)).await.unwrap());
        store.put_certificate(&missing).await.unwrap();
        assert!(
            !store.renew_certificate(&missing.host, at(700)).await.unwrap(),
            "its first order is not due"
        );
        let ends = [CertificateEnd {
            host: one.host.clone(),
            ends: at(900),
            renews: at(700),
            has_failed: one.failures > 0,
        }];
        let fresh = CertificateEnd { has_failed: false, ..ends[0].clone() };
        let soon = |end: &CertificateEnd, now| end.is_soon(at(now), SignedDuration::from_secs(300));
        assert!(!soon(&fresh, 650) && soon(&fresh, 700) && soon(&fresh, 900), "its renewal is planned");
        let failed = CertificateEnd { has_failed: true, ..fresh };
        assert!(!soon(&failed, 500) && soon(&failed, 650));
        assert_eq!(store.certificate_ends(None, 9).await.unwrap(), ends);
        assert_eq!(store.certificate_ends(Some(&one.host), 9).await.unwrap(), ends);
        assert_eq!(store.certificate_ends(Some(&missing.host), 9).await.unwrap(), []);
        let fixed = StoredCertificate::given(domain("mta-sts.c.example"), "chain".into(), "key".into());
        store.put_certificate(&fixed).await.unwrap();
        assert_eq!(store.certificate_ends(None, 9).await.unwrap(), ends, "it never expires");
        assert_eq!(store.certificates_after(1, 1).await.unwrap(), [(one.host, 2)]);
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

    #[tokio::test]
    async fn an_order_that_was_put_off_is_made_due_and_neither_a_failed_one_nor_a_valid_certificate() {
        let (_dir, store) = crate::scratch().await;
        let (now, week) = (Timestamp::from_second(1000).unwrap(), Timestamp::from_second(605_800).unwrap());
        let name = DomainName::parse("mta-sts.a.example").unwrap();
        store.order_certificate(&name, now).await.unwrap();
        let first = store.certificate(&name).await.unwrap().unwrap();
        assert_eq!((first.next_at, first.chain.as_str()), (now, ""));
        let put_off = StoredCertificate { next_at: week, ..first };
        let valid = StoredCertificate { chain: "c".to_owned(), expires_at: week, ..put_off.clone() };
        let expired = StoredCertificate { expires_at: now, ..valid.clone() };
        let failed = StoredCertificate { failures: 1, ..put_off.clone() };
        for (stored, due) in [(put_off, now), (expired, now), (valid, week), (failed, week)] {
            store.put_certificate(&stored).await.unwrap();
            store.order_certificate(&name, now).await.unwrap();
            let after = store.certificate(&name).await.unwrap().unwrap();
            assert_eq!((after.next_at, after.chain), (due, stored.chain));
        }
    }
}
