//! Kinds of senders, and what happens to their mail at each MX host (RFC 8461 §5, RFC 7672 §2.2): the
//! types that an examination carries. The module `delivery` computes them.

use formats::DomainName;

/// A kind of sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sender {
    /// Honours MTA-STS, as most large ones do.
    Strict,
    /// Tests policies and reports, and delivers all the same.
    Testing,
    /// Uses DANE, and MTA-STS where there is none.
    Dane,
    /// Takes TLS where it is offered.
    Plain,
}

/// What happens to a message at one MX host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Delivered through TLS with the host verified.
    Verified,
    /// Delivered through TLS with whoever answers: it can be stripped.
    Encrypted,
    /// Delivered in the clear.
    Clear,
    /// Not delivered to this host.
    Refused,
    /// Nobody can, or nobody looked.
    Unreached,
}

/// One MX host as a sender meets it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct HostView {
    /// The host.
    pub host: DomainName,
    /// What happens.
    pub outcome: Outcome,
}

/// What one kind of sender does.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SenderView {
    /// The kind.
    pub sender: Sender,
    /// MX hosts in their order.
    pub hosts: Vec<HostView>,
    /// What follows for the message, in a few words.
    pub summary: String,
}

/// How people call the kind.
pub fn name(sender: Sender) -> &'static str {
    match sender {
        Sender::Strict => "a sender that honours MTA-STS",
        Sender::Testing => "a sender that tests policies",
        Sender::Dane => "a sender that uses DANE",
        Sender::Plain => "any other sender",
    }
}

/// An outcome in words.
pub fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Verified => "TLS, verified",
        Outcome::Encrypted => "TLS, not verified",
        Outcome::Clear => "in the clear",
        Outcome::Refused => "refused",
        Outcome::Unreached => "not reached",
    }
}
