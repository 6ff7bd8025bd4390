//! What failed, and where: the unit in which failures are counted and excused.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A kind of failure at one MX host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cause {
    /// The result type's name.
    pub result: String,
    /// The MX host as the reports name it, empty when they do not.
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
