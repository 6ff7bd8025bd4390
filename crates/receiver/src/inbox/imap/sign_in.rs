//! Connects to an IMAP server and signs in. The password or token is only sent over verified TLS, and a password never
//! to a server that announces `LOGINDISABLED` (RFC 9051 §6.2.3). Each secret is remembered before it is sent, so that no
//! text of the server can bring it into a log.

use super::connection::{CommandLimits, Connection, ExpectedData, Stream};
use super::{ImapError, ImapMailbox, ImapTls, Login};
use crate::inbox::Inbox;
use data_encoding::BASE64;
use formats::DomainName;
use formats::imap::{State, Status, quote};
use formats::limits::IMAP_TIME;
use net::connect::connect_any;
use net::dns::{Dns, host_addresses};
use net::redaction::Secrets;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The capabilities of a server, in upper case.
pub(super) type Capabilities = BTreeSet<String>;

/// Opens a connection and signs in. Returns the capabilities of the signed-in connection.
pub(super) async fn sign_in(
    mailbox: &ImapMailbox,
    inbox: &Inbox,
    tls: &Arc<ClientConfig>,
    secrets: &Secrets,
) -> Result<(Connection, Capabilities), ImapError> {
    let password = mailbox.login.password()?;
    secrets.remember(password.as_deref().unwrap_or_default());
    let stream = dial(inbox.dns.as_ref(), &mailbox.host, mailbox.port).await?;
    let (mut connection, greeting) = match mailbox.tls {
        ImapTls::Implicit => greeted(Box::new(secure(tls, &mailbox.host, stream).await?), secrets).await?,
        ImapTls::StartTls => {
            let stream = start_tls(Box::new(stream), secrets).await?;
            let stream = Box::new(secure(tls, &mailbox.host, stream).await?);
            (Connection::new(stream, secrets.clone(), CommandLimits::BEFORE_SIGN_IN), None)
        }
    };
    let is_signed_in = greeting.as_ref().is_some_and(|state| state.status == Status::PreAuth);
    if !is_signed_in {
        let capabilities = match greeting.as_ref().and_then(State::capabilities) {
            Some(listed) => listed,
            None => capabilities(&mut connection).await?,
        };
        match &mailbox.login {
            Login::Password(_) => {
                let password = password.unwrap_or_default();
                by_password(&mut connection, &capabilities, &mailbox.user, &password).await?;
            }
            Login::Token(source) => {
                let token = source.token(inbox.dns.as_ref(), tls, secrets).await?;
                by_token(&mut connection, &capabilities, mailbox, &token).await?;
            }
        }
    }
    let capabilities = capabilities(&mut connection).await?;
    connection.set_limits(CommandLimits::AFTER_SIGN_IN);
    Ok((connection, capabilities))
}

/// Connects to a host. An address that does not answer delays this only a little ([`connect_any`]).
pub(super) async fn dial(dns: &dyn Dns, host: &DomainName, port: u16) -> Result<TcpStream, ImapError> {
    let found = host_addresses(dns, host).await;
    let addresses = found.map_err(|error| ImapError::Reach(error.to_string()))?.addresses;
    let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect();
    let (stream, _) = connect_any(addresses, &[]).await.map_err(ImapError::Reach)?;
    Ok(stream)
}

/// Completes a TLS handshake, with the certificate verified for `host`.
pub(super) async fn secure<S: Stream>(
    tls: &Arc<ClientConfig>,
    host: &DomainName,
    stream: S,
) -> Result<TlsStream<S>, ImapError> {
    let name = ServerName::try_from(host.as_str().to_owned())
        .map_err(|error| ImapError::Reach(error.to_string()))?;
    let handshake = TlsConnector::from(tls.clone()).connect(name, stream);
    tokio::time::timeout(IMAP_TIME, handshake).await.map_err(|_| ImapError::Slow)?.map_err(ImapError::Tls)
}

/// Begins an IMAP connection, and reads the server's greeting.
async fn greeted(
    stream: Box<dyn Stream>,
    secrets: &Secrets,
) -> Result<(Connection, Option<State>), ImapError> {
    let mut connection = Connection::new(stream, secrets.clone(), CommandLimits::BEFORE_SIGN_IN);
    let greeting = connection.greeting().await?;
    Ok((connection, Some(greeting)))
}

/// Begins TLS on an unencrypted connection. If that fails, the connection is not used.
async fn start_tls(stream: Box<dyn Stream>, secrets: &Secrets) -> Result<Box<dyn Stream>, ImapError> {
    let (mut connection, greeting) = greeted(stream, secrets).await?;
    // An attacker who forges PREAUTH would make STARTTLS impossible (RFC 9051 §11.3).
    if greeting.is_some_and(|state| state.status == Status::PreAuth) {
        return Err(ImapError::StartTls(
            "the server states that the connection is authenticated already".to_owned(),
        ));
    }
    match connection.command("STARTTLS", ExpectedData::Nothing).await {
        Ok(_) => connection.into_plain(),
        Err(ImapError::Refused { text, .. }) => Err(ImapError::StartTls(text)),
        Err(error) => Err(error),
    }
}

async fn capabilities(connection: &mut Connection) -> Result<Capabilities, ImapError> {
    Ok(connection.command("CAPABILITY", ExpectedData::Capabilities).await?.capabilities)
}

async fn by_password(
    connection: &mut Connection,
    capabilities: &Capabilities,
    user: &str,
    password: &str,
) -> Result<(), ImapError> {
    if capabilities.contains("LOGINDISABLED") {
        return Err(ImapError::PasswordRefused);
    }
    let words = BASE64.encode(format!("\0{user}\0{password}").as_bytes());
    let outcome = match (quote(user), quote(password)) {
        (Some(user), Some(password)) => {
            let command = format!("LOGIN {user} {password}");
            connection.command(&command, ExpectedData::Nothing).await.map(drop)
        }
        // A quoted string is ASCII; PLAIN takes UTF-8 (RFC 4616).
        _ if capabilities.contains("AUTH=PLAIN") => {
            connection.secrets.remember(&words);
            connection.authenticate("PLAIN", &words, capabilities.contains("SASL-IR"), "*").await
        }
        _ => return Err(ImapError::NotAscii),
    };
    outcome.map_err(rejected)
}

async fn by_token(
    connection: &mut Connection,
    capabilities: &Capabilities,
    mailbox: &ImapMailbox,
    token: &str,
) -> Result<(), ImapError> {
    let (user, host, port) = (&mailbox.user, &mailbox.host, mailbox.port);
    // After an error, the server waits for a last response: a single 0x01 (RFC 7628 §3.2.3), or an empty one.
    let (mechanism, words, last) = if capabilities.contains("AUTH=OAUTHBEARER") {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let words = format!("n,a={user},\x01host={host}\x01port={port}\x01auth=Bearer {token}\x01\x01");
        ("OAUTHBEARER", words, "AQ==")
    } else if capabilities.contains("AUTH=XOAUTH2") {
        ("XOAUTH2", format!("user={user}\x01auth=Bearer {token}\x01\x01"), "")
    } else {
        return Err(ImapError::NoTokens);
    };
    let initial = BASE64.encode(words.as_bytes());
    let is_inline = capabilities.contains("SASL-IR");
    connection.secrets.remember(&initial);
    connection.authenticate(mechanism, &initial, is_inline, last).await.map_err(rejected)
}

/// The error for refused credentials.
fn rejected(error: ImapError) -> ImapError {
    match error {
        ImapError::Refused { text, .. } => ImapError::SignIn(text),
        other => other,
    }
}
