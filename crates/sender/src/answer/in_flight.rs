//! Single-flight look-ups: all requests for one next hop share one look-up and wait for its outcome (VAL-23).
//!
//! The placeholders of the cache's own map do not fit. A placeholder exists only where there is no entry, but a
//! recheck runs beside a live entry. And its look-up ends with the request that started it, whereas these look-ups
//! continue when the mail server stops waiting.

use super::entry::Entry;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The reason for a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A mail server waits for the answer, so a policy in the store is used at once.
    Request,
    /// The cached answer is due for a recheck, or the operator requested one.
    Recheck,
    /// The policy in the store is due for its daily refresh.
    Refresh,
}

/// The outcome of a look-up in flight: `None` until it ends. The channel closes without an outcome when the
/// look-up panics.
pub(super) type Pending = watch::Receiver<Option<Arc<Entry>>>;

/// The look-ups in flight by next hop, in the canonical form that [`super::route::NextHop`] displays.
#[derive(Default)]
pub(super) struct InFlight(Mutex<HashMap<String, Pending>>);

/// The result of [`InFlight::join_or_start`].
pub(super) enum JoinOrStart {
    /// Another request started the look-up; the caller waits for its outcome.
    Joined(Pending),
    /// No look-up was in flight: the caller runs it and passes the outcome to the guard.
    Started(InFlightGuard, Pending),
}

/// The guard of one look-up. Dropping it removes the look-up from the list, so the next request starts a new one,
/// even after a panic.
pub(super) struct InFlightGuard {
    in_flight: Arc<InFlight>,
    name: String,
    outcome: watch::Sender<Option<Arc<Entry>>>,
}

impl InFlight {
    /// Joins the look-up for this name, or starts one.
    pub(super) fn join_or_start(self: &Arc<Self>, name: String) -> JoinOrStart {
        let mut pending = self.pending();
        if let Some(joined) = pending.get(&name) {
            return JoinOrStart::Joined(joined.clone());
        }
        let (outcome, receiver) = watch::channel(None);
        pending.insert(name.clone(), receiver.clone());
        JoinOrStart::Started(InFlightGuard { in_flight: self.clone(), name, outcome }, receiver)
    }

    /// The number of look-ups in flight.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pending().len()
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<String, Pending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InFlightGuard {
    /// The next hop that is looked up, in its canonical form.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Ends the look-up and passes its outcome to every waiting request.
    pub(super) fn finish(self, entry: Arc<Entry>) {
        let outcome = self.outcome.clone();
        // Remove the look-up first: a request that comes after the outcome must start a new one.
        drop(self);
        // The send fails when no request waits any more.
        let _ = outcome.send(Some(entry));
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.in_flight.pending().remove(&self.name);
    }
}
