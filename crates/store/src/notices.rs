//! Notifications about alerts that are not delivered yet, one per channel (mail address or webhook). They are stored in
//! the same transaction as the change of the alert, so that neither a restart nor an unreachable channel loses one.

use crate::query::sql;
use crate::writing::Writing;
use crate::{Store, StoreError, damaged, time};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A notification to store for several channels.
#[derive(Debug, Clone, Copy)]
pub struct NewNotice<'a, N> {
    /// The names of the channels. If empty, nothing is stored.
    pub channels: &'a [String],
    /// When the alert changed. The notification is due from then on, and its lifetime counts from then.
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

/// Stores a notification within a transaction.
pub(crate) async fn insert<N: Serialize>(
    writing: &mut Writing,
    notice: &NewNotice<'_, N>,
) -> Result<(), StoreError> {
    let json = serde_json::to_string(notice.content).map_err(damaged("notice"))?;
    for channel in notice.channels {
        sql("INSERT INTO notice (tenant, channel, told, born, tries, due) VALUES ($1, $2, $3, $4, 0, $4)")
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
    /// Returns up to `most` due notifications of a channel, oldest first. Returns none while the channel is paused by
    /// [`Store::pause_channel`].
    pub async fn due_notices<N: DeserializeOwned>(
        &self,
        channel: &str,
        now: Timestamp,
        most: u32,
    ) -> Result<Vec<Notice<N>>, StoreError> {
        let rows: Vec<(i64, String, i64, i64)> = sql(
            "SELECT id, told, born, tries FROM notice WHERE tenant = $1 AND channel = $2 AND due <= $3
               AND NOT EXISTS (SELECT 1 FROM notice_pause AS p WHERE p.tenant = $1 AND p.channel = $2 AND p.until > $3)
             ORDER BY id LIMIT $4",
        )
        .bind(self.tenant)
        .bind(channel)
        .bind(now.as_second())
        .bind(most)
        .fetch_all(self)
        .await?;
        rows.into_iter()
            .map(|(id, json, born, tries)| {
                let content = serde_json::from_str(&json).map_err(damaged("notice"))?;
                let tries = u32::try_from(tries).unwrap_or(u32::MAX);
                Ok(Notice { id, content, changed_at: time("notice", born)?, tries })
            })
            .collect()
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

    /// Pauses a channel: nothing on it is due before `until`.
    pub async fn pause_channel(&self, channel: &str, until: Timestamp) -> Result<(), StoreError> {
        sql("INSERT INTO notice_pause (tenant, channel, until) VALUES ($1, $2, $3)
             ON CONFLICT (tenant, channel) DO UPDATE SET until = excluded.until")
        .bind(self.tenant)
        .bind(channel)
        .bind(until.as_second())
        .execute(self)
        .await?;
        Ok(())
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

    /// Records a failed delivery. Postpones all notifications of the channel that are due before `due` to that time,
    /// and counts one more attempt for each.
    pub async fn postpone_notices(&self, channel: &str, due: Timestamp) -> Result<(), StoreError> {
        sql("UPDATE notice SET tries = tries + 1, due = $3 WHERE tenant = $1 AND channel = $2 AND due < $3")
            .bind(self.tenant)
            .bind(channel)
            .bind(due.as_second())
            .execute(self)
            .await?;
        Ok(())
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
        assert!(due("mail", 4).await.is_empty());
        let mail = due("mail", 5).await;
        let told: Vec<&str> = mail.iter().map(|notice| notice.content.as_str()).collect();
        assert_eq!(told, ["begun", "over"]);
        store.end_notices(&[mail[0].id]).await.unwrap();
        store.postpone_notices("mail", at(60)).await.unwrap();
        assert!(due("mail", 59).await.is_empty());
        let later = due("mail", 60).await;
        assert_eq!((later.len(), later[0].tries, later[0].content.as_str()), (1, 1, "over"));
        assert_eq!(due("webhook", 5).await.len(), 2);
        assert_eq!(store.due_notices::<String>("webhook", at(5), 1).await.unwrap().len(), 1);
        assert_eq!(store.delete_notices(at(5)).await.unwrap(), 0);
        assert_eq!(store.delete_notices(at(6)).await.unwrap(), 3);
    }
}
