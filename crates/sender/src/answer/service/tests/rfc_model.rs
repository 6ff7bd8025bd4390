//! Compares the service with a plain model of RFC 8461 under random sequences of mail, changes of the published
//! policy, failures, restarts and time. Unlike [`super::model`], it expects one answer, and fetches exactly when the RFC
//! has them, with the back-off. `SEED` and `SEQUENCES` change the sequences as there.

use super::model::{from_env, runner};
use super::world::{Bench, MxAnswer, Published, forged_nothing, mode, secure};
use formats::Mode;
use net::dns::DnsError;
use net::https::FetchError;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::Config;

#[derive(Debug, Clone)]
enum Act {
    /// A mail server asks for the domain.
    Ask,
    /// This number of seconds passes.
    Pass(u32),
    /// The domain publishes another policy under a new id, with this `max_age` in seconds.
    Change(Mode, u32),
    /// The domain publishes another policy under the same id.
    Slip,
    /// The record and the policy host disappear, or an attacker suppresses them.
    Vanish,
    /// The record and the policy host return.
    Return,
    /// The policy host fails.
    HostDown,
    /// The policy file becomes malformed.
    Malformed,
    /// The lookup of the record fails.
    RecordDown,
    /// The MX answer has no host any more, which must not change any answer.
    MxGone(usize),
    /// The MX records name a host again.
    MxBack,
    /// The service restarts.
    Restart,
    /// The clock steps forward by this number of seconds. (A step back may prolong a policy by the step: VAL-22.)
    Step(i64),
}

fn act(restarts: bool) -> BoxedStrategy<Act> {
    let modes = prop_oneof![3 => Just(Mode::Enforce), 1 => Just(Mode::Testing), 1 => Just(Mode::None)];
    let last =
        if restarts { Just(Act::Restart).boxed() } else { (0_i64..1_000_000).prop_map(Act::Step).boxed() };
    prop_oneof![
        8 => Just(Act::Ask),
        4 => prop_oneof![0_u32..90, 250_u32..400, 3000_u32..90_000].prop_map(Act::Pass),
        3 => (modes, prop_oneof![Just(0_u32), Just(600), Just(86_400), Just(604_800)]).prop_map(|(mode, age)| Act::Change(mode, age)),
        1 => Just(Act::Slip),
        1 => Just(Act::Vanish),
        2 => Just(Act::Return),
        1 => Just(Act::HostDown),
        1 => Just(Act::Malformed),
        1 => Just(Act::RecordDown),
        2 => (0_usize..3).prop_map(Act::MxGone),
        1 => Just(Act::MxBack),
        1 => last,
    ]
    .boxed()
}

/// The model: a sender that follows the RFC for one domain, with its policy and its last answer.
#[derive(Default)]
struct Sender {
    now: u64,
    held: Option<Held>,
    failed: Option<(String, u64)>,
    answer: Option<CachedAnswer>,
    /// True once the store has the DANE counts of the hosts. Until an MX answer names a host, a policy in the store is
    /// looked up before it is used.
    hosts_known: bool,
}

#[derive(Clone)]
struct Held {
    text: String,
    mode: Mode,
    id: String,
    at: u64,
    max_age: u64,
}

#[derive(Clone)]
struct CachedAnswer {
    text: String,
    recheck: u64,
    until: u64,
}

impl Sender {
    fn live(&self) -> Option<Held> {
        self.held.clone().filter(|held| self.now < held.at + held.max_age)
    }

    /// Looks up the record, and fetches the policy when it is new or a day old (RFC 8461 §5.1).
    fn look_up(&mut self, published: &Published) -> CachedAnswer {
        let live = self.live();
        let mut found = live.clone();
        if let Ok(Some(id)) = &published.record {
            let refresh = |held: &Held| self.now >= held.at + 86_400.min(held.max_age / 2);
            let wanted = live.as_ref().is_none_or(|held| held.id != *id || refresh(held));
            let backs_off = self.failed.as_ref().is_some_and(|(of, at)| of == id && self.now < at + 300);
            if wanted && !backs_off {
                match &published.policy {
                    Ok(file) if formats::Policy::parse(file.as_bytes()).is_ok() => {
                        let policy = formats::Policy::parse(file.as_bytes()).unwrap();
                        let new = Held {
                            text: file.clone(),
                            mode: policy.mode,
                            id: id.clone(),
                            at: self.now,
                            max_age: u64::from(policy.max_age),
                        };
                        self.failed = None;
                        self.held = Some(new.clone());
                        found = Some(new);
                    }
                    _ => self.failed = Some((id.clone(), self.now)),
                }
            }
        }
        // A failed lookup of the record has no TTL, so the minimum recheck applies.
        let ttl = if published.record.is_err() { 60 } else { published.ttl.max(60) };
        let has_host = matches!(published.mx, Ok(MxAnswer::Host) | Err(DnsError::NoSuchRecord(_)));
        self.hosts_known |= has_host && found.is_some();
        match found {
            Some(held) if held.mode != Mode::Enforce => {
                let life = ttl.min((held.at + held.max_age).saturating_sub(self.now));
                CachedAnswer { text: reply(&held), recheck: self.now + life * 4 / 5, until: self.now + life }
            }
            Some(held) => {
                let rest = (held.at + held.max_age).saturating_sub(self.now);
                CachedAnswer { text: reply(&held), recheck: self.now + ttl.min(rest), until: self.now + rest }
            }
            None => {
                let life = ttl.min(3600);
                CachedAnswer {
                    text: "NOTFOUND".into(),
                    recheck: self.now + life * 4 / 5,
                    until: self.now + life,
                }
            }
        }
    }

    fn ask(&mut self, published: &Published) -> String {
        match self.answer.clone().filter(|answer| self.now < answer.until) {
            Some(answer) => {
                if self.now >= answer.recheck {
                    self.answer = Some(self.look_up(published));
                }
                answer.text
            }
            None => {
                // A stored policy in `enforce` is used before anything is looked up.
                let is_used = |held: &Held| self.hosts_known && held.mode == Mode::Enforce;
                let answer = match self.live().filter(is_used) {
                    Some(held) => {
                        CachedAnswer { text: reply(&held), recheck: self.now, until: held.at + held.max_age }
                    }
                    None => self.look_up(published),
                };
                self.answer = Some(answer.clone());
                answer.text
            }
        }
    }
}

fn reply(held: &Held) -> String {
    match held.mode {
        Mode::Enforce => {
            let id = held.text.split("mx: mx").nth(1).and_then(|rest| rest.split('.').next()).unwrap();
            secure(id)
        }
        Mode::Testing | Mode::None => "NOTFOUND".into(),
    }
}

async fn play(bench: &mut Bench, domain: &str, acts: &[Act]) {
    let mut sender = Sender::default();
    let mut number = 1;
    let mut published = Published::policy("1", "enforce", 604_800);
    let mut history = Vec::new();
    for act in acts {
        match act {
            Act::Ask => {
                bench.world.publish(domain, published.clone());
                let (actual, expected) = (bench.ask(domain).await, sender.ask(&published));
                bench.settle().await;
                history.push(format!("{expected} <- {act:?} at {}", sender.now));
                assert_eq!(actual, expected, "{domain}: {acts:#?}\n{history:#?}");
            }
            Act::Pass(seconds) => {
                bench.clock.advance(*seconds);
                sender.now += u64::from(*seconds);
            }
            Act::Change(to, age) => {
                number += 1;
                published = with_mx(&published, Published::policy(&number.to_string(), to.as_str(), *age));
            }
            Act::Slip => {
                number += 1;
                let other = Published::policy(&number.to_string(), mode_of(&published), 604_800);
                let other = with_mx(&published, other);
                published = Published { record: published.record.clone(), ..other };
            }
            Act::Vanish => published = with_mx(&published, Published::nothing()),
            Act::Return => {
                published = with_mx(&published, Published::policy(&number.to_string(), "enforce", 604_800));
            }
            Act::HostDown => published.policy = Err(FetchError::Status(503)),
            Act::Malformed => published.policy = Ok("<html>".into()),
            Act::RecordDown => published.record = Err(DnsError::Timeout),
            Act::MxGone(how) => {
                let nothing = forged_nothing(published.ttl);
                published.mx = match how {
                    0 => Err(DnsError::NoSuchName(nothing)),
                    1 => Err(DnsError::NoSuchRecord(nothing)),
                    _ => Ok(MxAnswer::Null),
                };
            }
            Act::MxBack => published.mx = Ok(MxAnswer::Host),
            Act::Restart => {
                bench.restart();
                (sender.answer, sender.failed) = (None, None);
            }
            Act::Step(seconds) => bench.clock.set_by(*seconds),
        }
    }
}

fn with_mx(before: &Published, new: Published) -> Published {
    Published { mx: before.mx.clone(), ..new }
}

fn mode_of(published: &Published) -> &'static str {
    match &published.policy {
        Ok(file) if file.starts_with("version") => mode(file).as_str(),
        _ => "enforce",
    }
}

#[test]
fn the_service_agrees_with_a_plain_model_of_the_rfc() {
    let sequences = from_env("SEQUENCES", 400);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = runner(from_env("SEED", 1), Config::default());
    runtime.block_on(async {
        for number in 0..sequences {
            let acts = proptest::collection::vec(act(number % 2 == 0), 1..40);
            let acts = acts.new_tree(&mut runner).unwrap().current();
            // A new store for each sequence, so that it stays small.
            let mut bench = Bench::new().await;
            play(&mut bench, &format!("d{number}.example"), &acts).await;
        }
    });
}
