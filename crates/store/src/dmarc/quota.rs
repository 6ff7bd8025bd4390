//! Keeps the stored counts of DMARC reports below the quota. Each source has a share: the quota is divided as if each got
//! the same, and what a small one does not need goes to the others. Beyond its share, a source's oldest reports are
//! deleted. If that is not enough, since many sources are small, the oldest reports of all go.

use crate::query::sql;
use crate::reports::Trust;
use crate::writing::Writing;
use crate::{StoreError, count};
use formats::limits::{DMARC_STORED_ROWS, DMARC_UNVERIFIED_ROWS};

/// How many counts are kept. A report counts as one more than it has rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmarcQuota {
    /// The limit for reports whose sender is verified, or that the operator vouched for.
    pub verified: u32,
    /// The limit for all other reports.
    pub unverified: u32,
}

impl Default for DmarcQuota {
    fn default() -> Self {
        Self { verified: DMARC_STORED_ROWS, unverified: DMARC_UNVERIFIED_ROWS }
    }
}

/// A share is at least this many hundredths of the quota, so that many small sources do not displace a large one wholly.
const LEAST_SHARE_PERCENT: u64 = 1;
/// What is left after a deletion, in hundredths of the quota. It is less than all, so that not every report deletes.
const LEFT_PERCENT: u64 = 90;

/// The lowest and the highest trust of reports whose sender is verified or that the operator vouched for, or of the others.
pub(super) fn trust_range(verified: bool) -> (i64, i64) {
    match verified {
        true => (Trust::Trusted as i64, Trust::Verified as i64),
        false => (Trust::Failed as i64, Trust::Unverified as i64),
    }
}

/// Deletes reports beyond the quota, of those whose sender is verified or of the others.
pub(super) async fn enforce(
    writing: &mut Writing,
    verified: bool,
    quota: DmarcQuota,
) -> Result<(), StoreError> {
    let most = u64::from(if verified { quota.verified } else { quota.unverified });
    let (least, highest) = trust_range(verified);
    let total = async |writing: &mut Writing| -> Result<u64, StoreError> {
        let query = sql("SELECT CAST(coalesce(sum(cost), 0) AS BIGINT) FROM dmarc_report
             WHERE tenant = $1 AND trust BETWEEN $2 AND $3");
        let (total,): (i64,) =
            query.bind(writing.tenant).bind(least).bind(highest).fetch_one(&mut *writing).await?;
        Ok(count(total))
    };
    if total(writing).await? <= most {
        return Ok(());
    }
    let left = most * LEFT_PERCENT / 100;
    let sums: Vec<(i64,)> = sql("SELECT CAST(sum(cost) AS BIGINT) FROM dmarc_report
         WHERE tenant = $1 AND trust BETWEEN $2 AND $3 GROUP BY source")
    .bind(writing.tenant)
    .bind(least)
    .bind(highest)
    .fetch_all(&mut *writing)
    .await?;
    let share = share(sums.into_iter().map(|(sum,)| count(sum)).collect(), left);
    let share = share.max(most * LEAST_SHARE_PERCENT / 100);
    sql("DELETE FROM dmarc_report WHERE id IN (SELECT id FROM
           (SELECT id, sum(cost) OVER (PARTITION BY source ORDER BY id DESC) AS newer FROM dmarc_report
            WHERE tenant = $1 AND trust BETWEEN $2 AND $3) AS reports WHERE newer > $4)")
    .bind(writing.tenant)
    .bind(least)
    .bind(highest)
    .bind(i64::try_from(share).unwrap_or(i64::MAX))
    .execute(&mut *writing)
    .await?;
    if total(writing).await? > most {
        sql("DELETE FROM dmarc_report WHERE id IN (SELECT id FROM
               (SELECT id, sum(cost) OVER (ORDER BY id DESC) AS newer FROM dmarc_report
                WHERE tenant = $1 AND trust BETWEEN $2 AND $3) AS reports WHERE newer > $4)")
        .bind(writing.tenant)
        .bind(least)
        .bind(highest)
        .bind(i64::try_from(left).unwrap_or(i64::MAX))
        .execute(&mut *writing)
        .await?;
    }
    Ok(())
}

/// The largest share for which the sums, each cut to it, are at most `left` together.
pub(super) fn share(mut sums: Vec<u64>, mut left: u64) -> u64 {
    sums.sort_unstable();
    let mut others = sums.len() as u64;
    for sum in sums {
        if sum.saturating_mul(others) > left {
            return left / others;
        }
        left -= sum;
        others -= 1;
    }
    u64::MAX
}
