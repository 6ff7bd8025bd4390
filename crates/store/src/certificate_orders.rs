//! What certificate orders remember between rounds (RFC 8555): the CA's renewal information about each certificate (RFC
//! 9773), and the TXT records that were published for dns-01 challenges and have to be removed. The certificates
//! themselves are in [`crate::hosting`].

use crate::query::{FromRow, Row, sql};
use crate::{Store, StoreError, damaged, time};
use formats::DomainName;
use jiff::Timestamp;

/// The CA's information about the renewal of a certificate (RFC 9773).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalInfo {
    /// The directory URL of the CA that issued the certificate.
    pub directory: String,
    /// The suggested window for the renewal; `None` before the CA has given one.
    pub window: Option<(Timestamp, Timestamp)>,
    /// When the CA is asked again.
    pub ask_at: Timestamp,
}

/// A certificate about whose renewal its CA is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalQuestion {
    /// The policy host's name.
    pub host: DomainName,
    /// The certificate chain in PEM.
    pub chain: String,
    /// The time of the next order, renewal or retry.
    pub next_at: Timestamp,
    /// The CA's last answer; `None` for a certificate of an earlier release.
    pub known: Option<RenewalInfo>,
}

/// A TXT record that was, or is about to be, published for a dns-01 challenge (RFC 8555 §8.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChallengeRecord {
    /// The mail domain, by whose settings the zone is changed.
    pub domain: DomainName,
    /// The owner name of the record, after CNAMEs.
    pub name: DomainName,
    /// The text of the record.
    pub value: String,
    /// When the record was stored, which is before it is published.
    pub created_at: Timestamp,
}

impl FromRow for RenewalQuestion {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        let what = "certificate_renewal";
        let host: String = row.get()?;
        let host = DomainName::parse(&host).map_err(damaged(what))?;
        let (chain, next_at) = (row.get()?, time(what, row.get()?)?);
        let (directory, start, end, ask_at): (String, i64, i64, i64) =
            (row.get()?, row.get()?, row.get()?, row.get()?);
        let window = if end > 0 { Some((time(what, start)?, time(what, end)?)) } else { None };
        let known = RenewalInfo { directory, window, ask_at: time(what, ask_at)? };
        Ok(Self { host, chain, next_at, known: Some(known).filter(|known| !known.directory.is_empty()) })
    }
}

impl FromRow for ChallengeRecord {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        let (domain, name): (String, String) = (row.get()?, row.get()?);
        Ok(Self {
            domain: DomainName::parse(&domain).map_err(damaged("challenge_record"))?,
            name: DomainName::parse(&name).map_err(damaged("challenge_record"))?,
            value: row.get()?,
            created_at: time("challenge_record", row.get()?)?,
        })
    }
}

impl Store {
    /// Returns up to `most` ordered certificates about whose renewal the CA is to be asked at `now`, the most overdue
    /// first. Certificates whose last order failed are left out, since their next order has a time already.
    pub async fn renewals_to_ask(
        &self,
        now: Timestamp,
        most: u32,
    ) -> Result<Vec<RenewalQuestion>, StoreError> {
        sql("SELECT c.host, c.chain, c.next_at, COALESCE(r.directory, ''), COALESCE(r.window_start, 0), \
             COALESCE(r.window_end, 0), COALESCE(r.ask_at, 0) \
             FROM certificate AS c LEFT JOIN certificate_renewal AS r ON r.tenant = $1 AND r.host = c.host \
             WHERE c.chain <> '' AND c.failures = 0 AND c.expires_at < $2 AND COALESCE(r.ask_at, 0) <= $3 \
             ORDER BY COALESCE(r.ask_at, 0), c.host LIMIT $4")
        .bind(self.tenant)
        .bind(Timestamp::MAX.as_second())
        .bind(now.as_second())
        .bind(most)
        .fetch_all(self)
        .await
    }

    /// Stores a CA's information about the renewal of a host's certificate.
    pub async fn put_renewal_info(&self, host: &DomainName, info: &RenewalInfo) -> Result<(), StoreError> {
        let (start, end) = info.window.map_or((0, 0), |(start, end)| (start.as_second(), end.as_second()));
        sql("INSERT INTO certificate_renewal (tenant, host, directory, window_start, window_end, ask_at) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant, host) DO UPDATE SET \
             directory = excluded.directory, window_start = excluded.window_start, \
             window_end = excluded.window_end, ask_at = excluded.ask_at")
        .bind(self.tenant)
        .bind(host.as_str())
        .bind(&info.directory)
        .bind(start)
        .bind(end)
        .bind(info.ask_at.as_second())
        .execute(self)
        .await?;
        Ok(())
    }

    /// Moves the renewal of a host's certificate to `next_at`, if the certificate is still the one in `chain` and its
    /// renewal is still planned for `before`. The certificate itself does not change, so servers do not load it again.
    pub async fn plan_renewal(
        &self,
        host: &DomainName,
        chain: &str,
        before: Timestamp,
        next_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let changed = sql(
            "UPDATE certificate SET next_at = $4 WHERE host = $1 AND chain = $2 AND next_at = $3 AND failures = 0",
        )
        .bind(host.as_str())
        .bind(chain)
        .bind(before.as_second())
        .bind(next_at.as_second())
        .execute(self);
        Ok(changed.await? > 0)
    }

    /// Stores a TXT record that is about to be published for a challenge.
    pub async fn put_challenge_record(&self, record: &ChallengeRecord) -> Result<(), StoreError> {
        sql("INSERT INTO challenge_record (tenant, domain, name, value, created_at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (tenant, name, value) DO UPDATE SET created_at = excluded.created_at")
        .bind(self.tenant)
        .bind(record.domain.as_str())
        .bind(record.name.as_str())
        .bind(&record.value)
        .bind(record.created_at.as_second())
        .execute(self)
        .await?;
        Ok(())
    }

    /// Deletes the entry of a record that is no longer published.
    pub async fn end_challenge_record(&self, record: &ChallengeRecord) -> Result<(), StoreError> {
        sql("DELETE FROM challenge_record WHERE tenant = $1 AND name = $2 AND value = $3")
            .bind(self.tenant)
            .bind(record.name.as_str())
            .bind(&record.value)
            .execute(self)
            .await?;
        Ok(())
    }

    /// Returns up to `most` records that were stored before `before` and are not known to be removed, oldest first.
    pub async fn challenge_records(
        &self,
        before: Timestamp,
        most: u32,
    ) -> Result<Vec<ChallengeRecord>, StoreError> {
        sql("SELECT domain, name, value, created_at FROM challenge_record \
             WHERE tenant = $1 AND created_at < $2 ORDER BY created_at, name, value LIMIT $3")
        .bind(self.tenant)
        .bind(before.as_second())
        .bind(most)
        .fetch_all(self)
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosting::StoredCertificate;

    fn domain(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn issued(host: &str) -> StoredCertificate {
        StoredCertificate {
            chain: "CHAIN".into(),
            key: "KEY".into(),
            expires_at: at(9000),
            next_at: at(6000),
            ..StoredCertificate::to_order(domain(host), at(0))
        }
    }

    #[tokio::test]
    async fn cas_are_asked_about_ordered_certificates_when_that_is_due() {
        let (_dir, store) = crate::scratch().await;
        let [old, new] = ["mta-sts.old.example", "mta-sts.new.example"].map(issued);
        let failing = StoredCertificate { failures: 1, ..issued("mta-sts.failing.example") };
        let missing = StoredCertificate::to_order(domain("mta-sts.missing.example"), at(0));
        let given = StoredCertificate::given(domain("mta-sts.given.example"), "CHAIN".into(), "KEY".into());
        for certificate in [&old, &new, &failing, &missing, &given] {
            store.put_certificate(certificate).await.unwrap();
        }
        let window = Some((at(500), at(700)));
        let info = RenewalInfo { directory: "https://ca/".into(), window, ask_at: at(100) };
        store.put_renewal_info(&new.host, &info).await.unwrap();
        let due = async |now| store.renewals_to_ask(at(now), 10).await.unwrap();
        let question = |host: &DomainName, known| RenewalQuestion {
            host: host.clone(),
            chain: "CHAIN".into(),
            next_at: at(6000),
            known,
        };
        assert_eq!(due(99).await, [question(&old.host, None)]);
        assert_eq!(due(100).await, [question(&old.host, None), question(&new.host, Some(info.clone()))]);
        let again = RenewalInfo { window: None, ask_at: at(200), ..info };
        store.put_renewal_info(&new.host, &again).await.unwrap();
        assert_eq!(due(199).await.len(), 1);
        assert_eq!(due(200).await[1].known, Some(again));
    }

    #[tokio::test]
    async fn a_renewal_is_moved_only_if_nothing_else_has_changed() {
        let (_dir, store) = crate::scratch().await;
        let one = issued("mta-sts.a.example");
        store.put_certificate(&one).await.unwrap();
        let versions = store.hosting_versions().await.unwrap();
        assert!(!store.plan_renewal(&one.host, "OTHER", at(6000), at(50)).await.unwrap());
        assert!(!store.plan_renewal(&one.host, "CHAIN", at(5999), at(50)).await.unwrap());
        assert!(store.plan_renewal(&one.host, "CHAIN", at(6000), at(50)).await.unwrap());
        assert_eq!(store.certificate(&one.host).await.unwrap().unwrap().next_at, at(50));
        assert_eq!(store.hosting_versions().await.unwrap(), versions);
    }

    #[tokio::test]
    async fn challenge_records_are_kept_until_they_are_removed() {
        let (_dir, store) = crate::scratch().await;
        let record = |value: &str, second| ChallengeRecord {
            domain: domain("a.example"),
            name: domain("_acme-challenge.mta-sts.a.example"),
            value: value.to_owned(),
            created_at: at(second),
        };
        for one in [record("one", 10), record("two", 20)] {
            store.put_challenge_record(&one).await.unwrap();
        }
        assert_eq!(store.challenge_records(at(20), 10).await.unwrap(), [record("one", 10)]);
        store.end_challenge_record(&record("one", 10)).await.unwrap();
        assert_eq!(store.challenge_records(at(99), 10).await.unwrap(), [record("two", 20)]);
        store.put_challenge_record(&record("two", 50)).await.unwrap();
        assert_eq!(store.challenge_records(at(50), 10).await.unwrap(), []);
    }
}
