//! The web interface: the dashboard for operators, the public domain check, and the HTTP API for control panels. Pages
//! are rendered on the server and work without JavaScript, which only adds copy buttons and the values of charts.
//!
//! A request passes through these modules:
//!
//! | module | purpose |
//! | --- | --- |
//! | [`ClientAddr`] (`client_addr`) | determines the client's address, also behind a reverse proxy |
//! | `dashboard` | the router, which maps paths to pages |
//! | `base_path`, `tenant_path`, `dashboards` | serve everything below the path of `dashboard.url`, and below the prefix of a tenant; the pages of each tenant |
//! | `forms` | receives the bodies of forms within a time and a share for each client |
//! | `auth`, `sign_in`, `visitor` | sessions and CSRF tokens; the steps of signing in; the signed-in user |
//! | `sign_in_limits`, `known_browser`, `passwords`, `one_time_codes` | limits for guessing; the cookie of a browser with a count of its own; hashes; second factors |
//! | `invitations`, `welcome`, `account` | links to set a password, and their page; what users change about themselves |
//! | `state`, `snapshot` | the state shared by all pages; all domains at one moment |
//! | `judge`, `incidents` | how urgently a domain needs the operator, and its next step; days on which too much failed |
//! | `overview`, `installation`, `domain`, `domain_check`, `reports`, `dmarc`, `other_pages` (with `effective_config`) | the pages |
//! | `actions` | form handlers for an operator's decisions |
//! | `chart`, `sender_rows`, `tables`, `text` | charts of sessions; rows about senders; CSV and JSON; numbers, times and names |
//! | `layout`, `notices` | the frame of all pages, security headers, error pages; the notice of the last action |
//!
//! Besides the dashboard, `report_post` receives TLS reports by HTTPS POST. `public_check` lets anyone check a domain.
//! [`admin`] is the API for control panels. [`first_link`] creates the link for the first sign-in. Begin reading at
//! [`Dashboard`].

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod account;
mod actions;
pub mod admin;
mod auth;
mod base_path;
mod chart;
mod client_addr;
mod counts;
mod dashboard;
mod dashboards;
mod dmarc;
mod domain;
mod domain_check;
mod effective_config;
mod first_link;
mod forms;
mod incidents;
mod installation;
mod invitations;
mod judge;
mod known_browser;
mod layout;
mod notices;
mod one_time_codes;
mod other_pages;
mod overview;
mod passwords;
mod public_check;
mod report_post;
mod reports;
mod sender_rows;
mod sign_in;
mod sign_in_limits;
mod signer;
mod snapshot;
mod state;
mod tables;
mod tenant_path;
#[cfg(test)]
mod tests;
mod text;
mod visitor;
mod welcome;

pub use client_addr::ClientAddr;
pub use counts::{Address, SafeName, WebCounts, refused_token};
pub use dashboard::router;
pub use first_link::first_link;
pub use invitations::{NewInvitation, invite};
pub use public_check::router as public_check;
pub use report_post::{address, router as reports_by_post};
pub use state::Dashboard;
pub use visitor::Role;
