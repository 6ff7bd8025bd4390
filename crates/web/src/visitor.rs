//! The signed-in user and their role. `sign_in` attaches a [`Visitor`] to each request; pages and form handlers read
//! it.

use serde::Deserialize;
use store::Tenant;

/// A user's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// May view all pages
    Reader,
    /// May view all pages and make changes
    Operator,
}

impl Role {
    /// The role's name in the store and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
        }
    }

    /// The role's name on pages.
    pub fn title(self) -> &'static str {
        match self {
            Self::Reader => "Viewer",
            Self::Operator => "Operator",
        }
    }

    /// Parses a role's name. An unknown name gets the fewest rights.
    pub(crate) fn parse(text: &str) -> Self {
        if text == "operator" { Self::Operator } else { Self::Reader }
    }
}

/// A signed-in user.
#[derive(Debug, Clone)]
pub struct Visitor {
    pub name: String,
    pub role: Role,
    /// The CSRF token that each form of this session must carry.
    pub csrf_token: String,
    /// Whether the user belongs to the first tenant, and so may see what belongs to the installation.
    pub is_of_installation: bool,
}

impl Visitor {
    pub fn is_operator(&self) -> bool {
        self.role == Role::Operator
    }
}

/// The session of a request.
#[derive(Debug, Clone)]
pub struct CurrentSession {
    /// The tenant that the user belongs to.
    pub tenant: Tenant,
    /// The digest of the session's token.
    pub digest: String,
}

/// A form without fields other than its CSRF token (`word`).
#[derive(Deserialize)]
pub struct CsrfForm {
    pub word: String,
}
