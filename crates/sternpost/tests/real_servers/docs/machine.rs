//! The machine of a page: a copy of this one, on which the page's commands may change everything. Its file system is an overlay
//! in memory; its network, processes and mounts are its own, and its only way out leads to [`super::internet`]. What stands in
//! for the rest of the world (certbot, apt, systemctl without systemd) are the scripts in `tests/docs/bin`.

use super::authority::Authority;
use super::blocks::tree;
use super::internet::{Internet, MACHINE, NETWORK, ROUTER};
use crate::patience::{PATIENCE, until_some, until_some_or};
use crate::support::{Running, daemon, shell};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A running machine.
pub struct Machine {
    pub internet: Internet,
    process: u32,
    /// The page, by its path in the source tree.
    page: String,
    place: tempfile::TempDir,
    _init: Running,
    _authority: Authority,
}

impl Machine {
    /// Starts one in the network of this thread.
    pub fn start(page: &str) -> Self {
        let [first, second] = NETWORK;
        shell(&format!(
            "ip address add {first}.{second}.0.1/16 dev lo && ip link add world0 type veth peer name world1 && \
             ip address add {ROUTER}/24 dev world0 && ip link set world0 up"
        ));
        let internet = Internet::start();
        internet.open_door();
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        let authority = Authority::start(&internet.lab, dir, MACHINE);
        let issued = std::fs::read_to_string(dir.join("issued.pem")).unwrap();
        std::fs::write(dir.join("ca.pem"), internet.lab.pki.root_pem() + &issued).unwrap();
        std::fs::write(dir.join("root.key"), internet.lab.names.trust_anchor().unwrap()).unwrap();
        std::fs::write(dir.join("root.ds"), internet.lab.names.root_ds().unwrap()).unwrap();
        let boot = tree().join("crates/sternpost/tests/docs/boot");
        let line = format!(
            "unshare --mount --net --uts --ipc --pid --fork --kill-child bash {} {} {} {} {MACHINE} {ROUTER} {}",
            boot.display(),
            dir.display(),
            tree().display(),
            env!("CARGO_BIN_EXE_sternpost"),
            internet.lab.names.address.ip(),
        );
        let init = daemon(&line, &dir.join("boot.log"));
        let children = format!("/proc/{0}/task/{0}/children", init.0.id());
        let process: u32 = until_some("the machine's first process", || {
            let child = std::fs::read_to_string(&children).unwrap_or_default();
            child.trim().parse().ok().filter(|_| dir.join("mounted").exists())
        });
        shell(&format!("ip link set world1 netns {process}"));
        std::fs::write(dir.join("connected"), "").unwrap();
        let log = || std::fs::read_to_string(dir.join("boot.log")).unwrap_or_default();
        until_some_or(
            || format!("the machine does not start: {}", log()),
            || dir.join("up").exists().then_some(()),
        );
        Self { internet, process, page: page.to_owned(), place, _init: init, _authority: authority }
    }

    /// Runs a program of `/usr/local/lib/world` with this text in a file as its first argument; meanwhile the operator publishes
    /// what `sternpost apply` asks for. Returns the exit code and what was printed.
    pub fn run(&self, program: &str, text: &str, words: &[String]) -> (i32, String) {
        let dir = self.place.path();
        std::fs::write(dir.join("shared/text"), text).unwrap();
        let file = std::fs::File::create(dir.join("printed")).unwrap();
        // Where the output of `sternpost apply` begins; what other commands print is not published.
        let asked = dir.join("shared/apply");
        let _ = std::fs::remove_file(&asked);
        let mut child = Command::new("nsenter")
            .args(["--target", &self.process.to_string(), "--all", "--"])
            .args(["/usr/local/lib/world/enter", program, "/run/world/shared/text"])
            .args(words)
            .env("PAGE", &self.page)
            .env("STERNPOST_TEST_ROOTS", crate::postfix::unpacked("trixie").parent().unwrap())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let (mut published, begun) = (0, Instant::now());
        loop {
            let ended = child.try_wait().unwrap();
            let printed = printed(&dir.join("printed"));
            // A step is printed in one piece, but not read in one.
            let complete = match ended {
                Some(_) => printed.len(),
                None => printed.rfind("\n").map_or(0, |at| at + 1),
            };
            let from = std::fs::read_to_string(&asked).ok().and_then(|at| at.trim().parse().ok());
            if let Some(from) = from.map(|from: usize| from.max(published))
                && complete > from
            {
                self.internet.publish_by_hand(&printed[from..complete]);
                published = complete;
            }
            if let Some(status) = ended {
                return (status.code().unwrap_or(-1), printed);
            }
            if begun.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                return (-1, format!("{printed}\nit does not end"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn printed(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
