//! The certificates of policy hosts, and the state of their orders.

use crate::query::sql;
use crate::writing::Counter;
use crate::{Store, StoreError, damaged, time};
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

impl Store {
    /// Returns up to `most` hosts whose certificate changed after `version`, with their versions, oldest change first.
    pub async fn certificates_after(
        &self,
        version: i64,
        most: u32,
    ) -> Result<Vec<(DomainName, i64)>, StoreError> {
        let query = "SELECT host, version FROM certificate WHERE version > $1 ORDER BY version LIMIT $2";
        self.changes(query, version, most).await
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
            .bind(self.tenant)
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
