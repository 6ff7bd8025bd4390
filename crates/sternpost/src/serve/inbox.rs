//! The role `[inbox]`: receives TLS reports by SMTP and LMTP, and fetches them from IMAP mailboxes. [`Inbox`] verifies
//! and stores them. Reports by HTTPS POST arrive at the dashboard's address instead (`pages`).

use super::certificate::Certificate;
use super::tasks::Tasks;
use config::failure::Failure;
use config::{CertificateFiles, InboxConfig};
use formats::DomainName;
use formats::limits::INBOX_CONNECTIONS;
use jiff::{SignedDuration, Timestamp};
use net::BoxFuture;
use net::clock::Clock;
use net::rate_limit::RateLimiter;
use net::smtp::server::{AnyStream, Incoming, KeepError, Mailbox, Protocol, ServerConfig, Starttls, serve};
use operations::inbox::inbox;
use operations::world::World;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use receiver::inbox::{Inbox, receive_buffers};
use sender::serve::Shutdown;
use sender::serve::listen::Serve;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Store;
use store::reports::Arrival;
use tokio::sync::Semaphore;

/// The period of the rate limit for messages from one address.
const MINUTE: Duration = Duration::from_secs(60);

/// The service for SMTP or LMTP connections.
#[derive(Clone)]
pub struct Mail {
    server: Arc<ServerConfig>,
    inbox: Arc<Inbox>,
    connections: Arc<Semaphore>,
    /// The limit for messages from one address; `None` for LMTP, which only the operator's mail server uses.
    rates: Option<Arc<RateLimiter>>,
    counts: MailCounts,
}

/// The metrics of SMTP and LMTP.
#[derive(Clone, Default)]
pub struct MailCounts {
    /// Messages to postmaster, which are accepted and not stored.
    postmaster: Counter,
}

impl MailCounts {
    fn register(&self, registry: &mut Registry) {
        let help = "Messages to postmaster that were accepted and not stored";
        registry.register("inbox_postmaster_messages", help, self.postmaster.clone());
    }
}

/// The inbox with the rate limit of one client.
struct ClientMailbox<'a> {
    inbox: &'a Inbox,
    pace: Option<(&'a RateLimiter, IpAddr)>,
    counts: &'a MailCounts,
}

impl Mailbox for ClientMailbox<'_> {
    fn is_welcome(&self) -> bool {
        self.pace.is_none_or(|(rates, from)| rates.take(from, Instant::now()))
    }

    fn takes(&self, recipient: &str) -> bool {
        self.inbox.takes(recipient)
    }

    fn keep(&self, incoming: Incoming) -> BoxFuture<'_, Result<(), KeepError>> {
        if self.inbox.is_for_postmaster(&incoming.to) {
            self.counts.postmaster.inc();
        }
        self.inbox.keep(incoming)
    }
}

impl Serve for Mail {
    fn serve(
        self: Arc<Self>,
        stream: AnyStream,
        from: Option<IpAddr>,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // Further connections wait in the kernel's backlog.
            let Ok(_permit) = self.connections.acquire().await else { return };
            let pace = self.rates.as_deref().zip(from);
            let mailbox = ClientMailbox { inbox: &self.inbox, pace, counts: &self.counts };
            let session = serve(stream, &self.server, &mailbox);
            tokio::select! {
                ended = session => if let Err(error) = ended {
                    tracing::debug!("mail session failed: {error}");
                },
                // The client retries messages that were not acknowledged.
                () = shutdown.token.cancelled() => {}
            }
        })
    }
}

/// The services of the role.
pub struct MailRole {
    pub smtp: Mail,
    pub lmtp: Mail,
}

impl MailRole {
    pub fn new(
        config: &InboxConfig,
        store: &Store,
        world: &World,
        tasks: &mut Tasks,
        registry: &mut Registry,
    ) -> Result<Self, Failure> {
        let counts = MailCounts::default();
        counts.register(registry);
        let starttls = match &config.certificate {
            Some(files) => starttls(files, tasks)?,
            None => Starttls::Absent,
        };
        let name = match &config.name {
            Some(name) => name.clone(),
            None => hostname()?,
        };
        #[cfg(feature = "imap")]
        for mailbox in config.imap.clone() {
            let inbox = inbox(config, store, world, Arrival::Imap);
            let parts = Arc::new((mailbox, inbox, world.tls.clone()));
            tasks.spawn("imap", move || {
                let parts = parts.clone();
                async move { parts.0.keep(&parts.1, &parts.2).await }
            });
        }
        if config.dmarc {
            let (store, clock) = (store.clone(), world.clock.clone());
            tasks.spawn("old-dmarc-reports", move || delete_old_dmarc(store.clone(), clock.clone()));
        }
        let connections = Arc::new(Semaphore::new(INBOX_CONNECTIONS));
        let rates = Some(Arc::new(RateLimiter::new(config.messages_per_minute, MINUTE)));
        let mail = |protocol, arrival, rates| {
            let server = ServerConfig {
                protocol,
                memory: receive_buffers(),
                ..ServerConfig::new(name.clone(), starttls.clone())
            };
            let inbox = Inbox { name: Some(name.clone()), ..inbox(config, store, world, arrival) };
            Mail {
                server: Arc::new(server),
                inbox: Arc::new(inbox),
                connections: connections.clone(),
                rates,
                counts: counts.clone(),
            }
        };
        Ok(Self {
            smtp: mail(Protocol::Smtp, Arrival::Smtp, rates),
            lmtp: mail(Protocol::Lmtp, Arrival::Lmtp, None),
        })
    }
}

/// Days after which a DMARC report of a verified sender is deleted, and another one: as long as TLS reports are kept.
const KEEP_DMARC_DAYS: i64 = 400;
const KEEP_UNVERIFIED_DMARC_DAYS: i64 = 90;
/// DMARC reports that are deleted at once, so that other writes do not wait.
const DMARC_BATCH: u32 = 200;
/// Time between two deletions.
const DELETION_INTERVAL: Duration = Duration::from_secs(3600);

/// Deletes old DMARC reports hourly.
async fn delete_old_dmarc(store: Store, clock: Arc<dyn Clock>) {
    loop {
        for (verified, days) in [(true, KEEP_DMARC_DAYS), (false, KEEP_UNVERIFIED_DMARC_DAYS)] {
            let age = SignedDuration::from_hours(24 * days);
            let before = clock.now().saturating_sub(age).unwrap_or(Timestamp::MIN);
            loop {
                match store.delete_dmarc_reports(verified, before, DMARC_BATCH).await {
                    Ok(deleted) if deleted >= u64::from(DMARC_BATCH) => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::error!("old DMARC reports can't be deleted: {error}");
                        break;
                    }
                }
            }
        }
        tokio::time::sleep(DELETION_INTERVAL).await;
    }
}

fn starttls(files: &CertificateFiles, tasks: &mut Tasks) -> Result<Starttls, Failure> {
    let certificate = Certificate::load(files, &[])?;
    let kept = certificate.clone();
    tasks.spawn("inbox-certificate", move || kept.clone().keep());
    Ok(Starttls::Offered(certificate))
}

fn hostname() -> Result<DomainName, Failure> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    DomainName::parse(name.trim()).map_err(|error| {
        Failure::usage(
            "the inbox has no host name",
            format!("this machine's host name is {:?}: {error}", name.trim()),
            "Set the name that the MX record points to:\n  [inbox]\n  name = \"reports.example.org\"",
        )
    })
}
