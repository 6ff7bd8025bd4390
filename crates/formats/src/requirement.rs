//! How strongly a requirement of an RFC binds (RFC 2119). The yardstick for senders and the audit of a domain use the same
//! words, in tables and in JSON.

/// The level of a requirement, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The RFC allows it, and real domains rely on it.
    May,
    /// The RFC recommends it.
    Should,
    /// The RFC demands it.
    Must,
    /// The RFC demands it, and an attacker on the path gets mail where it is violated.
    Security,
}

impl Level {
    /// The word in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::May => "MAY",
            Self::Should => "SHOULD",
            Self::Must => "MUST",
            Self::Security => "security",
        }
    }
}
