//! Active alerts of the guard. They are stored so that a restart does not raise them again, and so that the dashboard
//! can show them. The receiving side defines what an alert contains.

use crate::notices::{self, NewNotice};
use crate::query::sql;
use crate::{Store, StoreError, damaged, time};
use formats::DomainName;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An alert that was raised and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveAlert<A> {
    /// The domain that the alert is about.
    pub domain: String,
    /// When the alert was first raised.
    pub since: Timestamp,
    /// The content as it was last raised.
    pub alert: A,
}

impl Store {
    /// Stores an alert, and its notification, in one transaction.
    ///
    /// `kind` and `subject` identify the alert within its domain. If it is already active, its content is replaced
    /// and its `since` is kept.
    pub async fn raise<A: Serialize, N: Serialize>(
        &self,
        domain: &DomainName,
        kind: &str,
        subject: &str,
        since: Timestamp,
        alert: &A,
        notice: Option<NewNotice<'_, N>>,
    ) -> Result<(), StoreError> {
        let json = serde_json::to_string(alert).map_err(damaged("alert"))?;
        let mut writing = self.writing().await?;
        sql("INSERT INTO alert (tenant, domain, kind, subject, since, state) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (tenant, domain, kind, subject) DO UPDATE SET state = excluded.state")
        .bind(self.tenant)
        .bind(domain.as_str())
        .bind(kind)
        .bind(subject)
        .bind(since.as_second())
        .bind(json)
        .execute(&mut writing)
        .await?;
        if let Some(notice) = notice {
            notices::insert(&mut writing, &notice).await?;
        }
        writing.commit().await
    }

    /// Deletes an alert, and stores the notification of its end, in one transaction. Does nothing if there is no such alert, as
    /// when another process has ended it.
    pub async fn end_alert<N: Serialize>(
        &self,
        domain: &DomainName,
        kind: &str,
        subject: &str,
        notice: Option<NewNotice<'_, N>>,
    ) -> Result<(), StoreError> {
        let mut writing = self.writing().await?;
        let ended = sql("DELETE FROM alert WHERE tenant = $1 AND domain = $2 AND kind = $3 AND subject = $4")
            .bind(self.tenant)
            .bind(domain.as_str())
            .bind(kind)
            .bind(subject)
            .execute(&mut writing)
            .await?;
        if let Some(notice) = notice.filter(|_| ended > 0) {
            notices::insert(&mut writing, &notice).await?;
        }
        writing.commit().await
    }

    /// Returns all active alerts, oldest first. One that can't be read is left out: the guard raises it again.
    pub async fn alerts<A: DeserializeOwned>(&self) -> Result<Vec<ActiveAlert<A>>, StoreError> {
        let rows: Vec<(String, i64, String)> = sql(
            "SELECT domain, since, state FROM alert WHERE tenant = $1 ORDER BY since, domain, kind, subject",
        )
        .bind(self.tenant)
        .fetch_all(self)
        .await?;
        let read = |(domain, since, json): (String, i64, String)| {
            let alert = serde_json::from_str(&json).ok()?;
            Some(ActiveAlert { domain, since: time("alert", since).ok()?, alert })
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_NOTICE: Option<NewNotice<'_, ()>> = None;

    #[tokio::test]
    async fn an_alert_is_active_from_its_start_to_its_end() {
        let (_dir, store) = crate::scratch().await;
        let domain = DomainName::parse("a.example").unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        store.raise(&domain, "k", "s", at(1), &"one".to_owned(), NO_NOTICE).await.unwrap();
        store.raise(&domain, "k", "s", at(9), &"two".to_owned(), NO_NOTICE).await.unwrap();
        let active = store.alerts::<String>().await.unwrap();
        assert_eq!(active, [ActiveAlert { domain: "a.example".into(), since: at(1), alert: "two".into() }]);
        let (channels, over) = (["mail".to_owned()], "over".to_owned());
        let notice = || Some(NewNotice { channels: &channels, changed_at: at(10), content: &over });
        store.end_alert(&domain, "k", "s", notice()).await.unwrap();
        store.end_alert(&domain, "k", "s", notice()).await.unwrap();
        assert_eq!(store.alerts::<String>().await.unwrap(), []);
        assert_eq!(store.due_notices::<String>("mail", at(10), 9).await.unwrap().len(), 1, "its end once");
    }
}
