//! A cause of failures, which is the unit in which failures are counted and excused.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A type of failure at one MX host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cause {
    /// The result type as in the report (RFC 8460 §4.3), such as `certificate-expired`.
    pub result: String,
    /// The MX host's name as the report has it; empty if the report names none.
    pub host: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_str() {
            "" => f.write_str(&self.result),
            host => write!(f, "{} at {host}", self.result),
        }
    }
}
