//! Several servers with one store: what `sternpost nodes` shows, and which of them does what is done once for all.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod patience;
mod ports;

use patience::{until, until_ready, until_some};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A server with a folder of its own.
struct Node {
    folder: PathBuf,
    server: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn program(folder: &Path) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sternpost"));
    program.current_dir(folder);
    program
}

impl Node {
    fn start(place: &Path, name: &str) -> Self {
        let folder = place.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let text = format!(
            "store = \"sqlite:{}\"\nstate_folder = \".\"\n[dns]\nservers = [\"127.0.0.1:1\"]\n\
             [dashboard]\nlisten = [\"{}\"]\n[metrics]\nlisten = \"{}\"\n",
            place.join("shared.db").display(),
            ports::unused(),
            ports::unused()
        );
        std::fs::write(folder.join("sternpost.toml"), text).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let server = program(&folder).arg("serve").stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut node = Self { folder, server };
        until_ready(&mut node.server, &node.folder.join("log"));
        node
    }

    /// What `sternpost nodes` shows, and its exit code.
    fn nodes(&self) -> (i32, Vec<Value>) {
        let output = program(&self.folder).args(["nodes", "--json"]).output().unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        (output.status.code().unwrap(), told["nodes"].as_array().unwrap().clone())
    }

    /// The process ID of the server that does the job, if one does.
    fn leader(&self) -> Option<u64> {
        let has_job = |node: &&Value| node["jobs"].as_array().unwrap().contains(&"retention".into());
        self.nodes().1.iter().find(has_job).map(|node| node["pid"].as_u64().unwrap())
    }

    fn pid(&self) -> u64 {
        self.server.id().into()
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([format!("-{signal}"), self.pid().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

#[test]
fn of_two_servers_with_one_store_one_does_a_job_and_the_other_goes_on_with_it() {
    let place = tempfile::tempdir().unwrap();
    let first = Node::start(place.path(), "one");
    until("the first does the job", || first.leader() == Some(first.pid()));
    let mut second = Node::start(place.path(), "two");
    until("both are there", || first.nodes().1.len() == 2);
    let (code, all) = second.nodes();
    assert_eq!((code, second.leader()), (0, Some(first.pid())), "{all:?}");
    for node in &all {
        assert_eq!((&node["state"], &node["roles"][0]), (&"running".into(), &"dashboard".into()));
    }
    let text = program(&first.folder).arg("nodes").output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("jobs for all servers: ") && text.contains("retention"), "{text}");
    // An orderly stop releases the lease.
    first.signal("TERM");
    until("the second goes on", || second.leader() == Some(second.pid()));
    until("the first has left", || second.nodes().1.len() == 1);
    // A server that was killed can't.
    let third = Node::start(place.path(), "three");
    until("the third is there", || third.nodes().1.len() == 2);
    second.server.kill().unwrap();
    second.server.wait().unwrap();
    until("the third goes on", || third.leader() == Some(third.pid()));
    let killed = until_some("the one that was killed is still listed", || {
        third.nodes().1.into_iter().find(|node| node["pid"] == second.pid())
    });
    assert!(killed["jobs"].as_array().unwrap().is_empty(), "{killed}");
}

#[test]
fn without_a_server_no_node_is_shown_and_no_store_is_made() {
    let place = tempfile::tempdir().unwrap();
    let output = program(place.path()).arg("nodes").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("No server runs with the store"));
    assert!(std::fs::read_dir(place.path()).unwrap().next().is_none());
}
