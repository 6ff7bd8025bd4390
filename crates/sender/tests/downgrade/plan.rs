//! What happens in one run of the search, made from a seed: who asks when, what the domains publish, and what the
//! attacker does meanwhile.

use super::domains::{DOMAINS, Domain, MORE_ZONES, attackers_host};
use formats::Mode;
use lab::man_in_the_middle::{DnsAttack, HttpsAttack, Planner, Surroundings};
use lab::random::Random;

/// One run.
#[derive(Debug)]
pub struct Plan {
    /// The domains that mail servers ask about.
    pub domains: Vec<&'static Domain>,
    /// Whether the resolver has a cache.
    pub has_cache: bool,
    pub steps: Vec<Step>,
}

/// One step. Domains are given by their place in [`Plan::domains`].
#[derive(Debug)]
pub enum Step {
    /// A mail server asks about a domain.
    Ask(usize),
    /// Mail servers ask about all domains at once.
    AskAll,
    /// This number of seconds passes. `forgets` is true if what the resolver remembers expires meanwhile.
    Pass { seconds: u32, forgets: bool },
    /// The attacker changes its attacks.
    Attack(Vec<DnsAttack>, Vec<HttpsAttack>),
    /// The attacker stops.
    Stop,
    /// The service restarts with its store.
    Restart,
    /// The service refreshes the policies in its store.
    Refresh,
    /// The domain publishes another policy, or other TLSA records where it has no policy.
    Publish { domain: usize, mode: Mode, max_age: u32 },
}

/// Seconds that may pass: within a TTL, beyond it, beyond a back-off, beyond a refresh and beyond a policy.
const TIMES: [u32; 8] = [1, 30, 70, 310, 3700, 43_000, 87_000, 400_000];
const AGES: [u32; 3] = [3600, 86_400, 604_800];
const MODES: [Mode; 4] = [Mode::Enforce, Mode::Enforce, Mode::Testing, Mode::None];

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let number = 1 + random.below(3);
        let mut domains: Vec<&Domain> = Vec::new();
        while domains.len() < number {
            let domain = &DOMAINS[random.below(DOMAINS.len())];
            if domains.iter().all(|other| other.name != domain.name) {
                domains.push(domain);
            }
        }
        let mut planner = Planner::new(random.value(), surroundings(&domains));
        let has_cache = random.chance(50);
        // Most domains are known before the attack begins; others are attacked at first contact.
        let mut steps = if random.chance(70) { vec![Step::AskAll] } else { Vec::new() };
        steps.push(Step::Attack(planner.dns(), planner.https()));
        steps.push(Step::AskAll);
        for _ in 0..6 + random.below(10) {
            steps.push(step(&mut random, &mut planner, domains.len()));
        }
        steps.push(Step::AskAll);
        Self { domains, has_cache, steps }
    }
}

fn step(random: &mut Random, planner: &mut Planner, domains: usize) -> Step {
    match random.below(20) {
        0..=5 => Step::Ask(random.below(domains)),
        6 | 7 => Step::AskAll,
        8..=11 => Step::Pass { seconds: TIMES[random.below(TIMES.len())], forgets: random.chance(60) },
        12..=14 => Step::Attack(planner.dns(), planner.https()),
        15 => Step::Stop,
        16 => Step::Restart,
        17 => Step::Refresh,
        _ => Step::Publish {
            domain: random.below(domains),
            mode: MODES[random.below(MODES.len())],
            max_age: AGES[random.below(AGES.len())],
        },
    }
}

fn surroundings(domains: &[&Domain]) -> Surroundings {
    let mut zones: Vec<String> = MORE_ZONES.iter().map(|(zone, _)| (*zone).to_owned()).collect();
    zones.extend(["attacker.test.".to_owned(), "bare.test.".to_owned(), "dane.test.".to_owned()]);
    zones.extend(domains.iter().flat_map(|domain| domain.zones()));
    let names = domains.iter().flat_map(|domain| domain.names()).collect();
    Surroundings { names, zones, mail_server: attackers_host() }
}
