//! Distinguishes a zone with invalid signatures from a server failure, behind a validating resolver that answers both
//! with SERVFAIL. The same query with the CD bit ("checking disabled", RFC 4035 §3.2.2) returns the data if only
//! validation failed.

use super::records::record_type;
use super::resolver_config::{SystemServers, name_servers, pool};
use super::sockets::Sockets;
use super::{Answer, Dns, DnsError, Kind, ResolverConfig, ResolverError};
use crate::BoxFuture;
use formats::DomainName;
use formats::limits::DNS_TIME;
use hickory_proto::op::{DnsRequest, DnsRequestOptions, Edns, Message, Query, ResponseCode};
use hickory_proto::rr::Name;
use hickory_resolver::NameServerPool;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use std::sync::{Arc, PoisonError, RwLock};

/// A [`Dns`] that repeats failed lookups without validation. If that succeeds, the error becomes [`DnsError::Bogus`].
pub struct BogusDetector {
    dns: Arc<dyn Dns>,
    config: ResolverConfig,
    /// The servers and the options of a query; [`BogusDetector::reload_from`] replaces them.
    servers: RwLock<(NameServerPool<Sockets>, DnsRequestOptions)>,
}

impl BogusDetector {
    /// Wraps `dns`. Failed lookups are repeated with the servers of `config`, or with those in `system`; see
    /// [`super::Resolver::using`].
    pub fn new(
        dns: Arc<dyn Dns>,
        config: &ResolverConfig,
        system: Option<&SystemServers>,
    ) -> Result<Self, ResolverError> {
        Ok(Self { dns, config: config.clone(), servers: RwLock::new(servers(config, system)?) })
    }

    /// Replaces the servers, as [`super::Resolver::reload_from`] does.
    pub fn reload_from(&self, system: &SystemServers) -> Result<(), ResolverError> {
        if self.config.servers.is_empty() {
            let new = servers(&self.config, Some(system))?;
            *self.servers.write().unwrap_or_else(PoisonError::into_inner) = new;
        }
        Ok(())
    }

    /// Whether the servers answer the query when validation is disabled.
    async fn succeeds_unvalidated(&self, name: &DomainName, kind: Kind) -> bool {
        let Ok(name) = Name::from_ascii(format!("{name}.")) else { return false };
        let mut message = Message::query();
        message.add_query(Query::query(name, record_type(kind)));
        message.metadata.recursion_desired = true;
        message.metadata.checking_disabled = true;
        message.set_edns(Edns::new());
        let (pool, options) = self.servers.read().unwrap_or_else(PoisonError::into_inner).clone();
        let answer = pool.send(DnsRequest::new(message, options)).first_answer();
        match tokio::time::timeout(DNS_TIME, answer).await {
            Ok(Ok(answer)) => answer.metadata.response_code == ResponseCode::NoError,
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

fn servers(
    config: &ResolverConfig,
    system: Option<&SystemServers>,
) -> Result<(NameServerPool<Sockets>, DnsRequestOptions), ResolverError> {
    let servers = name_servers(config, system)?;
    let (pool, _, options) =
        pool(config, &servers).map_err(|error| ResolverError::System(error.to_string()))?;
    Ok((pool, options))
}

impl Dns for BogusDetector {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async move {
            match self.dns.lookup(name, kind).await {
                Err(DnsError::ServerFailure(_)) if self.succeeds_unvalidated(name, kind).await => {
                    Err(DnsError::Bogus)
                }
                other => other,
            }
        })
    }
}
