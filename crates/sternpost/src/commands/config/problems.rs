//! What `sternpost config check` finds beyond the text of the file: addresses that can't be bound together or are in use,
//! ports that need a capability, folders that are missing, and files with secrets that all users can read.

use super::confinement::refused_ways;
use super::ports::{has_open, user_of};
use super::service_user::ServiceUser;
use super::socket_units::{self, Mismatch};
use super::unit_file::UnitFile;
use crate::terminal::marks;
use config::Config;
use config::failure::Failure;
use nix::errno::Errno;
use nix::unistd::geteuid;
use operations::unconfigured::Unconfigured;
use operations::world::World;
use operations::{RolloutContext, access};
use sender::serve::listen::{Address, Listener, SocketFileOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;
use store::{Access, Store};

/// Whether `sternpost serve` starts in spite of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The server does not start.
    Error,
    /// The server starts.
    Warning,
}

/// A problem of the configuration or of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the server starts in spite of the problem.
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

/// The folder with the store of the packaged service.
const SERVICE_STATE: &str = "/var/lib/sternpost";

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
            Address::Tcp(_) => of_port(one.key, &one.address, &addresses, config.store.file()).await,
            Address::Unix(path) => of_folder(one.key, path),
            Address::Systemd(_) => None,
        });
    }
    found.extend(config.store.file().and_then(|file| of_folder("store", file)));
    // A folder that several keys need is reported once.
    let mut told = Vec::new();
    found.retain(|problem| {
        let about = problem.what.split_once(": ").map_or("", |(_, about)| about).to_owned();
        let is_new = !told.contains(&about);
        let is_folder = about.ends_with("does not exist");
        told.push(about);
        is_new || !is_folder
    });
    let place = config.store.file().unwrap_or(&config.state_folder);
    let service = ServiceUser::find(place, Path::new("/"));
    if let Some(service) = &service {
        let lacks = service.lacks(config, &listening);
        found.extend(lacks.into_iter().map(|(what, remedy)| Problem::error(what, remedy)));
    }
    if service.is_some() || place.starts_with(SERVICE_STATE) {
        let refused = refused_ways(config, &UnitFile::read(Path::new("/")));
        found.extend(refused.into_iter().map(|(what, remedy)| Problem::warning(what, remedy)));
    }
    found.extend(socket_units::mismatches(&listening, Path::new("/")).iter().map(of_socket_unit));
    found
}

/// Domains of the store that the file no longer has, although senders may hold a policy of them. Nothing if there is no store,
/// or if it can't be opened as it is: `sternpost serve` says why.
pub async fn unconfigured(config: &Config) -> Vec<Problem> {
    if config.store.file().is_some_and(|file| !file.is_file()) {
        return Vec::new();
    }
    // The server migrates a PostgreSQL database, or the operator does; a check does not.
    let access = Access { may_migrate: false, ..access(config) };
    let (Ok(store), Ok(world)) =
        (Store::connect(&config.store, &access, store::Tenant::FIRST).await, World::new(config))
    else {
        return Vec::new();
    };
    let context = RolloutContext::at(config.clone(), store, Arc::new(world)).await;
    let Ok(context) = context else { return Vec::new() };
    let warning = |missed: &Unconfigured| {
        Problem::warning(format!("{}: {}", missed.what(), missed.consequence()), missed.remedy())
    };
    let found = context.unconfigured.iter().map(warning).collect();
    context.store.close().await;
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
                "{unit} is enabled, and no key takes its socket: clients that connect to it get no answer"
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
async fn of_port(key: &str, address: &Address, all: &[Address], store: Option<&Path>) -> Option<Problem> {
    let bound = Listener::bind_beside(address, SocketFileOptions::default(), all).await;
    let error = bound.err()?;
    let Address::Tcp(tcp) = address else { return None };
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRINUSE) => in_use(key, address, user_of(*tcp, address.leaves_ipv4_to(all)), store),
        Some(Errno::EACCES) => Some(Problem::warning(
            format!("{key}: this user may not listen on {address}"),
            "Ports below 1024 need root or CAP_NET_BIND_SERVICE. Under systemd, use a socket unit (\"systemd:NAME\"), or add to the service\n  AmbientCapabilities=CAP_NET_BIND_SERVICE\n  CapabilityBoundingSet=CAP_NET_BIND_SERVICE\n  PrivateUsers=no",
        )),
        Some(Errno::EADDRNOTAVAIL) => Some(Problem::error(
            format!("{key}: {address} is not an address of this machine"),
            "Show the addresses with `ip address`; \"0.0.0.0\" and \"[::]\" stand for all of them.",
        )),
        Some(Errno::EAFNOSUPPORT) if address.leaves_ipv4_to(all) => Some(Problem::warning(
            format!("{key}: this machine does not support IPv6, so {address} is left out"),
            "The IPv4 address with the same port is used. Remove this one if IPv6 is not to come.",
        )),
        Some(Errno::EAFNOSUPPORT) => Some(Problem::error(
            format!("{key}: this machine does not support IPv6, so {address} can't be bound"),
            "Remove the address.",
        )),
        _ => Some(Problem::error(format!("{key}: {address} can't be bound: {error}"), "")),
    }
}

/// The problem of a port that another process listens on; `None` if that is the running Sternpost. With PostgreSQL every
/// Sternpost may be that one: its process has no file of the store open.
fn in_use(
    key: &str,
    address: &Address,
    user: Option<(u32, String)>,
    store: Option<&Path>,
) -> Option<Problem> {
    match user {
        Some((process, name)) if name == "sternpost" => {
            match store.is_none_or(|store| has_open(process, store)) {
                true => None,
                false => Some(Problem::error(
                    format!(
                        "{key}: {address} is in use by another Sternpost (process {process}), which has another store"
                    ),
                    "It runs with another configuration. Stop one of them, or choose another address.",
                )),
            }
        }
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

/// How to create a folder for the service, as the remedy of a problem.
fn creation(folder: &Path) -> String {
    let shown = folder.display();
    let by_systemd = match folder.components().nth(1).and_then(|part| part.as_os_str().to_str()) {
        Some("run") => " Under systemd, RuntimeDirectory= in the unit creates it.",
        Some("var") if folder.starts_with("/var/lib") => {
            " Under systemd, StateDirectory= in the unit creates it."
        }
        _ => "",
    };
    let is_packaged = ["/var/lib/sternpost", "/etc/sternpost", "/run/sternpost"]
        .iter()
        .any(|path| folder == Path::new(path));
    match is_packaged {
        true => format!("Installing Sternpost creates it (docs/install.md).{by_systemd}"),
        false => format!(
            "Create it, writable for the user that Sternpost runs as:\n  install -d -o sternpost -g sternpost {shown}{by_systemd}"
        ),
    }
}

/// A role that can't be made. Files that only the service can read are a warning for another user.
pub fn of_obstacle(failure: &Failure) -> Problem {
    let (what, why, remedy) = failure.parts();
    let shown = format!("{what}: {why}");
    if what.contains(CREDENTIALS) && !Path::new(CREDENTIALS).exists() {
        return Problem::warning(
            shown,
            "systemd provides this file while the service runs, if its unit has LoadCredential= for it; it can't be checked now.",
        );
    }
    if why.contains("Permission denied") && !geteuid().is_root() {
        return Problem::warning(
            shown,
            "Run the check as root, or as the user of the service, to see whether the service can read it.",
        );
    }
    Problem::error(shown, remedy)
}

/// The folder of the packaged unit with the files that systemd hands to it.
const CREDENTIALS: &str = "/run/credentials/sternpost.service";

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
            creation(folder),
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

    #[test]
    fn a_missing_folder_is_created_by_the_way_that_fits_its_place() {
        let of = |folder: &str| creation(Path::new(folder));
        assert!(of("/run/x").contains("RuntimeDirectory=") && !of("/run/x").contains("StateDirectory="));
        assert!(
            of("/var/lib/sternpost").contains("StateDirectory=")
                && of("/var/lib/sternpost").contains("install.md")
        );
        assert!(!of("/srv/x").contains("Directory=") && of("/srv/x").contains("install -d"));
    }

    #[tokio::test]
    async fn a_folder_that_two_keys_need_is_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        let text = "store = \"sqlite:none/s.db\"\n[answers]\nlisten = [\"127.0.0.1:0\"]\ncontrol = \"none/s.sock\"\n";
        let problems = found(text, dir.path()).await;
        assert_eq!(problems.iter().filter(|one| one.contains("does not exist")).count(), 1, "{problems:?}");
    }

    #[test]
    fn a_port_of_another_sternpost_is_an_error_and_of_the_same_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::parse("127.0.0.1:8461").unwrap();
        let store = dir.path().join("s.db");
        let _open = std::fs::File::create(&store).unwrap();
        let user = || Some((std::process::id(), "sternpost".to_owned()));
        assert_eq!(in_use("answers.listen", &address, user(), Some(&store)), None);
        assert_eq!(in_use("answers.listen", &address, user(), None), None);
        let other = in_use("answers.listen", &address, user(), Some(&dir.path().join("other.db"))).unwrap();
        assert!(other.severity == Severity::Error && other.what.contains("another Sternpost"), "{other:?}");
    }

    #[test]
    fn an_obstacle_is_an_error_unless_only_the_service_can_see_the_file() {
        let of = |what: &str, why: &str| of_obstacle(&Failure::usage(what, why, "")).severity;
        assert_eq!(of("the token file admin.token can't be read", "No such file"), Severity::Error);
        if !Path::new(CREDENTIALS).exists() {
            let file = format!("the token file {CREDENTIALS}/admin.token can't be read");
            assert_eq!(of(&file, "No such file"), Severity::Warning);
        }
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
