//! The whole program under strangers: for an hour, or for seconds in `./test`, hostile mail, posts and bombs arrive at the
//! report inbox, while a mail server asks the same process for policies, new domains are looked up, and honest senders
//! deliver their reports. Rounds with strangers alternate with rounds without them, so that both are measured on the same
//! machine at the same time.
//!
//! Counts and bounds are asserted, times never: every answer is right, every honest report is stored once, and memory,
//! descriptors, threads and the store stay within the documented limits and come back. What was measured is written to
//! `target/endurance.md`, `.csv` and `.svg`.
//!
//! `./test endurance` runs an hour with the released program (`MINUTES=5` for less), `SPOST_MINUTES` and `SPOST_PROGRAM`
//! without the script. `SPOST_SEED` selects other strangers.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod answers;
mod honest;
mod messages;
mod place;
mod plot;
#[path = "../ports/mod.rs"]
mod ports;
mod sample;
mod sessions;
mod strangers;
mod table;

use answers::Load;
use formats::limits::{INBOX_BUFFER_BYTES, INBOX_CONNECTIONS, INBOX_POST_BUFFER_BYTES, INBOX_UNPACKED_BYTES};
use honest::Honest;
use place::Place;
use sample::Sampler;
use std::time::{Duration, Instant};
use strangers::Strangers;

/// How long it takes, and with which strangers.
pub struct Plan {
    /// Rounds, of which every second one, beginning with the second, has strangers. The number is odd, so that the last
    /// one shows what stays.
    rounds: usize,
    round: Duration,
    /// The end of a round with strangers, in which they have gone and what they left is worked off. It is not measured.
    pause: Duration,
    /// The time between two lookups of new domains, and between two honest reports.
    between: Duration,
    seed: u64,
    is_short: bool,
}

impl Plan {
    fn from_environment() -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
        let seed = number("SPOST_SEED").unwrap_or(22);
        match number("SPOST_MINUTES") {
            Some(minutes) => Self {
                rounds: usize::try_from(minutes).unwrap() | 1,
                round: Duration::from_secs(60),
                pause: Duration::from_secs(5),
                between: Duration::from_secs(1),
                seed,
                is_short: false,
            },
            None => Self {
                rounds: 5,
                round: Duration::from_secs(4),
                pause: Duration::from_millis(500),
                between: Duration::from_millis(250),
                seed,
                is_short: true,
            },
        }
    }

    /// The number of times that something happens which happens once in [`Plan::between`].
    fn times(&self) -> usize {
        let total = self.round.as_millis() * self.rounds as u128;
        usize::try_from(total / self.between.as_millis()).unwrap() + 1
    }

    fn has_strangers(&self, round: usize) -> bool {
        round % 2 == 1
    }
}

/// What a process that idles may have beside what it had at the start: threads and descriptors that are kept for the next
/// time, such as connections to the database and blocking threads, which end after some seconds.
const SPARE: u64 = 40;
/// Memory beyond the limits of the inbox: the cache of answers, buffers of the database, and of the allocator.
const OTHER_MEMORY: u64 = 160 << 20;

#[test]
fn answers_reports_and_memory_hold_while_strangers_write_to_the_inbox() {
    let plan = Plan::from_environment();
    let place = Place::new(&plan);
    let mut program = place.start();
    let target = place.target();
    let load = Load::start(&place, &plan);
    let honest = Honest::start(&place, &plan);
    let sampler = Sampler::start(program.id(), place.path());
    let mut strangers = Strangers::new(target, place.signers(), plan.seed);
    let begun = Instant::now();
    for round in 0..plan.rounds {
        load.measure(Some(round));
        sampler.round(round);
        if plan.has_strangers(round) {
            strangers.come();
        }
        let end = plan.round * u32::try_from(round + 1).unwrap();
        sleep_until(begun, end - plan.pause);
        if plan.has_strangers(round) {
            // From here on their work is only worked off, which belongs to neither kind of round.
            load.measure(None);
            strangers.go();
        }
        sleep_until(begun, end);
    }
    let answered = load.end();
    let sent = honest.end();
    let played = strangers.end();
    // On a busy machine, the work of the strangers takes longer than the last round.
    sampler.until_settled();
    let samples = sampler.end();
    assert!(place.is_ready(), "the program is not ready any more");
    let stopped = program.stop();
    let log = place.log();
    table::write(&plan, &answered, &samples, &played, sent);
    plot::write(&plan, &answered, &samples);

    assert_eq!(answered.wrong, None, "an answer is not the right one");
    assert!(answered.asked > 0 && answered.new > 0);
    assert!(stopped, "it does not stop in time");
    assert!(!log.contains("panicked"), "{log}");
    // Each kind of stranger came, and was answered.
    let names = strangers::KINDS.iter().map(|kind| kind.name).chain(strangers::HOLDERS);
    let silent: Vec<_> = names.filter(|name| !played.contains_key(name)).collect();
    assert!(silent.is_empty() || !plan.is_short, "not played: {silent:?}");
    // Nothing of what honest senders have sent is lost or counted twice.
    let stored = place.stored_honest_reports();
    assert_eq!((stored.different, stored.verified, stored.all), (sent, sent, sent));
    // What strangers leave is within its quotas.
    assert!(stored.quarantine <= place.quota().quarantine && stored.unverified <= place.quota().unverified);
    assert!(stored.quarantined_items > 0 && stored.unverified_reports > 0);
    bounded(&samples, place.quota());
}

/// Memory, threads and descriptors are within their limits at all times, and come back.
fn bounded(samples: &[sample::Sample], quota: place::Quotas) {
    let of_the_inbox = INBOX_BUFFER_BYTES + INBOX_POST_BUFFER_BYTES + INBOX_UNPACKED_BYTES;
    let most = |of: fn(&sample::Sample) -> u64| samples.iter().map(of).max().unwrap();
    let (first, last) = (&samples[0], &samples[samples.len() - 1]);
    assert!(most(|one| one.memory) <= of_the_inbox as u64 + OTHER_MEMORY, "{}", most(|one| one.memory));
    assert!(last.has_memory_of(first), "{} bytes at the end", last.memory);
    assert!(most(|one| one.descriptors) <= first.descriptors + INBOX_CONNECTIONS as u64 + 4 * SPARE);
    assert!(last.descriptors <= first.descriptors + SPARE, "{} descriptors stay", last.descriptors);
    assert!(last.threads <= first.threads + SPARE, "{} threads stay", last.threads);
    // The store has indexes, and the log of its last writes.
    let store = 2 * (quota.quarantine + quota.unverified) + (200 << 20);
    assert!(most(|one| one.store) <= store, "the store has {} bytes", most(|one| one.store));
}

fn sleep_until(begun: Instant, after: Duration) {
    std::thread::sleep((begun + after).saturating_duration_since(Instant::now()));
}
