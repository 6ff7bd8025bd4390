//! What changes something: our own policy host, and a name server that takes updates.

use crate::config::UpdateServer;
use crate::failure::Failure;
use formats::{DomainName, Policy};
use net::BoxFuture;
use net::clock::Clock;
use net::dns::update::{Replacement, UpdateError, Updater};
use net::https::policy_host;
use receiver::publish::{Change, DnsPublisher, PublishError, Records, TTL};
use receiver::rollout::Hosting;
use receiver::rollout::plan::PolicyHostAt;
use std::sync::Arc;
use store::hosting::StoredCertificate;
use store::{Store, StoreError};

/// The role `[host]`, which serves what is in the store.
pub struct OwnHost {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
}

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
            self.ask_for_certificate(&host).await.map_err(|error| error.to_string())
        })
    }
}

impl OwnHost {
    /// The domain is known now, so a certificate may be ordered for its policy host.
    async fn ask_for_certificate(&self, host: &DomainName) -> Result<(), StoreError> {
        if self.store.certificate(host).await?.is_some() {
            return Ok(());
        }
        let order = StoredCertificate::to_order(host.clone(), self.clock.now());
        self.store.put_certificate(&order).await
    }
}

/// A zone that is changed by DNS UPDATE.
pub struct Updates {
    updater: Updater,
    clock: Arc<dyn Clock>,
}

impl Updates {
    pub fn new(server: &UpdateServer, zone: &DomainName, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        let file = server.key_file.display();
        let secret = std::fs::read_to_string(&server.key_file).map_err(|error| {
            Failure::usage(
                format!("the key file {file} can't be read"),
                error,
                "[[rfc2136]] names it in key_file.",
            )
        })?;
        let zone = server.zone.clone().unwrap_or_else(|| zone.clone());
        let updater = Updater::new(server.server, zone, &server.key_name, &secret, server.algorithm.into());
        let updater = updater.map_err(|error| {
            let remedy =
                "The file holds the secret alone, in base64, as `keymgr -t NAME` and `tsig-keygen` print it.";
            Failure::usage(format!("the key file {file}"), error, remedy)
        })?;
        Ok(Self { updater, clock })
    }
}

impl DnsPublisher for Updates {
    fn put<'a>(&'a self, change: &'a Change) -> BoxFuture<'a, Result<Vec<String>, PublishError>> {
        Box::pin(async move {
            let new = replacement(change);
            let fail =
                |error: UpdateError| PublishError { name: change.name.clone(), why: error.to_string() };
            self.updater.replace(&change.name, &new, TTL, self.clock.now()).await.map_err(fail)
        })
    }
}

/// Only records of our own kind are replaced: other texts at the name stay.
fn replacement(change: &Change) -> Replacement {
    let is_report = change.name.as_str().starts_with("_smtp.");
    let prefix = if is_report { "v=TLSRPTv1" } else { "v=STSv1" };
    match &change.records {
        Records::Txt(value) => Replacement::Txt { prefix, value: Some(value.clone()) },
        Records::NoTxt => Replacement::Txt { prefix, value: None },
        Records::Place(PolicyHostAt::Alias(name)) => Replacement::Alias(name.clone()),
        Records::Place(PolicyHostAt::Addresses(all)) => Replacement::Addresses(all.clone()),
    }
}
