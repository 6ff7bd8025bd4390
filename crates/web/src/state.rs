//! The state shared by all pages: the roll-out context, authentication, and the session counts of every domain by
//! day. The context is refreshed from the store, since commands change it too. The counts are cached until a report
//! arrives, and the evidence of domains on the overview for a minute at most.

use crate::auth::Auth;
use crate::domain_check::DomainChecks;
use crate::snapshot::Snapshots;
use config::DashboardConfig;
use config::failure::Failure;
use formats::DomainName;
use formats::report::DateRange;
use jiff::Timestamp;
use operations::{RolloutContext, store_failure};
use receiver::rollout::RolloutState;
use receiver::rollout::gate::{Evidence, Gate};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::StoreError;
use store::reports::DaySum;
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The state shared by all pages: the roll-out context, authentication, and session counts by day.
pub struct Dashboard {
    context: RwLock<RolloutContext>,
    /// When the context was last refreshed from the store, and how long that took.
    refreshed_at: Mutex<(Instant, Duration)>,
    /// The cached session counts, with the store's report version and the first day that they are valid for.
    days: Mutex<Option<(i64, Timestamp, Arc<AllDays>)>>,
    /// The evidence of domains on the overview, by domain name.
    gates: Mutex<BTreeMap<String, CachedGate>>,
    /// All domains at one moment, for the overview.
    pub(crate) snapshots: Snapshots,
    pub(crate) auth: Auth,
    /// The last live checks of domains.
    pub(crate) checks: DomainChecks,
    pub(crate) config: DashboardConfig,
}

/// The evidence of a domain, with the values that it was computed for.
struct CachedGate {
    at: Instant,
    reports_version: i64,
    rollout: RolloutState,
    judged: (Evidence, Gate),
}

/// Session counts per day, by domain name.
pub(crate) type AllDays = BTreeMap<String, Vec<DaySum>>;

/// The maximum age of the context on a page, since its last refresh from the store.
const CACHE_TIME: Duration = Duration::from_secs(2);
/// How many times as old as its refresh takes the context may be.
const CACHE_FACTOR: u32 = 20;
/// The maximum age of the evidence on the overview. Probes change it without a report.
const GATE_TIME: Duration = Duration::from_secs(60);

impl Dashboard {
    /// Creates the shared state for this configuration and context.
    ///
    /// # Errors
    ///
    /// If the system can't provide random bytes.
    pub fn new(role: &DashboardConfig, context: RolloutContext) -> Result<Arc<Self>, Failure> {
        let auth = Auth::new(context.store.clone(), context.world.clock.clone(), role)?;
        let refreshed_at = Mutex::new((Instant::now(), Duration::ZERO));
        Ok(Arc::new(Self {
            context: RwLock::new(context),
            refreshed_at,
            days: Mutex::new(None),
            gates: Mutex::new(BTreeMap::new()),
            snapshots: Snapshots::default(),
            auth,
            checks: DomainChecks::default(),
            config: role.clone(),
        }))
    }

    /// The context for reading, refreshed from the store if it is older than [`CACHE_TIME`], or with many domains, than
    /// [`CACHE_FACTOR`] times what that takes.
    pub(crate) async fn context(&self) -> Result<RwLockReadGuard<'_, RolloutContext>, Failure> {
        let mut refreshed = self.refreshed_at.lock().await;
        let (at, took) = *refreshed;
        if at.elapsed() > CACHE_TIME.max(took.saturating_mul(CACHE_FACTOR)) {
            let begun = Instant::now();
            self.context.write().await.learn().await?;
            *refreshed = (Instant::now(), begun.elapsed());
        }
        drop(refreshed);
        Ok(self.context.read().await)
    }

    /// The number of domains when the context was last refreshed.
    pub(crate) async fn known_domains(&self) -> usize {
        self.context.read().await.known.len()
    }

    /// The session counts of every domain since that day. They are read again when the reports in the store have
    /// changed.
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

    /// The evidence about a domain and the gate's result, at most [`GATE_TIME`] old. Domains with excused causes are not
    /// cached, since an excuse changes the result at once.
    pub(crate) async fn gate(
        &self,
        context: &RolloutContext,
        name: &DomainName,
        rollout: &RolloutState,
    ) -> Result<(Evidence, Gate), Failure> {
        if !context.decisions(name).excused.is_empty() {
            return context.gate(name, rollout).await;
        }
        let version = context.store.reports_version().await.map_err(|error| store_failure(&error))?;
        let is_current = |cached: &&CachedGate| {
            cached.at.elapsed() <= GATE_TIME
                && cached.reports_version == version
                && cached.rollout == *rollout
        };
        if let Some(cached) = self.gates.lock().await.get(name.as_str()).filter(is_current) {
            return Ok(cached.judged.clone());
        }
        let judged = context.gate(name, rollout).await?;
        let cached = CachedGate {
            at: Instant::now(),
            reports_version: version,
            rollout: rollout.clone(),
            judged: judged.clone(),
        };
        let mut gates = self.gates.lock().await;
        if gates.len() > context.known.len() {
            gates.retain(|_, cached| cached.at.elapsed() <= GATE_TIME);
        }
        gates.insert(name.to_string(), cached);
        Ok(judged)
    }

    /// The context for writing, refreshed from the store.
    pub(crate) async fn context_to_change(&self) -> Result<RwLockWriteGuard<'_, RolloutContext>, Failure> {
        let mut context = self.context.write().await;
        self.snapshots.forget();
        context.learn().await?;
        Ok(context)
    }
}
