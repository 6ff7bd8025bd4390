//! The tenant that data belongs to. A [`Store`] is opened for one tenant, and its methods read and change the rows of that tenant
//! only; [`Store::of_tenant`] returns a handle for another one. What is looked up by a user name takes a [`Tenant`], and what is
//! looked up by a secret token returns the tenant that the token belongs to.
//!
//! Some data belongs to the installation and has no tenant: the sending side's policies, session counts and reports, and what is
//! served on the internet under a name, which is one host for everybody: policy files and certificates.

use crate::Store;
use crate::query::Value;
use std::sync::Arc;

/// A tenant of the store: the value of the columns `tenant`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(pub(crate) i64);

impl Tenant {
    /// The only tenant so far. Data from before there were tenants belongs to it.
    pub const FIRST: Self = Self(0);

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

impl From<Tenant> for Value<'_> {
    fn from(tenant: Tenant) -> Self {
        Self::Int(tenant.0)
    }
}

impl Store {
    /// The tenant whose data this handle reads and changes.
    pub fn tenant(&self) -> Tenant {
        self.tenant
    }

    /// The same database for another tenant.
    pub fn of_tenant(&self, tenant: Tenant) -> Self {
        let unverified = match tenant == self.tenant {
            true => Arc::clone(&self.unverified),
            false => Arc::default(),
        };
        Self { database: self.database.clone(), tenant, unverified, lease: self.lease.clone() }
    }
}

#[cfg(test)]
mod tests;
