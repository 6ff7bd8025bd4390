//! Notices of alerts, delivered to the webhook and by mail, and weekly summaries, delivered by mail. The guard and `weekly`
//! put them into the store, one for each channel. A notice stays there until it is delivered, or until it is a day old.
//!
//! Of several processes with one store, one at a time delivers on a channel, under a claim that it renews while it works. If it
//! dies, another one goes on after [`CLAIM_TIME`], and sends what was under way once more, with the same ID.

use super::webhook::{Webhook, retry_delay};
use config::GuardConfig;
use config::failure::Failure;
use formats::tlsrpt_record::MailAddress;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use mail_builder::MessageBuilder;
use mail_builder::headers::text::Text;
use net::clock::{Clock, later};
use net::metrics::{self, Counter, Counters, Registry};
use net::smtp::Mail;
use operations::summary::SummaryMail;
use operations::world::World;
use receiver::rollout::guard::Alert;
use sender::report::Transport;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use store::notices::{ChannelClaim, Notice};
use store::{Store, StoreError};

/// The content of a notice: an alert is raised or over. It is the JSON that the webhook receives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The version of this JSON format.
    pub schema: u32,
    /// Whether the alert is raised or over.
    pub event: EventKind,
    /// The domain that the alert is about; the first of `alert.domains`, if it is about several.
    pub domain: String,
    /// The time of the event.
    pub at: Timestamp,
    /// The alert, as it was when it was raised or last seen.
    pub alert: Alert,
}

/// A change of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// The alert is raised: its problem was found.
    Raised,
    /// The alert is over: its problem is not found any more.
    Over,
}

/// Time between two checks for due notices.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// How long a channel is claimed for.
const CLAIM_TIME: SignedDuration = SignedDuration::from_secs(60);
/// Time between two renewals of a claim while a delivery runs.
const CLAIM_RENEWAL: Duration = Duration::from_secs(20);
/// Minimum time between two messages to the same address.
const MAIL_INTERVAL: SignedDuration = SignedDuration::from_mins(1);
/// Age after which an undelivered notice is dropped.
const NOTICE_LIFETIME: SignedDuration = SignedDuration::from_hours(24);
/// Maximum number of notices in a round of the webhook, and in a message.
const BATCH_ROWS: u32 = 1000;
/// Maximum number of alerts that a message describes in full.
const MAX_DETAILED: usize = 50;

/// Maximum number of domains that a message names for one alert.
const MAX_DOMAINS: usize = 50;

const WEBHOOK: &str = "webhook";

/// Delivers notices from the store.
pub struct Messenger {
    store: Store,
    clock: Arc<dyn Clock>,
    webhook: Option<Webhook>,
    transport: Option<Transport>,
    from: Option<MailAddress>,
    to: Vec<MailAddress>,
    pub counts: NoticeCounts,
}

/// What is done independently of the others.
#[derive(Clone, Copy)]
enum Queue<'m> {
    /// Notices that are too old are dropped.
    Expired,
    Webhook(&'m Webhook),
    /// Alerts and summaries to an address.
    Mail(&'m MailAddress),
}

/// The metrics of notices.
#[derive(Debug)]
pub struct NoticeCounts {
    by_channel: Counters,
    dropped: Counter,
}

impl Default for NoticeCounts {
    fn default() -> Self {
        Self { by_channel: Counters::new(&metrics::NOTICES), dropped: Counter::default() }
    }
}

impl NoticeCounts {
    pub fn register(&self, registry: &mut Registry) {
        self.by_channel.register(registry);
        metrics::NOTICES_DROPPED.register(registry, self.dropped.clone());
    }

    /// Counts notices of a channel, which has an address after a colon.
    fn count(&self, channel: &str, outcome: &str, notices: usize) {
        let kind = channel.split(':').next().unwrap_or_default();
        self.by_channel.of(&[kind, outcome]).inc_by(u64::try_from(notices).unwrap_or(u64::MAX));
    }
}

impl Messenger {
    pub fn new(config: &GuardConfig, store: &Store, world: &World) -> Result<Self, Failure> {
        let mail = config.mail.as_ref();
        Ok(Self {
            store: store.clone(),
            clock: world.clock.clone(),
            // The operator chose this address, so it may be private.
            webhook: config
                .webhook
                .as_ref()
                .map(|url| Webhook::new(url, config.webhook_secret.as_deref(), true, world.tls.clone()))
                .transpose()?,
            transport: mail.map(|mail| super::reporting::transport(&mail.deliver, world)).transpose()?,
            from: mail.map(|mail| mail.from.clone()),
            to: mail.map(|mail| mail.to.clone()).unwrap_or_default(),
            counts: NoticeCounts::default(),
        })
    }

    /// The names of the channels: the webhook and each mail address. Each is retried independently.
    pub fn channels(config: &GuardConfig) -> Vec<String> {
        let mail = config.mail.iter().flat_map(|mail| mail.to.iter().map(channel));
        config.webhook.iter().map(|_| WEBHOOK.to_owned()).chain(mail).collect()
    }

    /// The names of the channels for weekly summaries, one for each mail address.
    pub fn weekly_channels(config: &GuardConfig) -> Vec<String> {
        config.mail.iter().flat_map(|mail| mail.to.iter().map(weekly_channel)).collect()
    }

    /// Delivers due notices until the task is dropped. Each channel has a queue of its own, so that a slow webhook or mail
    /// server delays only its own notices.
    pub async fn run(self: Arc<Self>) {
        join_all(self.queues().map(|queue| self.deliver_all(queue))).await;
    }

    async fn deliver_all(&self, queue: Queue<'_>) {
        loop {
            if let Err(error) = self.deliver(queue).await {
                tracing::error!("alert notices can't be delivered: {error}");
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn queues(&self) -> impl Iterator<Item = Queue<'_>> {
        let webhook = self.webhook.iter().map(Queue::Webhook);
        [Queue::Expired].into_iter().chain(webhook).chain(self.to.iter().map(Queue::Mail))
    }

    /// Delivers what is due in a queue.
    async fn deliver(&self, queue: Queue<'_>) -> Result<(), StoreError> {
        match queue {
            Queue::Expired => self.drop_expired().await,
            Queue::Webhook(webhook) => self.post_all(webhook).await,
            Queue::Mail(to) => {
                self.mail_to(to).await?;
                self.mail_summaries(to).await
            }
        }
    }

    /// The time that all processes with this store share.
    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.store.common_time(self.clock.now()).await
    }

    async fn drop_expired(&self) -> Result<(), StoreError> {
        let old = self.now().await?.saturating_sub(NOTICE_LIFETIME).unwrap_or(Timestamp::MIN);
        match self.store.delete_notices(old).await? {
            0 => {}
            dropped => {
                self.counts.dropped.inc_by(dropped);
                tracing::error!("dropped {dropped} alert notices that could not be delivered within a day");
            }
        }
        Ok(())
    }

    /// Claims a channel on which something is due.
    async fn claim(&self, channel: &str) -> Result<Option<ChannelClaim>, StoreError> {
        let now = self.now().await?;
        self.store.claim_channel(channel, now, later(now, CLAIM_TIME)).await
    }

    /// Renews a claim; false if another process has the channel.
    async fn hold(&self, claim: &ChannelClaim) -> Result<bool, StoreError> {
        self.store.hold_channel(claim, later(self.now().await?, CLAIM_TIME)).await
    }

    /// Ends a claim: nothing is delivered on the channel for this time.
    async fn end(&self, claim: &ChannelClaim, pause: SignedDuration) -> Result<(), StoreError> {
        self.store.hold_channel(claim, later(self.now().await?, pause)).await.map(drop)
    }

    /// Delivers under a claim, which is renewed meanwhile. `None`, and the delivery does not begin or is given up, if another
    /// process has the channel.
    async fn under<T>(
        &self,
        claim: &ChannelClaim,
        delivery: impl Future<Output = T>,
    ) -> Result<Option<T>, StoreError> {
        let mut delivery = std::pin::pin!(delivery);
        while self.hold(claim).await? {
            if let Ok(done) = tokio::time::timeout(CLAIM_RENEWAL, &mut delivery).await {
                return Ok(Some(done));
            }
        }
        tracing::warn!(channel = claim.channel(), "another process delivers the notices, since this one took too long");
        Ok(None)
    }

    async fn post_all(&self, webhook: &Webhook) -> Result<(), StoreError> {
        let Some(claim) = self.claim(WEBHOOK).await? else { return Ok(()) };
        for notice in self.store.due_notices::<Event>(WEBHOOK, self.now().await?, BATCH_ROWS).await? {
            let body = serde_json::to_string(&notice.content).unwrap_or_default();
            let id = format!("alert-{}-{}", notice.id, notice.changed_at.as_second());
            match self.under(&claim, webhook.post(&id, self.clock.now(), body)).await? {
                None => return Ok(()),
                Some(Ok(())) => {
                    self.counts.count(WEBHOOK, "delivered", 1);
                    self.store.end_notices(&[notice.id]).await?;
                }
                Some(Err(why)) => return self.put_off(&claim, notice.tries, &why).await,
            }
        }
        self.end(&claim, SignedDuration::ZERO).await
    }

    async fn mail_to(&self, to: &MailAddress) -> Result<(), StoreError> {
        let (Some(transport), Some(from)) = (&self.transport, &self.from) else { return Ok(()) };
        let Some(claim) = self.claim(&channel(to)).await? else { return Ok(()) };
        let notices = self.store.due_notices::<Event>(claim.channel(), self.now().await?, BATCH_ROWS).await?;
        let Some(first) = notices.first() else { return self.end(&claim, SignedDuration::ZERO).await };
        let id = batch_id(&notices);
        let message = match alert_mail(from, to, &id, self.clock.now(), &notices) {
            Ok(message) => message,
            Err(error) => {
                return self.put_off(&claim, first.tries, &format!("mail to {to} failed: {error}")).await;
            }
        };
        let mail = Mail { from: from.to_string(), to: vec![to.to_string()], message };
        let name = format!("alert-{id}-{to}");
        match self.under(&claim, transport.carry(to.domain(), &mail, &name)).await? {
            None => Ok(()),
            Some(Ok(_)) => {
                let ids: Vec<i64> = notices.iter().map(|notice| notice.id).collect();
                self.counts.count(claim.channel(), "delivered", ids.len());
                self.store.end_notices(&ids).await?;
                // Notices of the next minute are sent together in one message.
                self.end(&claim, MAIL_INTERVAL).await
            }
            Some(Err(failed)) => {
                self.put_off(&claim, first.tries, &format!("mail to {to} failed: {}", failed.why)).await
            }
        }
    }

    /// Mails the weekly summaries to one recipient, each in its own message.
    async fn mail_summaries(&self, to: &MailAddress) -> Result<(), StoreError> {
        let (Some(transport), Some(from)) = (&self.transport, &self.from) else { return Ok(()) };
        let Some(claim) = self.claim(&weekly_channel(to)).await? else { return Ok(()) };
        let due = self.store.due_notices::<SummaryMail>(claim.channel(), self.now().await?, BATCH_ROWS).await?;
        for notice in due {
            let id = format!("weekly.{}.{}", notice.id, notice.changed_at.as_second());
            let SummaryMail { subject, body } = notice.content;
            let message = match compose(from, to, &id, self.clock.now(), subject, body) {
                Ok(message) => message,
                Err(error) => {
                    let why = format!("mail to {to} failed: {error}");
                    return self.put_off(&claim, notice.tries, &why).await;
                }
            };
            let mail = Mail { from: from.to_string(), to: vec![to.to_string()], message };
            let name = format!("{id}-{to}");
            match self.under(&claim, transport.carry(to.domain(), &mail, &name)).await? {
                None => return Ok(()),
                Some(Ok(_)) => {
                    self.counts.count(claim.channel(), "delivered", 1);
                    self.store.end_notices(&[notice.id]).await?;
                }
                Some(Err(failed)) => {
                    let why = format!("mail to {to} failed: {}", failed.why);
                    return self.put_off(&claim, notice.tries, &why).await;
                }
            }
        }
        self.end(&claim, SignedDuration::ZERO).await
    }

    async fn put_off(&self, claim: &ChannelClaim, tries: u32, why: &str) -> Result<(), StoreError> {
        self.counts.count(claim.channel(), "failed", 1);
        let due = later(self.now().await?, retry_delay(tries));
        tracing::warn!(again = %due, "notices can't be delivered: {why}");
        self.store.postpone_notices(claim, due).await
    }
}

/// The ID of a message with these notices: the same when it is sent again, and another one once it has more notices.
fn batch_id(notices: &[Notice<Event>]) -> String {
    match notices {
        [first, .., last] => format!("{}-{}.{}", first.id, last.id, first.changed_at.as_second()),
        [only] => format!("{}.{}", only.id, only.changed_at.as_second()),
        [] => String::new(),
    }
}

fn channel(to: &MailAddress) -> String {
    format!("mail:{to}")
}

fn weekly_channel(to: &MailAddress) -> String {
    format!("weekly:{to}")
}

/// Composes one message with all due notices.
fn alert_mail(
    from: &MailAddress,
    to: &MailAddress,
    id: &str,
    now: Timestamp,
    notices: &[Notice<Event>],
) -> std::io::Result<Vec<u8>> {
    let events: Vec<&Event> = notices.iter().map(|notice| &notice.content).collect();
    compose(from, to, id, now, subject(&events), body(&events))
}

/// Composes a message in plain text.
fn compose(
    from: &MailAddress,
    to: &MailAddress,
    id: &str,
    now: Timestamp,
    subject: String,
    body: String,
) -> std::io::Result<Vec<u8>> {
    MessageBuilder::new()
        .from(("Sternpost".to_owned(), from.to_string()))
        .to(to.to_string())
        .subject(subject)
        .date(now.as_second())
        .message_id(format!("{id}.sternpost@{}", from.domain()))
        .header("Auto-Submitted", Text::new("auto-generated"))
        .text_body(body)
        .write_to_vec()
}

fn subject(events: &[&Event]) -> String {
    let over = events.iter().filter(|event| event.event == EventKind::Over).count();
    match events {
        [one] if over == 1 => {
            format!("[sternpost] over: {}: {} {}", concerned(one, 1), one.alert.kind, one.alert.subject)
        }
        [one] => format!("[sternpost] {}: {} {}", concerned(one, 1), one.alert.kind, one.alert.subject),
        all => format!("[sternpost] {} alerts, {over} over", all.len() - over),
    }
}

/// The domains that an event is about: as many of them by name, and the number of the others.
fn concerned(event: &Event, named: usize) -> String {
    let all = match event.alert.domains.is_empty() {
        true => std::slice::from_ref(&event.domain),
        false => event.alert.domains.as_slice(),
    };
    let names = all.iter().take(named).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(named) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

fn body(events: &[&Event]) -> String {
    let mut out = String::new();
    for event in events.iter().take(MAX_DETAILED) {
        let Event { at, alert, .. } = event;
        let domain = concerned(event, MAX_DOMAINS);
        let at = at.strftime("%Y-%m-%d %H:%M UTC");
        // Writing to a String does not fail.
        let _ = match event.event {
            EventKind::Raised => writeln!(
                out,
                "{domain}: {}.\n\n  {}\n\n  What to do: {}\n\n  ({}, seen {at})\n",
                alert.what, alert.consequence, alert.remedy, alert.kind
            ),
            EventKind::Over => {
                writeln!(out, "Over: {domain}: {}.\n\n  ({}, since {at})\n", alert.what, alert.kind)
            }
        };
    }
    if events.len() > MAX_DETAILED {
        let _ = writeln!(
            out,
            "And {} more: `sternpost status` and the dashboard show them.\n",
            events.len() - MAX_DETAILED
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::webhook::tests::{receive, receive_only, tls};
    use super::*;
    use net::clock::ManualClock;
    use receiver::rollout::guard::AlertKind;
    use store::notices::NewNotice;

    fn event(domain: &str, event: EventKind) -> Event {
        Event {
            schema: 1,
            event,
            domain: domain.to_owned(),
            at: Timestamp::from_second(1_790_000_000).unwrap(),
            alert: Alert {
                kind: AlertKind::MxUncovered,
                subject: "mx9.example.org".to_owned(),
                what: "mx9.example.org is an MX host, and the policy does not name it".to_owned(),
                consequence: "Senders refuse to deliver to it.".into(),
                remedy: "sternpost apply example.org".to_owned(),
                cause: None,
                domains: Vec::new(),
            },
        }
    }

    struct Fixture {
        _dir: tempfile::TempDir,
        out: std::path::PathBuf,
        clock: Arc<ManualClock>,
        messenger: Messenger,
    }

    impl Fixture {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let clock = Arc::new(ManualClock::new(Timestamp::from_second(1_790_000_000).unwrap()));
            let out = dir.path().join("out");
            let messenger = Messenger {
                store: Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap(),
                clock: clock.clone(),
                webhook: None,
                transport: Some(Transport::Folder(out.clone())),
                from: MailAddress::parse("sternpost@example.net").ok(),
                to: vec![MailAddress::parse("ops@example.net").unwrap()],
                counts: NoticeCounts::default(),
            };
            Self { _dir: dir, out, clock, messenger }
        }

        /// The messenger of another process with the same store.
        async fn another(&self) -> Messenger {
            Messenger {
                store: Store::open(&self._dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap(),
                clock: self.clock.clone(),
                webhook: None,
                transport: Some(Transport::Folder(self.out.clone())),
                from: self.messenger.from.clone(),
                to: self.messenger.to.clone(),
                counts: NoticeCounts::default(),
            }
        }

        async fn raise(&self, event: &Event) {
            let channels = [channel(&self.messenger.to[0])];
            let notice = NewNotice { channels: &channels, changed_at: self.clock.now(), content: event };
            let domain = formats::DomainName::parse(&event.domain).unwrap();
            self.messenger
                .store
                .raise(&domain, "k", "s", self.clock.now(), &event.alert, Some(notice))
                .await
                .unwrap();
        }

        /// Does once what each queue does.
        async fn round(&self) {
            round_of(&self.messenger).await;
        }

        fn mails(&self) -> Vec<String> {
            let files =
                std::fs::read_dir(&self.out).map(|files| files.collect::<Vec<_>>()).unwrap_or_default();
            files.into_iter().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect()
        }
    }

    async fn round_of(messenger: &Messenger) {
        for queue in messenger.queues() {
            messenger.deliver(queue).await.unwrap();
        }
    }

    #[tokio::test]
    async fn several_processes_with_one_store_send_each_notice_once_and_at_the_pace_of_one() {
        let fixture = Fixture::new().await;
        let others = [fixture.another().await, fixture.another().await];
        let all = async || {
            tokio::join!(fixture.round(), round_of(&others[0]), round_of(&others[1]));
        };
        fixture.raise(&event("example.org", EventKind::Raised)).await;
        all().await;
        assert_eq!(fixture.mails().len(), 1);
        fixture.raise(&event("example.com", EventKind::Raised)).await;
        all().await;
        assert_eq!(fixture.mails().len(), 1, "a second mail within a minute");
        fixture.clock.set_by(61);
        all().await;
        all().await;
        assert_eq!(fixture.mails().len(), 2);
    }

    #[tokio::test]
    async fn the_notice_of_a_process_that_died_is_sent_by_another_with_the_same_id() {
        let mut fixture = Fixture::new().await;
        let mut other = fixture.another().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        for messenger in [&mut fixture.messenger, &mut other] {
            messenger.webhook = Some(Webhook::new(&url, None, true, tls()).unwrap());
        }
        let told = event("example.org", EventKind::Raised);
        let domain = formats::DomainName::parse("example.org").unwrap();
        let (channels, now) = ([WEBHOOK.to_owned()], fixture.clock.now());
        let notice = NewNotice { channels: &channels, changed_at: now, content: &told };
        other.store.raise(&domain, "k", "s", now, &told.alert, Some(notice)).await.unwrap();
        let webhook = fixture.messenger.webhook.as_ref().unwrap();
        let dies = fixture.messenger.deliver(Queue::Webhook(webhook));
        let (_open, head, _) = {
            let mut dies = std::pin::pin!(dies);
            tokio::select! {
                _ = &mut dies => unreachable!("it waits for the answer"),
                request = receive_only(&listener) => request,
            }
        };
        // The claim of the one that died holds for a while.
        let webhook = other.webhook.as_ref().unwrap();
        other.deliver(Queue::Webhook(webhook)).await.unwrap();
        assert_eq!(other.counts.by_channel.of(&[WEBHOOK, "delivered"]).get(), 0);
        fixture.clock.set_by(60);
        let (done, (again, _)) =
            tokio::join!(other.deliver(Queue::Webhook(webhook)), receive(&listener, "204 No Content"));
        done.unwrap();
        let id = |head: &str| head.lines().find(|line| line.starts_with("webhook-id: ")).unwrap().to_owned();
        assert_eq!(id(&head), id(&again));
        assert_eq!(other.counts.by_channel.of(&[WEBHOOK, "delivered"]).get(), 1);
        assert_eq!(other.store.claim_channel(WEBHOOK, later(now, SignedDuration::from_hours(1)), now).await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_first_alert_is_sent_at_once_and_those_of_the_next_minute_in_one_message() {
        let fixture = Fixture::new().await;
        fixture.raise(&event("example.org", EventKind::Raised)).await;
        fixture.round().await;
        let mails = fixture.mails();
        assert_eq!(mails.len(), 1);
        for part in [
            "To: <ops@example.net>",
            "Subject: [sternpost] example.org: mx-uncovered mx9.example.org",
            "Auto-Submitted: auto-generated",
            "What to do: sternpost apply example.org",
            "Senders refuse to deliver to it.",
        ] {
            assert!(mails[0].contains(part), "{part}: {}", mails[0]);
        }
        for _ in 0..60 {
            fixture.raise(&event("example.com", EventKind::Raised)).await;
        }
        fixture.raise(&event("example.org", EventKind::Over)).await;
        fixture.round().await;
        assert_eq!(fixture.mails().len(), 1, "a second mail within a minute");
        fixture.clock.set_by(61);
        fixture.round().await;
        let mails = fixture.mails();
        let second = mails.iter().find(|mail| mail.contains("[sternpost] 60 alerts, 1 over")).unwrap();
        assert!(mails.len() == 2 && second.contains("And 11 more"), "{second}");
    }

    #[test]
    fn an_alert_about_many_domains_names_them() {
        let mut event = event("d0.example", EventKind::Raised);
        assert_eq!(subject(&[&event]), "[sternpost] d0.example: mx-uncovered mx9.example.org");
        event.alert.domains = (0..60).map(|number| format!("d{number}.example")).collect();
        assert_eq!(subject(&[&event]), "[sternpost] d0.example and 59 more: mx-uncovered mx9.example.org");
        let body = body(&[&event]);
        assert!(
            body.contains("d0.example, d1.example,") && body.contains("d49.example and 10 more: "),
            "{body}"
        );
    }

    #[test]
    fn the_webhook_gets_the_cause_and_all_domains_in_one_event() {
        let mut event = event("d0.example", EventKind::Raised);
        event.alert.cause = Some("mx9.example.org".to_owned());
        event.alert.domains = (0..3).map(|number| format!("d{number}.example")).collect();
        let expected = serde_json::json!({
            "schema": 1,
            "event": "raised",
            "domain": "d0.example",
            "at": "2026-09-21T14:13:20Z",
            "alert": {
                "kind": "mx-uncovered",
                "subject": "mx9.example.org",
                "what": "mx9.example.org is an MX host, and the policy does not name it",
                "consequence": "Senders refuse to deliver to it.",
                "remedy": "sternpost apply example.org",
                "cause": "mx9.example.org",
                "domains": ["d0.example", "d1.example", "d2.example"],
            },
        });
        assert_eq!(serde_json::to_value(&event).unwrap(), expected);
        // The end of the alert has the same domains, so that a receiver can match both.
        let over = Event { event: EventKind::Over, ..event };
        let json = serde_json::to_value(&over).unwrap();
        assert_eq!((&json["event"], &json["alert"]), (&"over".into(), &expected["alert"]));
    }

    #[tokio::test]
    async fn undelivered_notices_are_retried_and_dropped_after_a_day() {
        let fixture = Fixture::new().await;
        // A file with the folder's name makes delivery fail.
        std::fs::write(&fixture.out, "").unwrap();
        fixture.raise(&event("example.org", EventKind::Raised)).await;
        fixture.round().await;
        std::fs::remove_file(&fixture.out).unwrap();
        fixture.round().await;
        assert!(fixture.mails().is_empty(), "it was sent before the retry was due");
        fixture.clock.set_by(5);
        fixture.round().await;
        assert_eq!(fixture.mails().len(), 1);
        fixture.raise(&event("example.com", EventKind::Raised)).await;
        fixture.clock.set_by(25 * 3600);
        fixture.round().await;
        assert_eq!(fixture.mails().len(), 1, "an old notice was sent");
        let counts = &fixture.messenger.counts;
        let mail = |outcome| counts.by_channel.of(&["mail", outcome]).get();
        assert_eq!((mail("delivered"), mail("failed"), counts.dropped.get()), (1, 1, 1));
    }

    #[tokio::test]
    async fn weekly_summaries_are_mailed_beside_alerts_and_retried() {
        let fixture = Fixture::new().await;
        let told = SummaryMail { subject: "[sternpost] a week".into(), body: "Größe: 3\n".into() };
        let channels = [weekly_channel(&fixture.messenger.to[0])];
        let notice = NewNotice { channels: &channels, changed_at: fixture.clock.now(), content: &told };
        let due = fixture.clock.now();
        assert!(fixture.messenger.store.do_once("weekly", due, Some(notice)).await.unwrap());
        std::fs::write(&fixture.out, "").unwrap();
        fixture.round().await;
        std::fs::remove_file(&fixture.out).unwrap();
        fixture.raise(&event("example.org", EventKind::Raised)).await;
        fixture.round().await;
        assert_eq!(fixture.mails().len(), 1, "the alert does not wait for the summary");
        fixture.clock.set_by(5);
        fixture.round().await;
        fixture.round().await;
        let mails = fixture.mails();
        let summary = mails.iter().find(|mail| mail.contains("Subject: [sternpost] a week")).unwrap();
        assert!(mails.len() == 2 && summary.contains("Auto-Submitted: auto-generated"), "{summary}");
    }

    /// A webhook that accepts connections and never answers.
    #[tokio::test]
    async fn a_webhook_that_never_answers_delays_no_mail() {
        let mut fixture = Fixture::new().await;
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", silent.local_addr().unwrap());
        fixture.messenger.webhook = Some(Webhook::new(&url, None, true, tls()).unwrap());
        let channels = [WEBHOOK.to_owned(), channel(&fixture.messenger.to[0])];
        let told = event("example.org", EventKind::Raised);
        let domain = formats::DomainName::parse("example.org").unwrap();
        let now = fixture.clock.now();
        let notice = NewNotice { channels: &channels, changed_at: now, content: &told };
        let store = &fixture.messenger.store;
        store.raise(&domain, "k", "s", now, &told.alert, Some(notice)).await.unwrap();
        let Fixture { messenger, .. } = &fixture;
        let is_mailed = async {
            // The request is under way before the mail is looked for.
            let _open = silent.accept().await.unwrap();
            while fixture.mails().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            messenger.counts.by_channel.of(&[WEBHOOK, "failed"]).get()
        };
        let deliveries = join_all(messenger.queues().map(|queue| messenger.deliver_all(queue)));
        let failed = tokio::select! {
            failed = is_mailed => failed,
            _ = deliveries => unreachable!("the queues never end"),
        };
        assert_eq!(failed, 0, "the mail waited until the webhook had failed");
    }
}
