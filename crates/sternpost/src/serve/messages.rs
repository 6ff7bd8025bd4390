//! Notices of alerts, delivered to the webhook and by mail, and weekly summaries, delivered by mail. The guard and `weekly`
//! put them into the store, one for each channel. A notice stays there until it is delivered, or until it is a day old.
//!
//! Of several processes with one store, one at a time delivers on a channel, under a claim that it renews while it works. If it
//! dies, another one goes on after [`CLAIM_TIME`], and sends what was under way once more, with the same ID.

use super::chat;
use super::webhook::{Webhook, retry_delay};
use config::failure::Failure;
use config::{GuardConfig, WebhookFormat};
use formats::tlsrpt_record::MailAddress;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use mail_builder::MessageBuilder;
use mail_builder::headers::text::Text;
use net::clock::{Clock, later};
use net::metrics::{self, Counter, Counters, Registry};
use net::smtp::Mail;
use operations::summary::SummaryMail;
use operations::tenants::TenantList;
use operations::world::World;
use receiver::rollout::guard::Alert;
use sender::report::Transport;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use store::notices::{ChannelClaim, Notice};
use store::tenants::TenantName;
use store::{Store, StoreError};

/// The content of a notice: an alert is raised or over. It is the JSON that the webhook receives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The version of this JSON format.
    pub schema: u32,
    /// Whether the alert is raised or over.
    pub event: EventKind,
    /// The tenant that the domain belongs to; `None` for the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantName>,
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

/// Delivers the notices of all tenants from the store.
#[derive(Clone)]
pub struct Messenger {
    store: Store,
    tenants: TenantList,
    clock: Arc<dyn Clock>,
    webhook: Option<Arc<Webhook>>,
    format: WebhookFormat,
    transport: Option<Arc<Transport>>,
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
#[derive(Debug, Clone)]
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
            tenants: TenantList::new(store),
            clock: world.clock.clone(),
            // The operator chose this address, so it may be private.
            webhook: config
                .webhook
                .as_ref()
                .map(|url| Webhook::new(url, config.webhook_secret.as_deref(), true, world.tls.clone()))
                .transpose()?
                .map(Arc::new),
            format: config.webhook_format,
            transport: mail
                .map(|mail| super::reporting::transport(&mail.deliver, world))
                .transpose()?
                .map(Arc::new),
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
            if let Err(error) = self.deliver_of_tenants(queue).await {
                tracing::error!("alert notices can't be delivered: {error}");
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Delivers what is due in a queue for each tenant.
    async fn deliver_of_tenants(&self, queue: Queue<'_>) -> Result<(), StoreError> {
        for tenant in self.tenants.all().await?.iter() {
            let of_tenant = Self { store: self.store.of_tenant(tenant.tenant), ..self.clone() };
            of_tenant.deliver(queue).await?;
        }
        Ok(())
    }

    fn queues(&self) -> impl Iterator<Item = Queue<'_>> {
        let webhook = self.webhook.iter().map(|webhook| Queue::Webhook(webhook));
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
        tracing::warn!(
            channel = claim.channel(),
            "another process delivers the notices, since this one took too long"
        );
        Ok(None)
    }

    async fn post_all(&self, webhook: &Webhook) -> Result<(), StoreError> {
        let Some(claim) = self.claim(WEBHOOK).await? else { return Ok(()) };
        for notice in self.store.due_notices::<Event>(WEBHOOK, self.now().await?, BATCH_ROWS).await? {
            let message = chat::message(self.format, &notice.content);
            let id = format!("alert-{}-{}", notice.id, notice.changed_at.as_second());
            match self.under(&claim, webhook.post(&id, self.clock.now(), &message)).await? {
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
        let due =
            self.store.due_notices::<SummaryMail>(claim.channel(), self.now().await?, BATCH_ROWS).await?;
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
pub(super) fn concerned(event: &Event, named: usize) -> String {
    let all = match event.alert.domains.is_empty() {
        true => std::slice::from_ref(&event.domain),
        false => event.alert.domains.as_slice(),
    };
    let names = all.iter().take(named).map(String::as_str).collect::<Vec<_>>().join(", ");
    let of_tenant = event.tenant.as_ref().map(|tenant| format!(" (tenant {tenant})")).unwrap_or_default();
    match all.len().saturating_sub(named) {
        0 => format!("{names}{of_tenant}"),
        more => format!("{names} and {more} more{of_tenant}"),
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
mod tests;
