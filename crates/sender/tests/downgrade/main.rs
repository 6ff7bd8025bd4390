//! The downgrade search: a man in the middle that may change everything which is not signed stands between the service
//! and its resolver, and between the service and the policy hosts. Whatever it does, no answer may be weaker than a
//! policy in force or than DANE that the zones prove, and after the attack the honest answers return.
//!
//! A seed is one plan ([`plan`]) of attacks, questions, time and restarts, and a failure prints both. The search finds
//! senders that are known to be weak ([`weak`]) within the same seeds. For a long run, or to repeat one seed:
//!
//! ```text
//! SEEDS=10000 cargo test -p sternpost-sender --test downgrade no_attack
//! SEED=17 cargo test -p sternpost-sender --test downgrade no_attack
//! ```

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

extern crate sternpost_sender as sender;

mod domains;
mod oracle;
mod plan;
mod search;
mod weak;

use search::{World, search};
use weak::{Variant, WEAK};

/// The seeds of `./test`.
const SEEDS: u64 = 200;
/// Worlds side by side: some of them wait for time-outs.
const WORKERS: usize = 8;

async fn worlds(number: usize) -> Vec<World> {
    let mut worlds = Vec::new();
    for _ in 0..number {
        worlds.push(World::start(|lab| lab.names.address).await);
    }
    worlds
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_attack_weakens_an_answer_and_after_it_the_honest_answers_return() {
    let seeds = match from_environment("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..from_environment("SEEDS").unwrap_or(SEEDS),
    };
    let begun = std::time::Instant::now();
    let number = seeds.end - seeds.start;
    let failures = search(worlds(WORKERS).await, seeds, Variant::Real, 5).await;
    println!("{number} seeds in {:.1?}", begun.elapsed());
    let heads: Vec<&str> = failures.iter().filter_map(|text| text.lines().next()).collect();
    assert!(failures.is_empty(), "{heads:#?}; the first:\n{}", failures[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_attack_every_domain_is_answered_as_its_zones_say() {
    let world = World::start(|lab| lab.names.address).await;
    let failures = search::honest(&world).await;
    assert!(failures.is_empty(), "{failures:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_search_finds_every_sender_that_is_known_to_be_weak() {
    for variant in WEAK {
        let failures = search(worlds(WORKERS).await, 0..SEEDS, variant, 1).await;
        let found = failures.first().map(|text| text.lines().next().unwrap_or_default().to_owned());
        println!("{variant:?}: {found:?}");
        assert!(found.is_some(), "{variant:?} went unnoticed");
    }
}
