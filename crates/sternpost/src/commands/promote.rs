//! `sternpost promote`, `hold` and `excuse`: the operator's words about a roll-out.

use crate::terminal::say;
use config::failure::{Exit, Failure};
use formats::{DomainName, ResultType};
use operations::RolloutContext;
use operations::promotion::{OPERATOR, allow, count_again, excuse_cause, hold_back};
use operations::world::domain;
use receiver::rollout::gate::Cause;
use std::path::Path;

/// Which domain.
#[derive(Debug, clap::Args)]
pub struct Promote {
    /// The domain
    domain: String,
    /// Also when the reports do not show yet that enforcement loses no mail
    #[arg(long, requires = "reason")]
    force: bool,
    /// Why; it is kept in the journal
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Which domain, and why.
#[derive(Debug, clap::Args)]
pub struct Hold {
    /// The domain
    domain: String,
    /// Why; it is kept in the journal
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Which cause, and why.
#[derive(Debug, clap::Args)]
pub struct Excuse {
    /// The domain
    domain: String,
    /// The result type, as `sternpost status` shows it, such as certificate-expired
    result: String,
    /// The MX host, as the reports name it; nothing where they name none
    #[arg(default_value = "")]
    host: String,
    /// Why it does not count; it is kept in the journal
    #[arg(long, value_name = "TEXT", required_unless_present = "undo")]
    reason: Option<String>,
    /// Let it count again
    #[arg(long)]
    undo: bool,
}

/// Allows enforcement; the next `apply` carries it out.
pub async fn promote(options: &Promote, named: Option<&Path>) -> Result<Exit, Failure> {
    let mut context = RolloutContext::open(named).await?;
    let spec = context.find(&domain(&options.domain)?)?;
    let reason = options.reason.as_deref().filter(|_| options.force);
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

/// Keeps a domain in testing, or takes it back there.
pub async fn hold(options: &Hold, named: Option<&Path>) -> Result<Exit, Failure> {
    let mut context = RolloutContext::open(named).await?;
    let spec = context.find(&domain(&options.domain)?)?;
    let said = hold_back(&mut context, &spec, OPERATOR, &options.reason).await?;
    context.store.close().await;
    say(&said);
    Ok(Exit::Fine)
}

/// Takes a cause of failures out of the evidence, or lets it count again.
pub async fn excuse(options: &Excuse, named: Option<&Path>) -> Result<Exit, Failure> {
    let mut context = RolloutContext::open(named).await?;
    let spec = context.find(&domain(&options.domain)?)?;
    let cause = Cause { result: options.result.clone(), host: options.host.clone() };
    let known = ResultType::registered().any(|kind| kind.as_str() == cause.result);
    let met = met(&context, &spec.name).await?;
    if !met.contains(&cause) && !options.undo {
        let listed: Vec<String> =
            met.iter().map(|cause| format!("{} {}", cause.result, cause.host)).collect();
        let what =
            if known { "no report names it" } else { "there is no such result type, and no report names it" };
        let remedy = match listed.is_empty() {
            true => "Reports tell of no failures.".to_owned(),
            false => format!("Reports name:\n  {}", listed.join("\n  ")),
        };
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

async fn met(context: &RolloutContext, name: &DomainName) -> Result<Vec<Cause>, Failure> {
    let rollout = context.rollout(name).await?;
    let (evidence, _) = context.gate(name, &rollout).await?;
    Ok(evidence.failures.into_iter().chain(evidence.excused).map(|(cause, _)| cause).collect())
}
