//! `sternpost promote`, `hold`, `excuse` and `omit`: the operator's decisions about a rollout. [`operations::promotion`]
//! stores them with their reasons; the next `sternpost apply` acts on them.

use crate::terminal::{marks, say};
use config::Chosen;
use config::failure::{Exit, Failure};
use formats::{DomainName, Mode, ResultType};
use operations::RolloutContext;
use operations::mx_losses::{MxLosses, mx_losses};
use operations::promotion::{
    OPERATOR, allow, count_again, excuse_cause, hold_back, omit_endpoint, wait_again,
};
use operations::store_failure;
use operations::world::domain;
use receiver::domain::DomainSpec;
use receiver::rollout::gate::Cause;
use receiver::rollout::outside::Outside;

/// The options of `sternpost promote`.
#[derive(Debug, clap::Args)]
pub struct Promote {
    /// Mail domain, such as example.org
    domain: String,
    /// Promote before the reports show that enforcement loses no mail; the MX hosts are probed first
    #[arg(long, requires = "reason")]
    force: bool,
    /// With --force: promote even if MX hosts fail the probe; senders will not deliver mail to these hosts
    #[arg(long, requires = "force")]
    although_mail_is_lost: bool,
    /// With --force: promote even if no MX host can be reached from here, so that no certificate was verified
    #[arg(long, requires = "force")]
    although_no_host_was_seen: bool,
    /// Reason, recorded in the journal
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// The options of `sternpost hold`.
#[derive(Debug, clap::Args)]
pub struct Hold {
    /// Mail domain, such as example.org
    domain: String,
    /// Reason, recorded in the journal
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// The options of `sternpost excuse`.
#[derive(Debug, clap::Args)]
pub struct Excuse {
    /// Mail domain, such as example.org
    domain: String,
    /// Result type as shown by `sternpost status`, such as certificate-expired
    result: String,
    /// MX host as named in the reports; omit it if the reports name none
    #[arg(default_value = "", hide_default_value = true)]
    host: String,
    /// Reason why the cause does not count, recorded in the journal
    #[arg(long, value_name = "TEXT", required_unless_present = "undo")]
    reason: Option<String>,
    /// Stop excluding the cause, so that it counts as evidence again
    #[arg(long)]
    undo: bool,
}

/// The options of `sternpost omit`.
#[derive(Debug, clap::Args)]
pub struct Omit {
    /// Mail domain, such as example.org
    domain: String,
    /// Name of a name server, or address of a name server or of the policy host
    endpoint: String,
    /// Reason, recorded in the journal
    #[arg(long, value_name = "TEXT", required_unless_present = "undo")]
    reason: Option<String>,
    /// Stop omitting the server or address, so that changes wait for it again
    #[arg(long)]
    undo: bool,
}

/// Leaves out an endpoint that is down, or waits for it again.
pub async fn omit(options: &Omit, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    if let Some(reason) = &options.reason {
        check_reason(reason.trim())?;
    }
    let endpoint = match options.endpoint.trim().parse::<std::net::IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => domain(&options.endpoint)?.to_string(),
    };
    let mut context = RolloutContext::open(chosen).await?;
    let spec = context.find(&domain(&options.domain)?)?;
    let said = match &options.reason {
        Some(reason) if !options.undo => {
            check_endpoint(&context, &spec, &endpoint).await?;
            omit_endpoint(&mut context, &spec.name, &endpoint, OPERATOR, reason).await?
        }
        _ => wait_again(&mut context, &spec.name, &endpoint, OPERATOR).await?,
    };
    context.store.close().await;
    say(&said);
    Ok(Exit::Fine)
}

/// Fails for an endpoint that the last observation did not meet: a typing error would otherwise be noticed late.
async fn check_endpoint(context: &RolloutContext, spec: &DomainSpec, endpoint: &str) -> Result<(), Failure> {
    let last = context.store.last_look::<Outside>(&spec.name).await.map_err(|error| store_failure(&error))?;
    let seen = last.map(|(_, seen)| seen).unwrap_or_default();
    let servers = seen.servers.iter().flat_map(|view| {
        [Some(view.server.to_string()), view.address.map(|address| address.to_string())].into_iter().flatten()
    });
    let mut places: Vec<String> =
        servers.chain(seen.addresses.iter().map(|view| view.address.to_string())).collect();
    places.sort();
    places.dedup();
    if places.iter().any(|known| known == endpoint) {
        return Ok(());
    }
    let remedy = match places.is_empty() {
        true => format!("Observe the domain first:\n  sternpost plan {}", spec.name),
        false => format!("These were seen:\n  {}", places.join("\n  ")),
    };
    Err(Failure::usage(
        format!("{endpoint} is not left out"),
        format!("no name server of {} and no address of its policy host is called that", spec.name),
        remedy,
    ))
}

/// Allows enforcement; the next `apply` carries it out.
pub async fn promote(options: &Promote, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    let mut context = RolloutContext::open(chosen).await?;
    let spec = context.find(&domain(&options.domain)?)?;
    let reason = options.reason.as_deref().map(str::trim).filter(|_| options.force);
    if let Some(reason) = reason {
        check_reason(reason)?;
        check_hosts(&context, &spec, options).await?;
    }
    let outcome = allow(&mut context, &spec, OPERATOR, reason).await?;
    context.store.close().await;
    match outcome {
        Ok(said) => {
            say(&said);
            Ok(Exit::Fine)
        }
        Err(refusal) => {
            Err(Failure::finding(format!("{} is not promoted", spec.name), refusal.why, refusal.remedy))
        }
    }
}

fn check_reason(reason: &str) -> Result<(), Failure> {
    match reason.is_empty() {
        false => Ok(()),
        true => Err(Failure::usage(
            "--reason is empty",
            "the journal records why a decision was made against the evidence",
            "Say why, such as --reason \"all MX hosts were tested by hand\".",
        )),
    }
}

/// Probes the MX hosts, and names those that would lose mail. Fails if there are any, or if none could be reached, and the
/// operator has not accepted that.
async fn check_hosts(context: &RolloutContext, spec: &DomainSpec, options: &Promote) -> Result<(), Failure> {
    let rollout = context.rollout(&spec.name).await?;
    if rollout.mode.is_none_or(|known| known.mode != Mode::Testing) {
        return Ok(());
    }
    let found = mx_losses(context, spec, &rollout).await?;
    for host in &found.unreached {
        say(&format!(
            "{} {host} can't be reached from here, so its certificate was not verified.",
            marks().warning
        ));
    }
    for (host, why) in &found.hosts {
        say(&format!("{} {host}: {why}", marks().error));
    }
    if !found.hosts.is_empty() && !options.although_mail_is_lost {
        return Err(refused_for_losses(&spec.name, &found));
    }
    if found.is_unseen() && !options.although_no_host_was_seen {
        return Err(refused_unseen(&spec.name));
    }
    Ok(())
}

fn refused_for_losses(domain: &DomainName, found: &MxLosses) -> Failure {
    let hosts: Vec<&str> = found.hosts.iter().map(|(host, _)| host.as_str()).collect();
    Failure::finding(
        format!("{domain} is not promoted"),
        format!("senders would not deliver to {}", hosts.join(" and ")),
        format!(
            "Mend these hosts first: sternpost check {domain}\nTo enforce the policy nevertheless, add --although-mail-is-lost."
        ),
    )
}

fn refused_unseen(domain: &DomainName) -> Failure {
    Failure::finding(
        format!("{domain} is not promoted"),
        "no MX host can be reached from here, so it is unknown whether senders could deliver to any of them",
        format!(
            "If outgoing port 25 is blocked on this machine, as in most clouds, have the provider open it, and run the command again.\nOr verify the hosts from a machine where it is open: sternpost check {domain}\nIf you have done that, add --although-no-host-was-seen."
        ),
    )
}

/// Keeps a domain in testing, or returns it to testing.
pub async fn hold(options: &Hold, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    check_reason(options.reason.trim())?;
    let mut context = RolloutContext::open(chosen).await?;
    let spec = context.find(&domain(&options.domain)?)?;
    let said = hold_back(&mut context, &spec, OPERATOR, &options.reason).await?;
    context.store.close().await;
    say(&said);
    Ok(Exit::Fine)
}

/// Excludes a failure cause from the evidence, or counts it again.
pub async fn excuse(options: &Excuse, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    if let Some(reason) = &options.reason {
        check_reason(reason.trim())?;
    }
    let mut context = RolloutContext::open(chosen).await?;
    let spec = context.find(&domain(&options.domain)?)?;
    let cause = Cause { result: options.result.clone(), host: options.host.clone() };
    let known = ResultType::registered().any(|kind| kind.as_str() == cause.result);
    let reported = reported_causes(&context, &spec.name).await?;
    if !reported.contains(&cause) && !options.undo {
        let listed: Vec<String> =
            reported.iter().map(|cause| format!("{} {}", cause.result, cause.host)).collect();
        let what = if known { "no report names it" } else { "unknown result type, and no report names it" };
        let mut remedy = match listed.is_empty() {
            true => "The reports contain no failures.".to_owned(),
            false => format!("The reports contain:\n  {}", listed.join("\n  ")),
        };
        if !known {
            let types: Vec<String> = ResultType::registered().map(|kind| kind.to_string()).collect();
            let near = config::nearest(&cause.result, types.iter().map(String::as_str));
            let near = near.map(|near| format!("Did you mean {near}? ")).unwrap_or_default();
            remedy = format!("{near}The result types are {}.\n{remedy}", types.join(", "));
        }
        return Err(Failure::finding(format!("{cause} can't be excused"), what, remedy));
    }
    let said = match &options.reason {
        Some(reason) if !options.undo => {
            excuse_cause(&mut context, &spec.name, cause, OPERATOR, reason).await?
        }
        _ => count_again(&mut context, &spec.name, &cause, OPERATOR).await?,
    };
    context.store.close().await;
    say(&said);
    Ok(Exit::Fine)
}

async fn reported_causes(context: &RolloutContext, name: &DomainName) -> Result<Vec<Cause>, Failure> {
    let rollout = context.rollout(name).await?;
    let (evidence, _) = context.gate(name, &rollout).await?;
    Ok(evidence.failures.into_iter().chain(evidence.excused).map(|(cause, _)| cause).collect())
}
