//! The background tasks of the server. They run as long as the server: one that ends or panics is logged, counted, and
//! started again after a delay. Meanwhile `/readyz` names it.

use futures_util::FutureExt;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::any::Any;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The delay before a task that ended is started again.
const RESTART_DELAY: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    task: &'static str,
}

/// The tasks that are down, and how often each has ended.
pub struct TaskStatus {
    restart_delay: Duration,
    down: Mutex<BTreeSet<&'static str>>,
    ended: Family<Named, Counter>,
}

impl Default for TaskStatus {
    fn default() -> Self {
        Self { restart_delay: RESTART_DELAY, down: Mutex::default(), ended: Family::default() }
    }
}

impl TaskStatus {
    /// Registers the metric `task_ended`.
    pub fn register(&self, registry: &mut Registry) {
        let help = "How often a background task has ended unexpectedly";
        registry.register("task_ended", help, self.ended.clone());
    }

    /// The names of the tasks that are down.
    pub fn down(&self) -> Vec<&'static str> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Logs and counts that a task ended, and marks it as down.
    pub fn ended(&self, name: &'static str, why: &str) {
        self.ended.get_or_create(&Named { task: name }).inc();
        self.down.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        tracing::error!(task = name, "the background task {name} ended unexpectedly: {why}");
    }

    fn restarted(&self, name: &'static str) {
        self.down.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        tracing::info!(task = name, "the background task {name} is started again");
    }

    /// Runs a task until `stop` is cancelled and the task has ended. `start` makes the task, also for each restart.
    pub async fn supervise<F: Future<Output = ()>>(
        &self,
        name: &'static str,
        stop: CancellationToken,
        start: impl Fn() -> F,
    ) {
        loop {
            let outcome = AssertUnwindSafe(async { start().await }).catch_unwind().await;
            if stop.is_cancelled() && outcome.is_ok() {
                return;
            }
            let why = outcome.as_ref().map_or_else(|panic| panic_message(panic.as_ref()), |()| "it returned");
            self.ended(name, why);
            tokio::select! {
                () = tokio::time::sleep(self.restart_delay) => self.restarted(name),
                () = stop.cancelled() => return,
            }
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it panicked")
}

/// The background tasks, which end with the server.
#[derive(Default)]
pub struct Tasks {
    set: JoinSet<()>,
    /// The state of the tasks.
    pub status: Arc<TaskStatus>,
}

impl Tasks {
    /// Starts a task under a name. `start` makes the task, also for each restart.
    pub fn spawn<F, S>(&mut self, name: &'static str, start: S)
    where
        F: Future<Output = ()> + Send + 'static,
        S: Fn() -> F + Send + Sync + 'static,
    {
        let status = self.status.clone();
        self.set.spawn(async move { status.supervise(name, CancellationToken::new(), start).await });
    }

    /// Aborts all tasks.
    pub fn abort_all(&mut self) {
        self.set.abort_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A task that panics in its first run, returns from its second, and stays in its third.
    fn failing(runs: &Arc<AtomicU32>) -> impl Fn() -> net::BoxFuture<'static, ()> + use<> {
        let runs = runs.clone();
        move || {
            let run = runs.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                assert!(run > 0, "a defect in the task");
                if run > 1 {
                    std::future::pending().await
                }
            })
        }
    }

    #[tokio::test]
    async fn a_task_that_panics_or_returns_is_down_counted_and_started_again() {
        let delay = Duration::from_millis(50);
        let status = Arc::new(TaskStatus { restart_delay: delay, ..TaskStatus::default() });
        let mut tasks = Tasks { status: status.clone(), set: JoinSet::new() };
        let (runs, mut registry) = (Arc::new(AtomicU32::new(0)), Registry::default());
        status.register(&mut registry);
        tasks.spawn("guard", failing(&runs));
        for run in 1..=2 {
            while runs.load(Ordering::SeqCst) < run || status.down().is_empty() {
                tokio::task::yield_now().await;
            }
            assert_eq!((status.down(), runs.load(Ordering::SeqCst)), (vec!["guard"], run));
        }
        tokio::time::sleep(2 * delay).await;
        assert_eq!((status.down(), runs.load(Ordering::SeqCst)), (vec![], 3));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("task_ended_total{task=\"guard\"} 2"), "{text}");
    }

    #[tokio::test]
    async fn a_task_that_ends_at_the_shutdown_is_not_started_again() {
        let (status, stop) = (TaskStatus::default(), CancellationToken::new());
        let ends = async || stop.cancelled().await;
        let supervised = status.supervise("reporter", stop.clone(), ends);
        tokio::join!(supervised, async { stop.cancel() });
        assert!(status.down().is_empty());
    }
}
