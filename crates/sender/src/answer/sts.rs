//! The rules of MTA-STS policy discovery, without I/O (RFC 8461 §3.1, §3.3, §5.1).
//!
//! [`super::Discovery`] passes in the record, the held policy and the time. [`next_action`] says whether to fetch;
//! [`conclude`] says which policy applies after the fetch.

use formats::limits::{FETCH_BACK_OFF, POLICY_REFRESH};
use formats::policy::PolicyError;
use formats::sts_record::SelectError;
use formats::{Mode, Policy, PolicyId, ResultType, StsRecord};
use jiff::{SignedDuration, Timestamp};
use net::clock::later;
use net::dns::DnsError;
use net::https::FetchError;
use std::time::Duration;

/// The result of the TXT lookup at `_mta-sts.DOMAIN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordLookup {
    /// The domain publishes a valid record.
    Published(StsRecord),
    /// No STSv1 record, or no such name: the domain publishes no policy.
    Absent,
    /// Several records, or a malformed one: treated as absent (STS-09).
    Invalid(SelectError),
    /// The lookup failed, so it is unknown whether a record exists (STS-13).
    Unknown(DnsError),
}

/// A policy and when it was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldPolicy {
    /// The parsed policy.
    pub policy: Policy,
    /// The policy file as fetched.
    pub body: String,
    /// The `id` of the record that announced it.
    pub id: PolicyId,
    /// The time of the fetch.
    pub fetched_at: Timestamp,
}

impl HeldPolicy {
    /// The time of expiry: `max_age` after the fetch, not after the first use (VAL-16).
    pub fn expires_at(&self) -> Timestamp {
        let life = SignedDuration::from_secs(i64::from(self.policy.max_age));
        later(self.fetched_at, life)
    }

    /// True until the policy expires. A policy with `max_age` 0 is never live, even if the clock steps back (VAL-21).
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.policy.max_age > 0 && now < self.expires_at()
    }

    /// True from the time of the refresh on, and if the clock was set back to a time before the fetch: then it is
    /// unknown how old the policy is.
    pub fn needs_refresh(&self, now: Timestamp) -> bool {
        self.refresh_at() <= now || self.fetched_at > now
    }

    /// The time of the next refresh: a day after the fetch, or half of `max_age` if that is sooner (POL-13).
    pub fn refresh_at(&self) -> Timestamp {
        let half = SignedDuration::from_secs(i64::from(self.policy.max_age) / 2);
        let after = SignedDuration::try_from(POLICY_REFRESH).unwrap_or(half).min(half);
        later(self.fetched_at, after)
    }
}

/// A failed fetch of a policy, after which the same `id` is not fetched again for [`FETCH_BACK_OFF`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedFetch {
    /// The `id` that the record announced.
    pub id: PolicyId,
    /// The time of the failure on the monotonic clock.
    pub at: Duration,
    /// Why no valid policy was fetched.
    pub why: PolicyUnavailable,
}

/// The reason why a fetch yielded no valid policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyUnavailable {
    /// The policy file could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The policy file is malformed.
    #[error("the policy file is invalid: {0}")]
    Invalid(#[from] PolicyError),
}

impl PolicyUnavailable {
    /// The result type in TLS reports (RFC 8460 §4.3, POL-24).
    pub fn result_type(&self) -> ResultType {
        match self {
            Self::Fetch(error) => error.result_type(),
            Self::Invalid(_) => ResultType::StsPolicyInvalid,
        }
    }
}

/// The next step of a discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Keep the held policy, if any; do not fetch.
    Keep,
    /// Fetch the policy that this `id` announces.
    Fetch(PolicyId),
}

/// Decides whether to fetch: for a new `id` (VAL-17), or when a refresh is due (POL-13), but not within
/// [`FETCH_BACK_OFF`] after a failed fetch under the same `id` (POL-10). `elapsed` is the monotonic clock.
pub fn next_action(
    lookup: &RecordLookup,
    held: Option<&HeldPolicy>,
    failed: Option<&FailedFetch>,
    now: Timestamp,
    elapsed: Duration,
) -> Action {
    let RecordLookup::Published(record) = lookup else {
        return Action::Keep;
    };
    let recent =
        |failed: &&FailedFetch| failed.id == record.id && elapsed.saturating_sub(failed.at) < FETCH_BACK_OFF;
    if failed.filter(recent).is_some() {
        return Action::Keep;
    }
    match held.filter(|held| held.is_live(now)) {
        Some(held) if held.id == record.id && !held.needs_refresh(now) => Action::Keep,
        _ => Action::Fetch(record.id.clone()),
    }
}

/// The MTA-STS policy that a sender applies to a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EffectivePolicy {
    /// A policy is in force.
    Policy {
        /// The policy with its `id` and the time of its fetch.
        held: HeldPolicy,
        /// The reason why the last renewal failed; `None` when it succeeded or was not due.
        refresh_error: Option<PolicyUnavailable>,
    },
    /// The domain announces a policy, but the fetch failed and no live policy is held (POL-11).
    Unavailable(PolicyUnavailable),
    /// No policy applies.
    None,
}

/// Decides which policy applies; `fetched` is `None` when there was no fetch.
///
/// A live policy stays in force even if the record is gone or the fetch failed (POL-12, STS-09, VAL-18, VAL-20). A
/// fetched policy replaces it completely (VAL-19).
pub fn conclude(
    held: Option<HeldPolicy>,
    fetched: Option<Result<HeldPolicy, PolicyUnavailable>>,
    now: Timestamp,
) -> EffectivePolicy {
    let live = held.filter(|held| held.is_live(now));
    match (fetched, live) {
        (Some(Ok(new)), _) => EffectivePolicy::Policy { held: new, refresh_error: None },
        (Some(Err(why)), Some(held)) => EffectivePolicy::Policy { held, refresh_error: Some(why) },
        (None, Some(held)) => EffectivePolicy::Policy { held, refresh_error: None },
        (Some(Err(why)), None) => EffectivePolicy::Unavailable(why),
        (None, None) => EffectivePolicy::None,
    }
}

impl EffectivePolicy {
    /// The warning for the administrator when a policy could not be renewed. `None` in mode `none`, because such a
    /// policy is about to be removed anyway (POL-14).
    pub fn renewal_warning(&self) -> Option<String> {
        match self {
            Self::Policy { held, refresh_error: Some(why) } if held.policy.mode != Mode::None => Some(
                format!("the policy could not be renewed and is in force until {}: {why}", held.expires_at()),
            ),
            _ => None,
        }
    }

    /// The mode of the policy in force; [`Mode::None`] without one.
    pub fn mode(&self) -> Mode {
        match self {
            Self::Policy { held, .. } => held.policy.mode,
            Self::Unavailable(_) | Self::None => Mode::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::MxPattern;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn id(text: &str) -> PolicyId {
        PolicyId::parse(text).unwrap()
    }

    fn published(text: &str) -> RecordLookup {
        RecordLookup::Published(StsRecord::new(id(text)))
    }

    fn held(mode: Mode, text: &str, fetched: i64, max_age: u32) -> HeldPolicy {
        let policy = Policy::new(mode, max_age, vec![MxPattern::parse("mx.example").unwrap()]).unwrap();
        HeldPolicy { body: policy.to_string(), policy, id: id(text), fetched_at: at(fetched) }
    }

    const WEEK: u32 = 604_800;

    fn failed(text: &str, second: u64) -> FailedFetch {
        FailedFetch { id: id(text), at: Duration::from_secs(second), why: trouble() }
    }

    fn trouble() -> PolicyUnavailable {
        PolicyUnavailable::Fetch(FetchError::Status(404))
    }

    #[test]
    fn val_17_a_changed_id_is_fetched_and_an_unchanged_one_is_not() {
        let policy = held(Mode::Enforce, "1", 0, WEEK);
        assert_eq!(next_action(&published("1"), Some(&policy), None, at(10), Duration::ZERO), Action::Keep);
        assert_eq!(
            next_action(&published("2"), Some(&policy), None, at(10), Duration::ZERO),
            Action::Fetch(id("2"))
        );
        assert_eq!(next_action(&published("1"), None, None, at(10), Duration::ZERO), Action::Fetch(id("1")));
    }

    #[test]
    fn pol_10_no_fetch_for_five_minutes_after_a_failed_one_of_the_same_id() {
        let after = |text, second| {
            next_action(&published(text), None, Some(&failed("1", 1000)), at(5), Duration::from_secs(second))
        };
        assert_eq!(after("1", 1000), Action::Keep);
        assert_eq!(after("1", 1299), Action::Keep);
        assert_eq!(after("1", 1300), Action::Fetch(id("1")));
        assert_eq!(after("2", 1001), Action::Fetch(id("2")));
    }

    #[test]
    fn pol_13_policies_are_refreshed_daily_and_before_they_expire() {
        let week = held(Mode::Enforce, "1", 0, WEEK);
        assert_eq!(next_action(&published("1"), Some(&week), None, at(86_399), Duration::ZERO), Action::Keep);
        assert_eq!(
            next_action(&published("1"), Some(&week), None, at(86_400), Duration::ZERO),
            Action::Fetch(id("1"))
        );
        let hour = held(Mode::Enforce, "1", 0, 3600);
        assert_eq!(
            next_action(&published("1"), Some(&hour), None, at(1800), Duration::ZERO),
            Action::Fetch(id("1"))
        );
        let ahead = held(Mode::Enforce, "1", 1_000_000, WEEK);
        assert_eq!(
            next_action(&published("1"), Some(&ahead), None, at(10), Duration::ZERO),
            Action::Fetch(id("1")),
            "the clock was set back"
        );
    }

    #[test]
    fn pol_11_announced_but_not_to_be_had_and_none_cached_is_no_policy() {
        let found = conclude(None, Some(Err(trouble())), at(10));
        assert_eq!(found, EffectivePolicy::Unavailable(trouble()));
        assert_eq!(found.mode(), Mode::None);
        let expired = held(Mode::Enforce, "1", 0, 5);
        assert_eq!(conclude(Some(expired), Some(Err(trouble())), at(10)).mode(), Mode::None);
    }

    #[test]
    fn pol_12_an_unexpired_policy_applies_when_no_new_one_can_be_had() {
        let policy = held(Mode::Enforce, "1", 0, WEEK);
        let found = conclude(Some(policy.clone()), Some(Err(trouble())), at(10));
        assert_eq!(found, EffectivePolicy::Policy { held: policy, refresh_error: Some(trouble()) });
    }

    #[test]
    fn pol_14_a_failed_refresh_is_shown_unless_the_mode_is_none() {
        let failed =
            |mode| conclude(Some(held(mode, "1", 0, WEEK)), Some(Err(trouble())), at(10)).renewal_warning();
        assert!(
            failed(Mode::Enforce)
                .is_some_and(|text| text.contains("until 1970-01-08") && text.contains("404"))
        );
        assert!(failed(Mode::Testing).is_some());
        assert_eq!(failed(Mode::None), None);
        assert_eq!(conclude(Some(held(Mode::Enforce, "1", 0, WEEK)), None, at(10)).renewal_warning(), None);
    }

    #[test]
    fn val_16_a_policy_counts_from_its_fetch() {
        let policy = held(Mode::Enforce, "1", 100, 50);
        assert!(policy.is_live(at(149)));
        assert!(!policy.is_live(at(150)));
    }

    #[test]
    fn val_18_a_new_id_without_a_good_file_leaves_the_cached_policy_in_force() {
        let policy = held(Mode::Enforce, "1", 0, WEEK);
        assert_eq!(
            next_action(&published("2"), Some(&policy), None, at(10), Duration::ZERO),
            Action::Fetch(id("2"))
        );
        let invalid = PolicyUnavailable::Invalid(Policy::parse(b"").unwrap_err());
        assert_eq!(conclude(Some(policy), Some(Err(invalid)), at(10)).mode(), Mode::Enforce);
    }

    #[test]
    fn val_19_a_new_policy_replaces_the_old_one_also_when_weaker() {
        let (old, new) = (held(Mode::Enforce, "1", 0, WEEK), held(Mode::None, "2", 10, 60));
        assert_eq!(
            conclude(Some(old), Some(Ok(new.clone())), at(10)),
            EffectivePolicy::Policy { held: new, refresh_error: None }
        );
    }

    #[test]
    fn val_20_when_the_record_is_gone_the_cached_policy_stays_to_its_end() {
        let policy = held(Mode::Enforce, "1", 0, WEEK);
        for gone in [RecordLookup::Absent, RecordLookup::Unknown(DnsError::Timeout)] {
            assert_eq!(next_action(&gone, Some(&policy), None, at(200_000), Duration::ZERO), Action::Keep);
        }
        assert_eq!(conclude(Some(policy.clone()), None, at(i64::from(WEEK) - 1)).mode(), Mode::Enforce);
        assert_eq!(conclude(Some(policy), None, at(i64::from(WEEK))), EffectivePolicy::None);
    }

    #[test]
    fn sts_09_an_invalid_record_does_not_remove_a_cached_policy() {
        let policy = held(Mode::Enforce, "1", 0, WEEK);
        let invalid = RecordLookup::Invalid(SelectError::Multiple(2));
        assert_eq!(next_action(&invalid, Some(&policy), None, at(200_000), Duration::ZERO), Action::Keep);
        assert_eq!(conclude(Some(policy), None, at(10)).mode(), Mode::Enforce);
        assert_eq!(conclude(None, None, at(10)), EffectivePolicy::None);
    }

    #[test]
    fn val_21_max_age_0_applies_now_and_is_not_kept() {
        let policy = held(Mode::Enforce, "1", 10, 0);
        assert_eq!(conclude(None, Some(Ok(policy.clone())), at(10)).mode(), Mode::Enforce);
        assert!(!policy.is_live(at(10)));
    }

    #[test]
    fn pol_24_each_way_to_fail_has_one_result_type() {
        assert_eq!(trouble().result_type(), ResultType::StsPolicyFetchError);
        assert_eq!(
            PolicyUnavailable::Invalid(Policy::parse(b"x").unwrap_err()).result_type(),
            ResultType::StsPolicyInvalid
        );
    }
}
