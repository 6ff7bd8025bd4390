//! Which node does a job that must be done once for all nodes on a database. Each such job has a lease, and the node that holds
//! it does the job; the others ask for the lease every few seconds. At an orderly stop the leases are released, so that another
//! node goes on within seconds; the jobs of a node that was killed go on when its leases have ended. A node that loses a lease,
//! or can't renew it in time, stops the job.
//!
//! The kinds of all background tasks of the server:
//!
//! | kind | tasks |
//! | --- | --- |
//! | once for all nodes: a leader | `weekly-summary`, `report-webhook`, `retention`, `tenants` (what the three before are for further tenants), `imap` (each mailbox by itself), `forwarder`, `old-tallies`, `prober`, `challenge-records`, `renewal-information` |
//! | one thing at a time: a lease | `certificate-orders`; the plans that `guard` carries out ([`operations`]) |
//! | shared out: claims | `guard`, `tenant-guards`, `messenger`, `reporter` |
//! | on each node: what it has in memory or receives itself | `refresh`, `policy-changes`, `certificate-files`, `inbox-certificate`, `dashboard-certificate`, `collector-certificate`, `collector`, `retention-counts` |
//! | on each node: the node itself | `node`, `store-probe`, `watchdog`, `resolv-conf` |
//!
//! All leases of a node and its row among the [`store::nodes`] are renewed in one go (`node`).

use jiff::Timestamp;
use net::BoxFuture;
use net::clock::Clock;
use net::metrics::{self, Gauges, Registry};
use net::random::random_hex;
use operations::nodes::LEADER_PREFIX;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::leases::{HeldLease, LeaseHolder};
use store::nodes::NodeInfo;
use store::{Store, StoreError};

/// How long a lease lasts, how often it is renewed, and how often the others ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LeaseTimes {
    length: Duration,
    renewal: Duration,
    election: Duration,
}

/// A renewal is one small write for all leases of a node. Two may fail before the leader has to stop.
const LEASE_TIMES: LeaseTimes = LeaseTimes {
    length: Duration::from_secs(15),
    renewal: Duration::from_secs(4),
    election: Duration::from_secs(3),
};

/// This node among those that share the database, and the jobs that it leads.
pub struct Leaders {
    store: Store,
    clock: Arc<dyn Clock>,
    times: LeaseTimes,
    node: NodeInfo,
    held: Mutex<Vec<HeldLease>>,
    /// 1 for each job that this node does now, 0 for those that another one does.
    leads: Gauges,
}

impl Leaders {
    /// A node with these roles.
    pub fn new(store: &Store, clock: Arc<dyn Clock>, roles: Vec<String>) -> Arc<Self> {
        let holder = LeaseHolder::new();
        let name = config::machine::host_name();
        // Without random bytes of the system no TLS works either; the holder's text is unique as well.
        let id = random_hex().unwrap_or_else(|_| holder.to_string());
        Arc::new(Self {
            store: store.clone(),
            clock,
            times: LEASE_TIMES,
            node: NodeInfo {
                id,
                holder: holder.to_string(),
                name,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                roles,
            },
            held: Mutex::default(),
            leads: Gauges::new(&metrics::TASK_LEADER),
        })
    }

    /// Registers the metric `task_leader`.
    pub fn register(&self, registry: &mut Registry) {
        self.leads.register(registry);
    }

    /// Renews the leases and the row of the node until the task is dropped.
    pub async fn keep(self: Arc<Self>) {
        loop {
            if let Err(error) = self.renew().await {
                tracing::warn!("the leases of this node can't be renewed: {error}");
            }
            tokio::time::sleep(self.times.renewal).await;
        }
    }

    async fn renew(&self) -> Result<(), StoreError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !held.is_empty() {
            self.store.renew_all(&held, self.clock.now()).await?;
        }
        self.store.keep_node(&self.node, self.clock.now()).await
    }

    /// Does a job whenever this node holds its lease. Returns if the job itself returns. `start` gets the handle of the store
    /// whose writes take place only under this lease.
    pub fn lead<F: Future<Output = ()> + Send + 'static>(
        self: Arc<Self>,
        job: String,
        start: impl Fn(Store) -> F + Send + Sync + 'static,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.leads.set(&[&job], 0);
            loop {
                let lease = self.elected(&job).await;
                tracing::info!(job, "this node does the job from now on");
                self.leads.set(&[&job], 1);
                let has_ended = tokio::select! {
                    biased;
                    () = lost(&lease) => false,
                    () = start(self.store.under(&lease)) => true,
                };
                self.leads.set(&[&job], 0);
                self.forget(&lease);
                if has_ended {
                    return self.give_back(&[lease]).await;
                }
                tracing::warn!(job, "this node stops the job, since its lease has ended");
            }
        })
    }

    /// Waits until this node has the lease of a job.
    async fn elected(&self, job: &str) -> HeldLease {
        let name = format!("{LEADER_PREFIX}{job}");
        let mut has_failed = false;
        loop {
            match self.acquire(&name).await {
                Ok(Some(lease)) if !lease.is_over() => return lease,
                Ok(_) => has_failed = false,
                // The store's own state is logged where it is probed.
                Err(error) if !has_failed => {
                    has_failed = true;
                    tracing::warn!(job, "the lease of the job can't be acquired: {error}");
                }
                Err(_) => {}
            }
            tokio::time::sleep(self.times.election).await;
        }
    }

    async fn acquire(&self, name: &str) -> Result<Option<HeldLease>, StoreError> {
        let now: Timestamp = self.clock.now();
        let lease = self.store.acquire(name, &self.node.holder, now, self.times.length).await?;
        if let Some(lease) = &lease {
            // There is one already if the job has panicked.
            self.forget(lease);
            self.held.lock().unwrap_or_else(PoisonError::into_inner).push(lease.clone());
        }
        Ok(lease)
    }

    fn forget(&self, lease: &HeldLease) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|one| one.name() != lease.name());
    }

    /// Releases all leases, and removes the row of the node. To be called when its tasks have ended.
    pub async fn leave(&self) {
        let held = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        let leaving = async {
            self.give_back(&held).await;
            if let Err(error) = self.store.remove_node(&self.node.id).await {
                tracing::warn!("this node can't be removed from the list of nodes: {error}");
            }
        };
        if tokio::time::timeout(LEAVE_TIMEOUT, leaving).await.is_err() {
            tracing::warn!("the store does not answer, so others wait for the end of this node's leases");
        }
    }

    async fn give_back(&self, leases: &[HeldLease]) {
        for lease in leases {
            if let Err(error) = self.store.give_back(lease).await {
                let name = lease.name();
                tracing::warn!(
                    lease = name,
                    "the lease can't be released, so others wait for its end: {error}"
                );
            }
        }
    }
}

/// How long the leases are waited for at the stop.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest time between two looks at a lease, which others may take before its end if an operator says so.
const LEASE_POLL: Duration = Duration::from_millis(500);

/// Returns when a lease is over.
async fn lost(lease: &HeldLease) {
    while !lease.is_over() {
        tokio::time::sleep(lease.left().min(LEASE_POLL)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::clock::ManualClock;
    use std::path::Path;
    use tokio::sync::watch;

    const SHORT: LeaseTimes = LeaseTimes {
        length: Duration::from_secs(60),
        renewal: Duration::from_millis(20),
        election: Duration::from_millis(20),
    };

    async fn node(file: &Path, clock: &Arc<ManualClock>) -> Arc<Leaders> {
        let store = Store::open(file, store::Tenant::FIRST).await.unwrap();
        let leaders = Leaders::new(&store, clock.clone(), vec!["guard".to_owned()]);
        let Ok(mut leaders) = Arc::try_unwrap(leaders) else { panic!() };
        // Otherwise the other one would see that this process runs, or has ended.
        leaders.node.holder = format!("node {}", leaders.node.id);
        leaders.times = SHORT;
        Arc::new(leaders)
    }

    /// A job that says whether it is done now.
    fn job(leaders: &Arc<Leaders>) -> (watch::Receiver<bool>, tokio::task::JoinHandle<()>) {
        struct Running(watch::Sender<bool>);
        impl Drop for Running {
            fn drop(&mut self) {
                self.0.send_replace(false);
            }
        }
        let (sender, receiver) = watch::channel(false);
        let start = move |_: Store| {
            let running = Running(sender.clone());
            async move {
                running.0.send_replace(true);
                std::future::pending().await
            }
        };
        (receiver, tokio::spawn(leaders.clone().lead("retention".to_owned(), start)))
    }

    async fn until(receiver: &mut watch::Receiver<bool>, state: bool) {
        receiver.wait_for(|is| *is == state).await.unwrap();
    }

    #[tokio::test]
    async fn one_node_does_the_job_until_it_stops_or_loses_its_lease() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s.db");
        let clock = Arc::new(ManualClock::new(Timestamp::from_second(1000).unwrap()));
        let (first, second) = (node(&file, &clock).await, node(&file, &clock).await);
        let (mut of_first, task) = job(&first);
        until(&mut of_first, true).await;
        let (mut of_second, other_task) = job(&second);
        first.renew().await.unwrap();
        second.renew().await.unwrap();
        assert_eq!(first.store.nodes(clock.now()).await.unwrap().len(), 2);
        assert!(!*of_second.borrow());
        // An orderly stop.
        task.abort();
        let _ = task.await;
        first.leave().await;
        until(&mut of_second, true).await;
        assert_eq!(second.store.nodes(clock.now()).await.unwrap().len(), 1);
        // The second one stands still, and the first gets the lease meanwhile.
        let (mut of_first, task) = job(&first);
        clock.set_by(61);
        until(&mut of_first, true).await;
        second.renew().await.unwrap();
        until(&mut of_second, false).await;
        assert!(*of_first.borrow());
        // When that one has lost it, too, the second goes on.
        task.abort();
        let _ = task.await;
        first.leave().await;
        until(&mut of_second, true).await;
        other_task.abort();
    }

    #[test]
    fn the_times_leave_room_for_two_failed_renewals() {
        let LeaseTimes { length, renewal, .. } = LEASE_TIMES;
        assert!(renewal * 3 < length - Duration::from_secs(1));
    }
}
