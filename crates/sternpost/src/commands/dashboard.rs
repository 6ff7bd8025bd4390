//! `sternpost dashboard`: manages the dashboard's users in the store. A new user sets a password through a one-time
//! link, which `invite` prints.

use crate::terminal::say;
use config::failure::{Exit, Failure};
use operations::{RolloutContext, store_failure};
use std::path::Path;
use web::{Role, invite};

/// The subcommands of `sternpost dashboard`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a one-time link to set a password, valid for a day; also for forgotten passwords
    #[command(after_help = "Example:\n  sternpost dashboard invite alice --role reader")]
    Invite {
        /// User name
        name: String,
        /// Role of the user
        #[arg(long, value_enum, default_value = "operator")]
        role: Role,
    },
    /// List the users
    #[command(after_help = "Example:\n  sternpost dashboard people")]
    People,
    /// Remove a user and end the user's sessions
    #[command(after_help = "Example:\n  sternpost dashboard remove alice")]
    Remove {
        /// User name
        name: String,
    },
}

/// Runs the subcommand on the store.
pub async fn run(command: &Command, named: Option<&Path>) -> Result<Exit, Failure> {
    let context = match command {
        Command::People => RolloutContext::open_to_show(named).await?,
        Command::Invite { .. } | Command::Remove { .. } => RolloutContext::open(named).await?,
    };
    let exit = carry_out(command, &context).await;
    context.store.close().await;
    exit
}

async fn carry_out(command: &Command, context: &RolloutContext) -> Result<Exit, Failure> {
    let fail = |error| store_failure(&error);
    match command {
        Command::Invite { name, role } => {
            let config = context.config.dashboard.as_ref().ok_or_else(off)?;
            let path = invite(&context.store, context.world.clock.now(), name, *role).await?;
            say(&format!("{}{path}", config.url));
        }
        Command::People => {
            let people = context.store.people().await.map_err(fail)?;
            if people.is_empty() {
                say("No users yet. Create a link for the first one:\n  sternpost dashboard invite NAME");
            }
            people.iter().for_each(|person| say(&format!("{} ({})", person.name, person.role)));
        }
        Command::Remove { name } => {
            if !context.store.remove_person(name).await.map_err(fail)? {
                let remedy = "List the users: sternpost dashboard people";
                return Err(Failure::finding(name, "no such user", remedy));
            }
            say(&format!("{name} is removed and signed out."));
        }
    }
    Ok(Exit::Fine)
}

fn off() -> Failure {
    Failure::usage(
        "the dashboard is disabled",
        "the configuration has no section [dashboard]",
        "Add to sternpost.toml\n  [dashboard]",
    )
}
