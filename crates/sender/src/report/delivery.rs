//! Takes reports to where the domain wants them (RFC 8460 §3, §5.3, §5.4).

use super::build::Reporter;
use super::compose::{DkimKey, PreparedReport, compose};
use super::transport::{Transport, put};
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Looks up report targets and brings reports there.
pub struct ReportDelivery {
    /// Finds `_smtp._tls` records.
    pub dns: Arc<dyn Dns>,
    /// How mail leaves.
    pub transport: Transport,
    /// Posts over HTTPS.
    pub posts: Arc<dyn Posts>,
    /// Whether hosts that are posted to have to prove themselves (RPT-19).
    pub verify: Verify,
    /// In whose name.
    pub reporter: Reporter,
    /// Sign mail.
    pub keys: Vec<DkimKey>,
    /// Hosts, and all below them, to which nothing is sent.
    pub denied: Vec<DomainName>,
    /// Who is busy with reports of ours.
    pub busy: DeliveryLimits,
}

/// Who is busy with reports of ours: a host takes some at once, a queue of others waits for it, and all hosts
/// together take so many.
pub struct DeliveryLimits {
    hosts: ConcurrencyLimit<DomainName>,
    all: Arc<Semaphore>,
    waiting: Mutex<HashMap<DomainName, usize>>,
}

/// A place at a host.
pub struct DeliverySlot {
    _at_host: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl Default for DeliveryLimits {
    fn default() -> Self {
        Self {
            hosts: ConcurrencyLimit::new(REPORTS_PER_HOST),
            all: Arc::new(Semaphore::new(REPORTS_AT_ONCE)),
            waiting: Mutex::default(),
        }
    }
}

impl DeliveryLimits {
    /// Waits for a place at a host; `None` when too many wait for that host already.
    pub async fn place(&self, host: &DomainName) -> Option<DeliverySlot> {
        {
            let mut waiting = self.waiting();
            let here = waiting.entry(host.clone()).or_default();
            if *here >= REPORTS_WAITING {
                return None;
            }
            *here += 1;
        }
        let _at_host = self.hosts.take(host.clone()).await;
        let _of_all = self.all.clone().acquire_owned().await.ok();
        let mut waiting = self.waiting();
        if let Some(here) = waiting.get_mut(host) {
            *here -= 1;
            if *here == 0 {
                waiting.remove(host);
            }
        }
        Some(DeliverySlot { _at_host, _of_all })
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<DomainName, usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a name is one of these or below one of them.
pub(super) fn is_within(name: &DomainName, all: &[DomainName]) -> bool {
    all.iter().any(|one| {
        let rest = name.as_str().strip_suffix(one.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// The host that a target is at.
pub fn host(rua: &Rua) -> &DomainName {
    match rua {
        Rua::Mailto(address) => address.domain(),
        Rua::Https(url) => url.host(),
    }
}

impl ReportDelivery {
    /// Where the domain wants reports; `None` when it has no record, several, or a malformed one (RPT-01). When it
    /// can't be looked up now, `known` is the record as it was when mail was sent.
    pub async fn targets(
        &self,
        domain: &DomainName,
        known: Option<&str>,
    ) -> Result<Option<Vec<Rua>>, DnsError> {
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

    /// Brings a report to a target; says how it went.
    pub async fn bring(
        &self,
        letter: &PreparedReport,
        to: &Rua,
        now: Timestamp,
    ) -> Result<String, Undelivered> {
        if is_within(host(to), &self.denied) {
            return Err(Undelivered::ever("the configuration denies this host"));
        }
        match to {
            Rua::Mailto(address) => self.mail(letter, address, now).await,
            Rua::Https(url) => self.post(letter, url).await,
        }
    }

    async fn mail(
        &self,
        letter: &PreparedReport,
        to: &MailAddress,
        now: Timestamp,
    ) -> Result<String, Undelivered> {
        let mail = compose(letter, &self.reporter, to, &self.keys, now).map_err(Undelivered::now)?;
        let envelope =
            Mail { from: self.reporter.contact.to_string(), to: vec![to.to_string()], message: mail.message };
        let name = format!("{}!{}", letter.file_name(self.reporter.submitter()), to.domain());
        self.transport.carry(to.domain(), &envelope, &name).await
    }

    async fn post(&self, letter: &PreparedReport, url: &HttpsUrl) -> Result<String, Undelivered> {
        if let Transport::Folder(dir) = &self.transport {
            return put(dir, &letter.file_name(self.reporter.submitter()), &letter.packed);
        }
        let body = Bytes::from(letter.packed.clone());
        let status = self.posts.post(url, "application/tlsrpt+gzip", body, self.verify).await;
        match status.map_err(Undelivered::now)? {
            status @ 200..300 => Ok(format!("status {status}")),
            status @ 300..400 => {
                Err(Undelivered::ever(format!("status {status}: redirects are not followed")))
            }
            // The request is at fault, but for those that ask for patience.
            status @ 400..500 if !matches!(status, 408 | 425 | 429) => {
                Err(Undelivered::ever(format!("status {status}")))
            }
            status => Err(Undelivered::now(format!("status {status}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::BoxFuture;
    use net::smtp::{MailHosts, SessionFailure, SessionReport, Target, TlsDemand};

    #[tokio::test]
    async fn a_host_takes_so_many_at_once_some_wait_and_others_are_sent_away() {
        let busy = DeliveryLimits::default();
        let name = |text: &str| DomainName::parse(text).unwrap();
        let (a, b) = (name("a.example"), name("b.example"));
        let mut held = Vec::new();
        for _ in 0..REPORTS_PER_HOST {
            held.push(busy.place(&a).await.unwrap());
        }
        let mut line: Vec<_> = (0..REPORTS_WAITING).map(|_| Box::pin(busy.place(&a))).collect();
        for one in &mut line {
            assert!(futures_util::poll!(one).is_pending());
        }
        assert!(busy.place(&a).await.is_none());
        assert!(busy.place(&b).await.is_some());
        held.pop();
        assert!(line.remove(0).await.is_some());
        drop((line, held));
    }

    /// Answers nothing, for ever.
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
    async fn a_target_that_tarpits_is_left_after_ten_minutes_and_keeps_no_other_waiting() {
        let tarpit = Transport::Relay {
            host: "127.0.0.1".into(),
            port: 25,
            client: Arc::new(Tarpit),
            demand: TlsDemand::Opportunistic,
        };
        let busy = DeliveryLimits::default();
        let (slow, other) =
            (DomainName::parse("slow.example").unwrap(), DomainName::parse("b.example").unwrap());
        let mail = Mail { from: String::new(), to: Vec::new(), message: Vec::new() };
        let begun = tokio::time::Instant::now();
        let held = async {
            let _place = busy.place(&slow).await;
            tarpit.carry(&slow, &mail, "n").await
        };
        let (outcome, at_other) = tokio::join!(held, async {
            let place = busy.place(&other).await;
            (place.is_some(), begun.elapsed())
        });
        assert_eq!(outcome.unwrap_err(), Undelivered::now("not done within 600 seconds"));
        assert_eq!(begun.elapsed(), formats::limits::REPORT_MAIL_TIME);
        assert_eq!(at_other, (true, std::time::Duration::ZERO));
    }

    #[test]
    fn a_denied_host_denies_what_is_below_it() {
        let name = |text: &str| DomainName::parse(text).unwrap();
        let denied = [name("bad.example")];
        for (host, is_denied) in
            [("bad.example", true), ("x.bad.example", true), ("notbad.example", false), ("example", false)]
        {
            assert_eq!(is_within(&name(host), &denied), is_denied, "{host}");
        }
    }
}
