//! The role `[inbox]`: report mail by SMTP and LMTP, and out of an IMAP mailbox. By HTTPS reports come to the dashboard's address
//! (`dashboard/post.rs`).

use super::certificate::Certificate;
use crate::config::{CertificateFiles, InboxConfig};
use crate::failure::Failure;
use crate::world::World;
use formats::DomainName;
use formats::limits::INBOX_CONNECTIONS;
use net::smtp::server::{Protocol, ServerConfig, Starttls, serve};
use receiver::inbox::Inbox;
use sender::serve::Shutdown;
use sender::serve::listen::{Serve, Stream};
use std::sync::Arc;
use store::Store;
use store::reports::Way;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Mail, by either protocol.
#[derive(Clone)]
pub struct Mail {
    server: Arc<ServerConfig>,
    inbox: Arc<Inbox>,
    room: Arc<Semaphore>,
}

impl Serve for Mail {
    async fn serve<S: Stream>(self, stream: S, shutdown: Shutdown) {
        // Who finds no room waits in the queue of the system, as at any busy mail server.
        let Ok(_place) = self.room.acquire().await else { return };
        let session = serve(Box::new(stream), &self.server, self.inbox.as_ref());
        tokio::select! {
            ended = session => if let Err(error) = ended {
                tracing::debug!("a mail session ends: {error}");
            },
            // What was not acknowledged is sent again by the mail server that has it.
            () = shutdown.token.cancelled() => {}
        }
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
            let (inbox, tls) = (inbox(config, store, world, Way::Imap), world.tls.clone());
            tasks.spawn(async move { mailbox.keep(&inbox, &tls).await });
        }
        let room = Arc::new(Semaphore::new(INBOX_CONNECTIONS));
        let mail = |protocol, way| {
            let server = ServerConfig { protocol, ..ServerConfig::new(name.clone(), starttls.clone()) };
            Mail {
                server: Arc::new(server),
                inbox: Arc::new(inbox(config, store, world, way)),
                room: room.clone(),
            }
        };
        Ok(Self { smtp: mail(Protocol::Smtp, Way::Smtp), lmtp: mail(Protocol::Lmtp, Way::Lmtp) })
    }
}

/// The inbox behind one way in.
pub fn inbox(config: &InboxConfig, store: &Store, world: &World, way: Way) -> Inbox {
    Inbox {
        store: store.clone(),
        dns: world.dns.clone(),
        clock: world.clock.clone(),
        addresses: config.addresses.clone(),
        way,
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
