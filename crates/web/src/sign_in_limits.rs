//! Limits for guessing passwords and codes. `sign_in` begins each attempt here before it computes a hash, so that
//! attempts at the same moment count too, and an attempt counts as failed until it has succeeded.
//!
//! Failed attempts do not lock out another user: attempts count by account *and* client address, and a browser that has
//! signed in to the account before has a count of its own, which its signed cookie names (`known_browser`). All browsers of
//! an account have a sum, beyond which their cookies count for nothing.
//!
//! Guessing from many addresses is limited too. A network has a count for each account. While an account fails from many
//! networks, it is guarded: each address and each network then gets few attempts, but one without failures still gets
//! some. What one network adds to that sum recovers more slowly than the sum itself, so that one network alone never makes
//! an account guarded.

use net::rate_limit::{client, network};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::Tenant;

/// How many attempts may fail at once, and the time after which one more is allowed.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    attempts: u32,
    interval: Duration,
}

impl Allowance {
    const fn new(attempts: u32, seconds: u64) -> Self {
        Self { attempts, interval: Duration::from_secs(seconds) }
    }
}

/// For an account, from one address or IPv6 /64.
const ACCOUNT_AT_ADDRESS: Allowance = Allowance::new(5, 30);
/// From one address or IPv6 /64, for any account: 30 in ten minutes.
const ADDRESS: Allowance = Allowance::new(30, 20);
/// For an account, from one network (IPv4 /24, IPv6 /48). It recovers faster than one address fails, so that one address
/// does not keep out its neighbors.
const ACCOUNT_IN_NETWORK: Allowance = Allowance::new(30, 10);
/// For an account, from all networks. Beyond it, the account is guarded.
const ACCOUNT: Allowance = Allowance::new(50, 72);
/// What one network adds to [`ACCOUNT`]; its further attempts are not added.
const NETWORK_PART: Allowance = Allowance::new(10, 360);
/// For a guarded account, from one address or IPv6 /64.
const GUARDED_AT_ADDRESS: Allowance = Allowance::new(3, 600);
/// For a guarded account, from one network.
const GUARDED_IN_NETWORK: Allowance = Allowance::new(6, 300);
/// For an account, from a browser that signed in to it before.
const BROWSER: Allowance = Allowance::new(5, 30);
/// For an account, from all browsers that signed in to it before: 50 in an hour.
const BROWSERS: Allowance = Allowance::new(50, 72);
/// Codes of the second factor of an account, after the right password: a code has six digits only.
const CODE: Allowance = Allowance::new(10, 90);
/// The part of [`CODE`] that one network may use.
const CODE_IN_NETWORK: Allowance = Allowance::new(5, 180);
/// Codes from all browsers that signed in to the account before.
const CODE_IN_BROWSERS: Allowance = Allowance::new(10, 90);
/// Recovery codes for an account, from one address or IPv6 /64. They have 80 bits, so that a limit for all addresses would
/// only keep out the owner.
const RECOVERY_AT_ADDRESS: Allowance = Allowance::new(5, 30);

/// The number of counts that are kept; further ones share [`SHARED_COUNTS`].
const MAX_COUNTS: usize = 100_000;
/// The number of counts that are shared when [`MAX_COUNTS`] are in use.
const SHARED_COUNTS: u64 = 4096;
/// The least time between two removals of counts that are back to zero, since a removal visits every count.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// An account, whether it exists or not: the digest of tenant and name, since a stranger may send any name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Account([u8; 32]);

impl Account {
    pub fn new(tenant: Tenant, name: &str) -> Self {
        Self(Sha256::digest(format!("{tenant} {name}")).into())
    }
}

/// A browser that signed in before: the digest of the random part of its cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BrowserId([u8; 32]);

impl BrowserId {
    pub fn new(random: &str) -> Self {
        Self(Sha256::digest(random).into())
    }
}

/// Where an attempt comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The client's address; clients of unknown address share the counts of one.
    pub address: Option<IpAddr>,
    /// Set if the browser signed in to the same account before.
    pub browser: Option<BrowserId>,
}

/// The accounts, addresses, networks and browsers that attempts are counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    AccountAtAddress(Account, IpAddr),
    Address(IpAddr),
    AccountInNetwork(Account, IpAddr),
    Account(Account),
    NetworkPart(Account, IpAddr),
    GuardedAtAddress(Account, IpAddr),
    GuardedInNetwork(Account, IpAddr),
    Browser(BrowserId),
    Browsers(Account),
    Code(Account),
    CodeInNetwork(Account, IpAddr),
    CodeInBrowser(BrowserId),
    CodeInBrowsers(Account),
    RecoveryAtAddress(Account, IpAddr),
    Shared(u64),
}

impl Key {
    /// True for counts that strangers cannot multiply: those of signed cookies, which have a sum for each account, and of
    /// codes, which need the right password and have one too.
    fn is_always_kept(self) -> bool {
        matches!(
            self,
            Self::Browser(_)
                | Self::Browsers(_)
                | Self::Code(_)
                | Self::CodeInNetwork(..)
                | Self::CodeInBrowser(_)
                | Self::CodeInBrowsers(_)
        )
    }

    /// True for counts of one client or browser at one account, which its success sets back.
    fn is_of_one_client(self) -> bool {
        matches!(
            self,
            Self::AccountAtAddress(..)
                | Self::GuardedAtAddress(..)
                | Self::Browser(_)
                | Self::CodeInBrowser(_)
                | Self::RecoveryAtAddress(..)
        )
    }
}

/// The kind of code that a user enters after the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeKind {
    /// The six digits that an authenticator app shows (RFC 6238).
    App,
    /// A recovery code.
    Recovery,
}

/// An attempt that counts as failed unless [`SignInLimits::succeeded`] or [`SignInLimits::undo`] is called.
#[derive(Debug)]
pub struct Attempt {
    taken: Vec<(Key, Allowance)>,
    /// True if it comes from a browser that signed in to the account before, within that browser's own count.
    pub is_from_known_browser: bool,
}

/// The counts of failed attempts. Times are those of [`net::clock::Clock::elapsed`].
#[derive(Default)]
pub struct SignInLimits {
    counts: Mutex<Counts>,
    hashing: RandomState,
}

#[derive(Default)]
struct Counts {
    /// For each count, when all of its attempts so far are forgotten.
    until: HashMap<Key, Duration>,
    swept: Duration,
}

impl Counts {
    /// The time until an attempt is allowed; zero if it is allowed now.
    fn wait(&self, (key, allowance): (Key, Allowance), now: Duration) -> Duration {
        let until = self.until.get(&key).copied().unwrap_or_default().max(now);
        (until + allowance.interval).saturating_sub(now + allowance.interval * allowance.attempts)
    }

    fn take(&mut self, (key, allowance): (Key, Allowance), now: Duration) {
        let until = self.until.entry(key).or_default();
        *until = (*until).max(now) + allowance.interval;
    }

    fn sweep(&mut self, now: Duration) {
        if self.until.len() >= MAX_COUNTS && now >= self.swept + SWEEP_INTERVAL {
            self.until.retain(|_, until| *until > now);
            self.swept = now;
        }
    }
}

impl SignInLimits {
    /// Begins an attempt with a password.
    ///
    /// # Errors
    ///
    /// The time to wait, if too many attempts have failed. Then nothing is counted.
    pub fn begin_password(
        &self,
        account: Account,
        source: Source,
        now: Duration,
    ) -> Result<Attempt, Duration> {
        let address = client(source.address.unwrap_or(UNKNOWN_ADDRESS));
        let network = network(address);
        let mut counts = self.lock(now);
        if let Some(browser) = source.browser {
            let needed = vec![(Key::Browser(browser), BROWSER), (Key::Browsers(account), BROWSERS)];
            if let Ok(attempt) = self.take(&mut counts, needed, true, now) {
                return Ok(attempt);
            }
        }
        let mut needed = vec![
            (Key::AccountAtAddress(account, address), ACCOUNT_AT_ADDRESS),
            (Key::Address(address), ADDRESS),
            (Key::AccountInNetwork(account, network), ACCOUNT_IN_NETWORK),
        ];
        let all = (Key::Account(account), ACCOUNT);
        let part = (Key::NetworkPart(account, network), NETWORK_PART);
        let has_room =
            |needed: (Key, Allowance)| counts.wait((self.kept(&counts, needed.0), needed.1), now).is_zero();
        match (has_room(all), has_room(part)) {
            (true, true) => needed.extend([all, part]),
            (true, false) => {}
            (false, _) => needed.extend([
                (Key::GuardedAtAddress(account, address), GUARDED_AT_ADDRESS),
                (Key::GuardedInNetwork(account, network), GUARDED_IN_NETWORK),
            ]),
        }
        self.take(&mut counts, needed, false, now)
    }

    /// Begins an attempt with a code, after the right password.
    ///
    /// # Errors
    ///
    /// The time to wait, if too many attempts have failed. Then nothing is counted.
    pub fn begin_code(
        &self,
        account: Account,
        kind: CodeKind,
        source: Source,
        now: Duration,
    ) -> Result<Attempt, Duration> {
        let address = client(source.address.unwrap_or(UNKNOWN_ADDRESS));
        let mut counts = self.lock(now);
        if kind == CodeKind::Recovery {
            let needed = vec![(Key::RecoveryAtAddress(account, address), RECOVERY_AT_ADDRESS)];
            return self.take(&mut counts, needed, false, now);
        }
        if let Some(browser) = source.browser {
            let needed = vec![
                (Key::CodeInBrowser(browser), BROWSER),
                (Key::CodeInBrowsers(account), CODE_IN_BROWSERS),
            ];
            if let Ok(attempt) = self.take(&mut counts, needed, true, now) {
                return Ok(attempt);
            }
        }
        let of_network = (Key::CodeInNetwork(account, network(address)), CODE_IN_NETWORK);
        self.take(&mut counts, vec![(Key::Code(account), CODE), of_network], false, now)
    }

    /// Takes an attempt off every count, or off none.
    fn take(
        &self,
        counts: &mut Counts,
        needed: Vec<(Key, Allowance)>,
        is_from_known_browser: bool,
        now: Duration,
    ) -> Result<Attempt, Duration> {
        let taken: Vec<_> =
            needed.into_iter().map(|(key, allowance)| (self.kept(counts, key), allowance)).collect();
        let wait = taken.iter().map(|needed| counts.wait(*needed, now)).max().unwrap_or_default();
        if !wait.is_zero() {
            return Err(wait);
        }
        taken.iter().for_each(|needed| counts.take(*needed, now));
        Ok(Attempt { taken, is_from_known_browser })
    }

    /// The key itself, or a shared one if there are too many.
    fn kept(&self, counts: &Counts, key: Key) -> Key {
        let is_kept =
            counts.until.len() < MAX_COUNTS || key.is_always_kept() || counts.until.contains_key(&key);
        if is_kept { key } else { Key::Shared(self.hashing.hash_one(key) % SHARED_COUNTS) }
    }

    /// The attempt was right: failures before it are forgotten, apart from those that other clients or accounts share.
    pub fn succeeded(&self, attempt: Attempt, now: Duration) {
        let mut counts = self.lock(now);
        for (key, allowance) in attempt.taken {
            match key.is_of_one_client() {
                true => drop(counts.until.remove(&key)),
                false => give_back(&mut counts, key, allowance, now),
            }
        }
    }

    /// The attempt was not judged, because the server is busy or fails.
    pub fn undo(&self, attempt: Attempt, now: Duration) {
        let mut counts = self.lock(now);
        for (key, allowance) in attempt.taken {
            give_back(&mut counts, key, allowance, now);
        }
    }

    fn lock(&self, now: Duration) -> MutexGuard<'_, Counts> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.sweep(now);
        counts
    }
}

/// Takes an attempt back. A count that is back to zero is removed, so that attempts that were not judged leave nothing.
fn give_back(counts: &mut Counts, key: Key, allowance: Allowance, now: Duration) {
    if let Some(until) = counts.until.get_mut(&key) {
        *until = until.saturating_sub(allowance.interval);
        if *until <= now {
            counts.until.remove(&key);
        }
    }
}

/// The address that clients of unknown address count under.
const UNKNOWN_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

#[cfg(test)]
mod tests;
