//! Reports out of a mailbox that is read by IMAP (RFC 9051, RFC 2177): waits for mail, takes the reports in, and
//! marks or moves them once they are durable. Mail that is no report is left as it is.

use super::{Inbox, NoReport};
use async_imap::types::{Fetch, UnsolicitedResponse};
use async_imap::{Client, Session};
use formats::DomainName;
use formats::limits::INBOX_MESSAGE_BYTES;
use futures_util::TryStreamExt;
use net::BoxFuture;
use net::dns::host_addresses;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use store::StoreError;
use store::reports::Arrival;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A mailbox.
#[derive(Clone, PartialEq, Eq)]
pub struct ImapMailbox {
    /// The server's name, which its certificate has to carry.
    pub host: DomainName,
    /// Where it speaks TLS from the first byte.
    pub port: u16,
    /// Whose mailbox.
    pub user: String,
    /// Their password.
    pub password: String,
    /// The folder.
    pub folder: String,
    /// Where reports are moved once they are taken in; else they are marked.
    pub move_to: Option<String>,
}

impl fmt::Debug for ImapMailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}:{}, folder {}", self.user, self.host, self.port, self.folder)
    }
}

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub enum ImapError {
    /// No address of it answers.
    #[error("it can't be reached: {0}")]
    Reach(String),
    /// Its certificate is not good, or TLS fails otherwise.
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    /// The user or password is wrong.
    #[error("it refuses the user or the password: {0}")]
    SignIn(async_imap::error::Error),
    /// It says something else than was expected, or the connection broke.
    #[error("{0}")]
    Talk(#[from] async_imap::error::Error),
    /// It says nothing for too long.
    #[error("it does not answer in time")]
    Slow,
    /// What it had could not be kept.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// The mark of what was looked at.
const IMPORTED_KEYWORD: &str = "SternpostTaken";
/// For one command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Servers end an IDLE after half an hour; a look now and then costs little.
const IDLE_RENEWAL: Duration = Duration::from_secs(9 * 60);
/// Between two looks where there is no IDLE.
const POLL_INTERVAL: Duration = Duration::from_secs(60);
/// Before the next try after a failure, at first and at most.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const MAX_RETRY: Duration = Duration::from_secs(300);

type Open = Session<TlsStream<TcpStream>>;

impl ImapMailbox {
    /// Takes reports in until it is dropped. What goes wrong is logged, and tried again.
    pub fn keep<'a>(&'a self, inbox: &'a Inbox, tls: &'a Arc<ClientConfig>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut retry = FIRST_RETRY;
            loop {
                let mut worked = false;
                if let Err(error) = self.connection(inbox, tls, &mut worked).await {
                    tracing::error!(
                        mailbox = ?self,
                        "reports can't be read from the mailbox: {error}. The next try is in {} seconds",
                        retry.as_secs()
                    );
                }
                retry = if worked { FIRST_RETRY } else { MAX_RETRY.min(retry * 2) };
                tokio::time::sleep(retry).await;
            }
        })
    }

    /// One connection, from its beginning to its end.
    async fn connection(
        &self,
        inbox: &Inbox,
        tls: &Arc<ClientConfig>,
        worked: &mut bool,
    ) -> Result<(), ImapError> {
        let mut session = in_time(self.sign_in(inbox, tls)).await?;
        in_time(async { Ok(session.select(&self.folder).await?) }).await?;
        let idles = in_time(async { Ok(session.capabilities().await?) }).await?.has_str("IDLE");
        tracing::info!(mailbox = ?self, idles, "reports are read from the mailbox");
        // Where the server keeps no marks of ours, this saves looking at the same mail again.
        let mut looked = BTreeSet::new();
        loop {
            self.take_new(&mut session, inbox, &mut looked).await?;
            *worked = true;
            session = match idles {
                true => wait(session).await?,
                false => {
                    tokio::time::sleep(POLL_INTERVAL).await;
                    in_time(async { Ok(session.noop().await?) }).await?;
                    session
                }
            };
        }
    }

    async fn sign_in(&self, inbox: &Inbox, tls: &Arc<ClientConfig>) -> Result<Open, ImapError> {
        let found = host_addresses(inbox.dns.as_ref(), &self.host).await;
        let addresses = found.map_err(|error| ImapError::Reach(error.to_string()))?.addresses;
        let stream = connect(&addresses, self.port).await?;
        let name = ServerName::try_from(self.host.as_str().to_owned())
            .map_err(|error| ImapError::Reach(error.to_string()))?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(ImapError::Tls)?;
        let mut client = Client::new(stream);
        // The greeting.
        client.read_response().await.map_err(async_imap::error::Error::Io)?;
        client.login(&self.user, &self.password).await.map_err(|(error, _)| ImapError::SignIn(error))
    }

    async fn take_new(
        &self,
        session: &mut Open,
        inbox: &Inbox,
        looked: &mut BTreeSet<u32>,
    ) -> Result<(), ImapError> {
        let found = in_time(async {
            Ok(session.uid_search(format!("UNDELETED UNKEYWORD {IMPORTED_KEYWORD}")).await?)
        })
        .await?;
        let new: BTreeSet<u32> = found.into_iter().filter(|uid| !looked.contains(uid)).collect();
        for uid in new {
            in_time(self.take_one(session, inbox, uid)).await?;
            looked.insert(uid);
        }
        Ok(())
    }

    async fn take_one(&self, session: &mut Open, inbox: &Inbox, uid: u32) -> Result<(), ImapError> {
        let size = fetch(session, uid, "(UID RFC822.SIZE)").await?.and_then(|mail| mail.size);
        let is_small = size.is_some_and(|size| size as usize <= INBOX_MESSAGE_BYTES);
        let mail = if is_small { fetch(session, uid, "(UID BODY.PEEK[])").await? } else { None };
        let Some(message) = mail.as_ref().and_then(Fetch::body) else {
            return mark(session, uid, IMPORTED_KEYWORD).await;
        };
        match inbox.read_mail(message, Arrival::Imap).await {
            // Somebody's other mail: it is left where it is, unread.
            Err(NoReport::Missing | NoReport::NotMail) => return mark(session, uid, IMPORTED_KEYWORD).await,
            read => {
                let taken = inbox.keep_read(read, message).await?;
                tracing::info!(?taken, "report out of the mailbox");
            }
        }
        match &self.move_to {
            Some(folder) => move_to(session, uid, folder).await,
            None => mark(session, uid, &format!("{IMPORTED_KEYWORD} \\Seen")).await,
        }
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, ImapError>>) -> Result<T, ImapError> {
    tokio::time::timeout(COMMAND_TIMEOUT, work).await.unwrap_or(Err(ImapError::Slow))
}

async fn connect(addresses: &[IpAddr], port: u16) -> Result<TcpStream, ImapError> {
    let mut last = "it has no address".to_owned();
    for address in addresses {
        match TcpStream::connect((*address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(ImapError::Reach(last))
}

/// Until something happens, or it is time to look again.
async fn wait(session: Open) -> Result<Open, ImapError> {
    // What came while mail was fetched: the server does not say that again.
    let mut is_new = false;
    while let Ok(said) = session.unsolicited_responses.try_recv() {
        is_new |= matches!(said, UnsolicitedResponse::Exists(_));
    }
    if is_new {
        return Ok(session);
    }
    let mut idle = session.idle();
    in_time(async { Ok(idle.init().await?) }).await?;
    let (event, _stop) = idle.wait_with_timeout(IDLE_RENEWAL);
    event.await?;
    in_time(async { Ok(idle.done().await?) }).await
}

async fn fetch(session: &mut Open, uid: u32, what: &str) -> Result<Option<Fetch>, ImapError> {
    let found: Vec<Fetch> = session.uid_fetch(uid.to_string(), what).await?.try_collect().await?;
    Ok(found.into_iter().find(|mail| mail.uid == Some(uid)))
}

async fn mark(session: &mut Open, uid: u32, marks: &str) -> Result<(), ImapError> {
    let change = session.uid_store(uid.to_string(), format!("+FLAGS ({marks})")).await?;
    let _: Vec<Fetch> = change.try_collect().await?;
    Ok(())
}

async fn move_to(session: &mut Open, uid: u32, folder: &str) -> Result<(), ImapError> {
    // Where it is there already, this fails and nothing is lost.
    let _ = session.create(folder).await;
    Ok(session.uid_mv(uid.to_string(), folder).await?)
}
