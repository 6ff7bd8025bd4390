//! Zones that are proven to be unsigned. Whatever lies below an insecure delegation is insecure (RFC 4035 §4.3), so
//! one proof serves all names of such a zone; a look-up of each would ask for the chain anew.

use formats::DomainName;
use formats::limits::UNSIGNED_ZONES;
use quick_cache::sync::Cache;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A zone that gets signed is seen as such after this at the latest.
const LONGEST: Duration = Duration::from_secs(900);

pub(super) struct UnsignedZones {
    /// Until when each is known.
    known: Cache<DomainName, Instant>,
    sought: Mutex<HashSet<String>>,
}

impl UnsignedZones {
    pub(super) fn new() -> Self {
        Self { known: Cache::new(UNSIGNED_ZONES), sought: Mutex::default() }
    }

    /// Remembers a zone whose missing signatures were proven, for this time.
    pub(super) fn insert(&self, zone: DomainName, time: Duration, now: Instant) {
        self.known.insert(zone, now + time.min(LONGEST));
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

    /// The right to look for the zone of this name; `None` while somebody looks for that of a name nearby.
    pub(super) fn seek(&self, name: &DomainName) -> Option<Seeking<'_>> {
        let mut dots = name.as_str().rmatch_indices('.').map(|(at, _)| at);
        let nearby =
            dots.nth(1).and_then(|at| name.as_str().get(at + 1..)).unwrap_or(name.as_str()).to_owned();
        let is_first = self.sought.lock().unwrap_or_else(PoisonError::into_inner).insert(nearby.clone());
        is_first.then(|| Seeking { zones: self, nearby })
    }
}

/// Ends with the look.
pub(super) struct Seeking<'a> {
    zones: &'a UnsignedZones,
    nearby: String,
}

impl Drop for Seeking<'_> {
    fn drop(&mut self) {
        self.zones.sought.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.nearby);
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
    fn one_look_at_a_time_for_names_nearby() {
        let zones = UnsignedZones::new();
        let first = zones.seek(&name("_mta-sts.example.org"));
        assert!(first.is_some());
        assert!(zones.seek(&name("example.org")).is_none());
        assert!(zones.seek(&name("example.net")).is_some());
        assert!(zones.seek(&name("org")).is_some());
        drop(first);
        assert!(zones.seek(&name("mx.example.org")).is_some());
    }
}
