//! Senders of our own with one known behavior each: the yardstick has to catch each of them in exactly the cases that it
//! fails. [`Control::Correct`] passes all. They deliver with the [`ReferenceSender`] and keep policies in memory.

mod reporter;

use self::reporter::{DeliversReports, Reporter};
use super::run::{Message, Progress, Sender, SendsReports};
use super::world::World;
use crate::reference_sender::{Delivery, PolicyInForce, PolicySource, ReferenceSender};
use crate::{Clients, LabError};
use formats::policy::Policy;
use formats::{DomainName, Mode, MxPattern, ResultType, StsRecord};
use net::BoxFuture;
use net::clock::Clock;
use net::dns::{Answer, Dns, DnsError, Dnssec, Kind, Security};
use net::https::{Call, FetchError, PolicyHosts, Visits, policy_host};
use net::smtp::{Mail, MailHosts, SessionFailure, SessionReport, Target, TlsDemand};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;

/// How long a control waits for the handshake with a policy host.
const HANDSHAKE_TIME: Duration = Duration::from_secs(2);

/// The behavior of a control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Does what RFC 8461 and RFC 7672 demand.
    Correct,
    /// Knows neither MTA-STS nor DANE.
    Plain,
    /// Knows DANE, but not MTA-STS.
    NoSts,
    /// Knows MTA-STS, but not DANE.
    NoDane,
    /// Follows redirects of the policy host.
    FollowsRedirects,
    /// Takes the policy from a host with any certificate.
    AnyPolicyCertificate,
    /// Takes the policy with any status and media type.
    AnyResponse,
    /// Keeps the first policy of a domain forever.
    NeverRefetches,
    /// Keeps a policy until its `max_age` is over, whatever the record says.
    IgnoresId,
    /// Fetches the policy for each message.
    AlwaysFetches,
    /// Forgets a policy when its record is gone or invalid.
    ForgetsWithRecord,
    /// Forgets a policy when a newer one can't be fetched.
    ForgetsWithHost,
    /// Loses its policies in a restart.
    ForgetsInRestart,
    /// Takes any certificate of an MX host.
    AnyMxCertificate,
    /// Delivers in cleartext where the MX host offers no TLS.
    FallsBackToClear,
    /// Lets a wildcard cover several labels.
    DeepWildcards,
    /// Does not compare MX names with the policy.
    IgnoresNames,
    /// Enforces policies in mode `testing`.
    EnforcesTesting,
    /// Uses DANE only for domains without a policy.
    PolicyBeforeDane,
    /// Uses the parent's policy for a subdomain without one.
    PolicyOfParent,
    /// Takes the first of several records.
    FirstRecord,
    /// Takes any TXT record at the name for a record.
    AnyRecord,
    /// Takes any file with an `mx` field for a policy in mode `enforce`.
    AnyPolicy,
    /// Takes the policy from responses that state the length of the body only.
    NeedsLength,
    /// Offers HTTP/2 to policy hosts, and speaks HTTP/1.1 on connections that became HTTP/2.
    MisspeaksHttp2,
    /// Uses IPv4 only.
    OnlyIpv4,
    /// Uses TLSA records that DNSSEC does not secure.
    UnsignedDane,
    /// Takes answers that fail DNSSEC validation for unsigned ones.
    IgnoresBogus,
    /// Looks up TLSA records at the name of the MX record only, also where that is an alias.
    OnlyAliasNames,
    /// Looks up TLSA records at the target only where the MX host is an alias.
    OnlyAliasTargets,
    /// Delivers nothing at all.
    Idle,
    /// Reports one successful session too many.
    ReportsWrongCounts,
    /// Leaves the policy out of its reports.
    ReportsNoPolicyStrings,
    /// Reports the sessions that deliver reports.
    ReportsReports,
    /// Does not sign report mails.
    ReportsUnsigned,
    /// Sends reports to the first target of a record only.
    ReportsToFirstTarget,
    /// Reports each failure as `validation-failure`.
    ReportsOneResultType,
}

impl Control {
    /// All controls.
    pub const ALL: [Self; 37] = [
        Self::Correct,
        Self::Plain,
        Self::NoSts,
        Self::NoDane,
        Self::FollowsRedirects,
        Self::AnyPolicyCertificate,
        Self::AnyResponse,
        Self::NeverRefetches,
        Self::IgnoresId,
        Self::AlwaysFetches,
        Self::ForgetsWithRecord,
        Self::ForgetsWithHost,
        Self::ForgetsInRestart,
        Self::AnyMxCertificate,
        Self::FallsBackToClear,
        Self::DeepWildcards,
        Self::IgnoresNames,
        Self::EnforcesTesting,
        Self::PolicyBeforeDane,
        Self::PolicyOfParent,
        Self::FirstRecord,
        Self::AnyRecord,
        Self::AnyPolicy,
        Self::NeedsLength,
        Self::MisspeaksHttp2,
        Self::OnlyIpv4,
        Self::UnsignedDane,
        Self::IgnoresBogus,
        Self::OnlyAliasNames,
        Self::OnlyAliasTargets,
        Self::Idle,
        Self::ReportsWrongCounts,
        Self::ReportsNoPolicyStrings,
        Self::ReportsReports,
        Self::ReportsUnsigned,
        Self::ReportsToFirstTarget,
        Self::ReportsOneResultType,
    ];

    /// Whether the control sends TLS reports.
    pub fn reports(self) -> bool {
        matches!(
            self,
            Self::Correct
                | Self::ReportsWrongCounts
                | Self::ReportsNoPolicyStrings
                | Self::ReportsReports
                | Self::ReportsUnsigned
                | Self::ReportsToFirstTarget
                | Self::ReportsOneResultType
        )
    }

    /// The name on the command line, such as `follows-redirects`.
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}

struct Held {
    id: String,
    policy: Policy,
    body: String,
    /// Seconds of the domain's time.
    until: u64,
}

struct State {
    control: Control,
    clients: Clients,
    /// Answers that fail validation, for the control that takes them.
    unvalidated: Arc<dyn Dns>,
    /// The port of the policy hosts, and the lab's root.
    https_port: u16,
    roots: rustls::RootCertStore,
    clock: Arc<dyn Clock>,
    held: Mutex<HashMap<DomainName, Held>>,
    /// The seconds that passed for a domain beside the clock.
    passed: Mutex<HashMap<String, u64>>,
    /// Counts sessions and sends reports, in controls that do.
    reporter: Option<Reporter>,
}

/// A control as a mail server under test.
pub struct ControlSender {
    state: Arc<State>,
}

impl ControlSender {
    /// A control in the lab of this world. `helo` is its name in SMTP.
    pub fn new(control: Control, world: &World, helo: &str, clock: Arc<dyn Clock>) -> Result<Self, LabError> {
        let dnssec = if control == Control::IgnoresBogus { Dnssec::Off } else { Dnssec::Validate };
        let (clients, unvalidated) = (world.clients(helo, clock.clone())?, world.dns_client(dnssec)?);
        let (held, passed) = (Mutex::default(), Mutex::default());
        let key = world.report_key().filter(|_| control.reports());
        let reporter = key.map(|key| Reporter::new(control, key.clone()));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(world.lab.pki.root())?;
        let https_port = world.lab.https_port;
        let state = State { control, clients, unvalidated, https_port, roots, clock, held, passed, reporter };
        Ok(Self { state: Arc::new(state) })
    }
}

impl Sender for ControlSender {
    fn inject<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<Progress, String>> {
        Box::pin(async move {
            let (_, domain) = message.to.rsplit_once('@').ok_or("an address without @")?;
            let domain = DomainName::parse(domain).map_err(|error| error.to_string())?;
            let mail = Mail {
                from: message.from.clone(),
                to: vec![message.to.clone()],
                message: message.text.clone().into_bytes(),
            };
            if self.state.control != Control::Idle {
                let delivery = self.state.sender(&domain).await.deliver(&domain, &mail).await;
                if let Some(reporter) = &self.state.reporter {
                    reporter.count(&domain, delivery.entries);
                }
            }
            Ok(Progress::Over)
        })
    }

    fn let_pass<'a>(&'a self, domain: &'a str, seconds: u32) -> BoxFuture<'a, Result<(), String>> {
        *lock(&self.state.passed).entry(domain.to_owned()).or_default() += u64::from(seconds);
        Box::pin(std::future::ready(Ok(())))
    }

    fn reporter(&self) -> Result<&dyn SendsReports, String> {
        match self.state.reporter {
            Some(_) => Ok(self),
            None => Err("this control sends no TLS reports".to_owned()),
        }
    }

    fn restart(&self) -> BoxFuture<'_, Result<(), String>> {
        if self.state.control == Control::ForgetsInRestart {
            lock(&self.state.held).clear();
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

impl SendsReports for ControlSender {
    fn send_reports(&self) -> BoxFuture<'_, Result<Progress, String>> {
        Box::pin(async move {
            let state = &self.state;
            if let Some(reporter) = &state.reporter {
                reporter.send(&state.clients, state.clock.now(), &**state).await?;
            }
            Ok(Progress::Over)
        })
    }
}

/// Report mail is delivered despite TLS failures (RFC 8460 §3): under neither DANE nor MTA-STS.
impl DeliversReports for State {
    fn deliver<'a>(&'a self, domain: &'a DomainName, mail: &'a Mail) -> BoxFuture<'a, Delivery> {
        Box::pin(async move {
            let sender = ReferenceSender {
                dns: Arc::new(Bent {
                    inner: self.clients.dns.clone(),
                    how: Bend::Security(Security::Insecure),
                }),
                mail: self.clients.mail.clone(),
                policies: Arc::new(NoPolicies),
            };
            sender.deliver(domain, mail).await
        })
    }
}

struct NoPolicies;

impl PolicySource for NoPolicies {
    fn policy<'a>(&'a self, _: &'a DomainName) -> BoxFuture<'a, PolicyInForce> {
        Box::pin(std::future::ready(PolicyInForce::None))
    }
}

impl State {
    async fn sender(self: &Arc<Self>, domain: &DomainName) -> ReferenceSender {
        let has_policy = || async { matches!(self.in_force(domain).await, PolicyInForce::Policy { .. }) };
        let ignores_dane = match self.control {
            Control::Plain | Control::NoDane => true,
            Control::PolicyBeforeDane => has_policy().await,
            _ => false,
        };
        let dns = self.clients.dns.clone();
        let dns: Arc<dyn Dns> = match self.control {
            _ if ignores_dane => Arc::new(Bent { inner: dns, how: Bend::Security(Security::Insecure) }),
            Control::UnsignedDane => Arc::new(Bent { inner: dns, how: Bend::Security(Security::Secure) }),
            Control::IgnoresBogus => {
                Arc::new(Bent { inner: dns, how: Bend::Unvalidated(self.unvalidated.clone()) })
            }
            Control::OnlyIpv4 => Arc::new(Bent { inner: dns, how: Bend::NoIpv6 }),
            Control::OnlyAliasNames => Arc::new(Bent { inner: dns, how: Bend::AliasesInsecure }),
            Control::OnlyAliasTargets => Arc::new(Bent { inner: dns, how: Bend::TargetsOnly }),
            _ => dns,
        };
        let mail = Arc::new(Lax { control: self.control, inner: self.clients.mail.clone() });
        ReferenceSender { dns, mail, policies: self.clone() }
    }

    async fn in_force(&self, domain: &DomainName) -> PolicyInForce {
        if matches!(self.control, Control::Plain | Control::NoSts) {
            return PolicyInForce::None;
        }
        let found = self.discover(domain).await;
        let found = match (&found, domain.parent()) {
            (PolicyInForce::None, Some(parent)) if self.control == Control::PolicyOfParent => {
                self.discover(&parent).await
            }
            _ => found,
        };
        match found {
            PolicyInForce::Policy { policy, body } => {
                PolicyInForce::Policy { policy: self.bent(policy, domain).await, body }
            }
            other => other,
        }
    }

    /// The policy as a lax control understands it.
    async fn bent(&self, mut policy: Policy, domain: &DomainName) -> Policy {
        if self.control == Control::EnforcesTesting && policy.mode == Mode::Testing {
            policy.mode = Mode::Enforce;
        }
        if !matches!(self.control, Control::DeepWildcards | Control::IgnoresNames) {
            return policy;
        }
        let hosts: Vec<DomainName> = match self.clients.dns.lookup(domain, Kind::Mx).await {
            Ok(answer) => answer.mx_hosts().collect(),
            Err(_) => vec![domain.clone()],
        };
        let all = self.control == Control::IgnoresNames;
        let is_below = |host: &DomainName| {
            policy.mx.iter().any(|pattern| match pattern {
                MxPattern::Wildcard(name) => host != name && host.is_within(name),
                MxPattern::Exact(_) => false,
            })
        };
        let more: Vec<MxPattern> = hosts
            .iter()
            .filter(|host| all || is_below(host))
            .filter_map(|host| MxPattern::exact(host).ok())
            .collect();
        policy.mx.extend(more);
        policy
    }

    async fn discover(&self, domain: &DomainName) -> PolicyInForce {
        let held = self.held(domain);
        if let Some((_, held)) =
            held.as_ref().filter(|_| matches!(self.control, Control::NeverRefetches | Control::IgnoresId))
        {
            return held.clone();
        }
        let id = match self.record(domain).await {
            Some(id) => id,
            None if self.control == Control::ForgetsWithRecord => {
                lock(&self.held).remove(domain);
                return PolicyInForce::None;
            }
            None => return held.map_or(PolicyInForce::None, |(_, held)| held),
        };
        match held {
            Some((known, held)) if known == id && self.control != Control::AlwaysFetches => held,
            held => self.fetched(domain, id, held.map(|(_, held)| held)).await,
        }
    }

    /// The policy in memory with its `id`, unless its time is over.
    fn held(&self, domain: &DomainName) -> Option<(String, PolicyInForce)> {
        let now = self.now(domain);
        let all = lock(&self.held);
        let held =
            all.get(domain).filter(|held| now < held.until || self.control == Control::NeverRefetches)?;
        let policy = PolicyInForce::Policy { policy: held.policy.clone(), body: held.body.clone() };
        Some((held.id.clone(), policy))
    }

    fn now(&self, domain: &DomainName) -> u64 {
        let passed = lock(&self.passed).get(domain.as_str()).copied().unwrap_or(0);
        self.clock.elapsed().as_secs().saturating_add(passed)
    }

    async fn record(&self, domain: &DomainName) -> Option<String> {
        let answer = self.clients.dns.lookup(&domain.below("_mta-sts").ok()?, Kind::Txt).await.ok()?;
        let record = match self.control {
            Control::AnyRecord => {
                return answer.texts().next().map(|text| String::from_utf8_lossy(text).into_owned());
            }
            Control::FirstRecord => answer.texts().find_map(|text| StsRecord::parse(text).ok())?,
            _ => StsRecord::select(answer.texts()).ok()?,
        };
        Some(record.id.as_str().to_owned())
    }

    async fn fetched(&self, domain: &DomainName, id: String, held: Option<PolicyInForce>) -> PolicyInForce {
        let result = match self.file(domain).await {
            Ok(body) => self
                .parsed(&body)
                .map(|policy| (policy, String::from_utf8_lossy(&body).into_owned()))
                .map_err(|error| (ResultType::StsPolicyInvalid, error.to_string())),
            Err(error) => Err((error.result_type(), error.to_string())),
        };
        match result {
            Ok((policy, body)) => {
                let until = self.now(domain).saturating_add(policy.max_age.into());
                let held = Held { id, policy: policy.clone(), body: body.clone(), until };
                lock(&self.held).insert(domain.clone(), held);
                PolicyInForce::Policy { policy, body }
            }
            Err((result, why)) if self.control == Control::ForgetsWithHost => {
                lock(&self.held).remove(domain);
                PolicyInForce::Unavailable { result, why }
            }
            Err((result, why)) => held.unwrap_or(PolicyInForce::Unavailable { result, why }),
        }
    }

    fn parsed(&self, body: &[u8]) -> Result<Policy, formats::policy::PolicyError> {
        let lax = || {
            let text = String::from_utf8_lossy(body).to_ascii_lowercase();
            let words: Vec<&str> =
                text.split([' ', ':', '=', ';', '\r', '\n']).filter(|word| !word.is_empty()).collect();
            let values = words.windows(2).filter_map(|pair| match pair {
                ["mx", value] => MxPattern::parse(value).ok(),
                _ => None,
            });
            Policy::new(Mode::Enforce, 604_800, values.collect())
        };
        match (Policy::parse(body), self.control) {
            (Err(error), Control::AnyPolicy) => lax().ok_or(error),
            (outcome, _) => outcome,
        }
    }

    async fn file(&self, domain: &DomainName) -> Result<Vec<u8>, FetchError> {
        match self.control {
            Control::FollowsRedirects
            | Control::AnyPolicyCertificate
            | Control::AnyResponse
            | Control::NeedsLength
            | Control::OnlyIpv4 => self.lax_file(domain).await,
            Control::MisspeaksHttp2 if self.speaks_http2(domain).await => Err(FetchError::Time),
            _ => Ok(self.clients.policies.fetch(domain).await?.body),
        }
    }

    /// Whether the policy host of a domain chooses HTTP/2 from a client that offers both versions (RFC 7301).
    async fn speaks_http2(&self, domain: &DomainName) -> bool {
        let negotiated = async {
            let host = policy_host(domain).ok()?;
            let found = net::dns::host_addresses(self.clients.dns.as_ref(), &host).await.ok()?;
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let mut config = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .ok()?
                .with_root_certificates(self.roots.clone())
                .with_no_client_auth();
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            let stream = TcpStream::connect((*found.addresses.first()?, self.https_port)).await.ok()?;
            let name = rustls_pki_types::ServerName::try_from(host.to_string()).ok()?;
            let stream =
                tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
            Some(stream.get_ref().1.alpn_protocol() == Some(b"h2".as_slice()))
        };
        tokio::time::timeout(HANDSHAKE_TIME, negotiated).await.ok().flatten().unwrap_or(false)
    }

    async fn lax_file(&self, domain: &DomainName) -> Result<Vec<u8>, FetchError> {
        let host = policy_host(domain)?;
        let mut visit = self.visit(&host).await?;
        let location =
            visit.outcome.as_ref().ok().and_then(|page| page.header("location")).map(str::to_owned);
        if let Some(url) = location.filter(|_| self.control == Control::FollowsRedirects) {
            let name = url.trim_start_matches("https://").split('/').next().unwrap_or_default();
            let target = DomainName::parse(name).map_err(|_| FetchError::HostName)?;
            visit = self.visit(&target).await?;
        }
        match (self.control, visit.outcome.clone()) {
            (Control::NeedsLength, Ok(page)) if page.header("content-length").is_none() => {
                Err(FetchError::Time)
            }
            (Control::AnyPolicyCertificate, Ok(page)) if page.status == 200 => {
                if let Some(tls) = &mut visit.tls {
                    tls.pkix = Ok(());
                }
                Ok(visit.judged()?.body)
            }
            (Control::AnyResponse, Ok(page)) if visit.tls.as_ref().is_some_and(|tls| tls.pkix.is_ok()) => {
                page.body
            }
            _ => Ok(visit.judged()?.body),
        }
    }

    async fn visit(&self, host: &DomainName) -> Result<net::https::Visit, FetchError> {
        let found =
            net::dns::host_addresses(self.clients.dns.as_ref(), host).await.map_err(FetchError::Dns)?;
        let mut last = Err(FetchError::Time);
        let usable =
            found.addresses.iter().copied().filter(|ip| self.control != Control::OnlyIpv4 || ip.is_ipv4());
        for address in usable {
            let visit = self.clients.policies.visit(&Call::policy(host, address)).await;
            if visit.outcome.is_ok() {
                return Ok(visit);
            }
            last = Ok(visit);
        }
        last
    }
}

impl PolicySource for State {
    fn policy<'a>(&'a self, domain: &'a DomainName) -> BoxFuture<'a, PolicyInForce> {
        Box::pin(self.in_force(domain))
    }
}

/// DNS as a wrong control understands it.
struct Bent {
    inner: Arc<dyn Dns>,
    how: Bend,
}

enum Bend {
    /// Each answer has this security. Where nothing is secure, DANE does not apply.
    Security(Security),
    /// The answers to queries that followed an alias are not secure.
    AliasesInsecure,
    /// Queries for the TLSA records of an alias get those of its target.
    TargetsOnly,
    /// There are no IPv6 addresses.
    NoIpv6,
    /// Where validation fails, the answer of this client counts.
    Unvalidated(Arc<dyn Dns>),
}

impl Bent {
    /// The name of the TLSA records of the target, if the host that these TLSA records are for is an alias.
    async fn target_of_tlsa(&self, name: &DomainName) -> Option<DomainName> {
        let host = name.parent()?.parent()?;
        let answer = self.inner.lookup(&host, Kind::A).await.ok()?;
        answer.aliases.last()?.below("_25._tcp").ok()
    }
}

impl Dns for Bent {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async move {
            if matches!((&self.how, kind), (Bend::TargetsOnly, Kind::Tlsa))
                && let Some(target) = self.target_of_tlsa(name).await
            {
                return self.inner.lookup(&target, kind).await;
            }
            let answer = self.inner.lookup(name, kind).await;
            let mut answer = match (&self.how, answer) {
                (Bend::Unvalidated(other), Err(DnsError::Bogus)) => other.lookup(name, kind).await?,
                (_, answer) => answer?,
            };
            match &self.how {
                Bend::Security(security) => answer.security = *security,
                Bend::AliasesInsecure if !answer.aliases.is_empty() => answer.security = Security::Insecure,
                Bend::NoIpv6 if kind == Kind::Aaaa => answer.records.clear(),
                Bend::AliasesInsecure | Bend::TargetsOnly | Bend::NoIpv6 | Bend::Unvalidated(_) => {}
            }
            Ok(answer)
        })
    }
}

/// SMTP sessions that demand less than they are told to.
struct Lax {
    control: Control,
    inner: Arc<dyn MailHosts>,
}

impl MailHosts for Lax {
    fn session<'a>(
        &'a self,
        target: &'a Target,
        demand: &'a TlsDemand,
        mail: Option<&'a Mail>,
    ) -> BoxFuture<'a, Result<SessionReport, Box<SessionFailure>>> {
        Box::pin(async move {
            let lax = match (self.control, demand) {
                (Control::AnyMxCertificate, TlsDemand::Pkix) => &TlsDemand::Encrypt,
                _ => demand,
            };
            let outcome = self.inner.session(target, lax, mail).await;
            match outcome {
                Err(failure) if self.control == Control::FallsBackToClear && *demand == TlsDemand::Pkix => {
                    match failure.fault {
                        net::smtp::Fault::Certificate(_) => Err(failure),
                        _ => self.inner.session(target, &TlsDemand::Never, mail).await,
                    }
                }
                other => other,
            }
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
