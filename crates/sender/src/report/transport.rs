//! The ways by which report mail leaves: straight to the target's MX, by a relay, by the sendmail command, or into
//! a folder (RFC 8460 §5.3).

use super::direct::DirectDelivery;
use super::undelivered::Undelivered;
use formats::DomainName;
use formats::limits::REPORT_MAIL_TIME;
use net::smtp::{Mail, MailHosts, Target, TlsDemand};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A way.
pub enum Transport {
    /// Straight to the MX hosts of the target, whatever their TLS does (RPT-17).
    Direct(DirectDelivery),
    /// By a relay of the operator's.
    Relay {
        /// Its name or address.
        host: String,
        /// Its port.
        port: u16,
        /// Talks to that port.
        client: Arc<dyn MailHosts>,
        /// What is asked of its TLS: proof of who it is, where it is told a password.
        demand: TlsDemand,
    },
    /// By a command that takes `-i -f SENDER -- RECIPIENT` and the message.
    Sendmail(PathBuf),
    /// Into a folder, for somebody else to carry or to read.
    Folder(PathBuf),
}

impl Transport {
    /// Brings one mail to `to`; says how it went.
    pub async fn carry(&self, to: &DomainName, mail: &Mail, name: &str) -> Result<String, Undelivered> {
        let carried = async {
            match self {
                Self::Direct(direct) => direct.deliver(to, mail).await.map(|host| format!("{host} took it")),
                Self::Relay { host, port, client, demand } => {
                    relay(host, *port, client.as_ref(), demand, mail).await
                }
                Self::Sendmail(program) => sendmail(program, mail).await,
                Self::Folder(dir) => put(dir, &format!("{name}.eml"), &mail.message),
            }
        };
        match tokio::time::timeout(REPORT_MAIL_TIME, carried).await {
            Ok(outcome) => outcome,
            Err(_) => {
                Err(Undelivered::now(format!("not done within {} seconds", REPORT_MAIL_TIME.as_secs())))
            }
        }
    }
}

async fn relay(
    host: &str,
    port: u16,
    client: &dyn MailHosts,
    demand: &TlsDemand,
    mail: &Mail,
) -> Result<String, Undelivered> {
    let fail = |why: String| Undelivered::now(format!("the relay {host}:{port}: {why}"));
    let mut found = tokio::net::lookup_host((host, port)).await.map_err(|error| fail(error.to_string()))?;
    let address = found.next().ok_or_else(|| fail("it has no address".to_owned()))?.ip();
    // An address has no name that could be asked for; it can't prove itself by one either.
    let name = DomainName::parse(host).or_else(|_| DomainName::parse("localhost"));
    let target = Target { host: name.map_err(|error| fail(error.to_string()))?, address };
    match client.session(&target, demand, Some(mail)).await {
        Ok(_) => Ok(format!("the relay {host}:{port} took it")),
        Err(failure) => {
            Err(Undelivered { is_final: failure.fault.is_permanent(), ..fail(failure.fault.to_string()) })
        }
    }
}

/// What commands of this kind exit with when it is worth trying again (sysexits.h, EX_TEMPFAIL).
const EX_TEMPFAIL: i32 = 75;

async fn sendmail(program: &Path, mail: &Mail) -> Result<String, Undelivered> {
    let fail = |why: String| Undelivered::now(format!("{}: {why}", program.display()));
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
        // A command that ends early says why by its exit.
        let _ = input.write_all(&mail.message).await;
    }
    let output = child.wait_with_output().await.map_err(io)?;
    let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(300).collect();
    match output.status.code() {
        Some(0) => Ok(format!("{} took it", program.display())),
        Some(EX_TEMPFAIL) | None => Err(fail(said)),
        Some(code) => Err(fail(format!("it exits with {code}: {said}"))),
    }
}

/// Puts a file into a folder, whole or not at all.
pub(super) fn put(dir: &Path, name: &str, bytes: &[u8]) -> Result<String, Undelivered> {
    let path = dir.join(name);
    let begun = dir.join(format!(".{name}.part"));
    let write = || {
        std::fs::create_dir_all(dir)?;
        std::fs::write(&begun, bytes)?;
        std::fs::rename(&begun, &path)
    };
    write().map_err(|error| Undelivered::now(format!("{}: {error}", path.display())))?;
    Ok(format!("put to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    async fn a_command_gets_the_message_and_its_exit_says_how_it_went() {
        let dir = tempfile::tempdir().unwrap();
        let to = DomainName::parse("r.example").unwrap();
        let out = dir.path().join("out");
        let transport = script(dir.path(), &format!("echo \"$@\" > {0}; cat >> {0}", out.display()));
        assert!(transport.carry(&to, &mail(), "n").await.is_ok());
        let got = std::fs::read_to_string(&out).unwrap();
        assert_eq!(got, "-i -f a@s.example -- b@r.example\nSubject: x\r\n\r\nhello");
        let said = script(dir.path(), "echo busy >&2; exit 75").carry(&to, &mail(), "n").await.unwrap_err();
        assert!(said.why.ends_with("busy") && !said.is_final, "{said:?}");
        let said = script(dir.path(), "exit 67").carry(&to, &mail(), "n").await.unwrap_err();
        assert!(said.why.contains("exits with 67"), "{said:?}");
        let gone = Transport::Sendmail(dir.path().join("none"));
        assert!(gone.carry(&to, &mail(), "n").await.unwrap_err().why.contains("none: No such file"));
    }

    #[tokio::test]
    async fn a_folder_gets_whole_files() {
        let dir = tempfile::tempdir().unwrap();
        let transport = Transport::Folder(dir.path().join("out"));
        let to = DomainName::parse("r.example").unwrap();
        transport.carry(&to, &mail(), "id").await.unwrap();
        assert_eq!(std::fs::read(dir.path().join("out/id.eml")).unwrap(), mail().message);
        let file = Transport::Folder(dir.path().join("out/id.eml"));
        assert!(!file.carry(&to, &mail(), "id").await.unwrap_err().is_final);
    }
}
