//! `sternpost promote`, `hold` and `excuse`: the operator's words about a roll-out.

use super::Desk;
use super::desk::store_failure;
use crate::failure::{Exit, Failure};
use crate::terminal::say;
use formats::{DomainName, Mode, ResultType};
use receiver::domain::DomainSpec;
use receiver::rollout::Standing;
use receiver::rollout::decisions::Word;
use receiver::rollout::gate::{Cause, Gate};
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

/// Who gives commands.
pub const OPERATOR: &str = "operator";

/// Why a word was not taken: what stands against it, and what to do.
pub struct Refusal {
    pub why: String,
    pub remedy: String,
}

/// Allows enforcement; the next `apply` carries it out.
pub async fn promote(options: &Promote, named: Option<&Path>) -> Result<Exit, Failure> {
    let mut desk = Desk::open(named).await?;
    let spec = desk.find(&crate::world::domain(&options.domain)?)?;
    let reason = options.reason.as_deref().filter(|_| options.force);
    let outcome = allow(&mut desk, &spec, OPERATOR, reason).await?;
    desk.store.close().await;
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

/// Allows enforcement of a domain, when the evidence does or a reason is given.
pub async fn allow(
    desk: &mut Desk,
    spec: &DomainSpec,
    who: &str,
    reason: Option<&str>,
) -> Result<Result<String, Refusal>, Failure> {
    let name = &spec.name;
    let standing = desk.standing(name).await?;
    if let Some(refusal) = not_yet(spec, &standing) {
        return Ok(Err(refusal));
    }
    if standing.mode.is_some_and(|known| known.mode == Mode::Enforce) {
        return Ok(Ok(format!("{name} is enforced already.")));
    }
    let (_, gate) = desk.gate(name, &standing).await?;
    let what = match (&gate, reason) {
        (Gate::Ready, _) => "enforcement allowed; the evidence is ready".to_owned(),
        (_, Some(reason)) => {
            format!("enforcement allowed against the evidence, which is {gate}. Reason: {reason}")
        }
        (_, None) => {
            return Ok(Err(Refusal {
                why: format!("the evidence is {gate}"),
                remedy: format!(
                    "Wait for reports, or take the risk that mail waits at senders which can't verify your MX hosts:\n  sternpost promote {name} --force --reason \"…\""
                ),
            }));
        }
    };
    let mut decisions = desk.decisions(name);
    if decisions.held.take().is_some() {
        desk.decide(name, decisions, who, "no longer held").await?;
    }
    desk.approve(name, who, &what).await?;
    Ok(Ok(format!("{name} may be enforced. Carry it out:\n  sternpost apply {name}")))
}

fn not_yet(spec: &DomainSpec, standing: &Standing) -> Option<Refusal> {
    if spec.mode != Mode::Enforce {
        return Some(Refusal {
            why: format!("the configuration wants it in mode {}", spec.mode),
            remedy: "Set mode = \"enforce\" in its [[domain]].".to_owned(),
        });
    }
    match standing.mode.map(|known| known.mode) {
        Some(Mode::Testing | Mode::Enforce) => None,
        Some(Mode::None) | None => Some(Refusal {
            why: "its policy was not seen in testing yet".to_owned(),
            remedy: format!("First run\n  sternpost apply {}", spec.name),
        }),
    }
}

/// Keeps a domain in testing, or takes it back there.
pub async fn hold(options: &Hold, named: Option<&Path>) -> Result<Exit, Failure> {
    let mut desk = Desk::open(named).await?;
    let spec = desk.find(&crate::world::domain(&options.domain)?)?;
    let said = hold_back(&mut desk, &spec, OPERATOR, &options.reason).await?;
    desk.store.close().await;
    say(&said);
    Ok(Exit::Fine)
}

/// Holds a domain; what is said about it.
pub async fn hold_back(
    desk: &mut Desk,
    spec: &DomainSpec,
    who: &str,
    reason: &str,
) -> Result<String, Failure> {
    let name = &spec.name;
    let standing = desk.standing(name).await?;
    let mut decisions = desk.decisions(name);
    let at = desk.world.clock.now();
    decisions.held = Some(Word { reason: reason.to_owned(), who: who.to_owned(), at });
    desk.decide(name, decisions, who, &format!("held in testing. Reason: {reason}")).await?;
    if standing.approved.is_some() {
        let take_back = |standing: &mut Standing| standing.approved = None;
        desk.store.change_rollout(name, take_back).await.map_err(|error| store_failure(&error))?;
    }
    Ok(match standing.mode.map(|known| known.mode) {
        Some(Mode::Enforce) => format!(
            "{name} is to go back to testing. Carry it out:\n  sternpost apply {name}\nSenders that hold the enforced policy look at the new one within a day, most of them sooner."
        ),
        _ => format!("{name} stays in testing, until\n  sternpost promote {name}"),
    })
}

/// Takes a cause of failures out of the evidence, or lets it count again.
pub async fn excuse(options: &Excuse, named: Option<&Path>) -> Result<Exit, Failure> {
    let mut desk = Desk::open(named).await?;
    let spec = desk.find(&crate::world::domain(&options.domain)?)?;
    let cause = Cause { result: options.result.clone(), host: options.host.clone() };
    let known = ResultType::registered().any(|kind| kind.as_str() == cause.result);
    let met = met(&desk, &spec.name).await?;
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
        Some(reason) if !options.undo => excuse_cause(&mut desk, &spec.name, cause, OPERATOR, reason).await?,
        _ => count_again(&mut desk, &spec.name, &cause, OPERATOR).await?,
    };
    desk.store.close().await;
    say(&said);
    Ok(Exit::Fine)
}

async fn met(desk: &Desk, name: &DomainName) -> Result<Vec<Cause>, Failure> {
    let standing = desk.standing(name).await?;
    let (evidence, _) = desk.gate(name, &standing).await?;
    Ok(evidence.failures.into_iter().chain(evidence.excused).map(|(cause, _)| cause).collect())
}

/// Excuses a cause; what is said about it.
pub async fn excuse_cause(
    desk: &mut Desk,
    name: &DomainName,
    cause: Cause,
    who: &str,
    reason: &str,
) -> Result<String, Failure> {
    let mut decisions = desk.decisions(name);
    let what = format!("{cause} does not count. Reason: {reason}");
    let word = Word { reason: reason.to_owned(), who: who.to_owned(), at: desk.world.clock.now() };
    decisions.excuse(cause.clone(), word);
    desk.decide(name, decisions, who, &what).await?;
    Ok(format!("{cause} does not count for {name} from now on."))
}

/// Lets a cause count again; what is said about it.
pub async fn count_again(
    desk: &mut Desk,
    name: &DomainName,
    cause: &Cause,
    who: &str,
) -> Result<String, Failure> {
    let mut decisions = desk.decisions(name);
    if !decisions.count_again(cause) {
        return Ok(format!("{cause} was not excused for {name}."));
    }
    desk.decide(name, decisions, who, &format!("{cause} counts again")).await?;
    Ok(format!("{cause} counts again for {name}."))
}
