//! `sternpost nodes`: the running servers that share the store.

use crate::terminal::{marks, say, show};
use config::Config;
use config::failure::{Exit, Failure};
use formats::counted::counted;
use jiff::Timestamp;
use operations::nodes::{NodeState, NodeView, nodes};
use operations::{open_store, store_failure};
use std::path::Path;

/// The options of `sternpost nodes`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Print one line of JSON (docs/postgresql.md)
    #[arg(long)]
    json: bool,
}

/// Shows the nodes.
pub async fn run(options: &Options, named: Option<&Path>) -> Result<Exit, Failure> {
    let config = Config::load(named)?;
    let is_missing = |file: &Path| std::fs::exists(file).is_ok_and(|exists| !exists);
    let all = match config.store.file().is_some_and(is_missing) {
        true => Vec::new(),
        false => {
            let store = open_store(&config).await?;
            let all = nodes(&store, Timestamp::now()).await.map_err(|error| store_failure(&error))?;
            store.close().await;
            all
        }
    };
    if options.json {
        show(&format!("{}\n", serde_json::json!({ "schema": 1, "nodes": all })));
    } else if all.is_empty() {
        say(&format!("No server runs with the store {}.", config.store));
    } else {
        all.iter().for_each(|node| say(&in_words(node)));
    }
    let is_silent = all.iter().any(|node| node.state == NodeState::Silent);
    Ok(if is_silent { Exit::Findings } else { Exit::Fine })
}

fn in_words(node: &NodeView) -> String {
    let (mark, state) = match node.state {
        NodeState::Running => {
            (marks().fine, format!("running, heard of {} ago", counted(node.silent_seconds, "second")))
        }
        NodeState::Silent => (
            marks().warning,
            format!(
                "silent for {}: it was killed, stands still, or does not reach the store",
                counted(node.silent_seconds, "second")
            ),
        ),
    };
    let pid = node.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
    let listed = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    format!(
        "{mark} {}{pid}: {state}\n    release {}, schema {}, started {:.0}\n    roles: {}\n    jobs for all servers: {}",
        node.name,
        node.version,
        node.store_schema,
        node.started_at,
        listed(&node.roles),
        listed(&node.jobs)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_node_is_shown_with_what_that_may_mean() {
        let node = NodeView {
            id: "1".to_owned(),
            name: "mail1".to_owned(),
            pid: Some(7),
            state: NodeState::Silent,
            version: "0.1.0".to_owned(),
            store_schema: 35,
            roles: vec!["guard".to_owned(), "inbox".to_owned()],
            jobs: Vec::new(),
            started_at: Timestamp::UNIX_EPOCH,
            seen_at: Timestamp::UNIX_EPOCH,
            silent_seconds: 90,
        };
        let text = in_words(&node);
        for part in ["mail1, process 7: silent for 90 seconds", "roles: guard, inbox", "servers: none"] {
            assert!(text.contains(part), "{text}");
        }
        // A node that was killed a moment ago is not silent yet.
        let text = in_words(&NodeView { state: NodeState::Running, silent_seconds: 9, ..node });
        assert!(text.contains("mail1, process 7: running, heard of 9 seconds ago"), "{text}");
    }
}
