//! The environment of the demo: a lab with the domain `harbour.test`, two sending organizations, and the receiving
//! operator's installation. The senders and the operator have a store each, and share the simulated clock.

use check::{Checker, Sessions};
use config::failure::Failure;
use formats::tlsrpt_record::{MailAddress, Rua};
use formats::{DomainName, Mode, MxPattern, Policy};
use jiff::Timestamp;
use lab::behavior::Behavior;
use lab::dns::{Rr, Signing};
use lab::pki::Cert;
use lab::reference_sender::{Delivery, Outcome, PolicyInForce, PolicySource, ReferenceSender};
use lab::{Clients, Lab, Ports};
use net::BoxFuture;
use net::clock::{Clock, ManualClock};
use net::https::Verify;
use net::smtp::Mail;
use receiver::host::{PolicyHost, SiteCache};
use receiver::inbox::Inbox;
use receiver::publish::{Change, DnsPublisher, Previous, PublishError, Records};
use receiver::rollout::desired::DesiredState;
use receiver::rollout::{Applier, Hosting, NewHosts};
use sender::answer::Discovery;
use sender::answer::sts::EffectivePolicy;
use sender::report::{
    Addresses, Counts, DeliveryLimits, DirectDelivery, DkimKey, ReportDelivery, ReportScheduler, Reporter,
    Rules, Transport,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use store::hosting::StoredCertificate;
use store::reports::Arrival;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The text in each message that the attacker tries to read.
pub const SECRET: &str = "the tide table is under the third stone";

/// The environment that the acts use.
pub struct Stage {
    pub lab: Arc<Lab>,
    pub clock: Arc<ManualClock>,
    pub domain: DomainName,
    pub mx: Vec<DomainName>,
    pub senders: Vec<Sender>,
    pub checker: Checker,
    pub applier: Applier,
    pub store: Store,
    /// The address of the operator's policy host.
    pub policy_host: Ipv4Addr,
    folder: PathBuf,
}

/// A sending organization: its mail server, report scheduler and store.
pub struct Sender {
    pub name: &'static str,
    pub mail: Arc<ReferenceSender>,
    /// The policies that the sender holds.
    pub discovery: Arc<Discovery>,
    pub scheduler: Arc<ReportScheduler>,
    pub store: Store,
}

/// Maps an error to a failure of the demo; `what` names the part that failed.
pub fn failed_at(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> Failure {
    move |error| {
        Failure::new(
            format!("the demo failed at {what}"),
            error,
            "The demo needs loopback addresses (127.0.0.0/8) and a writable folder.",
        )
    }
}

pub fn name(text: &str) -> Result<DomainName, Failure> {
    DomainName::parse(text).map_err(|error| failed_at("a name")(&error))
}

impl Stage {
    pub async fn set_up(folder: PathBuf) -> Result<Self, Failure> {
        let fail = failed_at("its set-up");
        let clock = Arc::new(ManualClock::new(this_morning()));
        let injected: Arc<dyn Clock> = clock.clone();
        let lab = Arc::new(Lab::start(Ports::free(), clock.now()).await.map_err(|e| fail(&e))?);
        let domain = name("harbour.test")?;
        let mx = mail_hosts(&lab, &domain).await.map_err(|e| fail(&e))?;
        let store =
            Store::open(&folder.join("receiver.db"), store::Tenant::FIRST).await.map_err(|e| fail(&e))?;
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

    /// Creates a sending organization with its own store, and publishes its DKIM key. Opening an existing store
    /// simulates a restart.
    pub async fn sender(&self, organization: &'static str, file: &str) -> Result<Sender, Failure> {
        let fail = failed_at("a sender");
        let submitter = name(organization)?;
        let clients = self.lab.clients(organization, self.clock.clone()).map_err(|e| fail(&e))?;
        let store = Store::open(&self.folder.join(format!("{file}.db")), store::Tenant::FIRST)
            .await
            .map_err(|e| fail(&e))?;
        let posts = clients.policies.clone();
        let discovery =
            Discovery::new(clients.dns.clone(), clients.policies, store.clone(), self.clock.clone());
        let discovery = Arc::new(discovery);
        let mail = Arc::new(ReferenceSender {
            dns: clients.dns.clone(),
            mail: clients.mail.clone(),
            policies: Arc::new(Held(discovery.clone())),
        });
        let key = DkimKey::generate(submitter.clone(), "tlsrpt").map_err(|e| fail(&e))?;
        self.lab.names.add_zone(&format!("{organization}."), Signing::Unsigned).map_err(|e| fail(&e))?;
        if let Some((record, value)) = key.record() {
            self.lab.publish_txt(&name(&record)?, &value).map_err(|e| fail(&e))?;
        }
        let contact = MailAddress::parse(&format!("tlsrpt@{organization}")).map_err(|e| fail(&e))?;
        let delivery = ReportDelivery {
            dns: clients.dns.clone(),
            transport: Transport::Direct(DirectDelivery { dns: clients.dns.clone(), mail: clients.mail }),
            posts,
            verify: Verify::Certificate,
            reporter: Reporter {
                organization: format!("Mail of {organization}"),
                from: contact.clone(),
                contact,
                addresses: Addresses::Full,
            },
            keys: vec![key],
            denied: Vec::new(),
            target_rules: Vec::new(),
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
        Ok(Sender { name: organization, mail, discovery, scheduler: Arc::new(scheduler), store })
    }

    /// The desired state of the domain.
    pub fn desired(&self) -> Result<DesiredState, Failure> {
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

    /// Starts or stops the attacker that strips STARTTLS at both MX hosts.
    pub fn strip(&self, on: bool) {
        self.mx.iter().for_each(|host| self.lab.mail_traffic.strip(host, on));
    }

    /// Delivers one message from a sender to the domain.
    pub async fn deliver(&self, sender: &Sender) -> Result<Delivery, Failure> {
        deliver(&sender.mail, sender.name, &self.domain).await
    }

    /// Closes the stores of the stage and of the senders.
    pub async fn close(&self) {
        self.store.close().await;
        for sender in &self.senders {
            sender.store.close().await;
        }
    }
}

/// The policies of Sternpost's own cache, for the sender of the demo.
struct Held(Arc<Discovery>);

impl PolicySource for Held {
    fn policy<'a>(&'a self, domain: &'a DomainName) -> BoxFuture<'a, PolicyInForce> {
        Box::pin(async move {
            match self.0.find(domain).await.found {
                EffectivePolicy::Policy { held, .. } => {
                    PolicyInForce::Policy { policy: held.policy, body: held.body }
                }
                EffectivePolicy::Unavailable(why) => {
                    PolicyInForce::Unavailable { result: why.result_type(), why: why.to_string() }
                }
                EffectivePolicy::None => PolicyInForce::None,
            }
        })
    }
}

pub async fn deliver(sender: &ReferenceSender, from: &str, domain: &DomainName) -> Result<Delivery, Failure> {
    let message = format!("From: keeper@{from}\r\nTo: master@{domain}\r\nSubject: tides\r\n\r\n{SECRET}\r\n");
    let mail = Mail {
        from: format!("keeper@{from}"),
        to: vec![format!("master@{domain}")],
        message: message.into_bytes(),
    };
    Ok(sender.deliver(domain, &mail).await)
}

/// Describes the outcome of a delivery in a line.
pub fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Delivered { host, protection } => {
            format!("delivered to {host}, {}", format!("{protection:?}").to_lowercase())
        }
        Outcome::Deferred(why) => format!("deferred: {why}"),
        Outcome::Refused(why) => format!("refused: {why}"),
    }
}

/// 09:00 UTC today, the initial time of the simulated clock.
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

/// Starts the operator's report inbox, as the MX host of `watch.test`.
async fn open_inbox(lab: &Lab, ours: &Clients, store: &Store, clock: Arc<dyn Clock>) -> Result<(), Failure> {
    let fail = failed_at("the report inbox");
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
    let inbox = Inbox::new(store.clone(), ours.dns.clone(), clock, Arrival::Smtp);
    lab.mail_traffic.hand_over(&host, Arc::new(Inbox { addresses, ..inbox }));
    Ok(())
}

async fn applier(
    lab: &Arc<Lab>,
    address: Ipv4Addr,
    ours: &Clients,
    store: &Store,
    clock: Arc<dyn Clock>,
) -> Result<Applier, Failure> {
    let fail = failed_at("the policy host");
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
        omitted: Vec::new(),
        store: store.clone(),
        clock,
    })
}

/// Publishes the operator's records in the lab's zone.
struct LabZone(Arc<Lab>);

impl DnsPublisher for LabZone {
    /// The demo begins with an empty zone and undoes nothing.
    fn read<'a>(&'a self, _: &'a Change) -> BoxFuture<'a, Result<Previous, PublishError>> {
        Box::pin(std::future::ready(Ok(Previous::default())))
    }

    fn put<'a>(&'a self, change: &'a Change, _: &'a Previous) -> BoxFuture<'a, Result<(), PublishError>> {
        let fail = |error: &dyn std::fmt::Display| PublishError::new(&change.name, error.to_string());
        let outcome = match &change.records {
            Records::Txt(value) => self.0.publish_txt(&change.name, value).map_err(|error| fail(&error)),
            Records::NoTxt | Records::TxtValue { .. } | Records::Place(_) => {
                Err(fail(&"the demo has no such step"))
            }
        };
        Box::pin(std::future::ready(outcome))
    }
}

/// The operator's policy host, with a certificate from the lab's CA.
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
