//! Pages for people, and the interface for control panels. Pages are made on the server and need no JavaScript; with
//! it there are buttons that copy.
//!
//! A request runs through these modules:
//!
//! | module | what it does |
//! | --- | --- |
//! | [`ClientAddr`] (`client_addr`) | finds out the address of the client, behind a proxy too |
//! | `dashboard` | the router: which page answers which path |
//! | `auth`, `sign_in`, `visitor` | invitations, passwords, sessions, CSRF tokens; their pages; who has signed in |
//! | `state` | what all pages work with |
//! | `overview`, `domain`, `reports`, `other_pages` | the pages |
//! | `actions` | what an operator does by a form |
//! | `chart`, `tables` | charts of days; every table as CSV and JSON |
//! | `layout` | what all pages share, and how errors are answered |
//!
//! Beside the dashboard: `report_post` takes TLS reports by HTTPS POST, `public_check` lets everybody check a domain,
//! [`admin`] is the interface for control panels, [`first_link`] makes the link for the first sign-in. Begin reading at
//! [`Dashboard`].

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod actions;
pub mod admin;
mod auth;
mod chart;
mod client_addr;
mod dashboard;
mod domain;
mod first_link;
mod layout;
mod other_pages;
mod overview;
mod public_check;
mod report_post;
mod reports;
mod sign_in;
mod state;
mod tables;
mod visitor;

pub use auth::invite;
pub use client_addr::ClientAddr;
pub use dashboard::router;
pub use first_link::first_link;
pub use public_check::router as public_check;
pub use report_post::{address, router as reports_by_post};
pub use state::Dashboard;
pub use visitor::Role;
