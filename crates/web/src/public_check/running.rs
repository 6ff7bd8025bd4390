//! Public checks that run: each has a page that shows what was answered so far, until the result is stored. A second request
//! for the same domain joins the check that runs. Ended checks are remembered for some minutes, so that their pages lead to
//! the result.

use super::CheckError;
use check::Progress;
use formats::DomainName;
use formats::limits::{
    EVIDENCE_CHARACTERS, PUBLIC_CHECK_ANSWERS, PUBLIC_CHECKS_OF_NETWORK, PUBLIC_CHECKS_STARTED,
};
use formats::printable::printable;
use net::rate_limit::network;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long an ended check is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How long requests for a domain get the check that has just ended, so that a page that is loaded twice starts one check.
const JUST_ENDED: Duration = Duration::from_secs(5);

/// How a check ended.
#[derive(Debug, Clone)]
pub enum End {
    /// The result is stored: the word of its link, and the result as JSON.
    Stored(Arc<str>, Arc<str>),
    /// There is no result. The log has the reason.
    Failed,
}

/// What a check is for. Servers that are slow on purpose can make checks last for minutes, so none may have all places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A client in this network asked for it.
    Network(IpAddr),
    /// A badge shows its result.
    Badge,
}

impl Purpose {
    /// A client with this address.
    pub fn client(address: IpAddr) -> Self {
        Self::Network(network(address))
    }
}

/// A check that runs or has ended.
pub struct RunningCheck {
    pub domain: DomainName,
    pub begun: Instant,
    purpose: Purpose,
    answers: Mutex<Vec<(String, String)>>,
    end: watch::Sender<Option<(Instant, End)>>,
}

impl RunningCheck {
    fn of(domain: &DomainName, purpose: Purpose, now: Instant) -> Self {
        let (domain, answers) = (domain.clone(), Mutex::default());
        Self { domain, begun: now, purpose, answers, end: watch::Sender::new(None) }
    }

    /// The answers so far: the part, such as `MX`, and what was seen.
    pub fn answers(&self) -> Vec<(String, String)> {
        locked(&self.answers).clone()
    }

    /// Waits for the end of the check.
    pub async fn ended(&self) -> End {
        let mut end = self.end.subscribe();
        // The sender is a part of this check, so it is there for as long as anybody waits.
        let seen = end.wait_for(Option::is_some).await;
        seen.ok().and_then(|seen| seen.as_ref().map(|(_, end)| end.clone())).unwrap_or(End::Failed)
    }

    /// The age of the end; `None` while the check runs.
    fn since_end(&self, now: Instant) -> Option<Duration> {
        self.end.borrow().as_ref().map(|(at, _)| now.saturating_duration_since(*at))
    }

    fn finish(&self, end: End) {
        self.end.send_if_modified(|current| {
            let is_first = current.is_none();
            if is_first {
                *current = Some((Instant::now(), end));
            }
            is_first
        });
    }
}

impl Progress for RunningCheck {
    fn seen(&self, part: &str, answer: &dyn Fn() -> String) {
        let mut answers = locked(&self.answers);
        if answers.len() < PUBLIC_CHECK_ANSWERS {
            let plain = |text: &str| printable(text, EVIDENCE_CHARACTERS);
            answers.push((plain(part), plain(&answer())));
        }
    }
}

/// Ends a check as failed when it is dropped before [`Started::finish`], as by a panic.
pub struct Started(Arc<RunningCheck>);

impl Started {
    pub fn check(&self) -> &RunningCheck {
        &self.0
    }

    pub fn finish(self, end: End) {
        self.0.finish(end);
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.0.finish(End::Failed);
    }
}

/// The checks by the random part of their page's link.
#[derive(Default)]
pub struct RunningChecks(Mutex<BTreeMap<String, Arc<RunningCheck>>>);

impl RunningChecks {
    /// The check with this page.
    pub fn find(&self, id: &str) -> Option<Arc<RunningCheck>> {
        locked(&self.0).get(id).cloned()
    }

    /// The check of the domain that runs or has just ended, or a new one under `id`, which the caller runs.
    pub fn start(
        &self,
        domain: &DomainName,
        id: String,
        purpose: Purpose,
        now: Instant,
    ) -> Result<(String, Arc<RunningCheck>, Option<Started>), CheckError> {
        let mut all = locked(&self.0);
        all.retain(|_, check| check.since_end(now).is_none_or(|age| age < REMEMBERED));
        let is_current = |check: &RunningCheck| check.since_end(now).is_none_or(|age| age < JUST_ENDED);
        if let Some((id, check)) = all.iter().find(|(_, check)| check.domain == *domain && is_current(check))
        {
            return Ok((id.clone(), check.clone(), None));
        }
        let running = || all.values().filter(|check| check.since_end(now).is_none());
        if running().filter(|check| check.purpose == purpose).count() >= PUBLIC_CHECKS_OF_NETWORK {
            return Err(CheckError::NetworkBusy);
        }
        if running().count() >= PUBLIC_CHECKS_STARTED {
            return Err(CheckError::RateLimit);
        }
        let check = Arc::new(RunningCheck::of(domain, purpose, now));
        all.insert(id.clone(), check.clone());
        Ok((id, check.clone(), Some(Started(check))))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(domain: &str) -> DomainName {
        DomainName::parse(domain).unwrap()
    }

    /// A client in a network of its own.
    fn client(number: usize) -> Purpose {
        let [.., a, b] = number.to_be_bytes();
        Purpose::client(IpAddr::from([10, a, b, 1]))
    }

    #[test]
    fn a_domain_has_one_check_at_a_time() {
        let (checks, now) = (RunningChecks::default(), Instant::now());
        let start = |domain: &str, id: &str, now| {
            checks.start(&name(domain), id.to_owned(), client(id.len()), now).ok().unwrap()
        };
        let (id, first, started) = start("a.example", "one", now);
        assert_eq!(id, "one");
        assert!(start("a.example", "two", now).2.is_none_or(|_| false));
        assert_eq!(start("a.example", "two", now).0, "one");
        assert_eq!(start("b.example", "three", now).0, "three");
        started.unwrap().finish(End::Stored("word".into(), "{}".into()));
        let end = first.end.borrow().clone();
        assert!(matches!(end, Some((_, End::Stored(word, _))) if &*word == "word"));
        assert_eq!(start("a.example", "four", now).0, "one", "it has just ended");
        let later = Instant::now() + JUST_ENDED;
        assert_eq!(start("a.example", "four", later).0, "four");
        assert!(checks.find("one").is_some());
        start("c.example", "five", Instant::now() + REMEMBERED);
        assert!(checks.find("one").is_none(), "forgotten");
    }

    #[test]
    fn neither_a_network_nor_the_badges_have_all_places() {
        let (checks, now) = (RunningChecks::default(), Instant::now());
        let start = |domain: String, purpose| checks.start(&name(&domain), domain.clone(), purpose, now);
        let address = |text: &str| Purpose::client(text.parse().unwrap());
        let mut started = Vec::new();
        for (first, second) in [
            (address("192.0.2.1"), address("192.0.2.200")),
            (address("2001:db8:0:1::1"), address("2001:db8:0:2::1")),
            (Purpose::Badge, Purpose::Badge),
        ] {
            for number in 0..PUBLIC_CHECKS_OF_NETWORK {
                started.push(start(format!("d{number}-{}.example", started.len()), first).ok().unwrap());
            }
            let more = || format!("more-{}.example", started.len());
            assert!(matches!(start(more(), second), Err(CheckError::NetworkBusy)), "{second:?}");
            // Whoever asks for a check that runs gets it.
            let (id, _, new) = start(started[0].0.clone(), second).ok().unwrap();
            assert!(id == started[0].0 && new.is_none());
        }
        let (_, _, first) = started.swap_remove(0);
        first.unwrap().finish(End::Failed);
        assert!(start("next.example".to_owned(), address("192.0.2.9")).is_ok());
    }

    #[test]
    fn a_check_that_is_dropped_has_failed() {
        let checks = RunningChecks::default();
        let (_, check, started) =
            checks.start(&name("a.example"), "one".to_owned(), client(1), Instant::now()).ok().unwrap();
        assert!(check.end.borrow().is_none());
        drop(started);
        assert!(matches!(*check.end.borrow(), Some((_, End::Failed))));
    }

    #[test]
    fn the_number_of_checks_and_of_their_answers_is_bounded() {
        let (checks, now) = (RunningChecks::default(), Instant::now());
        let mut started = Vec::new();
        for number in 0..PUBLIC_CHECKS_STARTED {
            let domain = name(&format!("d{number}.example"));
            started.push(checks.start(&domain, number.to_string(), client(number), now).ok().unwrap().2);
        }
        assert!(matches!(
            checks.start(&name("more.example"), "x".to_owned(), client(PUBLIC_CHECKS_STARTED), now),
            Err(CheckError::RateLimit)
        ));
        let check = checks.find("0").unwrap();
        for _ in 0..=PUBLIC_CHECK_ANSWERS {
            check.seen("MX\u{1b}", &|| "a".repeat(1_000_000));
        }
        let answers = check.answers();
        assert_eq!(answers.len(), PUBLIC_CHECK_ANSWERS);
        assert_eq!(answers[0].0, "MX\u{fffd}");
        assert_eq!(answers[0].1.chars().count(), EVIDENCE_CHARACTERS + 1);
    }
}
