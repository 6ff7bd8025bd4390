//! The tenant that users, invitations and sessions belong to. There is one so far; what is looked up by a name takes a
//! [`Tenant`], and what is looked up by a secret token returns the tenant that the token belongs to.

use crate::database::TENANT;

/// A tenant of the store: the value of the columns `tenant`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(pub(crate) i64);

impl Tenant {
    /// The only tenant so far.
    pub const FIRST: Self = Self(TENANT);

    /// The tenant with this number in the columns `tenant`.
    pub const fn numbered(number: i64) -> Self {
        Self(number)
    }
}

impl std::fmt::Display for Tenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
