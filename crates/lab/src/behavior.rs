//! The behaviors that a mail server of the lab can have. The tables in `cases` and `oddities` refer to them;
//! `mail_host` and `odd_mail_host` implement them.

/// How a mail server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Behavior {
    /// Conforms to the standards.
    Good,
    /// Does not offer STARTTLS.
    NoStarttls,
    /// Offers STARTTLS but replies 454 to it.
    StarttlsRefused,
    /// Closes the connection during the TLS handshake.
    HandshakeBreaks,
    /// Supports only TLS 1.0.
    OldTls,
    /// Replies to the ClientHello with text.
    Garbage,
    /// Accepts the connection and sends nothing.
    Silent,
    /// Greets with 554.
    Refuses,
    /// Greets with 421.
    Busy,
    /// Closes the connection immediately.
    Closes,
    /// Greets with 450, as greylisting does.
    Greylists,
    /// Supports TLS 1.2 at most.
    OnlyTls12,
    /// Presents its own certificate only with SNI, and another one without.
    OnlyWithSni,
    /// Requires a client certificate.
    WantsCertificate,
    /// Accepts TLS 1.0 and 1.1 as well.
    OldTlsToo,
    /// Accepts weak cipher suites as well.
    WeakCiphersToo,
    /// Offers STARTTLS on every second connection only.
    Flaps,
    /// Executes, after the handshake, commands that were sent in cleartext before it (CVE-2011-0411).
    TakesInjection,
    /// Never answers a ClientHello of more than 1400 bytes.
    HangsOnLargeHello,
    /// Offers REQUIRETLS (RFC 8689).
    RequireTls,
    /// Never completes a TCP connection, as behind a firewall that drops packets.
    Walled,
}
