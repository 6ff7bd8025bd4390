//! The background tasks of the server. They run as long as the server: one that ends or panics is logged, counted, and
//! started again after a delay. Meanwhile `/readyz` names it (`readiness`).

use super::leaders::Leaders;
use futures_util::FutureExt;
use jiff::Timestamp;
use net::clock::Clock;
use net::metrics::{self, Counters, Registry};
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The delay before a task that ended is started again.
const RESTART_DELAY: Duration = Duration::from_secs(30);

/// A task that has ended and waits for its restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// The name of the task.
    pub task: &'static str,
    /// Why the task ended: the message of a panic, or that it returned.
    pub why: String,
    /// When the task ended.
    pub since: Timestamp,
}

/// The tasks that are down, and how often each has ended.
pub struct TaskStatus {
    clock: Arc<dyn Clock>,
    restart_delay: Duration,
    down: Mutex<BTreeMap<&'static str, Down>>,
    ended: Counters,
}

impl TaskStatus {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            restart_delay: RESTART_DELAY,
            down: Mutex::default(),
            ended: Counters::new(&metrics::TASK_ENDED),
        }
    }

    /// Registers the metric `task_ended`.
    pub fn register(&self, registry: &mut Registry) {
        self.ended.register(registry);
    }

    /// The tasks that are down.
    pub fn down(&self) -> Vec<Down> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Logs and counts that a task ended, and marks it as down.
    pub fn ended(&self, name: &'static str, why: &str) {
        self.ended.inc(&[name]);
        let down = Down { task: name, why: why.to_owned(), since: self.clock.now() };
        self.down.lock().unwrap_or_else(PoisonError::into_inner).insert(name, down);
        tracing::error!(task = name, "the background task {name} ended unexpectedly: {why}");
    }

    fn restarted(&self, name: &'static str) {
        self.down.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        tracing::info!(task = name, "the background task {name} is started again");
    }

    /// Runs a task once, until it ends or `stop` is cancelled. One that ends before is down from then on.
    pub async fn watch(&self, name: &'static str, stop: CancellationToken, task: impl Future<Output = ()>) {
        let outcome = AssertUnwindSafe(task).catch_unwind().await;
        if !stop.is_cancelled() || outcome.is_err() {
            self.ended(name, reason(&outcome));
        }
    }

    /// Runs a task until `stop` is cancelled and the task has ended. `start` makes the task, also for each restart.
    pub async fn supervise<F: Future<Output = ()>>(
        &self,
        name: &'static str,
        stop: CancellationToken,
        start: impl Fn() -> F,
    ) {
        // The series exists from the start, with the value zero.
        drop(self.ended.of(&[name]));
        loop {
            let outcome = AssertUnwindSafe(async { start().await }).catch_unwind().await;
            if stop.is_cancelled() && outcome.is_ok() {
                return;
            }
            self.ended(name, reason(&outcome));
            tokio::select! {
                () = tokio::time::sleep(self.restart_delay) => self.restarted(name),
                () = stop.cancelled() => return,
            }
        }
    }
}

/// Why a task ended.
fn reason(outcome: &Result<(), Box<dyn Any + Send>>) -> &str {
    outcome.as_ref().map_or_else(|panic| panic_message(panic.as_ref()), |()| "it returned")
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it panicked")
}

/// The background tasks, which end with the server.
pub struct Tasks {
    set: JoinSet<()>,
    /// Decides which node does what is done once for all of them. `None` if started tasks are dropped: the roles are made only to
    /// see whether they can be.
    leaders: Option<Arc<Leaders>>,
    /// The state of the tasks.
    pub status: Arc<TaskStatus>,
}

impl Tasks {
    pub fn new(clock: Arc<dyn Clock>, leaders: Arc<Leaders>) -> Self {
        Self { leaders: Some(leaders), ..Self::idle(clock) }
    }

    /// Tasks that never run, for roles that are made only to see whether they can be.
    pub fn idle(clock: Arc<dyn Clock>) -> Self {
        Self { set: JoinSet::new(), leaders: None, status: Arc::new(TaskStatus::new(clock)) }
    }

    /// Starts a task under a name, for a job that is done by one of the nodes at a time ([`Leaders`]). The job has its own name
    /// if there are several of the task. `start` gets the store for writes under the lease of the job.
    pub fn lead<F, S>(&mut self, name: &'static str, job: &str, start: S)
    where
        F: Future<Output = ()> + Send + 'static,
        S: Fn(Store) -> F + Clone + Send + Sync + 'static,
    {
        let Some(leaders) = self.leaders.clone() else { return };
        let job = job.to_owned();
        self.spawn(name, move || leaders.clone().lead(job.clone(), start.clone()));
    }

    /// Starts a task under a name. `start` makes the task, also for each restart.
    pub fn spawn<F, S>(&mut self, name: &'static str, start: S)
    where
        F: Future<Output = ()> + Send + 'static,
        S: Fn() -> F + Send + Sync + 'static,
    {
        if self.leaders.is_none() {
            return;
        }
        let status = self.status.clone();
        self.set.spawn(async move { status.supervise(name, CancellationToken::new(), start).await });
    }

    /// Aborts all tasks, and waits until they have ended.
    pub async fn end(&mut self) {
        self.set.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::clock::SystemClock;
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
        let clock = Arc::new(SystemClock);
        let status = Arc::new(TaskStatus { restart_delay: delay, ..TaskStatus::new(clock.clone()) });
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let leaders = Leaders::new(&store, clock.clone(), Vec::new());
        let mut tasks = Tasks { status: status.clone(), ..Tasks::new(clock, leaders) };
        let (runs, mut registry) = (Arc::new(AtomicU32::new(0)), Registry::default());
        status.register(&mut registry);
        tasks.spawn("guard", failing(&runs));
        for run in 1..=2 {
            while runs.load(Ordering::SeqCst) < run || status.down().is_empty() {
                tokio::task::yield_now().await;
            }
            let down: Vec<_> = status.down().into_iter().map(|down| (down.task, down.why)).collect();
            let why = if run == 1 { "a defect in the task" } else { "it returned" };
            assert_eq!((down, runs.load(Ordering::SeqCst)), (vec![("guard", why.to_owned())], run));
        }
        while runs.load(Ordering::SeqCst) < 3 || !status.down().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(runs.load(Ordering::SeqCst), 3);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("task_ended_total{task=\"guard\"} 2"), "{text}");
    }

    #[tokio::test]
    async fn a_task_that_ends_at_the_shutdown_is_not_started_again() {
        let (status, stop) = (TaskStatus::new(Arc::new(SystemClock)), CancellationToken::new());
        let ends = async || stop.cancelled().await;
        let supervised = status.supervise("reporter", stop.clone(), ends);
        tokio::join!(supervised, async { stop.cancel() });
        assert!(status.down().is_empty());
        status.watch("socket", stop, std::future::ready(())).await;
        assert!(status.down().is_empty(), "it was stopped");
    }

    #[tokio::test]
    async fn a_task_that_can_not_be_started_again_stays_down() {
        let status = TaskStatus::new(Arc::new(SystemClock));
        status.watch("socket", CancellationToken::new(), async { panic!("a defect") }).await;
        assert_eq!((status.down()[0].task, status.down()[0].why.as_str()), ("socket", "a defect"));
    }
}
