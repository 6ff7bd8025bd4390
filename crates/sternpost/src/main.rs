//! `sternpost`: the program. `cli` says what it can do, one module a command does it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod cache_command;
mod check_command;
mod cli;
mod config;
mod config_command;
mod control;
mod dashboard;
mod dashboard_command;
mod demo;
mod failure;
mod lab_command;
mod query_command;
mod reports;
mod rollout;
mod serve;
mod terminal;
mod view;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
