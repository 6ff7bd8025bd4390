//! `sternpost check`: the preflight on a terminal or as JSON.

use crate::config::Config;
use crate::failure::{Exit, Failure};
use crate::terminal::{marks, say, show};
use crate::world::{World, domain};
use check::{Check, Checker, Examination, Finding, Severity};
use std::fmt::Write;
use std::path::Path;

/// What to look at and how to say it.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Mail domains, such as example.org
    #[arg(required_unless_present_any = ["list", "explain"])]
    domains: Vec<String>,
    /// One line of JSON a domain (docs/check.md)
    #[arg(long)]
    json: bool,
    /// Exit with 1 on warnings too, not only on errors
    #[arg(long)]
    strict: bool,
    /// Print the catalogue of checks and end
    #[arg(long, conflicts_with = "domains")]
    list: bool,
    /// Say what one check is about, such as STS-TXT-MISSING
    #[arg(long, value_name = "ID", conflicts_with = "domains")]
    explain: Option<String>,
}

/// Looks at each domain in turn and prints what it finds as it ends.
pub async fn run(options: &Options, config: Option<&Path>) -> Result<Exit, Failure> {
    if options.list {
        Check::ALL.iter().for_each(|check| say(&row(*check)));
        return Ok(Exit::Fine);
    }
    if let Some(id) = &options.explain {
        return explain(id);
    }
    let domains = options.domains.iter().map(|typed| domain(typed)).collect::<Result<Vec<_>, _>>()?;
    let world = World::new(&Config::load(config)?)?;
    let checker = Checker { dns: world.dns, policies: world.policies, mail: world.mail, clock: world.clock };
    let mut exit = Exit::Fine;
    for domain in &domains {
        let seen = checker.examine(domain).await;
        match options.json {
            true => say(&json(&seen)),
            false => show(&text(&seen)),
        }
        exit = worse(exit, verdict(&seen, options.strict));
    }
    Ok(exit)
}

fn row(check: Check) -> String {
    format!("{:<22} {:<8} {} ({})", check.id(), word(check.severity()), check.about(), check.source())
}

fn explain(id: &str) -> Result<Exit, Failure> {
    match Check::ALL.iter().find(|check| check.id().eq_ignore_ascii_case(id)) {
        Some(check) => {
            say(&row(*check));
            Ok(Exit::Fine)
        }
        None => {
            let ids = Check::ALL.iter().map(|check| check.id());
            let near = crate::config::nearest(&id.to_ascii_uppercase(), ids).unwrap_or("STS-TXT-MISSING");
            Err(Failure::usage(
                format!("there is no check {id:?}"),
                "the catalogue does not list it",
                format!("Did you mean {near}? `sternpost check --list` prints all."),
            ))
        }
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}

fn verdict(seen: &Examination, strict: bool) -> Exit {
    let has = |severity| seen.findings.iter().any(|finding| finding.severity == severity);
    let blind = seen.findings.iter().any(|finding| finding.check == Check::DnsServfail);
    match () {
        () if blind => Exit::Unknown,
        () if has(Severity::Error) || strict && has(Severity::Warning) => Exit::Findings,
        () => Exit::Fine,
    }
}

/// Findings are certain, so they outweigh what could not be told.
fn worse(one: Exit, other: Exit) -> Exit {
    let rank = |exit| match exit {
        Exit::Fine => 0,
        Exit::Unknown => 1,
        Exit::Findings | Exit::Usage => 2,
    };
    if rank(one) >= rank(other) { one } else { other }
}

fn json(seen: &Examination) -> String {
    #[derive(serde::Serialize)]
    struct Line<'e> {
        schema: u32,
        #[serde(flatten)]
        seen: &'e Examination,
    }
    serde_json::to_string(&Line { schema: 1, seen }).unwrap_or_default()
}

fn text(seen: &Examination) -> String {
    let mut out = format!("{}\n", seen.verdict);
    seen.findings.iter().for_each(|finding| out.push_str(&told(finding)));
    let count = |severity| seen.findings.iter().filter(|finding| finding.severity == severity).count();
    let _ = writeln!(
        out,
        "
{}, {}, {} for your information
",
        counted(count(Severity::Error), "error"),
        counted(count(Severity::Warning), "warning"),
        count(Severity::Info)
    );
    out
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn told(finding: &Finding) -> String {
    let mark = match finding.severity {
        Severity::Error => marks().error,
        Severity::Warning => marks().warning,
        Severity::Info => marks().info,
    };
    let mut out = format!("\n{mark} {}  {}\n", finding.check, finding.what);
    for line in wrap(&finding.why, 76) {
        let _ = writeln!(out, "    {line}");
    }
    for line in &finding.remedy {
        let _ = writeln!(out, "        {line}");
    }
    out
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("", 8), Vec::<String>::new());
        assert_eq!(wrap("averyverylongword", 4), ["averyverylongword"]);
    }

    #[test]
    fn findings_outweigh_what_could_not_be_told() {
        assert_eq!(worse(Exit::Unknown, Exit::Findings), Exit::Findings);
        assert_eq!(worse(Exit::Unknown, Exit::Fine), Exit::Unknown);
        assert_eq!(worse(Exit::Fine, Exit::Fine), Exit::Fine);
    }
}
