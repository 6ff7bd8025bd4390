//! Mails the weekly summary (`guard.weekly`). The summary is put into the store as a notice, in the transaction that records
//! that it is done, so that a restart neither repeats nor loses it; `messages` delivers it. If the machine was off or asleep
//! at the scheduled time, the summary of the last week is sent afterwards, once.

use config::WeekTime;
use jiff::Timestamp;
use operations::RolloutContext;
use operations::summary::{SummaryMail, weekly_summary};
use std::time::Duration;
use store::notices::NewNotice;
use store::{Store, StoreError};

/// The name of the task in the store.
const TASK: &str = "weekly summary";
/// Time between two checks whether the summary is due.
const POLL_INTERVAL: Duration = Duration::from_secs(30);

/// Sends the weekly summary.
pub struct WeeklyRole {
    /// The domains; loaded again for each summary.
    pub context: RolloutContext,
    /// When the summary is due each week, in UTC.
    pub time: WeekTime,
    /// The channels of the recipients.
    pub channels: Vec<String>,
}

impl WeeklyRole {
    /// Sends summaries until the task is dropped.
    pub async fn run(&mut self) {
        loop {
            if let Err(failure) = self.round().await {
                tracing::error!("the weekly summary can't be sent: {failure}");
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Puts the summary into the store if it is due.
    pub async fn round(&mut self) -> Result<(), config::failure::Failure> {
        let fail = |error| operations::store_failure(&error);
        let now = self.context.world.clock.now();
        let due = Timestamp::from_second(self.time.last(now.as_second())).unwrap_or(now);
        let store = self.context.store.clone();
        match store.last_done(TASK).await.map_err(fail)? {
            // The first summary is sent at the next scheduled time.
            None => {
                store.do_once::<SummaryMail>(TASK, due, None).await.map_err(fail)?;
            }
            Some(done) if done >= due => {}
            Some(_) => {
                self.context.learn().await?;
                let mut mail = weekly_summary(&self.context, due).await?.mail();
                if let Some(tenant) = self.context.tenant.name_if_further() {
                    mail.subject = format!("{} (tenant {tenant})", mail.subject);
                }
                let notice = NewNotice { channels: &self.channels, changed_at: now, content: &mail };
                store.do_once(TASK, due, Some(notice)).await.map_err(fail)?;
            }
        }
        Ok(())
    }
}

/// Whether the summary of the store's tenant is due, or was never sent.
pub async fn is_due(time: WeekTime, store: &Store, now: Timestamp) -> Result<bool, StoreError> {
    let due = Timestamp::from_second(time.last(now.as_second())).unwrap_or(now);
    Ok(store.last_done(TASK).await?.is_none_or(|done| done < due))
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::clock::ManualClock;
    use operations::world::World;
    use std::sync::Arc;

    async fn role(dir: &std::path::Path, clock: &Arc<ManualClock>) -> WeeklyRole {
        let text = "[dns]\nservers = [\"127.0.0.1:1\"]\n[[domain]]\nname = \"a.example\"\nmode = \"none\"\n";
        let config = config::Config::parse(text, None).unwrap();
        let mut world = World::new(&config).unwrap();
        world.clock = clock.clone();
        let store = Store::open(&dir.join("s.db"), store::Tenant::FIRST).await.unwrap();
        WeeklyRole {
            context: RolloutContext::at(config, store, Arc::new(world)).await.unwrap(),
            time: WeekTime::parse("mon 08:00").unwrap(),
            channels: vec!["weekly:ops@example.net".to_owned()],
        }
    }

    async fn sent(role: &WeeklyRole) -> Vec<String> {
        let now = role.context.world.clock.now();
        let due = role.context.store.due_notices::<SummaryMail>(&role.channels[0], now, 99).await.unwrap();
        due.into_iter().map(|notice| notice.content.subject).collect()
    }

    #[tokio::test]
    async fn the_summary_is_sent_once_a_week_across_restarts_and_after_sleep() {
        let dir = tempfile::tempdir().unwrap();
        // A Monday, 2026-11-23, 07:59.
        let clock = Arc::new(ManualClock::new("2026-11-23T07:59:00Z".parse().unwrap()));
        let mut first = role(dir.path(), &clock).await;
        first.round().await.unwrap();
        assert!(sent(&first).await.is_empty(), "nothing is sent when the key was just set");
        clock.set_by(120);
        first.round().await.unwrap();
        first.round().await.unwrap();
        assert_eq!(sent(&first).await, ["[sternpost] 2026-11-15 to 2026-11-21: nothing to do"]);
        let mut second = role(dir.path(), &clock).await;
        second.round().await.unwrap();
        assert_eq!(sent(&second).await.len(), 1, "sent again after a restart");
        // Three weeks of sleep are caught up by one summary.
        clock.set_by(22 * 86_400);
        second.round().await.unwrap();
        second.round().await.unwrap();
        let subjects = sent(&second).await;
        assert_eq!(subjects.len(), 2);
        assert_eq!(subjects[1], "[sternpost] 2026-12-06 to 2026-12-12: nothing to do");
    }
}
