//! `sternpost lab`: lists the test domains of the crate `lab`, or serves them on loopback until interrupted. It also
//! writes the trust anchors and prints how other tools reach the lab; `sternpost demo --keep` uses that too.

mod conformance;

use crate::terminal::{say, show};
use config::failure::{Exit, Failure, empty_folder};
use lab::case::{Case, Delivery, Topic};
use lab::{Lab, Ports};
use net::clock::{Clock, SystemClock};
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The subcommands of `sternpost lab`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the domains, the fault of each, and what a sender must do with mail for it
    #[command(after_help = "Example:\n  sternpost lab list")]
    List {
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Serve all domains until Ctrl-C, and print how dig, curl, openssl and mail servers reach them
    #[command(after_help = "Example:\n  sternpost lab serve --attack all")]
    Serve(Serve),
    /// Measure what a mail server does with MTA-STS and DANE against what the RFCs demand
    ///
    /// The command runs the lab in a network namespace, has the mail server send mail to each domain of the table, observes its
    /// DNS queries, HTTPS requests and SMTP sessions, and judges them. It needs root and Unbound, except with --list, --explain
    /// and --control. With --domain it shows whether one domain does what the RFCs ask of the receiving side; that needs neither.
    #[command(
        after_help = "Examples:\n  sternpost lab conformance --list\n  sternpost lab conformance --control correct\n  sternpost lab conformance --explain enforce\n  sternpost lab conformance --domain example.org\n\ndocs/measure.md has the drivers of mail servers."
    )]
    Conformance(Box<conformance::Conformance>),
}

/// The options of `sternpost lab serve`.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// DNS port
    #[arg(long, default_value_t = 5300)]
    dns_port: u16,
    /// HTTPS port of all policy hosts
    #[arg(long, default_value_t = 8443)]
    https_port: u16,
    /// SMTP port of all MX hosts
    #[arg(long, default_value_t = 2525)]
    smtp_port: u16,
    /// Use ports 53, 443 and 25, for mail servers with fixed ports (needs root)
    #[arg(long, conflicts_with_all = ["dns_port", "https_port", "smtp_port"])]
    real_ports: bool,
    /// Use addresses 127.BLOCK.x.x
    #[arg(long, default_value_t = 77, value_parser = clap::value_parser!(u8).range(1..))]
    block: u8,
    /// Attack this domain from the start; repeatable; `all` for every domain with an attacker
    #[arg(long, value_name = "NAME")]
    attack: Vec<String>,
    /// Folder for the root certificate, the trust anchor and a matching sternpost.toml; must be empty or new
    /// [default: a new temporary folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the subcommand.
pub async fn run(command: &Command, config: Option<&Path>) -> Result<Exit, Failure> {
    match command {
        Command::List { json } => show(&if *json { list_json() } else { list_text() }),
        Command::Serve(serve) => serve.run().await?,
        Command::Conformance(options) => return options.run(config).await,
    }
    Ok(Exit::Fine)
}

#[derive(serde::Serialize)]
struct Listed {
    domain: String,
    topic: Topic,
    about: &'static str,
    verdict: lab::case::Verdict,
}

fn list_json() -> String {
    let cases: Vec<Listed> = [lab::cases::all(), lab::oddities::all()]
        .concat()
        .into_iter()
        .map(|case| Listed {
            domain: case.domain(),
            topic: case.topic,
            about: case.about,
            verdict: case.verdict,
        })
        .collect();
    format!("{}\n", serde_json::json!({ "schema": 1, "cases": cases }))
}

fn list_text() -> String {
    let cases = lab::cases::all();
    let oddities = lab::oddities::all();
    let mut out = format!(
        "{} domains. What a sender that honors MTA-STS and DANE must do with mail for {} of them; {} more have defects that only `sternpost check` finds:\n",
        cases.len() + oddities.len(),
        cases.len(),
        oddities.len()
    );
    let mut topic = None;
    for case in &cases {
        if topic != Some(case.topic) {
            topic = Some(case.topic);
            let _ = writeln!(out, "\n{}", heading(case.topic));
        }
        let _ = writeln!(
            out,
            "  {:<28} {:<10} {:<38} {}",
            case.domain(),
            word(case.verdict.delivery),
            reported(case),
            case.about
        );
    }
    let _ = writeln!(out, "\n{}", heading(Topic::Preflight));
    for case in &oddities {
        let _ = writeln!(out, "  {:<28} {}", case.domain(), case.about);
    }
    out
}

fn heading(topic: Topic) -> &'static str {
    match topic {
        Topic::Record => "The _mta-sts record",
        Topic::PolicyHost => "The policy host",
        Topic::Policy => "The policy file",
        Topic::Mx => "MX hosts",
        Topic::Dane => "DANE",
        Topic::Attack => "An attacker on the path (enable with `lab serve --attack`)",
        Topic::Preflight => "Further findings of `sternpost check`",
    }
}

fn word(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Verified => "verified",
        Delivery::Encrypted => "encrypted",
        Delivery::Clear => "clear",
        Delivery::Deferred => "deferred",
        Delivery::Refused => "refused",
    }
}

fn reported(case: &Case) -> String {
    let results: Vec<&str> = case.verdict.results.iter().map(|result| result.as_str()).collect();
    format!("{} {}", case.verdict.policy_type.as_str(), results.join(" ")).trim_end().to_owned()
}

impl Serve {
    async fn run(&self) -> Result<(), Failure> {
        let cases = [lab::cases::all(), lab::oddities::all()].concat();
        let attacked = self.attacked(&cases)?;
        let ports = match self.real_ports {
            true => Ports { dns: 53, https: 443, smtp: 25, block: self.block },
            false => {
                Ports { dns: self.dns_port, https: self.https_port, smtp: self.smtp_port, block: self.block }
            }
        };
        let folder = self.folder()?;
        let not_started = |error| {
            Failure::new(
                "the lab can't start",
                error,
                "Another lab may be running with the same --block; choose another block or other ports. Ports below 1024 need root.",
            )
        };
        let lab = Lab::with_cases(ports, SystemClock.now(), &cases).await.map_err(not_started)?;
        for case in attacked {
            lab.attack(case, true).map_err(not_started)?;
        }
        write_trust(&lab, &folder)?;
        say(&format!("{} domains are up, below test.; `sternpost lab list` describes each.", cases.len()));
        let example = Example { domain: "good-enforce.test", policy_host: lab.policy_host_address() };
        show(&directions(&lab, &folder, &example));
        say("\nRunning until Ctrl-C.");
        let _ = tokio::signal::ctrl_c().await;
        Ok(())
    }

    fn folder(&self) -> Result<PathBuf, Failure> {
        match &self.dir {
            Some(dir) => empty_folder(dir),
            None => {
                let made = tempfile::Builder::new().prefix("sternpost-lab-").tempdir();
                Ok(made
                    .map_err(|error| {
                        Failure::new("can't create a folder for the lab", error, "Name one with --dir.")
                    })?
                    .keep())
            }
        }
    }

    fn attacked<'c>(&self, cases: &'c [Case]) -> Result<Vec<&'c Case>, Failure> {
        if self.attack.iter().any(|name| name == "all") {
            return Ok(cases.iter().collect());
        }
        let find = |name: &String| {
            let bare = name.strip_suffix(".test").unwrap_or(name);
            cases.iter().find(|case| case.name == bare).ok_or_else(|| {
                let near = config::nearest(bare, cases.iter().map(|case| case.name))
                    .unwrap_or("attack-strip-enforce");
                Failure::usage(
                    format!("unknown lab domain {name:?}"),
                    "the lab has no such domain",
                    format!("Did you mean {near}? `sternpost lab list` lists all."),
                )
            })
        };
        self.attack.iter().map(find).collect()
    }
}

/// Writes the lab's CA certificate, its DNSSEC trust anchors, and a `sternpost.toml` that uses them.
pub fn write_trust(lab: &Lab, folder: &Path) -> Result<(), Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::new(format!("can't write to {}", folder.display()), error, "Name another folder with --dir.")
    };
    let anchor = lab.names.trust_anchor().map_err(|e| fail(&e))?;
    let ds = lab.names.root_ds().map_err(|e| fail(&e))?;
    let config = format!(
        "# Configuration for Sternpost in the lab.\n[dns]\nservers = [\"{}\"]\ntrust_anchor = \"root.key\"\n\n[trust]\nca_file = \"ca.pem\"\nallow_private_addresses = true\n\n[lab]\ndns_port = {}\nhttps_port = {}\nsmtp_port = {}\n",
        lab.names.address,
        lab.names.address.port(),
        lab.https_port,
        lab.smtp_port
    );
    let files = [
        ("ca.pem", lab.pki.root_pem()),
        ("root.key", anchor + "\n"),
        ("root.ds", ds + "\n"),
        ("sternpost.toml", config),
    ];
    files.iter().try_for_each(|(name, text)| std::fs::write(folder.join(name), text).map_err(|e| fail(&e)))
}

/// The domain in the example commands of [`directions`].
pub struct Example<'e> {
    /// The domain's name.
    pub domain: &'e str,
    /// The loopback address of the domain's policy host.
    pub policy_host: Ipv4Addr,
}

/// Explains how other tools reach the lab, with commands that can be pasted.
pub fn directions(lab: &Lab, folder: &Path, example: &Example<'_>) -> String {
    let dns = lab.names.address;
    let (https_port, smtp_port, folder) = (lab.https_port, lab.smtp_port, folder.display());
    let Example { domain, policy_host } = example;
    format!(
        "
Names (dig):
  dig @{ip} -p {port} +short _mta-sts.{domain} TXT
Policies (curl):
  curl --cacert {folder}/ca.pem --connect-to ::{policy_host}:{https_port} https://mta-sts.{domain}/.well-known/mta-sts.txt
MX hosts (openssl):
  openssl s_client -brief -starttls smtp -CAfile {folder}/ca.pem -servername mx1.{domain} -verify_hostname mx1.{domain} -connect $(dig @{ip} -p {port} +short mx1.{domain} A):{smtp_port} </dev/null
Sternpost itself:
  sternpost --config {folder}/sternpost.toml check {domain}
A validating resolver (Unbound), then a mail server that uses it:
  server:
    do-not-query-localhost: no
    trust-anchor-file: \"{folder}/root.ds\"
    local-zone: \"test.\" nodefault
  stub-zone:
    name: \".\"
    stub-addr: {ip}@{port}
A mail server needs ports 53, 443 and 25 (--real-ports, best in a network namespace), the
resolver above in /etc/resolv.conf, and for Postfix: smtp_tls_CAfile = {folder}/ca.pem
",
        ip = dns.ip(),
        port = dns.port(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_fifty_cases_are_listed_each_with_a_verdict() {
        let listed: serde_json::Value = serde_json::from_str(&list_json()).unwrap();
        let cases = listed["cases"].as_array().unwrap();
        assert!(cases.len() >= 50, "{}", cases.len());
        assert!(
            cases.iter().all(|case| case["verdict"]["delivery"].is_string() && case["about"].is_string())
        );
        let domains: std::collections::BTreeSet<_> =
            cases.iter().map(|case| case["domain"].to_string()).collect();
        assert_eq!(domains.len(), cases.len());
    }

    #[test]
    fn a_misspelled_domain_gets_the_nearest_name_suggested() {
        let serve = Serve {
            dns_port: 0,
            https_port: 0,
            smtp_port: 0,
            real_ports: false,
            block: 77,
            attack: vec!["atack-strip-enforce".into()],
            dir: None,
        };
        let said = serve.attacked(&lab::cases::all()).unwrap_err().to_string();
        assert!(said.contains("Did you mean attack-strip-enforce?"), "{said}");
    }
}
