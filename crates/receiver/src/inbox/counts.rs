//! Counts what arrives in the inbox, for the metrics of the running server. The counters begin at zero with the process, as
//! Prometheus expects; the sums in the store are other metrics. An import by command is another process and is not counted.

use super::{InboxOutcome, Reading};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use store::reports::{Arrival, KeepOutcome, Trust};

/// The ways in which reports arrive, in the order of the counters.
const ARRIVALS: [Arrival; 5] = [Arrival::Smtp, Arrival::Lmtp, Arrival::Https, Arrival::Import, Arrival::Imap];
/// The degrees of trust, in the order of the counters.
const TRUSTS: [Trust; 4] = [Trust::Failed, Trust::Unverified, Trust::Trusted, Trust::Verified];

/// Counters of the inbox.
#[derive(Debug, Default)]
pub struct InboxCounts {
    reports: [[AtomicU64; TRUSTS.len()]; ARRIVALS.len()],
    dmarc: AtomicU64,
    quarantined: AtomicU64,
    left_alone: [AtomicU64; 2],
}

/// The kinds of mail that a mailbox keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftAlone {
    /// DMARC reports, where they are not imported.
    Dmarc,
    /// Anything else that does not claim to be a TLS report.
    Other,
}

impl InboxCounts {
    /// The counters of this process.
    pub fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<InboxCounts>> = OnceLock::new();
        SHARED.get_or_init(Arc::default).clone()
    }

    /// Counts what was imported. Duplicates do not count.
    pub fn count(&self, arrival: Arrival, outcome: &InboxOutcome) {
        for report in outcome.reports.iter().filter(|report| report.kept != KeepOutcome::Duplicate) {
            if let Some(counter) = self.reports_of(arrival, report.trust) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
        let dmarc = outcome.dmarc.iter().filter(|kept| **kept == KeepOutcome::New).count();
        self.dmarc.fetch_add(u64::try_from(dmarc).unwrap_or_default(), Ordering::Relaxed);
        self.quarantined.fetch_add(u64::from(outcome.quarantined.is_some()), Ordering::Relaxed);
    }

    /// Counts a message that stays in its mailbox.
    pub fn leave_alone(&self, reading: &Reading) {
        let [dmarc, other] = &self.left_alone;
        let counter = if reading.other_dmarc > 0 { dmarc } else { other };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of new or confirmed TLS reports, by way of arrival and trust.
    pub fn reports(&self) -> impl Iterator<Item = (Arrival, Trust, u64)> + '_ {
        let pairs = ARRIVALS.into_iter().flat_map(|arrival| TRUSTS.map(|trust| (arrival, trust)));
        pairs.map(|(arrival, trust)| {
            let counter = self.reports_of(arrival, trust);
            (arrival, trust, counter.map_or(0, |counter| counter.load(Ordering::Relaxed)))
        })
    }

    /// The number of new DMARC reports.
    pub fn dmarc(&self) -> u64 {
        self.dmarc.load(Ordering::Relaxed)
    }

    /// The number of messages and posted files that went to quarantine.
    pub fn quarantined(&self) -> u64 {
        self.quarantined.load(Ordering::Relaxed)
    }

    /// The number of messages of a kind that stayed in their mailboxes.
    pub fn left_alone(&self, kind: LeftAlone) -> u64 {
        let [dmarc, other] = &self.left_alone;
        let counter = match kind {
            LeftAlone::Dmarc => dmarc,
            LeftAlone::Other => other,
        };
        counter.load(Ordering::Relaxed)
    }

    fn reports_of(&self, arrival: Arrival, trust: Trust) -> Option<&AtomicU64> {
        let arrival = ARRIVALS.iter().position(|one| *one == arrival)?;
        self.reports.get(arrival)?.get(TRUSTS.iter().position(|one| *one == trust)?)
    }
}
