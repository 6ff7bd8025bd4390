//! The behaviors that a mail server of the lab can have. The table of cases names them; `mail_host` and
//! `odd_mail_host` act them out.

/// How a mail server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Behavior {
    /// As it should.
    Good,
    /// It does not offer STARTTLS.
    NoStarttls,
    /// It offers STARTTLS and answers 454.
    StarttlsRefused,
    /// It breaks off in the handshake.
    HandshakeBreaks,
    /// It speaks TLS 1.0 only.
    OldTls,
    /// It answers the handshake with text.
    Garbage,
    /// It takes the connection and says nothing.
    Silent,
    /// It greets with 554.
    Refuses,
    /// It greets with 421.
    DeliveryLimits,
    /// It closes at once.
    Closes,
    /// It greets with 450 and asks to come again later.
    Greylists,
    /// It speaks TLS 1.2 at most.
    OnlyTls12,
    /// It gives its certificate only to those who name it, and another one to the rest.
    OnlyWithSni,
    /// It insists on a certificate of the client.
    WantsCertificate,
    /// It speaks TLS 1.0 and 1.1 too.
    OldTlsToo,
    /// It agrees to weak ciphers too.
    WeakCiphersToo,
    /// It offers STARTTLS to every other client.
    Flaps,
    /// It answers after the handshake what was sent in the clear before it.
    TakesInjection,
    /// It offers REQUIRETLS.
    RequireTls,
    /// Connections run into nothing, as behind a wall that drops them.
    Walled,
}
