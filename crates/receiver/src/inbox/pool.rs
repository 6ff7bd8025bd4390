//! The one place where received input is decompressed, parsed and hashed. All ways of arrival share it: SMTP, LMTP,
//! HTTPS POST, IMAP and import. The work runs on blocking threads, at most one less than the machine has cores, so that
//! the sending side's answers on the same machine never wait for a stranger's report. The memory for what is decompressed
//! comes from one budget; input that does not fit is refused temporarily.

use formats::limits::{
    INBOX_BUFFER_BYTES, INBOX_LMTP_BUFFER_BYTES, INBOX_POST_BUFFER_BYTES, INBOX_SMALL_BYTES,
    INBOX_UNPACKED_BYTES,
};
use net::memory_budget::{MemoryBudget, Reservation};
use std::sync::{Arc, OnceLock};
use store::reports::Arrival;
use tokio::sync::Semaphore;

/// Runs extraction jobs, a few at a time.
pub struct ExtractionPool {
    workers: Arc<Semaphore>,
    memory: MemoryBudget,
}

/// The memory for decompressed reports is in use. The same input may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many reports are being read at the moment")]
pub struct Busy;

impl ExtractionPool {
    /// A pool of `workers` concurrent jobs, at least one, with `memory` bytes for what they decompress.
    pub fn new(workers: usize, memory: usize) -> Self {
        let workers = Arc::new(Semaphore::new(workers.max(1)));
        Self { workers, memory: MemoryBudget::new(memory, memory) }
    }

    /// The pool of this process: one worker less than there are cores, and [`INBOX_UNPACKED_BYTES`] of memory.
    pub fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<ExtractionPool>> = OnceLock::new();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        SHARED.get_or_init(|| Arc::new(Self::new(cores - 1, INBOX_UNPACKED_BYTES))).clone()
    }

    /// The memory that jobs and their results use.
    pub fn memory(&self) -> &MemoryBudget {
        &self.memory
    }

    /// Runs a job on a blocking thread, when a worker is free. The job gets the reservation to grow, and returns it with
    /// its result. `None` when the job panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Reservation) -> T + Send + 'static,
    ) -> Option<(T, Reservation)> {
        // The worker counts until the job has ended, even if the caller goes away.
        let worker = self.workers.clone().acquire_owned().await.ok()?;
        let mut memory = self.memory.reservation();
        let task = tokio::task::spawn_blocking(move || {
            let result = job(&mut memory);
            drop(worker);
            (result, memory)
        });
        task.await.ok()
    }
}

/// The memory for messages or report files that are being received, over all sessions of this process that arrive in this
/// way. Strangers who use up that of SMTP or HTTPS leave that of LMTP to the operator's mail server.
pub fn receive_buffers(arrival: Arrival) -> MemoryBudget {
    static SMTP: OnceLock<MemoryBudget> = OnceLock::new();
    static LMTP: OnceLock<MemoryBudget> = OnceLock::new();
    static HTTPS: OnceLock<MemoryBudget> = OnceLock::new();
    let (shared, bytes) = match arrival {
        Arrival::Lmtp => (&LMTP, INBOX_LMTP_BUFFER_BYTES),
        Arrival::Https => (&HTTPS, INBOX_POST_BUFFER_BYTES),
        _ => (&SMTP, INBOX_BUFFER_BYTES),
    };
    shared.get_or_init(|| MemoryBudget::new(bytes, INBOX_SMALL_BYTES)).clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn each_way_of_arrival_has_its_own_memory_for_what_is_being_received() {
        let mut strangers = receive_buffers(Arrival::Smtp).reservation();
        assert!(strangers.cover(INBOX_BUFFER_BYTES / 4 * 3));
        assert!(!receive_buffers(Arrival::Smtp).has_room_for(INBOX_SMALL_BYTES + 1));
        for arrival in [Arrival::Lmtp, Arrival::Https] {
            assert_eq!(receive_buffers(arrival).used(), 0);
        }
    }

    #[tokio::test]
    async fn no_more_jobs_run_at_once_than_there_are_workers() {
        let pool = Arc::new(ExtractionPool::new(2, 100));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let jobs = (0..8).map(|_| {
            let (pool, running, most) = (pool.clone(), running.clone(), most.clone());
            tokio::spawn(async move {
                let job = move |_: &mut Reservation| {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                };
                pool.run(job).await.unwrap();
            })
        });
        for job in jobs.collect::<Vec<_>>() {
            job.await.unwrap();
        }
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn other_tasks_go_on_while_a_job_runs() {
        let pool = ExtractionPool::new(1, 100);
        let (go_on, wait) = std::sync::mpsc::channel();
        let job = pool.run(move |_| wait.recv().unwrap());
        let (ended, ()) = tokio::join!(job, async { go_on.send("from another task").unwrap() });
        assert_eq!(ended.unwrap().0, "from another task");
    }

    #[tokio::test]
    async fn results_hold_their_memory_and_a_panic_gives_it_back() {
        let pool = ExtractionPool::new(0, 100);
        let (fits, memory) = pool.run(|memory| memory.cover(80)).await.unwrap();
        let (second, _) = pool.run(|memory| memory.cover(30)).await.unwrap();
        assert!(fits && !second && pool.memory().used() == 80);
        drop(memory);
        let panics = |memory: &mut Reservation| -> bool {
            assert!(memory.cover(100));
            panic!("a job that fails");
        };
        assert!(pool.run(panics).await.is_none());
        assert_eq!(pool.memory().used(), 0);
        assert!(pool.run(|memory| memory.cover(100)).await.unwrap().0);
    }
}
