//! Sessions with MX hosts, politely: few at once with one address and one network, and in bulk one for
//! all domains that share a host.

use formats::hello::Version;
use net::rate_limit::{ConcurrencyLimit, network};
use net::smtp::{MailProbes, SessionFailure, SessionReport, Target, TlsDemand};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OnceCell, OwnedSemaphorePermit};

/// Connections to one MX address at once.
const SESSIONS_PER_ADDRESS: usize = 8;
/// Connections into one network at once.
const SESSIONS_PER_NETWORK: usize = 64;
/// Shared outcomes that are remembered; all are dropped when there are more.
const MAX_SHARED_SESSIONS: usize = 4096;

type Outcome = Result<SessionReport, Box<SessionFailure>>;

/// See the module.
pub struct Sessions {
    mail: Arc<dyn MailProbes>,
    addresses: ConcurrencyLimit,
    networks: ConcurrencyLimit,
    shared: Option<Mutex<HashMap<String, Arc<OnceCell<Outcome>>>>>,
}

impl Sessions {
    /// Sessions by these means; `share` lets domains with the same MX host and demand have one session.
    pub fn new(mail: Arc<dyn MailProbes>, share: bool) -> Self {
        Self {
            mail,
            addresses: ConcurrencyLimit::new(SESSIONS_PER_ADDRESS),
            networks: ConcurrencyLimit::new(SESSIONS_PER_NETWORK),
            shared: share.then(Mutex::default),
        }
    }

    /// A session without the host's name in the handshake.
    pub(crate) async fn without_sni(&self, target: &Target) -> Outcome {
        let _place = self.place(target).await;
        self.mail.without_sni(target).await
    }

    /// The cipher that the host agrees to in this version, if it does.
    pub(crate) async fn agrees(
        &self,
        target: &Target,
        version: Version,
        ciphers: &'static [u16],
    ) -> Option<u16> {
        let _place = self.place(target).await;
        self.mail.agrees(target, version, ciphers).await.ok().flatten()
    }

    /// Whether a command hidden behind STARTTLS is answered.
    pub(crate) async fn takes_injection(&self, target: &Target) -> bool {
        let _place = self.place(target).await;
        self.mail.takes_injection(target).await.unwrap_or(false)
    }

    /// One session, or the one that was had for another domain.
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
        let _place = self.place(target).await;
        self.mail.session(target, demand, None).await
    }

    /// A place in the network, and one at the address.
    async fn place(&self, target: &Target) -> [Option<OwnedSemaphorePermit>; 2] {
        [self.networks.take(network(target.address)).await, self.addresses.take(target.address).await]
    }
}
