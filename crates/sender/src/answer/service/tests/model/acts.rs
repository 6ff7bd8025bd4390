//! The acts that a sequence of the model test consists of, and how often proptest draws each.

use super::reference::{Key, MAP};
use super::world::{APEX, Address, File, Forged, Host, MxAnswer, PolicyFile, Record, Tlsa, Ttls, Zone};
use crate::answer::Settings;
use crate::answer::decide::DefaultLevel;
use crate::answer::overrides::{Rule, Scope};
use formats::tls_policy::{Answer, Level};
use formats::{Mode, Policy};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

pub const DAY: u32 = 86_400;

/// One step of a sequence.
#[derive(Debug, Clone)]
pub enum Act {
    /// Mail servers ask, all at once.
    Ask(Vec<Key>),
    /// Seconds pass, also while the machine is suspended: both clocks advance.
    Pass(u32),
    /// So many days pass, and on each the daily refresh runs.
    Days(u32),
    /// The calendar is set forward or back by seconds; the monotonic clock does not change.
    Step(i64),
    /// Everything in DNS that concerns DANE becomes this.
    Dane {
        mx: MxAnswer,
        is_signed: bool,
        host: Host,
    },
    Mx(MxAnswer),
    Signed(bool),
    Host(usize, Host),
    /// The next MX answer is forged.
    Forge(Forged),
    /// The record changes, or an attacker hides it.
    Record(RecordChange),
    /// The domain publishes another policy, under a new `id` or under the old one.
    Policy {
        is_new_id: bool,
        mode: Mode,
        max_age: u32,
        names_a_host: bool,
    },
    HostDown,
    Malformed,
    Ttls(Ttls),
    /// The service restarts. It opens the store again.
    Restart,
    /// The file of the store is moved away, so that nothing can be written.
    StoreAway,
    /// The file of the store is back.
    StoreBack,
    /// The store fails completely, until the next restart.
    StoreDown,
    Reload(Config),
    /// The operator purges the domain. The client may go away at once.
    Purge {
        is_interrupted: bool,
    },
    /// Mail servers ask, and the operator purges the domain while their lookups are in flight.
    PurgeInFlight {
        keys: Vec<Key>,
        is_interrupted: bool,
    },
    /// The operator imports a policy that another machine fetched so many seconds ago. Only before the first step of the calendar.
    Import {
        age: u32,
        mode: Mode,
        max_age: u32,
        is_interrupted: bool,
    },
    /// The operator asks for a new lookup.
    Operator,
    /// The daily refresh runs.
    Refresh,
}

#[derive(Debug, Clone, Copy)]
pub enum RecordChange {
    /// The record of the newest policy.
    Published,
    Absent,
    Invalid,
    Timeout,
}

/// The settings of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    pub is_testing_encrypt: bool,
    pub default_level: DefaultLevel,
    pub rule: RuleKind,
    /// The rule of the named set of settings, which differs only in this.
    pub named_rule: RuleKind,
    pub recheck: u64,
    pub unused_days: Option<u32>,
}

/// The operator's rule for the domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleKind {
    None,
    /// The answer `encrypt`.
    Answer,
    /// A pinned policy in `enforce`, whose pattern is that of the policy 0.
    Pinned,
    SkipMtaSts,
    SkipDane,
}

/// The number of the pinned policy.
pub const PINNED: u32 = 0;

impl Config {
    pub const DEFAULT: Self = Self {
        is_testing_encrypt: false,
        default_level: DefaultLevel::May,
        rule: RuleKind::None,
        named_rule: RuleKind::None,
        recheck: 60,
        unused_days: Some(90),
    };

    /// The settings for a key.
    pub fn of(self, key: Key) -> Self {
        if key == Key::Named { Self { rule: self.named_rule, ..self } } else { self }
    }

    pub fn uses_published_policy(self) -> bool {
        matches!(self.rule, RuleKind::None | RuleKind::SkipDane)
    }

    /// The key that the daily refresh looks up: one under which the published policy is used, if there is any.
    pub fn refresh_key(self) -> Key {
        let is_used = |key: Key| self.of(key).uses_published_policy();
        if !is_used(Key::Domain) && is_used(Key::Named) { Key::Named } else { Key::Domain }
    }

    /// The named sets of settings.
    pub fn maps(self, domain: &str) -> BTreeMap<String, Settings> {
        BTreeMap::from([(MAP.to_owned(), self.of(Key::Named).settings(domain))])
    }

    pub fn settings(self, domain: &str) -> Settings {
        let mut settings = Settings {
            recheck: Duration::from_secs(self.recheck),
            testing: self.is_testing_encrypt.then_some(Level::Encrypt),
            default_level: self.default_level,
            unused: self.unused_days.map(|days| Duration::from_secs(u64::from(days * DAY))),
            ..Settings::default()
        };
        let pinned = format!("version: STSv1\nmode: enforce\nmx: mx{PINNED}.example\nmax_age: 5\n");
        let rule = match self.rule {
            RuleKind::None => return settings,
            RuleKind::Answer => Rule { answer: Some(Answer::Level(Level::Encrypt, None)), ..Rule::default() },
            RuleKind::Pinned => Rule { policy: Policy::parse(pinned.as_bytes()).ok(), ..Rule::default() },
            RuleKind::SkipMtaSts => Rule { skip_mta_sts: true, ..Rule::default() },
            RuleKind::SkipDane => Rule { skip_dane: true, ..Rule::default() },
        };
        settings.overrides.add(Scope::parse(domain).unwrap(), rule);
        settings
    }
}

/// A sequence: what the domain publishes at first, and the acts.
#[derive(Debug, Clone)]
pub struct Sequence {
    pub zone: Zone,
    pub acts: Vec<Act>,
}

pub fn sequence() -> impl Strategy<Value = Sequence> {
    (zone(), proptest::collection::vec(act(), 1..40)).prop_map(|(zone, acts)| Sequence { zone, acts })
}

fn zone() -> impl Strategy<Value = Zone> {
    let file = PolicyFile { number: 1, mode: Mode::Enforce, max_age: 7 * DAY, names_a_host: true };
    let record = prop_oneof![3 => Just(Record::Published(1)), 1 => Just(Record::Absent)];
    (any::<bool>(), host(), host(), record, ttls()).prop_map(move |(is_signed, a, b, record, ttls)| Zone {
        mx: MxAnswer::Hosts(&[0]),
        is_signed,
        hosts: [a, b, Host { address: Address::Absent, tlsa: Tlsa::None }],
        record,
        file: File::Policy(file),
        ttls,
    })
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        16 => keys().prop_map(Act::Ask),
        6 => prop_oneof![0_u32..90, 250_u32..400, 3000_u32..90_000].prop_map(Act::Pass),
        1 => prop_oneof![5 => 1_u32..4, 1 => 80_u32..100].prop_map(Act::Days),
        1 => step().prop_map(Act::Step),
        2 => (mx(), any::<bool>(), host()).prop_map(|(mx, is_signed, host)| Act::Dane { mx, is_signed, host }),
        3 => mx().prop_map(Act::Mx),
        1 => any::<bool>().prop_map(Act::Signed),
        2 => (0..=APEX, host()).prop_map(|(number, host)| Act::Host(number, host)),
        1 => (mx(), ttl()).prop_map(|(mx, ttl)| Act::Forge(Forged { mx, ttl })),
        3 => record().prop_map(Act::Record),
        3 => policy(),
        1 => prop_oneof![Just(Act::HostDown), Just(Act::Malformed)],
        1 => ttls().prop_map(Act::Ttls),
        1 => Just(Act::Restart),
        1 => prop_oneof![2 => Just(Act::StoreAway), 3 => Just(Act::StoreBack), 1 => Just(Act::StoreDown)],
        1 => config().prop_map(Act::Reload),
        1 => prop_oneof![2 => purge(), 2 => Just(Act::Operator), 3 => import()],
        2 => Just(Act::Refresh),
    ]
}

fn purge() -> impl Strategy<Value = Act> {
    let in_flight = (keys(), any::<bool>());
    prop_oneof![
        any::<bool>().prop_map(|is_interrupted| Act::Purge { is_interrupted }),
        in_flight.prop_map(|(keys, is_interrupted)| Act::PurgeInFlight { keys, is_interrupted }),
    ]
}

fn import() -> impl Strategy<Value = Act> {
    let age = prop_oneof![Just(0), 1_u32..600, 3000_u32..90_000];
    let mode = prop_oneof![3 => Just(Mode::Enforce), 1 => Just(Mode::Testing), 1 => Just(Mode::None)];
    let max_age = prop_oneof![Just(600), Just(DAY), Just(7 * DAY)];
    (age, mode, max_age, any::<bool>()).prop_map(|(age, mode, max_age, is_interrupted)| Act::Import {
        age,
        mode,
        max_age,
        is_interrupted,
    })
}

/// One key, or several at once.
fn keys() -> impl Strategy<Value = Vec<Key>> {
    let key = || {
        prop_oneof![
            6 => Just(Key::Domain),
            1 => Just(Key::DomainAt25),
            1 => Just(Key::DomainAt587),
            1 => Just(Key::Host),
            2 => Just(Key::Named),
        ]
    };
    prop_oneof![4 => key().prop_map(|key| vec![key]), 1 => proptest::collection::vec(key(), 2..5)]
}

fn mx() -> impl Strategy<Value = MxAnswer> {
    prop_oneof![
        4 => prop_oneof![Just(MxAnswer::Hosts(&[0])), Just(MxAnswer::Hosts(&[1])), Just(MxAnswer::Hosts(&[0, 1]))],
        1 => Just(MxAnswer::NoData),
        1 => Just(MxAnswer::NoDomain),
        1 => Just(MxAnswer::Null),
        1 => Just(MxAnswer::Timeout),
        1 => Just(MxAnswer::Bogus),
    ]
}

fn host() -> impl Strategy<Value = Host> {
    let address = prop_oneof![
        6 => Just(Address::Signed),
        3 => Just(Address::Unsigned),
        1 => Just(Address::Absent),
        1 => Just(Address::Timeout),
    ];
    let tlsa = prop_oneof![
        4 => Just(Tlsa::None),
        4 => Just(Tlsa::Usable),
        1 => Just(Tlsa::Unusable),
        1 => Just(Tlsa::Unsigned),
        1 => Just(Tlsa::Unproven),
        1 => Just(Tlsa::Bogus),
        1 => Just(Tlsa::Timeout),
    ];
    (address, tlsa).prop_map(|(address, tlsa)| Host { address, tlsa })
}

fn record() -> impl Strategy<Value = RecordChange> {
    prop_oneof![
        3 => Just(RecordChange::Published),
        2 => Just(RecordChange::Absent),
        1 => Just(RecordChange::Invalid),
        1 => Just(RecordChange::Timeout),
    ]
}

fn policy() -> impl Strategy<Value = Act> {
    let mode = prop_oneof![3 => Just(Mode::Enforce), 1 => Just(Mode::Testing), 1 => Just(Mode::None)];
    let max_age = prop_oneof![Just(0), Just(600), Just(DAY), Just(7 * DAY), Just(365 * DAY)];
    (proptest::bool::weighted(0.8), mode, max_age, proptest::bool::weighted(0.9)).prop_map(
        |(is_new_id, mode, max_age, names_a_host)| Act::Policy { is_new_id, mode, max_age, names_a_host },
    )
}

fn step() -> impl Strategy<Value = i64> {
    let day = i64::from(DAY);
    prop_oneof![-5_i64..6, -3600_i64..3600, -3 * day..3 * day, -400 * day..400 * day]
}

/// A TTL from 0 to a week, which an attacker can choose, too.
fn ttl() -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(0_u64), 3 => 1_u64..600, 2 => 3000_u64..90_000, 1 => Just(604_800)]
}

fn ttls() -> impl Strategy<Value = Ttls> {
    (ttl(), ttl(), ttl()).prop_map(|(mx, host, record)| Ttls { mx, host, record })
}

fn config() -> impl Strategy<Value = Config> {
    let named = prop_oneof![
        4 => Just(RuleKind::None),
        1 => Just(RuleKind::Answer),
        1 => Just(RuleKind::SkipMtaSts),
        1 => Just(RuleKind::SkipDane),
    ];
    let level = prop_oneof![
        2 => Just(DefaultLevel::May),
        1 => Just(DefaultLevel::Dane),
        1 => Just(DefaultLevel::Stricter),
    ];
    let rule = prop_oneof![
        4 => Just(RuleKind::None),
        1 => Just(RuleKind::Answer),
        2 => Just(RuleKind::Pinned),
        1 => Just(RuleKind::SkipMtaSts),
        1 => Just(RuleKind::SkipDane),
    ];
    let unused = prop_oneof![Just(None), Just(Some(5)), Just(Some(90))];
    (any::<bool>(), level, (rule, named), prop_oneof![Just(10_u64), Just(60), Just(7200)], unused).prop_map(
        |(is_testing_encrypt, default_level, (rule, named_rule), recheck, unused_days)| Config {
            is_testing_encrypt,
            default_level,
            rule,
            named_rule,
            recheck,
            unused_days,
        },
    )
}
