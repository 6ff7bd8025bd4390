//! The command line: parses the arguments, runs the command, and maps its outcome to an exit code.

#[cfg(feature = "lab")]
use crate::commands::lab;
use crate::commands::{
    apply, backup, cache, check, config as config_command, dashboard, domains, export, init, manual, nodes,
    plan, promote, query, reports, status, store as store_command, summary, tenants, undo,
};
#[cfg(feature = "lab")]
use crate::demo;
use crate::terminal::say;
use crate::{log, serve};
use clap::{CommandFactory, Parser, Subcommand};
use config::Chosen;
use config::failure::{Exit, Failure};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use store::tenants::TenantName;

/// TLS for mail, enforced: MTA-STS, DANE and TLS reports, for receivers and senders.
#[derive(Debug, Parser)]
#[command(name = "sternpost", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    /// Configuration file [default: ./sternpost.toml, then /etc/sternpost/sternpost.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Tenant whose domains, reports and users the command works on [default: the key 'tenant', then main]
    #[arg(long, global = true, value_name = "NAME")]
    tenant: Option<TenantName>,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Example:\n  sternpost check example.org\n\nExit codes: 0 success, 1 findings, 2 usage or configuration error, 3 undetermined, 130 interrupted.\nLogs go to stderr; SPOST_LOG=debug shows more.";

#[derive(Debug, Subcommand)]
enum Command {
    #[cfg(feature = "lab")]
    /// Attack a mail domain, protect it step by step, and attack it again; on loopback, needs no network
    #[command(after_help = "Example:\n  sternpost demo --keep")]
    Demo(demo::Options),
    /// Check a domain as senders see it
    ///
    /// A check takes seconds: it sends some dozen DNS queries, fetches the policy, and opens a few SMTP sessions to each MX
    /// host, on port 25, without sending mail. Many home and cloud networks block that port: use --skip-port-25 there.
    #[command(after_help = "Example:\n  sternpost check --verbose example.org")]
    Check(Box<check::Options>),
    /// Show what a sender would do with mail for a domain now, and why
    #[command(
        after_help = "Examples:\n  sternpost query --trace example.org\n  sternpost query --cached --map strict example.org"
    )]
    Query(query::Options),
    /// Propose a configuration for a domain from its current DNS records
    #[command(after_help = "Example:\n  sternpost init example.org")]
    Init(init::Options),
    /// Manage domains that are kept in the store instead of the configuration file
    #[command(subcommand, after_help = "Example:\n  sternpost domains add example.org")]
    Domains(domains::Command),
    /// Show the steps from the current to the desired state, with reasons
    #[command(after_help = "Example:\n  sternpost plan example.org")]
    Plan(plan::Options),
    /// Carry out the plan, verifying each step from outside; can be interrupted and resumed
    #[command(after_help = "Example:\n  sternpost apply example.org")]
    Apply(apply::Options),
    /// Write the files to serve your policies from a web server or hosting platform
    #[command(after_help = "Example:\n  sternpost export --for nginx policies/")]
    Export(export::Options),
    /// Show the state of each domain: policy, evidence, failures and journal
    #[command(after_help = "Example:\n  sternpost status example.org")]
    Status(status::Options),
    /// Print the weekly summary of all domains as it would be mailed now
    #[command(after_help = "Example:\n  sternpost summary")]
    Summary(summary::Options),
    /// Allow enforcement for a domain that is in testing
    #[command(after_help = "Example:\n  sternpost promote example.org")]
    Promote(promote::Promote),
    /// Keep a domain in testing, or return it to testing
    #[command(after_help = "Example:\n  sternpost hold example.org --reason \"new MX hosts next week\"")]
    Hold(promote::Hold),
    /// Exclude a known failure cause from the evidence
    #[command(
        after_help = "Example:\n  sternpost excuse example.org certificate-expired mx1.example.org --reason renewed"
    )]
    Excuse(promote::Excuse),
    /// Leave out a name server or an address of the policy host that is down: changes do not wait for it
    #[command(
        after_help = "Examples:\n  sternpost omit example.org ns2.example.net --reason \"down until Monday\"\n  sternpost omit --undo example.org ns2.example.net"
    )]
    Omit(promote::Omit),
    /// Restore the record that the last change replaced, if that is safe
    #[command(after_help = "Example:\n  sternpost undo example.org --reason \"wrong report address\"")]
    Undo(undo::Options),
    /// Import, list and show TLS reports; preview and send your own
    #[command(subcommand, after_help = "Example:\n  sternpost reports list --failed")]
    Reports(reports::Command),
    /// Manage the users of the dashboard
    #[command(subcommand, after_help = "Example:\n  sternpost dashboard invite alice --role reader")]
    Dashboard(dashboard::Command),
    /// Add, list, export and remove the tenants of the installation
    #[command(subcommand, after_help = "Example:\n  sternpost tenants list")]
    Tenants(tenants::Command),
    /// Show, migrate, copy and compact the store
    #[command(subcommand, after_help = "Example:\n  sternpost store status")]
    Store(store_command::Command),
    /// Show the running servers that share the store
    ///
    /// The exit code is 1 if one of them has not been heard of for a minute.
    #[command(after_help = "Example:\n  sternpost nodes")]
    Nodes(nodes::Options),
    /// Write a verified copy of the store; `sternpost serve` may run meanwhile
    ///
    /// The copy has everything that was stored when it began, and works with this and later releases. Keep the configuration
    /// and the files that it names (keys, tokens) beside it. To go back to it, stop the server and run `sternpost restore`.
    #[command(after_help = "Example:\n  sternpost backup /var/backups/sternpost-2026-11-27.db")]
    Backup(backup::Backup),
    /// Replace the store by a backup, while the server is stopped
    ///
    /// The store that is there is renamed, not deleted. A backup of a newer release is refused. To go back to an earlier
    /// release, restore the backup that was made before the upgrade.
    #[command(
        after_help = "Example:\n  systemctl stop sternpost.service\n  sternpost restore /var/backups/sternpost-2026-11-27.db\n  systemctl start sternpost.service"
    )]
    Restore(backup::Restore),
    /// Run the configured roles: policy answers, policy host, report inbox, dashboard, guard
    #[command(after_help = "Example:\n  sternpost serve --config /etc/sternpost/sternpost.toml")]
    Serve(serve::Options),
    /// Show, refresh, purge, export or import the running server's cached answers and policies
    #[command(subcommand, after_help = "Example:\n  sternpost cache list")]
    Cache(cache::Command),
    #[cfg(feature = "lab")]
    /// Run good and broken mail domains on loopback, to test against
    #[command(subcommand, after_help = "Example:\n  sternpost lab list")]
    Lab(lab::Command),
    /// Write the manual pages of all commands and of sternpost.toml
    #[command(after_help = "Example:\n  sternpost man pages")]
    Man(manual::Man),
    /// Print the completions for a shell
    ///
    /// Packages install them. By hand, redirect them to /etc/bash_completion.d/sternpost,
    /// /usr/local/share/zsh/site-functions/_sternpost or /etc/fish/completions/sternpost.fish.
    #[command(after_help = "Examples:\n  sternpost completions bash\n  sternpost completions zsh")]
    Completions(manual::Completions),
    /// Check or show the configuration
    #[command(subcommand, after_help = "Example:\n  sternpost config show")]
    Config(config_command::Command),
}

/// Parses the command line and runs the command. Errors go to standard error.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(arguments(std::env::args_os().collect())) {
        Ok(cli) => cli,
        Err(error) => {
            // Help that can't be written, as to a closed pipe, is not an error.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Fine.into() };
        }
    };
    if !matches!(cli.command, Command::Serve(_)) {
        log::start("error", log::Form::TextWithTarget);
    }
    let outcome = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => Err(Failure::new("the program can't start", error, "")),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit.into()
        }
    }
}

/// The arguments of the command line. `sternpost help --help` is the same as `sternpost help`.
fn arguments(mut all: Vec<OsString>) -> Vec<OsString> {
    if all.get(1).is_some_and(|command| command == "help") {
        all.retain(|word| word != "--help" && word != "-h");
    }
    all
}

impl Command {
    /// Whether the command works on what belongs to one tenant.
    fn is_of_tenant(&self) -> bool {
        matches!(
            self,
            Self::Domains(_)
                | Self::Plan(_)
                | Self::Apply(_)
                | Self::Export(_)
                | Self::Status(_)
                | Self::Summary(_)
                | Self::Promote(_)
                | Self::Hold(_)
                | Self::Excuse(_)
                | Self::Omit(_)
                | Self::Undo(_)
                | Self::Dashboard(_)
        ) || matches!(self, Self::Reports(command) if command.is_of_tenant())
    }
}

async fn run(cli: Cli) -> Result<Exit, Failure> {
    if let Some(tenant) = cli.tenant.as_ref().filter(|_| !cli.command.is_of_tenant()) {
        return Err(Failure::usage(
            format!("--tenant {tenant}"),
            "this command does not work on what belongs to one tenant",
            "Leave the option out.",
        ));
    }
    let config = cli.config.as_deref();
    let chosen = Chosen { file: config, tenant: cli.tenant.as_ref() };
    match cli.command {
        #[cfg(feature = "lab")]
        Command::Demo(options) => {
            let bill = demo::run(&options).await?;
            if options.json && !options.keep {
                say(&bill.to_json());
            }
            Ok(bill.exit())
        }
        Command::Store(command) => store_command::run(&command, config).await,
        Command::Backup(options) => backup::backup(&options, config).await,
        Command::Restore(options) => backup::restore(&options, config).await,
        Command::Man(options) => manual::man(&options, Cli::command()),
        Command::Completions(options) => Ok(manual::completions(&options, Cli::command())),
        Command::Check(options) => check::run(&options, config).await,
        Command::Query(options) => query::run(&options, config).await,
        Command::Init(options) => init::run(&options, config).await,
        Command::Domains(command) => domains::run(&command, chosen).await,
        Command::Export(options) => export::run(&options, chosen).await,
        Command::Plan(options) => plan::run(&options, chosen).await,
        Command::Apply(options) => apply::run(&options, chosen).await,
        Command::Status(options) => status::run(&options, chosen).await,
        Command::Summary(options) => summary::run(&options, chosen).await,
        Command::Nodes(options) => nodes::run(&options, config).await,
        Command::Promote(options) => promote::promote(&options, chosen).await,
        Command::Hold(options) => promote::hold(&options, chosen).await,
        Command::Excuse(options) => promote::excuse(&options, chosen).await,
        Command::Omit(options) => promote::omit(&options, chosen).await,
        Command::Undo(options) => undo::run(&options, chosen).await,
        Command::Reports(command) => reports::run(&command, chosen).await,
        Command::Dashboard(command) => dashboard::run(&command, chosen).await,
        Command::Tenants(command) => tenants::run(&command, config).await,
        Command::Serve(options) => serve::run(&options, config).await,
        Command::Cache(command) => cache::run(&command, config).await,
        #[cfg(feature = "lab")]
        Command::Lab(command) => lab::run(&command, config).await,
        Command::Config(command) => config_command::run(&command, config).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_about_help_is_help() {
        for line in ["sternpost help --help", "sternpost help -h", "sternpost help"] {
            let words = arguments(line.split(' ').map(OsString::from).collect());
            let error = Cli::try_parse_from(words).unwrap_err();
            assert!(!error.use_stderr(), "{line}: {error}");
        }
    }

    /// The long help of a command in one line.
    fn help(line: &str) -> String {
        let mut command = Cli::command();
        for word in line.split(' ') {
            command = command.find_subcommand(word).unwrap().clone();
        }
        let help = command.render_long_help().to_string();
        help.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn help_says_what_a_command_costs_what_it_keeps_and_how_to_switch_off() {
        for part in ["port 25", "seconds", "DNS queries", "--skip-port-25"] {
            assert!(help("check").contains(part), "{part}");
        }
        // `set` keeps what is not named, so a default would be a lie; what can be switched on can be switched off.
        let set = help("domains set");
        let of_config = "[default: ./sternpost.toml";
        assert!(!set.replace(of_config, "").contains("[default:"), "{set}");
        for option in ["--repair", "--delegated", "--auto-promote"] {
            assert!(set.contains(&format!("{option}[=<true|false>]")), "{option}\n{set}");
        }
        let excuse = help("excuse");
        assert!(!excuse.replace(of_config, "").contains("[default:"), "{excuse}");
    }

    #[test]
    fn every_argument_has_a_help_text_of_more_than_a_word() {
        let mut commands = vec![Cli::command()];
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().cloned());
            for argument in
                command.get_arguments().filter(|one| !["help", "version"].contains(&one.get_id().as_str()))
            {
                let text = argument.get_help().map(ToString::to_string).unwrap_or_default();
                let named = format!("{} {}", command.get_name(), argument.get_id());
                assert!(text.len() > 5, "{named}: {text:?}");
                for stranger in ["Whom", "Whose", "nothing where", "How to say it"] {
                    assert!(!text.contains(stranger), "{named}: {text:?}");
                }
            }
        }
    }

    /// Splits an example line into arguments. Double quotes keep the spaces of an argument.
    fn words(line: &str) -> Vec<String> {
        let parts = line.split('"').enumerate();
        parts
            .flat_map(|(at, part)| match at % 2 {
                0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
                _ => vec![part.to_owned()],
            })
            .collect()
    }

    #[test]
    fn every_command_has_an_example_that_parses() {
        let mut commands = vec![Cli::command()];
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().cloned());
            let name = command.get_name();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<_> = help.lines().filter(|line| line.starts_with("  sternpost ")).collect();
            assert!(!examples.is_empty(), "the help of {name} has no example");
            for example in examples {
                let arguments = words(example);
                assert!(arguments.iter().any(|argument| argument == name), "{example} does not run {name}");
                let parsed = Cli::try_parse_from(arguments);
                assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
            }
        }
    }
}
