//! Imports reports from mailboxes by IMAP (RFC 9051, RFC 3501), as servers really are: without MOVE, without keywords,
//! with namespaces, with messages that they refuse to return.
//!
//! [`ImapMailbox::keep`] holds one connection: `sign_in` opens it, `session` searches each folder for new mail, imports
//! the reports and marks or moves them (`filing`), and waits for more. A report is marked once it is durable. Other mail
//! is left unread in its folder. A message that can't be handled is logged once, and tried again later and later; `memory`
//! remembers it.

mod access_token;
mod connection;
mod filing;
mod memory;
mod session;
mod sign_in;

pub use access_token::{TokenEndpoint, TokenError, TokenSource};

use super::{Busy, Inbox};
use formats::DomainName;
use formats::imap::FrameError;
use formats::limits::{ACCESS_TOKEN_BYTES, IMAP_TIME};
use memory::{BackOff, Memory};
use net::BoxFuture;
use net::metrics::{Counter, Gauge};
use rustls::ClientConfig;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::StoreError;

/// A mailbox and how to sign in to it.
#[derive(Clone, PartialEq, Eq)]
pub struct ImapMailbox {
    /// The server's host name, which its certificate must match.
    pub host: DomainName,
    /// The TCP port of the server, usually 993, or 143 with STARTTLS.
    pub port: u16,
    /// How the connection is encrypted.
    pub tls: ImapTls,
    /// The user name for the sign-in.
    pub user: String,
    /// How the user is authenticated.
    pub login: Login,
    /// The folders to read; one with `*` or `%` is a pattern of LIST (RFC 9051 §6.3.9).
    pub folders: Vec<String>,
    /// The folder to which imported reports are moved; `None` flags them as read instead.
    pub move_to: Option<String>,
}

/// How an IMAP connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImapTls {
    /// TLS from the start, usually on port 993.
    Implicit,
    /// STARTTLS on an unencrypted connection, usually on port 143. Without TLS, nothing is sent.
    StartTls,
}

/// How the user of a mailbox is authenticated.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// By the password in this file, which is read at each sign-in, so that a new one needs no reload.
    Password(PathBuf),
    /// By an access token, with OAUTHBEARER (RFC 7628) or XOAUTH2.
    Token(TokenSource),
}

impl Login {
    /// The password, without the line break at its end; `None` if a token is used.
    pub fn password(&self) -> Result<Option<String>, ImapError> {
        let Self::Password(path) = self else { return Ok(None) };
        let failed = |error| ImapError::PasswordFile(path.clone(), error);
        let refused = |why: &str| failed(std::io::Error::other(why));
        // Opening a pipe waits for its writer.
        if !std::fs::metadata(path).map_err(failed)?.is_file() {
            return Err(refused("it is not a file"));
        }
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(ACCESS_TOKEN_BYTES as u64 + 1).read_to_string(&mut text).map_err(failed)?;
        let password = text.trim_end_matches(['\r', '\n']);
        // Wrong passwords may lock the account, so none is sent while another program writes the file.
        match (password.is_empty(), text.len() > ACCESS_TOKEN_BYTES) {
            (true, _) => Err(refused("it is empty")),
            (_, true) => Err(refused("it is too large for a password")),
            _ => Ok(Some(password.to_owned())),
        }
    }
}

impl fmt::Debug for ImapMailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}:{}, folder {}", self.user, self.host, self.port, self.folders.join(", "))
    }
}

/// Why a connection ended, or a command failed.
#[derive(Debug, thiserror::Error)]
pub enum ImapError {
    /// The server could not be reached.
    #[error("the server can't be reached: {0}")]
    Reach(String),
    /// TLS failed, for example because the certificate is invalid.
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    /// STARTTLS failed. Nothing was sent without TLS.
    #[error("the server does not start TLS, so nothing was sent to it: {0}")]
    StartTls(String),
    /// The server's first line is not an IMAP greeting.
    #[error("the server's greeting is not IMAP")]
    Greeting,
    /// The server rejected the user name, the password or the access token.
    #[error("the server rejected the user name or password, or the access token: {0}")]
    SignIn(String),
    /// The server announces that it takes no passwords.
    #[error(
        "the server takes no passwords (LOGINDISABLED), so none was sent. Use OAuth: [inbox.imap.oauth], docs/reports.md"
    )]
    PasswordRefused,
    /// The file with the password can't be read.
    #[error("can't read the IMAP password file {0}: {1}")]
    PasswordFile(PathBuf, std::io::Error),
    /// The server takes only passwords in ASCII.
    #[error("the user name or password is not ASCII, and the server does not offer AUTH=PLAIN")]
    NotAscii,
    /// The server takes no access tokens.
    #[error("the server takes no access tokens: it offers neither AUTH=OAUTHBEARER nor AUTH=XOAUTH2")]
    NoTokens,
    /// There is no access token.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// The server refused a command. The connection can be used further.
    #[error("the server refused {command}: {text}")]
    Refused {
        /// The command, without its arguments.
        command: String,
        /// The response code and text.
        text: String,
        /// Whether the destination folder does not exist (`TRYCREATE`).
        is_missing_folder: bool,
    },
    /// None of the folders can be read.
    #[error("none of the folders can be opened")]
    NoFolder,
    /// The server closed the connection, for this reason.
    #[error("the server closed the connection: {0}")]
    Closed(String),
    /// The connection ended without a reason.
    #[error("the connection was closed")]
    Lost,
    /// Reading from the connection, or writing to it, failed.
    #[error("the connection broke: {0}")]
    Broken(std::io::Error),
    /// The server did not answer, or did not end its answer, or TLS took too long.
    #[error("the server did not answer within {} seconds, or does not end its answer", IMAP_TIME.as_secs())]
    Slow,
    /// A response exceeds a limit.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// All responses to one command exceed a limit.
    #[error("the responses to one command are larger than {bytes} bytes")]
    TooMuch {
        /// The limit of that command, in bytes.
        bytes: usize,
    },
    /// A report could not be stored.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// There was no memory to read a message.
    #[error("{0}")]
    Busy(#[from] Busy),
}

/// The pauses of a mailbox between retries and between searches.
#[derive(Debug, Clone, Copy)]
struct Pacing {
    /// The delay before the first retry after a failure; it doubles with each failure.
    first_retry: Duration,
    /// The longest delay between retries.
    max_retry: Duration,
    /// How long one IDLE lasts. Servers may end it after 30 minutes (RFC 2177).
    idle: Duration,
    /// The time between two searches if the server does not support IDLE, or if there are several folders.
    poll: Duration,
    /// The pause before each further search.
    between_rounds: Duration,
    /// How long a message that failed waits, by the clock of the inbox.
    back_off: BackOff,
}

const PACING: Pacing = Pacing {
    first_retry: Duration::from_secs(5),
    max_retry: Duration::from_secs(300),
    idle: Duration::from_secs(9 * 60),
    poll: Duration::from_secs(60),
    between_rounds: Duration::from_secs(1),
    back_off: BackOff { first: Duration::from_secs(60), longest: Duration::from_secs(6 * 3600) },
};

/// The metrics of a mailbox.
#[derive(Debug, Clone, Default)]
pub struct MailboxCounts {
    /// The Unix time at which the mailbox's folders were last searched.
    pub searched: Gauge,
    /// Connections to the mailbox that failed.
    pub failures: Counter,
}

impl ImapMailbox {
    /// Imports reports until the future is dropped. Failures are logged and retried.
    pub fn keep<'a>(
        &'a self,
        inbox: &'a Inbox,
        tls: &'a Arc<ClientConfig>,
        counts: &'a MailboxCounts,
    ) -> BoxFuture<'a, ()> {
        Box::pin(self.keep_pacing(inbox, tls, PACING, counts))
    }

    async fn keep_pacing(
        &self,
        inbox: &Inbox,
        tls: &Arc<ClientConfig>,
        pacing: Pacing,
        counts: &MailboxCounts,
    ) {
        let mut memory = Memory::default();
        let mut retry = pacing.first_retry;
        loop {
            let mut worked = false;
            let mut searched = || {
                worked = true;
                counts.searched.set(inbox.clock.now().as_second());
            };
            if let Err(error) = session::run(self, inbox, tls, pacing, &mut memory, &mut searched).await {
                counts.failures.inc();
                tracing::error!(
                    mailbox = ?self,
                    "can't import reports from the mailbox: {error}. Retrying in {} seconds",
                    retry.as_secs()
                );
            }
            retry = if worked { pacing.first_retry } else { pacing.max_retry.min(retry * 2) };
            tokio::time::sleep(retry).await;
        }
    }
}

#[cfg(test)]
mod tests;
