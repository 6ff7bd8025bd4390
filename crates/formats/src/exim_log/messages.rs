//! What earlier lines of the log said about messages. Lines about several recipients, and lines about what went wrong before
//! a delivery, belong to one session; the lines of other messages may be between them. The memory is bounded: the message
//! that was seen first is forgotten first.

use crate::domain::DomainName;
use crate::limits::EXIM_MESSAGES;
use jiff::{SignedDuration, Timestamp};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

/// Lines about one session have times within this span.
const SAME_SESSION: SignedDuration = SignedDuration::from_secs(2);
/// The last sessions, and the last hints, that are kept of one message.
const KEPT: usize = 16;

/// The identity of a session of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) domain: DomainName,
    pub(super) ip: Option<IpAddr>,
    pub(super) at: Timestamp,
}

impl Session {
    /// True for a line about a further recipient of the same session.
    fn is_same(&self, other: &Self) -> bool {
        let is_near = other.at.duration_since(self.at).abs() <= SAME_SESSION;
        (&self.domain, self.ip) == (&other.domain, other.ip) && is_near
    }
}

/// What a line without a recipient says about the session that follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hint {
    /// DANE failed.
    Dane,
    /// TLS failed, and the message is sent without it.
    InTheClear,
}

/// The messages that are remembered.
#[derive(Debug, Clone, Default)]
pub(super) struct Messages {
    known: HashMap<String, Known>,
    /// Number and ID of each message in the order in which it was seen; some of them are forgotten.
    order: VecDeque<(u64, String)>,
    next: u64,
}

#[derive(Debug, Clone, Default)]
struct Known {
    number: u64,
    sessions: VecDeque<Session>,
    hints: VecDeque<(Option<IpAddr>, Hint)>,
}

impl Messages {
    fn of(&mut self, message: &str) -> &mut Known {
        if !self.known.contains_key(message) {
            self.order.push_back((self.next, message.to_owned()));
            self.known.insert(message.to_owned(), Known { number: self.next, ..Known::default() });
            self.next += 1;
        }
        if self.order.len() > EXIM_MESSAGES
            && let Some((number, oldest)) = self.order.pop_front()
            && self.known.get(&oldest).is_some_and(|known| known.number == number)
        {
            self.known.remove(&oldest);
        }
        self.known.entry(message.to_owned()).or_default()
    }

    /// Remembers a session. Returns false for a further recipient of one that is known.
    pub(super) fn is_new(&mut self, message: &str, session: Session) -> bool {
        let sessions = &mut self.of(message).sessions;
        if sessions.iter().any(|known| known.is_same(&session)) {
            return false;
        }
        push(sessions, session);
        true
    }

    /// Remembers a hint about a session with the host at `ip`.
    pub(super) fn note(&mut self, message: &str, ip: Option<IpAddr>, hint: Hint) {
        push(&mut self.of(message).hints, (ip, hint));
    }

    /// Returns the hint about a session with the host at `ip`, and forgets it.
    pub(super) fn take_hint(&mut self, message: &str, ip: Option<IpAddr>) -> Option<Hint> {
        let hints = &mut self.known.get_mut(message)?.hints;
        let at = hints.iter().rposition(|(of, _)| of.is_none() || *of == ip)?;
        hints.remove(at).map(|(_, hint)| hint)
    }

    /// The numbers of remembered messages and of their places in the order.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 2] {
        [self.known.len(), self.order.len()]
    }

    /// Forgets a message whose deliveries are complete.
    pub(super) fn forget(&mut self, message: &str) {
        self.known.remove(message);
    }
}

fn push<T>(kept: &mut VecDeque<T>, new: T) {
    if kept.len() >= KEPT {
        kept.pop_front();
    }
    kept.push_back(new);
}
