//! A driver: a folder with scripts that install, start and stop a mail server. docs/measure.md describes them.

use super::namespace::{Inside, path};
use config::failure::Failure;
use formats::DomainName;
use lab::conformance::run::{Message, Progress, Sender, SendsReports};
use net::BoxFuture;
use net::certificate::Trust;
use net::clock::SystemClock;
use net::smtp::{Client, ClientConfig, Login, Mail, MailHosts, Target, TlsDemand};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long a script may take.
const SCRIPT_TIME: Duration = Duration::from_secs(120);
/// The longest time that is waited for; a longer one needs the script `clock`.
const LONGEST_WAIT: u32 = lab::conformance::case::LONGEST_WAIT;
/// How long the mail server may take to accept a message.
const INJECTION_TIME: Duration = Duration::from_secs(30);

/// How messages reach the mail server.
#[derive(Debug, Clone)]
pub enum Injection {
    /// By SMTP: without TLS, or with this login over TLS to a server whose certificate is valid.
    Smtp(SocketAddr, Option<Login>),
    /// To a program with the options of `sendmail`.
    Sendmail(PathBuf),
    /// To a shell command.
    Command(String),
    /// To the driver's script `inject`, called with the sender and the recipient.
    Script(PathBuf),
}

/// A mail server that was started by its driver.
pub struct Driver {
    /// What the script `start` says: the name and version of the mail server.
    pub server: String,
    folder: PathBuf,
    injection: Injection,
    environment: Vec<(&'static str, PathBuf)>,
    /// The lab's root, since the SMTP client wants one. It verifies nothing here.
    trust: Trust,
}

/// Runs the script `install`, if there is one, outside of the namespace.
pub fn install(folder: &Path) -> Result<(), Failure> {
    let script = folder.join("install");
    if !script.is_file() {
        return Ok(());
    }
    let status = std::process::Command::new(&script).env("PATH", path()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(&script, &status)),
        Err(error) => Err(failed(&script, &error)),
    }
}

fn failed(script: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("the driver's script {} failed", script.display()), why, "")
}

impl Driver {
    /// Runs the script `start`.
    pub async fn start(folder: PathBuf, injection: Injection, inside: &Inside) -> Result<Self, Failure> {
        let file = |name: &str| inside.folder.join(name);
        let place = file("server");
        std::fs::create_dir_all(&place).map_err(|error| failed(&place, &error))?;
        let environment = vec![
            ("LAB_DIR", place),
            ("LAB_CA", file("ca.pem")),
            ("LAB_RESOLV_CONF", file("resolv.conf")),
            ("LAB_TRUST_ANCHOR", file("root.key")),
            ("LAB_ROOT_DS", file("root.ds")),
            ("LAB_CERT", file("mail.pem")),
            ("LAB_KEY", file("mail.key")),
            ("LAB_DKIM_KEY", file("dkim.pem")),
            ("STERNPOST", std::env::current_exe().unwrap_or_default()),
        ];
        let trust = Trust::from_roots([inside.world.lab.pki.root()])
            .map_err(|error| Failure::new("the lab's root certificate can't be used", error, ""))?;
        let mut this = Self { server: String::new(), folder, injection, environment, trust };
        let said = this.script("start", &[]).await.map_err(|why| failed(&this.folder.join("start"), &why))?;
        let name = said
            .lines()
            .rfind(|line| !line.trim().is_empty())
            .map(|line| line.trim().chars().take(200).collect());
        this.server = name.unwrap_or_else(|| this.folder.display().to_string());
        Ok(this)
    }

    /// Runs the script `stop`. What it leaves behind ends with the namespace.
    pub async fn stop(&self) {
        if let Err(why) = self.script("stop", &[]).await {
            eprintln!("{}", failed(&self.folder.join("stop"), &why));
        }
    }

    /// Runs a script and returns its output, which goes to a file since daemons may keep it open.
    async fn script(&self, name: &str, arguments: &[&str]) -> Result<String, String> {
        let lab = self.environment.first().map(|(_, path)| path.clone()).unwrap_or_default();
        let (out, err) = (lab.join(format!("{name}.out")), lab.join(format!("{name}.err")));
        let file = |path: &Path| std::fs::File::create(path).map_err(|error| error.to_string());
        let mut command = Command::new(self.folder.join(name));
        command.args(arguments).envs(self.environment.iter().cloned()).env("PATH", path());
        command.stdin(Stdio::null()).stdout(file(&out)?).stderr(file(&err)?);
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let ended = tokio::time::timeout(SCRIPT_TIME, child.wait()).await;
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        match ended {
            Err(_) => Err(format!("no end within {} s", SCRIPT_TIME.as_secs())),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(status)) if status.success() => Ok(read(&out)),
            Ok(Ok(status)) => Err(format!("{status}\n{}{}", read(&out), read(&err))),
        }
    }

    async fn pipe(&self, mut command: Command, text: &str) -> Result<Progress, String> {
        command.envs(self.environment.iter().cloned()).env("PATH", path());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(text.as_bytes()).await.map_err(|error| error.to_string())?;
        }
        let output = child.wait_with_output().await.map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(Progress::Running),
            false => Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())),
        }
    }

    async fn send(&self, message: &Message) -> Result<Progress, String> {
        let (from, to) = (&message.from, &message.to);
        match &self.injection {
            Injection::Smtp(address, login) => {
                by_smtp(*address, login.clone(), self.trust.clone(), message).await
            }
            Injection::Sendmail(program) => {
                let mut command = Command::new(program);
                command.args(["-i", "-f", from, to]);
                self.pipe(command, &message.text).await
            }
            Injection::Script(script) => {
                let mut command = Command::new(script);
                command.args([from, to]);
                self.pipe(command, &message.text).await
            }
            Injection::Command(line) => {
                let mut command = Command::new("sh");
                command.arg("-c").arg(line.replace("{from}", from).replace("{to}", to));
                self.pipe(command, &message.text).await
            }
        }
    }
}

async fn by_smtp(
    address: SocketAddr,
    login: Option<Login>,
    trust: Trust,
    message: &Message,
) -> Result<Progress, String> {
    let demand = if login.is_some() { TlsDemand::Pkix } else { TlsDemand::Never };
    let host = DomainName::parse("mail.sender.test").map_err(|error| error.to_string())?;
    let mut config = ClientConfig::new(trust, host.clone());
    (config.port, config.allow_special_addresses, config.login) = (address.port(), true, login);
    let client = Client::new(config, Arc::new(SystemClock)).map_err(|error| error.to_string())?;
    let mail = Mail {
        from: message.from.clone(),
        to: vec![message.to.clone()],
        message: message.text.clone().into_bytes(),
    };
    let target = Target { host, address: address.ip() };
    client.session(&target, &demand, Some(&mail)).await.map_err(|error| error.to_string())?;
    Ok(Progress::Running)
}

impl Sender for Driver {
    fn inject<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<Progress, String>> {
        Box::pin(async move {
            let sent = tokio::time::timeout(INJECTION_TIME, self.send(message)).await;
            sent.unwrap_or_else(|_| Err(format!("no end within {} s", INJECTION_TIME.as_secs())))
        })
    }

    fn restart(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let unable = |why| format!("the driver could not restart the mail server: {why}");
            self.script("stop", &[]).await.map_err(unable)?;
            self.script("start", &[]).await.map(|_| ()).map_err(unable)
        })
    }

    fn let_pass<'a>(&'a self, _: &'a str, seconds: u32) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            if seconds <= LONGEST_WAIT {
                tokio::time::sleep(Duration::from_secs(seconds.into())).await;
                return Ok(());
            }
            self.optional("clock", "it moves the clock of this mail server")?;
            let moved = self.script("clock", &[&seconds.to_string()]).await;
            moved
                .map(|_| ())
                .map_err(|why| format!("the driver could not move the clock: {}", one_line(&why)))
        })
    }

    fn reporter(&self) -> Result<&dyn SendsReports, String> {
        self.optional("reports", "it makes this mail server send TLS reports")?;
        Ok(self)
    }
}

impl SendsReports for Driver {
    fn send_reports(&self) -> BoxFuture<'_, Result<Progress, String>> {
        Box::pin(async move {
            let unable = |why: String| format!("the driver could not have reports sent: {}", one_line(&why));
            self.script("reports", &[]).await.map_err(unable)?;
            Ok(Progress::Running)
        })
    }
}

impl Driver {
    /// Whether the driver has this optional script. An error says what the mail server lacks without it.
    fn optional(&self, name: &str, what: &str) -> Result<(), String> {
        match self.folder.join(name).is_file() {
            true => Ok(()),
            false => Err(format!("the driver has no script {name:?}: {what}")),
        }
    }
}

/// The lines of a script's output as one, for the results.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(": ").chars().take(500).collect()
}
