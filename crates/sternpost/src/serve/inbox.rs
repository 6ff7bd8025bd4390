//! The role `[inbox]`: receives TLS reports by SMTP and LMTP, and fetches them from IMAP mailboxes. [`Inbox`] verifies
//! and stores them. Reports by HTTPS POST arrive at the dashboard's address instead (`pages`).

use super::certificate::Certificate;
use super::tasks::Tasks;
use config::failure::Failure;
use config::{CertificateFiles, InboxConfig};
use formats::DomainName;
use formats::limits::{INBOX_CONNECTIONS, INBOX_CONNECTIONS_PER_CLIENT, INBOX_LMTP_CONNECTIONS};
use net::BoxFuture;
use net::rate_limit::{ClientLimit, LimitReached, RateLimiter};
use net::smtp::server::{
    AnyStream, Incoming, KeepError, Mailbox, Protocol, ServerConfig, Starttls, decline, serve,
};
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

/// The period of the rate limit for messages from one address.
const MINUTE: Duration = Duration::from_secs(60);

/// The service for SMTP or LMTP connections.
#[derive(Clone)]
pub struct Mail {
    server: Arc<ServerConfig>,
    inbox: Arc<Inbox>,
    /// The connections of this protocol: strangers who use up those of SMTP do not hold up LMTP.
    connections: Arc<ClientLimit>,
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
            let _admission = match self.connections.try_take(from) {
                Ok(admission) => admission,
                Err(reached) => {
                    let why = match reached {
                        LimitReached::Total => "4.3.2 too many connections, try again later",
                        LimitReached::Client => "4.7.0 too many connections from your address",
                    };
                    // The client may be gone already.
                    let _ = decline(stream, &self.server, why).await;
                    return;
                }
            };
            let pace = self.rates.as_deref().zip(from);
            // The client of LMTP is the operator's mail server, so its messages have no client.
            let inbox = self.inbox.for_client(pace.map(|(_, from)| from));
            let mailbox = ClientMailbox { inbox: &inbox, pace, counts: &self.counts };
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
        let of_smtp = ClientLimit::new(INBOX_CONNECTIONS, Some(INBOX_CONNECTIONS_PER_CLIENT));
        let of_lmtp = ClientLimit::new(INBOX_LMTP_CONNECTIONS, None);
        let rates = Some(Arc::new(RateLimiter::new(config.messages_per_minute, MINUTE)));
        let mail = |protocol, arrival, connections, rates| {
            let server = ServerConfig {
                protocol,
                memory: receive_buffers(arrival),
                ..ServerConfig::new(name.clone(), starttls.clone())
            };
            let inbox = Inbox { name: Some(name.clone()), ..inbox(config, store, world, arrival) };
            Mail {
                server: Arc::new(server),
                inbox: Arc::new(inbox),
                connections: Arc::new(connections),
                rates,
                counts: counts.clone(),
            }
        };
        Ok(Self {
            smtp: mail(Protocol::Smtp, Arrival::Smtp, of_smtp, rates),
            lmtp: mail(Protocol::Lmtp, Arrival::Lmtp, of_lmtp, None),
        })
    }
}

fn starttls(files: &CertificateFiles, tasks: &mut Tasks) -> Result<Starttls, Failure> {
    let certificate = Certificate::load(files, &[])?;
    let kept = certificate.clone();
    tasks.spawn("inbox-certificate", move || kept.clone().keep());
    Ok(Starttls::Offered(certificate))
}

fn hostname() -> Result<DomainName, Failure> {
    let name = config::machine::host_name();
    DomainName::parse(&name).map_err(|error| {
        Failure::usage(
            "the inbox has no host name",
            format!("this machine's host name is {name:?}: {error}"),
            "Set the name that the MX record points to:\n  [inbox]\n  name = \"reports.example.org\"",
        )
    })
}
