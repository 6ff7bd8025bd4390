//! `sternpost`: the program, a command line over libraries.
//!
//! `cli` lists the commands and runs one; `commands` has a module for each; `serve` runs the roles that the configuration
//! switches on; `demo` plays the demonstration. `terminal` prints, `view` shows answers, and `control` asks the running
//! program. The configuration is in the crate `config`, work on domains in `operations`, pages in `web`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod cli;
mod commands;
mod control;
mod demo;
mod serve;
mod terminal;
mod view;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
