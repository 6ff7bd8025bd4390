//! Failures that many requests or rounds meet while the database is away. They are logged once when they begin and once when
//! they are over: strangers decide how many requests there are, and must not fill the log.

use crate::StoreError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failures are over when something works and none was met for this time. So a database that answers every other request is one
/// outage.
const QUIET: Duration = Duration::from_secs(10);
/// An outage that lasts is logged again after this time.
const REMINDER: Duration = Duration::from_secs(3600);

/// Whether something that needs the database fails at the moment.
#[derive(Debug)]
pub struct Outage {
    failing: Mutex<Option<Failing>>,
    /// Whether `failing` is `Some`, so that success costs no lock.
    is_failing: AtomicBool,
    quiet: Duration,
    reminder: Duration,
}

#[derive(Debug)]
struct Failing {
    failures: u64,
    last: Instant,
    logged: Instant,
}

impl Outage {
    /// Logs an outcome, if that is news: the failure as `fails`, and its end as `again`.
    pub fn log<T>(&self, outcome: &Result<T, StoreError>, fails: &str, again: &str) {
        match outcome {
            Ok(_) => {
                if let Some(failures) = self.ends() {
                    tracing::info!(failures, "{again}");
                }
            }
            Err(error) if self.is_news(error) => tracing::error!("{fails}: {error}"),
            Err(_) => {}
        }
    }

    /// Nothing has failed yet.
    pub const fn new() -> Self {
        Self {
            failing: Mutex::new(None),
            is_failing: AtomicBool::new(false),
            quiet: QUIET,
            reminder: REMINDER,
        }
    }

    /// Records a failure. True if the caller is to log it: an outage begins or has lasted for another hour, or the failure is
    /// about one row of the database.
    pub fn is_news(&self, error: &StoreError) -> bool {
        matches!(error, StoreError::Damaged { .. }) || self.begins()
    }

    /// As [`Self::is_news`], for a failure of any kind.
    pub fn begins(&self) -> bool {
        let (mut failing, now) = (self.lock(), Instant::now());
        self.is_failing.store(true, Ordering::SeqCst);
        let begun = Failing { failures: 0, last: now, logged: now };
        let is_new = failing.is_none();
        let failing = failing.get_or_insert(begun);
        failing.failures = failing.failures.saturating_add(1);
        failing.last = now;
        let is_news = is_new || now.duration_since(failing.logged) >= self.reminder;
        if is_news {
            failing.logged = now;
        }
        is_news
    }

    /// Records a success. The number of failures if an outage is over by it, for the caller to log.
    pub fn ends(&self) -> Option<u64> {
        if !self.is_failing.load(Ordering::SeqCst) {
            return None;
        }
        let mut failing = self.lock();
        let over = failing.take_if(|failing| failing.last.elapsed() >= self.quiet)?;
        self.is_failing.store(false, Ordering::SeqCst);
        Some(over.failures)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Failing>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Outage {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_logged_when_it_begins_and_when_it_is_over() {
        let outage = Outage { quiet: Duration::ZERO, ..Outage::new() };
        let away = || StoreError::Unreachable {
            database: "x".to_owned(),
            why: "refused".to_owned(),
            is_missing: false,
        };
        assert_eq!(outage.ends(), None);
        let news: Vec<bool> = (0..1000).map(|_| outage.is_news(&away())).collect();
        assert!(news[0] && news[1..].iter().all(|is_news| !is_news));
        assert!(outage.is_news(&StoreError::Damaged { table: "policy", why: "x".to_owned() }), "one row");
        assert_eq!((outage.ends(), outage.ends()), (Some(1000), None));
        assert!(outage.is_news(&away()));
    }

    #[test]
    fn a_database_that_answers_now_and_then_is_one_outage_and_one_that_lasts_is_logged_again() {
        let outage = Outage::new();
        assert!(outage.begins() && !outage.begins());
        assert_eq!(outage.ends(), None, "a failure is seconds old");
        assert!(!outage.begins());
        let lasting = Outage { reminder: Duration::ZERO, ..Outage::new() };
        assert!(lasting.begins() && lasting.begins());
    }
}
