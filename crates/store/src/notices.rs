//! Notifications about alerts that are not delivered yet, one per channel (mail address or webhook). They are stored in
//! the same transaction as the change of the alert, so that neither a restart nor an unreachable channel loses one.
//!
//! A process that delivers claims the channel, not single notifications ([`Store::claim_channel`]): they arrive in order,
//! and those of one minute in one message, however many processes there are.

use crate::claims::latest;
use crate::query::sql;
use crate::writing::Writing;
use crate::{Store, StoreError, damaged, time};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// More than any notification waits for its next attempt: it is dropped when it is a day old.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(24);

/// A notification to store for several channels.
#[derive(Debug, Clone, Copy)]
pub struct NewNotice<'a, N> {
    /// The names of the channels. If empty, nothing is stored.
    pub channels: &'a [String],
    /// When the alert changed. The lifetime of the notification counts from then.
    pub changed_at: Timestamp,
    /// The content, stored as JSON.
    pub content: &'a N,
}

/// A notification that waits for delivery on one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice<N> {
    /// The row id; older notifications have smaller ids.
    pub id: i64,
    /// The content of the notification.
    pub content: N,
    /// When the alert changed.
    pub changed_at: Timestamp,
    /// The number of failed delivery attempts.
    pub tries: u32,
}

/// A notification that can't be read, such as one of another release.
#[derive(Debug)]
pub struct UnreadableNotice {
    /// The row id.
    pub id: i64,
    /// Why it can't be read.
    pub error: StoreError,
}

/// A row of the table: id, content as JSON, time of the change, failed attempts.
type NoticeRow = (i64, String, i64, i64);

/// The claim of a channel: until its end, no other process delivers on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelClaim {
    pub(crate) channel: String,
    pub(crate) number: i64,
}

impl ChannelClaim {
    /// The name of the channel.
    pub fn channel(&self) -> &str {
        &self.channel
    }
}

fn read<N: DeserializeOwned>((id, json, born, tries): NoticeRow) -> Result<Notice<N>, StoreError> {
    let content = serde_json::from_str(&json).map_err(damaged("notice"))?;
    let tries = u32::try_from(tries).unwrap_or(u32::MAX);
    Ok(Notice { id, content, changed_at: time("notice", born)?, tries })
}

/// Stores a notification within a transaction.
pub(crate) async fn insert<N: Serialize>(
    writing: &mut Writing,
    notice: &NewNotice<'_, N>,
) -> Result<(), StoreError> {
    let json = serde_json::to_string(notice.content).map_err(damaged("notice"))?;
    for channel in notice.channels {
        // Due at once: the clock that `changed_at` is from may be ahead of the one that due times are compared with.
        sql("INSERT INTO notice (tenant, channel, told, born, tries, due) VALUES ($1, $2, $3, $4, 0, 0)")
            .bind(writing.tenant)
            .bind(channel)
            .bind(&json)
            .bind(notice.changed_at.as_second())
            .execute(&mut *writing)
            .await?;
    }
    Ok(())
}

impl Store {
    /// Claims a channel on which a notification is due at `now`, until `until`. `None` if there is none, or another process has
    /// the channel, or it is paused. A claim or pause that ends later than twice the time of a claim was made by a clock that
    /// was ahead, and does not count.
    pub async fn claim_channel(
        &self,
        channel: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<ChannelClaim>, StoreError> {
        let latest_claim = until.as_second().saturating_mul(2).saturating_sub(now.as_second());
        // Read first, so that nothing is written while there is nothing to deliver.
        let due: Option<(i64,)> = sql(
            "SELECT 1 FROM notice WHERE tenant = $1 AND channel = $2 AND (due <= $3 OR due > $5)
               AND NOT EXISTS (SELECT 1 FROM notice_pause AS p WHERE p.tenant = $1 AND p.channel = $2 AND p.until > $3 AND p.until <= $4)
             LIMIT 1",
        )
        .bind(self.tenant)
        .bind(channel)
        .bind(now.as_second())
        .bind(latest_claim)
        .bind(latest(now, LONGEST_WAIT))
        .fetch_optional(self)
        .await?;
        if due.is_none() {
            return Ok(None);
        }
        let mut writing = self.writing().await?;
        let row: Option<(i64,)> = sql("INSERT INTO notice_pause (tenant, channel, until, claim) VALUES ($1, $2, $4, 1)
             ON CONFLICT (tenant, channel) DO UPDATE SET until = excluded.until, claim = notice_pause.claim + 1
             WHERE notice_pause.until <= $3 OR notice_pause.until > $5 RETURNING claim")
        .bind(self.tenant)
        .bind(channel)
        .bind(now.as_second())
        .bind(until.as_second())
        .bind(latest_claim)
        .fetch_optional(&mut writing)
        .await?;
        writing.commit().await?;
        Ok(row.map(|(number,)| ChannelClaim { channel: channel.to_owned(), number }))
    }

    /// Sets the end of a claim: later to renew it, or to the time before which nothing is to be delivered on the channel. False,
    /// and nothing is changed, if another process has claimed the channel since.
    pub async fn hold_channel(&self, claim: &ChannelClaim, until: Timestamp) -> Result<bool, StoreError> {
        let query =
            sql("UPDATE notice_pause SET until = $4 WHERE tenant = $1 AND channel = $2 AND claim = $3");
        let query = query.bind(self.tenant).bind(claim.channel.as_str()).bind(claim.number);
        Ok(query.bind(until.as_second()).execute(self).await? > 0)
    }

    /// Returns up to `most` due notifications of a channel, oldest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] if one can't be read; [`Self::put_aside_notices`] removes it from the way of the others.
    pub async fn due_notices<N: DeserializeOwned>(
        &self,
        channel: &str,
        now: Timestamp,
        most: u32,
    ) -> Result<Vec<Notice<N>>, StoreError> {
        let rows = self.due_rows(channel, now, i64::from(most)).await?;
        rows.into_iter().map(read).collect()
    }

    async fn due_rows(&self, channel: &str, now: Timestamp, most: i64) -> Result<Vec<NoticeRow>, StoreError> {
        sql("SELECT id, told, born, tries FROM notice WHERE tenant = $1 AND channel = $2 AND (due <= $3 OR due > $4)
             ORDER BY id LIMIT $5")
        .bind(self.tenant)
        .bind(channel)
        .bind(now.as_second())
        .bind(latest(now, LONGEST_WAIT))
        .bind(most)
        .fetch_all(self)
        .await
    }

    /// Postpones the due notifications of a channel that can't be read to `until`, and returns them, so that those after them
    /// are delivered. Until they are dropped, another process may be able to read them.
    pub async fn put_aside_notices<N: DeserializeOwned>(
        &self,
        channel: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<UnreadableNotice>, StoreError> {
        let unreadable = |row: NoticeRow| {
            let id = row.0;
            read::<N>(row).err().map(|error| UnreadableNotice { id, error })
        };
        let rows = self.due_rows(channel, now, i64::MAX).await?;
        let aside: Vec<UnreadableNotice> = rows.into_iter().filter_map(unreadable).collect();
        let mut writing = self.writing().await?;
        for notice in &aside {
            sql("UPDATE notice SET tries = tries + 1, due = $3 WHERE tenant = $1 AND id = $2")
                .bind(self.tenant)
                .bind(notice.id)
                .bind(until.as_second())
                .execute(&mut writing)
                .await?;
        }
        writing.commit().await?;
        Ok(aside)
    }

    /// Deletes notifications that were delivered or are obsolete.
    pub async fn end_notices(&self, ids: &[i64]) -> Result<(), StoreError> {
        let mut writing = self.writing().await?;
        for id in ids {
            sql("DELETE FROM notice WHERE tenant = $1 AND id = $2")
                .bind(self.tenant)
                .bind(*id)
                .execute(&mut writing)
                .await?;
        }
        writing.commit().await
    }

    /// Deletes notifications of alert changes before `before`. Returns their number.
    pub async fn delete_notices(&self, before: Timestamp) -> Result<u64, StoreError> {
        let done = sql("DELETE FROM notice WHERE tenant = $1 AND born < $2")
            .bind(self.tenant)
            .bind(before.as_second())
            .execute(self)
            .await?;
        Ok(done)
    }

    /// Records a failed delivery, which ends the claim. Postpones all notifications of the channel that are due before `due` to
    /// that time, and counts one more attempt for each. Changes nothing if another process has claimed the channel since.
    pub async fn postpone_notices(&self, claim: &ChannelClaim, due: Timestamp) -> Result<(), StoreError> {
        let mut writing = self.writing().await?;
        let ended =
            sql("UPDATE notice_pause SET until = 0 WHERE tenant = $1 AND channel = $2 AND claim = $3")
                .bind(self.tenant)
                .bind(claim.channel.as_str())
                .bind(claim.number)
                .execute(&mut writing)
                .await?;
        if ended == 0 {
            return writing.rollback().await;
        }
        sql("UPDATE notice SET tries = tries + 1, due = $3
             WHERE tenant = $1 AND channel = $2 AND (due < $3 OR due > $4)")
        .bind(self.tenant)
        .bind(claim.channel.as_str())
        .bind(due.as_second())
        .bind(latest(due, LONGEST_WAIT))
        .execute(&mut writing)
        .await?;
        writing.commit().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::DomainName;

    #[tokio::test]
    async fn a_notice_waits_on_each_channel_until_it_is_delivered() {
        let (_dir, store) = crate::scratch().await;
        let domain = DomainName::parse("a.example").unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let channels = ["mail".to_owned(), "webhook".to_owned()];
        let notice = |told| NewNotice { channels: &channels, changed_at: at(5), content: told };
        let (begun, over) = ("begun".to_owned(), "over".to_owned());
        store.raise(&domain, "k", "s", at(5), &"alert".to_owned(), Some(notice(&begun))).await.unwrap();
        store.end_alert(&domain, "k", "s", Some(notice(&over))).await.unwrap();
        assert!(store.alerts::<String>().await.unwrap().is_empty());
        let due = async |channel: &str, now| store.due_notices::<String>(channel, at(now), 10).await.unwrap();
        let mail = due("mail", 5).await;
        let told: Vec<&str> = mail.iter().map(|notice| notice.content.as_str()).collect();
        assert_eq!(told, ["begun", "over"]);
        store.end_notices(&[mail[0].id]).await.unwrap();
        let claim = store.claim_channel("mail", at(5), at(30)).await.unwrap().unwrap();
        store.postpone_notices(&claim, at(60)).await.unwrap();
        assert!(due("mail", 59).await.is_empty());
        let later = due("mail", 60).await;
        assert_eq!((later.len(), later[0].tries, later[0].content.as_str()), (1, 1, "over"));
        assert_eq!(due("webhook", 5).await.len(), 2);
        assert_eq!(store.due_notices::<String>("webhook", at(5), 1).await.unwrap().len(), 1);
        assert_eq!(store.delete_notices(at(5)).await.unwrap(), 0);
        assert_eq!(store.delete_notices(at(6)).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_claim_by_a_clock_that_was_ahead_does_not_silence_a_channel() {
        let (_scratch, store) = crate::scratch().await;
        let at = |second| Timestamp::from_second(second).unwrap();
        let domain = DomainName::parse("a.example").unwrap();
        let (channels, told) = (["mail".to_owned()], "begun".to_owned());
        let notice = NewNotice { channels: &channels, changed_at: at(5), content: &told };
        store.raise(&domain, "k", "s", at(5), &told, Some(notice)).await.unwrap();
        let ahead = store.claim_channel("mail", at(100_000), at(100_060)).await.unwrap().unwrap();
        assert!(store.claim_channel("mail", at(9), at(69)).await.unwrap().is_some());
        assert!(!store.hold_channel(&ahead, at(100_120)).await.unwrap());
        assert_eq!(
            store.claim_channel("mail", at(60), at(120)).await.unwrap(),
            None,
            "a claim of now counts"
        );
    }

    #[tokio::test]
    async fn a_notice_that_was_postponed_by_a_clock_that_was_a_year_ahead_is_delivered_when_it_is_set_right()
    {
        let (_scratch, store) = crate::scratch().await;
        let at = |second| Timestamp::from_second(second).unwrap();
        let domain = DomainName::parse("a.example").unwrap();
        let (channels, told) = (["mail".to_owned()], "begun".to_owned());
        let notice = NewNotice { channels: &channels, changed_at: at(5), content: &told };
        store.raise(&domain, "k", "s", at(5), &told, Some(notice)).await.unwrap();
        let year = 365 * 86_400;
        let claim = store.claim_channel("mail", at(year), at(year + 60)).await.unwrap().unwrap();
        store.postpone_notices(&claim, at(year + 3600)).await.unwrap();
        let due = async |now| store.due_notices::<String>("mail", at(now), 9).await.unwrap().len();
        let claim = store.claim_channel("mail", at(9), at(69)).await.unwrap().unwrap();
        assert_eq!(due(9).await, 1);
        store.postpone_notices(&claim, at(14)).await.unwrap();
        assert_eq!((due(13).await, due(14).await), (0, 1), "it waits as long as others");
    }

    #[tokio::test]
    async fn one_process_at_a_time_delivers_on_a_channel_and_one_that_is_late_changes_nothing() {
        let (scratch, store) = crate::scratch().await;
        let other = scratch.open().await;
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(store.claim_channel("mail", at(9), at(60)).await.unwrap(), None, "nothing is due");
        let domain = DomainName::parse("a.example").unwrap();
        let (channels, told) = (["mail".to_owned()], "begun".to_owned());
        let notice = NewNotice { channels: &channels, changed_at: at(5), content: &told };
        store.raise(&domain, "k", "s", at(5), &told, Some(notice)).await.unwrap();
        let slow = store.claim_channel("mail", at(9), at(60)).await.unwrap().unwrap();
        assert_eq!(other.claim_channel("mail", at(59), at(90)).await.unwrap(), None);
        assert!(store.hold_channel(&slow, at(70)).await.unwrap());
        assert_eq!(other.claim_channel("mail", at(69), at(90)).await.unwrap(), None);
        let next = other.claim_channel("mail", at(70), at(130)).await.unwrap().unwrap();
        // The slow one wakes up.
        assert!(!store.hold_channel(&slow, at(900)).await.unwrap());
        store.postpone_notices(&slow, at(900)).await.unwrap();
        assert_eq!(other.due_notices::<String>("mail", at(70), 9).await.unwrap().len(), 1);
        // A pause is the end of the claim.
        assert!(other.hold_channel(&next, at(80)).await.unwrap());
        assert_eq!(store.claim_channel("mail", at(79), at(90)).await.unwrap(), None);
        assert!(store.claim_channel("mail", at(80), at(90)).await.unwrap().is_some());
    }
}
