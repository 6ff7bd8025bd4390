//! Counts over all domains of a snapshot. They are made once with it, since the overview of 100,000 domains would otherwise
//! go through all of them for each number on the page.

use super::Entry;
use crate::judge::Urgency;
use formats::Mode;
use jiff::Timestamp;
use receiver::domain::HostedBy;

/// Counts over a set of domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    pub all: usize,
    pub enforced: usize,
    pub testing: usize,
    /// Domains without a policy.
    pub unset: usize,
    /// Domains that need the operator, and those of them whose mail is at risk.
    pub action: usize,
    pub risk: usize,
    /// Domains without a session in 30 days.
    pub silent: usize,
    /// Sessions of 30 days, and those of them that failed.
    pub sessions: u64,
    pub failed: u64,
    /// When the first and the last of the enforced domains was enforced.
    pub first_enforced: Option<Timestamp>,
    pub last_enforced: Option<Timestamp>,
    /// Domains whose policy is served here.
    pub hosted: usize,
    /// The earliest expiry of a certificate that is managed here.
    pub first_expiry: Option<Timestamp>,
}

impl Totals {
    /// The counts over these domains.
    pub fn of(domains: &[Entry]) -> Self {
        domains.iter().fold(Self::default(), |mut sum, entry| {
            sum.add(entry);
            sum
        })
    }

    fn add(&mut self, entry: &Entry) {
        let one = usize::from;
        self.all += 1;
        self.enforced += one(entry.mode == Some(Mode::Enforce));
        self.testing += one(entry.mode == Some(Mode::Testing));
        self.unset += one(entry.mode.is_none());
        self.action += one(entry.needs_action());
        self.risk += one(entry.need == Urgency::Failing);
        self.silent += one(entry.sessions() == 0);
        self.hosted += one(entry.host == HostedBy::Sternpost);
        self.sessions = self.sessions.saturating_add(entry.sessions());
        self.failed = self.failed.saturating_add(entry.failed);
        if entry.mode == Some(Mode::Enforce) {
            self.first_enforced = earlier(self.first_enforced, entry.since);
            self.last_enforced = self.last_enforced.max(entry.since);
        }
        self.first_expiry = earlier(self.first_expiry, entry.certificate_ends);
    }
}

/// The earlier of two times, of which each may be unknown.
fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}
