//! The web interface: the dashboard for operators, the public domain check, and the HTTP API for control panels. Pages
//! are rendered on the server and work without JavaScript, which only adds copy buttons and the values of charts.
//!
//! A request passes through these modules:
//!
//! | module | purpose |
//! | --- | --- |
//! | [`ClientAddr`] (`client_addr`) | determines the client's address, also behind a reverse proxy |
//! | `dashboard` | the router, which maps paths to pages |
//! | `auth`, `sign_in`, `visitor` | invitations, passwords, sessions and CSRF tokens; their pages; the signed-in user |
//! | `state`, `snapshot` | the state shared by all pages; all domains at one moment |
//! | `judge` | how urgently a domain needs the operator, and its next step |
//! | `overview`, `domain`, `reports`, `dmarc`, `other_pages` (with `effective_config`) | the pages |
//! | `actions` | form handlers for an operator's decisions |
//! | `chart`, `sender_rows`, `tables`, `text` | charts of sessions; rows about senders; CSV and JSON; numbers, times and names |
//! | `layout` | the frame of all pages, security headers, error pages |
//!
//! Besides the dashboard, `report_post` receives TLS reports by HTTPS POST. `public_check` lets anyone check a domain.
//! [`admin`] is the API for control panels. [`first_link`] creates the link for the first sign-in. Begin reading at
//! [`Dashboard`].

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod actions;
pub mod admin;
mod auth;
mod chart;
mod client_addr;
mod counts;
mod dashboard;
mod dmarc;
mod domain;
mod effective_config;
mod first_link;
mod judge;
mod layout;
mod other_pages;
mod overview;
mod public_check;
mod report_post;
mod reports;
mod sender_rows;
mod sign_in;
mod snapshot;
mod state;
mod tables;
mod text;
mod visitor;

pub use auth::invite;
pub use client_addr::ClientAddr;
pub use counts::{Address, SafeName, WebCounts, refused_token};
pub use dashboard::router;
pub use first_link::first_link;
pub use public_check::router as public_check;
pub use report_post::{address, router as reports_by_post};
pub use state::Dashboard;
pub use visitor::Role;
