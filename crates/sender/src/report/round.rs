//! The delivery state of a report after one round of attempts (RPT-20): a pure function of the replies and the clock.
//!
//! ```text
//!   built
//!     |
//!     v
//!  waiting --- the domain requests no reports ----------------------> unwanted
//!   ^   |
//!   |   +----- a target accepted, and every other one was tried ----> sent
//!   |   |
//!   |   +----- every target refused, or REPORT_LIFE has passed -----> given-up
//!   |   |
//!   +---+----- a target failed temporarily: retry with a growing delay
//!       +----- a target is busy: a short delay, behind the reports that were not tried
//! ```
//!
//! `unwanted`, `sent` and `given-up` are final, except that an operator can queue the report again.

use formats::limits::REPORT_LIFE;
use jiff::{SignedDuration, Timestamp};
use net::clock::later;
use store::outgoing::{DeliveryState, Outgoing, Reply};

/// The delay after the first failed round; it doubles with each further one.
const FIRST_RETRY: SignedDuration = SignedDuration::from_mins(5);
/// The maximum delay between two rounds.
const MAX_RETRY: SignedDuration = SignedDuration::from_hours(4);

/// The shortest delay of a report with a busy target.
const BUSY_DELAY_SECS: i64 = 60;
/// The span, after [`BUSY_DELAY_SECS`], over which reports with a busy target are spread by their row ids, so that they do
/// not come back all at once.
const BUSY_SPREAD_SECS: i64 = 120;

/// The outcome of one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Round {
    /// The domain publishes no valid `_smtp._tls` record.
    NoRecord,
    /// The lookup of the record failed.
    LookUpFailed,
    /// The replies of the targets, in order; `None` for a target that was busy.
    Replies {
        /// The replies of the targets that decide about the report.
        targets: Vec<Option<Reply>>,
        /// The replies of the targets that get a copy.
        copies: Vec<Option<Reply>>,
    },
}

/// The transition that follows from a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transition {
    /// The report reaches a final state.
    Settle(DeliveryState),
    /// The next round is due at `due`.
    Retry {
        /// The time of the next round.
        due: Timestamp,
        /// The time of the first round that did not settle the report.
        first_try: Timestamp,
        /// The number of such rounds so far, without those in which a target was busy.
        tries: u32,
    },
}

/// The transition of a waiting report after a round at the time `now`.
pub(super) fn after(report: &Outgoing, round: &Round, now: Timestamp) -> Transition {
    let (replies, copies) = match round {
        Round::NoRecord => return Transition::Settle(DeliveryState::Unwanted),
        Round::LookUpFailed => return retry(report, now, DeliveryState::GivenUp),
        Round::Replies { targets, copies } => (targets, copies),
    };
    let has = |reply| replies.contains(&reply);
    if has(None) {
        return busy(report, now);
    }
    if has(Some(Reply::Accepted)) {
        // The report has arrived, and the other targets have been tried once. Only copies may be missing.
        return match () {
            () if copies.contains(&Some(Reply::Failed)) => retry(report, now, DeliveryState::Sent),
            () if copies.contains(&None) && !is_over(report, now) => busy(report, now),
            () => Transition::Settle(DeliveryState::Sent),
        };
    }
    match has(Some(Reply::Failed)) {
        true => retry(report, now, DeliveryState::GivenUp),
        false => Transition::Settle(DeliveryState::GivenUp),
    }
}

impl Round {
    /// True if a target was busy, or the shutdown had begun.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Replies { targets, copies } if targets.iter().chain(copies).any(Option::is_none))
    }
}

/// The report is postponed, so that it does not keep those from being tried that became due after it.
fn busy(report: &Outgoing, now: Timestamp) -> Transition {
    let delay = BUSY_DELAY_SECS + report.id.rem_euclid(BUSY_SPREAD_SECS);
    let due = later(now, SignedDuration::from_secs(delay));
    Transition::Retry { due, first_try: report.first_try.unwrap_or(now), tries: report.tries }
}

/// True at the end of [`REPORT_LIFE`].
fn is_over(report: &Outgoing, now: Timestamp) -> bool {
    report.first_try.is_some_and(|first| now >= later(first, REPORT_LIFE))
}

/// The last attempt is at the end of [`REPORT_LIFE`]; `at_end` is the state after it.
fn retry(report: &Outgoing, now: Timestamp, at_end: DeliveryState) -> Transition {
    let first_try = report.first_try.unwrap_or(now);
    let end = later(first_try, REPORT_LIFE);
    if now >= end {
        return Transition::Settle(at_end);
    }
    let delay = FIRST_RETRY.saturating_mul(1 << report.tries.min(10)).min(MAX_RETRY);
    Transition::Retry { due: later(now, delay).min(end), first_try, tries: report.tries.saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::DomainName;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3600).unwrap()
    }

    fn report(tries: u32, first_try: Option<Timestamp>) -> Outgoing {
        Outgoing {
            id: 1,
            day: at(-24),
            domain: DomainName::parse("a.example").unwrap(),
            report_id: "1".into(),
            successful: 1,
            failed: 0,
            state: DeliveryState::Waiting,
            tries,
            due: at(0),
            first_try,
            outcome_text: String::new(),
            claim: 1,
        }
    }

    #[test]
    fn a_round_settles_the_report_or_repeats_it() {
        let waiting = report(0, None);
        let with_copies = |targets: &[Option<Reply>], copies: &[Option<Reply>], now| {
            after(&waiting, &Round::Replies { targets: targets.to_vec(), copies: copies.to_vec() }, now)
        };
        let of = |replies: &[Option<Reply>]| with_copies(replies, &[], at(0));
        let first = Transition::Retry { due: later(at(0), FIRST_RETRY), first_try: at(0), tries: 1 };
        let (accepted, failed, refused) = (Some(Reply::Accepted), Some(Reply::Failed), Some(Reply::Refused));
        assert_eq!(after(&waiting, &Round::NoRecord, at(0)), Transition::Settle(DeliveryState::Unwanted));
        assert_eq!(after(&waiting, &Round::LookUpFailed, at(0)), first);
        assert_eq!(of(&[accepted]), Transition::Settle(DeliveryState::Sent));
        assert_eq!(of(&[failed, accepted]), Transition::Settle(DeliveryState::Sent));
        let postponed = busy(&waiting, at(0));
        let Transition::Retry { due, tries: 0, .. } = postponed else { panic!("{postponed:?}") };
        assert!(due > at(0), "behind what was not tried");
        assert_eq!(of(&[accepted, None]), postponed);
        assert_eq!(of(&[refused, failed]), first);
        assert_eq!(of(&[refused, None]), postponed);
        assert_eq!(of(&[refused, refused]), Transition::Settle(DeliveryState::GivenUp));
        assert_eq!(of(&[]), Transition::Settle(DeliveryState::GivenUp));
        let sent = Transition::Settle(DeliveryState::Sent);
        assert_eq!(with_copies(&[accepted], &[failed], at(0)), first, "the copy is retried");
        assert_eq!(with_copies(&[accepted], &[refused], at(0)), sent);
        assert_eq!(with_copies(&[accepted], &[None], at(0)), postponed);
        let given_up = Transition::Settle(DeliveryState::GivenUp);
        assert_eq!(with_copies(&[refused], &[None], at(0)), given_up, "a copy holds nothing up");
        assert_eq!(with_copies(&[failed], &[None], at(0)), first);
        assert_eq!(with_copies(&[refused], &[accepted], at(0)), given_up, "a copy is no delivery");
        let late = report(3, Some(at(-24)));
        let round = Round::Replies { targets: vec![accepted], copies: vec![failed] };
        assert_eq!(after(&late, &round, at(0)), sent);
        let round = Round::Replies { targets: vec![accepted], copies: vec![None] };
        assert_eq!(after(&late, &round, at(0)), sent);
    }

    #[test]
    fn the_delay_doubles_to_its_maximum_and_the_last_attempt_is_at_the_end() {
        let due = |tries, now| match after(&report(tries, Some(at(0))), &Round::LookUpFailed, now) {
            Transition::Retry { due, .. } => Some(due),
            _ => None,
        };
        assert_eq!(due(1, at(1)), Some(later(at(1), FIRST_RETRY.saturating_mul(2))));
        assert_eq!(due(9, at(1)), Some(at(5)));
        assert_eq!(due(u32::MAX, at(23)), Some(at(24)));
        assert_eq!(due(9, at(24)), None);
    }
}
