//! How much one place gets at once, and how often: many domains share a policy host, an MX host or a target of reports,
//! and nobody who asks us takes all there is.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places at each address, or host, that is talked to now.
pub struct ConcurrencyLimit<K = IpAddr> {
    each: usize,
    taken: Mutex<HashMap<K, Arc<Semaphore>>>,
}

/// Idle addresses are forgotten when there are more than this.
const MAX_IDLE_KEYS: usize = 1024;

impl<K: Eq + Hash> ConcurrencyLimit<K> {
    /// So many at each address.
    pub fn new(each: usize) -> Self {
        Self { each, taken: Mutex::default() }
    }

    /// Waits for a place at an address and holds it.
    pub async fn take(&self, address: K) -> Option<OwnedSemaphorePermit> {
        self.places(address).acquire_owned().await.ok()
    }

    /// A place at an address, when there is one.
    pub fn try_take(&self, address: K) -> Option<OwnedSemaphorePermit> {
        self.places(address).try_acquire_owned().ok()
    }

    fn places(&self, address: K) -> Arc<Semaphore> {
        let mut all = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() > MAX_IDLE_KEYS {
            all.retain(|_, places| places.available_permits() < self.each);
        }
        all.entry(address).or_insert_with(|| Arc::new(Semaphore::new(self.each))).clone()
    }
}

/// How often each client may do something.
pub struct RateLimiter {
    /// Between two of them at an even pace.
    interval: Duration,
    /// In which as many as are allowed may come at once.
    within: Duration,
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    /// Until when the pace of each is used up.
    until: HashMap<IpAddr, Instant>,
    /// When those at rest were last looked for, which takes a walk through all.
    swept: Option<Instant>,
}

/// Clients that are told apart; those beyond share one pace.
const MAX_CLIENTS: usize = 100_000;

impl RateLimiter {
    /// So many for each in that time.
    pub fn new(most: u32, within: Duration) -> Self {
        Self { interval: within / most.max(1), within, used: Mutex::default() }
    }

    /// Counts one of this address, as [`client`] takes it; false when it has had its share.
    pub fn take(&self, from: IpAddr, now: Instant) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.until.len() >= MAX_CLIENTS && used.swept.is_none_or(|swept| now >= swept + self.interval) {
            used.until.retain(|_, until| *until > now);
            used.swept = Some(now);
        }
        let from = client(from);
        let is_known = used.until.len() < MAX_CLIENTS || used.until.contains_key(&from);
        let until = used.until.entry(if is_known { from } else { OVERFLOW_CLIENT }).or_insert(now);
        let next = (*until).max(now) + self.interval;
        let is_free = next <= now + self.within;
        if is_free {
            *until = next;
        }
        is_free
    }
}

/// Who stands for those beyond.
const OVERFLOW_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Whom a client's address stands for: itself, or the first 64 bits of IPv6, of which one machine has as many as it
/// likes.
pub fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

/// The network that an address is in: its first 24 bits, or 48 of IPv6, which one holder mostly has.
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::from([a, b, c, 0])
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            IpAddr::from([a, b, c, 0, 0, 0, 0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_its_address_or_its_network_of_ipv6() {
        let of = |text: &str| client(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::9"));
        assert_ne!(of("2001:db8:1:2::9"), of("2001:db8:1:3::9"));
    }

    #[tokio::test]
    async fn one_address_has_so_many_places_and_others_have_their_own() {
        let places: ConcurrencyLimit = ConcurrencyLimit::new(3);
        let (one, other) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(places.take(one).await);
        }
        let full = places.take(one);
        tokio::pin!(full);
        assert!(futures_util::poll!(&mut full).is_pending());
        assert!(places.take(other).await.is_some());
        assert!(places.try_take(one).is_none());
        held.pop();
        assert!(full.await.is_some());
        assert!(places.try_take(one).is_some());
    }

    #[test]
    fn a_client_may_so_many_in_that_time_and_others_have_their_own() {
        let rates = RateLimiter::new(3, Duration::from_secs(60));
        let (one, other) = ("2001:db8::1".parse().unwrap(), "2001:db8:0:1::1".parse().unwrap());
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let taken = |from, seconds| rates.take(from, at(seconds));
        assert_eq!([0, 0, 0, 0, 19].map(|seconds| taken(one, seconds)), [true, true, true, false, false]);
        assert!(!taken("2001:db8::2".parse().unwrap(), 19) && taken(other, 19));
        assert_eq!([20, 20, 40].map(|seconds| taken(one, seconds)), [true, false, true]);
        assert_eq!([900, 900, 900, 900].map(|seconds| taken(one, seconds)), [true, true, true, false]);
    }

    #[test]
    fn clients_beyond_the_limit_share_a_pace_and_room_comes_back_with_time() {
        let rates = RateLimiter::new(1, Duration::from_secs(60));
        let begun = Instant::now();
        let address = |number: u32| IpAddr::from(Ipv4Addr::from_bits(number + 1));
        let many = u32::try_from(MAX_CLIENTS).unwrap();
        assert!((0..many).all(|number| rates.take(address(number), begun)));
        assert!(rates.take(address(many), begun) && !rates.take(address(many + 1), begun));
        let later = begun + Duration::from_secs(61);
        assert!(rates.take(address(many), later) && rates.take(address(many + 1), later));
        assert!(rates.used.lock().unwrap().until.len() < 10);
    }

    #[test]
    fn a_network_is_what_one_holder_mostly_has() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("192.0.2.77"), "192.0.2.0");
        assert_eq!(network("2001:db8:1:2::3"), "2001:db8:1::");
    }
}
