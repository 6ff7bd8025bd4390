//! The line protocol, for Exim's `${readsocket…}` and for scripts: one request and one reply per line.
//!
//! | request | reply |
//! | --- | --- |
//! | `DOMAIN` | `none`, `LEVEL` or `LEVEL PATTERN…`, or `defer REASON` |
//! | `DOMAIN HOST` | the decision for that MX host: `none`, `LEVEL`, `refuse REASON` or `defer REASON` |
//!
//! The levels are those of Postfix: `may`, `encrypt`, `dane`, `dane-only`, `secure`. At `secure` the certificate must
//! be valid for the name of the MX host.

use super::Shutdown;
use super::listen::Serve;
use crate::answer::PolicyService;
use crate::answer::entry::{Entry, Status};
use formats::DomainName;
use formats::limits::{LINE_BYTES, SOCKETMAP_TIME};
use net::BoxFuture;
use net::smtp::server::AnyStream;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

/// The service of the line protocol.
#[derive(Clone)]
pub struct Lines(pub Arc<PolicyService>);

impl Serve for Lines {
    fn serve(
        self: Arc<Self>,
        stream: AnyStream,
        _: Option<IpAddr>,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.0.metrics.connections.inc();
            let mut stream = BufReader::with_capacity(LINE_BYTES, stream);
            loop {
                let line = tokio::select! {
                    line = timeout(SOCKETMAP_TIME, line(&mut stream)) => line,
                    () = shutdown.token.cancelled() => break,
                };
                let Ok(Some(line)) = line else { break };
                let reply = self.reply(line.trim()).await;
                if !matches!(timeout(SOCKETMAP_TIME, stream.write_all(reply.as_bytes())).await, Ok(Ok(()))) {
                    break;
                }
            }
            self.0.metrics.connections.dec();
        })
    }
}

/// Reads the next line. Returns `None` at the end of the stream, and for a line that is empty, longer than
/// [`LINE_BYTES`] or not UTF-8. Exim may end its line by closing its half of the connection.
async fn line(stream: &mut BufReader<AnyStream>) -> Option<String> {
    let mut line = Vec::new();
    stream.take(LINE_BYTES as u64).read_until(b'\n', &mut line).await.ok()?;
    let is_whole = line.ends_with(b"\n") || line.len() < LINE_BYTES;
    String::from_utf8(line).ok().filter(|line| is_whole && !line.trim().is_empty())
}

impl Lines {
    async fn reply(&self, request: &str) -> String {
        let (domain, host) = match request.split_once(' ') {
            Some((domain, host)) => (domain, Some(host.trim())),
            None => (request, None),
        };
        let entry = self.0.ask(domain).await;
        let reply = match host {
            Some(host) => about_host(&entry, domain, host),
            None => about_domain(&entry),
        };
        reply + "\n"
    }
}

fn about_domain(entry: &Entry) -> String {
    match entry.status {
        Status::Temporary => format!("defer {}", entry.text(false)),
        Status::NotFound => "none".to_owned(),
        Status::Ok => {
            let mut reply = entry.level().unwrap_or_else(|| "none".to_owned());
            for pattern in entry.patterns() {
                let _ = write!(reply, " {pattern}");
            }
            reply
        }
    }
}

fn about_host(entry: &Entry, domain: &str, host: &str) -> String {
    let patterns = entry.patterns();
    if patterns.is_empty() {
        return about_domain(entry);
    }
    match DomainName::parse(host) {
        Ok(name) if patterns.iter().any(|pattern| pattern.matches(&name)) => "secure".to_owned(),
        _ => {
            let host: String = host.chars().filter(|c| !c.is_control()).take(253).collect();
            format!("refuse the MX host {host} matches no mx line of the policy of {domain}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::decide::Source;
    use crate::answer::route::DaneHosts;
    use formats::MxPattern;
    use formats::tls_policy::{Answer, Level};

    fn entry(answer: &Answer) -> Entry {
        Entry::new(answer, Source::MtaSts, DaneHosts::default(), 0, 0)
    }

    #[test]
    fn replies_give_the_level_or_the_decision_for_a_host() {
        let patterns = vec![MxPattern::parse("*.example.org").unwrap()];
        let secure = entry(&Answer::Level(Level::Secure(patterns), None));
        assert_eq!(about_domain(&secure), "secure *.example.org");
        assert_eq!(about_host(&secure, "example.org", "MX.example.org"), "secure");
        for host in ["a.b.example.org", "mx.example.net", "", "bad host"] {
            assert!(about_host(&secure, "example.org", host).starts_with("refuse the MX host"), "{host}");
        }
        let dane = entry(&Answer::Level(Level::DaneOnly, None));
        assert_eq!(about_host(&dane, "example.org", "mx.example.org"), "dane-only");
        assert_eq!(about_domain(&entry(&Answer::NotFound)), "none");
        assert_eq!(about_host(&entry(&Answer::Temp("why".into())), "d", "h"), "defer why");
    }
}
