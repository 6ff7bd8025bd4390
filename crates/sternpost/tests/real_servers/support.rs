//! Processes that end with the test, and a room of the test's own: a network and mounts that nobody
//! else sees.

pub use crate::patience::{until, until_some};
use nix::sched::{CloneFlags, unshare};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A process that ends with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a line of shell; `sternpost` in it is the program under test.
pub fn shell(line: &str) -> String {
    let path = format!(
        "{}:{}:/usr/sbin:/sbin",
        Path::new(env!("CARGO_BIN_EXE_sternpost")).parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let output = Command::new("bash").env("PATH", path).args(["-c", line]).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{line}\n{text}");
    text
}

/// Starts a daemon that stays in the foreground, its output in a file.
pub fn daemon(line: &str, log: &Path) -> Running {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    let out = std::fs::File::create(log).unwrap();
    command.args(words).stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
    command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()));
    Running(command.spawn().unwrap_or_else(|error| panic!("{line}: {error}")))
}

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// What to put before a command so that it lives by the clock in the file `time`, which holds how far it is from the
/// machine's, such as `+1d`.
pub fn by_a_clock_of_its_own(place: &Path) -> String {
    std::fs::write(place.join("time"), "+0").unwrap();
    // The library leaves something there for each process that is killed.
    shell("mount -t tmpfs none /dev/shm");
    format!(
        "env LD_PRELOAD={FAKETIME} FAKETIME_TIMESTAMP_FILE={}/time FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 ",
        place.display()
    )
}

/// Sets the clock of [`by_a_clock_of_its_own`] so many seconds ahead, as if the machine had been off meanwhile. In one boot,
/// Sternpost takes a clock that jumps for one that was set, and the time for what the kernel measures. The server stands still
/// in between.
pub fn let_time_pass(place: &Path, seconds: u32, server: Option<&Running>) {
    let signal = |name: &str| {
        if let Some(server) = server {
            shell(&format!("kill -{name} {}", server.0.id()));
        }
    };
    signal("STOP");
    let boot = place.join(format!("boot-{seconds}"));
    std::fs::write(&boot, std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap()).unwrap();
    mount_over(&boot, Path::new("/proc/sys/kernel/random/boot_id"));
    std::fs::write(place.join("time"), format!("+{seconds}")).unwrap();
    signal("CONT");
}

/// Runs a test on a thread with a network of its own, where only loopback is, and with mounts of its
/// own. Processes that it starts live there too.
pub fn in_a_room_of_its_own(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .unwrap_or_else(|error| panic!("these tests need root: {error}"));
        shell("mount --make-rprivate / && ip link set lo up");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Puts a file or folder over another, in this room alone.
pub fn mount_over(from: &Path, to: &Path) {
    shell(&format!("mount --bind {} {}", from.display(), to.display()));
}
