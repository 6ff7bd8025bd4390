//! The context of all operations on domains: configuration, store, network clients, known domains and decisions.

use crate::database::{named_tenant, open_store};
use crate::file_domains::FileDomains;
use crate::ownership::OwnershipState;
use crate::publishers::{OwnHost, ProviderZone, Updates};
use crate::tenants::tenant_of;
use crate::unconfigured::Unconfigured;
use crate::world::{World, domain};
use config::failure::Failure;
use config::{Chosen, Config, ProviderSpec, fits};
use formats::{DomainName, Mode};
use jiff::SignedDuration;
use net::clock::Clock;
use net::dns::AuthoritativeServers;
use receiver::domain::{DnsBy, DomainSpec, HostedBy};
use receiver::host::order::ChallengeType;
use receiver::publish::DnsPublisher;
use receiver::rollout::decisions::Decisions;
use receiver::rollout::desired::DesiredState;
use receiver::rollout::gate::{Evidence, EvidenceInput, Gate, judge, may_promote_alone};
use receiver::rollout::guard::{Alert, AlertKind};
use receiver::rollout::plan::Permit;
use receiver::rollout::timeline::Reading;
use receiver::rollout::{Applier, ApplyError, Hosting, NewHosts, RolloutState};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use store::leases::LeaseHolder;
use store::tenants::TenantInfo;
use store::{PolicyDigest, Store, StoreError};

/// Gives access to everything that operations on domains need.
pub struct RolloutContext {
    /// The configuration in force.
    pub config: Config,
    /// The open store, for the tenant.
    pub store: Store,
    /// The tenant whose domains these are.
    pub tenant: TenantInfo,
    /// Clients of DNS, policy hosts and mail servers.
    pub world: Arc<World>,
    /// All domains of the configuration file and the store.
    pub known: Vec<DomainSpec>,
    /// Domains of the store whose settings can't be read, each with the reason.
    pub damaged: Vec<(String, String)>,
    /// Domains that are no longer configured, although senders may hold a policy of them.
    pub unconfigured: Vec<Unconfigured>,
    /// The domains of the configuration file, by name.
    in_file: Arc<FileDomains>,
    /// The operator's decisions, by domain name.
    decided: BTreeMap<String, Decisions>,
    /// This context's name for leases.
    pub(crate) holder: String,
    /// The folder of an empty store that is removed with the context; `None` if the store is the configured one.
    _scratch: Option<tempfile::TempDir>,
}

impl RolloutContext {
    /// Loads the configuration and opens the store, for the tenant that it or the command line names.
    pub async fn open(chosen: Chosen<'_>) -> Result<Self, Failure> {
        let config = Config::load_for(chosen)?;
        // An operator who names the file knows which store it has.
        let is_missing = |file: &Path| std::fs::exists(file).is_ok_and(|exists| !exists);
        let is_new = chosen.file.is_none() && config.store.file().is_some_and(is_missing);
        let store = open_store(&config).await?;
        if is_new {
            // In the wrong folder, or with the wrong file, this is the first sign.
            eprintln!("note: a new, empty store was created; this command uses {}", config.origins());
        }
        let world = Arc::new(World::new(&config)?);
        Self::at(config, store, world).await
    }

    /// As [`Self::open`], for a command that only shows something: it creates no store. Where none exists, the context has an
    /// empty one in a temporary folder.
    pub async fn open_to_show(chosen: Chosen<'_>) -> Result<Self, Failure> {
        let config = Config::load_for(chosen)?;
        if config.store.file().is_none_or(|file| std::fs::exists(file).unwrap_or(true)) {
            return Self::open(chosen).await;
        }
        let folder = tempfile::tempdir()
            .map_err(|error| Failure::new("can't create a temporary folder", error, "Set TMPDIR."))?;
        let path = folder.path().join("sternpost.db");
        let store =
            Store::open(&path, store::Tenant::FIRST).await.map_err(|error| file_failure(&path, &error))?;
        let store = named_tenant(&config, store).await?;
        let world = Arc::new(World::new(&config)?);
        Ok(Self { _scratch: Some(folder), ..Self::at(config, store, world).await? })
    }

    /// Creates a context from an open store and existing clients, for the tenant of the store. The domains of the configuration
    /// file belong to the first tenant.
    pub async fn at(config: Config, store: Store, world: Arc<World>) -> Result<Self, Failure> {
        let tenant = tenant_of(&store).await?;
        let mut context = Self {
            known: Vec::new(),
            damaged: Vec::new(),
            unconfigured: Vec::new(),
            in_file: Arc::new(FileDomains::new(&config)),
            decided: BTreeMap::new(),
            holder: holder(),
            _scratch: None,
            config,
            store,
            tenant,
            world,
        };
        context.learn().await?;
        Ok(context)
    }

    /// The same context with the domains and decisions as the store has them now. Fails as [`Self::learn`] does.
    pub async fn refreshed(&self) -> Result<Self, Failure> {
        let mut fresh = Self {
            config: self.config.clone(),
            store: self.store.clone(),
            tenant: self.tenant.clone(),
            world: self.world.clone(),
            known: Vec::new(),
            damaged: Vec::new(),
            unconfigured: Vec::new(),
            in_file: self.in_file.clone(),
            decided: BTreeMap::new(),
            holder: self.holder.clone(),
            _scratch: None,
        };
        fresh.learn().await?;
        Ok(fresh)
    }

    /// Reloads the domains and decisions from the store. Fails when a domain is both in the file and in the store.
    pub async fn learn(&mut self) -> Result<(), Failure> {
        let (mut added, mut damaged): (Vec<DomainSpec>, _) = (Vec::new(), Vec::new());
        for (name, spec) in self.store.domains().await.map_err(|error| store_failure(&error))? {
            match spec {
                Ok(spec) => added.push(spec),
                Err(error) => damaged.push((name, error.to_string())),
            }
        }
        if let Some(twice) = added.iter().find(|spec| self.is_in_file(&spec.name)) {
            return Err(Failure::usage(
                format!("{} is in the configuration file and in the store", twice.name),
                "a domain can be in one of them only",
                format!(
                    "Remove it from the file. To keep the file's version, then run\n  sternpost domains remove --although-bound {}\nand add it to the file again.",
                    twice.name
                ),
            ));
        }
        self.known = [self.file_domains().to_vec(), added].concat();
        self.decided.clear();
        for (name, decisions) in self.store.all_decisions().await.map_err(|error| store_failure(&error))? {
            match decisions {
                Ok(decisions) => drop(self.decided.insert(name, decisions)),
                // What was decided is not known, so nothing is done to the domain.
                Err(error) => {
                    self.known.retain(|spec| spec.name.as_str() != name);
                    damaged.push((name, error.to_string()));
                }
            }
        }
        self.damaged = damaged;
        self.unconfigured = self.find_unconfigured().await?;
        Ok(())
    }

    /// All domains that the guard watches: the known ones, and those that are no longer configured, by their last mode.
    pub fn watched(&self) -> Vec<DomainSpec> {
        let unconfigured = self.unconfigured.iter().map(Unconfigured::spec);
        self.known.iter().cloned().chain(unconfigured).collect()
    }

    /// The settings and decisions of a domain as they are stored now; `None` if it was removed.
    pub async fn current(&self, name: &DomainName) -> Result<Option<(DomainSpec, Decisions)>, Failure> {
        let Some(spec) = self.known_domain(name).await? else { return Ok(None) };
        let decisions = self.store.decisions(name).await.map_err(|error| store_failure(&error))?;
        Ok(Some((spec, decisions)))
    }

    /// The domains of the configuration file, if the context is that of the first tenant.
    pub fn file_domains(&self) -> &[DomainSpec] {
        if self.is_of_first() { &self.config.domains } else { &[] }
    }

    fn is_of_first(&self) -> bool {
        self.store.tenant() == store::Tenant::FIRST
    }

    /// True when the domain is one of the tenant's, and in the configuration file.
    pub fn is_in_file(&self, name: &DomainName) -> bool {
        self.is_of_first() && self.in_file.get(name).is_some()
    }

    /// True if the configuration file as it is now has other settings for the domain than this process: `[[domain]]` is read at
    /// the start only, and another process may work by the new settings. Also true if the file can't be parsed; false if it
    /// can't be read.
    pub fn is_changed_in_file(&self, name: &DomainName) -> bool {
        self.is_of_first() && self.in_file.is_changed(name)
    }

    /// Checks that the configuration has everything that a domain's settings refer to.
    pub fn fits(&self, spec: &DomainSpec) -> Result<(), Failure> {
        fits(spec, &self.config)?;
        self.desired(spec).aliases().map(drop).map_err(|error| {
            Failure::usage(
                format!("{} can't be delegated", spec.name),
                error,
                "Choose a shorter zone in [delegation].",
            )
        })
    }

    /// The current settings of a domain, from the file or the store; `None` when neither has it.
    pub async fn known_domain(&self, name: &DomainName) -> Result<Option<DomainSpec>, Failure> {
        match self.in_file.get(name).filter(|_| self.is_of_first()) {
            Some(spec) => Ok(Some(spec.clone())),
            None => self.store.domain(name).await.map_err(|error| store_failure(&error)),
        }
    }

    /// Stores the settings of a domain, and records the change in its journal.
    pub async fn keep(&self, spec: &DomainSpec, who: &str) -> Result<(), Failure> {
        self.only_in_store(&spec.name)?;
        self.fits(spec)?;
        if self.is_of_first() && self.known_ownership(&spec.name).await? == OwnershipState::OfOther {
            return Err(self.owned_by_other(&spec.name));
        }
        let fail = |error| store_failure(&error);
        self.store.put_domain(&spec.name, spec).await.map_err(fail)?;
        self.take_up(&spec.name).await?;
        let desired = serde_json::to_string(spec).unwrap_or_default();
        let what = format!("settings changed: {desired}");
        self.store.journal(&spec.name, self.world.clock.now(), who, &what).await.map_err(fail)
    }

    /// Removes a domain from the store. Its journal is kept.
    pub async fn remove(&self, name: &DomainName, removal: Removal, who: &str) -> Result<(), Failure> {
        self.only_in_store(name)?;
        let rollout = self.rollout(name).await?;
        let now = self.world.clock.now();
        let bound = rollout.published.iter().any(|promise| promise.mode != Mode::None && promise.is_out(now));
        if bound && removal == Removal::Free {
            return Err(Failure::finding(
                format!("{name} is not removed"),
                "senders may still hold its policy, which would no longer be maintained",
                format!(
                    "Retire it first:\n  sternpost domains set {name} --mode none\n  sternpost apply {name}\nor remove it with --although-bound (over HTTP: ?although_bound=true)."
                ),
            ));
        }
        let fail = |error| store_failure(&error);
        self.store.remove_domain(name).await.map_err(fail)?;
        if bound {
            let give_up = |kept: &mut RolloutState| kept.is_given_up = true;
            self.store.change_rollout(name, give_up).await.map_err(fail)?;
        }
        let what = if bound { "removed, although senders may still hold its policy" } else { "removed" };
        self.store.journal(name, now, who, what).await.map_err(fail)
    }

    /// Marks a domain that is configured again as one that is missed when it disappears. An observation does not do that: it may
    /// have begun before the domain was removed.
    pub(crate) async fn take_up(&self, name: &DomainName) -> Result<(), Failure> {
        if self.rollout(name).await?.is_given_up {
            let take_up = |kept: &mut RolloutState| kept.is_given_up = false;
            self.store.change_rollout(name, take_up).await.map_err(|error| store_failure(&error))?;
        }
        Ok(())
    }

    /// Fails for domains in the configuration file, which are changed there.
    pub fn only_in_store(&self, name: &DomainName) -> Result<(), Failure> {
        match self.is_in_file(name) {
            false => Ok(()),
            true => Err(Failure::usage(
                format!("{name} is in the configuration file"),
                "Sternpost never changes that file",
                "Edit the file.",
            )),
        }
    }

    /// The settings of a known domain; fails when the domain is unknown.
    pub fn find(&self, name: &DomainName) -> Result<DomainSpec, Failure> {
        self.known.iter().find(|spec| spec.name == *name).cloned().ok_or_else(|| {
            if let Some((_, why)) = self.damaged.iter().find(|(damaged, _)| damaged == name.as_str()) {
                let remedy = format!("A newer release may have written them. To set the domain up again:\n  sternpost domains remove --although-bound {name}\n  sternpost domains add {name}");
                return Failure::usage(format!("the settings of {name} can't be read"), why, remedy);
            }
            if let Some(missed) = self.unconfigured.iter().find(|missed| missed.name == *name) {
                return Failure::finding(missed.what(), missed.consequence(), missed.remedy());
            }
            let names = || self.known.iter().take(10).map(|spec| spec.name.as_str()).collect::<Vec<_>>().join(", ");
            let remedy = match self.known.is_empty() {
                true => format!("Read: {}.\nAdd it with `{}`, or `sternpost domains add {name}`.", self.config.origins(), self.config.init_command(name.as_str())),
                false => format!("Known domains: {}.\n`sternpost init {name}` proposes settings for a new one.", names()),
            };
            Failure::usage(format!("{name} is not a known domain"), "neither the configuration nor the store has it", remedy)
        })
    }

    /// The domains named on the command line, or all known domains if none is named.
    pub fn domains(&self, typed: &[String]) -> Result<Vec<DomainSpec>, Failure> {
        if typed.is_empty() && self.known.is_empty() {
            return Err(Failure::usage(
                "no domains",
                format!("there is none in {}", self.config.origins()),
                format!(
                    "Another configuration is named with --config. Generate settings from the current DNS records:\n  {}",
                    self.config.init_command("example.org")
                ),
            ));
        }
        match typed.is_empty() {
            true => Ok(self.known.clone()),
            false => typed.iter().map(|text| self.find(&domain(text)?)).collect(),
        }
    }

    /// The domains whose settings can't be read, as failures: a command for all domains reports them and goes on.
    pub fn unreadable(&self) -> Vec<Failure> {
        let named = |(name, why): &(String, String)| {
            Failure::new(
                format!("the settings of {name} can't be read"),
                why,
                format!("sternpost domains show {name}"),
            )
        };
        self.damaged.iter().map(named).collect()
    }

    /// The decisions in force for a domain.
    pub fn decisions(&self, name: &DomainName) -> Decisions {
        self.decided.get(name.as_str()).cloned().unwrap_or_default()
    }

    /// Stores decisions, and records them in the journal as `what`.
    pub async fn decide(
        &mut self,
        name: &DomainName,
        decisions: Decisions,
        who: &str,
        what: &str,
    ) -> Result<(), Failure> {
        let now = self.world.clock.now();
        let fail = |error| store_failure(&error);
        self.store.put_decisions(name, &decisions).await.map_err(fail)?;
        self.store.journal(name, now, who, what).await.map_err(fail)?;
        self.decided.insert(name.to_string(), decisions);
        Ok(())
    }

    /// The planner's input for a domain: its settings, limited by the decisions in force.
    pub fn desired(&self, spec: &DomainSpec) -> DesiredState {
        self.desired_under(spec, &self.decisions(&spec.name))
    }

    /// The planner's input for a domain under these decisions.
    pub fn desired_under(&self, spec: &DomainSpec, decisions: &Decisions) -> DesiredState {
        let desired = spec.desired(
            self.config.host.as_ref().and_then(|host| host.policy_host_target.clone()),
            self.config.delegation.clone(),
        );
        DesiredState { mode: decisions.allowed(desired.mode), ..desired }
    }

    /// Builds an applier for what needs no lease: to observe a domain, and to show its plan.
    pub fn applier(&self, spec: &DomainSpec) -> Result<Applier, Failure> {
        self.applier_on(spec, &self.store)
    }

    pub(crate) fn applier_on(&self, spec: &DomainSpec, store: &Store) -> Result<Applier, Failure> {
        let hosting: Option<Arc<dyn Hosting>> = match spec.host {
            HostedBy::Sternpost => {
                let (store, clock) = (store.clone(), self.world.clock.clone());
                let has_early_certificate = self.challenge(spec).is_some_and(|one| one.label().is_some());
                Some(Arc::new(OwnHost { store, clock, has_early_certificate }))
            }
            HostedBy::Static | HostedBy::Elsewhere => None,
        };
        Ok(Applier {
            dns: Arc::new(AuthoritativeServers::new(
                self.world.dns.clone(),
                self.config.dns_port,
                self.config.allow_private_addresses,
            )),
            policies: self.world.policies.clone(),
            publisher: publisher(&self.config, &self.world.clock, spec)?,
            hosting,
            new_hosts: NewHosts::AddToPolicy,
            omitted: self.decisions(&spec.name).omitted_endpoints(),
            store: store.clone(),
            clock: self.world.clock.clone(),
        })
    }

    /// How a CA validates the domain's policy host; `None` if no certificate is ordered, or if the CA's offer decides.
    pub fn challenge(&self, spec: &DomainSpec) -> Option<ChallengeType> {
        let host = self.config.host.as_ref().filter(|host| !host.authorities.is_empty())?;
        spec.challenge.or(host.challenge)
    }

    /// The alias by which the owner of a delegated domain lets us answer challenges in DNS: its name and its target.
    pub fn challenge_alias(&self, spec: &DomainSpec) -> Option<(DomainName, DomainName)> {
        let zone = self.config.delegation.as_ref().filter(|_| spec.delegated)?;
        let label = self.challenge(spec)?.label()?;
        let name = spec.name.below("mta-sts").and_then(|host| host.below(label)).ok()?;
        let target = zone.below(name.as_str()).ok()?;
        Some((name, target))
    }

    /// All aliases that the owner of a delegated domain publishes, once; empty if it is not delegated.
    pub fn delegated_names(&self, spec: &DomainSpec) -> Vec<(DomainName, DomainName)> {
        let mut aliases = self.desired(spec).aliases().unwrap_or_default();
        aliases.extend(self.challenge_alias(spec));
        aliases
    }

    /// Whether enforcement was approved, by the operator or by evidence.
    pub fn permit(rollout: &RolloutState) -> Permit {
        if rollout.approved.is_some() && !rollout.is_held { Permit::Enforce } else { Permit::Testing }
    }

    /// The stored planner state of a domain, on the time line of now; the default if none is stored.
    pub async fn rollout(&self, name: &DomainName) -> Result<RolloutState, Failure> {
        let stored = self.store.rollout(name).await.map_err(|error| store_failure(&error))?;
        let mut rollout: RolloutState = stored.unwrap_or_default();
        rollout.keep_time(&Reading::of(self.world.clock.as_ref()));
        Ok(rollout)
    }

    /// The evidence about a domain since its current mode began, and the gate's result.
    pub async fn gate(&self, name: &DomainName, rollout: &RolloutState) -> Result<(Evidence, Gate), Failure> {
        let fail = |error| store_failure(&error);
        let now = self.world.clock.now();
        let since = rollout.mode.map_or(now, |mode| mode.since);
        // Older reports say nothing about the current state, and an enforced domain may have years of them.
        let since = since.max(now.saturating_sub(EVIDENCE_WINDOW).unwrap_or(since));
        let reports = self.store.reports_about(name, since).await.map_err(fail)?;
        let probes = self.store.guard_probes(name, since).await.map_err(fail)?;
        let mx_hosts = self.store.mx_history(name).await.map_err(fail)?;
        let facts = EvidenceInput {
            reports: &reports,
            probes: &probes,
            mx_hosts: &mx_hosts,
            policy: rollout.newest().map(|newest| PolicyDigest::of_patterns(&newest.mx)),
            since,
            excused: &self.decisions(name).excused(),
            now,
        };
        let (mut evidence, gate) = judge(&facts, &self.config.thresholds);
        if evidence.days_covered == 0 {
            // Reports that were there first would seem to be lost.
            let window = now.saturating_sub(EVIDENCE_WINDOW).unwrap_or(now);
            let days = self.store.days_of(name, window).await.map_err(fail)?;
            let earlier = days.iter().filter(|day| day.day < since);
            let sessions = earlier.map(|day| day.successful.saturating_add(day.failed));
            evidence.earlier_sessions = sessions.fold(0, u64::saturating_add);
        }
        Ok((evidence, gate))
    }

    /// The active alerts of domains of which the guard reaches no MX host, by domain.
    pub async fn unreached(&self) -> Result<BTreeMap<String, Alert>, Failure> {
        let active = self.store.alerts::<Alert>().await.map_err(|error| store_failure(&error))?;
        let unreached = active.into_iter().filter(|one| one.alert.kind == AlertKind::MxUnreached);
        Ok(unreached.map(|one| (one.domain, one.alert)).collect())
    }

    /// Approves enforcement if the domain has `auto_promote`, the evidence is sufficient, and the guard's own probes of
    /// every MX host passed on the same days; true when it did.
    pub async fn promote_by_evidence(&self, spec: &DomainSpec) -> Result<bool, Failure> {
        // The operator may have decided something else since this context was created.
        let Some((spec, decisions)) = self.current(&spec.name).await? else { return Ok(false) };
        let rollout = self.rollout(&spec.name).await?;
        let is_open = spec.auto_promote
            && self.desired_under(&spec, &decisions).mode == Mode::Enforce
            && !rollout.is_held
            && rollout.approved.is_none()
            && rollout.mode.is_some_and(|known| known.mode == Mode::Testing);
        if !is_open {
            return Ok(false);
        }
        let (evidence, gate) = self.gate(&spec.name, &rollout).await?;
        if !may_promote_alone(&evidence, &gate, &self.config.thresholds) {
            return Ok(false);
        }
        let what = format!(
            "enforcement allowed by evidence: {} clean days, {} sessions from {} senders, failure rate below {:.2} %, all probes passed on {} of these days",
            evidence.clean_days,
            evidence.clean_sessions,
            evidence.senders,
            evidence.failure_rate_bound * 100.0,
            evidence.probes.clean_days
        );
        self.approve(&spec.name, &rollout, "auto_promote", &what, Hold::Keep).await
    }

    /// Whether the guard of `sternpost serve` carries out the domain's plan by itself (`guard.apply`).
    pub fn is_applied_by_guard(&self, spec: &DomainSpec) -> bool {
        let is_on = self.config.guard.as_ref().is_some_and(|guard| guard.apply);
        is_on && spec.host == HostedBy::Sternpost && spec.dns != DnsBy::Hand
    }

    /// Approves enforcement for the next `apply` with the MX hosts that were judged, in the state `judged`, and records it in
    /// the journal. False if other hosts are in testing now, or if the operator holds the domain and the approval does not end
    /// that.
    pub async fn approve(
        &self,
        name: &DomainName,
        judged: &RolloutState,
        who: &str,
        what: &str,
        hold: Hold,
    ) -> Result<bool, Failure> {
        let fail = |error| store_failure(&error);
        let now = self.world.clock.now();
        let mut is_approved = false;
        let allow = |rollout: &mut RolloutState| {
            let was_held = rollout.is_held;
            rollout.is_held = was_held && hold == Hold::Keep;
            is_approved = rollout.approve(judged, now);
            rollout.is_held = was_held && !is_approved;
        };
        self.store.change_rollout(name, allow).await.map_err(fail)?;
        if is_approved {
            self.store.journal(name, now, who, what).await.map_err(fail)?;
        }
        Ok(is_approved)
    }
}

/// Whether an approval ends a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// The approval ends the hold, since the operator gives it.
    End,
    /// The hold stays, since the approval follows from evidence.
    Keep,
}

/// What changes a domain's records; `None` if the operator does. Fails if the key of the name server or provider can't be
/// used.
pub(crate) fn publisher(
    config: &Config,
    clock: &Arc<dyn Clock>,
    spec: &DomainSpec,
) -> Result<Option<Arc<dyn DnsPublisher>>, Failure> {
    let zone = config.delegation.as_ref().filter(|_| spec.delegated).unwrap_or(&spec.name);
    Ok(match &spec.dns {
        DnsBy::Hand => None,
        DnsBy::Update(name) => match config.updates.iter().find(|server| server.name == *name) {
            Some(server) => Some(Arc::new(Updates::new(server, zone, clock.clone())?)),
            None => None,
        },
        DnsBy::Provider(service, name) => {
            let is_it = |known: &&ProviderSpec| known.service == *service && known.name == *name;
            match config.providers.iter().find(is_it) {
                Some(provider) => Some(Arc::new(ProviderZone::new(provider, zone)?)),
                None => None,
            }
        }
    })
}

/// Whether a domain may be removed while senders may hold its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Only if no sender can hold its policy.
    Free,
    /// Even if senders may hold its policy.
    AlthoughBound,
}

/// How far back reports and probes count as evidence.
const EVIDENCE_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 400);

/// A new name for leases, which identifies the process that holds them.
pub fn holder() -> String {
    LeaseHolder::new().to_string()
}

/// Describes to the operator why an SQLite file can't be opened.
pub(crate) fn file_failure(path: &Path, error: &StoreError) -> Failure {
    let why = match error {
        // The path is in the first part of the failure.
        StoreError::Open { why, .. } | StoreError::Broken { why, .. } => why.clone(),
        other => other.to_string(),
    };
    let is_of_root = |owner: &String| owner == "root";
    let exists = path.exists();
    let owner = config::machine::other_owner(path).filter(|owner| exists || !is_of_root(owner));
    let remedy = match (error, owner) {
        (StoreError::Newer { .. }, _) => {
            "Nothing was changed. Install that release again; or stop the server and restore the backup that was made before the upgrade:\n  sternpost restore FILE".to_owned()
        }
        (_, Some(owner)) if is_of_root(&owner) => {
            let (file, folder) = (path.display(), path.parent().unwrap_or(Path::new(".")).display());
            format!("It belongs to root. As root, give it to the owner of its folder:\n  chown --reference={folder} {file}")
        }
        (_, Some(owner)) => {
            format!("Its owner is {owner}. Run the command as that user:\n  runuser -u {owner} -- sternpost …")
        }
        _ => "The folder must exist and be writable; run this command as the user that `sternpost serve` runs as.\nSet another path with\n  store = \"sqlite:/var/lib/sternpost/sternpost.db\"".to_owned(),
    };
    Failure::usage(format!("the store {} can't be opened", path.display()), why, remedy)
}

/// Describes a failure of the store to the operator.
pub fn store_failure(error: &StoreError) -> Failure {
    let remedy = match error {
        StoreError::Unreachable { .. } => "Try again when the database answers.",
        StoreError::LeaseLost { .. } => {
            "Run the command again: it goes on from what the other process has done."
        }
        _ => "The disk may be full, or the file locked by another program.",
    };
    Failure::new("the store fails", error, remedy)
}

/// Describes a failure to plan or apply to the operator. A failed lookup is described with the resolvers that were asked.
pub fn apply_failure(domain: &DomainName, config: &Config, error: &ApplyError) -> Failure {
    let remedy = match error {
        ApplyError::Dns(_) => format!(
            "Nothing of this domain was changed, since a plan requires complete DNS data. The resolver is {}; the zone's own name servers are asked too.\nSee what a name server answers with `dig +dnssec`, then run it again.",
            resolvers(config)
        ),
        ApplyError::Publish(error) if error.is_conflict => {
            return Failure::finding(
                domain.to_string(),
                error,
                "Check what the other program changed, then run `sternpost apply` again: it takes what is there now into account.",
            );
        }
        ApplyError::Publish(_) => {
            "Fix the cause, then run `sternpost apply` again: it resumes where it stopped.".to_owned()
        }
        ApplyError::CutOff(_) => format!(
            "Nothing else of {domain} is changed before that. If the name server or the DNS provider answers again, run `sternpost apply {domain}`: it ends the change."
        ),
        ApplyError::Hosting(..)
        | ApplyError::Store(_)
        | ApplyError::NotSeen { .. }
        | ApplyError::Stopped(_)
        | ApplyError::Deadline(_) => "Run `sternpost apply` again: it resumes where it stopped.".to_owned(),
    };
    Failure::new(domain.to_string(), error, remedy)
}

/// The resolvers of a configuration, in words.
pub fn resolvers(config: &Config) -> String {
    let listed: Vec<String> = config.dns_servers.iter().map(ToString::to_string).collect();
    match listed.is_empty() {
        false => format!("{} ([dns] servers)", listed.join(" and ")),
        true => {
            let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            let named = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
            let named: Vec<&str> = named.map(str::trim).take(3).collect();
            match named.is_empty() {
                true => "that of /etc/resolv.conf".to_owned(),
                false => format!("{} (/etc/resolv.conf)", named.join(" and ")),
            }
        }
    }
}
