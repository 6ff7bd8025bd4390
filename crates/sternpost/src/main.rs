//! The `sternpost` program: a command line on top of the workspace's libraries.
//!
//! Begin with `cli`, which parses the command line and runs one command. `commands` has a module for each command,
//! `serve` runs the roles that the configuration enables, and `demo` runs the demonstration. `control` is the client
//! of the running server's control socket, `interrupt` handles Ctrl-C, `view` formats policy answers, `terminal` writes to
//! standard output, and `replaced_file` writes files.
//! The configuration is in the crate `config`, operations on domains are in `operations`, the dashboard is in `web`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod cli;
mod commands;
mod control;
#[cfg(feature = "lab")]
mod demo;
mod interrupt;
mod log;
mod replaced_file;
mod serve;
mod terminal;
mod traces;
mod view;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
