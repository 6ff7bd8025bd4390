//! `sternpost tokens`: manages the tokens of the HTTP API ([`web::api`]) in the store. A running server knows a new or revoked token
//! at its next request.

use crate::terminal::say;
use config::Chosen;
use config::failure::{Exit, Failure};
use operations::{RolloutContext, store_failure};
use store::api_tokens::ApiToken;
use web::api::{MAX_DAYS, Scope, TokenEnds, create_token, shown_token};

/// The subcommands of `sternpost tokens`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a token and print it; it can't be shown again
    #[command(
        after_help = "Example:\n  sternpost tokens add panel --scope read --scope manage --expires 90d"
    )]
    Add {
        /// Name of the token, for lists and the journal
        name: String,
        /// What the token may be used for; repeatable
        #[arg(long, value_enum, required = true, value_delimiter = ',')]
        scope: Vec<Scope>,
        /// Days until the token expires, such as 90d [default: never]
        #[arg(long, value_name = "DAYS", value_parser = days)]
        expires: Option<u32>,
    },
    /// List the tokens, without their secrets
    #[command(after_help = "Example:\n  sternpost tokens list")]
    List {
        /// Print one line of JSON (docs/api.md)
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token; requests with it are refused from now on
    #[command(after_help = "Example:\n  sternpost tokens revoke panel")]
    Revoke {
        /// Name of the token
        name: String,
    },
}

/// Parses a number of days, such as `90d`.
fn days(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('d').unwrap_or(text).parse().ok();
    number
        .filter(|days| (1..=MAX_DAYS).contains(days))
        .ok_or_else(|| format!("write it as a number of days from 1d to {MAX_DAYS}d, such as 90d"))
}

/// Runs the subcommand on the store.
pub async fn run(command: &Command, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    let context = match command {
        Command::List { .. } | Command::Revoke { .. } => RolloutContext::open_existing(chosen).await?,
        Command::Add { .. } => RolloutContext::open(chosen).await?,
    };
    let exit = carry_out(command, &context).await;
    context.store.close().await;
    exit
}

async fn carry_out(command: &Command, context: &RolloutContext) -> Result<Exit, Failure> {
    let (store, now) = (&context.store, context.world.clock.now());
    match command {
        Command::Add { name, scope, expires } => {
            let scopes = scope.iter().copied().collect();
            let (token, stored) =
                create_token(store, now, name, &scopes, TokenEnds { days: *expires, latest: None }).await?;
            say(&token);
            let end = match stored.expires_at {
                Some(end) => format!("until {}", end.strftime("%Y-%m-%d %H:%M UTC")),
                None => "until it is revoked".to_owned(),
            };
            eprintln!("The token {name} is valid {end}, with the scopes: {scopes}. It is not shown again.");
            if context.config.admin.is_none() {
                eprintln!("note: the configuration has no section [admin], which enables the API");
            }
        }
        Command::List { json } => {
            let tokens = store.api_tokens().await.map_err(|error| store_failure(&error))?;
            let json_of = || {
                let tokens: Vec<_> = tokens.iter().map(shown_token).collect();
                serde_json::json!({ "schema": 1, "tokens": tokens }).to_string()
            };
            say(&if *json { json_of() } else { in_words(&tokens, now) });
        }
        Command::Revoke { name } => {
            if !store.revoke_api_token(name).await.map_err(|error| store_failure(&error))? {
                let remedy = "List the tokens: sternpost tokens list";
                return Err(Failure::finding(name, "no such token", remedy));
            }
            say(&format!("The token {name} is revoked."));
        }
    }
    Ok(Exit::Fine)
}

fn in_words(tokens: &[ApiToken], now: jiff::Timestamp) -> String {
    if tokens.is_empty() {
        return "No tokens yet. Create one:\n  sternpost tokens add NAME --scope read".to_owned();
    }
    let day = |at: jiff::Timestamp| at.strftime("%Y-%m-%d %H:%M UTC").to_string();
    let line = |token: &ApiToken| {
        let end = match token.expires_at {
            None => "does not expire".to_owned(),
            Some(end) if end <= now => format!("expired at {}", day(end)),
            Some(end) => format!("until {}", day(end)),
        };
        let used = token.last_used.map_or("never used".to_owned(), |at| format!("last used at {}", day(at)));
        format!("{} ({}): {end}, {used}", token.name, token.scopes)
    };
    tokens.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_until_a_token_expires_is_a_number_of_days() {
        assert_eq!((days("90d"), days("7"), days("3650d")), (Ok(90), Ok(7), Ok(3650)));
        for text in ["0d", "3651d", "1w", "-1d", "", "d"] {
            assert!(days(text).is_err(), "{text}");
        }
    }
}
