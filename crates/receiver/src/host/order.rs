//! Orders the certificates of policy hosts: selects those that are due and runs the ACME orders (RFC 8555, RFC 9773).
//!
//! Only hosts of domains that the operator configured have a row in the store, and only hosts that point here are
//! ordered, so a stranger can't trigger an order. A lease keeps several instances from ordering the same certificate.

use super::alpn;
use super::authority::{AccountError, CaClient};
use super::certificate_state::{self, CertificateState, Outcome};
use super::vault::{Vault, VaultError};
use crate::rollout::desired::PolicyHostAt;
use formats::DomainName;
use instant_acme::{
    Account, AuthorizationHandle, AuthorizationStatus, CertificateIdentifier, ChallengeType as AcmeChallenge,
    Error, Identifier, NewOrder, OrderStatus, RetryPolicy,
};
use jiff::{SignedDuration, Timestamp};
use net::BoxFuture;
use net::clock::{Clock, later};
use net::dns::{Dns, host_addresses};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::sync::Arc;
use std::time::Duration;
use store::hosting::{Due, StoredCertificate};
use store::{Store, StoreError};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Orders the certificates that are due.
pub struct Orders {
    /// Stores certificates and challenges.
    pub store: Store,
    /// Resolves hosts, to check that they point here.
    pub dns: Arc<dyn Dns>,
    /// The current time.
    pub clock: Arc<dyn Clock>,
    /// The CAs, in order of preference; the first that issues a certificate is used.
    pub authorities: Vec<CaClient>,
    /// The challenge types, in order of preference; the first that the CA offers is used.
    pub challenges: Vec<ChallengeType>,
    /// Encrypts private keys.
    pub vault: Arc<Vault>,
    /// The target that policy hosts must point to; `None` leaves that check to the CA.
    pub place: Option<PolicyHostAt>,
    /// This instance's name for the lease, unique among all that share the store.
    pub holder: String,
}

/// An ACME challenge type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChallengeType {
    /// http-01, answered over plain HTTP (RFC 8555 §8.3).
    Http01,
    /// tls-alpn-01, answered in a TLS handshake (RFC 8737).
    TlsAlpn01,
}

/// Why an order failed.
#[derive(Debug, thiserror::Error)]
enum OrderError {
    #[error("{0}")]
    NotHere(String),
    #[error("no CA accepts orders at the moment")]
    OverBudget,
    #[error(transparent)]
    Acme(#[from] Error),
    #[error(transparent)]
    Account(AccountError),
    #[error("{}", join_errors(.0))]
    Refused(Vec<(String, OrderError)>),
    #[error("the certificate's key: {0}")]
    Vault(#[from] VaultError),
    #[error("the CA could not validate the host: {0}")]
    Invalid(String),
    #[error("the CA's response can't be used: {0}")]
    Chain(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OrderError {
    /// True when the failure does not count against the host's rate limits: the CA was not asked, could not be
    /// reached, reported a rate limit, or wanted another nonce.
    fn costs_nothing(&self) -> bool {
        match self {
            Self::NotHere(_) | Self::OverBudget => true,
            Self::Acme(Error::Api(_)) | Self::Account(AccountError::Acme(Error::Api(_))) => {
                self.is(BAD_NONCE) || self.is(RATE_LIMITED)
            }
            Self::Acme(_) | Self::Account(_) => true,
            Self::Refused(each) => each.iter().all(|(_, error)| error.costs_nothing()),
            Self::Invalid(_) | Self::Chain(_) | Self::Store(_) | Self::Vault(_) => false,
        }
    }

    /// True when another CA would fail as well.
    fn is_about_the_host(&self) -> bool {
        matches!(self, Self::Invalid(_) | Self::NotHere(_) | Self::Store(_))
    }

    /// Whether the CA reported this problem type.
    fn is(&self, kind: &str) -> bool {
        match self {
            Self::Acme(Error::Api(problem)) | Self::Account(AccountError::Acme(Error::Api(problem))) => {
                problem.r#type.as_deref() == Some(kind)
            }
            _ => false,
        }
    }
}

impl From<AccountError> for OrderError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Store(error) => Self::Store(error),
            other => Self::Account(other),
        }
    }
}

const BAD_NONCE: &str = "urn:ietf:params:acme:error:badNonce";
const RATE_LIMITED: &str = "urn:ietf:params:acme:error:rateLimited";

fn join_errors(refused: &[(String, OrderError)]) -> String {
    refused
        .iter()
        .map(|(name, error)| format!("{name}: {}", with_causes(error)))
        .collect::<Vec<_>>()
        .join("; ")
}

/// An error with what caused it, which the libraries leave out of their messages, and the key to set where one helps.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    let advice = [
        (
            "UnknownIssuer",
            "the server of the CA has a certificate of an unknown root: set ca_file beside directory",
        ),
        ("Expired", "the certificate of the CA's server has expired, or the clock of this machine is wrong"),
        ("NotValidForName", "directory names another host than the certificate of the CA's server"),
        (
            "externalAccountRequired",
            "the CA requires an account that you have there: set key_id and key_file",
        ),
    ];
    let found = advice.iter().find(|(word, _)| text.contains(word));
    found.map_or(text.clone(), |(_, advice)| format!("{text} ({advice})"))
}

/// Maximum number of renewals, and of new orders, in one round.
const ORDERS_BATCH: u32 = 20;
/// Duration of the lease, which covers one order.
const ORDER_LEASE: SignedDuration = SignedDuration::from_mins(5);
/// How long a challenge is answered.
const CHALLENGE_LIFETIME: SignedDuration = SignedDuration::from_mins(30);

impl ChallengeType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

impl Orders {
    /// Orders the certificates that are due now, and returns how many orders were tried. Fails only when the store
    /// does.
    pub fn round<'a>(&'a self) -> BoxFuture<'a, Result<usize, StoreError>> {
        Box::pin(async move {
            let now = self.clock.now();
            let budget: u32 = self.authorities.iter().map(|ca| ca.remaining(now)).sum();
            let mut due = self.store.certificates_due(Due::Renewal, now, ORDERS_BATCH).await?;
            due.extend(self.store.certificates_due(Due::First, now, budget.min(ORDERS_BATCH)).await?);
            let mut tried = 0;
            for certificate in due {
                if self.acquire_lease().await? {
                    tried += 1;
                    self.process(certificate).await?;
                }
            }
            if tried > 0 {
                self.store.release(LEASE_NAME, &self.holder).await?;
            }
            Ok(tried)
        })
    }

    async fn acquire_lease(&self) -> Result<bool, StoreError> {
        let now = self.clock.now();
        self.store.lease(LEASE_NAME, &self.holder, now, later(now, ORDER_LEASE)).await
    }

    async fn process(&self, before: StoredCertificate) -> Result<(), StoreError> {
        let host = before.host.clone();
        let Some(domain) =
            host.as_str().strip_prefix("mta-sts.").and_then(|name| DomainName::from_ascii(name).ok())
        else {
            return Ok(());
        };
        if self.store.hosted(&domain).await?.is_none() {
            return self.put(before, Outcome::NotServed).await;
        }
        let outcome = match self.order(&before).await {
            Ok(issued) => issued,
            Err(OrderError::Store(error)) => return Err(error),
            Err(OrderError::OverBudget) => Outcome::OverBudget,
            Err(error) => Outcome::Failed { counts: !error.costs_nothing(), problem: error.to_string() },
        };
        self.put(before, outcome).await
    }

    async fn put(&self, before: StoredCertificate, outcome: Outcome) -> Result<(), StoreError> {
        super::counts::count_order(&outcome);
        let now = self.clock.now();
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

    async fn order(&self, before: &StoredCertificate) -> Result<Outcome, OrderError> {
        self.check_points_here(&before.host).await?;
        let mut refused = Vec::new();
        for ca in &self.authorities {
            if !ca.try_spend(before.chain.is_empty(), self.clock.now()) {
                continue;
            }
            match self.order_at(ca, before).await {
                Ok(new) => return Ok(new),
                Err(error) if error.is_about_the_host() => return Err(error),
                Err(error) => {
                    if error.is(RATE_LIMITED) {
                        tracing::warn!(authority = ca.authority.directory, %error, "rate limit of the CA reached; orders at it are paused");
                        ca.pause(self.clock.now());
                    }
                    refused.push((ca.authority.directory.clone(), error));
                }
            }
        }
        Err(if refused.is_empty() { OrderError::OverBudget } else { OrderError::Refused(refused) })
    }

    async fn order_at(&self, ca: &CaClient, before: &StoredCertificate) -> Result<Outcome, OrderError> {
        let account = ca.account(&self.store, &self.vault).await?;
        let identifiers = [Identifier::Dns(before.host.to_string())];
        let new_order = || {
            let order = NewOrder::new(&identifiers);
            match &ca.authority.profile {
                Some(profile) => order.profile(profile),
                None => order,
            }
        };
        // CAs without renewal information reject an order that names the certificate it replaces; such an order is
        // sent again without.
        let replacing = match identifier(&before.chain) {
            Some(old) => account.new_order(&new_order().replaces(old)).await.ok(),
            None => None,
        };
        let mut order = match replacing {
            Some(order) => order,
            None => account.new_order(&new_order()).await?,
        };
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            self.answer_challenge(&before.host, authorization).await?;
        }
        let retry = RetryPolicy::new().timeout(Duration::from_secs(90));
        if order.poll_ready(&retry).await? != OrderStatus::Ready {
            return Err(OrderError::Invalid(problem(&mut order).await));
        }
        let key = order.finalize().await?;
        let chain = order.poll_certificate(&retry).await?;
        let (from, until) = dates(&chain)?;
        let renew_at = self.renewal(&account, &chain).await.unwrap_or_else(|| two_thirds(from, until));
        let key = self.vault.seal(before.host.as_str(), &key)?;
        Ok(Outcome::Issued { chain, key, expires_at: until, renew_at })
    }

    /// Stores the answer to a challenge that the CA offers, and asks the CA to validate it.
    async fn answer_challenge(
        &self,
        host: &DomainName,
        mut authorization: AuthorizationHandle<'_>,
    ) -> Result<(), OrderError> {
        let acme_type = |challenge_type: &ChallengeType| match challenge_type {
            ChallengeType::Http01 => AcmeChallenge::Http01,
            ChallengeType::TlsAlpn01 => AcmeChallenge::TlsAlpn01,
        };
        let offered = |challenge_type: &&ChallengeType| {
            authorization.challenges.iter().any(|challenge| challenge.r#type == acme_type(challenge_type))
        };
        let challenge_type = *self.challenges.iter().find(offered).ok_or_else(|| {
            let challenges: Vec<&str> =
                self.challenges.iter().map(|challenge_type| challenge_type.as_str()).collect();
            OrderError::Chain(format!("the CA does not offer {}", challenges.join(" or ")))
        })?;
        let Some(mut challenge) = authorization.challenge(acme_type(&challenge_type)) else { return Ok(()) };
        let answer = challenge.key_authorization();
        let (name, answer) = match challenge_type {
            ChallengeType::Http01 => (challenge.token.clone(), answer.as_str().to_owned()),
            ChallengeType::TlsAlpn01 => {
                (alpn::name_in_store(host.as_str()), alpn::to_store(answer.digest().as_ref()))
            }
        };
        let now = self.clock.now();
        self.store.put_challenge(&name, &answer, now, later(now, CHALLENGE_LIFETIME)).await?;
        Ok(challenge.set_ready().await?)
    }

    /// Checks that a host points here. Otherwise validation would fail and count against the CA's rate limits.
    async fn check_points_here(&self, host: &DomainName) -> Result<(), OrderError> {
        let Some(place) = &self.place else { return Ok(()) };
        let not_here = |why: String| OrderError::NotHere(format!("{host} does not point here: {why}"));
        let found =
            host_addresses(self.dns.as_ref(), host).await.map_err(|error| not_here(error.to_string()))?;
        let here = match place {
            PolicyHostAt::Alias(name) => found.aliases.contains(name),
            PolicyHostAt::Operator => true,
            PolicyHostAt::Addresses(all) => found.addresses.iter().any(|ip| all.contains(ip)),
        };
        if here { Ok(()) } else { Err(not_here("it points elsewhere".to_owned())) }
    }

    /// When to renew the certificate according to the CA's renewal information (RFC 9773); `None` if it has none.
    async fn renewal(&self, account: &Account, chain: &str) -> Option<Timestamp> {
        let (info, _) = account.renewal_info(&identifier(chain)?).await.ok()?;
        Timestamp::from_second(info.suggested_window.start.unix_timestamp()).ok()
    }
}

const LEASE_NAME: &str = "certificates";

async fn problem(order: &mut instant_acme::Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        for challenge in &authorization.challenges {
            if let Some(problem) = &challenge.error {
                return problem.to_string();
            }
        }
    }
    "no reason given by the CA".to_owned()
}

fn two_thirds(from: Timestamp, until: Timestamp) -> Timestamp {
    later(from, until.duration_since(from) / 3 * 2)
}

fn leaf(chain: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(chain.as_bytes()).ok()
}

fn identifier(chain: &str) -> Option<CertificateIdentifier<'static>> {
    CertificateIdentifier::try_from(&leaf(chain)?).ok().map(CertificateIdentifier::into_owned)
}

fn dates(chain: &str) -> Result<(Timestamp, Timestamp), OrderError> {
    let bad = |why: &dyn std::fmt::Display| OrderError::Chain(why.to_string());
    let leaf = leaf(chain).ok_or_else(|| bad(&"it is not PEM"))?;
    let (_, parsed) = X509Certificate::from_der(&leaf).map_err(|error| bad(&error))?;
    let time = |seconds| Timestamp::from_second(seconds).map_err(|error| bad(&error));
    let validity = parsed.validity();
    Ok((time(validity.not_before.timestamp())?, time(validity.not_after.timestamp())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_renewal_information_renewal_is_at_two_thirds() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(two_thirds(at(0), at(90 * 86_400)), at(60 * 86_400));
    }
}
