//! Per-peer concurrency and rate limits, so that no single client or target uses up all capacity. Outgoing connections
//! are limited because many domains share a policy host, an MX host or a report target. Incoming requests are limited
//! for each client address.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limits concurrent operations for each key, such as connections to each address.
pub struct ConcurrencyLimit<K = IpAddr> {
    per_key: usize,
    semaphores: Mutex<HashMap<K, Arc<Semaphore>>>,
}

/// The number of keys above which those without a permit in use are removed.
const MAX_IDLE_KEYS: usize = 1024;

impl<K: Eq + Hash> ConcurrencyLimit<K> {
    /// Allows `each` concurrent operations for each key.
    pub fn new(each: usize) -> Self {
        Self { per_key: each, semaphores: Mutex::default() }
    }

    /// Waits for a permit for this key. The operation counts until the permit is dropped. Never `None` in practice, as
    /// the semaphores are not closed.
    pub async fn take(&self, key: K) -> Option<OwnedSemaphorePermit> {
        self.semaphore(key).acquire_owned().await.ok()
    }

    /// Takes a permit for this key without waiting; `None` when all are in use.
    pub fn try_take(&self, key: K) -> Option<OwnedSemaphorePermit> {
        self.semaphore(key).try_acquire_owned().ok()
    }

    fn semaphore(&self, key: K) -> Arc<Semaphore> {
        let mut all = self.semaphores.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() > MAX_IDLE_KEYS {
            all.retain(|_, semaphore| semaphore.available_permits() < self.per_key);
        }
        all.entry(key).or_insert_with(|| Arc::new(Semaphore::new(self.per_key))).clone()
    }
}

/// Limits concurrent connections or requests, in total, for each client, and for each network: one owner often has all
/// addresses of a network, so that a limit for each client alone would leave the whole total to one owner. Nothing waits: a
/// client beyond the limit is told to come back later, so that it does not hold a connection meanwhile.
pub struct ClientLimit {
    total: Arc<Semaphore>,
    shares: Option<Shares>,
}

/// What a client and a network may have at once.
struct Shares {
    clients: ConcurrencyLimit,
    networks: ConcurrencyLimit,
}

/// The number of parts of the total, of which one network may have one: an eighth.
const NETWORKS_IN_TOTAL: usize = 8;

/// A connection or request that counts until it is dropped.
#[derive(Debug)]
pub struct Admission {
    _total: OwnedSemaphorePermit,
    _share: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitReached {
    /// The limit for all clients together.
    Total,
    /// The limit for this client, or for its network.
    Client,
}

impl ClientLimit {
    /// Allows `total` at once, and `per_client` for each client, grouped by [`client`]; `None` does not limit it. A network,
    /// grouped by [`network`], then has an eighth of the total, but at least twice what a client has, so that no client keeps
    /// out its neighbors.
    pub fn new(total: usize, per_client: Option<usize>) -> Self {
        let shares = |each: usize| Shares {
            clients: ConcurrencyLimit::new(each),
            networks: ConcurrencyLimit::new((2 * each).max(total / NETWORKS_IN_TOTAL)),
        };
        Self { total: Arc::new(Semaphore::new(total)), shares: per_client.map(shares) }
    }

    /// Counts a connection or request. `from` is `None` for a local one, which only counts in total.
    ///
    /// # Errors
    ///
    /// If a limit is reached. A client beyond its own limit takes nothing from the others.
    pub fn try_take(&self, from: Option<IpAddr>) -> Result<Admission, LimitReached> {
        let share = match (&self.shares, from) {
            (Some(shares), Some(from)) => Some(shares.try_take(from).ok_or(LimitReached::Client)?),
            _ => None,
        };
        let of_total = self.total.clone().try_acquire_owned().map_err(|_| LimitReached::Total)?;
        Ok(Admission { _total: of_total, _share: share })
    }
}

impl Shares {
    fn try_take(&self, from: IpAddr) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        Some((self.clients.try_take(client(from))?, self.networks.try_take(network(from))?))
    }
}

/// Limits how often each client may do something. Allows bursts: a client may use its whole allowance at once.
pub struct RateLimiter {
    /// The average time between two requests of one client.
    interval: Duration,
    /// The period that the allowance is for.
    within: Duration,
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    /// For each client, when its requests so far are used up at the average rate.
    until: HashMap<IpAddr, Instant>,
    /// When idle clients were last removed, which visits every entry.
    swept: Option<Instant>,
}

/// The number of clients that are counted separately; further clients share one allowance.
const MAX_CLIENTS: usize = 100_000;

impl RateLimiter {
    /// Allows `most` requests within the period `within` for each client.
    pub fn new(most: u32, within: Duration) -> Self {
        Self { interval: within / most.max(1), within, used: Mutex::default() }
    }

    /// Counts a request from this address, grouped by [`client`]. Returns false, without counting the request, when the
    /// client has used up its allowance.
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

/// The key shared by clients beyond [`MAX_CLIENTS`].
const OVERFLOW_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The key that a client address is counted under: an IPv4 address itself, or the /64 prefix of an IPv6 address, since
/// one machine can use any address of its /64.
pub fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

/// The network of an address, which usually has a single owner: the /24 of an IPv4 address, the /48 of an IPv6 address.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
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
    fn ipv6_clients_are_grouped_by_their_64_bit_prefix() {
        let of = |text: &str| client(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::9"));
        assert_ne!(of("2001:db8:1:2::9"), of("2001:db8:1:3::9"));
    }

    #[tokio::test]
    async fn concurrency_is_limited_for_each_address_separately() {
        let limit: ConcurrencyLimit = ConcurrencyLimit::new(3);
        let (one, other) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(limit.take(one).await);
        }
        let full = limit.take(one);
        tokio::pin!(full);
        assert!(futures_util::poll!(&mut full).is_pending());
        assert!(limit.take(other).await.is_some());
        assert!(limit.try_take(one).is_none());
        held.pop();
        assert!(full.await.is_some());
        assert!(limit.try_take(one).is_some());
    }

    #[test]
    fn each_client_has_a_share_of_the_total_and_an_ipv6_network_is_one_client() {
        let limit = ClientLimit::new(3, Some(2));
        let [one, same, other]: [IpAddr; 3] =
            ["2001:db8::1", "2001:db8::ffff", "192.0.2.1"].map(|text| text.parse().unwrap());
        let first = limit.try_take(Some(one)).unwrap();
        let _second = limit.try_take(Some(same)).unwrap();
        assert_eq!(limit.try_take(Some(one)).unwrap_err(), LimitReached::Client);
        let third = limit.try_take(Some(other)).unwrap();
        assert_eq!(limit.try_take(None).unwrap_err(), LimitReached::Total);
        assert_eq!(limit.try_take(Some(other)).unwrap_err(), LimitReached::Total);
        drop(third);
        assert!(limit.try_take(None).is_ok() && limit.try_take(Some(same)).is_err());
        drop(first);
        assert!(limit.try_take(Some(same)).is_ok());
        let local = ClientLimit::new(2, None);
        let _both = (local.try_take(Some(one)).unwrap(), local.try_take(Some(one)).unwrap());
        assert_eq!(local.try_take(Some(one)).unwrap_err(), LimitReached::Total);
    }

    #[test]
    fn a_network_has_an_eighth_of_the_total_however_many_clients_it_has() {
        let limit = ClientLimit::new(64, Some(2));
        let of = |network: u16, client: u16| Some(IpAddr::from([0x2001, 0xdb8, network, client, 0, 0, 0, 1]));
        let taken: Vec<_> = (0..100).filter_map(|client| limit.try_take(of(1, client)).ok()).collect();
        assert_eq!(taken.len(), 8);
        assert_eq!(limit.try_take(of(1, 200)).unwrap_err(), LimitReached::Client);
        assert!(limit.try_take(of(2, 0)).is_ok());
        let v4 = |last: u8| limit.try_take(Some(IpAddr::from([192, 0, 2, last]))).ok();
        assert_eq!((0..100).filter_map(v4).collect::<Vec<_>>().len(), 8);
        // One client leaves as much to its neighbors as it has itself.
        let small = ClientLimit::new(8, Some(3));
        let of_two = |client| (0..9).filter_map(|_| small.try_take(of(1, client)).ok()).collect::<Vec<_>>();
        let (one, other) = (of_two(0), of_two(1));
        assert_eq!((one.len(), other.len()), (3, 3));
        assert!(small.try_take(of(1, 2)).is_err() && small.try_take(of(2, 0)).is_ok());
    }

    #[test]
    fn the_rate_is_limited_for_each_client_separately() {
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
    fn clients_beyond_the_maximum_share_an_allowance_until_idle_ones_are_removed() {
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
    fn networks_are_24_bits_of_ipv4_and_48_bits_of_ipv6() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(
            (network("192.0.2.77"), network("::ffff:192.0.2.77")),
            ("192.0.2.0".into(), "192.0.2.0".into())
        );
        assert_eq!(network("2001:db8:1:2::3"), "2001:db8:1::");
    }
}
