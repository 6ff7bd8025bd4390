//! Honest senders: each report is delivered at its time, with retries as mail servers make them, and has to be stored
//! once.

use crate::Plan;
use crate::messages;
use crate::place::{Place, Target};
use crate::sessions::Smtp;
use lab::random::Random;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub struct Honest {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Honest {
    pub fn start(place: &Place, plan: &Plan) -> Self {
        let (target, keys, between) = (place.target(), place.honest(), plan.between);
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = stop.clone();
        let mut dice = Random::new(plan.seed);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let begun = Instant::now();
            let mut sent = 0;
            while !is_over.load(Ordering::Relaxed) {
                let number = sent % keys.len();
                let mail = messages::signed(&keys[number], &format!("honest-{sent}"), &mut dice);
                let from = Ipv4Addr::new(127, 11, 0, 1 + number as u8);
                runtime.block_on(deliver(&target, from, &mail));
                sent += 1;
                let next = begun + between * u32::try_from(sent).unwrap();
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            sent
        });
        Self { stop, thread }
    }

    /// The number of reports that were acknowledged.
    pub fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Delivers one report. A temporary refusal is retried; only a permanent one is wrong.
async fn deliver(target: &Target, from: Ipv4Addr, mail: &[u8]) {
    let begun = Instant::now();
    loop {
        let attempt = async { Smtp::open(from, target).await?.message(mail).await }.await;
        let (Ok(code) | Err(code)) = attempt;
        if code == "250" {
            return;
        }
        assert!(!code.starts_with('5'), "an honest report is refused: {code}");
        assert!(begun.elapsed() < Duration::from_secs(300), "an honest report waits for minutes: {code}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
