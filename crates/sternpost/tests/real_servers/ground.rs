//! What every test of a real mail server stands on: the lab with its names served by Knot, resolved
//! by Unbound, and a running Sternpost.

use crate::names::Names;
use crate::patience::{until_ready, until_some_or};
use crate::support::{Running, daemon, shell};
use formats::DomainName;
use lab::case::Case;
use lab::pki::Cert;
use lab::policy_host::{HttpBehavior, Site};
use lab::{Lab, Ports};
use net::clock::{Clock, SystemClock};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// All of it.
pub struct Ground {
    pub lab: Lab,
    pub names: Names,
    /// Who validates: `validate` or `trust-ad`.
    pub dnssec: &'static str,
    /// What stands before the program in its command line, such as an environment.
    pub before: String,
    place: PathBuf,
    runtime: tokio::runtime::Runtime,
    sternpost: Option<Running>,
}

impl Ground {
    /// The lab with these cases. The `_mta-sts` record of `changing` has a TTL of one second.
    pub fn new(place: &Path, cases: &[&str], changing: &str) -> Self {
        Self::with_policy_hosts_at(443, place, cases, changing)
    }

    /// The same, with the lab's own policy hosts on another port, so that 443 is free for others.
    pub fn with_policy_hosts_at(https: u16, place: &Path, cases: &[&str], changing: &str) -> Self {
        Self::with_more(https, place, cases, changing, async |_| ())
    }

    /// The same; `more` adds domains that are not in the lab's table.
    pub fn with_more(
        https: u16,
        place: &Path,
        cases: &[&str],
        changing: &str,
        more: impl AsyncFnOnce(&Lab),
    ) -> Self {
        let wanted = |case: &Case| cases.contains(&case.name);
        let all = lab::cases::all().into_iter().chain(lab::oddities::all());
        let wanted: Vec<Case> = all.filter(wanted).collect();
        assert_eq!(wanted.len(), cases.len(), "a name is not in the lab's table");
        Self::made(https, place, &wanted, changing, more)
    }

    /// The same, with domains that need not be in the lab's table.
    pub fn of(https: u16, place: &Path, cases: &[Case], changing: &str) -> Self {
        Self::made(https, place, cases, changing, async |_| ())
    }

    fn made(https: u16, place: &Path, cases: &[Case], changing: &str, more: impl AsyncFnOnce(&Lab)) -> Self {
        std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o755)).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let ports = Ports { dns: 5300, https, smtp: 25, block: 77 };
        let lab = runtime.block_on(Lab::with_cases(ports, SystemClock.now(), cases)).unwrap();
        runtime.block_on(more(&lab));
        let mut zones = lab.names.zone_files();
        for zone in &mut zones {
            let record = format!("_mta-sts.{changing}.test.");
            zone.text = zone.text.replace(&format!("{record} 300"), &format!("{record} 1"));
        }
        let names = Names::start(&place.join("names"), [127, 77, 0, 1].into(), &zones);
        std::fs::write(place.join("ca.pem"), lab.pki.root_pem()).unwrap();
        Self {
            lab,
            names,
            place: place.to_owned(),
            runtime,
            sternpost: None,
            dnssec: "validate",
            before: String::new(),
        }
    }

    /// Starts Sternpost with these lines in `[answers]`.
    pub fn serve(&mut self, answers: &str) {
        self.serve_with(answers, "");
    }

    /// The same, with lines before all sections.
    pub fn serve_with(&mut self, answers: &str, first: &str) {
        self.configure(first, &format!("[answers]\n{answers}\n"));
        self.run();
    }

    /// Starts Sternpost by the configuration that is there.
    pub fn run(&mut self) {
        let program = env!("CARGO_BIN_EXE_sternpost");
        let line = format!("{}{program} --config {}/sternpost.toml serve", self.before, self.place.display());
        let log = self.place.join("sternpost.log");
        let server = self.sternpost.insert(daemon(&line, &log));
        until_ready(&mut server.0, &log);
    }

    /// Writes a configuration with these lines before all sections and after those about the lab.
    pub fn configure(&self, first: &str, last: &str) {
        let config = format!(
            "{first}[dns]\nservers = [\"127.0.0.1:53\"]\ntrust_anchor = \"names/root.key\"\ndnssec = \"{}\"\n\
             [trust]\nca_file = \"ca.pem\"\nallow_private_addresses = true\n{last}",
            self.dnssec
        );
        std::fs::write(self.place.join("sternpost.toml"), config).unwrap();
    }

    /// The address of a host, as the lab's name server has it.
    pub fn address(&self, host: &str) -> String {
        shell(&format!("dig @127.77.0.1 +short {host} A")).trim().to_owned()
    }

    /// Has Sternpost read its configuration again.
    pub fn reload(&self) {
        shell(&format!("kill -HUP {}", self.sternpost.as_ref().unwrap().0.id()));
    }

    /// Ends Sternpost.
    pub fn stop(&mut self) {
        self.sternpost = None;
    }

    /// What Sternpost has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.place.join("sternpost.log")).unwrap_or_default()
    }

    /// Runs a command of Sternpost beside the running one.
    pub fn operator(&self, words: &str) -> String {
        shell(&format!("{}sternpost --config {}/sternpost.toml {words}", self.before, self.place.display()))
    }

    /// Cuts a domain's policy host off, or not.
    pub fn cut_policy_host(&self, name: &str, cut: bool) {
        self.lab.sites.block(&format!("mta-sts.{name}.test"), cut);
    }

    /// Puts another policy up.
    pub fn serve_policy(&self, name: &str, body: &str) {
        let _inside = self.runtime.enter();
        let host = format!("mta-sts.{name}.test");
        let identity = self.lab.pki.issue(&host, Cert::Good).unwrap();
        self.lab.sites.put(&host, Site { answers: HttpBehavior::Policy(body.to_owned()), identity });
    }

    /// STARTTLS is stripped, as by an attacker on the path.
    pub fn strip(&self, name: &str, on: bool) {
        self.lab.mail_traffic.strip(&DomainName::parse(&format!("mx1.{name}.test")).unwrap(), on);
    }

    /// Asks as a mail server does until the answer has this in it; each asking may set a lookup going.
    pub fn until_answered(&self, name: &str, text: &str) {
        let said = std::cell::RefCell::new(String::new());
        until_some_or(
            || format!("in vain: {text} in the answer for {name}: {}", said.borrow()),
            || {
                *said.borrow_mut() = self.operator(&format!("query --cached {name}.test"));
                said.borrow().contains(text).then_some(())
            },
        );
    }
}

/// The fenced block of a page of `docs/` that is marked so.
pub fn block(page: &str, mark: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    let text = std::fs::read_to_string(docs).unwrap();
    let begin = text.find(&format!("```{mark}\n")).unwrap_or_else(|| panic!("{page} has no block {mark}"));
    let inside = &text[begin + mark.len() + 4..];
    inside[..inside.find("```").unwrap()].to_owned()
}
