//! `sternpost cache`: lists, shows, refreshes, purges, exports and imports the cached answers and policies of the running
//! server. It sends each request to the control socket ([`crate::control`]) and prints the response. `transfer` has
//! export and import.

mod transfer;

use crate::commands::query::remembered;
use crate::control;
use crate::serve::api::{Listed, Purged, parse_next_hop};
use crate::terminal::{say, show};
use crate::view::Remembered;
use config::Config;
use config::failure::{Exit, Failure};
use formats::counted::counted;
use hyper::Method;
use operations::world::domain;
use sender::answer::route::NextHop;
use std::fmt::Write;
use std::path::Path;

/// The subcommands of `sternpost cache`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the cached policies
    #[command(after_help = "Example:\n  sternpost cache list --limit 50")]
    List(List),
    /// Show the answer and the cached policy of a domain
    #[command(
        after_help = "Examples:\n  sternpost cache show example.org\n  sternpost cache show --map strict example.org"
    )]
    Show(Show),
    /// Remove a domain's answer and policy; nothing protects the domain until they are fetched again
    #[command(after_help = "Example:\n  sternpost cache purge example.org")]
    Purge(DomainArgs),
    /// Look up a domain now and replace its cached answer
    #[command(after_help = "Example:\n  sternpost cache refresh example.org")]
    Refresh(DomainArgs),
    /// Write the cached policies to standard output, one line of JSON for each, for `import` on another machine
    #[command(
        after_help = "Example:\n  sternpost cache export\n\nRedirect the output to a file, or pipe it to `ssh HOST sternpost cache import -` (docs/answers.md)."
    )]
    Export,
    /// Import the policies that another machine exported; they protect mail to domains that are new here
    #[command(
        after_help = "Examples:\n  sternpost cache import --dry-run policies.ndjson\n  sternpost cache import policies.ndjson\n\nExit codes: 0 all lines are valid, 1 some lines were refused, 2 usage error, 3 no server is running."
    )]
    Import(transfer::Import),
}

/// The options of `sternpost cache list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Maximum number of policies
    #[arg(long, default_value_t = 1000)]
    limit: u32,
    /// Continue after this domain, the last one of the previous list
    #[arg(long, default_value = "", hide_default_value = true)]
    after: String,
    /// Print one line of JSON (docs/answers.md)
    #[arg(long)]
    json: bool,
}

/// The options of `sternpost cache show`.
#[derive(Debug, clap::Args)]
pub struct Show {
    #[command(flatten)]
    domain: DomainArgs,
    /// Answer with the settings of this socketmap name, [answers.maps.NAME]
    #[arg(long, value_name = "NAME", value_parser = control::map_name)]
    map: Option<String>,
}

/// The options of the subcommands for one domain.
#[derive(Debug, clap::Args)]
pub struct DomainArgs {
    /// Domain, or next hop such as [mx.example.org]
    domain: String,
    /// Print one line of JSON (docs/answers.md)
    #[arg(long)]
    json: bool,
}

/// Sends the request to the running server and prints its response.
pub async fn run(command: &Command, config: Option<&Path>) -> Result<Exit, Failure> {
    let socket = Config::load(config)?.control();
    let (out, json) = match command {
        Command::Export => return transfer::export(&socket).await,
        Command::Import(import) => return transfer::import(import, &socket).await,
        Command::List(list) => {
            let after = if list.after.is_empty() { String::new() } else { domain(&list.after)?.to_string() };
            let path = format!("/v1/cache?most={}&after={after}", list.limit);
            let listed: Listed = control::ask(&socket, Method::GET, &path).await?;
            (if list.json { as_json(&listed) } else { listed_in_words(&listed) }, list.json)
        }
        Command::Show(one) => {
            known(control::show(&socket, &one.domain.next_hop()?, one.map.as_deref()).await?, &one.domain)
        }
        Command::Refresh(one) => {
            let path = format!("/v1/refresh/{}", one.next_hop()?);
            known(control::ask(&socket, Method::POST, &path).await?, one)
        }
        Command::Purge(one) => {
            let path = format!("/v1/policy/{}", one.next_hop()?);
            let purged: Purged = control::ask(&socket, Method::DELETE, &path).await?;
            let text = match purged.was_known {
                true => format!("{} is purged.\n", purged.next_hop),
                false => format!("{} was not cached.\n", purged.next_hop),
            };
            (if one.json { as_json(&purged) } else { text }, one.json)
        }
    };
    if json {
        say(&out)
    } else {
        show(&out)
    }
    Ok(Exit::Fine)
}

impl DomainArgs {
    fn next_hop(&self) -> Result<NextHop, Failure> {
        parse_next_hop(self.domain.trim()).map_err(|why| {
            Failure::usage(
                "not a valid next hop",
                why,
                "Give a domain, such as example.org, or [mx.example.org].",
            )
        })
    }
}

fn known(known: Remembered, one: &DomainArgs) -> (String, bool) {
    (if one.json { as_json(&known) } else { remembered(&known) }, one.json)
}

fn as_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn listed_in_words(listed: &Listed) -> String {
    let mut out = String::new();
    for policy in &listed.policies {
        let _ = writeln!(
            out,
            "{:<40} {:<8} id {:<20} until {}",
            policy.domain, policy.mode, policy.id, policy.expires_at
        );
    }
    let _ = writeln!(
        out,
        "{} listed; {} cached in {} KiB of memory.",
        counted(listed.policies.len(), "policy"),
        counted(listed.answers, "answer"),
        listed.bytes >> 10
    );
    if let (Some(last), true) = (listed.policies.last(), listed.has_more) {
        let _ = writeln!(out, "There are more policies: add --after {}", last.domain);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::api::ListedPolicy;

    #[test]
    fn a_listed_policy_says_until_when_it_holds() {
        let policy = ListedPolicy {
            domain: "a.example".to_owned(),
            mode: formats::Mode::Enforce,
            id: "1".to_owned(),
            fetched_at: "2026-11-28T10:00:00Z".to_owned(),
            expires_at: "2026-12-05T10:00:00Z".to_owned(),
        };
        let listed = Listed { schema: 1, policies: vec![policy], has_more: false, answers: 1, bytes: 1 };
        assert!(listed_in_words(&listed).contains("until 2026-12-05T10:00:00Z\n"));
    }
}
