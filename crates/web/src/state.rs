//! The state shared by all pages: the rollout context, authentication, and the session counts of every domain by
//! day. The context is refreshed from the store (`contexts`). The counts are cached until a report arrives, and the evidence
//! of domains on the overview for a minute at most.

mod contexts;

pub use contexts::Changing;

use crate::auth::Auth;
use crate::domain_check::DomainChecks;
use crate::snapshot::Snapshots;
use config::DashboardConfig;
use config::failure::Failure;
use contexts::Contexts;
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
use store::tenants::TenantInfo;
use tokio::sync::Mutex;

/// The state shared by all pages: the rollout context, authentication, and session counts by day.
pub struct Dashboard {
    contexts: Contexts,
    /// The cached session counts.
    days: Mutex<Option<CachedDays>>,
    /// The evidence of domains on the overview, by domain name.
    gates: Mutex<BTreeMap<String, CachedGate>>,
    /// All domains at one moment, for the overview.
    pub(crate) snapshots: Snapshots,
    pub(crate) auth: Arc<Auth>,
    /// The tenant whose domains, reports and users the pages show.
    pub(crate) tenant: TenantInfo,
    /// The last live checks of domains.
    pub(crate) checks: DomainChecks,
    pub(crate) config: DashboardConfig,
}

/// The session counts of all domains, with the values that they are valid for.
struct CachedDays {
    reports_version: i64,
    since: Timestamp,
    domains: Vec<DomainName>,
    days: Arc<AllDays>,
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
        Ok(Self::with(role, context, Arc::new(auth)))
    }

    /// The dashboard of another tenant. It shares the limits for signing in.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub(crate) async fn of_tenant(&self, tenant: &TenantInfo) -> Result<Arc<Self>, Failure> {
        let first = self.contexts.last();
        let mut config = first.config.clone();
        config.tenant = Some(tenant.name.clone());
        let store = first.store.of_tenant(tenant.tenant);
        let context = RolloutContext::at(config, store, first.world.clone()).await?;
        Ok(Self::with(&self.config, context, self.auth.clone()))
    }

    fn with(role: &DashboardConfig, context: RolloutContext, auth: Arc<Auth>) -> Arc<Self> {
        Arc::new(Self {
            tenant: context.tenant.clone(),
            contexts: Contexts::new(context),
            days: Mutex::new(None),
            gates: Mutex::new(BTreeMap::new()),
            snapshots: Snapshots::default(),
            auth,
            checks: DomainChecks::default(),
            config: role.clone(),
        })
    }

    /// The context for reading.
    pub(crate) async fn context(&self) -> Result<Arc<RolloutContext>, Failure> {
        self.contexts.current().await
    }

    /// The number of domains when the context was last refreshed.
    pub(crate) fn known_domains(&self) -> usize {
        self.contexts.last().known.len()
    }

    /// The session counts of each of our domains since that day. They are read again when the reports in the store or the
    /// domains have changed.
    pub(crate) async fn days(
        &self,
        context: &RolloutContext,
        since: Timestamp,
    ) -> Result<Arc<AllDays>, StoreError> {
        let since = DateRange::utc_day(since).start;
        let mut held = self.days.lock().await;
        let reports_version = context.store.reports_version().await?;
        let domains = || context.known.iter().map(|spec| &spec.name);
        let is_current = |cached: &&CachedDays| {
            (cached.reports_version, cached.since) == (reports_version, since)
                && cached.domains.iter().eq(domains())
        };
        if let Some(cached) = held.as_ref().filter(is_current) {
            return Ok(cached.days.clone());
        }
        let names: Vec<&str> = domains().map(DomainName::as_str).collect();
        let days = Arc::new(context.store.days_of_each(&names, since).await?);
        let domains = domains().cloned().collect();
        *held = Some(CachedDays { reports_version, since, domains, days: days.clone() });
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

    /// The context for a decision, as the store has it now.
    pub(crate) async fn context_to_change(&self) -> Result<Changing<'_>, Failure> {
        self.contexts.to_change(&self.snapshots).await
    }
}
