//! How long received reports and quarantined input are kept, and how much of them. Anybody can send to a report address,
//! so input that no signature vouches for is limited in bytes and in age. [`Inbox`](super::Inbox) keeps to the quotas
//! with everything that it stores; [`Retention::enforce`] removes what is too old, and is called every minute. What was
//! there before the version with these limits is spared for [`SPARED_TIME`].
//!
//! Anybody with a domain can sign, about whatever domain. So what stays of reports that are evidence is limited too: sums about
//! domains that are not ours, sums by submitter, and the rows of expired reports.

use formats::DomainName;
use formats::limits::{
    EXPIRED_REPORTS, OTHER_DOMAIN_SUMS, QUARANTINE_ITEMS, SUBMITTER_SUMS, SUM_DAYS, UNVERIFIED_REPORTS,
};
use jiff::{SignedDuration, Timestamp};
use std::net::IpAddr;
use std::time::Duration;
use store::reports::{Earlier, Quota, SumLimits};
use store::{Store, StoreError};

/// The limits of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The quota of the quarantine.
    pub quarantine: Quota,
    /// Days after which quarantined input is deleted.
    pub quarantine_days: u32,
    /// The quota of reports that are not evidence. The bytes include their rows in all tables.
    pub unverified: Quota,
    /// Days after which reports that are not evidence are deleted with their numbers, and DMARC reports that no signature
    /// vouches for.
    pub unverified_days: u32,
    /// Days after which the text and the details of a report are deleted; its sums stay, unless they are about a domain that is
    /// not ours. DMARC reports are deleted.
    pub received_days: u32,
    /// The size of reports that are evidence, with their rows in all tables, beyond which the same happens to the oldest
    /// ones of the source that uses most.
    pub received_bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            quarantine: Quota { bytes: 256 << 20, items: QUARANTINE_ITEMS as u64 },
            quarantine_days: 30,
            unverified: Quota { bytes: 128 << 20, items: UNVERIFIED_REPORTS as u64 },
            unverified_days: 90,
            received_days: 400,
            received_bytes: 4 << 30,
        }
    }
}

/// What [`Retention::enforce`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Quarantined items that were too old, or exceeded the quota.
    pub quarantined: u64,
    /// Reports that were not evidence.
    pub unverified: u64,
    /// Reports whose details were deleted.
    pub expired: u64,
    /// DMARC reports that were too old.
    pub dmarc: u64,
}

/// How long after the upgrade no limit applies to what was there before it: 30 days.
const SPARED_TIME: SignedDuration = SignedDuration::from_hours(24 * 30);
/// The pause between two transactions, in which other writes run.
const TRANSACTION_SPACING: Duration = Duration::from_millis(20);
/// Transactions in one call. The rest is removed by the next one.
const MAX_TRANSACTIONS: u32 = 200;

/// DMARC reports that one transaction deletes.
const DMARC_BATCH: u32 = 200;

/// Repeats a call until it removes nothing more. Returns the sum.
macro_rules! repeat {
    ($remove:expr) => {{
        let mut removed = 0;
        for _ in 0..MAX_TRANSACTIONS {
            match $remove.await? {
                0 => break,
                some => removed += some,
            }
            tokio::time::sleep(TRANSACTION_SPACING).await;
        }
        removed
    }};
}

impl Retention {
    /// The reports and items from before these limits that are still spared. The first call begins their time.
    pub async fn earlier(&self, store: &Store, now: Timestamp) -> Result<Option<Earlier>, StoreError> {
        store.spare_earlier(now, SPARED_TIME).await
    }

    /// Removes what is too old or more than the quotas allow, in short transactions.
    pub async fn enforce(&self, store: &Store, now: Timestamp) -> Result<Removed, StoreError> {
        let since = |days| days_before(now, days);
        let _: u64 = repeat!(store.size_earlier_reports());
        self.earlier(store, now).await?;
        let before = since(self.quarantine_days);
        let mut quarantined = repeat!(store.expire_quarantined(before));
        quarantined += store.shrink_quarantine(&self.quarantine).await?;
        let before = since(self.unverified_days);
        let mut unverified = repeat!(store.drop_old_unverified(before));
        unverified += store.shrink_unverified(&self.unverified).await?;
        let before = since(self.received_days);
        let mut expired = repeat!(store.expire_reports(before));
        expired += repeat!(store.shrink_evidence(self.received_bytes));
        let before = since(self.received_days.saturating_mul(2));
        let _: u64 = repeat!(store.forget_expired_reports(before));
        let _: u64 = repeat!(store.shrink_expired(EXPIRED_REPORTS as u64));
        let mut dmarc = 0;
        for (verified, days) in [(true, self.received_days), (false, self.unverified_days)] {
            let before = since(days);
            dmarc += repeat!(store.delete_dmarc_reports(verified, before, DMARC_BATCH));
        }
        Ok(Removed { quarantined, unverified, expired, dmarc })
    }

    /// What stays of the sums by day.
    pub fn sums(&self, now: Timestamp) -> SumLimits {
        SumLimits {
            others: OTHER_DOMAIN_SUMS as u64,
            submitters: SUBMITTER_SUMS as u64,
            before: days_before(now, SUM_DAYS.max(self.received_days)),
            others_before: days_before(now, self.received_days),
        }
    }

    /// Removes the sums by day that are too old, or more than their limits allow. `own` are our domains; those in the store
    /// count as ours too.
    pub async fn enforce_sums(
        &self,
        store: &Store,
        own: &[&DomainName],
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        store.shrink_sums(own, &self.sums(now)).await
    }
}

fn days_before(now: Timestamp, days: u32) -> Timestamp {
    now.saturating_sub(SignedDuration::from_hours(24 * i64::from(days))).unwrap_or(Timestamp::MIN)
}

/// The source of input from a client: its IPv4 /24 or IPv6 /48, which is about what one customer of a provider has.
pub(super) fn network(client: IpAddr) -> String {
    match client.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            format!("{}/48", std::net::Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_the_network_of_the_client() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("192.0.2.77"), "192.0.2.0/24");
        assert_eq!(network("::ffff:192.0.2.77"), "192.0.2.0/24");
        assert_eq!(network("2001:db8:1:2::7"), "2001:db8:1::/48");
    }
}
