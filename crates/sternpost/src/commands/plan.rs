//! `sternpost plan`: prints the steps from a domain's current to its desired state, as computed by
//! [`receiver::rollout::plan`]. Nothing is changed; `sternpost apply` carries out the plan.

use crate::terminal::show;
use config::Chosen;
use config::failure::{Exit, Failure};
use formats::limits::POLICY_BYTES;
use formats::{DomainName, Mode};
use futures_util::StreamExt;
use operations::RolloutContext;
use operations::apply_failure;
use operations::ownership::MissingOwnership;
use receiver::domain::{DnsBy, DomainSpec, HostedBy};
use receiver::publish::{Change, alias_lines, own_host_lines};
use receiver::rollout::Observation;
use receiver::rollout::desired::{DesiredState, PolicyHostAt};
use receiver::rollout::gate::{Evidence, Gate};
use receiver::rollout::guard::Alert;
use receiver::rollout::observed::NoMailHosts;
use receiver::rollout::outside::Outside;
use receiver::rollout::plan::{Stage, Step, WaitReason, plan};
use serde::Serialize;
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

/// The plan of a domain, as text and as JSON.
#[derive(Debug, Serialize)]
pub struct Plan {
    domain: DomainName,
    /// The desired mode; `testing` while the domain is held.
    wanted: Mode,
    /// The current mode; `None` while no policy is published.
    mode: Option<Mode>,
    stages: Vec<StageView>,
    /// What each name server and each address of the policy host shows.
    outside: Outside,
    /// What the tenant has to do before the plan is carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    ownership: Option<MissingOwnership>,
}

/// A stage of the plan, as it is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
enum StageView {
    Step {
        #[serde(rename = "do")]
        word: &'static str,
        text: String,
        why: &'static str,
        by_hand: bool,
        records: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        file: Option<String>,
        /// Where the file is served.
        #[serde(skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// Commands that help with the step.
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
        not_before: String,
        proof: String,
    },
    Wait {
        r#for: WaitReason,
        until: String,
        why: &'static str,
    },
    Evidence {
        gate: Gate,
        /// The guard's alert that it reaches no MX host, so that there are no probes: what, and the remedy.
        #[serde(skip_serializing_if = "Option::is_none")]
        unreached: Option<UnreachedHosts>,
        /// The evidence that does not count, and why.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        not_counted: Vec<String>,
    },
    Blocked {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        hosts: Vec<DomainName>,
        why: String,
        /// The headline in text output.
        #[serde(skip)]
        stop: &'static str,
    },
}

/// The guard's alert that it reaches no MX host of a domain, so that it can't probe any.
#[derive(Debug, Clone, Serialize)]
struct UnreachedHosts {
    what: String,
    remedy: String,
}

/// Prints the plan of each domain. One that can't be looked up is reported, and the others are shown.
pub async fn run(options: &Options, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    // What is observed is recorded: it may be a policy that senders hold.
    let context = RolloutContext::open(chosen).await?;
    let specs = context.domains(&options.domains)?;
    let (mut plans, mut failures) = (Vec::new(), Vec::new());
    let unreached = context.unreached().await?;
    let planned = specs.iter().map(|spec| of(&context, spec, unreached.get(spec.name.as_str())));
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

async fn of(context: &RolloutContext, spec: &DomainSpec, unreached: Option<&Alert>) -> Result<Plan, Failure> {
    let (desired, applier) = (context.desired(spec), context.applier(spec)?);
    let observed = applier.observe(&desired).await;
    let Observation { rollout, seen, now } =
        observed.map_err(|error| apply_failure(&spec.name, &context.config, &error))?;
    let judged = context.gate(&spec.name, &rollout).await?;
    let ownership = context.ownership(&spec.name).await?.missing();
    let stages = plan(&desired, &rollout, &seen, RolloutContext::permit(&rollout), now);
    Ok(Plan {
        domain: spec.name.clone(),
        wanted: desired.mode,
        mode: rollout.mode.map(|known| known.mode),
        stages: stages
            .into_iter()
            .map(|stage| {
                let mut view = stage_view(stage, spec, &desired, &judged);
                match &mut view {
                    StageView::Step { word: "delegate", records, .. } => {
                        records.extend(alias_lines(context.challenge_alias(spec).as_slice()));
                    }
                    StageView::Evidence { unreached: shown, .. } => {
                        let parts = |alert: &Alert| UnreachedHosts {
                            what: alert.what.clone(),
                            remedy: alert.remedy.clone(),
                        };
                        *shown = unreached.map(parts);
                    }
                    _ => {}
                }
                view
            })
            .collect(),
        outside: seen.outside,
        ownership,
    })
}

fn stage_view(
    stage: Stage,
    spec: &DomainSpec,
    desired: &DesiredState,
    (evidence, gate): &(Evidence, Gate),
) -> StageView {
    match stage {
        Stage::Evidence => {
            StageView::Evidence { gate: gate.clone(), unreached: None, not_counted: evidence.left_out() }
        }
        Stage::Blocked(hosts) => {
            StageView::Blocked { why: blocked(&hosts), hosts, stop: "stop: an MX host has no valid name" }
        }
        Stage::TooLarge(size) => StageView::Blocked {
            why: too_large(size),
            hosts: Vec::new(),
            stop: "stop: the policy is too large",
        },
        Stage::NoMailHosts(found) => StageView::Blocked {
            why: unmailed(&spec.name, found),
            hosts: Vec::new(),
            stop: "stop: the domain receives no mail",
        },
        Stage::Wait(waiting, until) => {
            StageView::Wait { r#for: waiting, until: until.to_string(), why: why(waiting) }
        }
        Stage::Step(step, at) => {
            let change = Change::of(desired, &step).ok().flatten();
            let records = match &step {
                Step::Delegate(aliases) => alias_lines(aliases),
                Step::PointPolicyHost(PolicyHostAt::Operator) => own_host_lines(&spec.name),
                _ => change.map(|change| change.lines()).unwrap_or_default(),
            };
            StageView::Step {
                word: step.as_str(),
                text: step.to_string(),
                why: step.why(),
                by_hand: is_by_hand(&step, spec),
                records,
                file: match &step {
                    Step::Serve(policy) => Some(policy.to_string()),
                    _ => None,
                },
                url: matches!(&step, Step::Serve(_))
                    .then(|| format!("https://mta-sts.{}/.well-known/mta-sts.txt", spec.name)),
                hint: (matches!(&step, Step::Serve(_)) && spec.host == HostedBy::Static).then(|| {
                    format!("`sternpost export --for PLATFORM DIR --domain {}` writes the files", spec.name)
                }),
                not_before: at.to_string(),
                proof: step.proof(),
            }
        }
    }
}

/// True when the operator must carry out the step.
fn is_by_hand(step: &Step, spec: &DomainSpec) -> bool {
    match step {
        Step::Serve(_) | Step::TakeDown => spec.host != HostedBy::Sternpost,
        Step::AddMx(_) | Step::RemoveMx(_) | Step::Delegate(_) => true,
        Step::PointPolicyHost(PolicyHostAt::Operator) => true,
        _ => spec.dns == DnsBy::Hand,
    }
}

/// The reason for a waiting period.
pub fn why(waiting: WaitReason) -> &'static str {
    match waiting {
        WaitReason::BeforeNewMx => "until then senders may cache a policy that rejects the new MX hosts",
        WaitReason::BeforeNarrowing => "until then senders may still deliver to the removed MX hosts",
        WaitReason::BeforeRemoval => "until then senders may cache a policy of this domain",
    }
}

/// Why a plan can't begin: a policy can't name these MX hosts.
pub fn blocked(hosts: &[DomainName]) -> String {
    let hosts = hosts.iter().map(DomainName::as_str).collect::<Vec<_>>().join(", ");
    format!(
        "a policy can't name {hosts}: host names must not contain `_`. Give the host a name without it in the MX records, or list a wildcard that matches it, such as mx = [\"*.example.org\"]"
    )
}

/// Why a plan can't begin: no mail can be delivered to the domain.
pub fn unmailed(domain: &DomainName, found: NoMailHosts) -> String {
    format!("{}. No policy is published for it.\n{}", found.what(domain), found.remedy())
}

/// The reasons against enforcement, and the remedies. No command is advised that would refuse.
pub fn evidence_in_words(domain: &DomainName, gate: &Gate, auto_promote: bool) -> String {
    match gate {
        Gate::Ready => {
            format!("The evidence is sufficient. Allow enforcement:\n  sternpost promote {domain}")
        }
        Gate::Ask(_) => {
            format!(
                "Enforcement: {gate}.\nFix the cause, or allow enforcement:\n  sternpost promote {domain}"
            )
        }
        Gate::NotYet(reasons) => {
            let then = match auto_promote {
                true => "Enforcement then begins by itself (auto_promote).".to_owned(),
                false => format!(
                    "Then allow enforcement with `sternpost promote {domain}`, which refuses until then."
                ),
            };
            format!(
                "Enforcement needs evidence: {}.\n`sternpost status {domain}` shows when it is sufficient. {then}\nTo enforce without it, at your risk: sternpost promote {domain} --force --reason \"…\"",
                reasons.join("; ")
            )
        }
    }
}

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

/// Why a plan can't begin: senders would not read the policy file.
pub fn too_large(size: usize) -> String {
    format!(
        "the policy file would have {size} bytes, and senders read at most {POLICY_BYTES}. List wildcards in place of MX hosts, such as mx = [\"*.example.org\"]"
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
    use formats::{MxPattern, Policy};
    use receiver::rollout::gate::{EvidenceInput, Thresholds, judge};

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
