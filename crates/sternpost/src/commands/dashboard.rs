//! `sternpost dashboard`: who may see the pages.

use crate::terminal::say;
use config::failure::{Exit, Failure};
use operations::{RolloutContext, store_failure};
use std::path::Path;
use web::{Role, invite};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a link by which somebody sets a password, once and within a day. For a forgotten password too
    Invite {
        /// What they call themselves
        name: String,
        /// What they may do
        #[arg(long, value_enum, default_value = "operator")]
        role: Role,
    },
    /// List who may sign in
    People,
    /// Take somebody away, with all sign-ins
    Remove {
        /// Whom
        name: String,
    },
}

/// Does it.
pub async fn run(command: &Command, named: Option<&Path>) -> Result<Exit, Failure> {
    let context = RolloutContext::open(named).await?;
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
                say("Nobody may sign in yet. Make a link for the first:\n  sternpost dashboard invite NAME");
            }
            people.iter().for_each(|person| say(&format!("{} ({})", person.name, person.role)));
        }
        Command::Remove { name } => {
            if !context.store.remove_person(name).await.map_err(fail)? {
                let remedy = "Who there is: sternpost dashboard people";
                return Err(Failure::finding(name, "there is nobody of that name", remedy));
            }
            say(&format!("{name} can't sign in any more."));
        }
    }
    Ok(Exit::Fine)
}

fn off() -> Failure {
    Failure::usage(
        "there are no pages",
        "the configuration does not switch them on",
        "Write into sternpost.toml\n  [dashboard]",
    )
}
