//! `sternpost dashboard`: who may see the pages.

use crate::config::DashboardConfig;
use crate::dashboard::{Role, invite};
use crate::failure::{Exit, Failure};
use crate::rollout::{Desk, store_failure};
use crate::terminal::say;
use std::path::Path;

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
    let desk = Desk::open(named).await?;
    let exit = carry_out(command, &desk).await;
    desk.store.close().await;
    exit
}

async fn carry_out(command: &Command, desk: &Desk) -> Result<Exit, Failure> {
    let fail = |error| store_failure(&error);
    match command {
        Command::Invite { name, role } => {
            let config = desk.config.dashboard.as_ref().ok_or_else(off)?;
            let path = invite(&desk.store, desk.world.clock.now(), name, *role).await?;
            say(&format!("{}{path}", config.url));
        }
        Command::People => {
            let people = desk.store.people().await.map_err(fail)?;
            if people.is_empty() {
                say("Nobody may sign in yet. Make a link for the first:\n  sternpost dashboard invite NAME");
            }
            people.iter().for_each(|person| say(&format!("{} ({})", person.name, person.role)));
        }
        Command::Remove { name } => {
            if !desk.store.remove_person(name).await.map_err(fail)? {
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

/// When nobody may sign in yet: a link for the first, in a file that only the program's user can read.
pub async fn first_link(desk: &Desk, config: &DashboardConfig) -> Result<(), Failure> {
    if !desk.store.people().await.map_err(|error| store_failure(&error))?.is_empty() {
        return Ok(());
    }
    let path = invite(&desk.store, desk.world.clock.now(), "operator", Role::Operator).await?;
    let file = desk.config.store.with_file_name("dashboard-link");
    let written = write_secret(&file, &format!("{}{path}\n", config.url));
    written.map_err(|error| {
        Failure::new(
            format!("the link for the first sign-in can't be written to {}", file.display()),
            error,
            "The user that Sternpost runs as has to be able to write in that folder.",
        )
    })?;
    tracing::warn!(
        "nobody can sign in to the dashboard yet; a link for that, good for a day and once, is in {}",
        file.display()
    );
    Ok(())
}

fn write_secret(file: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    // What stands there may be readable by others, or be a link to elsewhere.
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    out.write_all(text.as_bytes())
}
