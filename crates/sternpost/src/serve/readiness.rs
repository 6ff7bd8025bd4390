//! `/readyz`: whether each role is ready, and if not, why and since when. A role is not ready while the store fails, while
//! the resolver fails if the role needs it, and while one of its background tasks or sockets is down. Policy answers are
//! ready while a PostgreSQL database is away: they go on from memory and by lookups, and the outage would otherwise take all
//! servers out of a load balancer at once. `?role=` limits the answer to one role, for a load balancer that sends only the
//! requests of that role.

use super::resolver_watch::ResolverStatus;
use super::store_watch::StoreStatus;
use super::tasks::TaskStatus;
use config::Config;
use jiff::Timestamp;
use net::metrics::{self, Gauges, Registry};
use serde::Serialize;
use std::fmt::Write;
use std::sync::Arc;

/// A role of the server, by the name of its section of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoleName {
    Answers,
    Host,
    Guard,
    Inbox,
    Dashboard,
    Admin,
    Collector,
    Reporter,
}

impl RoleName {
    const ALL: [Self; 8] = [
        Self::Answers,
        Self::Host,
        Self::Guard,
        Self::Inbox,
        Self::Dashboard,
        Self::Admin,
        Self::Collector,
        Self::Reporter,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::Host => "host",
            Self::Guard => "guard",
            Self::Inbox => "inbox",
            Self::Dashboard => "dashboard",
            Self::Admin => "admin",
            Self::Collector => "collector",
            Self::Reporter => "reporter",
        }
    }

    /// The names of the enabled roles.
    pub fn enabled(config: &Config) -> Vec<&'static str> {
        Self::ALL.into_iter().filter(|role| role.is_enabled(config)).map(Self::as_str).collect()
    }

    fn is_enabled(self, config: &Config) -> bool {
        match self {
            Self::Answers => config.answers.is_some(),
            Self::Host => config.host.is_some(),
            Self::Guard => config.guard.is_some(),
            Self::Inbox => config.inbox.is_some(),
            Self::Dashboard => config.dashboard.is_some(),
            Self::Admin => config.admin.is_some(),
            Self::Collector => config.collector.is_some(),
            Self::Reporter => config.reporter.is_some(),
        }
    }

    /// Whether its work needs DNS. The policy host serves policies without it.
    fn needs_resolver(self) -> bool {
        matches!(self, Self::Answers | Self::Guard | Self::Inbox | Self::Reporter)
    }

    /// The role of a background task or a socket; `None` for those that serve all roles.
    fn of_task(task: &str) -> Option<Self> {
        Some(match task {
            "refresh" | "socketmap" | "lines" | "control" => Self::Answers,
            "policy-changes"
            | "certificate-files"
            | "certificate-orders"
            | "renewal-information"
            | "challenge-records"
            | "policies"
            | "policies for a proxy"
            | "challenges" => Self::Host,
            "guard" | "tenant-guards" | "weekly-summary" | "messenger" => Self::Guard,
            "imap" | "inbox-certificate" | "report-webhook" | "retention" | "retention-counts"
            | "tenants" | "smtp" | "lmtp" => Self::Inbox,
            "dashboard-certificate" | "dashboard" => Self::Dashboard,
            "admin" => Self::Admin,
            "collector"
            | "collector-socket"
            | "collector-certificate"
            | "old-tallies"
            | "forwarder"
            | "sessions" => Self::Collector,
            "reporter" | "prober" => Self::Reporter,
            _ => return None,
        })
    }
}

/// Why a role is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What failed: `store`, `resolver`, or `task` with its name.
    part: String,
    why: String,
    since: Timestamp,
}

impl Problem {
    /// A problem since a time, which is shown in whole seconds.
    fn new(part: impl Into<String>, why: String, since: Timestamp) -> Self {
        let since = Timestamp::from_second(since.as_second()).unwrap_or(since);
        Self { part: part.into(), why, since }
    }
}

/// The state of a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoleState {
    role: &'static str,
    ready: bool,
    problems: Vec<Problem>,
}

/// The states of roles at one time. Its JSON is documented in docs/monitoring.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct States {
    /// The version of this JSON format.
    schema: u32,
    /// True if all of the roles are ready.
    pub ready: bool,
    roles: Vec<RoleState>,
}

impl States {
    /// The states as text: `ready`, or a line for each problem of each role.
    pub fn in_words(&self) -> String {
        let mut text = String::new();
        for state in &self.roles {
            for Problem { part, why, since } in &state.problems {
                // Writing to a String does not fail.
                let _ = writeln!(text, "{}: not ready since {since}: {part}: {why}; see the log", state.role);
            }
        }
        if text.is_empty() { "ready\n".to_owned() } else { text }
    }
}

/// Judges the roles that are enabled.
pub struct Readiness {
    enabled: Vec<RoleName>,
    /// Whether the store is a PostgreSQL database.
    has_database: bool,
    pub tasks: Arc<TaskStatus>,
    pub resolver: Arc<ResolverStatus>,
    pub store: Arc<StoreStatus>,
    ready: Gauges,
}

impl Readiness {
    pub fn new(
        config: &Config,
        tasks: Arc<TaskStatus>,
        resolver: Arc<ResolverStatus>,
        store: Arc<StoreStatus>,
    ) -> Self {
        let enabled = RoleName::ALL.into_iter().filter(|role| role.is_enabled(config)).collect();
        let has_database = config.store.file().is_none();
        Self { enabled, has_database, tasks, resolver, store, ready: Gauges::new(&metrics::ROLE_READY) }
    }

    /// Registers the metric `role_ready`, which [`Self::update`] sets.
    pub fn register(&self, registry: &mut Registry) {
        self.ready.register(registry);
    }

    /// Sets the metric `role_ready` to the present states.
    pub fn update(&self) {
        for state in self.states(None).iter().flat_map(|states| &states.roles) {
            self.ready.set(&[state.role], state.ready.into());
        }
    }

    /// The states of all roles, or of the named one. `None` if there is no enabled role of that name.
    pub fn states(&self, named: Option<&str>) -> Option<States> {
        let is_asked = |role: &&RoleName| named.is_none_or(|name| role.as_str() == name);
        let roles: Vec<RoleState> =
            self.enabled.iter().filter(is_asked).map(|role| self.state(*role)).collect();
        match named.is_some() && roles.is_empty() {
            true => None,
            false => Some(States { schema: 1, ready: roles.iter().all(|role| role.ready), roles }),
        }
    }

    /// The names of the enabled roles.
    pub fn names(&self) -> String {
        self.enabled.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn state(&self, role: RoleName) -> RoleState {
        let mut problems = Vec::new();
        let goes_on = self.has_database && role == RoleName::Answers;
        if let Some((why, since)) = self.store.problem().filter(|_| !goes_on) {
            problems.push(Problem::new("store", format!("the store fails: {why}"), since));
        }
        if let Some((why, since)) = self.resolver.problem().filter(|_| role.needs_resolver()) {
            problems.push(Problem::new("resolver", why.to_owned(), since));
        }
        for down in self.tasks.down() {
            if RoleName::of_task(down.task).is_none_or(|of| of == role) {
                let why = format!("it ended unexpectedly: {}", down.why);
                problems.push(Problem::new(format!("task {}", down.task), why, down.since));
            }
        }
        RoleState { role: role.as_str(), ready: problems.is_empty(), problems }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::clock::ManualClock;

    fn readiness() -> Readiness {
        let text = "[answers]\n[host]\nlisten = [\"127.0.0.1:8443\"]\n[dashboard]\n";
        let clock = Arc::new(ManualClock::new("2026-11-27T17:00:00.25Z".parse().unwrap()));
        Readiness::new(
            &Config::parse(text, None).unwrap(),
            Arc::new(TaskStatus::new(clock.clone())),
            Arc::new(ResolverStatus::new(clock.clone())),
            Arc::new(StoreStatus::new(clock)),
        )
    }

    #[test]
    fn a_task_that_ended_fails_its_role_and_no_other() {
        let readiness = readiness();
        assert_eq!(readiness.states(None).unwrap().in_words(), "ready\n");
        readiness.tasks.ended("certificate-orders", "it returned");
        let states = readiness.states(None).unwrap();
        assert_eq!(
            states.in_words(),
            "host: not ready since 2026-11-27T17:00:00Z: task certificate-orders: it ended unexpectedly: it returned; see the log\n"
        );
        let ready = |role| readiness.states(Some(role)).map(|states| states.ready);
        assert_eq!((ready("answers"), ready("host"), ready("guard")), (Some(true), Some(false), None));
        assert!(!states.ready);
        let json = serde_json::to_value(&states).unwrap();
        assert_eq!(json["roles"][1]["problems"][0]["since"], "2026-11-27T17:00:00Z", "{json}");
        assert_eq!((&json["schema"], &json["roles"][0]["ready"]), (&1.into(), &true.into()), "{json}");
    }

    #[test]
    fn a_task_of_no_role_fails_all() {
        let readiness = readiness();
        readiness.tasks.ended("resolv-conf", "it returned");
        assert_eq!(readiness.states(None).unwrap().in_words().lines().count(), 3);
    }

    /// The names of tasks and sockets in the sources of the roles.
    #[test]
    fn every_task_belongs_to_a_role() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/serve");
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let sources = files
            .filter(|path| path.is_file() && !path.ends_with("readiness.rs"))
            .map(|path| std::fs::read_to_string(path).unwrap());
        let all: String = sources.collect::<String>() + include_str!("../serve.rs");
        let named = |before: &str| -> Vec<String> {
            let parts = all.split(before).skip(1);
            parts
                .filter_map(|part| Some(part.trim_start().strip_prefix('"')?.split_once('"')?.0.to_owned()))
                .collect()
        };
        let names: Vec<String> = ["tasks.spawn(", "tasks.lead(", "status.supervise(", "tasks.ended("]
            .into_iter()
            .flat_map(named)
            .collect();
        assert!(names.len() > 15, "{names:?}");
        let common = ["node", "resolv-conf", "store-probe", "watchdog"];
        for name in names {
            assert!(
                RoleName::of_task(&name).is_some() || common.contains(&name.as_str()),
                "{name} has no role"
            );
        }
    }
}
