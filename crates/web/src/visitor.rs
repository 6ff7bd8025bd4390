//! Who has signed in, and with which rights.

use serde::Deserialize;

/// What somebody may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Look.
    Reader,
    /// Look, and change.
    Operator,
}

impl Role {
    /// The role as the store, the command line and pages write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
        }
    }

    /// What is not known may the least.
    pub(crate) fn parse(text: &str) -> Self {
        if text == "operator" { Self::Operator } else { Self::Reader }
    }
}

/// Somebody who has signed in.
#[derive(Debug, Clone)]
pub struct Visitor {
    pub name: String,
    pub role: Role,
    /// What their forms carry.
    pub csrf_token: String,
}

impl Visitor {
    pub fn is_operator(&self) -> bool {
        self.role == Role::Operator
    }
}

/// A form with nothing but its CSRF token.
#[derive(Deserialize)]
pub struct CsrfForm {
    pub word: String,
}
