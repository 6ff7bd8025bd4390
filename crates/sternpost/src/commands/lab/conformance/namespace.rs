//! The namespaces in which a mail server is measured: a network where only the lab is, mounts that nobody else sees, and
//! processes that end with the command. Inside, the lab uses public addresses and the ports 53, 443 and 25, and Unbound
//! validates between the lab's name server and the observer at 127.0.0.1:53.
//!
//! The command that the user starts makes the folder of the run and removes it when all processes in the namespaces have
//! ended. A driver's mounts below that folder exist in the namespace only, so that the removal can't reach what they show.

use crate::interrupt::interruption;
use config::failure::{Exit, Failure};
use lab::Ports;
use lab::conformance::case::Case;
use lab::conformance::world::{Place, World};
use lab::pki::Cert;
use net::clock::SystemClock;
use nix::unistd::geteuid;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The first two numbers of the lab's addresses. No packet leaves the namespace.
const NETWORK: [u8; 2] = [11, 77];
/// The first four parts of the lab's IPv6 addresses, which are global ones as well.
const NETWORK_6: [u16; 4] = [0x2600, 0x1177, 0, 0];
/// Where mail servers query DNS.
const FRONT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 53);
/// Where Unbound listens.
const RESOLVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5335);
/// How long Unbound may take to start.
const START_TIME: Duration = Duration::from_secs(60);

/// The file in the folder of the run that says that the namespaces were made.
const BEGUN: &str = "begun";
/// How long the command inside may take to end after a signal.
const END_TIME: Duration = Duration::from_secs(10);

/// Runs this command again in namespaces of its own, with a folder that is removed at the end, and returns its exit code.
///
/// # Errors
///
/// If the namespaces can't be made.
pub async fn run_inside() -> Result<Exit, Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::new(
            "the namespace can't be made",
            error,
            "The command needs root, and the programs setpriv, unshare, ip and mount of util-linux and iproute2.",
        )
    };
    if !geteuid().is_root() {
        return Err(fail(&"this user may not make one"));
    }
    let folder = tempfile::Builder::new().prefix("sternpost-conformance-").tempdir();
    let folder = folder.map_err(|error| failed("a temporary folder", &error))?;
    // The mail server has a user of its own.
    let readable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), readable).map_err(|error| failed("the folder's mode", &error))?;
    let own = std::env::current_exe().map_err(|error| fail(&error))?;
    let interrupted = interruption("the end of its servers")?;
    // `unshare` ends with this process however it ends, and everything inside with `unshare`.
    let mut command = tokio::process::Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]);
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]);
    // The shell takes care of orphans that daemons leave behind.
    command
        .arg("\"$0\" \"$@\"; exit $?")
        .arg(own)
        .args(std::env::args_os().skip(1))
        .arg("--inside")
        .arg(folder.path());
    let mut child = command.spawn().map_err(|error| fail(&error))?;
    let ended = tokio::select! {
        status = child.wait() => Some(status),
        () = interrupted.cancelled() => tokio::time::timeout(END_TIME, child.wait()).await.ok(),
    };
    let Some(status) = ended else {
        let _ = child.kill().await;
        return Ok(Exit::Interrupted);
    };
    let status = status.map_err(|error| fail(&error))?;
    if interrupted.is_cancelled() {
        return Ok(Exit::Interrupted);
    }
    if !folder.path().join(BEGUN).exists() {
        return Err(fail(&status));
    }
    Ok(match status.code() {
        Some(0) => Exit::Fine,
        Some(1) => Exit::Findings,
        Some(2) => Exit::Usage,
        Some(130) | None => Exit::Interrupted,
        Some(_) => Exit::Unknown,
    })
}

/// The lab in its namespace. Dropping it stops it.
pub struct Inside {
    /// The observed lab.
    pub world: Arc<World>,
    /// The folder for the driver and the mail server.
    pub folder: PathBuf,
    _unbound: tokio::process::Child,
}

impl Inside {
    /// Configures the network and starts the lab and Unbound, with their files in `folder`.
    pub async fn start(folder: PathBuf, cases: &[Case]) -> Result<Self, Failure> {
        write(&folder.join(BEGUN), "")?;
        let [high, low] = NETWORK;
        shell("ip link set lo up")?;
        shell(&format!("ip address add {high}.{low}.0.1/16 dev lo"))?;
        // On a machine without IPv6, the cases that need it are not observable.
        let [a, b, c, d] = NETWORK_6;
        let prefix = std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0);
        // One for the clients, two for the lab's servers; the rest of the network answers that nothing listens.
        for number in 1..=3 {
            let _ = shell(&format!("ip -6 address add {prefix}{number}/64 dev lo nodad"));
        }
        let _ = shell(&format!("ip -6 route add local {prefix}/64 dev lo"));
        write(&folder.join("resolv.conf"), "nameserver 127.0.0.1\noptions trust-ad timeout:2 attempts:2\n")?;
        shell("mount --make-rprivate /")?;
        shell(&format!("mount --bind {}/resolv.conf /etc/resolv.conf", folder.display()))?;
        let ports = Ports { dns: 53, https: 443, smtp: 25, block: 0 };
        let place = Place {
            network: NETWORK,
            ports,
            front: Some(FRONT),
            resolver: Some(RESOLVER),
            ipv6: Some(NETWORK_6),
        };
        let world = World::start(place, Arc::new(SystemClock), cases).await.map_err(super::not_started)?;
        write_trust(&world, &folder)?;
        write_keys(&world, &folder)?;
        let unbound = start_unbound(&world, &folder).await?;
        Ok(Self { world: Arc::new(world), folder, _unbound: unbound })
    }

    /// How to look around after the run.
    pub fn directions(&self) -> String {
        format!(
            "\nThe mail server and the lab run until Ctrl-C. The driver's folder is {}. To enter the namespace:\n  nsenter --all --target $(pgrep -n -f -- '--keep.*--inside') bash\n",
            self.folder.display()
        )
    }
}

fn write_trust(world: &World, folder: &Path) -> Result<(), Failure> {
    let fail = |error: lab::dns::DnsSetupError| failed("the trust anchor", &error);
    let key = world.lab.names.trust_anchor().map_err(fail)?;
    let ds = world.lab.names.root_ds().map_err(fail)?;
    write(&folder.join("ca.pem"), &world.lab.pki.root_pem())?;
    write(&folder.join("root.key"), &(key + "\n"))?;
    write(&folder.join("root.ds"), &(ds + "\n"))
}

/// The certificate of the mail server under test with its key, and the key that signs its reports.
fn write_keys(world: &World, folder: &Path) -> Result<(), Failure> {
    let identity = world.lab.pki.issue("mail.sender.test", Cert::Good);
    let identity = identity.map_err(|error| failed("the certificate of the mail server", &error))?;
    write(&folder.join("mail.pem"), &identity.chain_pem())?;
    let keys =
        [("mail.key", Some(identity.key_pem())), ("dkim.pem", world.report_key().map(|key| key.pem.clone()))];
    for (name, text) in keys {
        let Some(text) = text else { continue };
        let path = folder.join(name);
        write(&path, &text)?;
        // Programs refuse keys that others can read.
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, private).map_err(|error| failed(name, &error))?;
    }
    Ok(())
}

async fn start_unbound(world: &World, folder: &Path) -> Result<tokio::process::Child, Failure> {
    let (place, lab) = (folder.display(), world.name_server());
    let config = format!(
        "server:\n  interface: {}@{}\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  directory: \"{place}\"\n  \
         pidfile: \"{place}/unbound.pid\"\n  use-syslog: no\n  do-ip6: no\n  do-not-query-localhost: no\n  \
         trust-anchor-file: \"{place}/root.ds\"\n  local-zone: \"test.\" nodefault\n  cache-max-ttl: 1\n  \
         cache-max-negative-ttl: 1\n  val-bogus-ttl: 1\n  num-queries-per-thread: 1024\n  qname-minimisation: no\n\
         remote-control:\n  control-enable: no\nstub-zone:\n  name: \".\"\n  stub-addr: {}@{}\n",
        RESOLVER.ip(),
        RESOLVER.port(),
        lab.ip(),
        lab.port(),
    );
    let file = folder.join("unbound.conf");
    write(&file, &config)?;
    let log =
        std::fs::File::create(folder.join("unbound.log")).map_err(|error| failed("a log file", &error))?;
    let mut command = tokio::process::Command::new("unbound");
    command.arg("-c").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
    command.env("PATH", path());
    let child = command.spawn().map_err(|error| {
        Failure::new(
            "Unbound can't be started",
            error,
            "Install the package unbound: it validates DNSSEC in the lab.",
        )
    })?;
    let begun = Instant::now();
    while tokio::net::TcpStream::connect(RESOLVER).await.is_err() {
        if begun.elapsed() > START_TIME {
            let said = std::fs::read_to_string(folder.join("unbound.log")).unwrap_or_default();
            return Err(Failure::new("Unbound does not answer", said.trim(), ""));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(child)
}

/// `PATH` with the folders of system programs.
pub fn path() -> String {
    format!("{}:/usr/local/sbin:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

fn shell(line: &str) -> Result<(), Failure> {
    let output = Command::new("sh").args(["-c", line]).env("PATH", path()).output();
    let output = output.map_err(|error| failed(line, &error))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(line, &String::from_utf8_lossy(&output.stderr).trim())),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| failed(&path.display().to_string(), &error))
}

fn failed(what: &str, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("the namespace can't be set up: {what}"), why, "")
}
