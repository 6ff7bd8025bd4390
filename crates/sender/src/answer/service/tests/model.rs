//! The model test: random sequences of all that the world can do, with an oracle that says which answers are allowed.
//!
//! | module | content |
//! | --- | --- |
//! | [`world`] | what one domain publishes, and an attacker's forged answers; implements DNS and policy hosts |
//! | [`acts`] | the acts of a sequence: mail, DNS, policies, TTLs, clocks, the store, settings, operators |
//! | [`reference`] | the one right answer for a state of the world, and the order of strength |
//! | [`sender`] | a sender as the documents describe it, which says which answers are allowed |
//! | [`oracle`] | compares the service with that sender after each act |
//! | [`play`] | plays a sequence against both |
//! | [`controls`] | known faults, each of which the oracle must find |
//!
//! Begin with [`reference`]. The sequences are the same in each run. `SEED=2` gives others, `SEQUENCES=100000` more; see
//! CONTRIBUTING.md. A failure prints the seed and the shortest sequence found that fails.

mod acts;
mod controls;
mod oracle;
mod play;
mod reference;
mod sender;
mod world;

use crate::answer::service::Rules;
use play::Bench;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use std::collections::BTreeMap;

/// Plays sequences until one fails. Returns the number of answers by level, or why a sequence failed, with its acts.
/// `shrink` limits the search for a shorter one.
fn play_all(seed: u64, sequences: u32, shrink: u32, rules: Rules) -> Result<BTreeMap<String, u32>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bench = std::cell::RefCell::new(runtime.block_on(Bench::new()));
    let config =
        Config { cases: sequences, max_shrink_iters: shrink, failure_persistence: None, ..Config::default() };
    let mut runner = runner(seed, config);
    let outcome = runner.run(&acts::sequence(), |sequence| {
        runtime.block_on(bench.borrow_mut().play(&sequence, rules)).map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(()) => Ok(bench.into_inner().answers),
        Err(TestError::Fail(why, _)) => Err(why.to_string()),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

/// A runner whose cases depend on the seed only.
pub fn runner(seed: u64, config: Config) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// The number in an environment variable.
pub fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[test]
fn no_answer_is_weaker_than_a_live_policy_or_proved_dane_whatever_the_world_does() {
    let (seed, sequences) = (from_env("SEED", 1), from_env("SEQUENCES", 1000));
    let sequences = u32::try_from(sequences).unwrap();
    let answers = play_all(seed, sequences, 20_000, Rules::default());
    let answers = answers.unwrap_or_else(|why| panic!("SEED={seed}: {why}"));
    println!("SEED={seed}, {sequences} sequences, answers: {answers:?}");
    // The sequences reach every kind of answer often, or the test would prove little.
    for level in ["secure", "dane-only", "dane", "may", "encrypt", "NOTFOUND", "TEMP"] {
        let number = answers.get(level).copied().unwrap_or_default();
        assert!(number >= sequences / 20, "{level}: {number}");
    }
}
