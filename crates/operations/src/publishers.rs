//! The publishers that carry out steps: our own policy host, DNS UPDATE, and the APIs of DNS providers.
//! [`RolloutContext`](crate::RolloutContext) selects them by the settings of a domain.

use config::failure::Failure;
use config::{ProviderSpec, UpdateServer};
use formats::{DomainName, Policy};
use net::BoxFuture;
use net::clock::Clock;
use net::dns::provider::{Provider, ProviderError};
use net::dns::update::{self, Replacement, UpdateError, Updater};
use net::https::policy_host;
use net::metrics::{self, Counters};
use receiver::publish::{Change, DnsPublisher, Previous, PublishError, Records, TTL};
use receiver::rollout::Hosting;
use receiver::rollout::desired::PolicyHostAt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use store::Store;

/// The counters of changes of DNS records by this process, for the metrics of the running server.
pub fn dns_changes() -> &'static Counters {
    static SHARED: OnceLock<Counters> = OnceLock::new();
    SHARED.get_or_init(|| Counters::new(&metrics::DNS_CHANGES))
}

fn count(way: &str, is_done: bool) {
    dns_changes().inc(&[way, if is_done { "ok" } else { "failed" }]);
}

/// Publishes policies through the store, from which the role `[host]` serves them.
pub struct OwnHost {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    /// True if the CA can validate the policy host before its name points here, so that a policy is served only with a
    /// certificate.
    pub has_early_certificate: bool,
}

/// How long a policy waits for the certificate of its host.
const CERTIFICATE_WAIT: Duration = Duration::from_secs(60);
/// The interval between two checks for that certificate.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(1);

impl Hosting for OwnHost {
    fn put<'a>(
        &'a self,
        domain: &'a DomainName,
        policy: Option<&'a Policy>,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let text = policy.map(ToString::to_string);
            self.store.put_hosted(domain, text.as_deref()).await.map_err(|error| error.to_string())?;
            let host = policy_host(domain).map_err(|error| error.to_string())?;
            self.store.order_certificate(&host, self.clock.now()).await.map_err(|error| error.to_string())?;
            if policy.is_some() && self.has_early_certificate {
                self.await_certificate(&host).await
            } else {
                Ok(())
            }
        })
    }
}

impl OwnHost {
    /// Waits for the certificate of the policy host. Its name moves here after that, so that senders can fetch the policy at
    /// any time.
    async fn await_certificate(&self, host: &DomainName) -> Result<(), String> {
        let started = tokio::time::Instant::now();
        loop {
            let stored = self.store.certificate(host).await.map_err(|error| error.to_string())?;
            let problem = match stored {
                Some(stored) if !stored.chain.is_empty() && stored.expires_at > self.clock.now() => {
                    return Ok(());
                }
                Some(stored) => stored.problem,
                None => String::new(),
            };
            if started.elapsed() >= CERTIFICATE_WAIT {
                let why = if problem.is_empty() { "`sternpost serve` orders it".to_owned() } else { problem };
                return Err(format!(
                    "its host {host} has no certificate yet ({why}), and its name moves here only with one"
                ));
            }
            tokio::time::sleep(CERTIFICATE_INTERVAL).await;
        }
    }
}

/// Publishes records by DNS UPDATE (RFC 2136).
pub struct Updates {
    updater: Updater,
    clock: Arc<dyn Clock>,
}

impl Updates {
    pub fn new(server: &UpdateServer, zone: &DomainName, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        let file = server.key_file.display();
        let secret = key(&server.key_file, "[[rfc2136]]")?;
        let zone = server.zone.clone().unwrap_or_else(|| zone.clone());
        let updater = Updater::new(server.server, zone, &server.key_name, &secret, server.algorithm.into());
        let updater = updater.map_err(|error| {
            let remedy =
                "The file must hold only the secret, in base64, as `keymgr -t NAME` and `tsig-keygen` print it.";
            Failure::usage(format!("the key file {file}"), error, remedy)
        })?;
        Ok(Self { updater, clock })
    }
}

impl DnsPublisher for Updates {
    fn read<'a>(&'a self, change: &'a Change) -> BoxFuture<'a, Result<Previous, PublishError>> {
        Box::pin(async move {
            let found = self.updater.read(&change.name, &replacement(change)).await;
            found.map(previous).map_err(|error| PublishError::new(&change.name, error.to_string()))
        })
    }

    fn put<'a>(
        &'a self,
        change: &'a Change,
        expected: &'a Previous,
    ) -> BoxFuture<'a, Result<(), PublishError>> {
        Box::pin(async move {
            let (new, expected) = (replacement(change), found(expected));
            let put = self.updater.replace(&change.name, &new, Some(&expected), TTL, self.clock.now()).await;
            count("update", put.is_ok());
            put.map(drop).map_err(|error| {
                let is_conflict = matches!(error, UpdateError::Changed(_));
                let is_unmade = error.is_unmade();
                PublishError { is_conflict, is_unmade, ..PublishError::new(&change.name, error.to_string()) }
            })
        })
    }

    /// A server applies an update completely or not at all (RFC 2136 §3.4).
    fn is_whole(&self) -> bool {
        true
    }
}

/// Publishes records through the API of a DNS provider.
pub struct ProviderZone(Provider);

impl ProviderZone {
    pub fn new(spec: &ProviderSpec, zone: &DomainName) -> Result<Self, Failure> {
        let secret = key(&spec.key_file, "[[provider]]")?;
        let zone = spec.zone.clone().unwrap_or_else(|| zone.clone());
        let provider = Provider::new(spec.service, &secret, zone, spec.zone_id.clone());
        Ok(Self(provider.map_err(|error| {
            let remedy = "The file must hold only the token; for Route 53, credentials with `aws_access_key_id = …` and `aws_secret_access_key = …`.";
            Failure::usage(format!("the key file {}", spec.key_file.display()), error, remedy)
        })?))
    }
}

impl DnsPublisher for ProviderZone {
    fn read<'a>(&'a self, change: &'a Change) -> BoxFuture<'a, Result<Previous, PublishError>> {
        Box::pin(async move {
            let found = self.0.read(&change.name, &replacement(change), TTL).await;
            found.map(previous).map_err(|error| PublishError::new(&change.name, error.to_string()))
        })
    }

    fn put<'a>(
        &'a self,
        change: &'a Change,
        expected: &'a Previous,
    ) -> BoxFuture<'a, Result<(), PublishError>> {
        Box::pin(async move {
            let (new, expected) = (replacement(change), found(expected));
            let put = self.0.replace(&change.name, &new, Some(&expected), TTL).await;
            count("provider", put.is_ok());
            put.map(drop).map_err(|error| {
                let is_conflict = matches!(error, ProviderError::Changed(..));
                let is_unmade = error.is_unmade();
                PublishError { is_conflict, is_unmade, ..PublishError::new(&change.name, error.to_string()) }
            })
        })
    }

    /// Providers distribute records to name servers worldwide, which can take minutes.
    fn patience(&self) -> Duration {
        Duration::from_secs(300)
    }
}

fn key(file: &Path, section: &str) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| {
        let what = format!("the key file {} can't be read", file.display());
        Failure::usage(what, error, format!("{section} names it in key_file."))
    })
}

/// Records as they were found, for the journal and an undo.
fn previous(found: update::Previous) -> Previous {
    let records = found.restores.map(|restores| match restores {
        Replacement::Txt { value: Some(value), .. } => Records::Txt(value),
        Replacement::Txt { value: None, .. } => Records::NoTxt,
        Replacement::TxtValue { value, is_published } => Records::TxtValue { value, is_published },
        Replacement::Alias(name) => Records::Place(PolicyHostAt::Alias(name)),
        Replacement::Addresses(all) => Records::Place(PolicyHostAt::Addresses(all)),
    });
    Previous { lines: found.lines, records }
}

/// The records of `expected`, for comparison by their lines.
fn found(expected: &Previous) -> update::Previous {
    update::Previous { lines: expected.lines.clone(), restores: None }
}

/// Replaces only MTA-STS or TLS-RPT records; other TXT records at the name are kept.
fn replacement(change: &Change) -> Replacement {
    let is_report = change.name.as_str().starts_with("_smtp.");
    let prefix = if is_report { "v=TLSRPTv1" } else { "v=STSv1" };
    match &change.records {
        Records::Txt(value) => Replacement::Txt { prefix, value: Some(value.clone()) },
        Records::NoTxt => Replacement::Txt { prefix, value: None },
        Records::TxtValue { value, is_published } => {
            Replacement::TxtValue { value: value.clone(), is_published: *is_published }
        }
        // No change is made of it: see `Change::of`.
        Records::Place(PolicyHostAt::Operator) => Replacement::Addresses(Vec::new()),
        Records::Place(PolicyHostAt::Alias(name)) => Replacement::Alias(name.clone()),
        Records::Place(PolicyHostAt::Addresses(all)) => Replacement::Addresses(all.clone()),
    }
}
