//! News of alerts on their way out. They are kept with the change that they tell, so that a webhook or mail server that is
//! away, or a restart, loses none.

use crate::{Store, StoreError, TENANT, damaged, time};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::SqliteConnection;

/// News for each of some channels.
#[derive(Debug, Clone, Copy)]
pub struct NewNotice<'a, N> {
    /// Names of channels; none keeps nothing.
    pub channels: &'a [String],
    /// Since when it is news.
    pub born: Timestamp,
    /// What is told.
    pub told: &'a N,
}

/// News that has to go out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice<N> {
    /// Its number.
    pub id: i64,
    /// What is told.
    pub told: N,
    /// Since when it is news.
    pub born: Timestamp,
    /// How often it was tried.
    pub tries: u32,
}

/// Keeps news together with what else the connection writes.
pub(crate) async fn keep<N: Serialize>(
    connection: &mut SqliteConnection,
    news: &NewNotice<'_, N>,
) -> Result<(), StoreError> {
    let json = serde_json::to_string(news.told).map_err(damaged("notice"))?;
    for channel in news.channels {
        sqlx::query(
            "INSERT INTO notice (tenant, channel, told, born, tries, due) VALUES ($1, $2, $3, $4, 0, $4)",
        )
        .bind(TENANT)
        .bind(channel)
        .bind(&json)
        .bind(news.born.as_second())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

impl Store {
    /// What is due on a channel, the oldest first, and no more than `most`.
    pub async fn due_notices<N: DeserializeOwned>(
        &self,
        channel: &str,
        now: Timestamp,
        most: u32,
    ) -> Result<Vec<Notice<N>>, StoreError> {
        let rows: Vec<(i64, String, i64, i64)> = sqlx::query_as(
            "SELECT id, told, born, tries FROM notice WHERE tenant = $1 AND channel = $2 AND due <= $3
               AND NOT EXISTS (SELECT 1 FROM notice_pause AS p WHERE p.tenant = $1 AND p.channel = $2 AND p.until > $3)
             ORDER BY id LIMIT $4",
        )
        .bind(TENANT)
        .bind(channel)
        .bind(now.as_second())
        .bind(most)
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|(id, json, born, tries)| {
                let told = serde_json::from_str(&json).map_err(damaged("notice"))?;
                let tries = u32::try_from(tries).unwrap_or(u32::MAX);
                Ok(Notice { id, told, born: time("notice", born)?, tries })
            })
            .collect()
    }

    /// They were taken, or are news no longer.
    pub async fn end_notices(&self, ids: &[i64]) -> Result<(), StoreError> {
        let mut writing = self.writing().await?;
        for id in ids {
            sqlx::query("DELETE FROM notice WHERE tenant = $1 AND id = $2")
                .bind(TENANT)
                .bind(id)
                .execute(&mut *writing)
                .await?;
        }
        writing.commit().await
    }

    /// What comes on a channel before `until` waits for it.
    pub async fn hold_notices(&self, channel: &str, until: Timestamp) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO notice_pause (tenant, channel, until) VALUES ($1, $2, $3)
             ON CONFLICT (tenant, channel) DO UPDATE SET until = excluded.until",
        )
        .bind(TENANT)
        .bind(channel)
        .bind(until.as_second())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Forgets what was news before a time; says how much that was.
    pub async fn forget_notices(&self, before: Timestamp) -> Result<u64, StoreError> {
        let gone = sqlx::query("DELETE FROM notice WHERE tenant = $1 AND born < $2")
            .bind(TENANT)
            .bind(before.as_second())
            .execute(&self.pool)
            .await?;
        Ok(gone.rows_affected())
    }

    /// Nobody took them: they go again at `due`, and with them all others of the channel that are due before.
    pub async fn put_off_notices(&self, channel: &str, due: Timestamp) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE notice SET tries = tries + 1, due = $3 WHERE tenant = $1 AND channel = $2 AND due < $3",
        )
        .bind(TENANT)
        .bind(channel)
        .bind(due.as_second())
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::DomainName;

    #[tokio::test]
    async fn news_waits_for_each_channel_until_it_is_taken() {
        let (_dir, store) = crate::scratch().await;
        let domain = DomainName::parse("a.example").unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let channels = ["mail".to_owned(), "webhook".to_owned()];
        let news = |told| NewNotice { channels: &channels, born: at(5), told };
        let (begun, over) = ("begun".to_owned(), "over".to_owned());
        store.raise(&domain, "k", "s", at(5), &"alert".to_owned(), Some(news(&begun))).await.unwrap();
        store.end_alert(&domain, "k", "s", Some(news(&over))).await.unwrap();
        assert!(store.alerts::<String>().await.unwrap().is_empty());
        let due = async |channel: &str, now| store.due_notices::<String>(channel, at(now), 10).await.unwrap();
        assert!(due("mail", 4).await.is_empty());
        let mail = due("mail", 5).await;
        let told: Vec<&str> = mail.iter().map(|notice| notice.told.as_str()).collect();
        assert_eq!(told, ["begun", "over"]);
        store.end_notices(&[mail[0].id]).await.unwrap();
        store.put_off_notices("mail", at(60)).await.unwrap();
        assert!(due("mail", 59).await.is_empty());
        let later = due("mail", 60).await;
        assert_eq!((later.len(), later[0].tries, later[0].told.as_str()), (1, 1, "over"));
        assert_eq!(due("webhook", 5).await.len(), 2);
        assert_eq!(store.due_notices::<String>("webhook", at(5), 1).await.unwrap().len(), 1);
        assert_eq!(store.forget_notices(at(5)).await.unwrap(), 0);
        assert_eq!(store.forget_notices(at(6)).await.unwrap(), 3);
    }
}
