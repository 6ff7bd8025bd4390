//! Password hashes: Argon2id in PHC string format. A hash takes much memory and CPU time, and strangers cause them, so the
//! hashes at once and those that wait are bounded. A client and a network of strangers have a part of the slots. Known
//! browsers, and users with a session or an invitation, have slots of their own, which strangers cannot use up, and of
//! which each account has a part.

use crate::sign_in_limits::Account;
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use config::failure::Failure;
use net::rate_limit::{Admission, ClientLimit, ConcurrencyLimit};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The minimum length of a password, in characters.
pub const MIN_PASSWORD_CHARS: usize = 12;
/// The maximum length of a password, in characters.
pub const MAX_PASSWORD_CHARS: usize = 256;

/// Hashes at once for strangers, and for known users.
const HASHES_AT_ONCE: (usize, usize) = (2, 1);
/// Hashes that are computed or wait, for strangers and for known users.
const MAX_PENDING: (usize, usize) = (16, 8);
/// Hashes that are computed or wait for one client address of strangers. A network has twice as many.
const MAX_PENDING_PER_CLIENT: usize = 2;
/// Hashes that are computed or wait for one account among the known users.
const MAX_PENDING_PER_ACCOUNT: usize = 2;

/// The client or account that a hash is computed for, by which the queue is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requester {
    /// Anyone who reaches the sign-in page, from this address.
    Stranger(Option<IpAddr>),
    /// A browser that signed in to this account before, a session, or an invitation of it, at this address.
    Known(Account, Option<IpAddr>),
}

/// Too many hashes are pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// Computes hashes, a bounded number at a time.
pub struct PasswordHashing {
    strangers: QueueSlots,
    known: QueueSlots,
    /// The part of each account of the slots of known users.
    accounts: ConcurrencyLimit<Account>,
    /// A hash to verify against if the user name is unknown, so that both cases take equally long.
    dummy_hash: String,
}

struct QueueSlots {
    running: Arc<Semaphore>,
    pending: ClientLimit,
}

/// A slot of a hash that is computed or waits.
struct QueueSlot {
    running: Arc<Semaphore>,
    _held: (Admission, Option<OwnedSemaphorePermit>),
}

impl PasswordHashing {
    /// # Errors
    ///
    /// If the system can't provide random bytes.
    pub fn new() -> Result<Self, Failure> {
        let slots = |at_once, pending, per_client| QueueSlots {
            running: Arc::new(Semaphore::new(at_once)),
            pending: ClientLimit::new(pending, per_client),
        };
        Ok(Self {
            strangers: slots(HASHES_AT_ONCE.0, MAX_PENDING.0, Some(MAX_PENDING_PER_CLIENT)),
            known: slots(HASHES_AT_ONCE.1, MAX_PENDING.1, None),
            accounts: ConcurrencyLimit::new(MAX_PENDING_PER_ACCOUNT),
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
    pub async fn hash(&self, by: Requester, password: String) -> Result<Result<String, Failure>, Busy> {
        self.run(by, move || hash(&password)).await
    }

    /// A slot for a hash. A known user who has used up the slots of the account gets one of those of strangers.
    fn slot(&self, by: Requester) -> Result<QueueSlot, Busy> {
        let address = match by {
            Requester::Stranger(address) => address,
            Requester::Known(account, address) => {
                if let Some(own) = self.accounts.try_take(account)
                    && let Ok(pending) = self.known.pending.try_take(None)
                {
                    let running = self.known.running.clone();
                    return Ok(QueueSlot { running, _held: (pending, Some(own)) });
                }
                address
            }
        };
        let pending = self.strangers.pending.try_take(address).map_err(|_| Busy)?;
        Ok(QueueSlot { running: self.strangers.running.clone(), _held: (pending, None) })
    }

    /// The slot is held until the hash is computed, also if the request ends before.
    async fn run<T: Send + 'static>(
        &self,
        by: Requester,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let slot = self.slot(by)?;
        let running = slot.running.clone().acquire_owned().await.map_err(|_| Busy)?;
        let work = move || {
            let made = work();
            drop((slot, running));
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
    use store::Tenant;

    fn known(name: &str) -> Requester {
        Requester::Known(Account::new(Tenant::FIRST, name), Some(IpAddr::from([198, 51, 100, 1])))
    }

    #[tokio::test]
    async fn a_password_is_verified_against_its_hash_and_never_without_one() {
        let hashing = PasswordHashing::new().unwrap();
        let stored = hashing.hash(known("ann"), "correct horse battery".to_owned()).await.unwrap().unwrap();
        let verify = async |stored: Option<&str>, password: &str| {
            hashing.verify(known("ann"), stored, password.to_owned()).await.unwrap()
        };
        assert!(verify(Some(&stored), "correct horse battery").await);
        assert!(!verify(Some(&stored), "correct horse batterx").await);
        assert!(!verify(Some("not a hash"), "").await && !verify(None, "").await);
    }

    #[tokio::test]
    async fn a_longer_password_is_not_that_of_its_first_characters() {
        let hashing = PasswordHashing::new().unwrap();
        let longest = "x".repeat(MAX_PASSWORD_CHARS);
        let stored = hashing.hash(known("ann"), longest.clone()).await.unwrap().unwrap();
        for (password, is_right) in [(longest.clone(), true), (format!("{longest}y"), false)] {
            let verified = hashing.verify(known("ann"), Some(&stored), password).await;
            assert_eq!(verified, Ok(is_right));
        }
    }

    /// Hashes that last until the sender is dropped.
    type Occupied = (mpsc::Sender<()>, Vec<tokio::task::JoinHandle<Result<(), Busy>>>);

    /// Begins hashes that last until the sender is dropped.
    fn occupy(hashing: &Arc<PasswordHashing>, by: Requester, count: usize) -> Occupied {
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

    /// Waits until so many of the tasks' hashes have a slot, or none is free.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    async fn free(all: Vec<Occupied>) {
        for (ends, tasks) in all {
            drop(ends);
            for task in tasks {
                assert_eq!(task.await.unwrap(), Ok(()));
            }
        }
    }

    #[tokio::test]
    async fn strangers_wait_in_a_bounded_queue_and_known_users_have_places_of_their_own() {
        let hashing = Arc::new(PasswordHashing::new().unwrap());
        let stranger = |network: u8| Requester::Stranger(Some(IpAddr::from([192, 0, network, 1])));
        let mut all = Vec::new();
        for network in 0..8 {
            all.push(occupy(&hashing, stranger(network), MAX_PENDING_PER_CLIENT));
        }
        while hashing.strangers.pending.try_take(None).is_ok() {
            tokio::task::yield_now().await;
        }
        assert_eq!(hashing.run(stranger(0), || ()).await, Err(Busy));
        assert_eq!(hashing.run(stranger(9), || ()).await, Err(Busy), "all slots are in use");
        assert_eq!(hashing.run(known("ann"), || ()).await, Ok(()));
        free(all).await;
        assert_eq!(hashing.run(stranger(0), || ()).await, Ok(()));
    }

    #[tokio::test]
    async fn one_network_of_strangers_leaves_places_to_others() {
        let hashing = Arc::new(PasswordHashing::new().unwrap());
        let in_network = |network: u16, client: u16| {
            Requester::Stranger(Some(IpAddr::from([0x2001, 0xdb8, network, client, 0, 0, 0, 1])))
        };
        let mut all = Vec::new();
        for client in 0..4 {
            all.push(occupy(&hashing, in_network(1, client), 1));
        }
        settle().await;
        assert!(hashing.slot(in_network(1, 9)).is_err());
        let other = hashing.slot(in_network(2, 0));
        assert!(other.is_ok());
        drop(other);
        free(all).await;
    }

    #[tokio::test]
    async fn one_account_leaves_places_to_other_known_users_and_may_use_those_of_strangers() {
        let hashing = Arc::new(PasswordHashing::new().unwrap());
        let slots: Vec<_> = (0..9).map_while(|_| hashing.slot(known("ron")).ok()).collect();
        let is_known = |slot: &&QueueSlot| Arc::ptr_eq(&slot.running, &hashing.known.running);
        let of_known = slots.iter().filter(is_known).count();
        assert_eq!((of_known, slots.len()), (MAX_PENDING_PER_ACCOUNT, 2 * MAX_PENDING_PER_ACCOUNT));
        assert_eq!(hashing.run(known("alice"), || ()).await, Ok(()));
    }

    #[tokio::test]
    async fn a_request_that_ends_early_keeps_its_place_until_the_hash_is_computed() {
        let hashing = Arc::new(PasswordHashing::new().unwrap());
        let (ends, tasks) = occupy(&hashing, known("ann"), 1);
        while hashing.known.running.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        for task in tasks {
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert_eq!(hashing.known.running.available_permits(), 0);
        drop(ends);
        assert_eq!(hashing.run(known("ann"), || ()).await, Ok(()));
    }
}
