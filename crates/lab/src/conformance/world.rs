//! The lab with the domains of the yardstick, observed: a DNS front that mail servers query, the policy hosts and the
//! mail servers. [`World::apply`] makes the changes between two phases.

use super::case::{Case, Change};
use crate::behavior::Behavior;
use crate::case::NoMx;
use crate::dns::Rr;
use crate::man_in_the_middle::{DnsAttack, DnsChange, DnsProxy, RecordType, ResponseCode, Target, When};
use crate::pki::Cert;
use crate::policy_host::{HttpBehavior, Site};
use crate::traffic::{Event, Observed, Traffic};
use crate::{Clients, Lab, LabError, Ports};
use formats::DomainName;
use net::clock::Clock;
use net::dns::{Dns, Resolver, ResolverConfig};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Where the servers of a world listen.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The first two numbers of the lab's addresses, which have to be local.
    pub network: [u8; 2],
    /// The ports of the lab.
    pub ports: Ports,
    /// Where mail servers query DNS; `None` for a free port on 127.0.0.1.
    pub front: Option<SocketAddr>,
    /// The validating resolver behind the front; `None` if the front leads to the lab's name server itself.
    pub resolver: Option<SocketAddr>,
}

impl Place {
    /// Free ports on loopback, without a resolver: for senders that validate by themselves.
    pub fn free() -> Self {
        let ports = Ports::free();
        Self { network: [127, ports.block], ports, front: None, resolver: None }
    }
}

/// The domain of the envelope senders. Bounces arrive at its mail server.
pub const SENDER: &str = "sender.test";

/// How long the lab's own senders wait for an answer of DNS.
const QUERY_TIME: Duration = Duration::from_secs(1);
/// How long the lab's own senders wait for a policy file and for a reply of SMTP.
const SESSION_TIME: Duration = Duration::from_secs(4);

/// A running lab with observers.
pub struct World {
    /// The lab.
    pub lab: Lab,
    /// What was observed.
    pub traffic: Traffic,
    front: DnsProxy,
    attacks: Mutex<BTreeMap<String, Vec<DnsAttack>>>,
}

impl World {
    /// Starts a lab with the domains of these cases.
    pub async fn start(place: Place, clock: Arc<dyn Clock>, cases: &[Case]) -> Result<Self, LabError> {
        let lab = Lab::start_in(place.network, place.ports, clock.now()).await?;
        let traffic = Traffic::new(clock);
        lab.observe(&traffic);
        let upstream = place.resolver.unwrap_or(lab.names.address);
        let front = match place.front {
            Some(address) => DnsProxy::start_at(address, upstream, traffic.clone()).await?,
            None => DnsProxy::start(Ipv4Addr::LOCALHOST, upstream, traffic.clone()).await?,
        };
        let this = Self { lab, traffic, front, attacks: Mutex::default() };
        this.sender_domain().await?;
        this.lab.add_all(cases.iter().map(|case| &case.world)).await?;
        cases.iter().try_for_each(|case| this.add_sites(case))?;
        Ok(this)
    }

    /// The address where mail servers query DNS.
    pub fn dns(&self) -> SocketAddr {
        self.front.address
    }

    /// The name server of the lab, for a resolver.
    pub fn name_server(&self) -> SocketAddr {
        self.lab.names.address
    }

    async fn sender_domain(&self) -> Result<(), LabError> {
        let mut case =
            crate::cases::good("sender", crate::case::Topic::Preflight, "the domain of the envelope senders");
        case = case.no_policy();
        case.setup.no_mx = NoMx::Implicit;
        self.lab.add(&case).await
    }

    fn add_sites(&self, case: &Case) -> Result<(), LabError> {
        for (label, body) in &case.sites {
            let host = format!("{label}.{}", case.domain());
            let site = crate::site(&self.lab.pki, &host, body)?;
            self.lab.sites.put(&host, site);
        }
        Ok(())
    }

    /// The clients of the crate `net`, with DNS through the front.
    pub fn clients(&self, helo: &str, clock: Arc<dyn Clock>) -> Result<Clients, LabError> {
        let config = ResolverConfig {
            servers: vec![self.front.address],
            attempt_time: QUERY_TIME,
            ..self.lab.resolver_config()?
        };
        let dns: Arc<dyn Dns> = Arc::new(Resolver::new(&config)?);
        self.lab.clients_with(dns, helo, clock, (SESSION_TIME, SESSION_TIME))
    }

    /// Makes one change to the domain of a case. What concerns the mail server under test is not done here.
    pub async fn apply(&self, case: &Case, change: &Change) -> Result<(), LabError> {
        let domain = case.domain();
        let record = format!("_mta-sts.{domain}.");
        match change {
            Change::Record(text) => {
                self.lab.names.set(&record, vec![Rr::Txt(vec![text.clone()])])?;
            }
            Change::NoRecord => self.lab.names.remove(&record)?,
            Change::RecordFails => self.on_record(&record, DnsChange::Code(ResponseCode::ServFail)),
            Change::RecordTimesOut => self.on_record(&record, DnsChange::Drop),
            Change::Records(label, records) => {
                let name = if label.is_empty() { format!("{domain}.") } else { format!("{label}.{domain}.") };
                self.lab.names.set(&name, records.clone())?;
            }
            Change::Policy(answers, cert) => self.serve(&domain, answers.clone(), *cert)?,
            Change::HostGone => self.lab.sites.block(&format!("mta-sts.{domain}"), true),
            Change::HostNameGone => self.lab.names.remove(&format!("mta-sts.{domain}."))?,
            Change::Strip(label) => self.lab.mail_traffic.strip(&name(&format!("{label}.{domain}"))?, true),
            Change::ForgedMx => self.forge_mx(&domain).await?,
            Change::Pass(_) | Change::Restart => {}
        }
        Ok(())
    }

    fn serve(&self, domain: &str, answers: HttpBehavior, cert: Cert) -> Result<(), LabError> {
        let host = format!("mta-sts.{domain}");
        let identity = self.lab.pki.issue(&host, cert)?;
        self.lab.sites.put(&host, Site { answers, identity });
        Ok(())
    }

    async fn forge_mx(&self, domain: &str) -> Result<(), LabError> {
        let host = format!("forged.{domain}");
        let identity = self.lab.pki.issue(&host, Cert::SelfSigned)?;
        let address = self.lab.start_mail_host(&name(&host)?, Behavior::Good, &identity).await?;
        self.lab.names.set(&format!("{host}."), vec![Rr::A(address)])?;
        Ok(self.lab.names.set(&format!("{domain}."), vec![Rr::Mx(10, format!("{host}."))])?)
    }

    /// Queries for this name's TXT records fail from now on.
    fn on_record(&self, record: &str, how: DnsChange) {
        let attack = DnsAttack {
            on: Target::Name(record.to_owned()),
            kind: Some(RecordType::TXT),
            when: When::Always,
            how,
        };
        let mut attacks = self.attacks.lock().unwrap_or_else(PoisonError::into_inner);
        attacks.insert(record.to_owned(), vec![attack]);
        self.front.attack(attacks.values().flatten().cloned().collect());
    }

    /// The events of a case from number `from` on, and the number of the next event.
    pub fn events(&self, case: &Case, from: usize) -> (Vec<Event>, usize) {
        let domain = case.domain();
        let bounce = format!(".{}@{SENDER}", case.id);
        self.traffic.since(from, |event| belongs(&event.what, &domain, &bounce))
    }
}

fn belongs(what: &Observed, domain: &str, bounce: &str) -> bool {
    let name = match what {
        Observed::Dns(question) => question.name.trim_end_matches('.'),
        Observed::Https(connection) => connection.host.as_deref().unwrap_or_default(),
        Observed::Fetch(fetch) => &fetch.host,
        Observed::Mail(mail) => {
            if let crate::traffic::MailStep::Delivered { from, to, .. } = &mail.step
                && from.is_empty()
            {
                return to.iter().any(|address| address.ends_with(bounce));
            }
            &mail.host
        }
    };
    name == domain || name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

fn name(text: &str) -> Result<DomainName, LabError> {
    DomainName::parse(text).map_err(|_| LabError::Name(text.to_owned()))
}
