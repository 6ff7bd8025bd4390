//! Single flight: however many requests need the same look-up, one is made and all of them wait for it
//! (VAL-23).
//!
//! The cache's own placeholders do not serve here. They stand only where no entry is, while a recheck runs
//! beside a live entry; and their look-up ends with the request that started it, while these go on when
//! the mail server stops waiting.

use super::entry::Entry;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Why a look-up is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A mail server waits for it, so that a policy in the store is answered at once.
    Asked,
    /// The cached answer is due for a recheck, or an operator asks for one.
    Recheck,
    /// The policy in the store is due for its daily refresh.
    Refresh,
}

/// The outcome of a look-up that is under way: `None` until it ends. The channel closes without an
/// outcome when the look-up panics.
pub(super) type Pending = watch::Receiver<Option<Arc<Entry>>>;

/// The look-ups that are under way, by the next hop's one form ([`super::route::NextHop`]).
#[derive(Default)]
pub(super) struct InFlight(Mutex<HashMap<String, Pending>>);

/// A request's part in a look-up.
pub(super) enum JoinOrStart {
    /// Another request has started the look-up; this is its outcome.
    Joined(Pending),
    /// There was none: the caller makes the look-up, and the guard publishes the outcome.
    Started(InFlightGuard, Pending),
}

/// The right and the duty to make one look-up. Dropping the guard takes the look-up off the list, so
/// that the next request starts a new one, however this one ended.
pub(super) struct InFlightGuard {
    all: Arc<InFlight>,
    name: String,
    outcome: watch::Sender<Option<Arc<Entry>>>,
}

impl InFlight {
    /// Joins the look-up of this name, or starts one.
    pub(super) fn join_or_start(self: &Arc<Self>, name: String) -> JoinOrStart {
        let mut pending = self.pending();
        if let Some(joined) = pending.get(&name) {
            return JoinOrStart::Joined(joined.clone());
        }
        let (outcome, receiver) = watch::channel(None);
        pending.insert(name.clone(), receiver.clone());
        JoinOrStart::Started(InFlightGuard { all: self.clone(), name, outcome }, receiver)
    }

    /// The number of look-ups that are under way.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pending().len()
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<String, Pending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InFlightGuard {
    /// The name that is looked up.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Ends the look-up and hands its outcome to every request that waits.
    pub(super) fn finish(self, entry: Arc<Entry>) {
        let outcome = self.outcome.clone();
        // Off the list first: who asks after the outcome is out starts anew.
        drop(self);
        // Every request may have stopped waiting.
        let _ = outcome.send(Some(entry));
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.all.pending().remove(&self.name);
    }
}
