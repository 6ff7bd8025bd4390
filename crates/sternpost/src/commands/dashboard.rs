//! `sternpost dashboard`: manages the dashboard's users in the store. A new user sets a password through a one-time
//! link, which `invite` prints on standard output; what it grants is on standard error.

use crate::terminal::say;
use config::Chosen;
use config::failure::{Exit, Failure};
use jiff::Timestamp;
use operations::{RolloutContext, store_failure};
use serde_json::json;
use std::collections::BTreeSet;
use store::Store;
use store::StoreError;
use store::people::{Invitation, Person};
use web::{Role, invite};

/// The subcommands of `sternpost dashboard`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a one-time link to set a password, valid for a day; also for forgotten passwords
    #[command(after_help = "Example:\n  sternpost dashboard invite alice --role reader")]
    Invite {
        /// Name of the dashboard user
        name: String,
        /// Role of the user; required for a new one, and by default that of an existing one
        #[arg(long, value_enum)]
        role: Option<Role>,
    },
    /// List the users, and the invitations that were not used yet
    // The name until version 0.1; scripts may have it.
    #[command(alias = "people", after_help = "Example:\n  sternpost dashboard users")]
    Users {
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove the second factor of a user who lost it; the password stays
    #[command(after_help = "Example:\n  sternpost dashboard remove-second-factor alice")]
    RemoveSecondFactor {
        /// Name of the dashboard user
        name: String,
    },
    /// Remove a user, and end the user's sessions and invitation
    #[command(after_help = "Example:\n  sternpost dashboard remove alice")]
    Remove {
        /// Name of the dashboard user
        name: String,
    },
}

/// Runs the subcommand on the store.
pub async fn run(command: &Command, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    let context = match command {
        Command::Users { .. } => RolloutContext::open_to_show(chosen).await?,
        _ => RolloutContext::open(chosen).await?,
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
            let new = invite(&context.store, &context.tenant, context.world.clock.now(), name, *role).await?;
            say(&format!("{}{}", config.url, new.path));
            eprintln!("{}\n{}", new.grants(Role::as_str), new.validity());
        }
        Command::Users { json } => {
            let users = Users::read(&context.store, context.world.clock.now()).await.map_err(fail)?;
            say(&if *json { users.to_json() } else { users.to_text() });
        }
        Command::RemoveSecondFactor { name } => {
            if !context.store.remove_second_factor(context.tenant.tenant, name).await.map_err(fail)? {
                let remedy = "List the users: sternpost dashboard users";
                return Err(Failure::finding(name, "no such user has a second factor", remedy));
            }
            say(&format!("{name} can sign in with the password alone."));
        }
        Command::Remove { name } => {
            let removed = context.store.remove_person(context.tenant.tenant, name).await.map_err(fail)?;
            match (removed.person, removed.invitation) {
                (true, _) => say(&format!("{name} is removed and signed out.")),
                (false, true) => say(&format!("The invitation for {name} has ended.")),
                (false, false) => {
                    let remedy = "List the users: sternpost dashboard users";
                    return Err(Failure::finding(name, "no such user", remedy));
                }
            }
        }
    }
    Ok(Exit::Fine)
}

/// The output of `sternpost dashboard users`.
struct Users {
    people: Vec<Person>,
    with_second_factor: BTreeSet<String>,
    invitations: Vec<Invitation>,
}

impl Users {
    async fn read(store: &Store, now: Timestamp) -> Result<Self, StoreError> {
        let tenant = store.tenant();
        Ok(Self {
            people: store.people(tenant).await?,
            with_second_factor: store.names_with_second_factor(tenant).await?,
            invitations: store.invitations(tenant, now).await?,
        })
    }

    fn to_text(&self) -> String {
        let person = |person: &Person| {
            let second = self.with_second_factor.contains(&person.name);
            format!("{} ({}{})", person.name, person.role, if second { ", second factor" } else { "" })
        };
        let invitation = |one: &Invitation| {
            let end = one.expires_at.strftime("%Y-%m-%d %H:%M UTC");
            format!("{} (invited, {}, until {end})", one.name, one.role)
        };
        let none =
            "No users yet. Create a link for the first one:\n  sternpost dashboard invite NAME".to_owned();
        let lines = self.people.iter().map(person);
        let lines = lines.chain(self.people.is_empty().then_some(none));
        lines.chain(self.invitations.iter().map(invitation)).collect::<Vec<_>>().join("\n")
    }

    fn to_json(&self) -> String {
        let person = |person: &Person| {
            json!({ "name": person.name, "role": person.role,
                    "second_factor": self.with_second_factor.contains(&person.name) })
        };
        let invitation =
            |one: &Invitation| json!({ "name": one.name, "role": one.role, "expires_at": one.expires_at });
        let users: Vec<_> = self.people.iter().map(person).collect();
        let invitations: Vec<_> = self.invitations.iter().map(invitation).collect();
        json!({ "schema": 1, "users": users, "invitations": invitations }).to_string()
    }
}

fn off() -> Failure {
    Failure::usage(
        "the dashboard is disabled",
        "the configuration has no section [dashboard]",
        "Add to sternpost.toml\n  [dashboard]",
    )
}
