//! Password hashes: Argon2id in PHC string format. A hash takes much memory and CPU time, and strangers cause them, so the
//! hashes at once and those that wait are bounded. Known browsers, and users with a session or an invitation, have places
//! of their own, which strangers cannot use up.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use config::failure::Failure;
use net::rate_limit::ClientLimit;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The minimum length of a password, in characters.
pub const MIN_PASSWORD_CHARS: usize = 12;
/// The maximum length of a password, in characters.
pub const MAX_PASSWORD_CHARS: usize = 256;

/// Hashes at once for strangers, and for known users.
const HASHES_AT_ONCE: (usize, usize) = (2, 1);
/// Hashes that are computed or wait, for strangers and for known users.
const MAX_PENDING: (usize, usize) = (16, 8);
/// Hashes that are computed or wait for one client address of strangers.
const MAX_PENDING_PER_CLIENT: usize = 4;

/// Who causes a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requester {
    /// Anyone who reaches the sign-in page, from this address.
    Stranger(Option<IpAddr>),
    /// A browser that signed in before, a session, or an invitation.
    Known,
}

/// Too many hashes are pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// Computes hashes, a bounded number at a time.
pub struct PasswordHashing {
    strangers: Places,
    known: Places,
    /// A hash to verify against if the user name is unknown, so that both cases take equally long.
    dummy_hash: String,
}

struct Places {
    running: Arc<Semaphore>,
    pending: ClientLimit,
}

impl PasswordHashing {
    /// # Errors
    ///
    /// If the system can't provide random bytes.
    pub fn new() -> Result<Self, Failure> {
        let places = |at_once, pending, per_client| Places {
            running: Arc::new(Semaphore::new(at_once)),
            pending: ClientLimit::new(pending, per_client),
        };
        Ok(Self {
            strangers: places(HASHES_AT_ONCE.0, MAX_PENDING.0, Some(MAX_PENDING_PER_CLIENT)),
            known: places(HASHES_AT_ONCE.1, MAX_PENDING.1, None),
            dummy_hash: hash(&crate::auth::random_token()?)?,
        })
    }

    /// True if the password is that of the hash. Without a hash it takes as long, and is false.
    pub async fn verify(&self, by: Requester, stored: Option<&str>, password: String) -> Result<bool, Busy> {
        let is_known = stored.is_some();
        let stored = stored.unwrap_or(&self.dummy_hash).to_owned();
        let password: String = password.chars().take(MAX_PASSWORD_CHARS + 1).collect();
        Ok(self.run(by, move || verify(&stored, &password)).await? && is_known)
    }

    /// Hashes a new password of a user with a session or an invitation.
    pub async fn hash(&self, password: String) -> Result<Result<String, Failure>, Busy> {
        self.run(Requester::Known, move || hash(&password)).await
    }

    /// The place is held until the hash is computed, also if the request ends before.
    async fn run<T: Send + 'static>(
        &self,
        by: Requester,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let (places, client) = match by {
            Requester::Stranger(client) => (&self.strangers, client),
            Requester::Known => (&self.known, None),
        };
        let pending = places.pending.try_take(client).map_err(|_| Busy)?;
        let running = places.running.clone().acquire_owned().await.map_err(|_| Busy)?;
        let work = move || {
            let made = work();
            drop((pending, running));
            made
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Busy)
    }
}

/// Why a new password is refused; empty if it is not.
pub fn problem_with(password: &str, again: &str) -> &'static str {
    match password.chars().count() {
        _ if password != again => "The two passwords differ.",
        0..MIN_PASSWORD_CHARS => "The password is too short.",
        MIN_PASSWORD_CHARS..=MAX_PASSWORD_CHARS => "",
        _ => "The password is too long.",
    }
}

fn hash(password: &str) -> Result<String, Failure> {
    let fail = |error| Failure::new("can't hash the password", error, "");
    Ok(Argon2::default().hash_password(password.as_bytes()).map_err(fail)?.to_string())
}

fn verify(hash: &str, password: &str) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_password_is_verified_against_its_hash_and_never_without_one() {
        let hashing = PasswordHashing::new().unwrap();
        let stored = hashing.hash("correct horse battery".to_owned()).await.unwrap().unwrap();
        let verify = async |stored: Option<&str>, password: &str| {
            hashing.verify(Requester::Known, stored, password.to_owned()).await.unwrap()
        };
        assert!(verify(Some(&stored), "correct horse battery").await);
        assert!(!verify(Some(&stored), "correct horse batterx").await);
        assert!(!verify(Some("not a hash"), "").await && !verify(None, "").await);
    }

    #[tokio::test]
    async fn a_longer_password_is_not_that_of_its_first_characters() {
        let hashing = PasswordHashing::new().unwrap();
        let longest = "x".repeat(MAX_PASSWORD_CHARS);
        let stored = hashing.hash(longest.clone()).await.unwrap().unwrap();
        for (password, is_right) in [(longest.clone(), true), (format!("{longest}y"), false)] {
            let verified = hashing.verify(Requester::Known, Some(&stored), password).await;
            assert_eq!(verified, Ok(is_right));
        }
    }

    /// Hashes that last until the sender is dropped.
    fn occupy(
        hashing: &Arc<PasswordHashing>,
        by: Requester,
        count: usize,
    ) -> (mpsc::Sender<()>, Vec<tokio::task::JoinHandle<Result<(), Busy>>>) {
        let (ends, ended) = mpsc::channel::<()>();
        let ended = Arc::new(std::sync::Mutex::new(ended));
        let spawn = |_| {
            let (hashing, ended) = (hashing.clone(), ended.clone());
            let wait = move || {
                let _ = ended.lock().unwrap().recv();
            };
            tokio::spawn(async move { hashing.run(by, wait).await })
        };
        (ends, (0..count).map(spawn).collect())
    }

    #[tokio::test]
    async fn strangers_wait_in_a_bounded_queue_and_known_users_have_places_of_their_own() {
        let hashing = Arc::new(PasswordHashing::new().unwrap());
        let stranger = |last: u8| Requester::Stranger(Some(IpAddr::from([192, 0, 2, last])));
        let mut all = Vec::new();
        for last in 0..4 {
            all.push(occupy(&hashing, stranger(last), MAX_PENDING_PER_CLIENT));
        }
        while hashing.strangers.pending.try_take(None).is_ok() {
            tokio::task::yield_now().await;
        }
        assert_eq!(hashing.run(stranger(0), || ()).await, Err(Busy));
        assert_eq!(hashing.run(stranger(9), || ()).await, Err(Busy), "all places are in use");
        assert_eq!(hashing.run(Requester::Known, || ()).await, Ok(()));
        for (ends, tasks) in all {
            drop(ends);
            for task in tasks {
                assert_eq!(task.await.unwrap(), Ok(()));
            }
        }
        assert_eq!(hashing.run(stranger(0), || ()).await, Ok(()));
    }

    #[tokio::test]
    async fn a_request_that_ends_early_keeps_its_place_until_the_hash_is_computed() {
        let hashing = Arc::new(PasswordHashing::new().unwrap());
        let (ends, tasks) = occupy(&hashing, Requester::Known, 1);
        while hashing.known.running.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        for task in tasks {
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert_eq!(hashing.known.running.available_permits(), 0);
        drop(ends);
        assert_eq!(hashing.run(Requester::Known, || ()).await, Ok(()));
    }
}
