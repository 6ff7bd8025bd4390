//! The running servers that share a store, and which of them does the jobs that are done once for all: for `sternpost nodes`,
//! the dashboard and the metrics.

use jiff::Timestamp;
use serde::Serialize;
use store::nodes::{Node, SILENT};
use store::{Store, StoreError};

/// The first word of the names of leases for jobs that are done once for all nodes.
pub const LEADER_PREFIX: &str = "leader ";

/// Whether a node was heard of lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It has written its row within a minute.
    Running,
    /// It has not, and has not stopped in an orderly way: it was killed, stands still, or does not reach the store.
    Silent,
}

impl NodeState {
    /// The word in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Silent => "silent",
        }
    }
}

/// A node as it is shown. Its JSON is documented in docs/postgresql.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeView {
    /// Random, and another one at each start.
    pub id: String,
    /// The host name.
    pub name: String,
    /// The process ID in its PID namespace; `None` if a later release writes it in another way.
    pub pid: Option<u32>,
    /// Whether it was heard of lately.
    pub state: NodeState,
    /// The release.
    pub version: String,
    /// The number of the schema of that release.
    pub store_schema: i64,
    /// The names of its roles.
    pub roles: Vec<String>,
    /// The jobs that it does for all nodes.
    pub jobs: Vec<String>,
    /// When it was started, by the clock of the database.
    pub started_at: Timestamp,
    /// When it was heard of last, by the clock of the database.
    pub seen_at: Timestamp,
    /// The number of seconds since then.
    pub silent_seconds: u64,
}

/// The nodes of a store, by name and start.
pub async fn nodes(store: &Store, now: Timestamp) -> Result<Vec<NodeView>, StoreError> {
    let leases = store.leases_in_force(LEADER_PREFIX, now).await?;
    let jobs = |node: &Node| {
        let of_node = leases.iter().filter(|(_, lease)| lease.holder == node.info.holder);
        of_node.filter_map(|(name, _)| Some(name.strip_prefix(LEADER_PREFIX)?.to_owned())).collect()
    };
    let view = |node: Node| NodeView {
        jobs: jobs(&node),
        pid: node.info.holder.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()),
        id: node.info.id,
        name: node.info.name,
        state: if node.silent < SILENT { NodeState::Running } else { NodeState::Silent },
        version: node.info.version,
        store_schema: node.schema,
        roles: node.info.roles,
        started_at: node.started_at,
        seen_at: node.seen_at,
        silent_seconds: node.silent.as_secs(),
    };
    Ok(store.nodes(now).await?.into_iter().map(view).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use store::nodes::NodeInfo;

    #[tokio::test]
    async fn a_node_is_shown_with_its_jobs_and_is_silent_after_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        for (name, second) in [("a", 1000), ("b", 1050)] {
            let holder = format!("{name} 7 1 boot/pid 1");
            let roles = vec!["guard".to_owned()];
            let info = NodeInfo { id: name.into(), holder, name: name.into(), version: "1".into(), roles };
            store.keep_node(&info, at(second)).await.unwrap();
            let job = format!("{LEADER_PREFIX}imap {name}");
            let length = Duration::from_secs(100);
            store.acquire(&job, &info.holder, at(second), length).await.unwrap().unwrap();
        }
        let all = nodes(&store, at(1060)).await.unwrap();
        let shown: Vec<_> = all
            .iter()
            .map(|one| (one.state.as_str(), one.silent_seconds, one.pid, one.jobs.join(",")))
            .collect();
        let expected = [("silent", 60, Some(7), "imap a"), ("running", 10, Some(7), "imap b")];
        assert_eq!(shown, expected.map(|(state, seconds, pid, jobs)| (state, seconds, pid, jobs.to_owned())));
        // The first one has lost its lease.
        store.release(&format!("{LEADER_PREFIX}imap a"), "a 7 1 boot/pid 1").await.unwrap();
        assert!(nodes(&store, at(1060)).await.unwrap()[0].jobs.is_empty());
    }
}
