//! `sternpost check --list` and `--explain`: prints the catalogue of checks in the crate `check`, or one entry of it.

use crate::terminal::say;
use check::render::forms::severity_label;
use check::{Cause, Check, Part, Severity};
use config::failure::{Exit, Failure};

#[derive(serde::Serialize)]
struct Row {
    schema: u32,
    check: Check,
    severity: Severity,
    part: Part,
    about: &'static str,
    source: &'static str,
    causes: Vec<CauseRow>,
}

/// A cause that findings of a check can name.
#[derive(serde::Serialize)]
struct CauseRow {
    id: Cause,
    about: &'static str,
    /// How often measurements found it.
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<&'static str>,
}

fn causes(check: Check) -> impl Iterator<Item = Cause> {
    Cause::ALL.iter().copied().filter(move |cause| cause.checks().contains(&check))
}

fn json(check: Check) -> String {
    let row = Row {
        schema: 1,
        check,
        severity: check.severity(),
        part: check.part(),
        about: check.about(),
        source: check.source(),
        causes: causes(check).map(|id| CauseRow { id, about: id.about(), share: id.share() }).collect(),
    };
    serde_json::to_string(&row).unwrap_or_default()
}

fn row(check: Check) -> String {
    format!(
        "{:<22} {:<8} {} ({})",
        check.id(),
        severity_label(check.severity()),
        check.about(),
        check.source()
    )
}

/// Prints a line for each check.
pub fn list(as_json: bool) {
    Check::ALL.iter().for_each(|check| say(&if as_json { json(*check) } else { row(*check) }));
}

/// Prints the description of a check. `id` is case-insensitive; an unknown one is a usage error.
pub fn explain(id: &str, as_json: bool) -> Result<Exit, Failure> {
    let Some(check) = Check::ALL.iter().find(|check| check.id().eq_ignore_ascii_case(id)) else {
        let ids = Check::ALL.iter().map(|check| check.id());
        let near = config::nearest(&id.to_ascii_uppercase(), ids).unwrap_or("STS-TXT-MISSING");
        return Err(Failure::usage(
            format!("unknown check {id:?}"),
            "the catalogue has no such check",
            format!("Did you mean {near}? `sternpost check --list` lists all."),
        ));
    };
    if as_json {
        say(&json(*check));
        return Ok(Exit::Fine);
    }
    let weight = match check.severity() {
        Severity::Error => "error: mail is or will be lost, or the domain is not protected",
        Severity::Warning => "warning: weak, or about to fail",
        Severity::Info => "information",
    };
    say(&format!("{}\n  reports      {}", check.id(), check.about()));
    say(&format!("  severity     {weight}, for a domain whose policy is enforced"));
    say(&format!("  source       {}", check.source()));
    let mut lead = "causes";
    for cause in causes(*check) {
        let share = cause.share().map(|share| format!("; found: {share}")).unwrap_or_default();
        say(&format!("  {lead:<12} {cause}: {}{share}", cause.about()));
        lead = "";
    }
    say("The consequence and the remedy depend on the domain; `sternpost check DOMAIN` prints them.");
    Ok(Exit::Fine)
}
