//! The holders of leases, each named by a text that identifies its process.

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

/// The holder of leases: a part of a process, named so that others can see whether that process still runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseHolder {
    /// The host name of the machine, as one word.
    machine: String,
    /// The process ID in its PID namespace.
    pid: i32,
    /// When the process started, in clock ticks since the machine was booted. A later process of the same ID differs.
    started: u64,
    /// Identifies the kernel and the PID namespace in which `pid` is valid.
    place: String,
    /// Random: tells apart the holders of one process, and processes of the same name and ID on machines that are copies of
    /// each other, such as containers.
    number: u64,
}

impl LeaseHolder {
    /// A holder in this process that differs from all others.
    pub fn new() -> Self {
        let pid = Pid::this().as_raw();
        Self {
            machine: machine(),
            pid,
            started: process_state(pid).map_or(0, |(_, started)| started),
            place: place(),
            number: RandomState::new().build_hasher().finish(),
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let holder = Self {
            machine: words.next()?.to_owned(),
            pid: words.next()?.parse().ok().filter(|pid| *pid > 0)?,
            started: words.next()?.parse().ok()?,
            place: words.next()?.to_owned(),
            number: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(holder)
    }

    /// True if the process can't run any more. False if that can't be known from here.
    pub(super) fn is_dead(&self) -> bool {
        // Without the boot ID, as under `ProcSubset=pid` of systemd, the process may run on another machine of that name.
        let is_unknown = self.place.starts_with('/');
        if self.machine != machine() || self.place != place() || is_unknown {
            return false;
        }
        if kill(Pid::from_raw(self.pid), None) == Err(Errno::ESRCH) {
            return true;
        }
        // Another process has the ID by now, or the process has ended and its parent has not noticed.
        process_state(self.pid).is_some_and(|(state, started)| started != self.started || state == 'Z')
    }
}

impl Default for LeaseHolder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for LeaseHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {} {}", self.machine, self.pid, self.started, self.place, self.number)
    }
}

/// This machine's host name, as one word.
fn machine() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let name: String = name.to_string_lossy().split_whitespace().collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// Identifies this start of the machine; `None` where it can't be read, as under `ProcSubset=pid` of systemd.
pub(super) fn boot_id() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(boot.trim().to_owned()).filter(|boot| !boot.is_empty())
}

/// Identifies the running kernel and this process's PID namespace, as one word.
fn place() -> String {
    let boot = boot_id().unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{}/{}", boot.trim(), namespace.display()).split_whitespace().collect()
}

/// The state letter and start time of a process; `None` if they can't be read.
pub(super) fn process_state(pid: i32) -> Option<(char, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses, which may contain both spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // The start time is the 22nd field, the state the third (proc_pid_stat(5)).
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The holder of a process that has ended: a child of this one.
    pub(in crate::leases) fn ended() -> LeaseHolder {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let started = process_state(pid).map_or(0, |(_, started)| started);
        child.wait().unwrap();
        LeaseHolder { pid, started, ..LeaseHolder::new() }
    }

    /// Holders, and whether the lease of each is taken over.
    pub(in crate::leases) fn holders() -> Vec<(String, bool)> {
        let (mine, ended) = (LeaseHolder::new(), ended());
        let this = |holder: LeaseHolder| holder.to_string();
        vec![
            (this(mine.clone()), false),
            (this(ended.clone()), true),
            (this(LeaseHolder { started: mine.started + 1, ..mine.clone() }), true),
            (this(LeaseHolder { machine: "elsewhere".into(), ..ended.clone() }), false),
            (this(LeaseHolder { place: "other/pid:[1]".into(), ..ended.clone() }), false),
            // Process 1 belongs to another user where the tests do not run as root.
            (this(LeaseHolder { pid: 1, started: process_state(1).unwrap().1, ..mine }), false),
            (format!("{} {}", ended.machine, ended.pid), false),
        ]
    }

    #[test]
    fn a_holder_is_read_back_and_differs_from_every_other() {
        let (one, other) = (LeaseHolder::new(), LeaseHolder::new());
        assert_ne!(one, other);
        assert_eq!(LeaseHolder::parse(&one.to_string()), Some(one.clone()));
        assert!(one.started > 0 && !one.is_dead());
        for text in
            ["", "mail", "mail 1", "mail 0 1 b 1", "mail -1 1 b 1", "mail x 1 b 1", "mail 1 1 b 1 more"]
        {
            assert_eq!(LeaseHolder::parse(text), None, "{text}");
        }
    }
}
