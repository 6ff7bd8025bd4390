//! Transports for report mail: directly to the MX hosts, a relay, the sendmail command, or a folder (RFC 8460 §5.3).
//!
//! The configuration selects one [`Transport`]. Its input is a composed mail from the delivery; alert mail uses it too.

use super::direct::{DirectDelivery, to_first_address};
use super::undelivered::Undelivered;
use formats::DomainName;
use formats::limits::{HOST_ADDRESSES, REPORT_MAIL_TIME};
use net::dns::interleave;
use net::smtp::{Mail, MailHosts, TlsDemand};
use net::system_names::system_addresses;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A transport for outgoing mail.
pub enum Transport {
    /// Directly to the MX hosts of the target, even if their TLS fails (RPT-17).
    Direct(DirectDelivery),
    /// Through the operator's relay.
    Relay {
        /// The relay's host name or IP address.
        host: String,
        /// The relay's TCP port.
        port: u16,
        /// The SMTP client, which connects to that port.
        client: Arc<dyn MailHosts>,
        /// The TLS requirement. With a password, the relay's certificate must be verified.
        demand: TlsDemand,
    },
    /// A command that accepts `-i -f SENDER -- RECIPIENT` and reads the message from stdin.
    Sendmail(PathBuf),
    /// A folder, for another program to send or a person to read.
    Folder(PathBuf),
}

impl Transport {
    /// Sends a mail to recipients in the domain `to`, within [`REPORT_MAIL_TIME`]. `name` is the file name in a folder,
    /// without extension. Returns a description of the result for the log.
    pub async fn carry(&self, to: &DomainName, mail: &Mail, name: &str) -> Result<String, Undelivered> {
        let attempt = async {
            match self {
                Self::Direct(direct) => {
                    direct.deliver(to, mail).await.map(|host| format!("{host} accepted it"))
                }
                Self::Relay { host, port, client, demand } => {
                    relay(host, *port, client.as_ref(), demand, mail).await
                }
                Self::Sendmail(program) => sendmail(program, mail).await,
                Self::Folder(dir) => write_file(dir, &format!("{name}.eml"), &mail.message),
            }
        };
        match tokio::time::timeout(REPORT_MAIL_TIME, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => {
                Err(Undelivered::temporary(format!("timed out after {} seconds", REPORT_MAIL_TIME.as_secs())))
            }
        }
    }
}

/// Delivers to the first address of the relay that accepts the mail. The name is resolved as the system does, so that
/// /etc/hosts and local names work.
async fn relay(
    host: &str,
    port: u16,
    client: &dyn MailHosts,
    demand: &TlsDemand,
    mail: &Mail,
) -> Result<String, Undelivered> {
    let fail = |why: String| Undelivered::temporary(format!("the relay {host}:{port}: {why}"));
    let found = system_addresses(host).await.map_err(|error| fail(error.to_string()))?;
    let addresses = relay_addresses(found);
    // An IP address has no name for SNI or certificate verification; `localhost` is a placeholder.
    let name = DomainName::parse(host).or_else(|_| DomainName::parse("localhost"));
    let name = name.map_err(|error| fail(error.to_string()))?;
    match to_first_address(client, &name, addresses, std::slice::from_ref(demand), mail).await {
        Ok(()) => Ok(format!("the relay {host}:{port} accepted it")),
        Err(failure) => Err(Undelivered { is_final: failure.is_final, ..fail(failure.why) }),
    }
}

/// The addresses to try: those of the system's resolver, whose order it prefers, with alternating families.
fn relay_addresses(found: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut addresses = interleave(found);
    addresses.truncate(HOST_ADDRESSES);
    addresses
}

/// The exit code of sendmail commands for a temporary failure (sysexits.h).
const EX_TEMPFAIL: i32 = 75;

async fn sendmail(program: &Path, mail: &Mail) -> Result<String, Undelivered> {
    let fail = |why: String| Undelivered::temporary(format!("{}: {why}", program.display()));
    let io = |error: std::io::Error| fail(error.to_string());
    let mut child = Command::new(program)
        .args(["-i", "-f", &mail.from, "--"])
        .args(&mail.to)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(io)?;
    if let Some(mut input) = child.stdin.take() {
        // The write fails if the command exits early; its exit code tells why.
        let _ = input.write_all(&mail.message).await;
    }
    let output = child.wait_with_output().await.map_err(io)?;
    let stderr: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(300).collect();
    match output.status.code() {
        Some(0) => Ok(format!("{} accepted it", program.display())),
        Some(EX_TEMPFAIL) | None => Err(fail(stderr)),
        Some(code) => Err(fail(format!("exit code {code}: {stderr}"))),
    }
}

/// Writes a file into a folder atomically, by renaming a temporary file.
pub(super) fn write_file(dir: &Path, name: &str, bytes: &[u8]) -> Result<String, Undelivered> {
    let path = dir.join(name);
    let temporary = dir.join(format!(".{name}.part"));
    let write = || {
        std::fs::create_dir_all(dir)?;
        std::fs::write(&temporary, bytes)?;
        std::fs::rename(&temporary, &path)
    };
    write().map_err(|error| Undelivered::temporary(format!("{}: {error}", path.display())))?;
    Ok(format!("written to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::BoxFuture;
    use net::smtp::{Fault, Reply, SessionFailure, SessionReport, Target};
    use std::sync::Mutex;

    fn mail() -> Mail {
        Mail {
            from: "a@s.example".into(),
            to: vec!["b@r.example".into()],
            message: b"Subject: x\r\n\r\nhello".to_vec(),
        }
    }

    fn script(dir: &Path, text: &str) -> Transport {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.join("sendmail");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Transport::Sendmail(path)
    }

    #[tokio::test]
    async fn a_command_gets_the_message_and_its_exit_code_decides_the_result() {
        let dir = tempfile::tempdir().unwrap();
        let to = DomainName::parse("r.example").unwrap();
        let out = dir.path().join("out");
        let transport = script(dir.path(), &format!("echo \"$@\" > {0}; cat >> {0}", out.display()));
        assert!(transport.carry(&to, &mail(), "n").await.is_ok());
        let got = std::fs::read_to_string(&out).unwrap();
        assert_eq!(got, "-i -f a@s.example -- b@r.example\nSubject: x\r\n\r\nhello");
        let error = script(dir.path(), "echo busy >&2; exit 75").carry(&to, &mail(), "n").await.unwrap_err();
        assert!(error.why.ends_with("busy") && !error.is_final, "{error:?}");
        let error = script(dir.path(), "exit 67").carry(&to, &mail(), "n").await.unwrap_err();
        assert!(error.why.contains("exit code 67"), "{error:?}");
        let missing = Transport::Sendmail(dir.path().join("none"));
        assert!(missing.carry(&to, &mail(), "n").await.unwrap_err().why.contains("none: No such file"));
    }

    /// A mail host that accepts mail at one address; any other gives this fault.
    struct OnlyAt(IpAddr, Fault, Mutex<Vec<(IpAddr, TlsDemand)>>);

    impl MailHosts for OnlyAt {
        fn session<'a>(
            &'a self,
            target: &'a Target,
            demand: &'a TlsDemand,
            _: Option<&'a Mail>,
        ) -> BoxFuture<'a, Result<SessionReport, Box<SessionFailure>>> {
            self.2.lock().unwrap().push((target.address, demand.clone()));
            let report = SessionReport::new(target);
            let failed = || Box::new(SessionFailure { fault: self.1.clone(), report: report.clone() });
            let is_good = target.address == self.0;
            Box::pin(std::future::ready(is_good.then(|| report.clone()).ok_or_else(failed)))
        }
    }

    fn refused(code: u16) -> Fault {
        Fault::Refused("RCPT TO", Reply { code, lines: vec!["no".into()] })
    }

    #[tokio::test]
    async fn a_host_is_tried_at_each_address_until_one_accepts_or_refuses_permanently() {
        let [first, second]: [IpAddr; 2] = ["::1", "127.0.0.1"].map(|address| address.parse().unwrap());
        let host = DomainName::parse("relay.example").unwrap();
        let deliver = async |fault: Fault, demands: &[TlsDemand]| {
            let client = OnlyAt(second, fault, Mutex::default());
            let outcome = to_first_address(&client, &host, vec![first, second], demands, &mail()).await;
            (outcome, client.2.into_inner().unwrap())
        };
        let (pkix, either) = ([TlsDemand::Pkix], [TlsDemand::Opportunistic, TlsDemand::Never]);
        for fault in [Fault::Connect("Connection refused".into()), refused(450), Fault::NoStarttls] {
            let (outcome, tried) = deliver(fault.clone(), &pkix).await;
            assert_eq!(outcome, Ok(()), "{fault}");
            assert_eq!(tried, [(first, TlsDemand::Pkix), (second, TlsDemand::Pkix)], "{fault}");
        }
        let (outcome, tried) = deliver(refused(550), &pkix).await;
        assert!(outcome.unwrap_err().is_final && tried.len() == 1);
        let tls = Fault::Handshake("broken".into());
        let (outcome, tried) = deliver(tls, &either).await;
        assert_eq!(outcome, Ok(()));
        let [one, two] = either;
        assert_eq!(tried, [(first, one.clone()), (first, two), (second, one)]);
    }

    #[test]
    fn a_relay_has_an_address_of_each_family_among_those_that_are_tried() {
        let many: Vec<IpAddr> = (1..=20).map(|last| format!("2001:db8::{last}").parse().unwrap()).collect();
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        let tried = relay_addresses(many.iter().copied().chain([v4]).collect());
        assert_eq!((tried.len(), tried[0], tried[1]), (HOST_ADDRESSES, many[0], v4));
    }

    #[tokio::test]
    async fn files_in_a_folder_are_complete() {
        let dir = tempfile::tempdir().unwrap();
        let transport = Transport::Folder(dir.path().join("out"));
        let to = DomainName::parse("r.example").unwrap();
        transport.carry(&to, &mail(), "id").await.unwrap();
        assert_eq!(std::fs::read(dir.path().join("out/id.eml")).unwrap(), mail().message);
        let file = Transport::Folder(dir.path().join("out/id.eml"));
        assert!(!file.carry(&to, &mail(), "id").await.unwrap_err().is_final);
    }
}
