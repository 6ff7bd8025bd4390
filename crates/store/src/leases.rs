//! Leases: they keep two processes that share the database from doing the same work at once, such as applying a
//! rollout or ordering a certificate.
//!
//! A lease has a name, a holder and an end. The holder renews it while it works and releases it afterwards. A holder that
//! was killed can do neither: [`LeaseHolder`] therefore says which process it is, and [`Store::lease`] takes the lease of
//! a process of this machine that no longer runs. The lease of a process elsewhere ends by itself, or by
//! [`Store::take_lease`], which an operator decides.

use crate::query::sql;
use crate::{Store, StoreError, time};
use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A lease that has not been released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The text that names the holder.
    pub holder: String,
    /// When the lease ends unless the holder renews it.
    pub until: Timestamp,
}

impl Lease {
    /// The host name and process ID of the holder; `None` if an older release wrote another text.
    pub fn process(&self) -> Option<(&str, u32)> {
        let mut words = self.holder.split_whitespace();
        Some((words.next()?, words.next()?.parse().ok()?))
    }
}

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
    /// Tells apart the holders of one process.
    number: u64,
}

/// The number of the next holder in this process.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

impl LeaseHolder {
    /// A holder in this process that differs from all others.
    pub fn new() -> Self {
        let pid = Pid::this().as_raw();
        Self {
            machine: machine(),
            pid,
            started: process_state(pid).map_or(0, |(_, started)| started),
            place: place(),
            number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn parse(text: &str) -> Option<Self> {
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
    fn is_dead(&self) -> bool {
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

/// Identifies the running kernel and this process's PID namespace, as one word.
fn place() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{}/{}", boot.trim(), namespace.display()).split_whitespace().collect()
}

/// The state letter and start time of a process; `None` if they can't be read.
fn process_state(pid: i32) -> Option<(char, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses, which may contain both spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // The start time is the 22nd field, the state the third (proc_pid_stat(5)).
    Some((state, fields.nth(18)?.parse().ok()?))
}

impl Store {
    /// Acquires or renews the lease `name` until `until`. False while a different holder has it at `now`. The lease of a
    /// [`LeaseHolder`] whose process has ended is taken over.
    pub async fn lease(
        &self,
        name: &str,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let taken = match self.try_lease(name, holder, now, until).await {
            // The answer may be what was lost. For the same holder the second time changes nothing.
            Err(StoreError::Unreachable { .. }) => self.try_lease(name, holder, now, until).await?,
            done => done?,
        };
        if taken {
            return Ok(true);
        }
        match self.lease_of(name).await? {
            Some(other) if LeaseHolder::parse(&other.holder).is_some_and(|other| other.is_dead()) => {
                self.take_lease(name, &other.holder, holder, until).await
            }
            Some(_) => Ok(false),
            // It was released between the two statements.
            None => self.try_lease(name, holder, now, until).await,
        }
    }

    async fn try_lease(
        &self,
        name: &str,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = sql("INSERT INTO lease (name, holder, expires_at) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at \
             WHERE lease.holder = excluded.holder OR lease.expires_at <= $4")
        .bind(name)
        .bind(holder)
        .bind(until.as_second())
        .bind(now.as_second())
        .execute(self)
        .await?;
        Ok(done > 0)
    }

    /// Returns a lease that was not released, also one that has ended.
    pub async fn lease_of(&self, name: &str) -> Result<Option<Lease>, StoreError> {
        let row: Option<(String, i64)> = sql("SELECT holder, expires_at FROM lease WHERE name = $1")
            .bind(name)
            .fetch_optional(self)
            .await?;
        row.map(|(holder, until)| Ok(Lease { holder, until: time("lease", until)? })).transpose()
    }

    /// Gives the lease of `from` to `holder`, although it has not ended. False if `from` does not have it any more.
    pub async fn take_lease(
        &self,
        name: &str,
        from: &str,
        holder: &str,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = sql("UPDATE lease SET holder = $3, expires_at = $4 WHERE name = $1 AND holder = $2")
            .bind(name)
            .bind(from)
            .bind(holder)
            .bind(until.as_second())
            .execute(self)
            .await?;
        Ok(done > 0)
    }

    /// Releases a lease. Does nothing unless `holder` has it.
    pub async fn release(&self, name: &str, holder: &str) -> Result<(), StoreError> {
        sql("DELETE FROM lease WHERE name = $1 AND holder = $2")
            .bind(name)
            .bind(holder)
            .execute(self)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[tokio::test]
    async fn a_lease_has_one_holder_until_it_is_released_or_expires() {
        let (_dir, store) = crate::scratch().await;
        assert!(store.lease("x", "one", at(0), at(60)).await.unwrap());
        assert!(store.lease("x", "one", at(30), at(90)).await.unwrap());
        assert!(!store.lease("x", "two", at(89), at(120)).await.unwrap());
        assert!(store.lease("x", "two", at(90), at(120)).await.unwrap());
        store.release("x", "one").await.unwrap();
        assert!(!store.lease("x", "one", at(100), at(200)).await.unwrap());
        store.release("x", "two").await.unwrap();
        assert!(store.lease("x", "one", at(100), at(200)).await.unwrap());
    }

    /// The holder of a process that has ended: a child of this one.
    fn ended() -> LeaseHolder {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let started = process_state(pid).map_or(0, |(_, started)| started);
        child.wait().unwrap();
        LeaseHolder { pid, started, ..LeaseHolder::new() }
    }

    #[tokio::test]
    async fn the_lease_of_a_process_that_ended_is_taken_over_and_no_other() {
        let (_dir, store) = crate::scratch().await;
        let (mine, ended) = (LeaseHolder::new(), ended());
        let this = |holder: LeaseHolder| holder.to_string();
        let me = LeaseHolder::new();
        for (holder, is_taken) in [
            (this(mine.clone()), false),
            (this(ended.clone()), true),
            (this(LeaseHolder { started: mine.started + 1, ..mine.clone() }), true),
            (this(LeaseHolder { machine: "elsewhere".into(), ..ended.clone() }), false),
            (this(LeaseHolder { place: "other/pid:[1]".into(), ..ended.clone() }), false),
            // Process 1 belongs to another user where the tests do not run as root.
            (this(LeaseHolder { pid: 1, started: process_state(1).unwrap().1, ..mine.clone() }), false),
            (format!("{} {}", ended.machine, ended.pid), false),
        ] {
            assert!(store.lease("x", &holder, at(0), at(60)).await.unwrap());
            let taken = store.lease("x", &me.to_string(), at(1), at(61)).await.unwrap();
            assert_eq!(taken, is_taken, "{holder}");
            store.release("x", &holder).await.unwrap();
            store.release("x", &me.to_string()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_lease_is_taken_from_the_holder_that_was_named_and_no_other() {
        let (_dir, store) = crate::scratch().await;
        assert_eq!(store.lease_of("x").await.unwrap(), None);
        let holder = LeaseHolder { machine: "mail".into(), pid: 7, ..LeaseHolder::new() };
        store.lease("x", &holder.to_string(), at(0), at(60)).await.unwrap();
        let lease = store.lease_of("x").await.unwrap().unwrap();
        assert_eq!((lease.process(), lease.until), (Some(("mail", 7)), at(60)));
        assert!(!store.take_lease("x", "somebody else", "me", at(90)).await.unwrap());
        assert!(store.take_lease("x", &lease.holder, "me", at(90)).await.unwrap());
        assert!(!store.lease("x", &lease.holder, at(1), at(99)).await.unwrap());
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
