//! Who owns a domain. A tenant other than the first one proves that it controls the zone of a domain before its plan is carried
//! out: it publishes a TXT record with a word that was made for it. Until then nothing is published or served for the domain, and
//! a name that several tenants have waits for the one that proves it. All name servers of the zone have to show the record.

use crate::rollout_context::{RolloutContext, store_failure};
use config::failure::Failure;
use formats::DomainName;
use jiff::{SignedDuration, Timestamp};
use net::clock::later;
use net::dns::{AuthoritativeServers, Dns, DnsError, Kind};
use net::random::random_hex;
use serde::Serialize;
use store::Tenant;
use store::ownership::{Ownership, OwnershipWord};

/// The label under a domain at which the proof is published.
const LABEL: &str = "_sternpost";
/// What the text of the record begins with.
const PREFIX: &str = "sternpost-domain=";
/// How long a word is valid.
const WORD_LIFETIME: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Whether the tenant of a context owns a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnershipState {
    /// It does.
    Own,
    /// Another tenant does.
    OfOther,
    /// Nobody has proved the domain yet; this record proves it.
    Unproved(ProofRecord),
}

/// Why nothing is published for a domain, for plans and states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum MissingOwnership {
    /// Nobody has proved the domain.
    Unproved {
        /// The record that proves it, as a line of a zone file.
        record: String,
        /// Until when it does.
        until: Timestamp,
    },
    /// Another tenant owns the domain.
    OfOther,
}

impl MissingOwnership {
    /// What the owner of the domain does, in words.
    pub fn in_words(&self) -> String {
        match self {
            Self::Unproved { record, until } => format!(
                "Nothing is published before the tenant has proved that it owns the domain. The owner publishes this record until {until:.0}:\n    {record}"
            ),
            Self::OfOther => {
                "Nothing is published, since another tenant of this installation owns the domain.".to_owned()
            }
        }
    }
}

impl OwnershipState {
    /// What is missing; `None` if the tenant owns the domain.
    pub fn missing(self) -> Option<MissingOwnership> {
        match self {
            Self::Own => None,
            Self::OfOther => Some(MissingOwnership::OfOther),
            Self::Unproved(record) => {
                Some(MissingOwnership::Unproved { record: record.line(), until: record.word.expires_at })
            }
        }
    }
}

/// The record by which the tenant proves a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofRecord {
    /// The name of the TXT record.
    pub name: DomainName,
    /// The word in its text, and until when it counts.
    pub word: OwnershipWord,
}

impl ProofRecord {
    /// The text of the record.
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", self.word.word)
    }

    /// The record as a line of a zone file.
    pub fn line(&self) -> String {
        format!("{}. IN TXT \"{}\"", self.name, self.text())
    }
}

impl RolloutContext {
    /// Whether the tenant owns the domain, as far as the store knows. No record is looked up.
    pub async fn known_ownership(&self, domain: &DomainName) -> Result<OwnershipState, Failure> {
        let fail = |error| store_failure(&error);
        let owner = self.store.domain_owner(domain).await.map_err(fail)?;
        let tenant = self.store.tenant();
        match owner {
            Some(owner) if owner == tenant => Ok(OwnershipState::Own),
            Some(_) => Ok(OwnershipState::OfOther),
            None if tenant == Tenant::FIRST => Ok(OwnershipState::Own),
            None if self.is_reserved(domain) => Ok(OwnershipState::OfOther),
            None => Ok(OwnershipState::Unproved(self.proof_record(domain).await?)),
        }
    }

    /// Whether the tenant owns the domain. If nobody does, the record that proves it is looked up, and from then on the tenant
    /// does if it is there.
    pub async fn ownership(&self, domain: &DomainName) -> Result<OwnershipState, Failure> {
        let state = self.known_ownership(domain).await?;
        let OwnershipState::Unproved(record) = &state else { return Ok(state) };
        let is_proved =
            self.shows(record).await.map_err(|error| self.lookup_failure(domain, record, &error))?;
        if !is_proved {
            return Ok(state);
        }
        let fail = |error| store_failure(&error);
        let now = self.world.clock.now();
        match self.store.own_domain(domain, now).await.map_err(fail)? {
            Ownership::Own => {
                let what = "the tenant proved that it owns the domain";
                self.store.journal(domain, now, "sternpost", what).await.map_err(fail)?;
                Ok(OwnershipState::Own)
            }
            Ownership::OfOther(_) => Ok(OwnershipState::OfOther),
        }
    }

    /// Fails unless the tenant owns the domain.
    pub(crate) async fn require_ownership(&self, domain: &DomainName) -> Result<(), Failure> {
        match self.ownership(domain).await? {
            OwnershipState::Own => Ok(()),
            OwnershipState::OfOther => Err(self.owned_by_other(domain)),
            OwnershipState::Unproved(record) => Err(unproved(domain, &record)),
        }
    }

    /// Describes that another tenant owns the domain. It is not said which one.
    pub fn owned_by_other(&self, domain: &DomainName) -> Failure {
        Failure::finding(
            format!("nothing is published for {domain}"),
            "another tenant of this installation owns the domain",
            "The operator of the installation sees which one with `sternpost tenants list`. The domain is free when that tenant removes it:\n  sternpost domains remove --tenant NAME DOMAIN",
        )
    }

    /// Whether the configuration file has the domain, which belongs to the first tenant then.
    fn is_reserved(&self, domain: &DomainName) -> bool {
        self.config.domains.iter().any(|spec| spec.name == *domain)
    }

    async fn proof_record(&self, domain: &DomainName) -> Result<ProofRecord, Failure> {
        let name = domain.below(LABEL).map_err(|error| {
            Failure::usage(format!("{domain} can't be proved"), error, "Choose a domain with a shorter name.")
        })?;
        let word = random_hex().map_err(|error| {
            Failure::new("can't create a word", format!("the system provides no random bytes: {error}"), "")
        })?;
        let now = self.world.clock.now();
        let new = OwnershipWord { word, expires_at: later(now, WORD_LIFETIME) };
        let word = self.store.ownership_word(domain, &new, now).await;
        Ok(ProofRecord { name, word: word.map_err(|error| store_failure(&error))? })
    }

    async fn shows(&self, record: &ProofRecord) -> Result<bool, DnsError> {
        let servers = AuthoritativeServers::new(
            self.world.dns.clone(),
            self.config.dns_port,
            self.config.allow_private_addresses,
        );
        let expected = record.text();
        match servers.lookup(&record.name, Kind::Txt).await {
            // An alias would let whoever has the zone of its target prove the domain, also long after.
            Ok(answer) if answer.aliases.is_empty() => {
                Ok(answer.texts().any(|text| text == expected.as_bytes()))
            }
            Ok(_) => Ok(false),
            Err(error) if error.is_absence() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn lookup_failure(&self, domain: &DomainName, record: &ProofRecord, error: &DnsError) -> Failure {
        Failure::new(
            format!("the proof that {domain} belongs to the tenant can't be looked up"),
            error,
            format!("All name servers of the zone have to show\n  {}\nThen run it again.", record.line()),
        )
    }
}

/// Describes that the tenant has not proved the domain.
fn unproved(domain: &DomainName, record: &ProofRecord) -> Failure {
    Failure::finding(
        format!("nothing is published for {domain}"),
        "the tenant has not proved yet that it owns the domain",
        format!(
            "Publish this record in its zone until {:.0}, then run it again:\n  {}",
            record.word.expires_at,
            record.line()
        ),
    )
}
