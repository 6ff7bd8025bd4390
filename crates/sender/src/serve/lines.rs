//! The line protocol, for Exim's `${readsocket…}` and for scripts: one request and one reply per line.
//!
//! | request | reply |
//! | --- | --- |
//! | `DOMAIN` | `none`, `LEVEL` or `LEVEL PATTERN…`, or `defer REASON` |
//! | `DOMAIN HOST` | the decision for that MX host: `none`, `LEVEL`, `refuse REASON` or `defer REASON` |
//!
//! The levels are those of Postfix: `may`, `encrypt`, `dane`, `dane-only`, `secure`. At `secure` the certificate must
//! be valid for the name of the MX host.
//!
//! A host whose addresses are not secure is answered `defer` where the domain's level is `dane-only`. DANE applies to it if
//! its name is a secure alias (RFC 7672 §2.2.2), which Exim does not support: with `dane-only` it returns the message
//! to its sender.

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
            let mut is_first = true;
            loop {
                let next = timeout(SOCKETMAP_TIME, line(&mut stream));
                let Some(Ok(Some(line))) = shutdown.next_request(next, is_first).await else { break };
                is_first = false;
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
            Some(host) => match self.defers(&entry, host).await {
                true => format!(
                    "defer DANE of the MX host {} needs the secure alias of an unsigned host, which is not supported here",
                    printable(host)
                ),
                false => about_host(&entry, domain, host),
            },
            None => about_domain(&entry),
        };
        reply + "\n"
    }

    /// True for a host that DANE can apply to only through a secure alias, or whose addresses can't be looked up, where DANE is
    /// mandatory.
    async fn defers(&self, entry: &Entry, host: &str) -> bool {
        if entry.level().as_deref() != Some("dane-only") {
            return false;
        }
        let Ok(host) = DomainName::parse(host) else { return false };
        !self.0.is_signed(&host).await
    }
}

fn printable(host: &str) -> String {
    host.chars().filter(|c| !c.is_control()).take(253).collect()
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
            let host = printable(host);
            format!("refuse the MX host {host} matches no mx line of the policy of {domain}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::decide::Source;
    use crate::answer::overrides::{Rule, Scope};
    use crate::answer::route::DaneHosts;
    use crate::answer::{Discovery, Settings};
    use formats::MxPattern;
    use formats::tls_policy::{Answer, Level};
    use net::clock::SystemClock;
    use net::dns::{self, Absence, Data, Dns, DnsError, Kind, Security};
    use net::https::{FetchError, Fetched, PolicyHosts};
    use std::time::Duration;
    use store::Store;

    /// Hosts below `signed.example` have secure addresses, and those below `mute.example` none that can be looked up.
    struct World;

    impl Dns for World {
        fn lookup<'a>(
            &'a self,
            name: &'a DomainName,
            kind: Kind,
        ) -> BoxFuture<'a, Result<dns::Answer, DnsError>> {
            let security = match name.as_str() {
                name if name.ends_with("signed.example") && kind == Kind::A => Security::Secure,
                name if name.ends_with("mute.example") => return Box::pin(async { Err(DnsError::Timeout) }),
                _ => Security::Insecure,
            };
            let records = vec![Data::A([192, 0, 2, 1].into())];
            let ttl = Duration::from_secs(300);
            let found = match kind {
                Kind::A => Ok(dns::Answer { records, ttl, security, aliases: Vec::new(), is_split: false }),
                _ => Err(DnsError::NoSuchRecord(Absence { security, ttl: Some(ttl) })),
            };
            Box::pin(async { found })
        }
    }

    impl PolicyHosts for World {
        fn fetch<'a>(&'a self, _: &'a DomainName) -> BoxFuture<'a, Result<Fetched, FetchError>> {
            Box::pin(async { Err(FetchError::Status(404)) })
        }
    }

    #[tokio::test]
    async fn where_dane_needs_the_alias_of_an_unsigned_host_the_message_is_deferred() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let (world, clock) = (Arc::new(World), Arc::new(SystemClock));
        let mut settings = Settings::default();
        let rule = |level| Rule { answer: Some(Answer::Level(level, None)), ..Rule::default() };
        settings.overrides.add(Scope::parse("dane.example").unwrap(), rule(Level::DaneOnly));
        settings.overrides.add(Scope::parse("some.example").unwrap(), rule(Level::Dane));
        let discovery = Discovery::new(world.clone(), world.clone(), store.clone(), clock.clone());
        let lines = Lines(PolicyService::new(world, discovery, store, clock, 1 << 20, settings));
        for (request, reply) in [
            ("dane.example", "dane-only\n"),
            ("dane.example mx.signed.example", "dane-only\n"),
            ("dane.example mx.signed.example.", "dane-only\n"),
            ("some.example mx.other.example", "dane\n"),
        ] {
            assert_eq!(lines.reply(request).await, reply, "{request}");
        }
        for host in ["mx.other.example", "mx.mute.example"] {
            let reply = lines.reply(&format!("dane.example {host}")).await;
            assert!(reply.starts_with("defer ") && reply.contains(host), "{reply}");
        }
    }

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
