//! The role `[inbox]`: report mail by SMTP and LMTP, and out of an IMAP mailbox. By HTTPS reports come to the dashboard's address
//! (`dashboard/post.rs`).

use super::certificate::Certificate;
use config::failure::Failure;
use config::{CertificateFiles, InboxConfig};
use formats::DomainName;
use formats::limits::INBOX_CONNECTIONS;
use net::BoxFuture;
use net::rate_limit::RateLimiter;
use net::smtp::server::{AnyStream, Incoming, KeepError, Mailbox, Protocol, ServerConfig, Starttls, serve};
use operations::inbox::inbox;
use operations::world::World;
use receiver::inbox::Inbox;
use sender::serve::Shutdown;
use sender::serve::listen::Serve;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Store;
use store::reports::Arrival;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Over which time messages of one address are counted.
const MINUTE: Duration = Duration::from_secs(60);

/// Mail, by either protocol.
#[derive(Clone)]
pub struct Mail {
    server: Arc<ServerConfig>,
    inbox: Arc<Inbox>,
    room: Arc<Semaphore>,
    /// By SMTP alone: LMTP comes from a mail server of the operator's.
    rates: Option<Arc<RateLimiter>>,
}

/// The inbox as one client sees it.
struct Met<'a> {
    inbox: &'a Inbox,
    pace: Option<(&'a RateLimiter, IpAddr)>,
}

impl Mailbox for Met<'_> {
    fn is_welcome(&self) -> bool {
        self.pace.is_none_or(|(rates, from)| rates.take(from, Instant::now()))
    }

    fn takes(&self, recipient: &str) -> bool {
        self.inbox.takes(recipient)
    }

    fn keep(&self, incoming: Incoming) -> BoxFuture<'_, Result<(), KeepError>> {
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
            // Who finds no room waits in the queue of the system, as at any busy mail server.
            let Ok(_place) = self.room.acquire().await else { return };
            let met = Met { inbox: &self.inbox, pace: self.rates.as_deref().zip(from) };
            let session = serve(stream, &self.server, &met);
            tokio::select! {
                ended = session => if let Err(error) = ended {
                    tracing::debug!("a mail session ends: {error}");
                },
                // What was not acknowledged is sent again by the mail server that has it.
                () = shutdown.token.cancelled() => {}
            }
        })
    }
}

/// The role, ready to serve.
pub struct MailRole {
    pub smtp: Mail,
    pub lmtp: Mail,
}

impl MailRole {
    pub fn new(
        config: &InboxConfig,
        store: &Store,
        world: &World,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self, Failure> {
        let starttls = match &config.certificate {
            Some(files) => offered(files, tasks)?,
            None => Starttls::Absent,
        };
        let name = match &config.name {
            Some(name) => name.clone(),
            None => machine()?,
        };
        if let Some(mailbox) = config.imap.clone() {
            let (inbox, tls) = (inbox(config, store, world, Arrival::Imap), world.tls.clone());
            tasks.spawn(async move { mailbox.keep(&inbox, &tls).await });
        }
        let room = Arc::new(Semaphore::new(INBOX_CONNECTIONS));
        let rates = Some(Arc::new(RateLimiter::new(config.messages_per_minute, MINUTE)));
        let mail = |protocol, arrival, rates| {
            let server = ServerConfig { protocol, ..ServerConfig::new(name.clone(), starttls.clone()) };
            Mail {
                server: Arc::new(server),
                inbox: Arc::new(inbox(config, store, world, arrival)),
                room: room.clone(),
                rates,
            }
        };
        Ok(Self {
            smtp: mail(Protocol::Smtp, Arrival::Smtp, rates),
            lmtp: mail(Protocol::Lmtp, Arrival::Lmtp, None),
        })
    }
}

fn offered(files: &CertificateFiles, tasks: &mut JoinSet<()>) -> Result<Starttls, Failure> {
    let certificate = Certificate::load(files, &[])?;
    tasks.spawn(certificate.clone().keep());
    Ok(Starttls::Offered(certificate))
}

fn machine() -> Result<DomainName, Failure> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    DomainName::parse(name.trim()).map_err(|error| {
        Failure::usage(
            "the inbox has no name",
            format!("the machine's name is {:?}: {error}", name.trim()),
            "Name it as its MX record does:\n  [inbox]\n  name = \"reports.example.org\"",
        )
    })
}
