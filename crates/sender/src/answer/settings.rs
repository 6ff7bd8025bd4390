//! The settings of the answer service that a reload of the configuration can change. The configuration makes them;
//! [`super::PolicyService`] has one set as the default, and a set for each named map ([`super::maps`]).

use super::decide::DefaultLevel;
use super::overrides::Overrides;
use formats::limits::RECORD_RECHECK;
use formats::tls_policy::Level;
use std::time::Duration;

/// The settings that a reload of the configuration can change.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Send TLSRPT attributes for every map, not only for those whose name requests them.
    pub tlsrpt: bool,
    /// The maximum time that a request waits for a lookup before it gets a temporary failure.
    pub patience: Duration,
    /// The minimum time between two lookups of a next hop; it applies when the TTL is shorter.
    pub recheck: Duration,
    /// The level for domains whose policy is in `testing`; `None` lets the mail server use its default level. With
    /// [`Level::Secure`], whose names are ignored, such policies are enforced.
    pub testing: Option<Level>,
    /// The mail server's default TLS level.
    pub default_level: DefaultLevel,
    /// The operator's override table.
    pub overrides: Overrides,
    /// The time without use after which a policy is no longer refreshed; `None` refreshes every policy.
    pub unused: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tlsrpt: false,
            patience: Duration::from_secs(20),
            recheck: RECORD_RECHECK,
            testing: None,
            default_level: DefaultLevel::May,
            overrides: Overrides::default(),
            unused: Some(UNUSED_AFTER),
        }
    }
}

/// The default of [`Settings::unused`]: 90 days.
const UNUSED_AFTER: Duration = Duration::from_secs(90 * 86_400);
