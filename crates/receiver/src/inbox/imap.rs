//! Imports reports from a mailbox by IMAP (RFC 9051, RFC 2177). Waits for mail, imports the reports, and flags or
//! moves them once they are durable. Other mail is left unread in its folder.

use super::Inbox;
use async_imap::types::{Fetch, UnsolicitedResponse};
use async_imap::{Client, Session};
use formats::DomainName;
use formats::limits::INBOX_MESSAGE_BYTES;
use futures_util::TryStreamExt;
use net::BoxFuture;
use net::connect::connect_any;
use net::dns::host_addresses;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use store::StoreError;
use store::reports::Arrival;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The mailbox and how to sign in to it.
#[derive(Clone, PartialEq, Eq)]
pub struct ImapMailbox {
    /// The server's host name, which its certificate must match.
    pub host: DomainName,
    /// The port for implicit TLS.
    pub port: u16,
    /// The user name.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// The folder to read.
    pub folder: String,
    /// The folder to which imported reports are moved; `None` flags them as read instead.
    pub move_to: Option<String>,
}

impl fmt::Debug for ImapMailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}:{}, folder {}", self.user, self.host, self.port, self.folder)
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ImapError {
    /// The server could not be reached.
    #[error("the server can't be reached: {0}")]
    Reach(String),
    /// TLS failed, for example because the certificate is invalid.
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    /// The server rejected the user name or password.
    #[error("the server rejected the user name or password: {0}")]
    SignIn(async_imap::error::Error),
    /// The server returned an error, or the connection broke.
    #[error("{0}")]
    Talk(#[from] async_imap::error::Error),
    /// A command took longer than a minute.
    #[error("the server did not answer in time")]
    Slow,
    /// A report could not be stored.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// The IMAP keyword on mail that was processed.
const IMPORTED_KEYWORD: &str = "SternpostTaken";
/// Timeout of one IMAP command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one IDLE lasts. Servers may end it after 30 minutes (RFC 2177).
const IDLE_RENEWAL: Duration = Duration::from_secs(9 * 60);
/// Time between two searches for new mail if the server does not support IDLE.
const POLL_INTERVAL: Duration = Duration::from_secs(60);
/// The delay before the first retry after a failure; it doubles with each failure.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// The longest delay between retries.
const MAX_RETRY: Duration = Duration::from_secs(300);

type Open = Session<TlsStream<TcpStream>>;

impl ImapMailbox {
    /// Imports reports until the future is dropped. Failures are logged and retried.
    pub fn keep<'a>(&'a self, inbox: &'a Inbox, tls: &'a Arc<ClientConfig>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut retry = FIRST_RETRY;
            loop {
                let mut worked = false;
                if let Err(error) = self.connection(inbox, tls, &mut worked).await {
                    tracing::error!(
                        mailbox = ?self,
                        "can't import reports from the mailbox: {error}. Retrying in {} seconds",
                        retry.as_secs()
                    );
                }
                retry = if worked { FIRST_RETRY } else { MAX_RETRY.min(retry * 2) };
                tokio::time::sleep(retry).await;
            }
        })
    }

    /// Runs one connection until it fails. Sets `worked` once the mailbox was searched.
    async fn connection(
        &self,
        inbox: &Inbox,
        tls: &Arc<ClientConfig>,
        worked: &mut bool,
    ) -> Result<(), ImapError> {
        let mut session = in_time(self.sign_in(inbox, tls)).await?;
        in_time(async { Ok(session.select(&self.folder).await?) }).await?;
        let idles = in_time(async { Ok(session.capabilities().await?) }).await?.has_str("IDLE");
        tracing::info!(mailbox = ?self, idles, "importing reports from the mailbox");
        // Servers that do not store keywords would return the same mail again.
        let mut processed = BTreeSet::new();
        loop {
            self.import_new(&mut session, inbox, &mut processed).await?;
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
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, self.port)).collect();
        let (stream, _) = connect_any(addresses, &[]).await.map_err(ImapError::Reach)?;
        let name = ServerName::try_from(self.host.as_str().to_owned())
            .map_err(|error| ImapError::Reach(error.to_string()))?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(ImapError::Tls)?;
        let mut client = Client::new(stream);
        // The server's greeting.
        client.read_response().await.map_err(async_imap::error::Error::Io)?;
        client.login(&self.user, &self.password).await.map_err(|(error, _)| ImapError::SignIn(error))
    }

    async fn import_new(
        &self,
        session: &mut Open,
        inbox: &Inbox,
        processed: &mut BTreeSet<u32>,
    ) -> Result<(), ImapError> {
        let found = in_time(async {
            Ok(session.uid_search(format!("UNDELETED UNKEYWORD {IMPORTED_KEYWORD}")).await?)
        })
        .await?;
        let new: BTreeSet<u32> = found.into_iter().filter(|uid| !processed.contains(uid)).collect();
        for uid in new {
            in_time(self.import_message(session, inbox, uid)).await?;
            processed.insert(uid);
        }
        Ok(())
    }

    async fn import_message(&self, session: &mut Open, inbox: &Inbox, uid: u32) -> Result<(), ImapError> {
        let size = fetch(session, uid, "(UID RFC822.SIZE)").await?.and_then(|mail| mail.size);
        let is_small = size.is_some_and(|size| size as usize <= INBOX_MESSAGE_BYTES);
        let mail = if is_small { fetch(session, uid, "(UID BODY.PEEK[])").await? } else { None };
        let Some(message) = mail.as_ref().and_then(Fetch::body) else {
            return mark(session, uid, IMPORTED_KEYWORD).await;
        };
        let message = Arc::new(message.to_vec());
        let reading = inbox.read_mail_patiently(&message, Arrival::Imap).await;
        // Mail that does not claim to be a report stays in its folder, unread.
        if reading.reports.is_empty() && !reading.claims {
            return mark(session, uid, IMPORTED_KEYWORD).await;
        }
        let outcome = inbox.keep_reading(reading, &message).await?;
        tracing::info!(?outcome, "report mail imported from the mailbox");
        match &self.move_to {
            Some(folder) => move_to(session, uid, folder).await,
            None => mark(session, uid, &format!("{IMPORTED_KEYWORD} \\Seen")).await,
        }
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, ImapError>>) -> Result<T, ImapError> {
    tokio::time::timeout(COMMAND_TIMEOUT, work).await.unwrap_or(Err(ImapError::Slow))
}

/// Waits until the server reports a change, or until the IDLE must be renewed.
async fn wait(session: Open) -> Result<Open, ImapError> {
    // The server does not repeat what it reported while mail was fetched.
    let mut is_new = false;
    while let Ok(response) = session.unsolicited_responses.try_recv() {
        is_new |= matches!(response, UnsolicitedResponse::Exists(_));
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
    // If the folder exists already, this fails without harm.
    let _ = session.create(folder).await;
    Ok(session.uid_mv(uid.to_string(), folder).await?)
}
