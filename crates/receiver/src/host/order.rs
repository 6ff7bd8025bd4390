//! Orders the certificates of policy hosts: runs the ACME orders (RFC 8555) of those that are due. The submodule `work`
//! selects them, `renewal` plans renewals (RFC 9773), and `dns` answers challenges in DNS.
//!
//! Only hosts of domains that the operator configured have a row in the store, and only hosts that point here or whose
//! zone is changed from here are ordered, so a stranger can't trigger an order. A lease keeps several instances from
//! ordering the same certificate: an order writes under the lease, and asks the CA for nothing once the lease is over.

mod dns;
mod error;
mod refusal;
mod renewal;
mod work;

pub use dns::{ChallengeZones, DnsChallenges};

use super::alpn;
use super::authority::CaClient;
use super::certificate_state::{self, CertificateState, Outcome};
use super::site_cache::{certified, covers};
use super::strangers::points_to;
use super::vault::Vault;
use crate::rollout::desired::PolicyHostAt;
use error::{NO_ACCOUNT, OrderError, RATE_LIMITED};
use formats::DomainName;
use formats::caa;
use futures_util::FutureExt;
use instant_acme::{
    Account, AuthorizationHandle, AuthorizationStatus, CertificateIdentifier, ChallengeType as AcmeChallenge,
    Identifier, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use jiff::{SignedDuration, Timestamp};
use net::certificate::CertificateFacts;
use net::clock::{Clock, later};
use net::dns::{Data, Dns, Kind};
use net::random::Randomness;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use store::certificate_orders::ChallengeRecord;
use store::hosting::StoredCertificate;
use store::{Store, StoreError};
use tokio::time::timeout;
use tracing::Instrument;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Orders the certificates that are due.
#[derive(Clone)]
pub struct Orders {
    /// Stores certificates and challenges.
    pub store: Store,
    /// Resolves hosts, to check that they point here.
    pub dns: Arc<dyn Dns>,
    /// The source of the current time.
    pub clock: Arc<dyn Clock>,
    /// The CAs, in order of preference; the first that issues a certificate is used.
    pub authorities: Vec<CaClient>,
    /// The challenge types of hosts whose domain requires none, in order of preference; the first that the CA offers is
    /// used.
    pub challenges: Vec<ChallengeType>,
    /// What the challenges in DNS need; `None` if no domain uses them.
    pub dns_challenges: Option<DnsChallenges>,
    /// Encrypts private keys for the store.
    pub vault: Arc<Vault>,
    /// The target that policy hosts must point to; `None` leaves that check to the CA.
    pub policy_host_target: Option<PolicyHostAt>,
    /// This instance's name for the lease, unique among all that share the store.
    pub holder: String,
    /// Chooses the moments of renewals.
    pub randomness: Arc<dyn Randomness>,
}

/// An ACME challenge type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChallengeType {
    /// http-01, answered over plain HTTP (RFC 8555 §8.3).
    #[serde(rename = "http-01")]
    Http01,
    /// tls-alpn-01, answered in a TLS handshake (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// dns-01, answered by a TXT record (RFC 8555 §8.4).
    #[serde(rename = "dns-01")]
    Dns01,
    /// dns-persist-01, answered by a TXT record that stays (draft-ietf-acme-dns-persist).
    #[serde(rename = "dns-persist-01")]
    DnsPersist01,
}

/// Maximum number of certificates of one kind that are read from the store at a time.
const ORDERS_BATCH: u32 = 20;
/// Duration of the lease, which is renewed while orders run. An outage of the store that is shorter interrupts no order.
const ORDER_LEASE: Duration = Duration::from_secs(5 * 60);
/// How long a challenge is answered.
const CHALLENGE_LIFETIME: SignedDuration = SignedDuration::from_mins(30);
/// Time limit for a CA to accept an order.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit for an order at one CA, with the time that name servers take to show a record.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// Time limit for the CA to validate a host, and to issue the certificate.
const VALIDATION_TIMEOUT: Duration = Duration::from_secs(90);

impl ChallengeType {
    /// All challenge types.
    pub const ALL: [Self; 4] = [Self::Http01, Self::TlsAlpn01, Self::Dns01, Self::DnsPersist01];

    /// The name in the registry of ACME validation methods, which the configuration uses too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01 => "dns-01",
            Self::DnsPersist01 => "dns-persist-01",
        }
    }

    /// Parses the name that [`Self::as_str`] returns; `None` for other text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|challenge_type| challenge_type.as_str() == text)
    }

    fn in_acme(self) -> AcmeChallenge {
        match self {
            Self::Http01 => AcmeChallenge::Http01,
            Self::TlsAlpn01 => AcmeChallenge::TlsAlpn01,
            Self::Dns01 => AcmeChallenge::Dns01,
            Self::DnsPersist01 => AcmeChallenge::Unknown(self.as_str().to_owned()),
        }
    }
}

impl Orders {
    /// The time that all processes with this store share.
    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.store.common_time(self.clock.now()).await
    }

    /// The same orders, which write to this handle of the store.
    pub fn on(&self, store: Store) -> Self {
        Self { store, ..self.clone() }
    }

    async fn process(&self, before: StoredCertificate) -> Result<(), StoreError> {
        let host = before.host.clone();
        // What was due before the lease was acquired may have been ordered by its last holder.
        if self.store.certificate(&host).await?.is_none_or(|now| now != before) {
            return Ok(());
        }
        let Some(domain) =
            host.as_str().strip_prefix("mta-sts.").and_then(|name| DomainName::from_ascii(name).ok())
        else {
            return self.put(before, Outcome::NotServed).await;
        };
        if self.store.hosted(&domain).await?.is_none() {
            self.put(before, Outcome::NotServed).await?;
            // Its policy may be served since, by a plan that saw an order that was due.
            if self.store.hosted(&domain).await?.is_some() {
                self.store.order_certificate(&host, self.now().await?).await?;
            }
            return Ok(());
        }
        let span = tracing::info_span!(target: net::TRACES, "certificate order", %host);
        let outcome = match self.order(&domain, &before).instrument(span).await {
            Ok(issued) => issued,
            Err(OrderError::Store(error)) => return Err(error),
            Err(OrderError::OverBudget) => Outcome::OverBudget,
            Err(error) => Outcome::Failed { counts: !error.costs_nothing(), problem: error.in_words(&host) },
        };
        self.put(before, outcome).await
    }

    async fn put(&self, before: StoredCertificate, outcome: Outcome) -> Result<(), StoreError> {
        super::counts::count_order(&outcome);
        // A certificate is worth more than the right clock.
        let now = self.now().await.unwrap_or_else(|_| self.clock.now());
        let before_chain_is_empty = before.chain.is_empty();
        let after = certificate_state::after(before, outcome.clone(), now);
        let (host, until, again) = (&after.host, after.expires_at, after.next_at);
        match outcome {
            Outcome::NotServed | Outcome::OverBudget => {}
            Outcome::Issued { .. } => tracing::info!(%host, %until, "certificate issued"),
            Outcome::Failed { problem, .. } if CertificateState::of(&after, now).is_usable() => {
                tracing::warn!(%host, error = problem, %again, %until, "the certificate could not be renewed yet");
            }
            // Until the plan's step that points the host here is done, there can be no certificate.
            Outcome::Failed { problem, counts: false } if before_chain_is_empty => {
                tracing::warn!(%host, error = problem, %again, "the policy host has no certificate yet");
            }
            Outcome::Failed { problem, .. } => {
                tracing::error!(%host, error = problem, %again, "the policy host has no valid certificate: senders can't fetch its policy");
            }
        }
        self.store.put_certificate(&after).await
    }

    async fn order(&self, domain: &DomainName, before: &StoredCertificate) -> Result<Outcome, OrderError> {
        let challenges = self.challenges_of(domain).await?;
        if challenges.iter().all(|challenge_type| challenge_type.label().is_none()) {
            self.check_points_here(&before.host).await?;
        }
        let host = Host { domain, name: &before.host, challenges: &challenges };
        let mut refused = Vec::new();
        for ca in &self.authorities {
            if !ca.try_spend(&self.store, before.chain.is_empty(), self.now().await?).await? {
                continue;
            }
            match self.bounded_order_at(ca, host, &before.chain).await {
                Ok(new) => return Ok(new),
                Err(error) if error.is_about_the_host() => return Err(error),
                Err(error) => {
                    if error.is(NO_ACCOUNT) {
                        ca.forget_account().await;
                    }
                    if error.is_a_reason_to_pause() {
                        let error = error.in_words(&before.host);
                        tracing::warn!(
                            authority = ca.authority.directory,
                            error,
                            "orders at the CA are paused"
                        );
                        ca.pause(&self.store, self.now().await?).await?;
                    }
                    refused.push((ca.authority.directory.clone(), error));
                }
            }
        }
        Err(if refused.is_empty() { OrderError::OverBudget } else { OrderError::Refused(refused) })
    }

    /// The challenge types for a domain, in order of preference.
    async fn challenges_of(&self, domain: &DomainName) -> Result<Vec<ChallengeType>, OrderError> {
        let Some(in_dns) = &self.dns_challenges else { return Ok(self.challenges.clone()) };
        let choice = in_dns.zones.choice(domain).await.map_err(OrderError::NotHere)?;
        Ok(choice.map_or_else(|| self.challenges.clone(), |choice| vec![choice]))
    }

    /// Orders at one CA. Neither the time that this takes nor a panic on the way is without an end, since what a CA answers
    /// goes through a library.
    async fn bounded_order_at(
        &self,
        ca: &CaClient,
        host: Host<'_>,
        before: &str,
    ) -> Result<Outcome, OrderError> {
        let order = AssertUnwindSafe(self.order_at(ca, host, before)).catch_unwind();
        match timeout(ORDER_TIMEOUT, order).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(OrderError::Panicked),
            Err(_) => Err(OrderError::Time(ORDER_TIMEOUT.as_secs())),
        }
    }

    async fn order_at(&self, ca: &CaClient, host: Host<'_>, before: &str) -> Result<Outcome, OrderError> {
        let (mut order, account) = timeout(ACCEPT_TIMEOUT, self.accepted(ca, host, before))
            .await
            .map_err(|_| OrderError::Slow(ACCEPT_TIMEOUT.as_secs()))??;
        let mut published = Vec::new();
        let validated = self.validate(ca, &account, host, &mut order, &mut published).await;
        for record in &published {
            self.remove_challenge(record).await?;
        }
        validated?;
        let retry = RetryPolicy::new().timeout(VALIDATION_TIMEOUT);
        self.store.check_lease()?;
        let key = order.finalize().await?;
        let chain = order.poll_certificate(&retry).await?;
        let validity = check_issued(&chain, &key, host.name, self.clock.now())?;
        let renew_at = self.first_plan(ca, host.name, &chain, validity).await?;
        let key = self.vault.seal(host.name.as_str(), &key)?;
        Ok(Outcome::Issued { chain, key, expires_at: validity.1, renew_at })
    }

    /// Has the CA accept an order, which names the certificate that it replaces.
    async fn accepted(
        &self,
        ca: &CaClient,
        host: Host<'_>,
        before: &str,
    ) -> Result<(Order, Account), OrderError> {
        let account = ca.account(&self.store, &self.vault, self.clock.now()).await?;
        self.check_caa(ca, &account, host).await?;
        self.store.check_lease()?;
        let identifiers = [Identifier::Dns(host.name.to_string())];
        let new_order = || {
            let order = NewOrder::new(&identifiers);
            match &ca.authority.profile {
                Some(profile) => order.profile(profile),
                None => order,
            }
        };
        // CAs without renewal information reject an order that names the certificate it replaces, and others reject a
        // second order for the same one (RFC 9773 §5). Such an order is sent again without.
        let replacing = match identifier(before) {
            Some(old) => Some(account.new_order(&new_order().replaces(old)).await.map_err(OrderError::from)),
            None => None,
        };
        let order = match replacing {
            Some(Ok(order)) => order,
            Some(Err(error)) if error.is(RATE_LIMITED) => return Err(error),
            Some(Err(_)) | None => account.new_order(&new_order()).await?,
        };
        Ok((order, account))
    }

    /// Has the CA validate the host. Records that this publishes are added to `published`, and the caller removes them.
    async fn validate(
        &self,
        ca: &CaClient,
        account: &Account,
        host: Host<'_>,
        order: &mut Order,
        published: &mut Vec<ChallengeRecord>,
    ) -> Result<(), OrderError> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            self.answer_challenge(ca, account, host, authorization, published).await?;
        }
        let retry = RetryPolicy::new().timeout(VALIDATION_TIMEOUT);
        if order.poll_ready(&retry).await? != OrderStatus::Ready {
            return Err(OrderError::Invalid(problem(order).await));
        }
        Ok(())
    }

    /// Prepares the answer to a challenge that the CA offers, and asks the CA to validate it.
    async fn answer_challenge(
        &self,
        ca: &CaClient,
        account: &Account,
        host: Host<'_>,
        mut authorization: AuthorizationHandle<'_>,
        published: &mut Vec<ChallengeRecord>,
    ) -> Result<(), OrderError> {
        let offered = |challenge_type: &&ChallengeType| {
            authorization.challenges.iter().any(|challenge| challenge.r#type == challenge_type.in_acme())
        };
        let challenge_type = *host.challenges.iter().find(offered).ok_or_else(|| {
            let challenges: Vec<&str> =
                host.challenges.iter().map(|challenge_type| challenge_type.as_str()).collect();
            OrderError::Chain(format!("the CA does not offer {}", challenges.join(" or ")))
        })?;
        let Some(mut challenge) = authorization.challenge(challenge_type.in_acme()) else { return Ok(()) };
        let answer = challenge.key_authorization();
        match challenge_type {
            ChallengeType::Http01 => self.store_answer(&challenge.token, answer.as_str()).await?,
            ChallengeType::TlsAlpn01 => {
                let name = alpn::name_in_store(host.name.as_str());
                let text = alpn::to_store(answer.digest().as_ref());
                self.store_answer(&name, &text).await?;
            }
            ChallengeType::Dns01 => {
                self.publish_challenge(host.domain, host.name, answer.dns_value(), published).await?;
            }
            ChallengeType::DnsPersist01 => {
                let Some(issuer) = ca.authority.issuer() else {
                    let directory = &ca.authority.directory;
                    return Err(OrderError::Record(format!(
                        "dns-persist-01 needs the CA's issuer domain name: set issuer beside directory = {directory:?}"
                    )));
                };
                let value = dns::persistent_value(issuer, account.id());
                self.ensure_persistent(host.domain, host.name, &value).await?;
            }
        }
        Ok(challenge.set_ready().await?)
    }

    /// Stores the answer to a challenge, which the policy host gives to the CA.
    async fn store_answer(&self, name: &str, answer: &str) -> Result<(), OrderError> {
        let now = self.now().await?;
        Ok(self.store.put_challenge(name, answer, now, later(now, CHALLENGE_LIFETIME)).await?)
    }

    /// Checks that the CAA records allow the CA to issue for our account by one of our challenges (RFC 8659, RFC 8657). A
    /// refused order would count against the CA's rate limits. What can't be resolved is left to the CA.
    async fn check_caa(&self, ca: &CaClient, account: &Account, host: Host<'_>) -> Result<(), OrderError> {
        let Some(issuer) = ca.authority.issuer() else { return Ok(()) };
        let mut at = Some(host.name.clone());
        while let Some(name) = at {
            match self.dns.lookup(&name, Kind::Caa).await {
                Ok(answer) => {
                    let values: Vec<&str> = answer
                        .records
                        .iter()
                        .filter_map(|data| match data {
                            Data::Caa(caa) if caa.tag == "issue" => Some(caa.value.as_str()),
                            _ => None,
                        })
                        .collect();
                    let methods: Vec<&str> = host.challenges.iter().map(|one| one.as_str()).collect();
                    let verdict = caa::judge(&values, &[issuer], Some(account.id()), Some(&methods));
                    return verdict.map_err(|refusal| {
                        OrderError::Caa(format!(
                            "{refusal} for {} (CAA at {name}); allow it with\n  {name}. CAA 0 issue \"{issuer}; accounturi={}\"",
                            host.name,
                            account.id()
                        ))
                    });
                }
                Err(error) if error.is_absence() => at = name.parent(),
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Checks that a host points here. Otherwise validation would fail and count against the CA's rate limits.
    async fn check_points_here(&self, host: &DomainName) -> Result<(), OrderError> {
        let Some(target) = &self.policy_host_target else { return Ok(()) };
        let not_here = |why: String| OrderError::NotHere(format!("{host} does not point here: {why}"));
        let here = points_to(self.dns.as_ref(), target, host).await;
        if here.map_err(|error| not_here(error.to_string()))? {
            Ok(())
        } else {
            Err(not_here("it points elsewhere".to_owned()))
        }
    }
}

/// The host that an order is for.
#[derive(Clone, Copy)]
struct Host<'a> {
    /// The mail domain.
    domain: &'a DomainName,
    /// The name of the policy host, for which the certificate is ordered.
    name: &'a DomainName,
    /// The challenge types, in order of preference.
    challenges: &'a [ChallengeType],
}

const LEASE_NAME: &str = "certificates";

/// The reason why the CA could not validate the host.
async fn problem(order: &mut Order) -> Option<Problem> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        let found = authorization.challenges.iter().find_map(|challenge| challenge.error.clone());
        if found.is_some() {
            return found;
        }
    }
    None
}

fn leaf(chain: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(chain.as_bytes()).ok()
}

fn identifier(chain: &str) -> Option<CertificateIdentifier<'static>> {
    CertificateIdentifier::try_from(&leaf(chain)?).ok().map(CertificateIdentifier::into_owned)
}

/// The first and the last moment of a certificate's validity.
fn validity(chain: &str) -> Result<(Timestamp, Timestamp), OrderError> {
    let bad = |why: &dyn std::fmt::Display| OrderError::Chain(why.to_string());
    let leaf = leaf(chain).ok_or_else(|| bad(&"it is not PEM"))?;
    let (_, parsed) = X509Certificate::from_der(&leaf).map_err(|error| bad(&error))?;
    let time = |seconds| Timestamp::from_second(seconds).map_err(|error| bad(&error));
    let validity = parsed.validity();
    Ok((time(validity.not_before.timestamp())?, time(validity.not_after.timestamp())?))
}

/// Checks that a certificate can take the place of the one before: it names the host, belongs to the key, and has not
/// expired. Returns its validity. A certificate that is not valid yet is taken, since the clock here may be behind.
fn check_issued(
    chain: &str,
    key: &str,
    host: &DomainName,
    now: Timestamp,
) -> Result<(Timestamp, Timestamp), OrderError> {
    let bad = |why: &str| OrderError::Chain(format!("the certificate that it issued {why}"));
    let validity = validity(chain)?;
    let names = leaf(chain).and_then(|leaf| CertificateFacts::read(&leaf)).map(|facts| facts.names);
    if !names.unwrap_or_default().iter().any(|name| covers(name, host.as_str())) {
        return Err(bad(&format!("does not name {host}")));
    }
    if certified(chain, key).and_then(|both| both.keys_match().map_err(|_| "")).is_err() {
        return Err(bad("does not belong to the key that was sent"));
    }
    if validity.1 <= validity.0 {
        return Err(bad("is never valid"));
    }
    if validity.1 <= now {
        return Err(bad(&format!(
            "expired at {}; if that is not so, the clock of this machine is wrong",
            validity.1
        )));
    }
    Ok(validity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> DomainName {
        DomainName::parse("mta-sts.a.example").unwrap()
    }

    /// A self-signed certificate for `name`, valid from year to year, and its key.
    fn issued(name: &str, from: i32, to: i32) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_for_another_name_or_key_or_time_never_replaces_one() {
        let now = Timestamp::from_second(1_790_812_800).unwrap();
        let check = |(chain, key): &(String, String)| {
            check_issued(chain, key, &host(), now).map_err(|e| e.to_string())
        };
        let good = issued(host().as_str(), 2026, 2027);
        check(&good).unwrap();
        check(&issued("*.a.example", 2026, 2027)).unwrap();
        check(&issued(host().as_str(), 2027, 2028)).unwrap();
        let other = issued(host().as_str(), 2026, 2027);
        for (odd, why) in [
            (issued("mta-sts.b.example", 2026, 2027), "does not name mta-sts.a.example"),
            (issued("a.example", 2026, 2027), "does not name"),
            (issued(host().as_str(), 2025, 2026), "expired at 2026-01-01T00:00:00Z"),
            (issued(host().as_str(), 2027, 2026), "is never valid"),
            ((good.0.clone(), other.1), "does not belong to the key"),
            ((good.0.clone(), "no key".to_owned()), "does not belong to the key"),
            (("no chain".to_owned(), good.1.clone()), "it is not PEM"),
        ] {
            let said = check(&odd).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn challenge_types_are_parsed_from_their_names() {
        for challenge_type in ChallengeType::ALL {
            assert_eq!(ChallengeType::parse(challenge_type.as_str()), Some(challenge_type));
        }
        assert_eq!(ChallengeType::parse("DNS-01"), None);
    }
}
