//! An SMTP session as a sending server opens it: banner, EHLO, STARTTLS, a handshake with a chosen
//! verification, and every detail of how it went (RFC 5321, RFC 3207, RFC 8461 §4.2, RFC 7672 §3).
//! Mail is sent only when it is given.

mod client;
mod probe;
pub mod server;
mod wire;

pub use crate::tls::TlsFacts;
pub use client::{Client, ClientConfig, Login};
pub use probe::MailProbes;
pub use wire::{Reply, WireError};

use crate::BoxFuture;
use crate::certificate::Problem;
use formats::tlsa::TlsaRule;
use formats::{DomainName, ResultType};
use std::net::IpAddr;

/// Opens sessions with mail hosts.
pub trait MailHosts: Send + Sync {
    /// One session with one address of one host, closed at its end.
    fn session<'a>(
        &'a self,
        target: &'a Target,
        demand: &'a TlsDemand,
        mail: Option<&'a Mail>,
    ) -> BoxFuture<'a, Result<SessionReport, Box<SessionFailure>>>;
}

/// Whom to talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The MX host's name: SNI and the certificate are about it (VAL-05).
    pub host: DomainName,
    /// One of its addresses.
    pub address: IpAddr,
}

/// What the session has to fulfil before mail is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsDemand {
    /// No TLS at all, as after a failed opportunistic try.
    Never,
    /// TLS when it is offered, whoever answers.
    Opportunistic,
    /// TLS always, whoever answers.
    Encrypt,
    /// A certificate of a trusted root for the host (RFC 8461 §4.2).
    Pkix,
    /// A certificate that a TLSA record matches (RFC 7672 §3).
    Dane {
        /// The rule of the records.
        rule: TlsaRule,
        /// Where they were found, without `_25._tcp.`.
        base: DomainName,
        /// The domain that mail is for.
        next_hop: DomainName,
    },
}

/// A message and its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// `MAIL FROM`, empty for bounces.
    pub from: String,
    /// `RCPT TO`, each an address without brackets.
    pub to: Vec<String>,
    /// The whole message; line ends are made CRLF on the way.
    pub message: Vec<u8>,
}

/// How a session went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionReport {
    /// Whom it was with.
    pub target: Target,
    /// The greeting's text.
    pub banner: Option<String>,
    /// What EHLO listed, in upper case.
    pub capabilities: Vec<String>,
    /// The handshake, when there was one.
    pub tls: Option<TlsFacts>,
    /// What was said, each line with `C: ` or `S: ` in front, at most 200 lines; no message text.
    pub transcript: Vec<String>,
    /// True when the host asked for a certificate of ours in the handshake.
    pub asks_for_certificate: bool,
}

impl SessionReport {
    /// A session that has not begun.
    pub fn new(target: &Target) -> Self {
        Self {
            target: target.clone(),
            banner: None,
            capabilities: Vec::new(),
            tls: None,
            transcript: Vec::new(),
            asks_for_certificate: false,
        }
    }

    /// True when EHLO listed STARTTLS.
    pub fn offers_starttls(&self) -> bool {
        self.capabilities.iter().any(|line| line == "STARTTLS")
    }
}

/// A session that did not do what was asked of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {fault}", report.target.host)]
pub struct SessionFailure {
    /// What went wrong.
    pub fault: Fault,
    /// How far it got.
    pub report: SessionReport,
}

/// What can go wrong in a session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// The connection broke off, timed out, or what came is not SMTP.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The host refuses with this reply.
    #[error("{0} was refused: {1}")]
    Refused(&'static str, Reply),
    /// STARTTLS is demanded and not offered.
    #[error("the host does not offer STARTTLS")]
    NoStarttls,
    /// STARTTLS is offered, then refused.
    #[error("STARTTLS is offered, then refused: {0}")]
    StarttlsRefused(Reply),
    /// Something was sent in the clear behind the reply to STARTTLS.
    #[error("data was injected between STARTTLS and the handshake")]
    Injected,
    /// The handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    /// The certificate is not good by what was demanded.
    #[error("{0}")]
    Certificate(Problem),
    /// The host offers no way to log in that we know.
    #[error("the host offers neither AUTH PLAIN nor AUTH LOGIN")]
    NoLogin,
}

impl Fault {
    /// The result type of RFC 8460 §4.3; `None` for what is not about TLS.
    pub fn result_type(&self) -> Option<ResultType> {
        match self {
            Self::Connect(_) | Self::Wire(_) | Self::Refused(..) | Self::NoLogin => None,
            Self::NoStarttls => Some(ResultType::StarttlsNotSupported),
            Self::StarttlsRefused(_) | Self::Injected | Self::Handshake(_) => {
                Some(ResultType::ValidationFailure)
            }
            Self::Certificate(problem) => Some(problem.session_result()),
        }
    }

    /// True when the host refused for good (5xx to the message itself).
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Refused(what, reply) if reply.code >= 500 && *what != "AUTH")
    }
}
