//! SMTP sessions with MX hosts, with limits on concurrent connections per address and per network. Bulk
//! checks can share one session among all domains that use the same MX host.

use formats::hello::Version;
use net::rate_limit::{ConcurrencyLimit, network};
use net::smtp::{Fault, MailProbes, SessionFailure, SessionReport, Target, TlsDemand};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OnceCell, OwnedSemaphorePermit};

/// Maximum concurrent connections to one MX address.
const SESSIONS_PER_ADDRESS: usize = 8;
/// Maximum concurrent connections to one network (IPv4 /24, IPv6 /48).
const SESSIONS_PER_NETWORK: usize = 64;
/// Maximum number of cached session results; the cache is cleared when it is full.
const MAX_SHARED_SESSIONS: usize = 4096;

type Outcome = Result<SessionReport, Box<SessionFailure>>;

/// Opens SMTP sessions for checks, within the concurrency limits of this module.
pub struct Sessions {
    mail: Arc<dyn MailProbes>,
    addresses: ConcurrencyLimit,
    networks: ConcurrencyLimit,
    shared: Option<Mutex<HashMap<String, Arc<OnceCell<Outcome>>>>>,
}

impl Sessions {
    /// Creates sessions on top of `mail`. With `share`, one session per MX address and TLS demand serves all domains.
    pub fn new(mail: Arc<dyn MailProbes>, share: bool) -> Self {
        Self {
            mail,
            addresses: ConcurrencyLimit::new(SESSIONS_PER_ADDRESS),
            networks: ConcurrencyLimit::new(SESSIONS_PER_NETWORK),
            shared: share.then(Mutex::default),
        }
    }

    /// Opens a session without SNI in the handshake.
    pub(crate) async fn without_sni(&self, target: &Target) -> Outcome {
        let _permits = self.permits(target).await;
        self.mail.without_sni(target).await
    }

    /// The cipher suite that the host selects from `ciphers` in this TLS version; `None` when the handshake fails.
    pub(crate) async fn agrees(
        &self,
        target: &Target,
        version: Version,
        ciphers: &'static [u16],
    ) -> Option<u16> {
        let _permits = self.permits(target).await;
        self.mail.agrees(target, version, ciphers).await.ok().flatten()
    }

    /// The key exchange group that the host agrees on with a client that prefers post-quantum groups.
    pub(crate) async fn large_hello(&self, target: &Target) -> Result<String, Fault> {
        let _permits = self.permits(target).await;
        self.mail.large_hello(target).await
    }

    /// Whether the host answers a command sent in cleartext directly after STARTTLS (CVE-2011-0411).
    pub(crate) async fn accepts_injection(&self, target: &Target) -> bool {
        let _permits = self.permits(target).await;
        self.mail.accepts_injection(target).await.unwrap_or(false)
    }

    /// Opens a session, or returns the shared result of an earlier session with the same target and demand.
    pub(crate) async fn session(&self, target: &Target, demand: &TlsDemand) -> Outcome {
        let Some(shared) = &self.shared else { return self.open(target, demand).await };
        let cell = {
            let mut all = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= MAX_SHARED_SESSIONS {
                all.clear();
            }
            all.entry(format!("{target:?} {demand:?}")).or_default().clone()
        };
        cell.get_or_init(|| self.open(target, demand)).await.clone()
    }

    async fn open(&self, target: &Target, demand: &TlsDemand) -> Outcome {
        let _permits = self.permits(target).await;
        self.mail.session(target, demand, None).await
    }

    /// Waits for a permit for the target's network, then for one for its address.
    async fn permits(&self, target: &Target) -> [Option<OwnedSemaphorePermit>; 2] {
        [self.networks.take(network(target.address)).await, self.addresses.take(target.address).await]
    }
}
