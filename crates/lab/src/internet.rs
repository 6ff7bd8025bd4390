//! The running lab: name server, certificates, policy hosts and mail servers of all domains, on loopback
//! addresses. [`Lab::add`] turns a [`Case`] into records and servers.

use crate::behavior::Behavior;
use crate::case::{Case, HostAddress, Mx, NoMx, SecondServer, TlsaSetup};
use crate::dns::{AbortOnDrop, DnsSetupError, NameServer, Rr, Signing, TamperedKind, Tampering, absolute};
use crate::mail_host::{Blackhole, MailHost, MailTraffic};
use crate::pki::{Cert, Identity, Pki, PkiError};
use crate::policy_host::{HttpBehavior, PolicyHosts, Site, bind};
use crate::traffic::Traffic;
use formats::DomainName;
use formats::tlsa::TlsaRecord;
use jiff::Timestamp;
use net::certificate::{Trust, TrustError};
use net::clock::Clock;
use net::dns::{Dns, Dnssec, Resolver, ResolverConfig, ResolverError};
use net::https::{Fetcher, FetcherConfig};
use net::smtp::{Client, ClientConfig, MailHosts, MailProbes};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// The ports and addresses of a lab.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// The port of the name server; 0 selects a free one.
    pub dns: u16,
    /// The HTTPS port of all policy hosts; 0 selects a free one.
    pub https: u16,
    /// The SMTP port of all MX hosts; 0 selects a free one.
    pub smtp: u16,
    /// The second octet of all addresses: the lab uses 127.`block`.0.0/16.
    pub block: u8,
}

impl Ports {
    /// Free ports, in an address block derived from the process id so that concurrent labs rarely collide.
    pub fn free() -> Self {
        let block = 64 + u8::try_from(std::process::id() % 180).unwrap_or(0);
        Self { dns: 0, https: 0, smtp: 0, block }
    }
}

/// Why a lab could not be started or changed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The name server could not be started or changed.
    #[error(transparent)]
    Dns(#[from] DnsSetupError),
    /// A certificate could not be issued.
    #[error("failed to issue a certificate of the lab: {0}")]
    Pki(#[from] PkiError),
    /// A socket could not be opened.
    #[error("failed to open a socket of the lab: {0}")]
    Io(#[from] io::Error),
    /// A TLS configuration is invalid.
    #[error("the TLS configuration of the lab is invalid: {0}")]
    Tls(#[from] rustls::Error),
    /// The lab's root certificate was rejected.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The resolver of the lab's clients could not be created.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// A key could not be generated; the text is the reason.
    #[error("failed to generate a key of the lab: {0}")]
    Key(String),
    /// The text is not a domain name.
    #[error("{0:?} is not a domain name")]
    Name(String),
}

/// A running lab. Dropping it stops all servers.
pub struct Lab {
    /// The name server of all zones of the lab.
    pub names: NameServer,
    /// The HTTPS server of all policy hosts.
    pub sites: PolicyHosts,
    /// The mail that the mail servers received, and the attacker's switches.
    pub mail_traffic: Arc<MailTraffic>,
    /// The CA of the lab, whose root certificate the clients trust.
    pub pki: Pki,
    /// The HTTPS port of all policy hosts.
    pub https_port: u16,
    /// The SMTP port of all mail servers.
    pub smtp_port: u16,
    network: [u8; 2],
    next_address: AtomicU16,
    mail_hosts: std::sync::Mutex<Vec<MailHost>>,
    other_names: std::sync::Mutex<Vec<NameServer>>,
    walls: std::sync::Mutex<Vec<Blackhole>>,
    _list: AbortOnDrop,
}

/// The clients of the crate `net`, configured with the lab's root certificate, trust anchor and ports.
pub struct Clients {
    /// A validating resolver without a cache.
    pub dns: Arc<dyn Dns>,
    /// Fetches policy files from the lab's policy hosts.
    pub policies: Arc<Fetcher>,
    /// Opens SMTP sessions with the lab's MX hosts.
    pub mail: Arc<dyn MailHosts>,
    /// The same SMTP client, for the additional probes of a check.
    pub probes: Arc<dyn MailProbes>,
    /// A trust store with only the lab's root.
    pub trust: Trust,
}

/// The attacker's mail server, which forged MX records name.
const ATTACKER: &str = "mx.attacker.test";

impl Lab {
    /// Starts a lab without domains: the DNS root and `test.`, the policy hosts' server and the attacker's mail server.
    /// Certificates are dated relative to `now`.
    pub async fn start(ports: Ports, now: Timestamp) -> Result<Self, LabError> {
        Self::start_in([127, ports.block], ports, now).await
    }

    /// Like [`Lab::start`], with addresses of `network`/16, which has to be local: such as public addresses in a network
    /// namespace, so that clients need no permission for private ones. `ports.block` is ignored.
    pub async fn start_in(network: [u8; 2], ports: Ports, now: Timestamp) -> Result<Self, LabError> {
        let ip = |last| Ipv4Addr::new(network[0], network[1], 0, last);
        let names = NameServer::start(ip(1), ports.dns).await?;
        let https = bind(SocketAddr::new(IpAddr::V4(ip(2)), ports.https)).await?;
        let https_port = https.local_addr()?.port();
        let reserved = bind(SocketAddr::new(IpAddr::V4(ip(4)), ports.smtp)).await?;
        let smtp_port = reserved.local_addr()?.port();
        let list = bind(SocketAddr::new(IpAddr::V4(ip(2)), 0)).await?;
        let url = format!("http://crl.test:{}/root.crl", list.local_addr()?.port());
        let pki = Pki::new(now)?.with_list(url);
        let lab = Self {
            names,
            sites: PolicyHosts::start(https),
            mail_traffic: Arc::default(),
            _list: crate::revoked::serve(list, pki.revoked()?),
            pki,
            https_port,
            smtp_port,
            network,
            next_address: AtomicU16::new(256),
            mail_hosts: std::sync::Mutex::default(),
            other_names: std::sync::Mutex::default(),
            walls: std::sync::Mutex::default(),
        };
        lab.names.set("crl.test.", vec![Rr::A(ip(2))])?;
        lab.names.add_zone("attacker.test.", Signing::Unsigned)?;
        lab.names.set(&format!("{ATTACKER}."), vec![Rr::A(ip(4))])?;
        let identity = lab.pki.issue(ATTACKER, Cert::SelfSigned)?;
        let host = MailHost::start(
            reserved,
            domain(ATTACKER)?,
            Behavior::Good,
            &identity,
            &identity,
            lab.mail_traffic.clone(),
        )?;
        lab.keep(host);
        Ok(lab)
    }

    /// Starts a lab with these domains. All attacks are switched off.
    pub async fn with_cases(ports: Ports, now: Timestamp, cases: &[Case]) -> Result<Self, LabError> {
        let lab = Self::start(ports, now).await?;
        for case in cases {
            lab.add(case).await?;
        }
        Ok(lab)
    }

    /// An unused address of this lab.
    pub fn fresh_address(&self) -> Ipv4Addr {
        let number = self.next_address.fetch_add(1, Ordering::Relaxed);
        let [high, low] = number.to_be_bytes();
        Ipv4Addr::new(self.network[0], self.network[1], high, low)
    }

    /// The address of the policy hosts.
    pub fn policy_host_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.network[0], self.network[1], 0, 2)
    }

    /// Publishes the records of a domain and starts its servers.
    pub async fn add(&self, case: &Case) -> Result<(), LabError> {
        self.names.add_zone(&format!("{}.", case.domain()), case.setup.signing)?;
        self.fill(case).await
    }

    /// Like [`Self::add`] for many domains, none of which is below another one, with their delegations signed once.
    pub async fn add_all<'c>(
        &self,
        cases: impl IntoIterator<Item = &'c Case> + Clone,
    ) -> Result<(), LabError> {
        for signing in [Signing::Signed, Signing::Unsigned, Signing::Bogus, Signing::Unlinked] {
            let of_kind = cases.clone().into_iter().filter(|case| case.setup.signing == signing);
            let origins: Vec<String> = of_kind.map(|case| format!("{}.", case.domain())).collect();
            self.names.add_zones(&origins, signing)?;
        }
        for case in cases {
            self.fill(case).await?;
        }
        Ok(())
    }

    /// Publishes the records of a domain whose zone exists, and starts its servers.
    async fn fill(&self, case: &Case) -> Result<(), LabError> {
        let origin = format!("{}.", case.domain());
        self.names.set_ttl(&origin, case.setup.ttl);
        for (label, signing) in &case.setup.zones {
            self.names.add_zone(&below(label, &origin), *signing)?;
            self.names.set_ttl(&below(label, &origin), case.setup.ttl);
        }
        let mut records = self.record(case, &origin)?;
        records.extend(self.policy_site(case, &origin)?);
        records.extend(self.mail(case, &origin).await?);
        let reports: Vec<Rr> = case.setup.tlsrpt_records.iter().cloned().map(Rr::Txt).collect();
        records.push((format!("_smtp._tls.{origin}"), reports));
        for (label, more) in &case.setup.extra {
            records.push((below(label, &origin), more.clone()));
        }
        records.extend(self.second_server(case, &origin).await?);
        self.names.set_all(&origin, records)?;
        // The records below are in the zones by now, which have to be signed again.
        for (label, _) in &case.setup.zones {
            self.names.set(&below(label, &origin), Vec::new())?;
        }
        Ok(())
    }

    async fn second_server(&self, case: &Case, origin: &str) -> Result<Vec<(String, Vec<Rr>)>, LabError> {
        let address = match &case.setup.second_server {
            None => return Ok(Vec::new()),
            Some(SecondServer::Lame) => self.fresh_address(),
            Some(SecondServer::Says(record)) => {
                let address = self.fresh_address();
                let other = NameServer::start(address, self.names.address.port()).await?;
                other.add_zone(origin, Signing::Unsigned)?;
                other.set(&format!("_mta-sts.{origin}"), vec![Rr::Txt(vec![record.clone()])])?;
                self.other_names.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(other);
                address
            }
        };
        let name = format!("ns2.{origin}");
        Ok(vec![
            (origin.to_owned(), vec![Rr::Ns("ns.test.".into()), Rr::Ns(name.clone())]),
            (name, vec![Rr::A(address)]),
        ])
    }

    fn record(&self, case: &Case, origin: &str) -> Result<Vec<(String, Vec<Rr>)>, LabError> {
        let name = format!("_mta-sts.{origin}");
        self.names.meddle(&name, TamperedKind::Txt, case.setup.record_trouble.clone())?;
        let texts: Vec<Rr> = case.setup.sts_records.iter().cloned().map(Rr::Txt).collect();
        if case.setup.record_by_cname {
            let target = format!("_record.{origin}");
            return Ok(vec![(name, vec![Rr::Cname(target.clone())]), (target, texts)]);
        }
        Ok(vec![(name, texts)])
    }

    fn policy_site(&self, case: &Case, origin: &str) -> Result<Vec<(String, Vec<Rr>)>, LabError> {
        let host = format!("mta-sts.{}", case.domain());
        let identity = self.pki.issue(&host, case.setup.host_cert)?;
        self.sites.put(&host, Site { answers: case.setup.answers.clone(), identity });
        let here = vec![Rr::A(self.policy_host_address())];
        Ok(match case.setup.host_address {
            HostAddress::Direct => vec![(format!("{host}."), here)],
            HostAddress::Cname => vec![
                (format!("{host}."), vec![Rr::Cname(format!("web.{origin}"))]),
                (format!("web.{origin}"), here),
            ],
            HostAddress::Refused => vec![(format!("{host}."), vec![Rr::A(self.fresh_address())])],
            HostAddress::Missing => Vec::new(),
            HostAddress::Private => vec![(format!("{host}."), vec![Rr::A(Ipv4Addr::new(10, 1, 2, 3))])],
            HostAddress::Ipv6Broken => {
                vec![(format!("{host}."), [here, vec![Rr::Aaaa(Ipv6Addr::LOCALHOST)]].concat())]
            }
            HostAddress::Partial => {
                vec![(format!("{host}."), [here, vec![Rr::A(self.fresh_address())]].concat())]
            }
            HostAddress::Pages => {
                let page = format!("{}.github.io.", case.name);
                self.names.set(&page, here)?;
                vec![(format!("{host}."), vec![Rr::Cname(page)])]
            }
            HostAddress::Provider => {
                let name = format!("{}.mta-sts.dmarcreport.com.", case.name);
                self.names.set(&name, here)?;
                vec![(format!("{host}."), vec![Rr::Cname(name)])]
            }
            HostAddress::CatchAll => vec![(format!("*.{origin}"), here)],
        })
    }

    async fn mail(&self, case: &Case, origin: &str) -> Result<Vec<(String, Vec<Rr>)>, LabError> {
        let mut records = Vec::new();
        let mut exchangers = Vec::new();
        for mx in &case.setup.mx {
            let host = mx.host(&case.domain());
            exchangers.push(Rr::Mx(mx.preference, format!("{host}.")));
            let own = self.mail_host(&host, mx, origin).await?;
            match mx.provider {
                None => records.extend(own),
                // The names of providers are in the root zone.
                Some(_) => own.into_iter().try_for_each(|(name, records)| self.names.set(&name, records))?,
            }
            if !mx.more.is_empty() {
                records.push((format!("{host}."), mx.more.clone()));
            }
        }
        match (exchangers.is_empty(), case.setup.no_mx) {
            (false, _) => records.push((origin.to_owned(), exchangers)),
            (true, NoMx::Null) => records.push((origin.to_owned(), vec![Rr::Mx(0, ".".into())])),
            (true, NoMx::Implicit) => {
                let identity = self.pki.issue(&case.domain(), Cert::Good)?;
                let address =
                    self.start_mail_host(&domain(&case.domain())?, Behavior::Good, &identity).await?;
                records.push((origin.to_owned(), vec![Rr::A(address)]));
            }
        }
        Ok(records)
    }

    async fn mail_host(&self, host: &str, mx: &Mx, origin: &str) -> Result<Vec<(String, Vec<Rr>)>, LabError> {
        let identity = self.pki.issue(host, mx.cert)?;
        let address = match mx.behavior {
            Some(behavior) => self.start_mail_host(&domain(host)?, behavior, &identity).await?,
            None => self.fresh_address(),
        };
        let mut own = if mx.unaddressed { Vec::new() } else { vec![Rr::A(address)] };
        if let Some((behavior, cert)) = mx.twin {
            let twin = self.pki.issue(host, cert)?;
            own.push(Rr::A(self.start_mail_host(&domain(host)?, behavior, &twin).await?));
        }
        let mut records = match mx.alias {
            true => vec![
                (format!("{host}."), vec![Rr::Cname(format!("real.{origin}"))]),
                (format!("real.{origin}"), vec![Rr::A(address)]),
            ],
            false => vec![(format!("{host}."), own)],
        };
        let tlsa_name = format!("_25._tcp.{host}.");
        self.names.meddle(&tlsa_name, TamperedKind::Tlsa, mx.tlsa_trouble.clone())?;
        if !mx.tlsa.is_empty() {
            records
                .push((tlsa_name, mx.tlsa.iter().map(|setup| Rr::Tlsa(tlsa(*setup, &identity))).collect()));
        }
        Ok(records)
    }

    /// Starts a mail server for `host` at an unused address, and returns the address.
    pub async fn start_mail_host(
        &self,
        host: &DomainName,
        behavior: Behavior,
        identity: &Identity,
    ) -> Result<Ipv4Addr, LabError> {
        let address = self.fresh_address();
        if behavior == Behavior::Walled {
            let wall = Blackhole::raise(SocketAddr::new(IpAddr::V4(address), self.smtp_port)).await?;
            self.walls.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(wall);
            return Ok(address);
        }
        let listener = bind(SocketAddr::new(IpAddr::V4(address), self.smtp_port)).await?;
        self.start_mail_host_on(listener, host, behavior, identity)?;
        Ok(address)
    }

    /// Starts a mail server for `host` on this listener, such as one with an IPv6 address.
    pub fn start_mail_host_on(
        &self,
        listener: tokio::net::TcpListener,
        host: &DomainName,
        behavior: Behavior,
        identity: &Identity,
    ) -> Result<(), LabError> {
        let other = match behavior {
            Behavior::OnlyWithSni => self.pki.issue("elsewhere.test", Cert::Good)?,
            _ => identity.clone(),
        };
        self.keep(MailHost::start(
            listener,
            host.clone(),
            behavior,
            identity,
            &other,
            self.mail_traffic.clone(),
        )?);
        Ok(())
    }

    fn keep(&self, host: MailHost) {
        self.mail_hosts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(host);
    }

    /// Records from now on what clients do with the policy hosts and mail servers.
    pub fn observe(&self, traffic: &Traffic) {
        self.sites.observe(traffic);
        self.mail_traffic.observe(traffic);
    }

    /// Switches the attack on a domain on or off.
    pub fn attack(&self, case: &Case, on: bool) -> Result<(), LabError> {
        let when = |wanted: bool, how: Tampering| (on && wanted).then_some(how);
        let origin = format!("{}.", case.domain());
        let suppress =
            when(case.attack.suppress_record, Tampering::Suppress).or(case.setup.record_trouble.clone());
        self.names.meddle(&format!("_mta-sts.{origin}"), TamperedKind::Txt, suppress)?;
        let forged = Tampering::Forge(vec![Rr::Mx(0, format!("{ATTACKER}."))]);
        self.names.meddle(&origin, TamperedKind::Mx, when(case.attack.forge_mx, forged))?;
        self.sites.block(&format!("mta-sts.{}", case.domain()), on && case.attack.block_host);
        for mx in &case.setup.mx {
            self.mail_traffic.strip(&domain(&mx.host(&case.domain()))?, on && case.attack.strip);
        }
        Ok(())
    }

    /// The configuration of a validating resolver without a cache that uses the lab's name server.
    pub fn resolver_config(&self) -> Result<ResolverConfig, LabError> {
        Ok(ResolverConfig {
            sources: Vec::new(),
            servers: vec![self.names.address],
            dnssec: Dnssec::Validate,
            trust_anchor: Some(self.names.trust_anchor()?),
            cache: false,
            attempt_time: Duration::from_millis(1000),
            max_ttl: Duration::from_secs(604_800),
        })
    }

    /// Creates clients for this lab; `helo` is the SMTP client's name. They time out after 1 to 4 seconds.
    pub fn clients(&self, helo: &str, clock: Arc<dyn Clock>) -> Result<Clients, LabError> {
        let dns = Arc::new(Resolver::new(&self.resolver_config()?)?);
        self.clients_with(dns, helo, clock, (Duration::from_secs(4), Duration::from_secs(3)))
    }

    /// Like [`Lab::clients`], with this resolver and these limits for a policy fetch and for an SMTP reply.
    pub fn clients_with(
        &self,
        dns: Arc<dyn Dns>,
        helo: &str,
        clock: Arc<dyn Clock>,
        (fetch_time, reply_time): (Duration, Duration),
    ) -> Result<Clients, LabError> {
        let trust = Trust::from_roots([self.pki.root()])?;
        let fetcher = FetcherConfig {
            trust: trust.clone(),
            port: self.https_port,
            allow_special_addresses: true,
            time: fetch_time,
            sources: Vec::new(),
        };
        let client = ClientConfig {
            trust: trust.clone(),
            helo: domain(helo)?.into(),
            port: self.smtp_port,
            allow_special_addresses: true,
            reply_time,
            sources: Vec::new(),
            login: None,
        };
        let mail = Arc::new(Client::new(client, clock.clone())?);
        Ok(Clients {
            policies: Arc::new(Fetcher::new(fetcher, dns.clone(), clock)?),
            mail: mail.clone(),
            probes: mail,
            dns,
            trust,
        })
    }

    /// The name of the attacker's mail server, which forged MX records point to.
    pub fn attackers_host() -> &'static str {
        ATTACKER
    }

    /// Replaces the TXT records at `name` by one record with this value.
    pub fn publish_txt(&self, name: &DomainName, value: &str) -> Result<(), LabError> {
        Ok(self.names.set(&absolute(name), vec![Rr::Txt(vec![value.to_owned()])])?)
    }
}

/// The name `label` in a zone; an empty label is the zone itself.
fn below(label: &str, origin: &str) -> String {
    if label.is_empty() { origin.to_owned() } else { format!("{label}.{origin}") }
}

/// A policy host with a valid certificate that serves `body`, for domains without a [`Case`].
pub fn site(pki: &Pki, host: &str, body: &str) -> Result<Site, LabError> {
    Ok(Site { answers: HttpBehavior::Policy(body.to_owned()), identity: pki.issue(host, Cert::Good)? })
}

fn domain(text: &str) -> Result<DomainName, LabError> {
    DomainName::parse(text).map_err(|_| LabError::Name(text.to_owned()))
}

pub(crate) fn tlsa(setup: TlsaSetup, identity: &Identity) -> TlsaRecord {
    let chain = &identity.certified.cert;
    let certificate = if setup.usage == 2 || setup.usage == 0 { chain.last() } else { chain.first() };
    let certificate = certificate.map(|cert| cert.to_vec()).unwrap_or_default();
    let mut part = if setup.selector == 1 {
        net::certificate::public_key(&certificate).unwrap_or_default()
    } else {
        certificate
    };
    if !setup.right {
        part.push(0);
    }
    let data = net::certificate::association(&part, setup.matching);
    let (usage, selector, matching) = setup.claims.unwrap_or((setup.usage, setup.selector, setup.matching));
    TlsaRecord { usage, selector, matching, data }
}
