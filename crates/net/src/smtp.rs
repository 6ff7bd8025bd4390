//! SMTP sessions as a sending server opens them: banner, EHLO, STARTTLS, a TLS handshake with the demanded
//! verification, and optionally a message (RFC 5321, RFC 3207, RFC 8461 §4.2, RFC 7672 §3).
//!
//! The caller gives the host, an address from DNS and a [`TlsDemand`]. The [`SessionReport`] records every detail for
//! TLS reports and for the preflight check. [`MailProbes`] tests a host further; [`server`] is the receiving side.

mod client;
mod helo;
mod probe;
pub mod server;
mod wire;

pub use crate::tls::TlsFacts;
pub use client::{Client, ClientConfig, Login};
pub use helo::Helo;
pub use probe::MailProbes;
pub use wire::{Reply, WireError};

use crate::BoxFuture;
use crate::certificate::Problem;
use formats::tlsa::TlsaRule;
use formats::{DomainName, ResultType};
use std::net::IpAddr;

/// Opens SMTP sessions with mail hosts.
pub trait MailHosts: Send + Sync {
    /// Opens a session with one address of a host, sends `mail` if there is any, and closes the session. Without
    /// `mail`, the session ends after EHLO (over TLS, if used).
    fn session<'a>(
        &'a self,
        target: &'a Target,
        demand: &'a TlsDemand,
        mail: Option<&'a Mail>,
    ) -> BoxFuture<'a, Result<SessionReport, Box<SessionFailure>>>;
}

/// The host and address to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The MX host's name, which is sent as SNI and which the certificate must be valid for (VAL-05).
    pub host: DomainName,
    /// One of the host's addresses.
    pub address: IpAddr,
}

/// The TLS requirements that must be met before mail is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsDemand {
    /// No TLS, as after a failed opportunistic attempt.
    Never,
    /// TLS if the host offers STARTTLS; the certificate is not verified.
    Opportunistic,
    /// TLS is required; the certificate is not verified.
    Encrypt,
    /// TLS with a certificate that is valid for the host and chains to a trusted root (RFC 8461 §4.2).
    Pkix,
    /// TLS with a certificate that matches a TLSA record (RFC 7672 §3).
    Dane {
        /// What the TLSA records require; see [`formats::tlsa::rule`].
        rule: TlsaRule,
        /// The TLSA base domain: the owner name of the records without `_25._tcp.`.
        base: DomainName,
        /// The recipient domain, also accepted as a name in the certificate (RFC 7672 §3.2.2).
        next_hop: DomainName,
    },
}

impl TlsDemand {
    /// The name that is sent as SNI to `host`: under DANE the TLSA base domain (RFC 7672 §8.1), else the host's name.
    pub fn server_name<'a>(&'a self, host: &'a DomainName) -> &'a DomainName {
        match self {
            Self::Dane { base, .. } => base,
            Self::Never | Self::Opportunistic | Self::Encrypt | Self::Pkix => host,
        }
    }
}

/// A message with its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The envelope sender for `MAIL FROM`, empty for bounces.
    pub from: String,
    /// The recipients for `RCPT TO`, without angle brackets.
    pub to: Vec<String>,
    /// The message with headers; line endings are converted to CRLF when it is sent.
    pub message: Vec<u8>,
}

/// What was observed in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionReport {
    /// The host and address of the session.
    pub target: Target,
    /// The text of the greeting; `None` when no greeting was received.
    pub banner: Option<String>,
    /// The extensions listed by the last EHLO, in upper case; empty if the host supports only HELO.
    pub capabilities: Vec<String>,
    /// What the TLS handshake showed; `None` when it did not complete.
    pub tls: Option<TlsFacts>,
    /// The commands (`C: `) and replies (`S: `), at most 200 lines of 1000 characters, without message text or secrets.
    pub transcript: Vec<String>,
    /// True when the host requested a client certificate in the handshake.
    pub asks_for_certificate: bool,
}

impl SessionReport {
    /// The empty report of a session that has not started.
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

    /// True when the last EHLO listed STARTTLS.
    pub fn offers_starttls(&self) -> bool {
        self.capabilities.iter().any(|line| line == "STARTTLS")
    }
}

/// A failed session, displayed as host and fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {fault}", report.target.host)]
pub struct SessionFailure {
    /// Why the session failed.
    pub fault: Fault,
    /// What was observed up to the failure.
    pub report: SessionReport,
}

/// Why a session failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The TCP connection failed, or the address is a special-purpose address.
    #[error("can't connect: {0}")]
    Connect(String),
    /// The connection was lost or timed out, or the host did not speak SMTP.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The host rejected a step with this reply. The steps are "the connection", "HELO", "AUTH", "MAIL FROM",
    /// "RCPT TO", "DATA" and "the message"; callers match on them.
    #[error("{0} was refused: {1}")]
    Refused(&'static str, Reply),
    /// STARTTLS is required, but EHLO did not list it.
    #[error("the host does not offer STARTTLS")]
    NoStarttls,
    /// EHLO listed STARTTLS, but the host rejected the command.
    #[error("the host offers STARTTLS but rejected the command: {0}")]
    StarttlsRefused(Reply),
    /// Plaintext arrived after the reply to STARTTLS and before the TLS handshake (CVE-2011-0411).
    #[error("plaintext was injected between STARTTLS and the TLS handshake")]
    Injected,
    /// The TLS handshake failed, for this reason.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    /// The certificate does not meet the [`TlsDemand`].
    #[error("{0}")]
    Certificate(Problem),
    /// A login is configured, but the host offers no supported mechanism.
    #[error("the host offers neither AUTH PLAIN nor AUTH LOGIN")]
    NoLogin,
}

impl Fault {
    /// The result type of RFC 8460 §4.3; `None` for faults that are unrelated to TLS.
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

    /// True for a permanent rejection: a 5xx reply to any step except AUTH.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Refused(what, reply) if reply.code >= 500 && *what != "AUTH")
    }
}
