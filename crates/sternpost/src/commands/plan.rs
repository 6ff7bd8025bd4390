//! `sternpost plan`: prints the steps from a domain's current to its desired state, as computed by
//! [`receiver::rollout::plan`]. Nothing is changed; `sternpost apply` carries out the plan.

use crate::terminal::show;
use config::Chosen;
use config::failure::{Exit, Failure};
use futures_util::StreamExt;
use operations::RolloutContext;
use operations::domain_plan::{Plan, StageView, plan_of};
use receiver::rollout::gate::Gate;
use receiver::rollout::outside::Outside;
use std::fmt::Write;

/// The options of `sternpost plan`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Mail domains, such as example.org [default: all]
    domains: Vec<String>,
    /// Print one line of JSON (docs/receiving.md)
    #[arg(long)]
    json: bool,
    /// Show what each name server and each address of the policy host shows
    #[arg(long)]
    servers: bool,
}

/// Prints the plan of each domain. One that can't be looked up is reported, and the others are shown.
pub async fn run(options: &Options, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    // What is observed is recorded: it may be a policy that senders hold.
    let context = RolloutContext::open_about(chosen, &options.domains).await?;
    let specs = context.domains(&options.domains)?;
    let (mut plans, mut failures) = (Vec::new(), Vec::new());
    let unreached = context.unreached().await?;
    let planned = specs.iter().map(|spec| plan_of(&context, spec, unreached.get(spec.name.as_str())));
    let mut planned = futures_util::stream::iter(planned).buffered(SIDE_BY_SIDE);
    while let Some(plan) = planned.next().await {
        match plan {
            Ok(plan) => plans.push(plan),
            Err(failure) => failures.push(failure),
        }
    }
    drop(planned);
    if options.domains.is_empty() {
        failures.extend(context.unreadable());
    }
    failures.iter().for_each(|failure| eprintln!("{failure}"));
    if options.json {
        let failed: Vec<_> = failures.iter().map(failure_json).collect();
        let all = serde_json::json!({ "schema": 1, "plans": plans, "failed": failed });
        show(&format!("{all}\n"));
    } else {
        let text = |plan: &Plan| format!("{}{}", in_words(plan), outside(&plan.outside, options.servers));
        show(&plans.iter().map(text).collect::<Vec<_>>().join("\n"));
    }
    context.store.close().await;
    let is_blocked = |plan: &Plan| plan.stages.iter().any(|stage| matches!(stage, StageView::Blocked { .. }));
    let planned = if plans.iter().any(is_blocked) { Exit::Findings } else { Exit::Fine };
    Ok(Exit::of_failures(&failures, planned))
}

/// A failure of one domain, as JSON.
pub fn failure_json(failure: &Failure) -> serde_json::Value {
    let (what, why, remedy) = failure.parts();
    serde_json::json!({ "what": what, "why": why, "remedy": remedy })
}

/// Domains that are looked up at the same time.
pub const SIDE_BY_SIDE: usize = 16;

/// The observation from outside: each place if `all`, else those that showed nothing, and different policies.
pub fn outside(seen: &Outside, all: bool) -> String {
    let mut lines = if all { seen.lines() } else { seen.faults() };
    if !all {
        let shown = seen.addresses.iter().filter(|view| view.shows.is_some());
        let differ = shown.clone().any(|view| shown.clone().any(|other| other.shows != view.shows));
        lines.extend(shown.filter(|_| differ).map(|view| {
            format!("policy host at {}: {}", view.address, view.shows.as_deref().unwrap_or_default())
        }));
    }
    if lines.is_empty() {
        return String::new();
    }
    format!(
        "\n  seen from outside:\n{}",
        lines.iter().map(|line| format!("    {line}\n")).collect::<String>()
    )
}

fn in_words(plan: &Plan) -> String {
    let mut out = String::new();
    let now = plan.mode.map_or("no policy".to_owned(), |mode| mode.to_string());
    if plan.stages.is_empty() {
        let _ = writeln!(out, "{}: nothing to do, it is in the desired state ({now}).", plan.domain);
    } else {
        let _ = writeln!(out, "{}: from {now} to {}", plan.domain, plan.wanted);
    }
    if let Some(missing) = &plan.ownership {
        let _ = writeln!(out, "\n{}", missing.in_words());
    }
    if plan.stages.is_empty() {
        return out;
    }
    for (at, stage) in plan.stages.iter().enumerate() {
        let _ = writeln!(out, "\n{:>3}. {}", at + 1, headline(stage));
        for line in below(stage) {
            let _ = writeln!(out, "     {line}");
        }
    }
    // `apply` would stop at once where the first stage is a stop.
    if !matches!(plan.stages.first(), Some(StageView::Blocked { .. })) {
        let _ = writeln!(out, "\nCarry out the plan: sternpost apply {}", plan.domain);
    }
    out
}

fn headline(stage: &StageView) -> String {
    match stage {
        StageView::Step { text, by_hand, .. } => {
            format!("{text}{}", if *by_hand { "   (manual)" } else { "" })
        }
        StageView::Wait { until, .. } => format!("wait until {until}"),
        StageView::Blocked { stop, .. } => (*stop).to_owned(),
        StageView::Evidence { gate, .. } => format!("evidence that enforcement loses no mail: {gate}"),
    }
}

fn below(stage: &StageView) -> Vec<String> {
    match stage {
        StageView::Step { why, records, file, url, hint, proof, .. } => {
            let mut lines = vec![(*why).to_owned()];
            lines.extend(records.iter().map(|record| format!("  {record}")));
            lines.extend(url.iter().map(|url| format!("at {url}")));
            lines.extend(file.iter().flat_map(|file| file.lines()).map(|line| format!("  {line}")));
            lines.extend(hint.clone());
            lines.push(format!("done when {proof}"));
            lines
        }
        StageView::Wait { why, .. } => vec![(*why).to_owned()],
        StageView::Blocked { why, .. } => why.lines().map(str::to_owned).collect(),
        StageView::Evidence { gate, unreached, not_counted } => {
            let mut lines: Vec<String> =
                not_counted.iter().map(|one| format!("not counted: {one}")).collect();
            lines
                .extend(unreached.iter().map(|hosts| format!("no probes: {}. {}", hosts.what, hosts.remedy)));
            let next = match gate {
                Gate::Ask(_) => "decide: fix the cause, or allow enforcement with sternpost promote",
                Gate::Ready => "allow enforcement with sternpost promote",
                Gate::NotYet(_) => {
                    "then allow enforcement with sternpost promote; until then it refuses, unless --force and --reason are given"
                }
            };
            lines.push(next.to_owned());
            lines
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::{DomainName, Mode, MxPattern, Policy};
    use operations::domain_plan::{evidence_in_words, stage_view};
    use receiver::domain::DomainSpec;
    use receiver::rollout::desired::PolicyHostAt;
    use receiver::rollout::gate::{EvidenceInput, Thresholds, judge};
    use receiver::rollout::observed::NoMailHosts;
    use receiver::rollout::plan::{Stage, Step};

    #[test]
    fn advice_about_enforcement_never_names_a_command_that_refuses_without_saying_so() {
        let domain = DomainName::parse("a.example").unwrap();
        let ready = evidence_in_words(&domain, &Gate::Ready, false);
        assert!(ready.ends_with("sternpost promote a.example") && !ready.contains("refuses"), "{ready}");
        let not_yet = Gate::NotYet(vec!["no verified report has arrived yet".into()]);
        let text = evidence_in_words(&domain, &not_yet, false);
        assert!(text.contains("needs evidence: no verified report has arrived yet.\n"), "{text}");
        assert!(text.contains("which refuses until then") && text.contains("--force --reason"), "{text}");
        let by_itself = evidence_in_words(&domain, &not_yet, true);
        assert!(by_itself.contains("begins by itself") && !by_itself.contains("refuses"), "{by_itself}");
        for (gate, expected) in [
            (not_yet, "until then it refuses"),
            (Gate::Ready, "allow enforcement with sternpost promote"),
            (Gate::Ask(Vec::new()), "fix the cause"),
        ] {
            let lines = below(&StageView::Evidence { gate, unreached: None, not_counted: Vec::new() });
            assert!(lines.last().unwrap().contains(expected), "{lines:?}");
        }
    }

    #[test]
    fn a_plan_that_stops_at_once_is_not_to_be_applied() {
        let domain = DomainName::parse("a.example").unwrap();
        let spec = DomainSpec::new(domain.clone());
        let nothing = EvidenceInput {
            reports: &[],
            probes: &[],
            mx_hosts: &[],
            policy: None,
            since: jiff::Timestamp::UNIX_EPOCH,
            excused: &Default::default(),
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        let judged = judge(&nothing, &Thresholds::default());
        let stage = stage_view(
            Stage::NoMailHosts(NoMailHosts::NoSuchName),
            &spec,
            &spec.desired(None, None),
            &judged,
        );
        let plan = Plan {
            domain,
            wanted: Mode::Enforce,
            mode: None,
            stages: vec![stage],
            outside: Outside::default(),
            ownership: None,
        };
        let text = in_words(&plan);
        for part in
            ["stop: the domain receives no mail", "a.example does not exist in DNS", "Check the spelling"]
        {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("sternpost apply") && !text.contains("desired state"), "{text}");
    }

    #[test]
    fn the_plan_for_static_hosting_says_where_the_file_goes_and_that_mta_sts_needs_an_address() {
        let spec = DomainSpec::new(DomainName::parse("example.org").unwrap());
        let desired = spec.desired(None, None);
        let policy = Policy::new(Mode::Testing, 86_400, vec![MxPattern::parse("mx.example.org").unwrap()]);
        let text = |step: Step| {
            let at = jiff::Timestamp::UNIX_EPOCH;
            let facts = EvidenceInput {
                reports: &[],
                probes: &[],
                mx_hosts: &[],
                policy: None,
                since: at,
                excused: &Default::default(),
                now: at,
            };
            let judged = judge(&facts, &Thresholds::default());
            let view = stage_view(Stage::Step(step, at), &spec, &desired, &judged);
            format!("{}\n{}", headline(&view), below(&view).join("\n"))
        };
        let point = text(Step::PointPolicyHost(PolicyHostAt::Operator));
        assert!(point.starts_with("point mta-sts to your web server   (manual)"), "{point}");
        assert!(point.contains("mta-sts.example.org. 300 IN A ADDRESS-OF-YOUR-WEB-SERVER"), "{point}");
        let serve = text(Step::Serve(policy.unwrap()));
        assert!(serve.contains("at https://mta-sts.example.org/.well-known/mta-sts.txt"), "{serve}");
        assert!(serve.contains("mode: testing") && serve.contains("sternpost export --for"), "{serve}");
    }
}
