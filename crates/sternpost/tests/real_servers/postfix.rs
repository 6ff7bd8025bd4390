//! Postfix 3.7 (Debian 12's own), 3.10 (trixie's) and 3.11 (unstable's), the latter two in folders of their own, in the
//! test's room.

use crate::patience::{until_some_or, whole_lines};
use crate::support::{mount_over, shell};
use std::path::{Path, PathBuf};

/// A running Postfix.
pub struct Postfix {
    root: PathBuf,
    seen: std::cell::Cell<usize>,
}

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Debian 12's.
    V3_7,
    /// Debian trixie's.
    V3_10,
    /// Debian unstable's: 3.11, or what has followed it.
    V3_11,
}

/// Where `./test` unpacks the servers of other releases.
pub fn unpacked(name: &str) -> PathBuf {
    let roots = std::env::var("STERNPOST_TEST_ROOTS").unwrap_or("/var/tmp/sternpost-test".into());
    let root = Path::new(&roots).join(name);
    assert!(root.is_dir(), "{} is not there: ./test makes it", root.display());
    root
}

impl Postfix {
    /// Starts one that only sends, with these lines in its main.cf. Its configuration, queue and
    /// state are the test's own.
    pub fn start(release: Release, place: &Path, lines: &str) -> Self {
        Self::start_with(release, place, lines, "")
    }

    /// The same, with these services beside its own.
    pub fn start_with(release: Release, place: &Path, lines: &str, more: &str) -> Self {
        let root = match release {
            Release::V3_7 => PathBuf::from("/"),
            Release::V3_10 => unpacked("trixie"),
            Release::V3_11 => unpacked("postfix-unstable"),
        };
        // The newest one with its newest defaults.
        let level = if release == Release::V3_11 { "3.11" } else { "3.6" };
        let own = |name: &str| {
            let folder = place.join(name);
            std::fs::create_dir_all(&folder).unwrap();
            folder
        };
        shell(&format!("cp -a {}/etc/postfix/. {}", root.display(), own("etc").display()));
        let main = format!(
            "compatibility_level = {level}\nmyhostname = sender.test\nmydestination =\ninet_protocols = ipv4\n\
             maillog_file = /var/spool/postfix/mail.log\nmaillog_file_prefixes = /var\nsmtp_tls_loglevel = 1\nsmtp_connect_timeout = 5\nsmtp_helo_timeout = 5\n\
             default_process_limit = 20\nsmtp_destination_concurrency_failed_cohort_limit = 0\n{}",
            lines.replace("/etc/ssl/certs/ca-certificates.crt", "/var/spool/postfix/ca.pem")
        );
        std::fs::write(place.join("etc/main.cf"), main).unwrap();
        let master = std::fs::read_to_string(place.join("etc/master.cf")).unwrap();
        let services = master
            .lines()
            .filter(|line| !line.starts_with("smtp ") || !line.contains("inet"))
            .map(|line| unchrooted(line) + "\n");
        let mut services: String = services.collect();
        if !services.contains("\npostlog ") {
            services += "postlog unix-dgram n - n - 1 postlogd\n";
        }
        services += more;
        std::fs::write(place.join("etc/master.cf"), services).unwrap();
        std::fs::copy(place.join("ca.pem"), own("spool").join("ca.pem")).unwrap();
        std::fs::write(place.join("resolv.conf"), "nameserver 127.0.0.1\noptions trust-ad\n").unwrap();
        mount_over(&place.join("resolv.conf"), &root.join("etc/resolv.conf"));
        mount_over(&place.join("etc"), &root.join("etc/postfix"));
        mount_over(&place.join("spool"), &root.join("var/spool/postfix"));
        mount_over(&own("lib"), &root.join("var/lib/postfix"));
        let this = Self { root, seen: std::cell::Cell::new(0) };
        this.run("chown postfix /var/lib/postfix && postfix start");
        this
    }

    /// Runs a command in Postfix's root, and returns its output.
    pub fn run(&self, line: &str) -> String {
        shell(&format!("chroot {} bash -c '{line}' 2>&1", self.root.display()))
    }

    /// The queue's folder, as this process sees it.
    pub fn spool(&self) -> PathBuf {
        self.root.join("var/spool/postfix")
    }

    /// The log so far, up to its last whole line.
    pub fn log(&self) -> String {
        whole_lines(&self.spool().join("mail.log"))
    }

    /// Sends one message and returns what the log says became of it: the lines from the sending on,
    /// the last of which has the status.
    pub fn send(&self, to: &str) -> String {
        self.seen.set(self.log().len());
        self.run(&format!("printf \"Subject: hello\\n\\nhello\\n\" | sendmail -f a@sender.test {to}"));
        self.fate(to)
    }

    /// Sends a message that is in a file.
    pub fn send_file(&self, to: &str, file: &Path) -> String {
        self.seen.set(self.log().len());
        self.run(&format!("sendmail -f a@sender.test {to} < {}", file.display()));
        self.fate(to)
    }

    /// Tries the queue again, and says what became of the mail to `to`.
    pub fn flush(&self, to: &str) -> String {
        self.seen.set(self.log().len());
        self.run("postqueue -f");
        self.fate(to)
    }

    /// Does something that has the queue tried again, and says what became of the mail to `to`.
    pub fn after(&self, to: &str, act: impl FnOnce()) -> String {
        self.seen.set(self.log().len());
        act();
        self.fate(to)
    }

    fn fate(&self, to: &str) -> String {
        let since = || self.log().get(self.seen.get()..).unwrap_or_default().to_owned();
        let is_status = |line: &str| line.contains(&format!("to=<{to}>")) && line.contains(" status=");
        until_some_or(
            || format!("no status for {to}: {}", since()),
            || Some(since()).filter(|lines| lines.lines().any(is_status)),
        )
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        self.run("postfix stop || true");
    }
}

/// A service of master.cf that runs outside of Postfix's own chroot.
fn unchrooted(line: &str) -> String {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    if line.starts_with(['#', ' ', '\t']) || words.len() < 8 {
        return line.to_owned();
    }
    words[4] = "n";
    words.join(" ")
}
