//! What the server does for the tenants other than the first one, whose work the roles do themselves. Each of them has a guard
//! with alerts of its own on every node ([`TenantGuards`]), which shares out the checks with the other nodes. What is done once for
//! all nodes, and rarely, one node does for all tenants ([`TenantJobs`]): the weekly summary, the limits of received reports, and the
//! webhook for them. A new tenant is found within seconds, and a tenant that is being erased gets nothing more.

use super::guard::GuardRole;
use super::report_hook::ReportHookRole;
use super::retention::{self, RetentionTask};
use super::weekly::{self, WeeklyRole};
use config::failure::Failure;
use config::{Config, GuardConfig, WeekTime};
use futures_util::FutureExt;
use operations::tenants::TenantList;
use operations::world::World;
use operations::{RolloutContext, store_failure};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use store::tenants::TenantInfo;
use store::{Store, Tenant};
use tokio::task::{AbortHandle, JoinSet};

/// Time between two looks for new tenants.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Time before a guard that could not be made, or that ended by an internal error, is made again.
const RESTART_DELAY: Duration = Duration::from_secs(30);
/// Time between two rounds of the jobs.
const JOB_INTERVAL: Duration = Duration::from_secs(30);
/// The part of `guard.at_once` that the guard of a further tenant has.
const SHARE: usize = 4;

/// The guards of the tenants other than the first one.
pub struct TenantGuards {
    pub tenants: TenantList,
    pub config: Config,
    pub role: GuardConfig,
    pub store: Store,
    pub world: Arc<World>,
}

impl TenantGuards {
    /// Runs a guard for each tenant until the task is dropped.
    pub async fn run(self: Arc<Self>) {
        // Dropping the set ends the guards.
        let mut guards = JoinSet::new();
        let mut running: BTreeMap<Tenant, AbortHandle> = BTreeMap::new();
        loop {
            match self.tenants.all().await {
                Ok(all) => self.keep(&all, &mut guards, &mut running),
                Err(error) => tracing::error!("the tenants can't be read: {error}"),
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Starts the guards of new tenants, and ends those of tenants that are not there any more.
    fn keep(
        self: &Arc<Self>,
        all: &[TenantInfo],
        guards: &mut JoinSet<()>,
        running: &mut BTreeMap<Tenant, AbortHandle>,
    ) {
        running.retain(|tenant, guard| {
            let is_there = all.iter().any(|one| one.tenant == *tenant);
            if !is_there {
                guard.abort();
            }
            is_there
        });
        // What has ended is not kept.
        while guards.try_join_next().is_some() {}
        for tenant in further(all) {
            running.entry(tenant.tenant).or_insert_with(|| guards.spawn(self.clone().watch(tenant.clone())));
        }
    }

    /// Runs the guard of a tenant, again if it ends.
    async fn watch(self: Arc<Self>, tenant: TenantInfo) {
        loop {
            match AssertUnwindSafe(self.guard(&tenant)).catch_unwind().await {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => {
                    tracing::error!(tenant = %tenant.name, "the guard can't start: {failure}")
                }
                Err(_) => tracing::error!(tenant = %tenant.name, "the guard ended by an internal error"),
            }
            tokio::time::sleep(RESTART_DELAY).await;
        }
    }

    async fn guard(&self, tenant: &TenantInfo) -> Result<(), Failure> {
        let store = self.store.of_tenant(tenant.tenant);
        let context = RolloutContext::at(self.config.clone(), store, self.world.clone()).await?;
        let role = GuardConfig { at_once: (self.role.at_once / SHARE).max(1), ..self.role.clone() };
        GuardRole::new(context, role).run().await;
        Ok(())
    }
}

/// What one node does for the tenants other than the first one.
pub struct TenantJobs {
    pub tenants: TenantList,
    pub config: Config,
    pub world: Arc<World>,
    /// When the weekly summary is due, and the channels of its recipients; `None` if none is mailed.
    pub weekly: Option<(WeekTime, Vec<String>)>,
    pub retention: RetentionTask,
    /// The webhook for received reports; `None` if there is none.
    pub hook: Option<ReportHookRole>,
}

impl TenantJobs {
    /// Works on this handle of the store until the task is dropped.
    pub async fn run(self: Arc<Self>, store: Store) {
        let mut states: BTreeMap<Tenant, retention::State> = BTreeMap::new();
        loop {
            match self.tenants.all().await {
                Ok(all) => {
                    states.retain(|tenant, _| all.iter().any(|one| one.tenant == *tenant));
                    for tenant in further(&all) {
                        let state = states.entry(tenant.tenant).or_default();
                        if let Err(failure) = self.round(tenant, store.of_tenant(tenant.tenant), state).await
                        {
                            tracing::error!(tenant = %tenant.name, "what is done for a tenant fails: {failure}");
                        }
                    }
                }
                Err(error) => tracing::error!("the tenants can't be read: {error}"),
            }
            tokio::time::sleep(JOB_INTERVAL).await;
        }
    }

    async fn round(
        &self,
        tenant: &TenantInfo,
        store: Store,
        state: &mut retention::State,
    ) -> Result<(), Failure> {
        let fail = |error| store_failure(&error);
        self.retention.of(tenant, store.clone()).round(state).await.map_err(fail)?;
        if let Some(hook) = &self.hook {
            hook.of(tenant, store.clone()).round().await.map_err(fail)?;
        }
        let Some((time, channels)) = &self.weekly else { return Ok(()) };
        // Read first: the domains of a tenant are loaded only once a week.
        if weekly::is_due(*time, &store, self.world.clock.now()).await.map_err(fail)? {
            let context = RolloutContext::at(self.config.clone(), store, self.world.clone()).await?;
            WeeklyRole { context, time: *time, channels: channels.clone() }.round().await?;
        }
        Ok(())
    }
}

/// The tenants other than the first one.
fn further(all: &[TenantInfo]) -> impl Iterator<Item = &TenantInfo> {
    all.iter().filter(|one| one.tenant != Tenant::FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::DomainName;
    use receiver::domain::DomainSpec;

    /// A program without network, and a store with one domain of the first tenant.
    async fn guards(folder: &std::path::Path) -> Arc<TenantGuards> {
        let text = "[guard]\n[dns]\nservers = [\"127.0.0.1:1\"]\n[[domain]]\nname = \"main.example\"\n";
        let config = Config::parse(text, None).unwrap();
        let store = Store::open(&folder.join("s.db"), Tenant::FIRST).await.unwrap();
        let world = Arc::new(World::new(&config).unwrap());
        let role = config.guard.clone().unwrap();
        Arc::new(TenantGuards { tenants: TenantList::new(&store), config, role, store, world })
    }

    async fn until(is_so: impl AsyncFn() -> bool) {
        let waiting = async {
            while !is_so().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), waiting).await.expect("in vain");
    }

    #[tokio::test]
    async fn a_new_tenant_is_watched_without_a_restart_and_one_that_leaves_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let guards = guards(folder.path()).await;
        let store = guards.store.clone();
        let running = tokio::spawn(guards.clone().run());
        let now = guards.world.clock.now();
        let tenant = store.add_tenant(&"acme".parse().unwrap(), "Acme", now).await.unwrap().unwrap();
        let of_acme = store.of_tenant(tenant);
        let domain = DomainName::parse("shop.example").unwrap();
        of_acme.put_domain(&domain, &DomainSpec::new(domain.clone())).await.unwrap();
        // Its own domain is due for a check, and none of the configuration file.
        until(async || of_acme.oldest_check(false).await.unwrap().is_some()).await;
        let due = of_acme.claim_checks(false, jiff::Timestamp::MAX, jiff::Timestamp::MAX, 9).await.unwrap();
        assert!(due.iter().all(|claim| claim.domain == "shop.example"), "{due:?}");
        assert_eq!(store.oldest_check(false).await.unwrap(), None, "the first tenant has a guard elsewhere");
        // It leaves: nothing is written for it any more.
        assert!(of_acme.begin_erasure().await.unwrap());
        until(async || {
            of_acme.erase_rows().await.unwrap();
            tokio::time::sleep(POLL_INTERVAL * 2).await;
            of_acme.tenant_rows().await.unwrap().is_empty()
        })
        .await;
        running.abort();
    }
}
