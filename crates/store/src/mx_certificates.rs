//! The certificates of our domains' MX hosts, as each host presented one last, so that the dashboard shows issuer and end also
//! after a restart. The guard stores them with its probes.

use crate::query::{FromRow, Row, parameters, sql, unnumbered};
use crate::{Store, StoreError, time};
use formats::DomainName;
use jiff::{SignedDuration, Timestamp};

/// A certificate that an MX host presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MxCertificate {
    /// The name of the MX host.
    pub host: String,
    /// The issuer, as a name for people.
    pub issuer: String,
    /// The first second of the validity period.
    pub not_before: Timestamp,
    /// The last second of the validity period.
    pub not_after: Timestamp,
    /// When the host last presented it.
    pub seen_at: Timestamp,
}

/// A certificate that was stored less than this time ago is not written again, since many domains may share an MX host.
const REWRITE: SignedDuration = SignedDuration::from_mins(1);
/// How long the certificate of a host is kept that presents none any more. From then on it says nothing about the host.
const KEPT: SignedDuration = SignedDuration::from_hours(24 * 90);
/// The maximum number of hosts in one statement.
const BATCH_ROWS: usize = 500;

impl FromRow for MxCertificate {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            host: row.get()?,
            issuer: row.get()?,
            not_before: time("mx_certificate", row.get()?)?,
            not_after: time("mx_certificate", row.get()?)?,
            seen_at: time("mx_certificate", row.get()?)?,
        })
    }
}

impl Store {
    /// Stores the certificate that an MX host presented, in place of an earlier one. Deletes those of hosts that have not
    /// presented any for 90 days.
    pub async fn put_mx_certificate(&self, new: &MxCertificate) -> Result<(), StoreError> {
        let before = |duration| new.seen_at.saturating_sub(duration).unwrap_or(Timestamp::MIN).as_second();
        let changed = sql(
            "INSERT INTO mx_certificate (tenant, host, issuer, not_before, not_after, seen_at) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (tenant, host) DO UPDATE SET issuer = excluded.issuer, not_before = excluded.not_before,
               not_after = excluded.not_after, seen_at = excluded.seen_at
             WHERE mx_certificate.seen_at <= $7
               OR (mx_certificate.seen_at <= excluded.seen_at AND (mx_certificate.not_after <> excluded.not_after
                 OR mx_certificate.not_before <> excluded.not_before OR mx_certificate.issuer <> excluded.issuer))",
        )
        .bind(self.tenant)
        .bind(new.host.as_str())
        .bind(new.issuer.as_str())
        .bind(new.not_before.as_second())
        .bind(new.not_after.as_second())
        .bind(new.seen_at.as_second())
        .bind(before(REWRITE))
        .execute(self)
        .await?;
        if changed > 0 {
            let outdated = sql("DELETE FROM mx_certificate WHERE tenant = $1 AND seen_at < $2");
            outdated.bind(self.tenant).bind(before(KEPT)).execute(self).await?;
        }
        Ok(())
    }

    /// Returns the certificates that these hosts presented last. Hosts that presented none are left out.
    pub async fn mx_certificates(&self, hosts: &[&DomainName]) -> Result<Vec<MxCertificate>, StoreError> {
        let mut found = Vec::new();
        for batch in hosts.chunks(BATCH_ROWS) {
            let text = format!(
                "SELECT host, issuer, not_before, not_after, seen_at FROM mx_certificate WHERE tenant = ? AND host IN ({})",
                parameters(batch.len())
            );
            let values =
                [self.tenant.into()].into_iter().chain(batch.iter().map(|host| host.as_str().into()));
            found.extend(unnumbered(text, values).fetch_all::<MxCertificate>(self).await?);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn seen(host: &str, end: i64, seen: i64) -> MxCertificate {
        let (host, issuer) = (host.to_owned(), "R11".to_owned());
        MxCertificate { host, issuer, not_before: at(0), not_after: at(end), seen_at: at(seen) }
    }

    #[tokio::test]
    async fn the_last_certificate_of_a_host_is_there_after_a_restart_and_ends_with_the_host() {
        let (scratch, store) = crate::scratch().await;
        let (one, two) =
            (DomainName::parse("mx1.example").unwrap(), DomainName::parse("mx2.example").unwrap());
        let all = async |store: &Store| {
            let mut found = store.mx_certificates(&[&one, &two]).await.unwrap();
            found.sort_by(|a, b| a.host.cmp(&b.host));
            found
        };
        assert_eq!(all(&store).await, []);
        store.put_mx_certificate(&seen("mx1.example", 900, 100)).await.unwrap();
        store.put_mx_certificate(&seen("mx2.example", 900, 100)).await.unwrap();
        // The same again within a minute is not written; a new one is, and a later look is.
        store.put_mx_certificate(&seen("mx1.example", 900, 130)).await.unwrap();
        assert_eq!(all(&store).await[0].seen_at, at(100));
        store.put_mx_certificate(&seen("mx1.example", 950, 131)).await.unwrap();
        store.put_mx_certificate(&seen("mx2.example", 900, 160)).await.unwrap();
        // A look that ended later than a newer one replaces nothing.
        store.put_mx_certificate(&seen("mx1.example", 900, 99)).await.unwrap();
        let store = scratch.open().await;
        assert_eq!(all(&store).await, [seen("mx1.example", 950, 131), seen("mx2.example", 900, 160)]);
        let later = 200 + 90 * 86_400;
        store.put_mx_certificate(&seen("mx1.example", 999, later)).await.unwrap();
        assert_eq!(all(&store).await, [seen("mx1.example", 999, later)]);
    }
}
