//! The budget of one lookup: when it ends, how many queries it makes, and which ancestors of its names it has looked up
//! already. [`super::servers`] follows aliases name by name and walks up from a name to find an unsigned zone; whoever
//! publishes the names must not be able to cause many queries by one lookup.

use super::DnsError;
use super::servers::Deadline;
use formats::DomainName;
use formats::limits::{LOOKUP_QUERIES, WALK_LABELS};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A zone that is proven to be unsigned, with the TTL of its SOA record.
pub(super) type UnsignedZone = (DomainName, Duration);

/// The budget of one lookup.
pub(super) struct Budget {
    /// When the lookup times out.
    pub(super) deadline: Deadline,
    /// The number of queries made.
    queries: AtomicUsize,
    /// Ancestors whose SOA record was queried, with the unsigned zone that they are in; `None` for no such proof.
    walked: Mutex<HashMap<DomainName, Option<UnsignedZone>>>,
}

impl Budget {
    pub(super) fn new(deadline: Deadline) -> Self {
        Self { deadline, queries: AtomicUsize::new(0), walked: Mutex::default() }
    }

    /// Counts one query. Fails if the lookup has made [`LOOKUP_QUERIES`] already.
    pub(super) fn take(&self) -> Result<(), DnsError> {
        match self.queries.fetch_add(1, Ordering::Relaxed) < LOOKUP_QUERIES {
            true => Ok(()),
            false => Err(DnsError::ServerFailure(format!("more than {LOOKUP_QUERIES} queries for one name"))),
        }
    }

    /// The outcome for an ancestor that was looked up before; `None` if it was not.
    pub(super) fn known(&self, ancestor: &DomainName) -> Option<Option<UnsignedZone>> {
        self.walked().get(ancestor).cloned()
    }

    /// Records the unsigned zone that an ancestor is in; `None` if there is no proof of one.
    pub(super) fn learn(&self, ancestor: DomainName, zone: Option<UnsignedZone>) {
        self.walked().insert(ancestor, zone);
    }

    fn walked(&self) -> MutexGuard<'_, HashMap<DomainName, Option<UnsignedZone>>> {
        self.walked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name and its ancestors, without the top-level domain and without those of more than [`WALK_LABELS`] labels: an
/// unsigned zone above a deep name is found as well at one of the others.
pub(super) fn ancestors(name: &DomainName) -> impl Iterator<Item = DomainName> {
    let labels = |name: &DomainName| name.as_str().split('.').count();
    std::iter::successors(Some(name.clone()), DomainName::parent)
        .filter(move |candidate| (2..=WALK_LABELS).contains(&labels(candidate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_ends_after_its_queries() {
        let budget = Budget::new(super::super::servers::deadline());
        assert!((0..LOOKUP_QUERIES).all(|_| budget.take().is_ok()));
        assert!(matches!(budget.take(), Err(DnsError::ServerFailure(_))));
    }

    #[test]
    fn only_the_upper_ancestors_of_a_deep_name_are_walked() {
        let walked = |text: &str| {
            let name = DomainName::parse(text).unwrap();
            ancestors(&name).map(|name| name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(walked("_mta-sts.example.org"), ["_mta-sts.example.org", "example.org"]);
        assert!(walked("org").is_empty());
        let deep = format!("{}example.org", "a.".repeat(100));
        assert_eq!(walked(&deep).len(), WALK_LABELS - 1);
        assert_eq!(walked(&deep).last().map(String::as_str), Some("example.org"));
    }
}
