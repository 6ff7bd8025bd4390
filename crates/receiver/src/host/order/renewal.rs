//! When to renew a certificate, by the CA's renewal information (RFC 9773). The CA is asked again and again, so that a
//! certificate that it is about to revoke is replaced before. Within the window that it suggests, a random moment is
//! chosen and stored: it stays until the CA suggests another window.

use super::error::OrderError;
use super::{Orders, identifier, validity};
use crate::host::authority::CaClient;
use formats::DomainName;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use jiff::{SignedDuration, Timestamp};
use net::BoxFuture;
use net::clock::later;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use store::StoreError;
use store::certificate_orders::{RenewalInfo, RenewalQuestion};
use store::hosting::LONGEST_ASK;
use tokio::time::timeout;

/// The time until a CA is asked again if it does not state one, or does not answer.
const RENEWAL_INFO_RETRY: SignedDuration = SignedDuration::from_hours(6);
/// The shortest time until a CA is asked again, even if it states less (RFC 9773 §4.3).
const SHORTEST_ASK: SignedDuration = SignedDuration::from_mins(1);
/// Time limit for one answer of a CA about a renewal.
const ASK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a certificate is kept at least, if a sixth of its life is not less, unless the CA had suggested a later window
/// before. A CA that wants every new certificate replaced at once would otherwise be sent orders without an end.
const SHORTEST_USE: SignedDuration = SignedDuration::from_hours(48);
/// The maximum number of certificates that CAs are asked about in one round.
const ASK_BATCH: u32 = 64;

/// The window that a CA suggests: its first and its last moment.
pub(super) type Window = (Timestamp, Timestamp);

/// The moment of the renewal in a window that the CA suggests; `None` keeps the moment that is planned. `fraction` is a
/// random number from 0 to 1, and `validity` that of the certificate.
pub(super) fn moment(
    window: Window,
    known: Option<Window>,
    validity: (Timestamp, Timestamp),
    now: Timestamp,
    fraction: f64,
) -> Option<Timestamp> {
    let (start, end) = window;
    if end <= start {
        return None;
    }
    let life = validity.1.duration_since(validity.0).max(SignedDuration::ZERO);
    let shortest = later(validity.0, (life / 6).min(SHORTEST_USE));
    let earliest = match known {
        // The CA has changed its mind about a certificate that it wanted to be used.
        Some(other) if other != window && other.0 >= shortest => validity.0,
        _ => shortest,
    };
    // All certificates of a mass revocation are due at once; the pace of orders spreads them.
    if end <= now {
        return Some(now.max(earliest));
    }
    if known == Some(window) {
        return None;
    }
    let length = end.duration_since(start);
    let into = SignedDuration::from_secs((length.as_secs_f64() * fraction.clamp(0.0, 1.0)) as i64);
    // A window that leaves no time for retries is not kept to.
    let latest = later(validity.0, life / 6 * 5);
    Some(later(start, into).min(latest).max(now).max(earliest))
}

/// The time until the next question, from the CA's `Retry-After`.
pub(super) fn ask_again(retry_after: Duration) -> SignedDuration {
    let wanted = SignedDuration::try_from(retry_after).unwrap_or(LONGEST_ASK);
    wanted.clamp(SHORTEST_ASK, LONGEST_ASK)
}

impl Orders {
    /// Asks the CAs about the renewal of the certificates for which that is due, and returns how many were asked about.
    /// A CA that does not answer leaves the plan as it is.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn ask_round<'a>(&'a self) -> BoxFuture<'a, Result<usize, StoreError>> {
        Box::pin(async move {
            let due = self.store.renewals_to_ask(self.now().await?, ASK_BATCH).await?;
            let mut questions: FuturesUnordered<_> =
                due.iter().map(|question| self.follow_renewal_info(question)).collect();
            let mut asked = 0;
            while let Some(outcome) = questions.next().await {
                outcome?;
                asked += 1;
            }
            Ok(asked)
        })
    }

    async fn follow_renewal_info(&self, question: &RenewalQuestion) -> Result<(), StoreError> {
        let RenewalQuestion { host, chain, next_at, known } = question;
        let is_it =
            |ca: &&CaClient| known.as_ref().is_none_or(|known| known.directory == ca.authority.directory);
        let window = known.as_ref().and_then(|known| known.window);
        let ca = self.authorities.iter().find(is_it);
        let directory = ca.map(|ca| ca.authority.directory.clone());
        let directory = directory.or_else(|| known.as_ref().map(|known| known.directory.clone()));
        let answer = match ca {
            Some(ca) => self.ask(ca, chain).await,
            None => Err(OrderError::NotHere("the CA is not configured any more".to_owned())),
        };
        let now = self.now().await?;
        let (window, wait) = match answer {
            Ok((suggested, wait)) => {
                self.follow_window(question, suggested, now).await?;
                (Some(suggested), wait)
            }
            Err(error) => {
                tracing::debug!(%host, "no renewal information; the renewal stays planned for {next_at}: {error}");
                (window, RENEWAL_INFO_RETRY)
            }
        };
        let directory = directory.unwrap_or_default();
        let info = RenewalInfo { directory, window, ask_at: later(now, wait) };
        self.store.put_renewal_info(host, &info).await
    }

    async fn follow_window(
        &self,
        question: &RenewalQuestion,
        suggested: Window,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let RenewalQuestion { host, chain, next_at, known } = question;
        let Ok(validity) = validity(chain) else { return Ok(()) };
        let before = known.as_ref().and_then(|known| known.window);
        let fraction = self.randomness.fraction();
        let Some(moment) = moment(suggested, before, validity, now, fraction) else { return Ok(()) };
        if moment == *next_at || *next_at <= now {
            return Ok(());
        }
        if self.store.plan_renewal(host, chain, *next_at, moment).await? && moment <= now {
            tracing::warn!(%host, "the CA wants the certificate to be replaced at once");
        }
        Ok(())
    }

    /// What the CA says about the renewal of a certificate, and the time until it is asked again.
    pub(super) async fn ask(
        &self,
        ca: &CaClient,
        chain: &str,
    ) -> Result<(Window, SignedDuration), OrderError> {
        let Some(id) = identifier(chain) else {
            return Err(OrderError::Chain("it has no authority key identifier".to_owned()));
        };
        let answer = AssertUnwindSafe(async {
            let account = ca.account(&self.store, &self.vault, self.clock.now()).await?;
            Ok::<_, OrderError>(account.renewal_info(&id).await?)
        });
        let answer = timeout(ASK_TIMEOUT, answer.catch_unwind()).await;
        let (info, wait) = match answer {
            Ok(ended) => ended.unwrap_or(Err(OrderError::Panicked))?,
            Err(_) => return Err(OrderError::Slow(ASK_TIMEOUT.as_secs())),
        };
        let at =
            |second| Timestamp::from_second(second).map_err(|error| OrderError::Chain(error.to_string()));
        let window = &info.suggested_window;
        let window = (at(window.start.unix_timestamp())?, at(window.end.unix_timestamp())?);
        Ok((window, ask_again(wait)))
    }

    /// When to renew a certificate that was just issued: in the CA's window, or at two thirds of its life. Stores what the
    /// CA said.
    pub(super) async fn first_plan(
        &self,
        ca: &CaClient,
        host: &DomainName,
        chain: &str,
        validity: (Timestamp, Timestamp),
    ) -> Result<Timestamp, OrderError> {
        let usual = later(validity.0, validity.1.duration_since(validity.0) / 3 * 2);
        let answer = self.ask(ca, chain).await;
        let now = self.now().await.unwrap_or_else(|_| self.clock.now());
        let (window, wait, renew_at) = match answer {
            Ok((window, wait)) => {
                let chosen = moment(window, None, validity, now, self.randomness.fraction());
                (Some(window), wait, chosen.unwrap_or(usual))
            }
            Err(_) => (None, RENEWAL_INFO_RETRY, usual),
        };
        let directory = ca.authority.directory.clone();
        let info = RenewalInfo { directory, window, ask_at: later(now, wait) };
        // The certificate is there, and worth more than what was said about its renewal: that is asked again.
        if let Err(error) = self.store.put_renewal_info(host, &info).await {
            tracing::warn!(%host, "the renewal information can't be stored: {error}");
        }
        Ok(renew_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::authority::Authority;
    use crate::host::vault::Vault;
    use net::clock::ManualClock;
    use net::dns::Dns;
    use net::random::SystemRandomness;
    use std::sync::Arc;
    use store::Store;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3600).unwrap()
    }

    /// A certificate of 90 days.
    const LIFE: i64 = 90 * 24;

    fn chosen(window: (i64, i64), known: Option<(i64, i64)>, now: i64, fraction: f64) -> Option<i64> {
        let times = |(start, end)| (at(start), at(end));
        let moment = moment(times(window), known.map(times), (at(0), at(LIFE)), at(now), fraction)?;
        Some(moment.duration_since(at(0)).as_hours())
    }

    #[test]
    fn a_moment_is_chosen_at_random_within_the_window_and_stays() {
        let window = (1440, 1488);
        assert_eq!(chosen(window, None, 10, 0.0), Some(1440));
        assert_eq!(chosen(window, None, 10, 0.5), Some(1464));
        assert_eq!(chosen(window, None, 10, 1.0), Some(1488));
        assert_eq!(chosen(window, Some(window), 10, 0.9), None, "the moment that was chosen stays");
        assert_eq!(chosen((1400, 1448), Some(window), 10, 0.5), Some(1424));
        assert_eq!(chosen(window, None, 1470, 0.1), Some(1470), "a moment that has passed");
    }

    #[test]
    fn a_window_in_the_past_means_now_and_no_window_is_kept_past_the_life_of_the_certificate() {
        assert_eq!(chosen((-2, -1), Some((1440, 1488)), 10, 0.9), Some(10));
        assert_eq!(chosen((-2, -1), Some((-2, -1)), 100, 0.9), Some(100), "again after a failed order");
        assert_eq!(chosen((1488, 1440), None, 10, 0.5), None, "the end is before the start");
        assert_eq!(chosen((1440, 1440), None, 10, 0.5), None);
        assert_eq!(chosen((9000, 9048), None, 10, 0.5), Some(LIFE / 6 * 5));
    }

    #[test]
    fn a_ca_that_wants_every_certificate_replaced_at_once_gets_an_order_every_other_day() {
        for window in [(-2, -1), (10, 11)] {
            assert_eq!(chosen(window, None, 10, 0.0), Some(48));
            assert_eq!(chosen(window, Some(window), 10, 0.0), if window.1 <= 10 { Some(48) } else { None });
        }
        // The CA computes its window anew for each answer.
        for (known, window) in [((8, 9), (9, 10)), ((9, 10), (10, 11)), ((20, 21), (21, 22))] {
            assert_eq!(chosen(window, Some(known), 11, 0.0), Some(48), "{known:?}");
        }
        // A certificate of six days: a day.
        let times = |(start, end)| (at(start), at(end));
        let moment = moment(times((-2, -1)), None, (at(0), at(6 * 24)), at(1), 0.0).unwrap();
        assert_eq!(moment, at(24));
    }

    struct NoDns;

    impl Dns for NoDns {
        fn lookup<'a>(
            &'a self,
            _: &'a DomainName,
            _: net::dns::Kind,
        ) -> BoxFuture<'a, Result<net::dns::Answer, net::dns::DnsError>> {
            Box::pin(std::future::ready(Err(net::dns::DnsError::Timeout)))
        }
    }

    #[tokio::test]
    async fn a_certificate_is_kept_although_its_renewal_information_can_not_be_stored() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let orders = Orders {
            store: store.clone(),
            dns: Arc::new(NoDns),
            clock: Arc::new(ManualClock::new(at(0))),
            authorities: Vec::new(),
            challenges: Vec::new(),
            dns_challenges: None,
            vault: Arc::new(Vault::with_key(&format!("{}=", "A".repeat(43))).unwrap()),
            policy_host_target: None,
            holder: "a test".to_owned(),
            randomness: Arc::new(SystemRandomness),
        };
        let ca = CaClient::new(Authority {
            directory: "https://ca.example/directory".to_owned(),
            contact: None,
            profile: None,
            ca_file: None,
            external: None,
            new_per_hour: 1,
            issuer: None,
        });
        let host = DomainName::parse("mta-sts.a.example").unwrap();
        // From now on, the store fails.
        store.close().await;
        let planned = orders.first_plan(&ca, &host, "", (at(0), at(LIFE))).await.unwrap();
        assert_eq!(planned, at(LIFE / 3 * 2));
    }

    #[test]
    fn the_time_of_the_next_question_is_bounded() {
        let hours = |seconds| ask_again(Duration::from_secs(seconds));
        assert_eq!(hours(0), SignedDuration::from_mins(1));
        assert_eq!(hours(3600), SignedDuration::from_hours(1));
        assert_eq!(hours(u64::MAX), SignedDuration::from_hours(24));
    }
}
