//! The one place where received input is decompressed, parsed and hashed, and from where large input is stored. All ways of arrival share it: SMTP, LMTP,
//! HTTPS POST, IMAP and import. The work runs on blocking threads, at most one less than the machine has cores, so that
//! the sending side's answers on the same machine never wait for a stranger's report. The memory for what is decompressed
//! comes from one budget; input that does not fit is refused temporarily.
//!
//! Nobody's input may hold up that of others. Each job begins as a small one, which may reserve only
//! [`INBOX_SMALL_UNPACKED_BYTES`] in total. A job that needs more is stopped and begins again as a large one. Large jobs
//! leave a worker to the small ones if there are several; with one worker, small jobs wait for one large job at most.
//! Large jobs can't use the last quarter of the memory, and one client has few jobs at a time.

use super::job_memory::{JobMemory, Stop};
use formats::limits::{
    INBOX_BUFFER_BYTES, INBOX_LARGE_PER_CLIENT, INBOX_LMTP_BUFFER_BYTES, INBOX_POST_BUFFER_BYTES,
    INBOX_SMALL_BYTES, INBOX_SMALL_PER_CLIENT, INBOX_SMALL_UNPACKED_BYTES, INBOX_UNPACKED_BYTES,
};
use net::memory_budget::{MemoryBudget, Reservation};
use net::rate_limit::{ConcurrencyLimit, client};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use store::reports::Arrival;
use tokio::sync::Semaphore;

/// Runs extraction jobs, a few at a time.
pub struct ExtractionPool {
    workers: Arc<Semaphore>,
    /// The workers that large jobs may use. A large job takes its permit before it waits for a worker, so that few large
    /// jobs are ahead of a small one in the queue.
    large: Arc<Semaphore>,
    small_per_client: ConcurrencyLimit,
    large_per_client: ConcurrencyLimit,
    memory: MemoryBudget,
    /// The threads that store large input.
    storing: Semaphore,
}

/// The memory for decompressed reports, or a client's share of the work, is in use. The same input may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many reports are being read at the moment")]
pub struct Busy {
    /// The memory that the input needed when it was refused, in bytes; 0 if it was refused for another reason.
    pub needed: usize,
}

/// How much work a job may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Small,
    Large,
}

/// A job, which may be run twice.
pub(super) type Job<T> = Arc<dyn Fn(&JobMemory<'_>) -> Result<T, Stop> + Send + Sync>;

impl ExtractionPool {
    /// A pool of `workers` concurrent jobs, at least one, with `memory` bytes for what they decompress.
    pub fn new(workers: usize, memory: usize) -> Self {
        let workers = workers.max(1);
        Self {
            workers: Arc::new(Semaphore::new(workers)),
            large: Arc::new(Semaphore::new((workers - 1).max(1))),
            small_per_client: ConcurrencyLimit::new(INBOX_SMALL_PER_CLIENT),
            large_per_client: ConcurrencyLimit::new(INBOX_LARGE_PER_CLIENT),
            memory: MemoryBudget::new(memory, INBOX_SMALL_UNPACKED_BYTES.min(memory)),
            storing: Semaphore::new(workers),
        }
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

    /// Runs a job for `input` bytes from a client, first as a small one. Returns its result with the reservation of the
    /// result's memory; `None` when the job panicked. Jobs without a client are not limited in number.
    ///
    /// # Errors
    ///
    /// [`Busy`] if the memory is in use, or if the client has too many large jobs.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        input: usize,
        from: Option<IpAddr>,
        job: Job<T>,
    ) -> Result<Option<(T, Reservation)>, Busy> {
        let from = from.map(client);
        if input <= INBOX_SMALL_BYTES {
            let _share = match from {
                Some(from) => self.small_per_client.take(from).await,
                None => None,
            };
            match self.run(Size::Small, job.clone()).await {
                Some((Err(Stop::Large), _)) => {}
                Some((Err(Stop::Busy(busy)), _)) => return Err(busy),
                Some((Ok(result), memory)) => return Ok(Some((result, memory))),
                None => return Ok(None),
            }
        }
        let share = from.map(|from| self.large_per_client.try_take(from));
        if matches!(share, Some(None)) {
            return Err(Busy { needed: 0 });
        }
        match self.run(Size::Large, job).await {
            Some((Ok(result), memory)) => Ok(Some((result, memory))),
            Some((Err(Stop::Busy(busy)), _)) => Err(busy),
            Some((Err(Stop::Large), _)) => Err(Busy { needed: 0 }),
            None => Ok(None),
        }
    }

    /// Runs work that stores large input on a blocking thread, as many at a time as there are workers. Between its awaits, it
    /// hashes and copies all of the input, for which an answer to a mail server must not wait.
    pub(super) async fn store<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        // The semaphore is never closed.
        let _place = self.storing.acquire().await;
        let runtime = tokio::runtime::Handle::current();
        match tokio::task::spawn_blocking(move || runtime.block_on(work)).await {
            Ok(done) => done,
            Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
            // The runtime ends, and with it the caller.
            Err(_) => std::future::pending().await,
        }
    }

    /// Runs a job on a blocking thread, when a worker is free. The job's reservation is returned with its result. `None`
    /// when the job panicked.
    async fn run<T: Send + 'static>(
        &self,
        size: Size,
        job: Job<T>,
    ) -> Option<(Result<T, Stop>, Reservation)> {
        let large = match size {
            Size::Small => None,
            Size::Large => Some(self.large.clone().acquire_owned().await.ok()?),
        };
        // The worker counts until the job has ended, even if the caller goes away.
        let worker = self.workers.clone().acquire_owned().await.ok()?;
        let mut memory = self.memory.reservation();
        let most = if size == Size::Small { INBOX_SMALL_UNPACKED_BYTES } else { usize::MAX };
        let task = tokio::task::spawn_blocking(move || {
            let result = job(&JobMemory::new(&mut memory, most));
            drop((worker, large));
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
    use formats::report::UnpackMemory;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    fn job<T>(job: impl Fn(&JobMemory<'_>) -> Result<T, Stop> + Send + Sync + 'static) -> Job<T> {
        Arc::new(job)
    }

    fn reserving(bytes: usize) -> Job<()> {
        job(move |memory| memory.reserve(bytes).map_err(|_| memory.stop()))
    }

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
        let jobs = (0..8).map(|number| {
            let (pool, running, most) = (pool.clone(), running.clone(), most.clone());
            tokio::spawn(async move {
                let work = job(move |_| {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                });
                pool.read(number % 2 * usize::MAX, None, work).await.unwrap().unwrap();
            })
        });
        for job in jobs.collect::<Vec<_>>() {
            job.await.unwrap();
        }
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn results_hold_their_memory_and_a_panic_gives_it_back() {
        let pool = ExtractionPool::new(0, 100);
        let (_, memory) = pool.read(0, None, reserving(80)).await.unwrap().unwrap();
        assert_eq!(pool.read(0, None, reserving(30)).await.unwrap_err(), Busy { needed: 30 });
        assert_eq!(pool.memory().used(), 80);
        drop(memory);
        let panics: Job<()> = job(|memory| {
            memory.reserve(100).unwrap();
            panic!("a job that fails");
        });
        assert!(pool.read(0, None, panics).await.unwrap().is_none());
        assert_eq!(pool.memory().used(), 0);
        assert!(pool.read(0, None, reserving(100)).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_job_that_is_too_much_for_a_small_one_runs_again_as_a_large_one() {
        let pool = ExtractionPool::new(2, INBOX_UNPACKED_BYTES);
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        let work = job(move |memory| {
            counted.fetch_add(1, Ordering::SeqCst);
            for _ in 0..5 {
                memory.reserve(INBOX_SMALL_UNPACKED_BYTES / 4).map_err(|_| memory.stop())?;
                // What is given back was work all the same.
                memory.give_back(INBOX_SMALL_UNPACKED_BYTES / 4);
            }
            Ok(())
        });
        assert!(pool.read(0, None, work).await.unwrap().is_some());
        assert_eq!((runs.load(Ordering::SeqCst), pool.memory().used()), (2, 0));
    }

    /// Large jobs of one client occupy all workers that they may; a small job of another client is not held up.
    #[tokio::test]
    async fn small_jobs_go_on_while_large_ones_run_and_wait() {
        let pool = Arc::new(ExtractionPool::new(2, INBOX_UNPACKED_BYTES));
        let (started, start) = mpsc::channel();
        let (go_on, wait) = mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        let bombs: Vec<_> = (0..6)
            .map(|number| {
                let (pool, started, wait) = (pool.clone(), started.clone(), wait.clone());
                let from = format!("192.0.2.{number}").parse().ok();
                let work = job(move |_| {
                    started.send(()).unwrap();
                    wait.lock().unwrap().recv().unwrap();
                    Ok(())
                });
                tokio::spawn(async move { pool.read(usize::MAX, from, work).await.unwrap().unwrap() })
            })
            .collect();
        let start = tokio::task::spawn_blocking(move || {
            start.recv().unwrap();
            start
        });
        let _start = start.await.unwrap();
        let other = "198.51.100.1".parse().ok();
        assert!(pool.read(0, other, reserving(1000)).await.unwrap().is_some());
        for _ in &bombs {
            go_on.send(()).unwrap();
        }
        for bomb in bombs {
            bomb.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_client_with_many_large_jobs_is_refused_and_others_are_not() {
        let pool = Arc::new(ExtractionPool::new(1, INBOX_UNPACKED_BYTES));
        let (one, same, other) = ("2001:db8::1", "2001:db8::2", "192.0.2.1");
        let address = |text: &str| text.parse().ok();
        let (go_on, wait) = mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        let waiting: Vec<_> = (0..INBOX_LARGE_PER_CLIENT)
            .map(|_| {
                let (pool, wait) = (pool.clone(), wait.clone());
                let work = job(move |_| {
                    wait.lock().unwrap().recv().unwrap();
                    Ok(())
                });
                tokio::spawn(async move { pool.read(usize::MAX, address(one), work).await.unwrap() })
            })
            .collect();
        // Without waiting for a worker: the shares are taken when the tasks have begun to run.
        while pool.large_per_client.try_take(client(address(one).unwrap())).is_some() {
            tokio::task::yield_now().await;
        }
        let refused = pool.read(usize::MAX, address(same), reserving(1)).await;
        assert_eq!(refused.unwrap_err(), Busy { needed: 0 });
        for _ in 0..INBOX_LARGE_PER_CLIENT {
            go_on.send(()).unwrap();
        }
        assert!(pool.read(usize::MAX, address(other), reserving(1)).await.unwrap().is_some());
        for one in waiting {
            one.await.unwrap();
        }
    }

    #[tokio::test]
    async fn large_jobs_leave_memory_to_small_ones() {
        let pool = ExtractionPool::new(1, INBOX_UNPACKED_BYTES);
        let mut others = pool.memory().reservation();
        assert!(others.cover(INBOX_UNPACKED_BYTES / 4 * 3));
        let large = pool.read(usize::MAX, None, reserving(INBOX_SMALL_UNPACKED_BYTES + 1)).await;
        assert!(matches!(large, Err(Busy { .. })));
        assert!(pool.read(0, None, reserving(INBOX_SMALL_UNPACKED_BYTES)).await.unwrap().is_some());
    }
}
