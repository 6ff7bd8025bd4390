//! `sternpost tenants`: the tenants of the installation. A tenant has domains, reports, alerts and users of its own; the other
//! commands work on those of the tenant that `--tenant` names.

use crate::terminal::{marks, say, show};
use config::Config;
use config::failure::{Exit, Failure};
use formats::Mode;
use jiff::Timestamp;
use net::clock::{Clock, SystemClock};
use operations::{open_installation, store_failure};
use receiver::rollout::RolloutState;
use receiver::rollout::timeline::Reading;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;
use store::tenants::{TenantInfo, TenantName, TenantRows};
use store::{ExportError, Store, StoreError, Tenant};

/// The subcommands of `sternpost tenants`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Add a tenant
    #[command(after_help = "Example:\n  sternpost tenants add acme --display-name \"Acme Inc.\"")]
    Add {
        /// Name in commands and paths: lower-case letters, digits and hyphens
        name: TenantName,
        /// Name for people [default: the name]
        #[arg(long, value_name = "TEXT", value_parser = display_name)]
        display_name: Option<String>,
    },
    /// List the tenants
    #[command(after_help = "Example:\n  sternpost tenants list")]
    List {
        /// Print one line of JSON (docs/tenants.md)
        #[arg(long)]
        json: bool,
    },
    /// Show what belongs to a tenant
    #[command(after_help = "Example:\n  sternpost tenants show acme")]
    Show {
        /// Name of the tenant
        name: TenantName,
        /// Print one line of JSON (docs/tenants.md)
        #[arg(long)]
        json: bool,
    },
    /// Print everything that belongs to a tenant, as lines of JSON, without passwords and other secrets
    #[command(after_help = "Example:\n  sternpost tenants export acme")]
    Export {
        /// Name of the tenant
        name: TenantName,
    },
    /// Remove a tenant that has nothing, or erase it with all that it has
    #[command(
        after_help = "Examples:\n  sternpost tenants remove acme\n  sternpost tenants remove --erase acme"
    )]
    Remove {
        /// Name of the tenant
        name: TenantName,
        /// Also delete its domains, reports, alerts, journal and users, and what is served for its domains
        #[arg(long)]
        erase: bool,
        /// With --erase: also if senders may still hold a policy of one of its domains
        #[arg(long, requires = "erase")]
        although_bound: bool,
    },
}

/// The longest name for people.
const MAX_DISPLAY_NAME: usize = 100;
/// How long the running servers need at most until they do nothing more for a tenant that is being erased.
const SETTLING_TIME: Duration = Duration::from_secs(5);

fn display_name(text: &str) -> Result<String, String> {
    let is_valid = !text.trim().is_empty()
        && text.chars().count() <= MAX_DISPLAY_NAME
        && !text.chars().any(char::is_control);
    let why = || format!("it takes 1 to {MAX_DISPLAY_NAME} characters without line breaks");
    is_valid.then(|| text.trim().to_owned()).ok_or_else(why)
}

/// Runs the subcommand on the store.
pub async fn run(command: &Command, named: Option<&Path>) -> Result<Exit, Failure> {
    let store = open_installation(&Config::load(named)?).await?;
    let done = match command {
        Command::Add { name, display_name } => add(&store, name, display_name.as_deref()).await,
        Command::List { json } => list(&store, *json).await,
        Command::Show { name, json } => show_one(&store, name, *json).await,
        Command::Export { name } => export(&store, name).await,
        Command::Remove { name, erase: false, .. } => remove(&store, name).await,
        Command::Remove { name, erase: true, although_bound } => erase(&store, name, *although_bound).await,
    };
    store.close().await;
    done.map(|()| Exit::Fine)
}

fn fail(error: StoreError) -> Failure {
    store_failure(&error)
}

async fn add(store: &Store, name: &TenantName, display_name: Option<&str>) -> Result<(), Failure> {
    let shown = display_name.unwrap_or(name.as_str());
    if store.add_tenant(name, shown, Timestamp::now()).await.map_err(fail)?.is_none() {
        return Err(Failure::usage(
            format!("the tenant {name} already exists"),
            "a name belongs to one tenant",
            "Choose another name, or list the tenants: sternpost tenants list",
        ));
    }
    say(&format!("{} the tenant {name} is added.", marks().fine));
    say(&format!(
        "  Add a domain:      sternpost domains add --tenant {name} example.org\n  Invite its users:  sternpost dashboard invite --tenant {name} alice --role operator"
    ));
    Ok(())
}

/// Finds a tenant, also one that is being erased.
async fn find(store: &Store, name: &TenantName) -> Result<TenantInfo, Failure> {
    let all = store.tenants().await.map_err(fail)?;
    all.into_iter().find(|one| one.name == *name).ok_or_else(|| {
        Failure::usage(
            format!("there is no tenant {name}"),
            "no tenant has this name",
            "List the tenants: sternpost tenants list",
        )
    })
}

/// Finds a tenant that can be removed.
async fn removable(store: &Store, name: &TenantName) -> Result<TenantInfo, Failure> {
    let found = find(store, name).await?;
    if found.tenant == Tenant::FIRST {
        return Err(Failure::usage(
            "main can't be removed",
            "it is the tenant of the installation itself",
            "Remove its domains one by one:\n  sternpost domains remove DOMAIN",
        ));
    }
    Ok(found)
}

async fn list(store: &Store, json: bool) -> Result<(), Failure> {
    let all = store.tenants().await.map_err(fail)?;
    let mut out = String::new();
    let mut found = Vec::new();
    for one in &all {
        let owned = store.of_tenant(one.tenant).owned_domains().await.map_err(fail)?;
        let leaving = if one.is_leaving { ", being erased" } else { "" };
        let _ = writeln!(out, "{:<24} {}{leaving}", one.name.as_str(), one.display_name);
        for domain in &owned {
            let _ = writeln!(out, "    owns {domain}");
        }
        found.push(json!({
            "name": one.name.as_str(), "display_name": one.display_name, "created_at": one.created_at,
            "is_leaving": one.is_leaving, "owns": owned,
        }));
    }
    let all = json!({ "schema": 1, "tenants": found });
    show(&if json { format!("{all}\n") } else { out });
    Ok(())
}

async fn show_one(store: &Store, name: &TenantName, json: bool) -> Result<(), Failure> {
    let found = find(store, name).await?;
    let of_tenant = store.of_tenant(found.tenant);
    let rows = of_tenant.tenant_rows().await.map_err(fail)?;
    let owned = of_tenant.owned_domains().await.map_err(fail)?;
    if json {
        let counts: Map<String, Value> =
            rows.iter().map(|one| (one.table.clone(), one.rows.into())).collect();
        let one = json!({
            "schema": 1, "name": found.name.as_str(), "display_name": found.display_name,
            "created_at": found.created_at, "is_leaving": found.is_leaving, "owns": owned, "rows": counts,
        });
        show(&format!("{one}\n"));
        return Ok(());
    }
    let mut out = format!("{} ({})\n", found.name, found.display_name);
    for domain in &owned {
        let _ = writeln!(out, "  owns {domain}");
    }
    out.push_str(&listed(&rows));
    show(&out);
    Ok(())
}

/// The numbers of rows, a line for each table.
fn listed(rows: &[TenantRows]) -> String {
    rows.iter().fold(String::new(), |mut out, one| {
        let _ = writeln!(out, "  {:<20} {} rows", one.table, one.rows);
        out
    })
}

async fn export(store: &Store, name: &TenantName) -> Result<(), Failure> {
    let found = find(store, name).await?;
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let head = json!({
        "schema": 1, "tenant": found.name.as_str(), "display_name": found.display_name,
        "created_at": found.created_at, "exported_at": Timestamp::now(),
    });
    let write = |line: &Value, out: &mut dyn std::io::Write| writeln!(out, "{line}");
    let mut exported = write(&head, &mut out).map_err(ExportError::from);
    if exported.is_ok() {
        let mut each =
            |table: &str, row: Map<String, Value>| write(&json!({ "table": table, "row": row }), &mut out);
        exported = store.of_tenant(found.tenant).export_tenant(&mut each).await;
    }
    match exported.and_then(|()| out.flush().map_err(ExportError::from)) {
        Ok(()) => Ok(()),
        Err(ExportError::Store(error)) => Err(fail(error)),
        Err(ExportError::Write(error)) => Err(Failure::new(
            "the export can't be written",
            error,
            "Run it again; what was written is not complete.",
        )),
    }
}

async fn remove(store: &Store, name: &TenantName) -> Result<(), Failure> {
    let found = removable(store, name).await?;
    let left = store.of_tenant(found.tenant).remove_tenant().await.map_err(fail)?;
    if left.is_empty() {
        say(&format!("{} the tenant {name} is removed.", marks().fine));
        return Ok(());
    }
    Err(Failure::finding(
        format!("the tenant {name} is not removed"),
        format!("it still has\n{}", listed(&left).trim_end()),
        format!(
            "Keep a copy, then erase it with all of that, and with what is served for its domains:\n  sternpost tenants export {name} > {name}.ndjson\n  sternpost tenants remove --erase {name}"
        ),
    ))
}

async fn erase(store: &Store, name: &TenantName, although_bound: bool) -> Result<(), Failure> {
    let found = removable(store, name).await?;
    let of_tenant = store.of_tenant(found.tenant);
    let bound = bound_domains(&of_tenant).await?;
    if !bound.is_empty() && !although_bound {
        return Err(Failure::finding(
            format!("the tenant {name} is not erased"),
            format!("senders may still hold the policies of {}", bound.join(", ")),
            format!(
                "Retire them first:\n  sternpost domains set --tenant {name} DOMAIN --mode none\n  sternpost apply --tenant {name}\nor erase it with --although-bound: senders that hold an enforced policy refuse mail if the MX hosts change."
            ),
        ));
    }
    let (rows, owned) = (of_tenant.tenant_rows().await, of_tenant.owned_domains().await);
    say(&format!("Erasing the tenant {name}:\n{}", listed(&rows.map_err(fail)?).trim_end()));
    for domain in owned.map_err(fail)? {
        say(&format!("  the served policy and the certificate of {domain}"));
    }
    of_tenant.begin_erasure().await.map_err(fail)?;
    of_tenant.erase_rows().await.map_err(fail)?;
    // Running servers may have written something that they had begun.
    if !store.nodes(Timestamp::now()).await.map_err(fail)?.is_empty() {
        tokio::time::sleep(SETTLING_TIME).await;
        of_tenant.erase_rows().await.map_err(fail)?;
    }
    let left = of_tenant.remove_tenant().await.map_err(fail)?;
    if !left.is_empty() {
        return Err(Failure::finding(
            format!("the tenant {name} is not erased completely"),
            format!("another process has written\n{}", listed(&left).trim_end()),
            format!("Run it again:\n  sternpost tenants remove --erase {name}"),
        ));
    }
    say(&format!("{} the tenant {name} is erased.", marks().fine));
    Ok(())
}

/// The domains of a tenant whose policies senders may hold.
async fn bound_domains(store: &Store) -> Result<Vec<String>, Failure> {
    let clock = SystemClock;
    let reading = Reading::of(&clock);
    let mut bound = Vec::new();
    for (name, state) in store.rollouts::<RolloutState>().await.map_err(fail)? {
        let is_bound = match state {
            Ok(mut state) => {
                state.keep_time(&reading);
                state.published.iter().any(|one| one.mode != Mode::None && one.is_out(clock.now()))
            }
            // What can't be read may be a policy.
            Err(_) => true,
        };
        if is_bound {
            bound.push(name);
        }
    }
    Ok(bound)
}
