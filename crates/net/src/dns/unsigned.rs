//! A cache of zones that are proven to be unsigned. Everything below an insecure delegation is insecure (RFC 4035
//! §4.3), so one proof covers all names of such a zone, and the resolver need not fetch the chain of trust for each of
//! them. [`super::Resolver`] fills the cache from its answers.

use formats::DomainName;
use formats::limits::UNSIGNED_ZONES;
use quick_cache::sync::Cache;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// The maximum cache time. A zone that becomes signed is validated after this time at the latest.
const MAX_CACHE_TIME: Duration = Duration::from_secs(900);

/// The cache of unsigned zones, with the first lookups that are in flight.
pub(super) struct UnsignedZones {
    /// When each zone expires from the cache.
    known: Cache<DomainName, Instant>,
    /// Parents of hosts that were found unsigned. True if each host below is its own zone, as in a TLD.
    parents: Cache<DomainName, bool>,
    /// First lookups in flight, by host. Later callers wait on the semaphore, which is closed at the end.
    in_flight: Arc<InFlight>,
}

type InFlight = Mutex<HashMap<String, Arc<Semaphore>>>;

impl UnsignedZones {
    pub(super) fn new() -> Self {
        Self {
            known: Cache::new(UNSIGNED_ZONES),
            parents: Cache::new(UNSIGNED_ZONES),
            in_flight: Arc::default(),
        }
    }

    /// Caches a zone that is proven to be unsigned, for `time` but at most [`MAX_CACHE_TIME`].
    pub(super) fn insert(&self, zone: DomainName, time: Duration, now: Instant) {
        self.known.insert(zone, now + time.min(MAX_CACHE_TIME));
    }

    /// Whether `name` is in or below a cached zone.
    pub(super) fn covers(&self, name: &DomainName, now: Instant) -> bool {
        let mut rest = name.as_str();
        loop {
            if self.known.get(rest).is_some_and(|until| now < until) {
                return true;
            }
            match rest.split_once('.') {
                Some((_, parent)) => rest = parent,
                None => return false,
            }
        }
    }

    /// Records that a host was found unsigned. True if another host with the same parent was found before and the two
    /// may be in the same zone, so that a query for the zone is worthwhile.
    pub(super) fn has_sibling(&self, host: &DomainName) -> bool {
        let Some(parent) = host.parent() else { return false };
        let known = self.parents.get(&parent);
        if known.is_none() {
            self.parents.insert(parent, false);
        }
        known == Some(false)
    }

    /// Records the zone of a host.
    pub(super) fn set_zone(&self, host: &DomainName, zone: &DomainName) {
        if let Some(parent) = host.parent().filter(|_| host == zone) {
            self.parents.insert(parent, true);
        }
    }

    /// True while the first lookup of a host is in flight.
    pub(super) fn has_claims(&self) -> bool {
        !lock(&self.in_flight).is_empty()
    }

    /// Claims the first lookup of a host. Names of one domain are usually looked up together; the first lookup
    /// determines the zone, and the others wait for it.
    pub(super) fn claim(&self, name: &DomainName) -> Claim {
        let host = host(name);
        let mut in_flight = lock(&self.in_flight);
        if let Some(first) = in_flight.get(host) {
            return Claim::Wait(first.clone());
        }
        in_flight.insert(host.to_owned(), Arc::new(Semaphore::new(0)));
        Claim::First(ClaimGuard { in_flight: self.in_flight.clone(), host: host.to_owned() })
    }
}

/// The domain or host that a name belongs to, without service labels:
/// `example.org` for `_25._tcp.example.org` and for `mta-sts.example.org`.
pub(super) fn host(name: &DomainName) -> &str {
    let name = name.as_str();
    let labels = name.rfind("._").or_else(|| name.starts_with('_').then_some(0));
    let rest = labels.and_then(|at| name.get(at + 1..)?.split_once('.')).map_or(name, |(_, rest)| rest);
    rest.strip_prefix("mta-sts.").unwrap_or(rest)
}

fn lock(map: &InFlight) -> MutexGuard<'_, HashMap<String, Arc<Semaphore>>> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a first lookup of the host is in flight.
pub(super) enum Claim {
    /// No lookup is in flight: the caller makes it, and holds the guard until it ends.
    First(ClaimGuard),
    /// Another task is looking the host up; the semaphore is closed when it finishes.
    Wait(Arc<Semaphore>),
}

/// Wakes the waiting tasks when dropped, at the end of the first lookup.
pub(super) struct ClaimGuard {
    in_flight: Arc<InFlight>,
    host: String,
}

impl Drop for ClaimGuard {
    fn drop(&mut self) {
        if let Some(waiting) = lock(&self.in_flight).remove(&self.host) {
            waiting.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    #[test]
    fn a_zone_covers_itself_and_names_below_it_until_it_expires() {
        let zones = UnsignedZones::new();
        let now = Instant::now();
        let second = Duration::from_secs(1);
        zones.insert(name("example.org"), 60 * second, now);
        zones.insert(name("example.net"), 86_400 * second, now);
        for (asked, after, expected) in [
            ("example.org", 0, true),
            ("_mta-sts.example.org", 59, true),
            ("_25._tcp.mx.example.org", 59, true),
            ("example.org", 60, false),
            ("badexample.org", 0, false),
            ("org", 0, false),
            ("example.net", 899, true),
            ("example.net", 900, false),
        ] {
            assert_eq!(zones.covers(&name(asked), now + after * second), expected, "{asked} after {after} s");
        }
    }

    #[test]
    fn service_labels_are_removed_from_names() {
        for (asked, expected) in [
            ("example.org", "example.org"),
            ("_mta-sts.example.org", "example.org"),
            ("mta-sts.example.org", "example.org"),
            ("_smtp._tls.example.org", "example.org"),
            ("default._bimi.example.org", "example.org"),
            ("_25._tcp.mx.example.org", "mx.example.org"),
            ("org", "org"),
        ] {
            assert_eq!(host(&name(asked)), expected, "{asked}");
        }
    }

    #[test]
    fn a_sibling_justifies_a_query_unless_each_host_is_its_own_zone() {
        let zones = UnsignedZones::new();
        let is_worth = |host: &str| zones.has_sibling(&name(host));
        assert_eq!(["mx1.example.org", "mx2.example.org", "a.test"].map(is_worth), [false, true, false]);
        zones.set_zone(&name("mx2.example.org"), &name("example.org"));
        assert!(is_worth("mx3.example.org"), "the zone is queried until it is known");
        assert!(is_worth("b.test"));
        zones.set_zone(&name("b.test"), &name("b.test"));
        assert!(!is_worth("c.test") && !is_worth("test"));
    }

    #[tokio::test]
    async fn later_lookups_of_a_host_wait_for_the_first() {
        let zones = UnsignedZones::new();
        let Claim::First(first) = zones.claim(&name("_mta-sts.example.org")) else {
            panic!("no lookup is in flight")
        };
        let Claim::Wait(done) = zones.claim(&name("example.org")) else { panic!("a lookup is in flight") };
        assert!(matches!(zones.claim(&name("example.net")), Claim::First(_)));
        assert!(matches!(done.try_acquire(), Err(tokio::sync::TryAcquireError::NoPermits)));
        drop(first);
        assert!(done.acquire().await.is_err());
        assert!(matches!(zones.claim(&name("example.org")), Claim::First(_)));
    }
}
