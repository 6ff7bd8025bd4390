//! Whole-program tests against real servers. They need root, and the packages that `./test`
//! installs; where one is missing they fail.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod cluster;
mod day;
mod denial;
mod differential;
mod docs;
mod exim;
mod export;
mod faults;
mod front;
mod ground;
mod https;
mod journey;
mod lab;
mod mail_in;
mod names;
mod newest;
mod orders;
mod pages;
#[path = "../patience/mod.rs"]
mod patience;
mod pebble;
mod postfix;
mod postgresql;
mod provider_api;
mod providers;
mod runbook;
mod second;
mod senders;
mod sessions;
mod several;
mod sign_on;
mod store;
mod support;
mod table;
mod updates;
mod watch;
