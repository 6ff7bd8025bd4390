//! A node with PIDs, mounts, a host name and a state folder of its own.

use crate::patience::{until_ready, until_some};
use crate::support::{Running, daemon, shell};
use std::path::{Path, PathBuf};

/// The host names of the nodes.
pub const NAMES: [&str; 3] = ["one", "two", "three"];

/// Both servers: the one that accepts writes is used.
pub const STORE: &str = "postgres://sternpost@127.0.0.1:5501,127.0.0.1:5502/sternpost";

/// A mail program that takes a moment, and writes which node sent which mail. It is accepted once its line is written.
const SENDMAIL: &str = "#!/bin/sh
id=$(tr -d '\\r' | grep -m1 '^Message-ID:')
sleep \"$(cat AT/pace)\"
echo \"NODE $id\" >>AT/sent
";

pub struct Node {
    folder: PathBuf,
    /// The port of the interface that any program can ask.
    pub http: u16,
    pub was_killed: bool,
    starts: u32,
    running: Running,
}

impl Node {
    /// Starts it. `before` stands before the program in its command line.
    pub fn start(place: &Path, number: usize, before: &str, sections: &str) -> Self {
        let name = NAMES[number];
        let folder = place.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let sendmail = folder.join("sendmail");
        let script = SENDMAIL.replace("AT", &place.display().to_string()).replace("NODE", name);
        std::fs::write(&sendmail, script).unwrap();
        shell(&format!("chmod 755 {}", sendmail.display()));
        let port = 8461 + 100 * u16::try_from(number).unwrap();
        let (at, http) = (place.display(), port + 5);
        let config = format!(
            "store = \"{STORE}\"\nstate_folder = \"{}\"\n[dns]\nservers = [\"127.0.0.1:53\"]\ntrust_anchor = \"{at}/names/root.key\"\n\
             dnssec = \"validate\"\n[trust]\nca_file = \"{at}/ca.pem\"\nallow_private_addresses = true\n\
             [answers]\nlisten = [\"127.0.0.1:{port}\"]\nhttp = \"127.0.0.1:{http}\"\n[metrics]\nlisten = \"127.0.0.1:{}\"\n\
             [reporter]\nfrom = \"tlsrpt@w0.test\"\ndeliver = \"sendmail:{}\"\n\
             [[reporter.targets]]\ndomain = \"*\"\nsend_to = [\"mailto:reports@w0.test\"]\n{sections}",
            folder.display(),
            port + 2,
            sendmail.display()
        );
        std::fs::write(folder.join("sternpost.toml"), config).unwrap();
        // The library that sets a clock leaves memory there by the PID, which is the same after each start.
        let start = format!(
            "hostname {name} && mount -t tmpfs none /dev/shm && exec {before}{} --config {}/sternpost.toml serve\n",
            env!("CARGO_BIN_EXE_sternpost"),
            folder.display()
        );
        std::fs::write(folder.join("start"), start).unwrap();
        let running = Self::run(&folder, 0);
        Self { folder, http, was_killed: false, starts: 1, running }
    }

    fn run(folder: &Path, start: u32) -> Running {
        let log = folder.join(format!("log{start}"));
        let apart = "unshare --mount --uts --pid --fork --kill-child --mount-proc";
        let mut running = daemon(&format!("{apart} sh {}/start", folder.display()), &log);
        until_ready(&mut running.0, &log);
        running
    }

    pub fn start_again(&mut self) {
        self.running = Self::run(&self.folder, self.starts);
        self.starts += 1;
    }

    /// The PID of the server as this room sees it; to itself, it is process 1.
    fn pid(&self) -> u32 {
        let starter = self.running.0.id();
        let children = format!("/proc/{starter}/task/{starter}/children");
        until_some("the node's process", || std::fs::read_to_string(&children).ok()?.trim().parse().ok())
    }

    pub fn signal(&self, signal: &str) {
        shell(&format!("kill -{signal} {}", self.pid()));
    }

    /// Ends it as a crash of its machine does, with all that it started.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.running.0.wait().unwrap();
        self.was_killed = true;
    }

    /// Ends it in an orderly way.
    pub fn stop(&mut self) {
        self.signal("TERM");
        self.running.0.wait().unwrap();
    }

    /// What it has logged since the first start.
    pub fn log(&self) -> String {
        let read =
            |start| std::fs::read_to_string(self.folder.join(format!("log{start}"))).unwrap_or_default();
        (0..self.starts).map(read).collect()
    }
}
