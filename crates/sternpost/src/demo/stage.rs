//! The demo's world: a lab with the domain `harbour.test`, two sending organizations, and the
//! operator's own Sternpost, each with its own store.

use check::{Checker, Sessions};
use config::failure::Failure;
use formats::tlsrpt_record::{MailAddress, Rua};
use formats::{DomainName, Mode, MxPattern, Policy};
use jiff::Timestamp;
use lab::behavior::Behavior;
use lab::dns::{Rr, Signing};
use lab::pki::Cert;
use lab::{Clients, Lab, Ports};
use net::BoxFuture;
use net::clock::{Clock, ManualClock};
use net::https::Verify;
use net::smtp::Mail;
use receiver::host::{PolicyHost, SiteCache};
use receiver::inbox::Inbox;
use receiver::publish::{Change, DnsPublisher, PublishError, Records};
use receiver::rollout::desired::DesiredState;
use receiver::rollout::{Applier, Hosting, NewHosts};
use sender::answer::Discovery;
use sender::report::{
    Addresses, Counts, DeliveryLimits, DirectDelivery, DkimKey, ReportDelivery, ReportScheduler, Reporter,
    Rules, Transport,
};
use sender::walk::{Outcome, Walk, Walker};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use store::hosting::StoredCertificate;
use store::reports::Arrival;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What the message says that the attacker is after.
pub const SECRET: &str = "the tide table is under the third stone";

/// The demo's world.
pub struct Stage {
    pub lab: Arc<Lab>,
    pub clock: Arc<ManualClock>,
    pub domain: DomainName,
    pub mx: Vec<DomainName>,
    pub senders: Vec<Sender>,
    pub checker: Checker,
    pub applier: Applier,
    pub store: Store,
    /// Where the operator's policy host listens.
    pub policy_host: Ipv4Addr,
    folder: PathBuf,
}

/// A sending organization.
pub struct Sender {
    pub name: &'static str,
    pub walker: Arc<Walker>,
    pub scheduler: Arc<ReportScheduler>,
    pub store: Store,
}

/// Puts any error of the set-up into words.
pub fn trouble(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> Failure {
    move |error| {
        Failure::new(
            format!("the demo stopped at {what}"),
            error,
            "It needs nothing but loopback addresses (127.0.0.0/8) and a folder to write to.",
        )
    }
}

pub fn name(text: &str) -> Result<DomainName, Failure> {
    DomainName::parse(text).map_err(|error| trouble("a name")(&error))
}

impl Stage {
    pub async fn set_up(folder: PathBuf) -> Result<Self, Failure> {
        let fail = trouble("setting up");
        let clock = Arc::new(ManualClock::new(this_morning()));
        let injected: Arc<dyn Clock> = clock.clone();
        let lab = Arc::new(Lab::start(Ports::free(), clock.now()).await.map_err(|e| fail(&e))?);
        let domain = name("harbour.test")?;
        let mx = mail_hosts(&lab, &domain).await.map_err(|e| fail(&e))?;
        let store = Store::open(&folder.join("receiver.db")).await.map_err(|e| fail(&e))?;
        let ours = lab.clients("watch.test", injected.clone()).map_err(|e| fail(&e))?;
        open_inbox(&lab, &ours, &store, injected.clone()).await?;
        let policy_host = lab.fresh_address();
        let applier = applier(&lab, policy_host, &ours, &store, injected.clone()).await?;
        let checker = Checker {
            dns: ours.dns.clone(),
            unvalidated: ours.dns,
            servers: None,
            visits: ours.policies,
            mail: Sessions::new(ours.probes, false),
            clock: injected,
            options: check::Options { allow_special: true, ..check::Options::default() },
        };
        let mut stage = Self {
            lab,
            clock,
            domain,
            mx,
            senders: Vec::new(),
            checker,
            applier,
            store,
            policy_host,
            folder,
        };
        for name in ["north.test", "south.test"] {
            let sender = stage.sender(name, name).await?;
            stage.senders.push(sender);
        }
        Ok(stage)
    }

    /// A sending organization with a store of its own, and its DKIM key in DNS.
    pub async fn sender(&self, organization: &'static str, file: &str) -> Result<Sender, Failure> {
        let fail = trouble("a sender");
        let submitter = name(organization)?;
        let clients = self.lab.clients(organization, self.clock.clone()).map_err(|e| fail(&e))?;
        let store = Store::open(&self.folder.join(format!("{file}.db"))).await.map_err(|e| fail(&e))?;
        let posts = clients.policies.clone();
        let discovery =
            Discovery::new(clients.dns.clone(), clients.policies, store.clone(), self.clock.clone());
        let walker =
            Arc::new(Walker { dns: clients.dns.clone(), mail: clients.mail, discovery: Arc::new(discovery) });
        let key = DkimKey::generate(submitter.clone(), "tlsrpt").map_err(|e| fail(&e))?;
        self.lab.names.add_zone(&format!("{organization}."), Signing::Unsigned).map_err(|e| fail(&e))?;
        if let Some((record, value)) = key.record() {
            self.lab.publish_txt(&name(&record)?, &value).map_err(|e| fail(&e))?;
        }
        let contact = MailAddress::parse(&format!("tlsrpt@{organization}")).map_err(|e| fail(&e))?;
        let delivery = ReportDelivery {
            dns: clients.dns,
            transport: Transport::Direct(DirectDelivery {
                dns: walker.dns.clone(),
                mail: walker.mail.clone(),
            }),
            posts,
            verify: Verify::Certificate,
            reporter: Reporter {
                organization: format!("Mail of {organization}"),
                contact,
                addresses: Addresses::Full,
            },
            keys: vec![key],
            denied: Vec::new(),
            busy: DeliveryLimits::default(),
        };
        let rules = Rules { spread: Duration::ZERO, ..Rules::default() };
        let scheduler = ReportScheduler {
            store: store.clone(),
            clock: self.clock.clone(),
            delivery,
            rules,
            counts: Counts::default(),
            stop: CancellationToken::new(),
        };
        Ok(Sender { name: organization, walker, scheduler: Arc::new(scheduler), store })
    }

    /// Where the domain is to end up.
    pub fn wanted(&self) -> Result<DesiredState, Failure> {
        let rua = Rua::parse("mailto:tlsrpt@watch.test").ok().flatten();
        Ok(DesiredState {
            domain: self.domain.clone(),
            mx: self.mx.iter().cloned().map(MxPattern::Exact).collect(),
            mode: Mode::Enforce,
            max_age_testing: 86_400,
            max_age_enforce: 604_800,
            max_age_before: formats::limits::MAX_AGE_SECONDS,
            policy_host: None,
            delegated_to: None,
            rua: rua.into_iter().collect(),
        })
    }

    /// Switches the attacker on both MX hosts on or off.
    pub fn strip(&self, on: bool) {
        self.mx.iter().for_each(|host| self.lab.post.strip(host, on));
    }

    /// One message from a sender to the domain.
    pub async fn deliver(&self, sender: &Sender) -> Result<Walk, Failure> {
        deliver(&sender.walker, sender.name, &self.domain).await
    }

    /// Writes everything out.
    pub async fn close(&self) {
        self.store.close().await;
        for sender in &self.senders {
            sender.store.close().await;
        }
    }
}

pub async fn deliver(walker: &Walker, from: &str, domain: &DomainName) -> Result<Walk, Failure> {
    let message = format!("From: keeper@{from}\r\nTo: master@{domain}\r\nSubject: tides\r\n\r\n{SECRET}\r\n");
    let mail = Mail {
        from: format!("keeper@{from}"),
        to: vec![format!("master@{domain}")],
        message: message.into_bytes(),
    };
    Ok(walker.deliver(domain, &mail).await)
}

/// How a delivery ended, in a line.
pub fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Delivered { host, protection } => {
            format!("delivered to {host}, {}", format!("{protection:?}").to_lowercase())
        }
        Outcome::Deferred(why) => format!("deferred: {why}"),
        Outcome::Refused(why) => format!("refused: {why}"),
    }
}

/// 09:00 UTC of the day on which the demo is played, so that days have a morning and an end.
fn this_morning() -> Timestamp {
    let now = Timestamp::now().as_second();
    Timestamp::from_second(now.div_euclid(86_400) * 86_400 + 9 * 3600).unwrap_or(Timestamp::UNIX_EPOCH)
}

async fn mail_hosts(lab: &Lab, domain: &DomainName) -> Result<Vec<DomainName>, lab::LabError> {
    let origin = format!("{domain}.");
    lab.names.add_zone(&origin, Signing::Unsigned)?;
    let (mut hosts, mut records, mut exchangers) = (Vec::new(), Vec::new(), Vec::new());
    for (label, preference) in [("mx1", 10), ("mx2", 20)] {
        let host = domain.below(label).map_err(|_| lab::LabError::Name(label.into()))?;
        let identity = lab.pki.issue(host.as_str(), Cert::Good)?;
        let address = lab.start_mail_host(&host, Behavior::Good, &identity).await?;
        records.push((format!("{host}."), vec![Rr::A(address)]));
        exchangers.push(Rr::Mx(preference, format!("{host}.")));
        hosts.push(host);
    }
    records.push((origin.clone(), exchangers));
    lab.names.set_all(&origin, records)?;
    Ok(hosts)
}

/// The operator's report inbox is the MX of `watch.test`.
async fn open_inbox(lab: &Lab, ours: &Clients, store: &Store, clock: Arc<dyn Clock>) -> Result<(), Failure> {
    let fail = trouble("the report inbox");
    let host = name("mx.watch.test")?;
    lab.names.add_zone("watch.test.", Signing::Unsigned).map_err(|e| fail(&e))?;
    let identity = lab.pki.issue(host.as_str(), Cert::Good).map_err(|e| fail(&e))?;
    let address = lab.start_mail_host(&host, Behavior::Good, &identity).await.map_err(|e| fail(&e))?;
    let records = vec![
        ("watch.test.".to_owned(), vec![Rr::Mx(10, format!("{host}."))]),
        (format!("{host}."), vec![Rr::A(address)]),
    ];
    lab.names.set_all("watch.test.", records).map_err(|e| fail(&e))?;
    let addresses = vec!["tlsrpt@watch.test".to_owned()];
    lab.post.hand_over(
        &host,
        Arc::new(Inbox {
            store: store.clone(),
            dns: ours.dns.clone(),
            clock,
            addresses,
            arrival: Arrival::Smtp,
        }),
    );
    Ok(())
}

async fn applier(
    lab: &Arc<Lab>,
    address: Ipv4Addr,
    ours: &Clients,
    store: &Store,
    clock: Arc<dyn Clock>,
) -> Result<Applier, Failure> {
    let fail = trouble("the policy host");
    let place = SocketAddr::new(IpAddr::V4(address), lab.https_port);
    let listener = TcpListener::bind(place).await.map_err(|e| fail(&e))?;
    let site_cache = Arc::new(SiteCache::new(store.clone(), clock.clone()).await.map_err(|e| fail(&e))?);
    tokio::spawn(PolicyHost::new(site_cache.clone()).map_err(|e| fail(&e))?.serve(listener));
    Ok(Applier {
        dns: ours.dns.clone(),
        policies: ours.policies.clone(),
        publisher: Some(Arc::new(LabZone(lab.clone()))),
        hosting: Some(Arc::new(OwnHost { lab: lab.clone(), store: store.clone(), site_cache, address })),
        new_hosts: NewHosts::AddToPolicy,
        store: store.clone(),
        clock,
    })
}

/// The operator's hand in the zone.
struct LabZone(Arc<Lab>);

impl DnsPublisher for LabZone {
    fn put<'a>(&'a self, change: &'a Change) -> BoxFuture<'a, Result<Vec<String>, PublishError>> {
        let fail = |error: &dyn std::fmt::Display| PublishError {
            name: change.name.clone(),
            why: error.to_string(),
        };
        let outcome = match &change.records {
            Records::Txt(value) => self.0.publish_txt(&change.name, value).map_err(|error| fail(&error)),
            Records::NoTxt | Records::Place(_) => Err(fail(&"the demo has no such step")),
        };
        Box::pin(async move { outcome.map(|()| Vec::new()) })
    }
}

/// The operator's own policy host, with a certificate of the lab's authority.
struct OwnHost {
    lab: Arc<Lab>,
    store: Store,
    site_cache: Arc<SiteCache>,
    address: Ipv4Addr,
}

impl Hosting for OwnHost {
    fn put<'a>(
        &'a self,
        domain: &'a DomainName,
        policy: Option<&'a Policy>,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let fail = |error: &dyn std::fmt::Display| error.to_string();
            let host = format!("mta-sts.{domain}");
            let text = policy.map(ToString::to_string);
            self.store.put_hosted(domain, text.as_deref()).await.map_err(|error| fail(&error))?;
            let identity = self.lab.pki.issue(&host, Cert::Good).map_err(|error| fail(&error))?;
            let name = DomainName::parse(&host).map_err(|error| fail(&error))?;
            let certificate = StoredCertificate::given(name, identity.chain_pem(), identity.key_pem());
            self.store.put_certificate(&certificate).await.map_err(|error| fail(&error))?;
            self.site_cache.refresh().await.map_err(|error| fail(&error))?;
            self.lab
                .names
                .set(&format!("{host}."), vec![Rr::A(self.address)])
                .map_err(|error| error.to_string())
        })
    }
}
