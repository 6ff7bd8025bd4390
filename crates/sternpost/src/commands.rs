//! The commands, one module each. A module defines the options of its command, calls the libraries, and prints the
//! outcome as text or JSON.

pub mod apply;
pub mod backup;
pub mod cache;
pub mod check;
pub mod config;
pub mod dashboard;
pub mod domains;
pub mod export;
pub mod init;
#[cfg(feature = "lab")]
pub mod lab;
pub mod manual;
pub mod nodes;
pub mod plan;
pub mod promote;
pub mod query;
pub mod reports;
pub mod status;
pub mod store;
pub mod summary;
pub mod tenants;
pub mod undo;
