//! What all pages work with: the roll-out context, kept up to date with what commands change, sessions, and the sums of
//! every domain by day, which are read again only when a report has come.

use crate::auth::Auth;
use config::DashboardConfig;
use config::failure::Failure;
use formats::report::DateRange;
use jiff::Timestamp;
use operations::RolloutContext;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::StoreError;
use store::reports::DaySum;
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What all pages work with: the roll-out context, sessions, and the sums by day.
pub struct Dashboard {
    context: RwLock<RolloutContext>,
    learned: Mutex<Instant>,
    days: Mutex<Option<(i64, Timestamp, Arc<AllDays>)>>,
    pub(crate) auth: Auth,
    pub(crate) config: DashboardConfig,
}

/// The days of every domain, by name.
type AllDays = BTreeMap<String, Vec<DaySum>>;

/// How old what is known of the domains may be on a page.
const CACHE_TIME: Duration = Duration::from_secs(2);

impl Dashboard {
    /// A dashboard over this context.
    ///
    /// # Errors
    ///
    /// When the system gives no random numbers.
    pub fn new(role: &DashboardConfig, context: RolloutContext) -> Result<Arc<Self>, Failure> {
        let auth = Auth::new(context.store.clone(), context.world.clock.clone(), role)?;
        let learned = Mutex::new(Instant::now());
        Ok(Arc::new(Self {
            context: RwLock::new(context),
            learned,
            days: Mutex::new(None),
            auth,
            config: role.clone(),
        }))
    }

    /// The context, with what commands have changed meanwhile.
    pub(crate) async fn context(&self) -> Result<RwLockReadGuard<'_, RolloutContext>, Failure> {
        let mut learned = self.learned.lock().await;
        if learned.elapsed() > CACHE_TIME {
            self.context.write().await.learn().await?;
            *learned = Instant::now();
        }
        drop(learned);
        Ok(self.context.read().await)
    }

    /// The days of every domain since that day, read anew when there are other reports than before.
    pub(crate) async fn days(
        &self,
        context: &RolloutContext,
        since: Timestamp,
    ) -> Result<Arc<AllDays>, StoreError> {
        let since = DateRange::utc_day(since).start;
        let mut held = self.days.lock().await;
        let version = context.store.reports_version().await?;
        if let Some((_, _, days)) = held.as_ref().filter(|(of, from, _)| (*of, *from) == (version, since)) {
            return Ok(days.clone());
        }
        let days = Arc::new(context.store.days_of_all(since).await?);
        *held = Some((version, since, days.clone()));
        Ok(days)
    }

    /// The context, to change something.
    pub(crate) async fn context_to_change(&self) -> Result<RwLockWriteGuard<'_, RolloutContext>, Failure> {
        let mut context = self.context.write().await;
        context.learn().await?;
        Ok(context)
    }
}
