//! SMTP sessions with MX hosts, with limits on concurrent connections per address and per network. Bulk
//! checks can share one session among all domains that use the same MX host.

use formats::hello::Version;
use formats::tlsa::{TlsaRule, Usage};
use net::rate_limit::{ConcurrencyLimit, network};
use net::smtp::{Fault, MailProbes, SessionFailure, SessionReport, Target, TlsDemand};
use std::borrow::Cow;
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
        let demand = common(demand);
        let cell = {
            let mut all = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= MAX_SHARED_SESSIONS {
                all.clear();
            }
            all.entry(format!("{target:?} {demand:?}")).or_default().clone()
        };
        cell.get_or_init(|| self.open(target, &demand)).await.clone()
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

/// The demand that all domains with this MX host share: their own names count for usage 2 alone (RFC 7672 §3.2.2).
fn common(demand: &TlsDemand) -> Cow<'_, TlsDemand> {
    let TlsDemand::Dane { rule, base, .. } = demand else { return Cow::Borrowed(demand) };
    let has_names = match rule {
        TlsaRule::Authenticate(records) => records.iter().any(|record| record.usage == Usage::DaneTa),
        TlsaRule::Absent | TlsaRule::EncryptOnly => false,
    };
    match has_names {
        true => Cow::Borrowed(demand),
        false => {
            Cow::Owned(TlsDemand::Dane { rule: rule.clone(), base: base.clone(), next_hop: base.clone() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::DomainName;
    use formats::tlsa::{TlsaRecord, rule};
    use net::BoxFuture;
    use net::smtp::{Mail, MailHosts};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Counts its sessions.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl MailHosts for Counting {
        fn session<'a>(
            &'a self,
            target: &'a Target,
            _: &'a TlsDemand,
            _: Option<&'a Mail>,
        ) -> BoxFuture<'a, Outcome> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move { Ok(SessionReport::new(target)) })
        }
    }

    impl MailProbes for Counting {
        fn without_sni<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Outcome> {
            Box::pin(async move { Ok(SessionReport::new(target)) })
        }

        fn agrees<'a>(
            &'a self,
            _: &'a Target,
            _: Version,
            _: &'static [u16],
        ) -> BoxFuture<'a, Result<Option<u16>, Fault>> {
            Box::pin(async { Ok(None) })
        }

        fn large_hello<'a>(&'a self, _: &'a Target) -> BoxFuture<'a, Result<String, Fault>> {
            Box::pin(async { Ok(String::new()) })
        }

        fn accepts_injection<'a>(&'a self, _: &'a Target) -> BoxFuture<'a, Result<bool, Fault>> {
            Box::pin(async { Ok(false) })
        }
    }

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn demand(usage: u8, next_hop: &str) -> TlsDemand {
        let record = TlsaRecord { usage, selector: 1, matching: 1, data: vec![7; 32] };
        TlsDemand::Dane { rule: rule(&[record]), base: name("mx.example"), next_hop: name(next_hop) }
    }

    #[tokio::test]
    async fn domains_with_an_mx_host_share_its_session_unless_their_names_count() {
        for (share, usage, sessions) in [(true, 3, 1), (true, 2, 3), (false, 3, 3)] {
            let counting = Arc::new(Counting::default());
            let all = Sessions::new(counting.clone(), share);
            let target = Target { host: name("mx.example"), address: [192, 0, 2, 1].into() };
            for next_hop in ["a.example", "b.example", "c.example"] {
                all.session(&target, &demand(usage, next_hop)).await.unwrap();
            }
            assert_eq!(counting.0.load(Ordering::Relaxed), sessions, "{share} {usage}");
        }
        let counting = Arc::new(Counting::default());
        let all = Sessions::new(counting.clone(), true);
        let target = Target { host: name("mx.example"), address: [192, 0, 2, 1].into() };
        for _ in 0..3 {
            all.session(&target, &TlsDemand::Encrypt).await.unwrap();
        }
        assert_eq!(counting.0.load(Ordering::Relaxed), 1);
    }
}
