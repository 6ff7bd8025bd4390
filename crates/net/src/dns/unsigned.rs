//! Zones that are proven to be unsigned. Whatever lies below an insecure delegation is insecure (RFC 4035 §4.3), so
//! one proof serves all names of such a zone; a look-up of each would ask for the chain anew.

use formats::DomainName;
use formats::limits::UNSIGNED_ZONES;
use quick_cache::sync::Cache;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// A zone that gets signed is seen as such after this at the latest.
const MAX_CACHE_TIME: Duration = Duration::from_secs(900);

pub(super) struct UnsignedZones {
    /// Until when each is known.
    known: Cache<DomainName, Instant>,
    /// Names below which a host was found unsigned, and whether each host below is a zone of its own, as in a TLD.
    parents: Cache<DomainName, bool>,
    /// Hosts that somebody asks about for the first time, with those who wait for him.
    sought: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl UnsignedZones {
    pub(super) fn new() -> Self {
        Self {
            known: Cache::new(UNSIGNED_ZONES),
            parents: Cache::new(UNSIGNED_ZONES),
            sought: Mutex::default(),
        }
    }

    /// Remembers a zone whose missing signatures were proven, for this time.
    pub(super) fn insert(&self, zone: DomainName, time: Duration, now: Instant) {
        self.known.insert(zone, now + time.min(MAX_CACHE_TIME));
    }

    /// Whether this name is in or below such a zone.
    pub(super) fn cover(&self, name: &DomainName, now: Instant) -> bool {
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

    /// Notes that a host was found unsigned. True when another one beside it was before, so that both may be in one zone
    /// and it is worth a question which that is.
    pub(super) fn has_sibling(&self, host: &DomainName) -> bool {
        let Some(parent) = host.parent() else { return false };
        let known = self.parents.get(&parent);
        if known.is_none() {
            self.parents.insert(parent, false);
        }
        known == Some(false)
    }

    /// Notes in which zone a host is.
    pub(super) fn place(&self, host: &DomainName, zone: &DomainName) {
        if let Some(parent) = host.parent().filter(|_| host == zone) {
            self.parents.insert(parent, true);
        }
    }

    /// Names of one domain are asked about together: the first finds out about the zone, and the others wait for that.
    pub(super) fn seek(&self, name: &DomainName) -> Claim<'_> {
        let host = host(name);
        let mut sought = lock(&self.sought);
        if let Some(first) = sought.get(host) {
            return Claim::After(first.clone());
        }
        sought.insert(host.to_owned(), Arc::new(Semaphore::new(0)));
        Claim::First(ClaimGuard { zones: self, host: host.to_owned() })
    }
}

/// The domain or host that a name is about: `example.org` for `_25._tcp.example.org` and for `mta-sts.example.org`.
pub(super) fn host(name: &DomainName) -> &str {
    let name = name.as_str();
    let labels = name.rfind("._").or_else(|| name.starts_with('_').then_some(0));
    let rest = labels.and_then(|at| name.get(at + 1..)?.split_once('.')).map_or(name, |(_, rest)| rest);
    rest.strip_prefix("mta-sts.").unwrap_or(rest)
}

fn lock(sought: &Mutex<HashMap<String, Arc<Semaphore>>>) -> MutexGuard<'_, HashMap<String, Arc<Semaphore>>> {
    sought.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether somebody asks about this host already.
pub(super) enum Claim<'a> {
    /// Nobody did.
    First(ClaimGuard<'a>),
    /// Somebody does; this is closed when he is done.
    After(Arc<Semaphore>),
}

/// Ends with the look.
pub(super) struct ClaimGuard<'a> {
    zones: &'a UnsignedZones,
    host: String,
}

impl Drop for ClaimGuard<'_> {
    fn drop(&mut self) {
        if let Some(others) = lock(&self.zones.sought).remove(&self.host) {
            others.close();
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
    fn a_zone_covers_itself_and_what_is_below_until_its_time_is_over() {
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
            assert_eq!(zones.cover(&name(asked), now + after * second), expected, "{asked} after {after} s");
        }
    }

    #[test]
    fn names_are_about_the_host_below_their_service_labels() {
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
    fn a_sibling_is_worth_a_question_unless_each_host_there_is_a_zone() {
        let zones = UnsignedZones::new();
        let is_worth = |host: &str| zones.has_sibling(&name(host));
        assert_eq!(["mx1.example.org", "mx2.example.org", "a.test"].map(is_worth), [false, true, false]);
        zones.place(&name("mx2.example.org"), &name("example.org"));
        assert!(is_worth("mx3.example.org"), "its zone is asked for until it is known");
        assert!(is_worth("b.test"));
        zones.place(&name("b.test"), &name("b.test"));
        assert!(!is_worth("c.test") && !is_worth("test"));
    }

    #[tokio::test]
    async fn the_first_question_about_a_host_is_waited_for_by_the_others() {
        let zones = UnsignedZones::new();
        let Claim::First(first) = zones.seek(&name("_mta-sts.example.org")) else {
            panic!("nobody asked before")
        };
        let Claim::After(done) = zones.seek(&name("example.org")) else { panic!("somebody asks") };
        assert!(matches!(zones.seek(&name("example.net")), Claim::First(_)));
        assert!(matches!(done.try_acquire(), Err(tokio::sync::TryAcquireError::NoPermits)));
        drop(first);
        assert!(done.acquire().await.is_err());
        assert!(matches!(zones.seek(&name("example.org")), Claim::First(_)));
    }
}
