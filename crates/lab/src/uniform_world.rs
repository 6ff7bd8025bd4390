//! A simulated network for tests and benchmarks of the sender's cache: every domain has one unsigned MX record
//! and a policy in mode enforce. All answers are computed, without any sockets.

use formats::DomainName;
use net::BoxFuture;
use net::dns::{Answer, Data, Dns, DnsError, Exchange, Kind, Mx, Security};
use net::https::{FetchError, Fetched, PolicyHosts};
use std::time::Duration;

/// DNS and policy hosts in which every domain exists. Queries other than TXT and MX time out.
#[derive(Debug, Clone, Copy, Default)]
pub struct UniformWorld;

impl UniformWorld {
    /// The policy file of a domain.
    pub fn policy(domain: &DomainName) -> String {
        format!(
            "version: STSv1\r\nmode: enforce\r\nmx: mx1.{domain}\r\nmx: *.mx.{domain}\r\nmax_age: 604800\r\n"
        )
    }
}

impl Dns for UniformWorld {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        let data = match kind {
            Kind::Txt => Data::Txt(b"v=STSv1; id=1;".to_vec()),
            Kind::Mx => Data::Mx(Mx { preference: 10, exchange: Exchange::Host(name.clone()) }),
            _ => return Box::pin(async { Err(DnsError::Timeout) }),
        };
        let answer = Answer {
            records: vec![data],
            ttl: Duration::from_secs(3600),
            security: Security::Insecure,
            aliases: Vec::new(),
            is_split: false,
        };
        Box::pin(async { Ok(answer) })
    }
}

impl PolicyHosts for UniformWorld {
    fn fetch<'a>(&'a self, domain: &'a DomainName) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(async {
            Ok(Fetched {
                body: Self::policy(domain).into_bytes(),
                address: [127, 0, 0, 1].into(),
                media_type: "text/plain".into(),
                tls_version: String::new(),
            })
        })
    }
}
