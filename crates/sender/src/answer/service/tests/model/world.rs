//! The world of the model test: what one domain publishes in DNS and over HTTPS, and what an attacker does to it.
//!
//! [`Zone`] is the state, which [`super::acts`] changes. [`World`] answers the service from it through the same traits
//! as the real resolver and policy hosts, and records what the service was given: each policy that HTTPS
//! authenticated, each failed fetch, and whether a forged answer was used.

use formats::tlsa::TlsaRecord;
use formats::{DomainName, Mode};
use net::BoxFuture;
use net::dns::{Absence, Answer, Data, Dns, DnsError, Exchange, Kind, Mx, Security};
use net::https::{FetchError, Fetched, PolicyHosts};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// The answer to an MX query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MxAnswer {
    /// MX records that name the host `a`, the host `b`, or both.
    Hosts(&'static [usize]),
    /// No MX records: the domain itself is the host.
    NoData,
    NoDomain,
    Null,
    Timeout,
    Bogus,
}

/// The answer to a query for the addresses of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    Signed,
    Unsigned,
    Absent,
    Timeout,
}

/// The answer to a query for the TLSA records of a host on port 25.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tlsa {
    /// Proven absence.
    None,
    Usable,
    /// Records of an unknown kind, which authenticate nothing.
    Unusable,
    /// Records without signature.
    Unsigned,
    /// A negative answer that is neither signed nor proven to be unsigned.
    Unproven,
    Bogus,
    Timeout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    pub address: Address,
    pub tlsa: Tlsa,
}

/// The `_mta-sts` record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// A valid record with this `id`.
    Published(u32),
    Absent,
    /// Two records, which count as none.
    Invalid,
    Timeout,
}

/// A policy file. Its MX pattern is `mx{number}.example`, so that each answer shows its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyFile {
    pub number: u32,
    pub mode: Mode,
    pub max_age: u32,
    /// False if the only `mx` line is an address, so that no MX host is valid.
    pub names_a_host: bool,
}

impl PolicyFile {
    pub fn text(self) -> String {
        let Self { number, mode, max_age, names_a_host } = self;
        let mx = if names_a_host { format!("mx{number}.example") } else { "192.0.2.1".to_owned() };
        format!("version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: {max_age}\n")
    }
}

/// What the policy host serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    Policy(PolicyFile),
    Malformed,
    Down,
}

/// The TTLs of positive and negative answers, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttls {
    pub mx: u64,
    pub host: u64,
    pub record: u64,
}

/// The number of the host that is the domain itself; 0 and 1 are the hosts `a` and `b`.
pub const APEX: usize = 2;

/// Everything that the domain publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zone {
    pub mx: MxAnswer,
    /// True if the domain's zone is signed.
    pub is_signed: bool,
    pub hosts: [Host; 3],
    pub record: Record,
    pub file: File,
    pub ttls: Ttls,
}

/// An MX answer that an attacker gives once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forged {
    pub mx: MxAnswer,
    pub ttl: u64,
}

impl Zone {
    /// The zone as a lookup sees it whose MX answer is forged. In a signed zone a forged answer is bogus.
    pub fn with_forged(mut self, forged: Forged) -> Self {
        self.mx = if self.is_signed { MxAnswer::Bogus } else { forged.mx };
        self.ttls.mx = forged.ttl;
        self
    }

    pub fn mx_security(&self) -> Security {
        if self.is_signed { Security::Secure } else { Security::Insecure }
    }
}

/// What the service was given since the last [`World::events`].
#[derive(Debug, Clone, Default)]
pub struct Events {
    /// The policies that HTTPS authenticated, with the `id` of the record at that time.
    pub fetched: Vec<(u32, PolicyFile)>,
    /// The `id`s under which a fetch failed.
    pub failed: Vec<u32>,
    /// The MX answer that was forged.
    pub forged: Option<Forged>,
    /// The number of MX queries and of queries for the addresses of the domain itself.
    pub routes: u32,
    /// The number of queries for the record.
    pub records: u32,
}

/// Answers the queries of the service from a [`Zone`].
#[derive(Debug)]
pub struct World {
    pub domain: DomainName,
    /// Blocks all answers while it is some.
    gate: Mutex<Option<Arc<Notify>>>,
    inside: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    zone: Zone,
    forged: Option<Forged>,
    events: Events,
}

impl World {
    pub fn new(domain: DomainName, zone: Zone) -> Self {
        Self {
            domain,
            gate: Mutex::default(),
            inside: Mutex::new(Inside { zone, forged: None, events: Events::default() }),
        }
    }

    /// Blocks all answers until [`Self::open`].
    pub fn hold(&self) {
        *self.gate.lock().unwrap() = Some(Arc::new(Notify::new()));
    }

    pub fn open(&self) {
        if let Some(gate) = self.gate.lock().unwrap().take() {
            gate.notify_waiters();
        }
    }

    async fn wait(&self) {
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
    }

    fn addresses_v6(&self, name: &DomainName) -> Result<Answer, DnsError> {
        // A host without IPv6, which says no more than its A records do.
        match self.zone().hosts[self.number(name)].address {
            Address::Timeout => Err(DnsError::Timeout),
            _ => Err(DnsError::NoSuchRecord(absence(Security::Secure, self.zone().ttls.host))),
        }
    }

    fn file(&self) -> Result<String, FetchError> {
        let mut inside = self.inside.lock().unwrap();
        let zone = inside.zone;
        let Record::Published(id) = zone.record else { panic!("a fetch without a record") };
        match zone.file {
            File::Policy(file) => {
                inside.events.fetched.push((id, file));
                return Ok(file.text());
            }
            File::Malformed | File::Down => inside.events.failed.push(id),
        }
        if zone.file == File::Malformed { Ok("<html>".to_owned()) } else { Err(FetchError::Status(503)) }
    }

    pub fn zone(&self) -> Zone {
        self.inside.lock().unwrap().zone
    }

    pub fn change(&self, change: impl FnOnce(&mut Zone)) {
        change(&mut self.inside.lock().unwrap().zone);
    }

    /// Forges the answer to the next MX query, or no longer.
    pub fn forge(&self, forged: Option<Forged>) {
        self.inside.lock().unwrap().forged = forged;
    }

    /// Returns the events since the last call.
    pub fn events(&self) -> Events {
        std::mem::take(&mut self.inside.lock().unwrap().events)
    }

    fn mx(&self) -> Result<Answer, DnsError> {
        let mut inside = self.inside.lock().unwrap();
        inside.events.routes += 1;
        let mut zone = inside.zone;
        if let Some(forged) = inside.forged.take() {
            inside.events.forged = Some(forged);
            zone = zone.with_forged(forged);
        }
        let (ttl, security) = (zone.ttls.mx, zone.mx_security());
        let null = Data::Mx(Mx { preference: 0, exchange: Exchange::Null });
        let mx = |host: &usize| Data::Mx(Mx { preference: 10, exchange: Exchange::Host(self.host(*host)) });
        match zone.mx {
            MxAnswer::Hosts(hosts) => Ok(answer(hosts.iter().map(mx).collect(), security, ttl)),
            MxAnswer::Null => Ok(answer(vec![null], security, ttl)),
            MxAnswer::NoData => Err(DnsError::NoSuchRecord(absence(security, ttl))),
            MxAnswer::NoDomain => Err(DnsError::NoSuchName(absence(security, ttl))),
            MxAnswer::Timeout => Err(DnsError::Timeout),
            MxAnswer::Bogus => Err(DnsError::Bogus),
        }
    }

    fn record(&self) -> Result<Answer, DnsError> {
        let mut inside = self.inside.lock().unwrap();
        inside.events.records += 1;
        let ttl = inside.zone.ttls.record;
        let text = |id: u32| Data::Txt(format!("v=STSv1; id={id};").into_bytes());
        match inside.zone.record {
            Record::Published(id) => Ok(answer(vec![text(id)], Security::Insecure, ttl)),
            Record::Invalid => Ok(answer(vec![text(1), text(2)], Security::Insecure, ttl)),
            Record::Absent => Err(DnsError::NoSuchName(absence(Security::Insecure, ttl))),
            Record::Timeout => Err(DnsError::Timeout),
        }
    }

    fn addresses(&self, name: &DomainName) -> Result<Answer, DnsError> {
        let mut inside = self.inside.lock().unwrap();
        if *name == self.domain {
            inside.events.routes += 1;
        }
        let ttl = inside.zone.ttls.host;
        let security = match inside.zone.hosts[self.number(name)].address {
            Address::Signed => Security::Secure,
            Address::Unsigned => Security::Insecure,
            Address::Absent => return Err(DnsError::NoSuchRecord(absence(Security::Secure, ttl))),
            Address::Timeout => return Err(DnsError::Timeout),
        };
        Ok(answer(vec![Data::A([192, 0, 2, 1].into())], security, ttl))
    }

    fn tlsa(&self, name: &DomainName) -> Result<Answer, DnsError> {
        let zone = self.zone();
        let (prefix, host) = name.as_str().split_once("._tcp.").unwrap();
        let (on_25, ttl) = (prefix == "_25", zone.ttls.host);
        let records = |text: &str| vec![Data::Tlsa(TlsaRecord::parse(text).unwrap())];
        let usable = || records(&format!("3 1 1 {}", "ab".repeat(32)));
        match zone.hosts[self.number(&DomainName::parse(host).unwrap())].tlsa {
            Tlsa::Usable if on_25 => Ok(answer(usable(), Security::Secure, ttl)),
            Tlsa::Unusable if on_25 => Ok(answer(records("3 1 9 abcd"), Security::Secure, ttl)),
            Tlsa::Unsigned if on_25 => Ok(answer(usable(), Security::Insecure, ttl)),
            Tlsa::None | Tlsa::Usable | Tlsa::Unusable | Tlsa::Unsigned => {
                Err(DnsError::NoSuchRecord(absence(Security::Secure, ttl)))
            }
            Tlsa::Unproven => Err(DnsError::NoSuchRecord(absence(Security::Indeterminate, ttl))),
            Tlsa::Bogus => Err(DnsError::Bogus),
            Tlsa::Timeout => Err(DnsError::Timeout),
        }
    }

    fn host(&self, number: usize) -> DomainName {
        match number {
            0 => self.domain.below("a").unwrap(),
            1 => self.domain.below("b").unwrap(),
            _ => self.domain.clone(),
        }
    }

    fn number(&self, name: &DomainName) -> usize {
        (0..APEX).find(|number| self.host(*number) == *name).unwrap_or(APEX)
    }
}

fn answer(records: Vec<Data>, security: Security, ttl: u64) -> Answer {
    Answer { records, ttl: Duration::from_secs(ttl), security, aliases: Vec::new(), is_split: false }
}

fn absence(security: Security, ttl: u64) -> Absence {
    Absence { security, ttl: Some(Duration::from_secs(ttl)) }
}

impl Dns for World {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async move {
            self.wait().await;
            match kind {
                Kind::Mx => self.mx(),
                Kind::Txt => self.record(),
                Kind::Tlsa => self.tlsa(name),
                Kind::A => self.addresses(name),
                _ => self.addresses_v6(name),
            }
        })
    }
}

impl PolicyHosts for World {
    fn fetch<'a>(&'a self, _: &'a DomainName) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(async move {
            self.wait().await;
            Ok(Fetched {
                body: self.file()?.into_bytes(),
                address: [127, 0, 0, 1].into(),
                media_type: "text/plain".into(),
                tls_version: String::new(),
            })
        })
    }
}
