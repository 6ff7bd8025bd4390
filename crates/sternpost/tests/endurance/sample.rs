//! Watches the program from outside: each second its memory, descriptors, threads and processor time, and the size of its
//! store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Memory that may stay when the strangers have gone: the cache of answers, buffers of the database, and heaps of threads.
const KEPT_MEMORY: u64 = 128 << 20;
/// The longest wait for memory to come back.
const SETTLING: Duration = Duration::from_secs(60);

/// The program at one moment.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Since the first sample.
    pub after: Duration,
    pub round: usize,
    /// Anonymous resident memory, in bytes.
    pub memory: u64,
    pub descriptors: u64,
    pub threads: u64,
    /// The store's files, in bytes.
    pub store: u64,
    /// Processor time since the start, in seconds.
    pub processor: f64,
    /// The same of all other programs but this one.
    pub others: f64,
}

pub struct Sampler {
    round: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
    id: u32,
    place: PathBuf,
    first: Sample,
}

impl Sampler {
    pub fn start(id: u32, place: &Path) -> Self {
        let (round, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let first = sample(id, place, Duration::ZERO, 0);
        let folder = place.to_owned();
        let (of, is_over, place) = (round.clone(), stop.clone(), place.to_owned());
        let thread = std::thread::spawn(move || {
            let begun = Instant::now();
            let mut samples = Vec::new();
            loop {
                let is_last = is_over.load(Ordering::Relaxed);
                samples.push(sample(id, &place, begun.elapsed(), of.load(Ordering::Relaxed)));
                if is_last {
                    return samples;
                }
                // In steps, so that it ends soon.
                let next = begun + Duration::from_secs(samples.len() as u64);
                while Instant::now() < next && !is_over.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self { round, stop, thread, id, place: folder, first }
    }

    pub fn round(&self, round: usize) {
        self.round.store(round, Ordering::Relaxed);
    }

    /// Waits until memory has come back, for a minute at most. The bounds are those of the samples.
    pub fn until_settled(&self) {
        let begun = Instant::now();
        while begun.elapsed() < SETTLING {
            if sample(self.id, &self.place, Duration::ZERO, 0).has_memory_of(&self.first) {
                return;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    pub fn end(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

impl Sample {
    /// Whether the memory beyond that of an earlier sample is what may stay.
    pub fn has_memory_of(&self, earlier: &Self) -> bool {
        self.memory <= earlier.memory + KEPT_MEMORY
    }
}

fn sample(id: u32, place: &Path, after: Duration, round: usize) -> Sample {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let number = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let descriptors = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count() as u64;
    let processor = processor(&id.to_string());
    Sample {
        after,
        round,
        memory: number("RssAnon") << 10,
        descriptors,
        threads: number("Threads"),
        store: store(place),
        processor,
        others: all_processors() - processor - self::processor("self"),
    }
}

/// Seconds of processor time of a process.
fn processor(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // User and system time, in hundredths of a second.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Seconds of processor time of all programs of this machine.
fn all_processors() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let fields: Vec<f64> =
        stat.lines().next().unwrap().split_whitespace().skip(1).map(|field| field.parse().unwrap()).collect();
    // Without idle and waiting time.
    (fields[0] + fields[1] + fields[2] + fields[5] + fields[6]) / 100.0
}

fn store(place: &Path) -> u64 {
    let file = |end: &str| PathBuf::from(format!("{}{end}", place.join("sternpost.db").display()));
    ["", "-wal", "-shm"]
        .iter()
        .filter_map(|end| std::fs::metadata(file(end)).ok())
        .map(|file| file.len())
        .sum()
}
