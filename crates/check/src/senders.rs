//! Kinds of senders, and the outcome of their mail at each MX host (RFC 8461 §5, RFC 7672 §2.2). These are
//! the types of `Examination::senders`; the module `delivery` computes the values.

use formats::DomainName;

/// A kind of sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sender {
    /// Honors MTA-STS, as most large senders do.
    Strict,
    /// Validates policies only to report failures, and delivers regardless.
    Testing,
    /// Uses DANE, and MTA-STS for hosts without usable TLSA records.
    Dane,
    /// Uses opportunistic TLS only, without DANE and MTA-STS.
    Plain,
}

/// The outcome of a delivery attempt to one MX host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Delivered over TLS to a verified host.
    Verified,
    /// Delivered over TLS without verification, so that an attacker can strip TLS.
    Encrypted,
    /// Delivered in cleartext.
    Clear,
    /// Not delivered to this host.
    Refused,
    /// The host could not be reached, or was not probed.
    Unreached,
}

/// The outcome for one kind of sender at one MX host.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct HostView {
    /// The MX host's name.
    pub host: DomainName,
    /// The outcome of a delivery attempt to this host.
    pub outcome: Outcome,
}

/// What one kind of sender does with mail for the domain.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SenderView {
    /// The kind of sender.
    pub sender: Sender,
    /// One entry per MX host, in order of preference.
    pub hosts: Vec<HostView>,
    /// The overall outcome, as a predicate such as `delivers in cleartext`.
    pub summary: String,
}

/// The kind of sender in words, such as `a sender that uses DANE`.
pub fn name(sender: Sender) -> &'static str {
    match sender {
        Sender::Strict => "a sender that honors MTA-STS",
        Sender::Testing => "a sender that only reports failures",
        Sender::Dane => "a sender that uses DANE",
        Sender::Plain => "any other sender",
    }
}

/// The outcome in words, such as `TLS, verified`.
pub fn outcome_label(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Verified => "TLS, verified",
        Outcome::Encrypted => "TLS, not verified",
        Outcome::Clear => "cleartext",
        Outcome::Refused => "refused",
        Outcome::Unreached => "not reached",
    }
}
