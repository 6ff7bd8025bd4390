//! The table of the yardstick. Two constructors make most rows: in `honored` the domain has a valid policy in mode
//! `enforce` that names another MX host than the domain has, so that a sender that takes the policy does not deliver; in
//! `ignored` the same policy is published in a way that must not count, so that a sender that takes it fails to deliver.

mod caching;
mod dane;
mod discovery;
mod enforcement;
mod fetch;
mod matching;
mod modes;
mod policy;
mod reports;

use super::case::{Case, Check, Fate, Group, Ipv6, Level, Phase, Without};
use crate::Case as World;
use crate::case::{Setup, Topic};
use crate::cases::{good, policy_text};
use crate::policy_host::HttpBehavior;

/// All cases, group by group.
pub fn all() -> Vec<Case> {
    [
        discovery::cases(),
        fetch::cases(),
        policy::cases(),
        matching::cases(),
        enforcement::cases(),
        modes::cases(),
        caching::cases(),
        dane::cases(),
        reports::cases(),
    ]
    .concat()
}

/// A domain with one MX host, `mx1`, and a valid policy in mode `enforce` that names it.
fn plain(id: &'static str, group: Group, source: &'static str, about: &'static str) -> Case {
    Case {
        id,
        group,
        level: Level::Must,
        source,
        about,
        world: world(id, about),
        sites: Vec::new(),
        ipv6: Vec::new(),
        phases: vec![Phase::of(&[Fate::Tls])],
        days: Vec::new(),
        without: Without::Conforms,
    }
}

fn world(name: &'static str, about: &'static str) -> World {
    good(name, Topic::Preflight, about).with(|setup| {
        setup.ttl = 1;
        setup.tlsrpt_records.clear();
    })
}

/// A domain whose policy names another host: a conforming sender does not deliver.
fn honored(id: &'static str, group: Group, source: &'static str, about: &'static str) -> Case {
    let mut case = ignored(id, group, source, about);
    case.without = Without::FallsShort;
    case.phases = vec![Phase::of(&[Fate::Waits])];
    case
}

/// A domain with a policy that names another host and must not count: a conforming sender delivers.
fn ignored(id: &'static str, group: Group, source: &'static str, about: &'static str) -> Case {
    let body = elsewhere(id);
    plain(id, group, source, about)
        .with(|setup| setup.answers = HttpBehavior::Policy(body.clone()))
        .clear_as_well()
}

/// A policy in mode `enforce` that names another host than the domain has.
fn elsewhere(name: &str) -> String {
    policy_text("enforce", &[&format!("elsewhere.{name}.test")], "604800")
}

/// A policy in this mode that names `mx1`.
fn naming_mx1(name: &str, mode: &str) -> String {
    policy_text(mode, &[&format!("mx1.{name}.test")], "604800")
}

impl Case {
    fn with(mut self, change: impl FnOnce(&mut Setup)) -> Self {
        change(&mut self.world.setup);
        self
    }

    fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    fn ipv6(mut self, label: &'static str, what: Ipv6) -> Self {
        self.ipv6.push((label, what));
        self
    }

    fn record(self, text: &str) -> Self {
        self.with(|setup| setup.sts_records = vec![vec![text.into()]])
    }

    fn phases(mut self, phases: Vec<Phase>) -> Self {
        self.phases = phases;
        self
    }

    fn fates(self, fates: &[Fate]) -> Self {
        self.phases(vec![Phase::of(fates)])
    }

    fn checks(mut self, checks: &[Check]) -> Self {
        if let Some(last) = self.phases.last_mut() {
            last.checks = checks.to_vec();
        }
        self
    }

    fn beyond(mut self, fates: &[Fate]) -> Self {
        if let Some(last) = self.phases.last_mut() {
            last.beyond = fates.to_vec();
        }
        self
    }

    fn discriminates(mut self) -> Self {
        self.without = Without::FallsShort;
        self
    }

    /// Nothing demands TLS in the case: a sender that never uses it conforms where it delivers.
    fn clear_as_well(mut self) -> Self {
        for phase in &mut self.phases {
            if phase.conforms == [Fate::Tls] {
                phase.conforms.push(Fate::Clear);
            }
        }
        self
    }

    /// A sender without MTA-STS and DANE may pass as well.
    fn passed_by_some(mut self) -> Self {
        self.without = Without::Either;
        self
    }

    /// Neither a record nor a policy host.
    fn no_policy(mut self) -> Self {
        self.world = self.world.no_policy();
        self
    }
}
