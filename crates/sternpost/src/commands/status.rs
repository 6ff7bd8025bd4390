//! `sternpost status`: prints the state of each domain from the store: mode, evidence, failures, the policies that
//! senders may cache, and the journal, and then the active alerts with the domains that each concerns. It sends no
//! queries.

use super::plan::outside;
use crate::commands::reports::usage_in_words;
use crate::terminal::{marks, say, show};
use clap::ValueEnum;
use config::Chosen;
use config::failure::{Exit, Failure};
use formats::{DomainName, Mode};
use jiff::{SignedDuration, Timestamp};
use operations::RolloutContext;
use operations::ownership::MissingOwnership;
use operations::store_failure;
use receiver::domain::DomainSpec;
use receiver::inbox::explain::{CauseContext, Explanation, explain};
use receiver::publish::alias_lines;
use receiver::rollout::RolloutState;
use receiver::rollout::decisions::Decisions;
use receiver::rollout::gate::{Evidence, Gate, Source};
use receiver::rollout::guard::{Alert, AlertGroup, groups};
use receiver::rollout::outside::Outside;
use std::fmt::Write;
use store::reports::QuarantineUsage;
use store::rollouts::JournalEntry;

/// The options of `sternpost status`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Mail domains, such as example.org [default: all]
    domains: Vec<String>,
    /// Print one line for each domain, with its mode and what comes next
    #[arg(long, conflicts_with = "json")]
    brief: bool,
    /// Only domains whose policy is in this mode; `off` stands for no policy
    #[arg(long, value_enum)]
    mode: Option<ModeFilter>,
    /// Print one line of JSON (docs/receiving.md)
    #[arg(long)]
    json: bool,
    /// Show what each name server and each address of the policy host showed at the last observation
    #[arg(long)]
    servers: bool,
}

/// A value of --mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeFilter {
    Enforce,
    Testing,
    None,
    Off,
}

impl ModeFilter {
    fn of(mode: Option<Mode>) -> Self {
        match mode {
            Some(Mode::Enforce) => Self::Enforce,
            Some(Mode::Testing) => Self::Testing,
            Some(Mode::None) => Self::None,
            None => Self::Off,
        }
    }
}

#[derive(serde::Serialize)]
struct Status {
    domain: String,
    /// Whether the guard of `sternpost serve` carries out the plan.
    #[serde(skip)]
    applied_by_guard: bool,
    /// The CNAME records that the owner of a delegated domain publishes, if they were not seen yet.
    #[serde(skip)]
    aliases: Vec<String>,
    wanted: Mode,
    #[serde(flatten)]
    rollout: RolloutState,
    evidence: Evidence,
    gate: Gate,
    /// Whether the guard reaches no MX host, so that there are no new probes. The alert is in `alerts`.
    #[serde(skip)]
    is_unreached: bool,
    /// Failures in recent reports that count as evidence, most frequent first.
    failures: Vec<Explanation>,
    #[serde(skip_serializing_if = "Decisions::is_empty")]
    decisions: Decisions,
    /// What was seen at the last observation.
    #[serde(skip_serializing_if = "Option::is_none")]
    outside: Option<LastObservation>,
    /// What the tenant has to do before anything is published.
    #[serde(skip_serializing_if = "Option::is_none")]
    ownership: Option<MissingOwnership>,
    journal: Vec<JournalEntry>,
}

#[derive(serde::Serialize)]
struct LastObservation {
    at: Timestamp,
    #[serde(flatten)]
    seen: Outside,
}

/// Prints the status of each domain.
pub async fn run(options: &Options, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    let context = RolloutContext::open_to_show(chosen).await?;
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    let unreached = context.unreached().await?;
    for spec in context.domains(&options.domains)? {
        match of(&context, &spec).await {
            Ok(status) => {
                let is_unreached = unreached.contains_key(&status.domain);
                all.push(Status { is_unreached, ..status });
            }
            // One domain whose state can't be read does not hide the others.
            Err(failure) => failed.push(format!("{}: {}", spec.name, failure.parts().1)),
        }
    }
    for (name, why) in context.damaged.iter().filter(|_| options.domains.is_empty()) {
        failed.push(format!("{name}: its settings can't be read: {why}"));
    }
    if let Some(wanted) = options.mode {
        all.retain(|status| ModeFilter::of(status.rollout.mode.map(|known| known.mode)) == wanted);
    }
    let alerts = alerts(&context, &options.domains).await?;
    let quarantine = context.store.quarantine_usage().await.map_err(|error| store_failure(&error))?;
    context.store.close().await;
    if options.json {
        let json = serde_json::json!({ "schema": 1, "domains": all, "alerts": alerts, "unreadable": failed, "quarantine": quarantine });
        show(&format!("{json}\n"));
    } else {
        let text = |status: &Status| match options.brief {
            true => brief(status),
            false => in_words(status, options.servers),
        };
        show(&all.iter().map(text).collect::<Vec<_>>().join(if options.brief { "" } else { "\n" }));
        if all.len() > 1 {
            show(&format!("\n{}\n", totals(&all)));
        }
        alerts.iter().for_each(|group| show(&alert_in_words(group)));
        if options.domains.is_empty() {
            context.unconfigured.iter().for_each(|missed| {
                say(&format!("{} {}: {}", marks().warning, missed.what(), missed.consequence()));
                say(&format!("    {}", missed.remedy().replace('\n', "\n    ")));
            });
        }
        failed.iter().for_each(|what| say(&format!("{} {what}", marks().error)));
        if quarantine != QuarantineUsage::default() {
            let limit = context.config.retention().quarantine.bytes;
            show(&format!("\n{}\n", usage_in_words(&quarantine, limit)));
        }
    }
    Ok(if failed.is_empty() { Exit::Fine } else { Exit::Unknown })
}

/// The active alerts that concern these domains; all of them if none is named.
async fn alerts(context: &RolloutContext, domains: &[String]) -> Result<Vec<AlertGroup>, Failure> {
    let named: Vec<String> =
        context.domains(domains)?.into_iter().map(|spec| spec.name.to_string()).collect();
    let active = context.store.alerts::<Alert>().await.map_err(|error| store_failure(&error))?;
    let is_wanted = |domain: &String| domains.is_empty() || named.contains(domain);
    let mut all = groups(active.into_iter().map(|one| (one.domain, one.since, one.alert)));
    all.retain(|group| group.alert.domains.iter().any(is_wanted));
    Ok(all)
}

fn alert_in_words(group: &AlertGroup) -> String {
    let AlertGroup { since, alert } = group;
    let named = alert.domains.iter().take(MAX_DOMAINS).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = match alert.domains.len().saturating_sub(MAX_DOMAINS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let what = format!("{}: {} (since {since:.0})", alert.kind, alert.what);
    format!("\n{} {what}\n    domains: {named}{more}\n    {}\n", marks().error, alert.remedy)
}

async fn of(context: &RolloutContext, spec: &DomainSpec) -> Result<Status, Failure> {
    let fail = |error| store_failure(&error);
    let (name, store) = (&spec.name, &context.store);
    let rollout = context.rollout(name).await?;
    let (evidence, gate) = context.gate(name, &rollout).await?;
    let now = context.world.clock.now();
    let since = now.saturating_sub(REPORT_WINDOW).unwrap_or(now);
    let senders = store.senders_about(name, since).await.map_err(fail)?;
    let probes = store.guard_probes(name, since).await.map_err(fail)?;
    let around = CauseContext { domain: name.as_str(), senders: &senders, probes: &probes };
    let causes = store.causes_of(name, since).await.map_err(fail)?;
    let counting = causes.iter().filter(|cause| cause.counts);
    let aliases = context.delegated_names(spec);
    let aliases = if rollout.mode.is_none() { alias_lines(&aliases) } else { Vec::new() };
    Ok(Status {
        domain: name.to_string(),
        applied_by_guard: context.is_applied_by_guard(spec),
        aliases,
        wanted: spec.mode,
        failures: counting.map(|cause| explain(cause, &around)).collect(),
        rollout,
        evidence,
        gate,
        is_unreached: false,
        decisions: context.decisions(name),
        outside: store.last_look(name).await.map_err(fail)?.map(|(at, seen)| LastObservation { at, seen }),
        ownership: context.known_ownership(name).await?.missing(),
        journal: store.journal_of(name).await.map_err(fail)?,
    })
}

/// Age up to which reported failures are listed: 30 days.
const REPORT_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 30);
/// Domains of an alert that are printed as text.
const MAX_DOMAINS: usize = 10;
/// Failures of a domain that are printed as text.
const MAX_LISTED: usize = 3;

/// Senders that are named in the text.
const MAX_SENDERS: usize = 5;

/// The senders whose sessions count as evidence, the most frequent first.
fn counted(evidence: &Evidence) -> String {
    let all = &evidence.sources;
    let one = |source: &Source| match source.failed_sessions {
        0 => format!("{} ({} sessions)", source.domain, source.clean_sessions),
        failed => format!("{} ({} sessions, {failed} failed)", source.domain, source.clean_sessions),
    };
    let named: Vec<String> = all.iter().take(MAX_SENDERS).map(one).collect();
    let more = match all.len().saturating_sub(MAX_SENDERS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{} clean days, reported by {}{more}", evidence.clean_days, named.join(", "))
}

/// A domain in one line.
fn brief(status: &Status) -> String {
    let mode = status.rollout.mode.map_or("off".to_owned(), |known| known.mode.to_string());
    let next = match (status.rollout.mode.map(|known| known.mode), &status.gate) {
        (None, _) => first_step(status).unwrap_or_default(),
        (Some(Mode::Testing), gate) if status.wanted == Mode::Enforce => gate.to_string(),
        _ => String::new(),
    };
    let next = next.lines().next().unwrap_or_default();
    format!("{:<40} {mode:<8} {next}\n", status.domain)
}

/// How many domains are in which mode.
fn totals(all: &[Status]) -> String {
    let count = |mode: ModeFilter| {
        all.iter()
            .filter(|status| ModeFilter::of(status.rollout.mode.map(|known| known.mode)) == mode)
            .count()
    };
    let parts = [
        (count(ModeFilter::Enforce), "in mode enforce"),
        (count(ModeFilter::Testing), "in testing"),
        (count(ModeFilter::None), "being retired (mode none)"),
        (count(ModeFilter::Off), "without a policy"),
    ];
    let said: Vec<String> = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{number} {what}"))
        .collect();
    format!("{} domains: {}", all.len(), said.join(", "))
}

/// What comes next for a domain without a policy; `None` for all others.
fn first_step(status: &Status) -> Option<String> {
    if status.rollout.mode.is_some() || status.wanted == Mode::None {
        return None;
    }
    let seen = status.outside.as_ref().map(|look| &look.seen);
    if let (Some(found), Ok(name)) = (seen.and_then(|seen| seen.unmailed), DomainName::parse(&status.domain))
    {
        return Some(format!("{}. {}", found.what(&name), found.remedy()));
    }
    let apply = format!("sternpost apply {}", status.domain);
    Some(match (status.applied_by_guard, seen.is_some(), status.aliases.is_empty()) {
        (true, false, _) => {
            "the guard of `sternpost serve` checks the domain in its next round and applies the plan"
                .to_owned()
        }
        (_, _, false) => format!(
            "the owner of the domain publishes these records, if that has not been done\n    {}\n  then: {}",
            status.aliases.join("\n    "),
            if status.applied_by_guard { "the guard applies the plan by itself" } else { apply.as_str() }
        ),
        (true, ..) => "the guard of `sternpost serve` applies the plan by itself".to_owned(),
        _ => apply,
    })
}

fn in_words(status: &Status, all_servers: bool) -> String {
    let mut out = String::new();
    let now = match (status.rollout.mode, &status.outside) {
        (Some(known), _) => format!("{} since {:.0}", known.mode, known.since),
        (None, Some(_)) => "no policy".to_owned(),
        (None, None) => "not observed yet".to_owned(),
    };
    let _ = writeln!(out, "{}: {now}; desired mode {}", status.domain, status.wanted);
    if let Some(missing) = &status.ownership {
        let _ = writeln!(out, "  {}", missing.in_words());
    }
    let _ = writeln!(out, "  evidence: {}", status.gate);
    if !status.evidence.sources.is_empty() {
        let _ = writeln!(out, "    counted: {}", counted(&status.evidence));
    }
    for left_out in status.evidence.left_out() {
        let _ = writeln!(out, "    not counted: {left_out}");
    }
    if status.is_unreached {
        let _ = writeln!(
            out,
            "    no probes: the guard reaches no MX host from this machine (alert mx-unreached); is outgoing port 25 blocked?"
        );
    }
    if let Some(next) = first_step(status) {
        let _ = writeln!(out, "  next: {next}");
    }
    if let Some(word) = &status.decisions.held {
        let _ = writeln!(out, "  held in testing by {}: {}", word.who, word.reason);
    }
    for omission in &status.decisions.omitted {
        let (who, reason) = (&omission.decision.who, &omission.decision.reason);
        let _ = writeln!(out, "  changes do not wait for {}, by {who}: {reason}", omission.endpoint);
    }
    if let Some(look) = &status.outside {
        let text = outside(&look.seen, all_servers);
        let text = text.replace("seen from outside:", &format!("seen from outside at {:.0}:", look.at));
        out.push_str(text.trim_start_matches('\n'));
    }
    for failure in status.failures.iter().take(MAX_LISTED) {
        let _ = writeln!(out, "  {} {}", marks().error, failure.what);
        failure.hints.iter().for_each(|hint| {
            let _ = writeln!(out, "      {hint}");
        });
        let _ = writeln!(out, "      {}", failure.remedy.replace('\n', "\n      "));
    }
    if status.failures.len() > MAX_LISTED {
        let _ = writeln!(
            out,
            "  and {} more kinds of failures (--json, or the dashboard)",
            status.failures.len() - MAX_LISTED
        );
    }
    for promise in &status.rollout.published {
        let mx: Vec<String> = promise.mx.iter().map(ToString::to_string).collect();
        let until =
            promise.ends().map_or("as long as it is served".to_owned(), |end| format!("until {end:.0}"));
        let _ = writeln!(out, "  senders may cache {} for {} {until}", promise.mode, mx.join(", "));
    }
    for line in &status.journal {
        let _ = writeln!(out, "  {} {}: {}", line.at, line.who, line.what);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use receiver::rollout::guard::AlertKind;

    /// Domains with one broken MX host, and one with an alert of its own.
    fn active() -> Vec<(String, Timestamp, Alert)> {
        let alert = |kind, subject: &str, what: &str, cause: Option<&str>| Alert {
            kind,
            subject: subject.to_owned(),
            what: what.to_owned(),
            consequence: "Mail is queued.".into(),
            remedy: "Renew the certificate".to_owned(),
            cause: cause.map(str::to_owned),
            domains: Vec::new(),
        };
        let host = "mx.example.net";
        let broken =
            alert(AlertKind::MxUnverified, host, "mx.example.net failed TLS authentication", Some(host));
        let gone = alert(AlertKind::RecordGone, "_mta-sts.a.example", "the record is missing", None);
        let at = |second| Timestamp::from_second(1_790_000_000 + second).unwrap();
        let mut all = vec![("a.example".to_owned(), at(0), gone)];
        all.extend(
            (0..12)
                .map(|number| (format!("d{number:02}.example"), at(60 + i64::from(number)), broken.clone())),
        );
        all
    }

    #[test]
    fn alerts_with_one_cause_are_one_text_with_their_domains() {
        let texts: Vec<String> = groups(active()).iter().map(alert_in_words).collect();
        let [gone, broken] = texts.as_slice() else { panic!("{texts:?}") };
        let body = |text: &str| text.trim_start().trim_start_matches(marks().error).trim_start().to_owned();
        assert_eq!(
            body(gone),
            "record-gone: the record is missing (since 2026-09-21T14:13:20Z)\n    domains: a.example\n    Renew the certificate\n"
        );
        assert_eq!(
            body(broken),
            "mx-unverified: mx.example.net failed TLS authentication (since 2026-09-21T14:14:20Z)\n    domains: d00.example, d01.example, d02.example, d03.example, d04.example, d05.example, d06.example, d07.example, d08.example, d09.example and 2 more\n    Renew the certificate\n"
        );
    }
}
