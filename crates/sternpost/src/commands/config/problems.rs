//! What `sternpost config check` finds beyond the text of the file: addresses that can't be bound together or are in use,
//! ports that need a capability, folders that are missing, and files with secrets that all users can read.

use super::ports::user_of;
use super::socket_units::{self, Mismatch};
use crate::terminal::marks;
use config::Config;
use nix::errno::Errno;
use sender::serve::listen::{Address, Listener, SocketFileOptions};
use std::io;
use std::path::Path;

/// Whether `sternpost serve` starts with what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It does not start.
    Error,
    /// It starts.
    Warning,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether it keeps the program from starting.
    pub severity: Severity,
    /// What is wrong, with the key.
    what: String,
    /// What to do.
    remedy: String,
}

impl Problem {
    fn error(what: String, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Error, what, remedy: remedy.into() }
    }

    fn warning(what: String, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, what, remedy: remedy.into() }
    }

    /// The problem as it is printed.
    pub fn in_words(&self) -> String {
        let mark = if self.severity == Severity::Error { marks().error } else { marks().warning };
        match self.remedy.is_empty() {
            true => format!("{mark} {}", self.what),
            false => format!("{mark} {}\n    {}", self.what, self.remedy.replace('\n', "\n    ")),
        }
    }
}

/// Everything that is wrong. Each address is bound for a moment.
pub async fn problems(config: &Config) -> Vec<Problem> {
    let mut found = of_text(config);
    let collisions = config.collisions();
    let is_free_of_collisions = collisions.is_empty();
    found.extend(collisions.iter().map(|failure| {
        let (what, why, remedy) = failure.parts();
        Problem::error(format!("{what}: {why}"), remedy)
    }));
    let listening = config.listening();
    let addresses: Vec<Address> = listening.iter().map(|one| one.address.clone()).collect();
    for one in listening.iter().filter(|_| is_free_of_collisions) {
        found.extend(match &one.address {
            Address::Tcp(_) => of_port(one.key, &one.address, &addresses).await,
            Address::Unix(path) => of_folder(one.key, path),
            Address::Systemd(_) => None,
        });
    }
    found.extend(of_folder("store", &config.store));
    found.extend(socket_units::mismatches(&listening, Path::new("/")).iter().map(of_socket_unit));
    found
}

/// The problem of a socket unit. It is a warning, since systemd may hand over the sockets on another machine, or may be told
/// to by a unit that is not found here.
fn of_socket_unit(mismatch: &Mismatch) -> Problem {
    let enable = |unit: &str| {
        format!(
            "Enable it while the service is stopped:\nsystemctl stop sternpost.service\nsystemctl enable --now {unit}\nsystemctl start sternpost.service"
        )
    };
    match mismatch {
        Mismatch::Missing { key, address } => Problem::warning(
            format!("{key}: no systemd socket unit of this machine hands over {address}"),
            "A unit does so if it has Service=sternpost.service and FileDescriptorName= with that name in [Socket].",
        ),
        Mismatch::Disabled { key, address, unit } => Problem::warning(
            format!("{key}: {unit}, which hands over {address}, is not enabled"),
            enable(unit),
        ),
        Mismatch::Unused { unit, name } => Problem::warning(
            format!(
                "{unit} is enabled, and no key takes its socket: clients that connect to it wait in vain"
            ),
            format!(
                "Write \"systemd:{name}\" in the key of its role, or run systemctl disable --now {unit}."
            ),
        ),
    }
}

/// The problems that can be seen without touching the network.
fn of_text(config: &Config) -> Vec<Problem> {
    let newer = "A newer release may know it; remove it if you do not mean to use one.";
    let mut found: Vec<Problem> =
        config.warnings.iter().map(|what| Problem::warning(what.clone(), newer)).collect();
    found.extend(exposed_secrets(config));
    found.extend(undeclared_proxy(config));
    found.extend(config.without_ipv4().iter().map(|(one, by)| {
        let what = format!(
            "{}: {} accepts IPv6 only, since {} has {}; clients with IPv4 alone can't connect",
            one.key, one.address, by.key, by.address
        );
        Problem::warning(what, "Give one of them another port, or add an IPv4 address.")
    }));
    found
}

/// The problem of a dashboard whose clients all look like one: something in front of it must serve the HTTPS of its URL.
fn undeclared_proxy(config: &Config) -> Option<Problem> {
    let dashboard = config.dashboard.as_ref()?;
    let is_undeclared =
        dashboard.url.starts_with("https://") && dashboard.certificate.is_none() && !dashboard.behind_proxy;
    is_undeclared.then(|| {
        Problem::warning(
            "dashboard.url begins with https://, but neither a certificate nor behind_proxy is set: a proxy in front would be the only client, so that one stranger's failed sign-ins count for everybody".to_owned(),
            "Set behind_proxy = true in [dashboard], and let the proxy set X-Forwarded-For.",
        )
    })
}

/// The files with secrets that all users of the machine can read or change.
pub fn exposed_secrets(config: &Config) -> Vec<Problem> {
    let shown = |secret: &config::Secret| {
        let (key, file) = (&secret.key, secret.file.display());
        let does = if secret.mode & 0o004 != 0 { "read" } else { "change" };
        Problem::warning(
            format!("{key}: every user of this machine can {does} {file} (mode {:04o})", secret.mode),
            format!("chmod o-rwx {file}"),
        )
    };
    config.exposed_secrets().iter().map(shown).collect()
}

/// The problem of a TCP address, which is bound as `serve` binds it beside `all`.
async fn of_port(key: &str, address: &Address, all: &[Address]) -> Option<Problem> {
    let bound = Listener::bind_beside(address, SocketFileOptions::default(), all).await;
    let error = bound.err()?;
    let Address::Tcp(tcp) = address else { return None };
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRINUSE) => in_use(key, address, user_of(*tcp, address.leaves_ipv4_to(all))),
        Some(Errno::EACCES) => Some(Problem::warning(
            format!("{key}: this user may not listen on {address}"),
            "Ports below 1024 need root or CAP_NET_BIND_SERVICE. Under systemd, use a socket unit (\"systemd:NAME\"), or add to the service\n  AmbientCapabilities=CAP_NET_BIND_SERVICE\n  CapabilityBoundingSet=CAP_NET_BIND_SERVICE\n  PrivateUsers=no",
        )),
        Some(Errno::EADDRNOTAVAIL) => Some(Problem::error(
            format!("{key}: {address} is not an address of this machine"),
            "Show the addresses with `ip address`; \"0.0.0.0\" and \"[::]\" stand for all of them.",
        )),
        Some(Errno::EAFNOSUPPORT) => Some(Problem::error(
            format!("{key}: this machine does not support IPv6, so {address} can't be bound"),
            "Remove the address.",
        )),
        _ => Some(Problem::error(format!("{key}: {address} can't be bound: {error}"), "")),
    }
}

/// The problem of a port that another process listens on; `None` if that is the running Sternpost.
fn in_use(key: &str, address: &Address, user: Option<(u32, String)>) -> Option<Problem> {
    match user {
        Some((_, name)) if name == "sternpost" => None,
        Some((1, name)) => Some(Problem::warning(
            format!("{key}: {address} is in use by {name}, which may be a socket unit"),
            format!(
                "If it is a socket unit of Sternpost, write \"systemd:NAME\" in {key}, with the unit's FileDescriptorName."
            ),
        )),
        Some((pid, name)) => Some(Problem::error(
            format!("{key}: {address} is in use by {name} (process {pid})"),
            "Stop that program, or choose another port.",
        )),
        None => Some(Problem::warning(
            format!("{key}: {address} is in use, by a process of another user"),
            "That is right if it is the running Sternpost. As root, this command shows which process it is.",
        )),
    }
}

/// The folders that the collector creates for its socket: that of the socket, and the one above.
const CREATED_FOLDERS: usize = 2;

/// A file can be created only in a folder that exists.
fn of_folder(key: &str, file: &Path) -> Option<Problem> {
    let created = if key == "collector.socket" { CREATED_FOLDERS } else { 0 };
    let mut above = file.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
    let missing = above.by_ref().take(created).take_while(|folder| !folder.exists()).count();
    let folder = file.ancestors().nth(1 + missing).filter(|folder| !folder.as_os_str().is_empty())?;
    match std::fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => Some(Problem::error(format!("{key}: {} is not a folder", folder.display()), "")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Problem::error(
            format!("{key}: the folder {} does not exist", folder.display()),
            "Create it, writable for the user that Sternpost runs as. Under systemd, RuntimeDirectory= creates folders below /run.",
        )),
        Err(error) => {
            Some(Problem::warning(format!("{key}: {} can't be looked into: {error}", folder.display()), ""))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    async fn found(text: &str, folder: &Path) -> Vec<String> {
        let config = Config::parse(text, Some(folder.join("s.toml"))).unwrap();
        problems(&config)
            .await
            .iter()
            .map(|problem| format!("{:?} {}", problem.severity, problem.what))
            .collect()
    }

    #[tokio::test]
    async fn what_would_not_start_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let used = holder.local_addr().unwrap();
        let free = "[metrics]\nlisten = \"127.0.0.1:0\"\n";
        assert_eq!(found(free, dir.path()).await, [] as [&str; 0]);
        let text = format!("[metrics]\nlisten = \"{used}\"\n");
        let problems = found(&text, dir.path()).await;
        let expected = format!("metrics.listen: {used} is in use by");
        assert!(problems.len() == 1 && problems[0].contains(&expected), "{problems:?}");
        let text = "[dashboard]\nlisten = [\"192.0.2.7:80\"]\nbehind_proxy = true\n";
        assert!(found(text, dir.path()).await[0].contains("is not an address of this machine"));
        let text = "[inbox]\naddresses = [\"a@b.example\"]\nlmtp = [\"unix:no/such/lmtp.sock\"]\n";
        assert!(found(text, dir.path()).await[0].contains("does not exist"));
        let text = "[metrics]\nlisten = \"127.0.0.1:7999\"\n[admin]\nlisten = \"127.0.0.1:7999\"\ntoken_file = \"t\"\n";
        let problems = found(text, dir.path()).await;
        assert!(problems.len() == 1 && problems[0].starts_with("Error admin.listen is"), "{problems:?}");
    }

    #[tokio::test]
    async fn a_proxy_in_front_of_the_dashboard_is_to_be_declared() {
        let dir = tempfile::tempdir().unwrap();
        for (url, more, is_doubtful) in [
            ("https://a.example", "", true),
            ("https://a.example", "behind_proxy = true", false),
            ("http://a.example", "", false),
        ] {
            let text = format!("[dashboard]\nlisten = [\"127.0.0.1:0\"]\nurl = \"{url}\"\n{more}\n");
            let problems = found(&text, dir.path()).await;
            let is_found = problems.iter().any(|one| one.starts_with("Warning dashboard.url begins"));
            assert_eq!(is_found, is_doubtful, "{problems:?}");
        }
    }

    #[tokio::test]
    async fn what_starts_and_is_doubtful_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("t");
        std::fs::write(&token, "x").unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
        let text = "telemetry = 1\n[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"t\"\n[inbox]\naddresses = [\"a@b.example\"]\nsmtp = [\"[::]:0\"]\n";
        let problems = found(text, dir.path()).await;
        let expected = [
            "Warning line 1: telemetry is not known to this release and is ignored".to_owned(),
            format!(
                "Warning admin.token_file: every user of this machine can read {} (mode 0644)",
                token.display()
            ),
        ];
        assert_eq!(problems, expected);
    }

    #[tokio::test]
    async fn all_ipv6_addresses_alone_are_in_use_if_another_program_has_the_port_of_ipv4() {
        let dir = tempfile::tempdir().unwrap();
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let alone = found(&format!("[host]\nlisten = [\"[::]:{port}\"]\n"), dir.path()).await;
        let expected = format!("host.listen: [::]:{port} is in use by");
        assert!(alone.len() == 1 && alone[0].contains(&expected), "{alone:?}");
        let text = format!("[host]\nlisten = [\"[::]:{port}\"]\n[metrics]\nlisten = \"127.0.0.2:{port}\"\n");
        let expected = format!(
            "Warning host.listen: [::]:{port} accepts IPv6 only, since metrics.listen has 127.0.0.2:{port}; clients with IPv4 alone can't connect"
        );
        assert_eq!(found(&text, dir.path()).await, [expected]);
    }
}
