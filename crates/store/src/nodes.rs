//! The nodes: the running servers that share the database. Each writes its row again every few seconds and removes it at an
//! orderly stop, so the row of one that was killed says since when nothing was heard of it. Times are by the clock that leases
//! have as well (see [`crate::leases`]): on PostgreSQL by that of the database, so that the clock of a node does not matter.

use crate::leases::present;
use crate::query::{FromRow, Row, built, sql};
use crate::{Store, StoreError, count, migrations, time};
use jiff::Timestamp;
use std::time::Duration;

/// What a server says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// 128 random bits in hexadecimal digits, chosen at the start of the process: host name and process ID are the same in two
    /// containers.
    pub id: String,
    /// The text by which it holds leases ([`crate::leases::LeaseHolder`]).
    pub holder: String,
    /// The host name, for people.
    pub name: String,
    /// The release.
    pub version: String,
    /// The names of the roles that it runs.
    pub roles: Vec<String>,
}

/// A server that has not stopped in an orderly way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it says about itself.
    pub info: NodeInfo,
    /// The number of the last migration that its release knows.
    pub schema: i64,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it wrote its row last.
    pub seen_at: Timestamp,
    /// The time since then; until then, if the clock was ahead at that time.
    pub silent: Duration,
}

/// A node of which nothing was heard for this time is silent: it was killed, stands still, or does not reach the store.
pub const SILENT: Duration = Duration::from_secs(60);
/// Nodes of which nothing was heard for this time are forgotten.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

impl Store {
    /// Writes that a node runs. Forgets those that were silent for a day, and silent ones whose place this node has taken: with
    /// its host name and its roles. `now` counts on SQLite only.
    pub async fn keep_node(&self, node: &NodeInfo, now: Timestamp) -> Result<(), StoreError> {
        let roles = node.roles.join(" ");
        let seen = present(self.dialect(), "$6");
        let upsert = built(format!(
            "INSERT INTO node (id, name, version, schema, roles, started_at, seen_at, holder) \
             VALUES ($1, $2, $3, $4, $5, {seen}, {seen}, $7) \
             ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, roles = excluded.roles"
        ));
        let upsert = upsert.bind(&node.id).bind(&node.name).bind(&node.version).bind(migrations::newest());
        upsert.bind(&roles).bind(now.as_second()).bind(&node.holder).execute(self).await?;
        let present = present(self.dialect(), "$1");
        let forget = built(format!(
            "DELETE FROM node WHERE abs({present} - seen_at) > $2 \
             OR (name = $3 AND roles = $4 AND id <> $5 AND abs({present} - seen_at) >= $6)"
        ));
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let forget = forget.bind(now.as_second()).bind(seconds(FORGOTTEN)).bind(&node.name).bind(&roles);
        forget.bind(&node.id).bind(seconds(SILENT)).execute(self).await.map(drop)
    }

    /// Removes the row of a node that stops.
    pub async fn remove_node(&self, id: &str) -> Result<(), StoreError> {
        sql("DELETE FROM node WHERE id = $1").bind(id).execute(self).await.map(drop)
    }

    /// Returns all nodes, by name and start. `now` counts on SQLite only.
    pub async fn nodes(&self, now: Timestamp) -> Result<Vec<Node>, StoreError> {
        let select = built(format!(
            "SELECT id, holder, name, version, roles, schema, started_at, seen_at, abs({} - seen_at) FROM node \
             ORDER BY name, started_at, id",
            present(self.dialect(), "$1")
        ));
        select.bind(now.as_second()).fetch_all(self).await
    }
}

impl FromRow for Node {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        let (id, holder, name, version) = (row.get()?, row.get()?, row.get()?, row.get()?);
        let roles: String = row.get()?;
        let roles = roles.split_whitespace().map(str::to_owned).collect();
        Ok(Self {
            info: NodeInfo { id, holder, name, version, roles },
            schema: row.get()?,
            started_at: time("node", row.get()?)?,
            seen_at: time("node", row.get()?)?,
            silent: Duration::from_secs(count(row.get()?)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, roles: &[&str]) -> NodeInfo {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        NodeInfo {
            id: id.to_owned(),
            holder: format!("host-{id} 7"),
            name: format!("host-{id}"),
            version: "1".to_owned(),
            roles,
        }
    }

    #[tokio::test]
    async fn a_node_is_there_from_its_first_word_to_its_stop_or_a_day_of_silence() {
        let (_dir, store) = crate::scratch().await;
        let now = Timestamp::now();
        let (first, second) = (node("a", &["answers", "guard"]), node("b", &[]));
        store.keep_node(&first, now).await.unwrap();
        store.keep_node(&second, now).await.unwrap();
        let all = store.nodes(now).await.unwrap();
        assert_eq!(all.iter().map(|one| &one.info).collect::<Vec<_>>(), [&first, &second]);
        assert_eq!((all[0].schema, all[0].started_at), (migrations::newest(), all[0].seen_at));
        assert!(all[0].silent < Duration::from_secs(60), "{:?}", all[0].silent);
        // One hour of silence, then a day.
        let earlier = async |seconds: i64| {
            let update =
                sql("UPDATE node SET seen_at = seen_at - $1, started_at = started_at - $1 WHERE id = 'b'");
            update.bind(seconds).execute(&store).await.unwrap();
            store.keep_node(&first, now).await.unwrap();
            store.nodes(now).await.unwrap()
        };
        let all = earlier(3600).await;
        assert!(all[1].silent >= Duration::from_secs(3600) && all[0].silent < Duration::from_secs(60));
        // Its row was written while the clock was ahead.
        let all = earlier(-7200).await;
        assert!(all[1].silent > Duration::from_secs(3500), "{:?}", all[1].silent);
        assert_eq!(earlier(26 * 3600).await.len(), 1);
        store.keep_node(&second, now).await.unwrap();
        assert_eq!(earlier(-25 * 3600).await.len(), 1);
        store.remove_node("a").await.unwrap();
        assert_eq!(store.nodes(now).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_node_that_was_started_again_takes_the_place_of_its_silent_row() {
        let (_dir, store) = crate::scratch().await;
        let now = Timestamp::now();
        let killed = node("a", &["guard"]);
        let again = NodeInfo { id: "b".to_owned(), ..killed.clone() };
        let other = NodeInfo { id: "c".to_owned(), roles: vec!["answers".to_owned()], ..killed.clone() };
        for node in [&killed, &again, &other] {
            store.keep_node(node, now).await.unwrap();
        }
        assert_eq!(store.nodes(now).await.unwrap().len(), 3, "it is not silent yet");
        let silent = sql("UPDATE node SET seen_at = seen_at - 60 WHERE id <> 'b'");
        silent.execute(&store).await.unwrap();
        store.keep_node(&again, now).await.unwrap();
        let left: Vec<String> =
            store.nodes(now).await.unwrap().into_iter().map(|node| node.info.id).collect();
        assert_eq!(left, ["b", "c"], "one with other roles is missed");
    }
}
