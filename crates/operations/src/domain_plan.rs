//! The plan of a domain as commands print it and the API answers it: its stages with the records and files to publish, and the
//! texts about each reason to stop. [`receiver::rollout::plan`] computes it.

use crate::ownership::MissingOwnership;
use crate::rollout_context::{RolloutContext, apply_failure};
use config::failure::Failure;
use formats::limits::POLICY_BYTES;
use formats::{DomainName, Mode};
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

/// The plan of a domain, as commands print it and the API answers it.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// The domain.
    pub domain: DomainName,
    /// The desired mode; `testing` while the domain is held.
    pub wanted: Mode,
    /// The current mode; `None` while no policy is published.
    pub mode: Option<Mode>,
    /// The stages from here to the desired mode; empty if there is nothing to do.
    pub stages: Vec<StageView>,
    /// What each name server and each address of the policy host shows.
    pub outside: Outside,
    /// What the tenant has to do before the plan is carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ownership: Option<MissingOwnership>,
}

/// A stage of the plan.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum StageView {
    /// A change of DNS or of the policy file.
    Step {
        /// The identifier of the step.
        #[serde(rename = "do")]
        word: &'static str,
        /// The step in words.
        text: String,
        /// Why the step comes here.
        why: &'static str,
        /// True if the operator carries it out.
        by_hand: bool,
        /// The records to publish, as lines of a zone file.
        records: Vec<String>,
        /// The policy file to serve.
        #[serde(skip_serializing_if = "Option::is_none")]
        file: Option<String>,
        /// Where the file is served.
        #[serde(skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// Commands that help with the step.
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
        /// The earliest safe time, RFC 3339 in UTC.
        not_before: String,
        /// What is observed once the step is done.
        proof: String,
    },
    /// A waiting period.
    Wait {
        /// What it is for.
        r#for: WaitReason,
        /// Its end, RFC 3339 in UTC.
        until: String,
        /// Why it is needed.
        why: &'static str,
    },
    /// Enforcement needs evidence.
    Evidence {
        /// What the evidence says.
        gate: Gate,
        /// The guard's alert that it reaches no MX host, so that there are no probes: what, and the remedy.
        #[serde(skip_serializing_if = "Option::is_none")]
        unreached: Option<UnreachedHosts>,
        /// The evidence that does not count, and why.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        not_counted: Vec<String>,
    },
    /// The plan can't go on.
    Blocked {
        /// The MX hosts that are the reason.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        hosts: Vec<DomainName>,
        /// Why.
        why: String,
        /// The headline in text output.
        #[serde(skip)]
        stop: &'static str,
    },
}

/// The guard's alert that it reaches no MX host of a domain, so that it can't probe any.
#[derive(Debug, Clone, Serialize)]
pub struct UnreachedHosts {
    /// The alert.
    pub what: String,
    /// What the operator can do.
    pub remedy: String,
}

/// Observes a domain and plans. `unreached` is the guard's alert that it reaches no MX host of the domain. Nothing is published;
/// what is observed is recorded, since it may be a policy that senders hold.
///
/// # Errors
///
/// If the domain can't be observed, or if the store fails.
pub async fn plan_of(
    context: &RolloutContext,
    spec: &DomainSpec,
    unreached: Option<&Alert>,
) -> Result<Plan, Failure> {
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

/// A stage for people and programs, with the evidence as it was judged.
pub fn stage_view(
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
            StageView::Wait { r#for: waiting, until: format!("{until:.0}"), why: why(waiting) }
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

/// Why a plan can't begin: senders would not read the policy file.
pub fn too_large(size: usize) -> String {
    format!(
        "the policy file would have {size} bytes, and senders read at most {POLICY_BYTES}. List wildcards in place of MX hosts, such as mx = [\"*.example.org\"]"
    )
}
