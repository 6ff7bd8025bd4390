//! Single-flight lookups: all requests for one next hop share one lookup and wait for its outcome (VAL-23).
//!
//! The placeholders of the cache's own map do not fit. A placeholder exists only where there is no entry, but a
//! recheck runs beside a live entry. And its lookup ends with the request that started it, whereas these lookups
//! continue when the mail server stops waiting.
//!
//! A lookup becomes outdated when the settings change, when its domain is purged, when another lookup replaces it, or
//! when a lookup of another next hop of the same policy domain fetched a policy.
//! It continues for the requests that wait for it, but no other request joins it and its outcome is not cached. The
//! outcome of a purged lookup is not stored either.
//!
//! The number of lookups is bounded by [`LOOKUPS_IN_FLIGHT`].

use super::entry::{Entry, RecheckClaim};
use super::route::NextHop;
use formats::DomainName;
use formats::limits::LOOKUPS_IN_FLIGHT;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The reason for a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A mail server waits for the answer, so a policy in the store is used at once.
    Request,
    /// The cached answer is due for a recheck.
    Recheck,
    /// The policy in the store is due for its daily refresh.
    Refresh,
    /// The operator requested a lookup.
    Operator,
}

/// The outcome of a lookup in flight: `None` until it ends. The channel closes without an outcome when the
/// lookup panics.
pub(super) type Pending = watch::Receiver<Option<Arc<Entry>>>;

/// The lookups in flight.
#[derive(Default)]
pub(super) struct InFlight(Mutex<Flights>);

#[derive(Default)]
struct Flights {
    /// The lookups that requests can join, by their key in the cache: the next hop in the canonical form that [`NextHop`]
    /// displays, after the set of settings if it is not the default ([`super::maps`]).
    current: HashMap<String, Arc<Flight>>,
    /// Outdated lookups that have not ended, by number.
    outdated: HashMap<u64, Arc<Flight>>,
    /// The number of the next lookup.
    next: u64,
}

/// One lookup in flight.
pub(super) struct Flight {
    number: u64,
    domain: DomainName,
    outcome: watch::Sender<Option<Arc<Entry>>>,
    /// The cached answers that this lookup rechecks.
    claims: Mutex<Vec<RecheckClaim>>,
    /// True if the lookup queries DNS; false as long as it may be answered from the store.
    is_fresh: AtomicBool,
    is_outdated: AtomicBool,
    /// True if the policy was purged. It is locked while the lookup writes to the store.
    is_purged: tokio::sync::Mutex<bool>,
}

/// The result of [`InFlight::join_or_start`].
pub(super) enum JoinOrStart {
    /// Another request started the lookup; the caller waits for its outcome.
    Joined(Pending),
    /// No lookup was in flight: the caller runs it and passes the outcome to the guard.
    Started(InFlightGuard, Pending),
    /// No lookup was in flight, and none can be started for a request, since [`LOOKUPS_IN_FLIGHT`] are in flight.
    Full,
}

/// The guard of one lookup. Dropping it removes the lookup from the list, so the next request starts a new one,
/// even after a panic.
pub(super) struct InFlightGuard {
    in_flight: Arc<InFlight>,
    name: String,
    flight: Arc<Flight>,
}

impl Flight {
    /// True if a lookup for `purpose` may share this one. A refresh needs an outcome from DNS, and the operator one
    /// that is not older than the command.
    fn serves(&self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Request => true,
            Purpose::Recheck | Purpose::Refresh => self.is_fresh.load(Ordering::Relaxed),
            Purpose::Operator => false,
        }
    }

    fn join(&self, claim: Option<RecheckClaim>) -> Pending {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).extend(claim);
        self.outcome.subscribe()
    }

    /// Marks the lookup as one that queries DNS.
    pub(super) fn set_fresh(&self) {
        self.is_fresh.store(true, Ordering::Relaxed);
    }

    /// True if the outcome must not be cached.
    pub(super) fn is_outdated(&self) -> bool {
        self.is_outdated.load(Ordering::SeqCst)
    }

    /// Keeps the lookup from writing to the store. Returns when a write in progress has ended.
    pub(super) async fn purge(&self) {
        *self.is_purged.lock().await = true;
    }

    /// Locks the lookup while it writes to the store; the value is true if it must not write.
    pub(super) async fn writing(&self) -> tokio::sync::MutexGuard<'_, bool> {
        self.is_purged.lock().await
    }
}

impl Flights {
    fn len(&self) -> usize {
        self.current.len() + self.outdated.len()
    }

    fn outdate(&mut self, flight: Arc<Flight>) {
        flight.is_outdated.store(true, Ordering::SeqCst);
        self.outdated.insert(flight.number, flight);
    }

    fn remove(&mut self, name: &str, flight: &Flight) {
        let is_current = self.current.get(name).is_some_and(|current| current.number == flight.number);
        if is_current {
            self.current.remove(name);
        }
        self.outdated.remove(&flight.number);
    }
}

impl InFlight {
    /// Joins the lookup for this name, or starts one. A lookup that does not serve `purpose` is replaced. `claim` is held
    /// until the lookup ends.
    pub(super) fn join_or_start(
        self: &Arc<Self>,
        name: String,
        hop: &NextHop,
        purpose: Purpose,
        claim: Option<RecheckClaim>,
    ) -> JoinOrStart {
        let mut flights = self.flights();
        if let Some(flight) = flights.current.get(&name).filter(|flight| flight.serves(purpose)) {
            return JoinOrStart::Joined(flight.join(claim));
        }
        if purpose == Purpose::Request && flights.len() >= LOOKUPS_IN_FLIGHT {
            return JoinOrStart::Full;
        }
        let (outcome, receiver) = watch::channel(None);
        flights.next += 1;
        let flight = Arc::new(Flight {
            number: flights.next,
            domain: hop.policy_domain().clone(),
            outcome,
            claims: Mutex::new(claim.into_iter().collect()),
            is_fresh: AtomicBool::new(purpose != Purpose::Request),
            is_outdated: AtomicBool::new(false),
            is_purged: tokio::sync::Mutex::new(false),
        });
        if let Some(replaced) = flights.current.insert(name.clone(), flight.clone()) {
            flights.outdate(replaced);
        }
        JoinOrStart::Started(InFlightGuard { in_flight: self.clone(), name, flight }, receiver)
    }

    /// Outdates all lookups, then calls `clear` before another can be started.
    pub(super) fn outdate_all(&self, clear: impl FnOnce()) {
        let mut flights = self.flights();
        for flight in std::mem::take(&mut flights.current).into_values() {
            flights.outdate(flight);
        }
        clear();
    }

    /// Outdates the lookups of this policy domain, and calls `clear` before another can be started. Returns them.
    pub(super) fn outdate(&self, domain: &DomainName, clear: impl FnOnce()) -> Vec<Arc<Flight>> {
        let mut flights = self.flights();
        let current = flights.current.extract_if(|_, flight| flight.domain == *domain);
        for flight in current.map(|(_, flight)| flight).collect::<Vec<_>>() {
            flights.outdate(flight);
        }
        clear();
        flights.outdated.values().filter(|flight| flight.domain == *domain).cloned().collect()
    }

    /// Outdates the lookups of these policy domains, and calls `clear` before another can be started.
    pub(super) fn outdate_domains(&self, domains: &HashSet<DomainName>, clear: impl FnOnce()) {
        let mut flights = self.flights();
        let current = flights.current.extract_if(|_, flight| domains.contains(&flight.domain));
        for flight in current.map(|(_, flight)| flight).collect::<Vec<_>>() {
            flights.outdate(flight);
        }
        clear();
    }

    /// The number of lookups in flight, with outdated ones.
    pub(super) fn len(&self) -> usize {
        self.flights().len()
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InFlightGuard {
    /// The key of the cache for the next hop that is looked up.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The state of the lookup.
    pub(super) fn flight(&self) -> &Flight {
        &self.flight
    }

    /// Calls `put`, which caches the outcome, unless the lookup is outdated. It can't become outdated meanwhile.
    pub(super) fn if_current(&self, put: impl FnOnce()) {
        let _flights = self.in_flight.flights();
        if !self.flight.is_outdated() {
            put();
        }
    }

    /// Outdates the other lookups of this policy domain, since they may use a policy that is older than the one that
    /// this lookup stored, and calls `clear` before another can be started. `clear` gets the key of the answer that may stay,
    /// that of this lookup; `None` if it is outdated.
    pub(super) fn outdate_others(&self, clear: impl FnOnce(Option<&str>)) {
        let mut flights = self.in_flight.flights();
        let (domain, number) = (&self.flight.domain, self.flight.number);
        let is_other = |flight: &Flight| flight.domain == *domain && flight.number != number;
        let others = flights.current.extract_if(|_, flight| is_other(flight));
        for flight in others.map(|(_, flight)| flight).collect::<Vec<_>>() {
            flights.outdate(flight);
        }
        clear(Some(self.name.as_str()).filter(|_| !self.flight.is_outdated()));
    }

    /// Outdates this lookup, since it used a policy that is older than the stored one.
    pub(super) fn outdate(&self) {
        let mut flights = self.in_flight.flights();
        flights.remove(&self.name, &self.flight);
        flights.outdate(self.flight.clone());
    }

    /// Waits until no request waits for the outcome. One may join later; see [`Self::abandon`].
    pub(super) async fn unattended(&self) {
        self.flight.outcome.closed().await;
    }

    /// Outdates the lookup if no request waits for its outcome, so that none joins it. Returns true if so.
    pub(super) fn abandon(&self) -> bool {
        let mut flights = self.in_flight.flights();
        let is_abandoned = self.flight.outcome.receiver_count() == 0;
        if is_abandoned {
            flights.remove(&self.name, &self.flight);
            flights.outdate(self.flight.clone());
        }
        is_abandoned
    }

    /// Ends the lookup and passes its outcome to every waiting request.
    pub(super) fn finish(self, entry: Arc<Entry>) {
        let outcome = self.flight.outcome.clone();
        // Remove the lookup first: a request that comes after the outcome must start a new one.
        drop(self);
        // The send fails when no request waits any more.
        let _ = outcome.send(Some(entry));
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.in_flight.flights().remove(&self.name, &self.flight);
    }
}
