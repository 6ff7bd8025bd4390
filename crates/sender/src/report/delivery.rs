//! Delivers reports to the targets that a domain publishes (RFC 8460 §3, §5.3, §5.4).
//!
//! The scheduler passes in a [`PreparedReport`]. `mailto` targets get a composed mail over the [`Transport`], `https`
//! targets a POST request. [`DeliveryLimits`] bounds the number of deliveries, per target host and in total.

use super::build::Reporter;
use super::compose::{DkimKey, PreparedReport, compose};
use super::targets::{TargetPlan, TargetRule, plan};
use super::transport::{Transport, write_file};
use super::undelivered::Undelivered;
use formats::DomainName;
use formats::limits::{REPORTS_AT_ONCE, REPORTS_PER_HOST, REPORTS_WAITING};
use formats::tlsrpt_record::{HttpsUrl, MailAddress, Rua, TlsrptRecord};
use jiff::Timestamp;
use net::dns::{Dns, DnsError, Kind};
use net::https::{Bytes, Posts, Verify};
use net::rate_limit::ConcurrencyLimit;
use net::smtp::Mail;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;

/// Looks up report targets and delivers reports to them.
pub struct ReportDelivery {
    /// Resolves `_smtp._tls` records.
    pub dns: Arc<dyn Dns>,
    /// The transport for mail. With a folder, reports for `https` targets are written there too.
    pub transport: Transport,
    /// The HTTPS client for POST requests.
    pub posts: Arc<dyn Posts>,
    /// Whether certificates of `https` targets are verified (RPT-19).
    pub verify: Verify,
    /// The reporting organization and the sender of report mail.
    pub reporter: Reporter,
    /// The DKIM keys; each adds a signature to report mail.
    pub keys: Vec<DkimKey>,
    /// Target hosts that get no reports, with all their subdomains.
    pub denied: Vec<DomainName>,
    /// Rules that replace, block or add targets.
    pub target_rules: Vec<TargetRule>,
    /// The limits on concurrent deliveries.
    pub busy: DeliveryLimits,
}

/// The longest wait for a slot. A report that waits occupies memory that reports to other hosts may need.
const SLOT_WAIT: Duration = Duration::from_secs(60);

/// Limits on concurrent deliveries: [`REPORTS_PER_HOST`] per target host and [`REPORTS_AT_ONCE`] in total. Up to
/// [`REPORTS_WAITING`] further deliveries wait for a host, for at most `SLOT_WAIT`.
pub struct DeliveryLimits {
    hosts: ConcurrencyLimit<DomainName>,
    all: Arc<Semaphore>,
    waiting: Mutex<HashMap<DomainName, usize>>,
    /// The longest wait for a slot.
    pub(super) wait: Duration,
}

/// One delivery that waits for a host, until this is dropped.
struct Waiting<'l> {
    limits: &'l DeliveryLimits,
    host: &'l DomainName,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.limits.waiting();
        if let Some(here) = waiting.get_mut(self.host) {
            *here -= 1;
            if *here == 0 {
                waiting.remove(self.host);
            }
        }
    }
}

/// A permit for one delivery; dropping it releases the slot.
pub struct DeliverySlot {
    _of_host: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl Default for DeliveryLimits {
    fn default() -> Self {
        Self {
            hosts: ConcurrencyLimit::new(REPORTS_PER_HOST),
            all: Arc::new(Semaphore::new(REPORTS_AT_ONCE)),
            waiting: Mutex::default(),
            wait: SLOT_WAIT,
        }
    }
}

impl DeliveryLimits {
    /// Waits for a slot at a host. Returns `None` at once if [`REPORTS_WAITING`] deliveries already wait for the host, and
    /// after `SLOT_WAIT` if there is no slot by then.
    pub async fn acquire(&self, host: &DomainName) -> Option<DeliverySlot> {
        let _waiting = {
            let mut waiting = self.waiting();
            let here = waiting.entry(host.clone()).or_default();
            if *here >= REPORTS_WAITING {
                return None;
            }
            *here += 1;
            Waiting { limits: self, host }
        };
        let slot = async {
            let _of_host = self.hosts.take(host.clone()).await;
            let _of_all = self.all.clone().acquire_owned().await.ok();
            DeliverySlot { _of_host, _of_all }
        };
        tokio::time::timeout(self.wait, slot).await.ok()
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<DomainName, usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True if `name` is one of `all` or a subdomain of one.
pub(super) fn is_within(name: &DomainName, all: &[DomainName]) -> bool {
    all.iter().any(|one| {
        let rest = name.as_str().strip_suffix(one.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// The target host: the domain of the mail address, or the host of the URL.
pub fn host(rua: &Rua) -> &DomainName {
    match rua {
        Rua::Mailto(address) => address.domain(),
        Rua::Https(url) => url.host(),
    }
}

/// True if `denied` has the host of the target, or a domain above it.
pub fn is_denied(target: &Rua, denied: &[DomainName]) -> bool {
    is_within(host(target), denied)
}

impl ReportDelivery {
    /// Looks up the report targets of a domain, and applies the rules to them. If the lookup fails, `known` is used: the
    /// record that the mail server saw when it sent mail.
    ///
    /// # Errors
    /// The failed lookup, without a valid `known` and without a rule that names targets for the domain.
    pub async fn targets(&self, domain: &DomainName, known: Option<&str>) -> Result<TargetPlan, DnsError> {
        match self.record(domain, known).await {
            Ok(record) => Ok(plan(domain, record, &self.target_rules)),
            Err(error) => match plan(domain, None, &self.target_rules) {
                plan if plan.is_wanted => Ok(plan),
                _ => Err(error),
            },
        }
    }

    /// The targets of the domain's record; `None` when it has no record, several, or a malformed one (RPT-01).
    async fn record(&self, domain: &DomainName, known: Option<&str>) -> Result<Option<Vec<Rua>>, DnsError> {
        let Ok(name) = domain.below("_smtp._tls") else { return Ok(None) };
        match self.dns.lookup(&name, Kind::Txt).await {
            Ok(answer) => Ok(TlsrptRecord::select(answer.texts()).ok().map(|record| record.rua)),
            Err(error) if error.is_absence() => Ok(None),
            Err(error) => match known.and_then(|text| TlsrptRecord::parse(text.as_bytes()).ok()) {
                Some(record) => Ok(Some(record.rua)),
                None => Err(error),
            },
        }
    }

    /// Delivers a report to a target, unless the configuration denies its host. Returns a description of the result,
    /// for the log and `sternpost reports list --sent`.
    pub async fn bring(
        &self,
        prepared: &PreparedReport,
        to: &Rua,
        now: Timestamp,
    ) -> Result<String, Undelivered> {
        if is_denied(to, &self.denied) {
            return Err(Undelivered::permanent("the configuration denies this host"));
        }
        let bringing = async {
            match to {
                Rua::Mailto(address) => self.mail(prepared, address, now).await,
                Rua::Https(url) => self.post(prepared, url).await,
            }
        };
        bringing
            .instrument(tracing::info_span!(target: net::TRACES, "delivery of a report", target = %to))
            .await
    }

    async fn mail(
        &self,
        prepared: &PreparedReport,
        to: &MailAddress,
        now: Timestamp,
    ) -> Result<String, Undelivered> {
        let mail = compose(prepared, &self.reporter, to, &self.keys, now).map_err(Undelivered::temporary)?;
        let envelope =
            Mail { from: self.reporter.from.to_string(), to: vec![to.to_string()], message: mail.message };
        // A local part may contain slashes.
        let target = to.to_string().replace('/', "_");
        let name = format!("{}!{target}", prepared.file_name(self.reporter.submitter()));
        self.transport.carry(to.domain(), &envelope, &name).await
    }

    async fn post(&self, prepared: &PreparedReport, url: &HttpsUrl) -> Result<String, Undelivered> {
        if let Transport::Folder(dir) = &self.transport {
            return write_file(dir, &prepared.file_name(self.reporter.submitter()), &prepared.packed);
        }
        let body = Bytes::from(prepared.packed.clone());
        let status = self.posts.post(url, "application/tlsrpt+gzip", body, self.verify).await;
        match status.map_err(Undelivered::temporary)? {
            status @ 200..300 => Ok(format!("status {status}")),
            status @ 300..400 => {
                Err(Undelivered::permanent(format!("status {status}: redirects are not followed")))
            }
            // A client error is permanent, except for those that request a retry.
            status @ 400..500 if !matches!(status, 408 | 425 | 429) => {
                Err(Undelivered::permanent(format!("status {status}")))
            }
            status => Err(Undelivered::temporary(format!("status {status}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::BoxFuture;
    use net::smtp::{MailHosts, SessionFailure, SessionReport, Target, TlsDemand};

    #[tokio::test]
    async fn deliveries_to_a_host_are_limited_some_wait_and_further_ones_are_rejected() {
        let limits = DeliveryLimits::default();
        let name = |text: &str| DomainName::parse(text).unwrap();
        let (a, b) = (name("a.example"), name("b.example"));
        let mut held = Vec::new();
        for _ in 0..REPORTS_PER_HOST {
            held.push(limits.acquire(&a).await.unwrap());
        }
        let mut queue: Vec<_> = (0..REPORTS_WAITING).map(|_| Box::pin(limits.acquire(&a))).collect();
        for waiting in &mut queue {
            assert!(futures_util::poll!(waiting).is_pending());
        }
        assert!(limits.acquire(&a).await.is_none());
        assert!(limits.acquire(&b).await.is_some());
        held.pop();
        assert!(queue.remove(0).await.is_some());
        drop((queue, held));
    }

    /// A host that never answers.
    struct Tarpit;

    impl MailHosts for Tarpit {
        fn session<'a>(
            &'a self,
            _: &'a Target,
            _: &'a TlsDemand,
            _: Option<&'a Mail>,
        ) -> BoxFuture<'a, Result<SessionReport, Box<SessionFailure>>> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tarpit_is_abandoned_after_ten_minutes_and_delays_no_other_target() {
        let tarpit = Transport::Relay {
            host: "127.0.0.1".into(),
            port: 25,
            client: Arc::new(Tarpit),
            demand: TlsDemand::Opportunistic,
        };
        let limits = DeliveryLimits::default();
        let (slow, other) =
            (DomainName::parse("slow.example").unwrap(), DomainName::parse("b.example").unwrap());
        let mail = Mail { from: String::new(), to: Vec::new(), message: Vec::new() };
        let started = tokio::time::Instant::now();
        let held = async {
            let _slot = limits.acquire(&slow).await;
            tarpit.carry(&slow, &mail, "n").await
        };
        let (outcome, at_other) = tokio::join!(held, async {
            let slot = limits.acquire(&other).await;
            (slot.is_some(), started.elapsed())
        });
        assert_eq!(outcome.unwrap_err(), Undelivered::temporary("timed out after 600 seconds"));
        assert_eq!(started.elapsed(), formats::limits::REPORT_MAIL_TIME);
        assert_eq!(at_other, (true, Duration::ZERO));
    }

    #[test]
    fn a_denied_host_also_denies_its_subdomains() {
        let name = |text: &str| DomainName::parse(text).unwrap();
        let denied = [name("bad.example")];
        for (host, is_denied) in
            [("bad.example", true), ("x.bad.example", true), ("notbad.example", false), ("example", false)]
        {
            assert_eq!(is_within(&name(host), &denied), is_denied, "{host}");
        }
    }
}
