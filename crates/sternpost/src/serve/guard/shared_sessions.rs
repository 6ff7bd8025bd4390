//! SMTP sessions that the checks of several domains share: one MX host may serve thousands of them, and is not to be asked for
//! each one.

use futures_util::FutureExt;
use futures_util::future::Shared;
use net::BoxFuture;
use net::smtp::{Mail, MailHosts, SessionFailure, SessionReport, Target, TlsDemand};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long the result of a session is used at most.
const LONGEST: Duration = Duration::from_secs(300);
/// The number of sessions that are remembered. Further hosts are asked for each domain.
const SESSIONS: usize = 4096;

type Outcome = Result<SessionReport, Box<SessionFailure>>;
/// A session that runs or has ended; `None` if it ended by a defect.
type SharedSession = Shared<BoxFuture<'static, Option<Outcome>>>;

/// Mail hosts whose sessions without a mail are shared.
pub struct SharedSessions {
    hosts: Arc<dyn MailHosts>,
    /// How long a session is used from its beginning.
    lasts: Duration,
    /// The sessions by host name and address, with their beginning.
    sessions: Mutex<HashMap<(String, IpAddr), (Instant, SharedSession)>>,
}

impl SharedSessions {
    /// Sessions are used for five minutes, and for less than the interval between two checks of a domain.
    pub fn new(hosts: Arc<dyn MailHosts>, every: Duration) -> Self {
        Self { hosts, lasts: LONGEST.min(every) * 3 / 4, sessions: Mutex::default() }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<(String, IpAddr), (Instant, SharedSession)>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session with this target; a new one if there is none. `None` if too many are remembered.
    fn shared(&self, target: &Target) -> Option<SharedSession> {
        let mut sessions = self.sessions();
        let key = (target.host.to_string(), target.address);
        if let Some((begun, session)) = sessions.get(&key)
            && begun.elapsed() < self.lasts
        {
            return Some(session.clone());
        }
        if sessions.len() >= SESSIONS {
            sessions.retain(|_, (begun, _)| begun.elapsed() < self.lasts);
        }
        if sessions.len() >= SESSIONS {
            return None;
        }
        let (hosts, target) = (self.hosts.clone(), target.clone());
        // A task of its own: the check that began the session may give up before others do.
        let task = tokio::spawn(async move { hosts.session(&target, &TlsDemand::Pkix, None).await });
        let session = async move { task.await.ok() }.boxed().shared();
        sessions.insert(key, (Instant::now(), session.clone()));
        Some(session)
    }
}

impl MailHosts for SharedSessions {
    fn session<'a>(
        &'a self,
        target: &'a Target,
        demand: &'a TlsDemand,
        mail: Option<&'a Mail>,
    ) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let may_share = mail.is_none() && *demand == TlsDemand::Pkix;
            if let Some(session) = may_share.then(|| self.shared(target)).flatten()
                && let Some(outcome) = session.await
            {
                return outcome;
            }
            self.hosts.session(target, demand, mail).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::DomainName;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A host that counts its sessions, each of which takes a minute.
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
            Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok(SessionReport::new(target))
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn domains_share_a_session_and_the_next_check_of_a_domain_has_a_new_one() {
        let counting = Arc::new(Counting::default());
        let shared = SharedSessions::new(counting.clone(), Duration::from_secs(300));
        let target =
            |host: &str| Target { host: DomainName::parse(host).unwrap(), address: [192, 0, 2, 1].into() };
        let (mx, other) = (target("mx.example"), target("other.example"));
        let session = async |target: &Target| shared.session(target, &TlsDemand::Pkix, None).await.unwrap();
        // The first check gives up, and the session goes on.
        let gave_up = tokio::time::timeout(Duration::from_secs(5), session(&mx)).await;
        assert!(gave_up.is_err());
        let (one, two) = tokio::join!(session(&mx), session(&mx));
        assert_eq!((&one, one.target.host.as_str()), (&two, "mx.example"));
        assert_eq!(counting.0.load(Ordering::Relaxed), 1);
        session(&other).await;
        assert_eq!(counting.0.load(Ordering::Relaxed), 2);
        tokio::time::advance(Duration::from_secs(225)).await;
        session(&mx).await;
        assert_eq!(counting.0.load(Ordering::Relaxed), 3, "the result is too old");
        shared.session(&mx, &TlsDemand::Encrypt, None).await.unwrap();
        assert_eq!(counting.0.load(Ordering::Relaxed), 4, "another demand");
    }
}
