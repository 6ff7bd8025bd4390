//! The lab with the domains of the yardstick, observed: a DNS front that mail servers query, the policy hosts and the
//! mail servers. [`World::apply`] makes the changes between two phases.

use super::case::{Case, Change, Ipv6};
use super::inbox::{Inbox, ReportKey};
use super::tls_report::Arrived;
use crate::behavior::Behavior;
use crate::case::{NoMx, Topic};
use crate::cases::good;
use crate::dns::Rr;
use crate::man_in_the_middle::{DnsAttack, DnsChange, DnsProxy, RecordType, ResponseCode, Target, When};
use crate::pki::Cert;
use crate::policy_host::{HttpBehavior, Site};
use crate::traffic::{Event, Observed, Traffic};
use crate::{Clients, Lab, LabError, Ports};
use formats::DomainName;
use net::clock::Clock;
use net::dns::{Dns, Dnssec, Resolver, ResolverConfig};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;

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
    /// The first four parts of the lab's IPv6 addresses, which have to be local; `None` for ::1 alone.
    pub ipv6: Option<[u16; 4]>,
}

impl Place {
    /// Free ports on loopback, without a resolver: for senders that validate by themselves.
    pub fn free() -> Self {
        let ports = Ports::free();
        Self { network: [127, ports.block], ports, front: None, resolver: None, ipv6: None }
    }
}

/// The domain of the envelope senders. Bounces arrive at its mail server.
pub const SENDER: &str = "sender.test";

/// The host that takes reports by HTTPS.
const REPORT_HOST: &str = "reports.test";

/// How long the lab's own senders wait for an answer of DNS.
const QUERY_TIME: Duration = Duration::from_secs(2);
/// How long the lab's own senders wait for a policy file and for a reply of SMTP.
const SESSION_TIME: Duration = Duration::from_secs(6);

/// How often a lab is started until its ports, which the kernel picks, are free on IPv6 too.
const PORT_TRIES: usize = 5;

/// A running lab with observers.
pub struct World {
    /// The lab.
    pub lab: Lab,
    /// What was observed.
    pub traffic: Traffic,
    front: DnsProxy,
    attacks: Mutex<BTreeMap<String, Vec<DnsAttack>>>,
    /// Why this machine can't run the cases with IPv6.
    without_ipv6: Option<String>,
    /// Where TLS reports arrive, if cases are about them.
    inbox: Option<Inbox>,
}

impl World {
    /// Starts a lab with the domains of these cases.
    pub async fn start(place: Place, clock: Arc<dyn Clock>, cases: &[Case]) -> Result<Self, LabError> {
        let (lab, ipv6) = start(place, clock.as_ref()).await?;
        let (without_ipv6, ipv6) = match ipv6 {
            Ok(ipv6) => (None, Some(ipv6)),
            Err(error) => (Some(format!("this machine has no IPv6: {error}")), None),
        };
        let traffic = Traffic::new(clock);
        lab.observe(&traffic);
        let upstream = place.resolver.unwrap_or(lab.names.address);
        let front = match place.front {
            Some(address) => DnsProxy::start_at(address, upstream, traffic.clone()).await?,
            None => DnsProxy::start(Ipv4Addr::LOCALHOST, upstream, traffic.clone()).await?,
        };
        let inbox = match cases.iter().any(|case| !case.days.is_empty()) {
            true => Some(Inbox::new(ReportKey::generate()?)),
            false => None,
        };
        let this = Self { lab, traffic, front, attacks: Mutex::default(), without_ipv6, inbox };
        this.sender_domain().await?;
        if let Some(inbox) = &this.inbox {
            this.report_hosts(inbox.key()).await?;
        }
        this.lab.add_all(cases.iter().map(|case| &case.world)).await?;
        cases.iter().try_for_each(|case| this.add_sites(case))?;
        if let Some(ipv6) = ipv6 {
            this.add_ipv6(ipv6, cases)?;
        }
        Ok(this)
    }

    /// Why a case can't be run here.
    pub fn unable(&self, case: &Case) -> Option<&str> {
        self.without_ipv6.as_deref().filter(|_| !case.ipv6.is_empty())
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
        let mut case = good("sender", Topic::Preflight, "the domain of the envelope senders");
        case = case.no_policy();
        case.setup.no_mx = NoMx::Implicit;
        self.lab.add(&case).await
    }

    /// The domains that reports go to, and the record of the key that signs them.
    async fn report_hosts(&self, key: &ReportKey) -> Result<(), LabError> {
        let about = "a target of TLS reports";
        let host = |name| good(name, Topic::Preflight, about);
        let all = [
            host("reports"),
            host("more-reports"),
            host("refusing-reports").mx(|mx| mx.behavior = Some(Behavior::Refuses)),
            host("expired-reports").mx(|mx| mx.cert = Cert::Expired),
            host("clear-reports").mx(|mx| mx.behavior = Some(Behavior::NoStarttls)),
        ];
        self.lab.add_all(&all).await?;
        let identity = self.lab.pki.issue(REPORT_HOST, Cert::Good)?;
        self.lab.sites.put(REPORT_HOST, Site { answers: HttpBehavior::TakesReports, identity });
        self.lab.names.set(&format!("{REPORT_HOST}."), vec![Rr::A(self.lab.policy_host_address())])?;
        // A character string has at most 255 octets (RFC 1035 §3.3).
        let strings =
            key.record.as_bytes().chunks(255).map(|part| String::from_utf8_lossy(part).into_owned());
        Ok(self.lab.names.set(&ReportKey::name(), vec![Rr::Txt(strings.collect())])?)
    }

    /// The key with which reports are signed, if cases are about reports.
    pub fn report_key(&self) -> Option<&ReportKey> {
        self.inbox.as_ref().map(Inbox::key)
    }

    /// Reads the reports that have arrived, and returns how many there are.
    pub fn collect_reports(&self) -> usize {
        self.inbox.as_ref().map_or(0, |inbox| inbox.collect(&self.lab.mail_traffic, &self.lab.sites))
    }

    /// The reports that were sent to the addresses of a case, in order.
    pub fn reports_of(&self, case: &Case) -> Vec<Arrived> {
        self.inbox.as_ref().map(|inbox| inbox.of(case.id)).unwrap_or_default()
    }

    fn add_ipv6(&self, ipv6: Ipv6Listeners, cases: &[Case]) -> Result<(), LabError> {
        self.lab.sites.listen(ipv6.https);
        let mut smtp = Some(ipv6.smtp);
        let concerned =
            cases.iter().flat_map(|case| case.ipv6.iter().map(move |(label, what)| (case, *label, *what)));
        for (case, label, what) in concerned {
            let host = format!("{label}.{}", case.domain());
            let (address, listener) = match (what, label) {
                (Ipv6::Dead, _) => (ipv6.dead, None),
                (Ipv6::Only, "mta-sts") => (ipv6.policy_host, None),
                (Ipv6::Only, _) => (ipv6.mail_host, smtp.take()),
            };
            if what == Ipv6::Only {
                self.lab.names.remove(&format!("{host}."))?;
            }
            self.lab.names.set(&format!("{host}."), vec![Rr::Aaaa(address)])?;
            if let Some(listener) = listener {
                let identity = self.lab.pki.issue(&host, Cert::Good)?;
                self.lab.start_mail_host_on(listener, &name(&host)?, Behavior::Good, &identity)?;
            }
        }
        Ok(())
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
        let dns = self.dns_client(Dnssec::Validate)?;
        self.lab.clients_with(dns, helo, clock, (SESSION_TIME, SESSION_TIME))
    }

    /// A client of DNS that queries through the front.
    pub fn dns_client(&self, dnssec: Dnssec) -> Result<Arc<dyn Dns>, LabError> {
        let config = ResolverConfig {
            servers: vec![self.front.address],
            dnssec,
            attempt_time: QUERY_TIME,
            ..self.lab.resolver_config()?
        };
        Ok(Arc::new(Resolver::new(&config)?))
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

/// The IPv6 addresses of a lab, with the sockets that listen there.
struct Ipv6Listeners {
    policy_host: Ipv6Addr,
    mail_host: Ipv6Addr,
    /// An address where nothing listens.
    dead: Ipv6Addr,
    https: TcpListener,
    smtp: TcpListener,
}

impl Ipv6Listeners {
    async fn open(place: Place, lab: &Lab) -> io::Result<Self> {
        let (policy_host, mail_host, dead) = match place.ipv6 {
            Some([a, b, c, d]) => {
                let address = |last| Ipv6Addr::new(a, b, c, d, 0, 0, 0, last);
                (address(2), address(3), address(9))
            }
            // Nothing listens at the ninth address of the lab's network; loopback has no other IPv6 address than ::1.
            None => {
                let [high, low] = place.network;
                (Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, Ipv4Addr::new(high, low, 0, 9).to_ipv6_mapped())
            }
        };
        let https = TcpListener::bind((policy_host, lab.https_port)).await?;
        let smtp = TcpListener::bind((mail_host, lab.smtp_port)).await?;
        Ok(Self { policy_host, mail_host, dead, https, smtp })
    }
}

/// Starts a lab whose ports are free on IPv6 too. The inner error is the reason why there is no IPv6.
async fn start(place: Place, clock: &dyn Clock) -> Result<(Lab, io::Result<Ipv6Listeners>), LabError> {
    let mut started = Err(LabError::Io(io::ErrorKind::AddrInUse.into()));
    for _ in 0..PORT_TRIES {
        let lab = Lab::start_in(place.network, place.ports, clock.now()).await?;
        let ipv6 = Ipv6Listeners::open(place, &lab).await;
        let is_taken = matches!(&ipv6, Err(error) if error.kind() == io::ErrorKind::AddrInUse);
        started = Ok((lab, ipv6));
        if !is_taken {
            break;
        }
    }
    started
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
