//! The role `[inbox]`: receives TLS reports by SMTP and LMTP, and fetches them from IMAP mailboxes. [`Inbox`] verifies
//! and stores them. Reports by HTTPS POST arrive at the dashboard's address instead (`pages`).

use super::certificate::Certificate;
use super::tasks::Tasks;
use config::failure::Failure;
use config::{CertificateFiles, InboxConfig};
use formats::DomainName;
use formats::limits::{INBOX_BUFFER_BYTES_PER_CLIENT, INBOX_CONNECTIONS, INBOX_LMTP_CONNECTIONS};
use net::BoxFuture;
use net::metrics::{self, Counter, Counters, Gauges, Registry};
use net::rate_limit::{ClientLimit, LimitReached, RateLimiter};
use net::smtp::server::{
    AnyStream, Incoming, KeepError, Mailbox, Protocol, ServerConfig, Starttls, decline, serve,
};
use operations::inbox::inbox;
use operations::world::World;
#[cfg(feature = "imap")]
use receiver::inbox::imap::MailboxCounts;
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
#[derive(Clone)]
pub struct MailCounts {
    connections: Gauges,
    refused: Counters,
    messages: Counters,
    /// Messages to postmaster, which are accepted and not stored.
    postmaster: Counter,
}

impl Default for MailCounts {
    fn default() -> Self {
        Self {
            connections: Gauges::new(&metrics::INBOX_CONNECTIONS),
            refused: Counters::new(&metrics::INBOX_REFUSED_CONNECTIONS),
            messages: Counters::new(&metrics::INBOX_MESSAGES),
            postmaster: Counter::default(),
        }
    }
}

impl MailCounts {
    fn register(&self, registry: &mut Registry) {
        self.connections.register(registry);
        self.refused.register(registry);
        self.messages.register(registry);
        metrics::INBOX_POSTMASTER.register(registry, self.postmaster.clone());
    }

    fn opened(&self, protocol: &'static str) -> OpenSession<'_> {
        self.connections.of(&[protocol]).inc();
        OpenSession { counts: self, protocol }
    }
}

/// A session that is counted until it is dropped.
struct OpenSession<'a> {
    counts: &'a MailCounts,
    protocol: &'static str,
}

impl Drop for OpenSession<'_> {
    fn drop(&mut self) {
        self.counts.connections.of(&[self.protocol]).dec();
    }
}

/// The value of the label `protocol`.
fn in_label(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Smtp => "smtp",
        Protocol::Lmtp => "lmtp",
    }
}

/// The inbox with the rate limit of one client.
struct ClientMailbox<'a> {
    inbox: &'a Inbox,
    pace: Option<(&'a RateLimiter, IpAddr)>,
    counts: &'a MailCounts,
    protocol: &'static str,
}

impl Mailbox for ClientMailbox<'_> {
    fn is_welcome(&self) -> bool {
        let is_welcome = self.pace.is_none_or(|(rates, from)| rates.take(from, Instant::now()));
        if !is_welcome {
            self.counts.messages.inc(&[self.protocol, "rate-limited"]);
        }
        is_welcome
    }

    fn takes(&self, recipient: &str) -> bool {
        self.inbox.takes(recipient)
    }

    fn keep(&self, incoming: Incoming) -> BoxFuture<'_, Result<(), KeepError>> {
        if self.inbox.is_for_postmaster(&incoming.to) {
            self.counts.postmaster.inc();
        }
        Box::pin(async move {
            let kept = self.inbox.keep(incoming).await;
            let outcome = match &kept {
                Ok(()) => "accepted",
                Err(KeepError::Temporary(_)) => "deferred",
                Err(KeepError::Permanent(_)) => "refused",
            };
            self.counts.messages.inc(&[self.protocol, outcome]);
            kept
        })
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
            let protocol = in_label(self.server.protocol);
            let _admission = match self.connections.try_take(from) {
                Ok(admission) => admission,
                Err(reached) => {
                    let (why, reason) = match reached {
                        LimitReached::Total => ("4.3.2 too many connections, try again later", "total"),
                        LimitReached::Client => ("4.7.0 too many connections from your address", "client"),
                    };
                    self.counts.refused.inc(&[protocol, reason]);
                    // The client may be gone already.
                    let _ = decline(stream, &self.server, why).await;
                    return;
                }
            };
            let _open = self.counts.opened(protocol);
            let pace = self.rates.as_deref().zip(from);
            // The client of LMTP is the operator's mail server, so its messages have no client.
            let inbox = self.inbox.for_client(pace.map(|(_, from)| from));
            let mailbox = ClientMailbox { inbox: &inbox, pace, counts: &self.counts, protocol };
            let server = match pace {
                Some((_, from)) => {
                    let memory = self.server.memory.for_client(from, INBOX_BUFFER_BYTES_PER_CLIENT);
                    Arc::new(ServerConfig { memory, ..self.server.as_ref().clone() })
                }
                None => self.server.clone(),
            };
            let session = serve(stream, &server, &mailbox);
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
    /// The certificate for STARTTLS; `None` if STARTTLS is not offered.
    pub certificate: Option<Arc<Certificate>>,
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
        let certificate = config.certificate.as_ref().map(|files| starttls(files, tasks)).transpose()?;
        let starttls = match &certificate {
            Some(certificate) => Starttls::Offered(certificate.clone()),
            None => Starttls::Absent,
        };
        let name = match &config.name {
            Some(name) => name.clone(),
            None => hostname()?,
        };
        #[cfg(feature = "imap")]
        Self::keep_mailboxes(config, store, world, tasks, registry)?;
        let of_smtp = ClientLimit::new(INBOX_CONNECTIONS, Some(config.connections_per_client));
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
            certificate,
        })
    }
}

#[cfg(feature = "imap")]
impl MailRole {
    /// Starts the import from each mailbox.
    fn keep_mailboxes(
        config: &InboxConfig,
        store: &Store,
        world: &World,
        tasks: &mut Tasks,
        registry: &mut Registry,
    ) -> Result<(), Failure> {
        let searched = Gauges::new(&metrics::MAILBOX_LAST_SEARCH);
        let failures = Counters::new(&metrics::MAILBOX_FAILURES);
        for mailbox in config.imap.clone() {
            mailbox.login.password().map_err(|error| {
                Failure::usage(
                    format!("the mailbox of {} at {} can't be read", mailbox.user, mailbox.host),
                    error,
                    "Create the file with only the password in it, readable by the user that Sternpost runs as.",
                )
            })?;
            let name = format!("{}@{}", mailbox.user, mailbox.host);
            let counts = MailboxCounts { searched: searched.of(&[&name]), failures: failures.of(&[&name]) };
            let inbox = inbox(config, store, world, Arrival::Imap);
            let parts = Arc::new((mailbox, inbox, world.tls.clone(), counts));
            tasks.lead("imap", &format!("imap {name}"), move |_| {
                let parts = parts.clone();
                async move { parts.0.keep(&parts.1, &parts.2, &parts.3).await }
            });
        }
        searched.register(registry);
        failures.register(registry);
        Ok(())
    }
}

fn starttls(files: &CertificateFiles, tasks: &mut Tasks) -> Result<Arc<Certificate>, Failure> {
    let certificate = Certificate::load(files, &[])?;
    let kept = certificate.clone();
    tasks.spawn("inbox-certificate", move || kept.clone().keep());
    Ok(certificate)
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
