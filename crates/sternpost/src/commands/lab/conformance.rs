//! `sternpost lab conformance`: runs the yardstick of the crate `lab` through a mail server and writes what came of it.
//!
//! A control of the lab runs in this process. A mail server runs in a network namespace of its own ([`namespace`]), where
//! the scripts of a driver ([`driver`]) start it; [`output`] writes the results. The receiving side of a domain ([`domain`]) is
//! examined over the network that is there.

mod domain;
mod driver;
mod namespace;
mod output;

use crate::terminal::show;
use config::failure::{Exit, Failure};
use driver::{Driver, Injection};
use lab::conformance::case::{Case, Level};
use lab::conformance::control::{Control, ControlSender};
use lab::conformance::report::{CaseResult, Report};
use lab::conformance::run::{Options, Sender, run};
use lab::conformance::world::{Place, World};
use lab::conformance::{cases, render};
use net::clock::{Clock, SystemClock};
use net::smtp::Login;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The options of `sternpost lab conformance`.
#[derive(Debug, clap::Args)]
pub struct Conformance {
    /// Folder with the scripts `start` and `stop` of the mail server, and optionally `install`, `inject`, `reports` and `clock`
    #[arg(long, value_name = "DIR", conflicts_with = "control")]
    driver: Option<PathBuf>,
    /// Measure one of the lab's own senders instead, such as `correct`, `plain` or `follows-redirects`
    #[arg(long, value_name = "NAME")]
    control: Option<String>,
    /// Show whether this mail domain does what the RFCs ask of the receiving side, instead of measuring a mail server
    #[arg(long, value_name = "DOMAIN", conflicts_with_all = ["driver", "control", "only", "list", "explain", "page_of", "compare", "junit"])]
    domain: Option<String>,
    /// Hand messages over by SMTP to this address in the namespace
    #[arg(long, value_name = "IP:PORT", group = "injection", requires = "driver")]
    smtp: Option<std::net::SocketAddr>,
    /// User for --smtp: AUTH PLAIN or LOGIN after STARTTLS, to a server with a valid certificate for mail.sender.test
    #[arg(long, value_name = "NAME", requires = "smtp", requires = "smtp_password_file")]
    smtp_user: Option<String>,
    /// File with the password of --smtp-user alone
    #[arg(long, value_name = "FILE", requires = "smtp_user")]
    smtp_password_file: Option<PathBuf>,
    /// Hand messages over to this program, called with `-i -f FROM TO`
    #[arg(long, value_name = "PROGRAM", group = "injection", requires = "driver")]
    sendmail: Option<PathBuf>,
    /// Hand messages over to this shell command on its standard input; {from} and {to} are replaced
    #[arg(long, value_name = "COMMAND", group = "injection", requires = "driver")]
    command: Option<String>,
    /// Run only these cases; repeatable, a `*` at the end stands for any ending
    #[arg(long, value_name = "CASE")]
    only: Vec<String>,
    /// List the cases and end
    #[arg(long)]
    list: bool,
    /// Explain one case and end
    #[arg(long, value_name = "CASE")]
    explain: Option<String>,
    /// Write the results with everything that was seen on the wire as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the results as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write the results as an HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Show which outcomes differ from those in a file of --json
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Write nothing but a page of Markdown with several files of --json side by side; repeatable
    #[arg(long, value_name = "FILE", conflicts_with_all = ["driver", "control", "list", "explain"])]
    page_of: Vec<PathBuf>,
    /// Exit with 1 if the mail server violates a rule of this level or a higher one
    #[arg(long, value_name = "LEVEL", default_value = "must")]
    fail_on: FailOn,
    /// Run so many cases side by side
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=200))]
    at_once: u16,
    /// Leave the mail server and the lab running at the end, until Ctrl-C
    #[arg(long, requires = "driver")]
    keep: bool,
    /// The folder of the run; the command is in its namespace already.
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

/// The level from which on a violation makes the command fail.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum FailOn {
    /// Security alone
    Security,
    /// MUST and security
    Must,
    /// SHOULD, MUST and security
    Should,
    /// Never
    Never,
}

impl FailOn {
    fn level(self) -> Option<Level> {
        match self {
            Self::Security => Some(Level::Security),
            Self::Must => Some(Level::Must),
            Self::Should => Some(Level::Should),
            Self::Never => None,
        }
    }
}

impl Conformance {
    /// Runs the command.
    pub async fn run(&self, config: Option<&Path>) -> Result<Exit, Failure> {
        if let Some(typed) = &self.domain {
            let files = domain::Files {
                json: self.json.as_ref(),
                markdown: self.markdown.as_ref(),
                html: self.html.as_ref(),
            };
            // On the receiving side no violation is an attack.
            return domain::run(
                typed,
                config,
                &files,
                self.fail_on.level().map(|level| level.min(Level::Must)),
            )
            .await;
        }
        let cases = self.cases()?;
        if self.list {
            show(&render::list(&cases));
            return Ok(Exit::Fine);
        }
        if let Some(id) = &self.explain {
            return explain(id);
        }
        if !self.page_of.is_empty() {
            let reports: Vec<Report> =
                self.page_of.iter().map(|path| output::read(path)).collect::<Result<_, _>>()?;
            show(&render::senders(&reports));
            return Ok(Exit::Fine);
        }
        // A file that can't be read is found before the minutes of a run.
        let older = self.compare.as_deref().map(output::read).transpose()?;
        let report = match (&self.control, &self.driver) {
            (Some(name), _) => self.measure_control(name, &cases).await?,
            (None, Some(driver)) => {
                let Some(folder) = &self.inside else {
                    driver::install(driver)?;
                    return namespace::run_inside().await;
                };
                let inside = namespace::Inside::start(folder.clone(), &cases).await?;
                let report = self.measure_server(driver.clone(), inside, &cases, older.as_ref()).await?;
                return Ok(self.exit(&report));
            }
            (None, None) => {
                return Err(Failure::usage(
                    "there is nothing to measure",
                    "none of --driver, --control and --domain is given",
                    "Try `sternpost lab conformance --control correct`, or name a driver's folder or a domain.",
                ));
            }
        };
        self.write(&report, older.as_ref())?;
        Ok(self.exit(&report))
    }

    fn cases(&self) -> Result<Vec<Case>, Failure> {
        let all = cases::all();
        for wanted in &self.only {
            if !all.iter().any(|case| is_wanted(case.id, wanted)) {
                return Err(unknown(wanted));
            }
        }
        let wanted =
            |case: &Case| self.only.is_empty() || self.only.iter().any(|name| is_wanted(case.id, name));
        Ok(all.into_iter().filter(wanted).collect())
    }

    async fn measure_control(&self, name: &str, cases: &[Case]) -> Result<Report, Failure> {
        let control = Control::ALL.into_iter().find(|control| control.name() == name).ok_or_else(|| {
            let names: Vec<String> = Control::ALL.iter().map(|control| control.name()).collect();
            Failure::usage(
                format!("unknown control {name:?}"),
                "the lab has no such sender",
                format!("Names: {}.", names.join(", ")),
            )
        })?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let world = World::start(Place::free(), clock.clone(), cases).await.map_err(not_started)?;
        let sender = ControlSender::new(control, &world, "mail.sender.test", clock).map_err(not_started)?;
        let options = Options { pause: Duration::ZERO, ..self.options() };
        let results = self.results(Arc::new(world), Arc::new(sender), cases, options).await;
        Ok(Report::new(format!("control {name}"), env!("CARGO_PKG_VERSION"), results))
    }

    async fn measure_server(
        &self,
        folder: PathBuf,
        inside: namespace::Inside,
        cases: &[Case],
        older: Option<&Report>,
    ) -> Result<Report, Failure> {
        let injection = self.injection(&folder)?;
        let driver = Arc::new(Driver::start(folder, injection, &inside).await?);
        let server = driver.server.clone();
        let results = self.results(inside.world.clone(), driver.clone(), cases, self.options()).await;
        let report = Report::new(server, env!("CARGO_PKG_VERSION"), results);
        self.write(&report, older)?;
        if self.keep {
            show(&inside.directions());
            let _ = tokio::signal::ctrl_c().await;
        }
        driver.stop().await;
        Ok(report)
    }

    fn injection(&self, folder: &Path) -> Result<Injection, Failure> {
        let own = folder.join("inject");
        match (&self.smtp, &self.sendmail, &self.command) {
            (Some(address), _, _) => Ok(Injection::Smtp(*address, self.login()?)),
            (_, Some(program), _) => Ok(Injection::Sendmail(program.clone())),
            (_, _, Some(line)) => Ok(Injection::Command(line.clone())),
            _ if own.is_file() => Ok(Injection::Script(own)),
            _ => Err(Failure::usage(
                "messages can't be handed over",
                format!("{} does not exist, and no other way is given", own.display()),
                "Add the script, or give --smtp, --sendmail or --command.",
            )),
        }
    }

    /// The login for `--smtp`, if there is one.
    fn login(&self) -> Result<Option<Login>, Failure> {
        let (Some(user), Some(file)) = (&self.smtp_user, &self.smtp_password_file) else { return Ok(None) };
        let password = std::fs::read_to_string(file).map_err(|error| {
            Failure::new(
                format!("can't read {}", file.display()),
                error,
                "Name a file that has the password of --smtp-user alone.",
            )
        })?;
        let password = password.trim_end_matches(['\r', '\n']).to_owned();
        Ok(Some(Login { user: user.clone(), password }))
    }

    fn options(&self) -> Options {
        Options { at_once: usize::from(self.at_once), ..Options::default() }
    }

    async fn results(
        &self,
        world: Arc<World>,
        sender: Arc<dyn Sender>,
        cases: &[Case],
        options: Options,
    ) -> Vec<CaseResult> {
        let (done, of) = (AtomicUsize::new(0), cases.len());
        let is_shown = std::io::stderr().is_terminal();
        let progress = |result: &CaseResult| {
            let number = done.fetch_add(1, Ordering::Relaxed) + 1;
            if is_shown {
                let _ = write!(std::io::stderr(), "\r{number:>4}/{of} {:<40}", result.id);
            }
        };
        let results = run(world, sender, cases, options, &progress).await;
        if is_shown {
            let _ = write!(std::io::stderr(), "\r{:<60}\r", "");
        }
        results
    }

    fn write(&self, report: &Report, older: Option<&Report>) -> Result<(), Failure> {
        show(&output::table(report));
        if let Some(older) = older {
            show(&render::differences(&report.differences(older)));
        }
        if let Some(path) = &self.json {
            output::write(path, &output::json(report)?)?;
        }
        let files = [
            (&self.junit, render::junit(report)),
            (&self.markdown, render::markdown(report)),
            (&self.html, render::html(report)),
        ];
        for (path, text) in files {
            if let Some(path) = path {
                output::write(path, &text)?;
            }
        }
        Ok(())
    }

    fn exit(&self, report: &Report) -> Exit {
        if report.count(lab::conformance::oracle::Outcome::LabFailed) > 0 {
            return Exit::Unknown;
        }
        match self.fail_on.level() {
            Some(level) if report.violations(level).next().is_some() => Exit::Findings,
            _ => Exit::Fine,
        }
    }
}

fn explain(id: &str) -> Result<Exit, Failure> {
    let all = cases::all();
    let case = all.iter().find(|case| case.id == id).ok_or_else(|| unknown(id))?;
    show(&render::explain(case));
    Ok(Exit::Fine)
}

fn unknown(name: &str) -> Failure {
    let all = cases::all();
    let near = config::nearest(name, all.iter().map(|case| case.id)).unwrap_or("record");
    Failure::usage(
        format!("unknown case {name:?}"),
        "the table has no such case",
        format!("Did you mean {near}? `sternpost lab conformance --list` lists all."),
    )
}

fn is_wanted(id: &str, wanted: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(start) => id.starts_with(start),
        None => id == wanted,
    }
}

fn not_started(error: lab::LabError) -> Failure {
    Failure::new("the lab can't start", error, "Another lab may use the same addresses; try again.")
}
