//! The commands, one module each: what can be typed, and what is printed.

pub mod apply;
pub mod cache;
pub mod check;
pub mod config;
pub mod dashboard;
pub mod domains;
pub mod export;
pub mod init;
pub mod lab;
pub mod plan;
pub mod promote;
pub mod query;
pub mod reports;
pub mod status;
