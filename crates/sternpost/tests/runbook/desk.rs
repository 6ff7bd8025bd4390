//! An operator's desk in the lab: example.org as the operator's own domain, partner.example as another's, a folder with
//! `sternpost.toml`, the running server, and a shell in which the commands of docs/runbook.md run as they stand. The
//! operator publishes by hand what `sternpost apply` prints.

use crate::page::{Asked, Block, asked_for, compare, fits, masked, section};
use crate::patience::{PATIENCE, until_ready, until_some_or};
use formats::DomainName;
use lab::behavior::Behavior;
use lab::case::Case;
use lab::dns::Rr;
use lab::pki::Cert;
use lab::policy_host::{HttpBehavior, Site};
use lab::{Lab, Ports};
use net::clock::{Clock, SystemClock};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use store::Store;
use store::hosting::StoredCertificate;

pub struct Desk {
    dir: tempfile::TempDir,
    pub lab: Lab,
    pub runtime: tokio::runtime::Runtime,
    blocks: VecDeque<Block>,
    serving: Option<Child>,
}

impl Desk {
    /// The desk for a section of the page, with these domains in the lab.
    pub fn new(number: u32, cases: &[Case]) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let lab = runtime.block_on(Lab::with_cases(Ports::free(), SystemClock.now(), cases)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), lab.pki.root_pem()).unwrap();
        std::fs::write(dir.path().join("root.key"), lab.names.trust_anchor().unwrap()).unwrap();
        let this = Self {
            dir,
            lab,
            runtime,
            blocks: section(number).into_iter().filter(|block| !block.mark.ends_with(" postfix")).collect(),
            serving: None,
        };
        this.script("systemctl", "[ $1 = restart ] || kill -HUP $(cat pid)");
        this.configure("");
        this
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command for the shell of this desk.
    fn script(&self, name: &str, line: &str) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::create_dir_all(self.path("bin")).unwrap();
        let path = self.path("bin").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Writes `sternpost.toml`: how the lab is reached, and these lines.
    pub fn configure(&self, lines: &str) {
        let text = format!(
            "[dns]\nservers = [\"{}\"]\ntrust_anchor = \"root.key\"\n[trust]\nca_file = \"ca.pem\"\nallow_private_addresses = true\n\
             [lab]\ndns_port = {}\nhttps_port = {}\nsmtp_port = {}\n{lines}",
            self.lab.names.address,
            self.lab.names.address.port(),
            self.lab.https_port,
            self.lab.smtp_port
        );
        std::fs::write(self.path("sternpost.toml"), text).unwrap();
    }

    /// The next block of the section, which has this mark.
    pub fn block(&mut self, mark: &str) -> String {
        let block =
            self.blocks.pop_front().unwrap_or_else(|| panic!("the section has no more blocks: {mark}"));
        assert_eq!(block.mark, mark, "{}", block.text);
        block.text
    }

    /// The text of the first block with this mark that is still to come.
    pub fn coming(&self, mark: &str) -> String {
        self.blocks
            .iter()
            .find(|block| block.mark == mark)
            .unwrap_or_else(|| panic!("no block {mark}"))
            .text
            .clone()
    }

    /// Runs the commands of the next block, and compares what they print. The last one ends with the code in the mark,
    /// all others with 0.
    pub fn run(&mut self) {
        let block = self.blocks.pop_front().unwrap_or_else(|| panic!("the section has no more blocks"));
        let code = match block.mark.strip_prefix("console") {
            Some("") => 0,
            Some(more) => more.strip_prefix(" exit=").and_then(|code| code.parse().ok()).unwrap(),
            None => panic!("no commands: {block:?}"),
        };
        let commands = block.commands();
        for (at, shown) in commands.iter().enumerate() {
            let (ended, printed) = self.shell(&shown.command);
            compare(&shown.output, &printed).unwrap_or_else(|both| panic!("$ {}\n{both}", shown.command));
            let last = at + 1 == commands.len();
            assert_eq!(ended, if last { code } else { 0 }, "$ {}\n{printed}", shown.command);
        }
    }

    /// The first look takes what is there into the stored state.
    pub fn first_look(&self) {
        let (code, planned) = self.shell("sternpost plan");
        assert!(code == 0 && planned.contains("in the desired state (enforce)"), "{planned}");
    }

    /// Runs a line of shell in the folder; meanwhile the operator publishes what it asks for.
    pub fn shell(&self, line: &str) -> (i32, String) {
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_sternpost")).parent().unwrap();
        let path = format!(
            "{}:{}:{}",
            self.path("bin").display(),
            program.display(),
            std::env::var("PATH").unwrap()
        );
        let out = self.path("printed");
        let file = std::fs::File::create(&out).unwrap();
        let mut child = Command::new("bash")
            .current_dir(self.dir.path())
            .env("PATH", path)
            .args(["-c", line])
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let (mut published, begun) = (0, Instant::now());
        loop {
            let ended = child.try_wait().unwrap();
            let bytes = std::fs::read(&out).unwrap_or_default();
            let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if line.contains("sternpost apply") {
                self.publish(&String::from_utf8_lossy(&bytes[published..complete]));
                published = complete;
            }
            let printed = String::from_utf8_lossy(&bytes).into_owned();
            if let Some(status) = ended {
                return (status.code().unwrap(), printed);
            }
            if begun.elapsed() > PATIENCE {
                let _ = child.kill();
                panic!("it does not end: {line}\n{printed}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Publishes the records and the policy file in these lines, as the operator does by hand.
    fn publish(&self, lines: &str) {
        for asked in asked_for(lines) {
            match asked {
                Asked::Policy { text, .. } => self.serve_policy(&text),
                Asked::Record(line) => {
                    let Some((name, value)) = line.split_once(" IN TXT ") else { continue };
                    let name = name.split(' ').next().unwrap();
                    let value = value.trim_matches('"').to_owned();
                    self.lab.names.set(name, vec![Rr::Txt(vec![value])]).unwrap();
                }
            }
        }
    }

    /// The web server of example.org serves this policy.
    pub fn serve_policy(&self, policy: &str) {
        self.serve_policy_with(policy, Cert::Good);
    }

    pub fn serve_policy_with(&self, policy: &str, certificate: Cert) {
        self.serve_policy_of("example.org", policy, certificate);
    }

    pub fn serve_policy_of(&self, domain: &str, policy: &str, certificate: Cert) {
        let host = format!("mta-sts.{domain}");
        let identity = self.lab.pki.issue(&host, certificate).unwrap();
        self.lab.sites.put(&host, Site { answers: HttpBehavior::Policy(policy.to_owned()), identity });
    }

    /// Publishes the CAA record of the next block.
    pub fn caa(&mut self) {
        let block = self.block("zone");
        let (name, issuer) = block.trim().split_once(" 300 IN CAA 0 issue ").unwrap();
        self.lab.names.set(name, vec![Rr::Caa(Some(issuer.trim_matches('"').to_owned()))]).unwrap();
    }

    /// Starts an MX host, and gives its address.
    pub fn start_mail_host(&self, host: &str, behavior: Behavior, certificate: Cert) -> Ipv4Addr {
        let identity = self.lab.pki.issue(host, certificate).unwrap();
        let name = DomainName::parse(host).unwrap();
        self.runtime.block_on(self.lab.start_mail_host(&name, behavior, &identity)).unwrap()
    }

    /// Another server takes the place of an MX host.
    pub fn replace_mx_host(&self, label: &str, behavior: Behavior, certificate: Cert) {
        self.replace_mx_host_of("example.org", label, behavior, certificate);
    }

    pub fn replace_mx_host_of(&self, domain: &str, label: &str, behavior: Behavior, certificate: Cert) {
        let host = format!("{label}.{domain}");
        let address = self.start_mail_host(&host, behavior, certificate);
        self.lab.names.set(&format!("{host}."), vec![Rr::A(address)]).unwrap();
    }

    /// The store of the running server.
    fn store(&self) -> Store {
        self.runtime.block_on(Store::open(&self.path("sternpost.db"), store::Tenant::FIRST)).unwrap()
    }

    pub fn put_certificate(&self, certificate: &StoredCertificate) {
        self.runtime.block_on(self.store().put_certificate(certificate)).unwrap();
    }

    pub fn certificate(&self, host: &DomainName) -> StoredCertificate {
        self.runtime.block_on(self.store().certificate(host)).unwrap().unwrap()
    }

    /// Puts a certificate and its key for the policy host into a folder, under the names that ACME clients use.
    pub fn identity(&self, folder: &str, certificate: Cert) {
        let identity = self.lab.pki.issue("mta-sts.example.org", certificate).unwrap();
        std::fs::create_dir_all(self.path(folder)).unwrap();
        std::fs::write(self.path(folder).join("fullchain.pem"), identity.chain_pem()).unwrap();
        std::fs::write(self.path(folder).join("privkey.pem"), identity.key_pem()).unwrap();
    }

    /// Starts `sternpost serve` and waits until it is ready.
    pub fn serve(&mut self) {
        let log = self.path("log");
        let child = Command::new(env!("CARGO_BIN_EXE_sternpost"))
            .current_dir(self.dir.path())
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        std::fs::write(self.path("pid"), child.id().to_string()).unwrap();
        until_ready(self.serving.insert(child), &log);
    }

    /// Ends `sternpost serve`.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.serving.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits until the configuration was reloaded so many times.
    pub fn reloaded(&self, times: usize) {
        self.until("the reload", |desk| desk.log().matches("configuration reloaded").count() >= times);
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits until the lines of the next block are in the log.
    pub fn logged(&mut self) {
        let block = self.block("log");
        for line in block.lines() {
            let line = masked(line);
            self.until(&line, |desk| desk.log().lines().any(|logged| fits(&line, &masked(logged))));
        }
    }

    pub fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        until_some_or(|| format!("in vain: {what}\n{}", self.log()), || is_so(self).then_some(()));
    }

    /// Nothing of the section is left that no test ran.
    pub fn done(&self) {
        assert!(self.blocks.is_empty(), "not run: {:?}", self.blocks);
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.stop();
    }
}
