//! The store full, read-only, locked and broken, on real file systems: answers go on, the fault is
//! said, and nothing is thrown away.

use crate::ground::Ground;
use crate::patience::until_ready;
use crate::support::{daemon, in_a_room_of_its_own, shell, until};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The lab, and Sternpost with its store on a small disk of its own.
fn small_disk(place: &Path) -> (Ground, PathBuf) {
    let disk = place.join("disk");
    std::fs::create_dir_all(&disk).unwrap();
    shell(&format!("mount -t tmpfs -o size=2m none {}", disk.display()));
    (Ground::new(place, &["good-enforce", "txt-split", "host-cname", "policy-lf"], "good-enforce"), disk)
}

const SETTINGS: &str = "listen = [\"127.0.0.1:8461\"]\ncontrol = \"sternpost.sock\"\nrecheck = 1\n[metrics]\nlisten = \"127.0.0.1:8463\"";

/// The status of `/readyz`.
fn ready() -> bool {
    shell("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8463/readyz || true") == "200"
}

#[test]
fn a_full_a_read_only_and_a_locked_store_stop_no_answer_and_are_told() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let (mut ground, disk) = small_disk(place.path());
        ground.serve_with(SETTINGS, &format!("store = \"sqlite:{}/s.db\"\n", disk.display()));
        let secure = |ground: &Ground, name: &str| {
            let said = ground.operator(&format!("query --cached {name}.test"));
            assert!(said.contains(&format!("secure match=mx1.{name}.test")), "{said}\n{}", ground.log());
        };
        secure(&ground, "good-enforce");
        until("it is ready", ready);
        // Full: all that is left is taken.
        shell(&format!("dd if=/dev/zero of={}/fill bs=4k 2>/dev/null || true", disk.display()));
        secure(&ground, "txt-split");
        until("the full disk is in the log", || ground.log().contains("could not be stored"));
        shell(&format!("rm {}/fill", disk.display()));
        until("the store works again", ready);
        // Read-only: it does not start, and says what is needed.
        ground.stop();
        shell(&format!("mount -o remount,ro {}", disk.display()));
        let said = shell(&format!(
            "timeout 120 sternpost --config {}/sternpost.toml serve 2>&1 || true",
            place.path().display()
        ));
        assert!(said.contains("s.db can't be opened") && said.contains("be writable"), "{said}");
        shell(&format!("mount -o remount,rw {}", disk.display()));
        ground.serve_with(SETTINGS, &format!("store = \"sqlite:{}/s.db\"\n", disk.display()));
        // Locked by another program, for longer than anyone waits.
        let lock = "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); \
                    c.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); time.sleep(3600)";
        let script = place.path().join("lock.py");
        std::fs::write(&script, lock).unwrap();
        let log = place.path().join("lock.log");
        let locker = daemon(&format!("python3 {} {}/s.db", script.display(), disk.display()), &log);
        until("the store is locked", || std::fs::read_to_string(&log).unwrap().contains("locked"));
        secure(&ground, "good-enforce");
        secure(&ground, "policy-lf");
        until("the lock is in the log", || ground.log().contains("locked"));
        drop(locker);
        until("the store works again", ready);
        ground.stop();
        shell(&format!("umount {}", disk.display()));
    });
}

#[test]
fn a_broken_store_is_said_at_the_start_and_kept_when_it_is_replaced() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("s.db");
    std::fs::write(&file, "not a database, and long enough that it could be one").unwrap();
    std::fs::write(
        place.path().join("sternpost.toml"),
        "store = \"sqlite:s.db\"\n[dns]\nservers = [\"127.0.0.1:1\"]\n[answers]\nlisten = [\"unix:a.sock\"]\n",
    )
    .unwrap();
    let program = env!("CARGO_BIN_EXE_sternpost");
    let config = place.path().join("sternpost.toml");
    let output = Command::new(program).arg("--config").arg(&config).arg("serve").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("s.db is damaged") && said.contains("--replace-broken-store"), "{said}");
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("not a database"));
    let line = format!("{program} --config {} serve --replace-broken-store", config.display());
    let log = place.path().join("log");
    let mut running = daemon(&line, &log);
    until_ready(&mut running.0, &log);
    let aside = std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<PathBuf> = aside.filter(|path| path.to_string_lossy().contains(".broken-")).collect();
    assert_eq!(aside.len(), 1);
    assert!(std::fs::read_to_string(&aside[0]).unwrap().starts_with("not a database"));
    assert!(std::fs::read_to_string(&log).unwrap().contains("renamed it to"));
}
