//! When a certificate's end is an alert. Certificates live for 6 to 200 days today, so a fixed number of days is wrong
//! for most of them: the alert is raised when less than a third of the life is left, and at most 14 days before the end.

use jiff::{SignedDuration, Timestamp};
use net::certificate::CertificateFacts;

/// The validity period of a certificate (RFC 5280 §4.1.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second of the period.
    pub from: Timestamp,
    /// The last second of the period.
    pub until: Timestamp,
}

/// The longest time before the end at which an alert is raised.
const LONGEST_WARNING: SignedDuration = SignedDuration::from_hours(14 * 24);

impl From<&CertificateFacts> for Validity {
    fn from(facts: &CertificateFacts) -> Self {
        Self { from: facts.not_before, until: facts.not_after }
    }
}

impl Validity {
    /// True when a certificate with this period should have been renewed: less than a third of its life is left, or less
    /// than 14 days if that is shorter.
    pub fn ends_soon(&self, now: Timestamp) -> bool {
        let left = self.until.duration_since(now);
        left < LONGEST_WARNING.min(self.life() / 3)
    }

    /// The validity that ends first.
    pub fn earliest(all: impl IntoIterator<Item = Self>) -> Option<Self> {
        all.into_iter().min_by_key(|one| one.until)
    }

    /// What to do about a certificate that ends soon, in words that fit its life.
    pub fn remedy(&self) -> String {
        let days = self.life().as_hours().saturating_add(12) / 24;
        format!(
            "Renew it before then. A certificate that is valid for {days} days should be replaced by machine when a third of that is left, so check why the renewal did not happen"
        )
    }

    fn life(&self) -> SignedDuration {
        self.until.duration_since(self.from).max(SignedDuration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(days: i64) -> Validity {
        let from = Timestamp::from_second(1_790_000_000).unwrap();
        Validity { from, until: from + SignedDuration::from_hours(days * 24) }
    }

    fn warned_before_the_end(days: i64, hours: i64) -> bool {
        let validity = of(days);
        validity.ends_soon(validity.until - SignedDuration::from_hours(hours))
    }

    #[test]
    fn the_alert_begins_at_the_lesser_of_14_days_and_a_third_of_the_life() {
        for (days, hours_before) in
            [(6, 48), (7, 56), (45, 14 * 24), (90, 14 * 24), (200, 14 * 24), (40, 320)]
        {
            assert!(!warned_before_the_end(days, hours_before), "{days} days");
            assert!(warned_before_the_end(days, hours_before - 1), "{days} days");
        }
        assert!(!of(6).ends_soon(of(6).from), "a new certificate is not an alert");
        let backwards = Validity { from: of(6).until, until: of(6).from };
        assert!(!backwards.ends_soon(backwards.until) && backwards.ends_soon(backwards.from));
    }

    #[test]
    fn the_first_end_of_several_certificates_counts() {
        assert_eq!(Validity::earliest([of(90), of(6), of(45)]), Some(of(6)));
        assert_eq!(Validity::earliest([]), None);
    }

    #[test]
    fn the_remedy_names_the_life_of_this_certificate() {
        for (days, text) in [(6, "valid for 6 days"), (90, "valid for 90 days")] {
            let remedy = of(days).remedy();
            assert!(remedy.contains(text) && !remedy.contains("month"), "{remedy}");
        }
    }
}
