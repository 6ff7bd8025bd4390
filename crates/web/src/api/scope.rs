//! Scopes: what the holder of a token may do.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// What a token allows. No scope contains another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Read domains, plans, reports, alerts and the journal
    Read,
    /// Change domains, apply plans, and decide about rollouts
    Manage,
    /// Check any domain, which connects to its servers
    Check,
    /// List, create and revoke tokens
    Tokens,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 4] = [Self::Read, Self::Manage, Self::Check, Self::Tokens];

    /// The name of the scope, in commands, the API and the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Manage => "manage",
            Self::Check => "check",
            Self::Tokens => "tokens",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The scopes of a token.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    /// All scopes.
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Parses names as the store has them. A scope of another release is left out: it allows nothing here.
    pub fn parse(text: &str) -> Self {
        let named = |name: &str| Scope::ALL.into_iter().find(|scope| scope.as_str() == name);
        text.split(' ').filter_map(named).collect()
    }

    /// True if the scope is one of them.
    pub fn has(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first scope that `other` does not have; `None` if it has all.
    pub fn beyond(&self, other: &Self) -> Option<Scope> {
        self.0.iter().copied().find(|scope| !other.has(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|scope| scope.as_str()).collect();
        f.write_str(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_stored_by_name_and_unknown_ones_allow_nothing() {
        assert_eq!(Scopes::parse(&Scopes::all().to_string()), Scopes::all());
        let some = Scopes::parse("manage read everything");
        assert_eq!(some.to_string(), "read manage");
        assert!(some.has(Scope::Read) && !some.has(Scope::Tokens));
        assert_eq!((some.beyond(&Scopes::all()), Scopes::all().beyond(&some)), (None, Some(Scope::Check)));
        assert!(Scopes::parse("").is_empty());
    }
}
