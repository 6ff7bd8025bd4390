//! Mail servers with outdated or unusual behavior, such as weak cipher suites or command injection. Their SMTP
//! session is minimal, but sufficient for `sternpost check` to detect the behavior.

use crate::behavior::Behavior;
use crate::pki::Identity;
use crate::policy_host::{acceptor, server_hello};
use formats::hello::offered_version;
use net::BoxFuture;
use net::smtp::server::{AnyStream, Upgrade};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

/// The TLS side of a behavior. `other` is the certificate without SNI for [`Behavior::OnlyWithSni`].
pub(crate) fn upgrade(
    behavior: Behavior,
    identity: &Identity,
    other: &Identity,
) -> Result<Arc<dyn Upgrade>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    Ok(match behavior {
        Behavior::OnlyTls12 => {
            let config = builder
                .with_protocol_versions(&[&rustls::version::TLS12])?
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(ByName {
                    named: identity.certified.clone(),
                    other: identity.certified.clone(),
                }));
            Arc::new(TlsAcceptor::from(Arc::new(config)))
        }
        Behavior::OnlyWithSni => {
            let config =
                builder.with_safe_default_protocol_versions()?.with_no_client_auth().with_cert_resolver(
                    Arc::new(ByName { named: identity.certified.clone(), other: other.certified.clone() }),
                );
            Arc::new(TlsAcceptor::from(Arc::new(config)))
        }
        Behavior::WantsCertificate => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(identity.certified.cert.last().cloned());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
            let config = builder
                .with_safe_default_protocol_versions()?
                .with_client_cert_verifier(verifier)
                .with_cert_resolver(Arc::new(ByName {
                    named: identity.certified.clone(),
                    other: identity.certified.clone(),
                }));
            Arc::new(TlsAcceptor::from(Arc::new(config)))
        }
        Behavior::OldTlsToo | Behavior::WeakCiphersToo | Behavior::HangsOnLargeHello => {
            Arc::new(AlsoOld { behavior, today: acceptor(identity)? })
        }
        _ => Arc::new(acceptor(identity)?),
    })
}

#[derive(Debug)]
struct ByName {
    named: Arc<CertifiedKey>,
    other: Arc<CertifiedKey>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(if hello.server_name().is_some() { self.named.clone() } else { self.other.clone() })
    }
}

/// Accepts the hello of an outdated client and then closes the connection; completes handshakes with others.
struct AlsoOld {
    behavior: Behavior,
    today: TlsAcceptor,
}

impl Upgrade for AlsoOld {
    fn upgrade(&self, mut stream: AnyStream) -> BoxFuture<'_, io::Result<AnyStream>> {
        Box::pin(async move {
            let mut record = vec![0; 5];
            stream.read_exact(&mut record).await?;
            let length = match record.as_slice() {
                [_, _, _, high, low] => usize::from(u16::from_be_bytes([*high, *low])),
                _ => 0,
            };
            record.resize(5 + length, 0);
            if let Some(rest) = record.get_mut(5..) {
                stream.read_exact(rest).await?;
            }
            if self.behavior == Behavior::HangsOnLargeHello && record.len() > LARGE_HELLO_BYTES {
                return std::future::pending().await;
            }
            match self.agrees(&record) {
                Some(hello) => {
                    stream.write_all(&hello).await?;
                    stream.shutdown().await?;
                    Err(io::ErrorKind::ConnectionAborted.into())
                }
                None => {
                    let (read, write) = tokio::io::split(stream);
                    let again = tokio::io::join(io::Cursor::new(record).chain(read), write);
                    self.today.upgrade(Box::new(again)).await
                }
            }
        })
    }
}

/// The length of a ClientHello that fits into one TCP segment of an Ethernet.
const LARGE_HELLO_BYTES: usize = 1400;

impl AlsoOld {
    fn agrees(&self, hello: &[u8]) -> Option<Vec<u8>> {
        let claimed = offered_version(hello)?;
        // In a ClientHello without a session id the cipher suites begin here; the first weak one is 0x0001.
        let is_weak = hello.get(46..48) == Some(&[0, 1]);
        match self.behavior {
            Behavior::OldTlsToo if claimed < 0x0303 => Some(server_hello(claimed, 0x002f)),
            Behavior::WeakCiphersToo if claimed == 0x0303 && is_weak => Some(server_hello(claimed, 0x000a)),
            _ => None,
        }
    }
}

/// An SMTP session with REQUIRETLS, or one that executes injected commands after the handshake.
pub(crate) async fn serve(
    stream: AnyStream,
    host: &str,
    behavior: Behavior,
    tls: &dyn Upgrade,
) -> io::Result<()> {
    let mut session = Session { stream, read: Vec::new() };
    session.say(&format!("220 {host} ESMTP")).await?;
    let mut is_sealed = false;
    while let Some(line) = session.line().await? {
        let verb = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => {
                let offer = if is_sealed { "250-REQUIRETLS\r\n" } else { "250-STARTTLS\r\n" };
                let offer = if behavior == Behavior::TakesInjection && is_sealed { "" } else { offer };
                session.say(&format!("250-{host}\r\n{offer}250 8BITMIME")).await?;
            }
            "STARTTLS" => {
                session.say("220 go on").await?;
                session.stream = tls.upgrade(session.stream).await?;
                is_sealed = true;
                if behavior != Behavior::TakesInjection {
                    session.read.clear();
                }
            }
            "QUIT" => return session.say("221 bye").await,
            "HELO" | "NOOP" => session.say("250 fine").await?,
            _ => session.say("502 not known here").await?,
        }
    }
    Ok(())
}

struct Session {
    stream: AnyStream,
    read: Vec<u8>,
}

impl Session {
    async fn say(&mut self, line: &str) -> io::Result<()> {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await?;
        self.stream.flush().await
    }

    async fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(line.trim_ascii_end()).into_owned()));
            }
            let mut chunk = [0; 512];
            let count = self.stream.read(&mut chunk).await?;
            if count == 0 || self.read.len() > 4096 {
                return Ok(None);
            }
            self.read.extend(chunk.iter().take(count));
        }
    }
}
