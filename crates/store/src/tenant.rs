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

/// Which rows row-level security shows to the statements of a [`Store`] on PostgreSQL: those of one tenant, or those of all for the
/// work of the installation. The statements have conditions of their own; this is a second wall behind them.
#[cfg(feature = "postgres")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Tenant(Tenant),
    All,
}

#[cfg(feature = "postgres")]
impl Reach {
    /// What a direct connection has where no transaction says otherwise.
    pub const DEFAULT: Self = Self::Tenant(Tenant::FIRST);
}

#[cfg(feature = "postgres")]
impl std::fmt::Display for Reach {
    /// The value of the setting `sternpost.tenant`: a number or a word, without quotes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tenant(tenant) => tenant.fmt(f),
            Self::All => f.write_str("all"),
        }
    }
}

impl Store {
    /// The same handle for statements about the rows of all tenants: what a secret token or the owner of a domain decides, and
    /// what is removed when no tenant refers to it.
    pub(crate) fn across(&self) -> Self {
        Self { is_across: true, ..self.clone() }
    }

    /// Which rows the database shows.
    #[cfg(feature = "postgres")]
    pub(crate) fn reach(&self) -> Reach {
        if self.is_across { Reach::All } else { Reach::Tenant(self.tenant) }
    }

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
        Self {
            database: self.database.clone(),
            tenant,
            is_across: false,
            unverified,
            lease: self.lease.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
