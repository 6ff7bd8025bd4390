//! Certificates of policy hosts: which to order when, and ordering them (RFC 8555, RFC 9773).
//!
//! Only hosts of domains that the operator knows have a row in the store, and only those whose name leads
//! here are ordered, so no stranger can make us order anything. Who orders holds a lease, so that several
//! programs do not order the same.

use super::alpn;
use super::authority::{AccountError, CaClient};
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

/// Orders what is due.
pub struct Orders {
    /// Where they are kept.
    pub store: Store,
    /// Looks whether a host leads here.
    pub dns: Arc<dyn Dns>,
    /// When.
    pub clock: Arc<dyn Clock>,
    /// Where from: the first that gives one.
    pub authorities: Vec<CaClient>,
    /// How to prove that a host is ours, the first that the authority offers.
    pub challenges: Vec<ChallengeType>,
    /// Seals keys.
    pub vault: Arc<Vault>,
    /// Where policy hosts are; nothing leaves that to the authority's own look.
    pub place: Option<PolicyHostAt>,
    /// Who orders, among all that share the store.
    pub holder: String,
}

/// A way to prove that a host is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChallengeType {
    /// By plain HTTP (RFC 8555 §8.3).
    Http01,
    /// By a handshake (RFC 8737).
    TlsAlpn01,
}

/// Why an order failed.
#[derive(Debug, thiserror::Error)]
enum OrderError {
    #[error("{0}")]
    NotHere(String),
    #[error("no authority takes orders just now")]
    Paced,
    #[error(transparent)]
    Acme(#[from] Error),
    #[error(transparent)]
    Account(AccountError),
    #[error("{}", each(.0))]
    Refused(Vec<(String, OrderError)>),
    #[error("its key: {0}")]
    Vault(#[from] VaultError),
    #[error("the authority did not validate it: {0}")]
    Invalid(String),
    #[error("the authority's certificate can't be read: {0}")]
    Chain(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OrderError {
    /// True when the authority has not counted it against the host: it was not asked, could not be reached,
    /// or only wanted another nonce.
    fn costs_nothing(&self) -> bool {
        match self {
            Self::NotHere(_) | Self::Paced => true,
            Self::Acme(Error::Api(_)) | Self::Account(AccountError::Acme(Error::Api(_))) => {
                self.is(BAD_NONCE) || self.is(RATE_LIMITED)
            }
            Self::Acme(_) | Self::Account(_) => true,
            Self::Refused(each) => each.iter().all(|(_, error)| error.costs_nothing()),
            Self::Invalid(_) | Self::Chain(_) | Self::Store(_) | Self::Vault(_) => false,
        }
    }

    /// True for what another authority would say too.
    fn is_about_the_host(&self) -> bool {
        matches!(self, Self::Invalid(_) | Self::NotHere(_) | Self::Store(_))
    }

    /// Whether the authority gives this as its reason.
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

fn each(refused: &[(String, OrderError)]) -> String {
    match refused {
        [(_, one)] => one.to_string(),
        all => all.iter().map(|(name, error)| format!("{name}: {error}")).collect::<Vec<_>>().join("; "),
    }
}

/// Renewals, and new orders, in one round.
const ORDERS_BATCH: u32 = 20;
/// One lease covers one order.
const ORDER_LEASE: SignedDuration = SignedDuration::from_mins(5);
/// The first pause after a failure; it doubles to the longest.
const FIRST_RETRY: SignedDuration = SignedDuration::from_mins(2);
/// The same after what the authority does not count.
const FIRST_POLL: SignedDuration = SignedDuration::from_secs(5);
/// Five failed validations an hour are allowed for a host.
const MAX_RETRY: SignedDuration = SignedDuration::from_hours(12);
/// Challenges are answered for so long.
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
    /// Does what is due now; says how many were tried.
    pub fn round<'a>(&'a self) -> BoxFuture<'a, Result<usize, StoreError>> {
        Box::pin(async move {
            let now = self.clock.now();
            let room: u32 = self.authorities.iter().map(|ca| ca.room(now)).sum();
            let mut due = self.store.certificates_due(Due::Renewal, now, ORDERS_BATCH).await?;
            due.extend(self.store.certificates_due(Due::First, now, room.min(ORDERS_BATCH)).await?);
            let mut tried = 0;
            for certificate in due {
                if self.hold().await? {
                    tried += 1;
                    self.one(certificate).await?;
                }
            }
            if tried > 0 {
                self.store.release(NAME, &self.holder).await?;
            }
            Ok(tried)
        })
    }

    async fn hold(&self) -> Result<bool, StoreError> {
        let now = self.clock.now();
        self.store.lease(NAME, &self.holder, now, later(now, ORDER_LEASE)).await
    }

    async fn one(&self, before: StoredCertificate) -> Result<(), StoreError> {
        let host = before.host.clone();
        let Some(domain) =
            host.as_str().strip_prefix("mta-sts.").and_then(|name| DomainName::from_ascii(name).ok())
        else {
            return Ok(());
        };
        if self.store.hosted(&domain).await?.is_none() {
            // Its policy was taken down: nothing is renewed for it.
            let rest = StoredCertificate { next_at: later(self.clock.now(), MAX_RETRY), ..before };
            return self.store.put_certificate(&rest).await;
        }
        let after = match self.order(&before).await {
            Ok(new) => {
                tracing::info!(%host, until = %new.expires_at, "has a certificate");
                new
            }
            Err(OrderError::Store(error)) => return Err(error),
            // They are open again soon, and the host is not to blame.
            Err(OrderError::Paced) => {
                StoredCertificate { next_at: later(self.clock.now(), FIRST_RETRY), ..before }
            }
            Err(error) => {
                let failures = before.failures.saturating_add(1);
                let first = if error.costs_nothing() { FIRST_POLL } else { FIRST_RETRY };
                let next_at = later(self.clock.now(), pause(first, failures));
                if before.chain.is_empty() || before.expires_at <= self.clock.now() {
                    tracing::error!(%host, %error, again = %next_at, "has no good certificate: senders can't fetch its policy");
                } else {
                    tracing::warn!(%host, %error, again = %next_at, until = %before.expires_at, "the certificate is not renewed yet");
                }
                StoredCertificate { failures, next_at, problem: error.to_string(), ..before }
            }
        };
        self.store.put_certificate(&after).await
    }

    async fn order(&self, before: &StoredCertificate) -> Result<StoredCertificate, OrderError> {
        self.leads_here(&before.host).await?;
        let mut refused = Vec::new();
        for ca in &self.authorities {
            if !ca.takes(before.chain.is_empty(), self.clock.now()) {
                continue;
            }
            match self.order_at(ca, before).await {
                Ok(new) => return Ok(new),
                Err(error) if error.is_about_the_host() => return Err(error),
                Err(error) => {
                    if error.is(RATE_LIMITED) {
                        tracing::warn!(authority = ca.authority.directory, %error, "it is left alone for a while");
                        ca.hold(self.clock.now());
                    }
                    refused.push((ca.authority.directory.clone(), error));
                }
            }
        }
        Err(if refused.is_empty() { OrderError::Paced } else { OrderError::Refused(refused) })
    }

    async fn order_at(
        &self,
        ca: &CaClient,
        before: &StoredCertificate,
    ) -> Result<StoredCertificate, OrderError> {
        let account = ca.account(&self.store, &self.vault).await?;
        let identifiers = [Identifier::Dns(before.host.to_string())];
        let wanted = || {
            let order = NewOrder::new(&identifiers);
            match &ca.authority.profile {
                Some(profile) => order.profile(profile),
                None => order,
            }
        };
        // An authority that knows no renewal information refuses to hear of what is replaced.
        let replacing = match identifier(&before.chain) {
            Some(old) => account.new_order(&wanted().replaces(old)).await.ok(),
            None => None,
        };
        let mut order = match replacing {
            Some(order) => order,
            None => account.new_order(&wanted()).await?,
        };
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            self.answer(&before.host, authorization).await?;
        }
        let patience = RetryPolicy::new().timeout(Duration::from_secs(90));
        if order.poll_ready(&patience).await? != OrderStatus::Ready {
            return Err(OrderError::Invalid(problem(&mut order).await));
        }
        let key = order.finalize().await?;
        let chain = order.poll_certificate(&patience).await?;
        let (from, until) = dates(&chain)?;
        let next_at = self.renewal(&account, &chain).await.unwrap_or_else(|| two_thirds(from, until));
        Ok(StoredCertificate {
            host: before.host.clone(),
            chain,
            key: self.vault.seal(before.host.as_str(), &key)?,
            expires_at: until,
            next_at: next_at.max(later(self.clock.now(), FIRST_RETRY)),
            failures: 0,
            problem: String::new(),
        })
    }

    /// Keeps what the authority wants to see, and has it look.
    async fn answer(
        &self,
        host: &DomainName,
        mut authorization: AuthorizationHandle<'_>,
    ) -> Result<(), OrderError> {
        let kind = |way: &ChallengeType| match way {
            ChallengeType::Http01 => AcmeChallenge::Http01,
            ChallengeType::TlsAlpn01 => AcmeChallenge::TlsAlpn01,
        };
        let offered = |way: &&ChallengeType| {
            authorization.challenges.iter().any(|challenge| challenge.r#type == kind(way))
        };
        let way = *self.challenges.iter().find(offered).ok_or_else(|| {
            let challenges: Vec<&str> = self.challenges.iter().map(|way| way.as_str()).collect();
            OrderError::Chain(format!("it offers no {}", challenges.join(" and no ")))
        })?;
        let Some(mut challenge) = authorization.challenge(kind(&way)) else { return Ok(()) };
        let answer = challenge.key_authorization();
        let (name, answer) = match way {
            ChallengeType::Http01 => (challenge.token.clone(), answer.as_str().to_owned()),
            ChallengeType::TlsAlpn01 => {
                (alpn::name_in_store(host.as_str()), alpn::to_store(answer.digest().as_ref()))
            }
        };
        let now = self.clock.now();
        self.store.put_challenge(&name, &answer, now, later(now, CHALLENGE_LIFETIME)).await?;
        Ok(challenge.set_ready().await?)
    }

    /// A name that leads elsewhere would only burn the authority's patience.
    async fn leads_here(&self, host: &DomainName) -> Result<(), OrderError> {
        let Some(place) = &self.place else { return Ok(()) };
        let not_here = |why: String| OrderError::NotHere(format!("{host} does not lead here: {why}"));
        let found =
            host_addresses(self.dns.as_ref(), host).await.map_err(|error| not_here(error.to_string()))?;
        let here = match place {
            PolicyHostAt::Alias(name) => found.aliases.contains(name),
            PolicyHostAt::Addresses(all) => found.addresses.iter().any(|ip| all.contains(ip)),
        };
        if here { Ok(()) } else { Err(not_here("it is another place".to_owned())) }
    }

    /// When the authority wants the certificate renewed (RFC 9773), if it says.
    async fn renewal(&self, account: &Account, chain: &str) -> Option<Timestamp> {
        let (info, _) = account.renewal_info(&identifier(chain)?).await.ok()?;
        Timestamp::from_second(info.suggested_window.start.unix_timestamp()).ok()
    }
}

const NAME: &str = "certificates";

async fn problem(order: &mut instant_acme::Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        for challenge in &authorization.challenges {
            if let Some(problem) = &challenge.error {
                return problem.to_string();
            }
        }
    }
    "no reason is given".to_owned()
}

fn pause(first: SignedDuration, failures: u32) -> SignedDuration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(MAX_RETRY)
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
    fn pauses_double_from_two_minutes_to_half_a_day() {
        let minutes = |failures| pause(FIRST_RETRY, failures).as_mins();
        assert_eq!([minutes(1), minutes(2), minutes(3)], [2, 4, 8]);
        assert_eq!((minutes(40), minutes(u32::MAX)), (720, 720));
    }

    #[test]
    fn without_word_from_the_authority_renewal_is_at_two_thirds() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(two_thirds(at(0), at(90 * 86_400)), at(60 * 86_400));
    }
}
