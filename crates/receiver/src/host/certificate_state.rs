//! The state of a policy host's certificate and its transitions: a pure function of the stored entry, the outcome of an
//! order and the clock.
//!
//! ```text
//!  added --> missing ---- issued ----> valid ------- renewal due, issued ------> valid
//!               |  ^                     |                                         ^
//!        failed |  | retry               +-- renewal due, failed --> retrying --+  |
//!               v  |                                                  ^    |    |  |
//!             failing                                                 +----+    |  |
//!                                                                    failed     |  |
//!                     expired <----------- expires_at has passed ---------------+  |
//!                        |                                                         |
//!                        +------------------------ issued -------------------------+
//! ```
//!
//! A host whose policy is no longer served keeps its certificate and is not renewed. An order that the CA's budget does
//! not allow yet changes nothing but the time of the next one. A certificate that Sternpost did not order never expires
//! here.

use jiff::{SignedDuration, Timestamp};
use net::clock::later;
use store::hosting::{LONGEST_RETRY, StoredCertificate};

/// The delay before the first retry; it doubles with each failure, up to [`LONGEST_RETRY`]: CAs allow about five failed
/// validations per host and hour.
pub(super) const FIRST_RETRY: SignedDuration = SignedDuration::from_mins(2);
/// The delay before the first retry after a failure that does not count against the CA's rate limits.
const FIRST_POLL: SignedDuration = SignedDuration::from_secs(5);
/// The shortest time from a certificate to the order of the next.
const SHORTEST_RENEWAL: SignedDuration = SignedDuration::from_hours(1);

/// The state of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CertificateState {
    /// No certificate was issued yet, and no order has failed.
    Missing,
    /// No certificate was issued yet, and the last order failed. Senders can't fetch the policy.
    Failing,
    /// The certificate is valid, and the last order succeeded.
    Valid,
    /// The certificate is valid, and its renewal failed.
    Retrying,
    /// The certificate has expired. Senders can't fetch the policy.
    Expired,
}

impl CertificateState {
    /// The state of an entry at the time `now`.
    pub(super) fn of(entry: &StoredCertificate, now: Timestamp) -> Self {
        match (entry.chain.is_empty(), entry.expires_at <= now, entry.failures) {
            (true, _, 0) => Self::Missing,
            (true, ..) => Self::Failing,
            (false, true, _) => Self::Expired,
            (false, false, 0) => Self::Valid,
            (false, false, _) => Self::Retrying,
        }
    }

    /// True if senders can fetch the policy.
    pub(super) fn is_usable(self) -> bool {
        matches!(self, Self::Valid | Self::Retrying)
    }
}

/// The outcome of a round for a certificate that was due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The host's policy is no longer served.
    NotServed,
    /// The CA's budget allows no order now. The budget recovers soon, and the host is not at fault.
    OverBudget,
    /// The order failed.
    Failed {
        /// The reason, as operators see it.
        problem: String,
        /// False if the failure did not reach the CA, so that it does not count against the CA's rate limits.
        counts: bool,
    },
    /// The CA issued this certificate.
    Issued {
        /// The certificate chain in PEM.
        chain: String,
        /// The private key as it is stored: in PEM, or encrypted by the vault.
        key: String,
        /// The end of the certificate's validity.
        expires_at: Timestamp,
        /// The time of the planned renewal.
        renew_at: Timestamp,
    },
}

/// The entry after an outcome at the time `now`.
pub(super) fn after(before: StoredCertificate, outcome: Outcome, now: Timestamp) -> StoredCertificate {
    match outcome {
        Outcome::NotServed => StoredCertificate { next_at: later(now, LONGEST_RETRY), ..before },
        Outcome::OverBudget => StoredCertificate { next_at: later(now, FIRST_RETRY), ..before },
        Outcome::Failed { problem, counts } => {
            let failures = before.failures.saturating_add(1);
            let first = if counts { FIRST_RETRY } else { FIRST_POLL };
            StoredCertificate { failures, next_at: later(now, delay(first, failures)), problem, ..before }
        }
        Outcome::Issued { chain, key, expires_at, renew_at } => StoredCertificate {
            host: before.host,
            chain,
            key,
            expires_at,
            next_at: renew_at.max(later(now, SHORTEST_RENEWAL)),
            failures: 0,
            problem: String::new(),
        },
    }
}

fn delay(first: SignedDuration, failures: u32) -> SignedDuration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::DomainName;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3600).unwrap()
    }

    fn missing() -> StoredCertificate {
        StoredCertificate::to_order(DomainName::parse("mta-sts.a.example").unwrap(), at(0))
    }

    fn issued(expires_at: Timestamp, renew_at: Timestamp) -> Outcome {
        Outcome::Issued { chain: "chain".into(), key: "key".into(), expires_at, renew_at }
    }

    fn failed(counts: bool) -> Outcome {
        Outcome::Failed { problem: "refused".into(), counts }
    }

    #[test]
    fn a_certificate_goes_through_its_states() {
        let state = CertificateState::of;
        let first = missing();
        assert_eq!(state(&first, at(0)), CertificateState::Missing);
        let failing = after(first, failed(true), at(0));
        assert_eq!(state(&failing, at(0)), CertificateState::Failing);
        let valid = after(failing, issued(at(90), at(60)), at(1));
        assert_eq!(
            (state(&valid, at(2)), valid.next_at, valid.failures),
            (CertificateState::Valid, at(60), 0)
        );
        let retrying = after(valid, failed(true), at(60));
        assert_eq!(state(&retrying, at(61)), CertificateState::Retrying);
        assert_eq!((retrying.chain.as_str(), retrying.expires_at), ("chain", at(90)));
        assert_eq!(state(&retrying, at(90)), CertificateState::Expired);
        let renewed = after(retrying, issued(at(180), at(150)), at(91));
        assert_eq!(state(&renewed, at(92)), CertificateState::Valid);
        assert!(renewed.problem.is_empty());
    }

    #[test]
    fn what_is_not_a_failure_of_the_host_changes_nothing_but_the_next_time() {
        let valid = after(missing(), issued(at(90), at(60)), at(1));
        for outcome in [Outcome::NotServed, Outcome::OverBudget] {
            let rest = after(valid.clone(), outcome, at(60));
            assert_eq!(rest, StoredCertificate { next_at: rest.next_at, ..valid.clone() });
            assert!(rest.next_at > at(60));
        }
    }

    #[test]
    fn delays_double_from_two_minutes_to_half_a_day() {
        let minutes = |failures| delay(FIRST_RETRY, failures).as_mins();
        assert_eq!([minutes(1), minutes(2), minutes(3)], [2, 4, 8]);
        assert_eq!((minutes(40), minutes(u32::MAX)), (720, 720));
        let soon = after(missing(), failed(false), at(0));
        assert_eq!(soon.next_at, later(at(0), FIRST_POLL));
    }

    #[test]
    fn a_renewal_time_in_the_past_is_not_retried_in_a_loop() {
        let odd = after(missing(), issued(at(90), at(0)), at(1));
        assert_eq!(odd.next_at, later(at(1), SHORTEST_RENEWAL));
    }
}
