//! `sternpost undo`: publishes the record again that the last change of a domain replaced, where the rules of the plan allow
//! it ([`receiver::rollout::undo`]).

use crate::terminal::say;
use config::failure::{Exit, Failure};
use operations::promotion::OPERATOR;
use operations::world::domain;
use operations::{RolloutContext, apply_failure};
use receiver::rollout::undo::{UndoRefusal, Undone};
use std::path::Path;

/// The options of `sternpost undo`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Domain
    domain: String,
    /// Reason, recorded in the journal
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Undoes the last change of a domain's records.
pub async fn run(options: &Options, named: Option<&Path>) -> Result<Exit, Failure> {
    if options.reason.trim().is_empty() {
        return Err(Failure::usage(
            "--reason is empty",
            "the journal records why a change was undone",
            "Say why, such as --reason \"wrong report address\".",
        ));
    }
    let context = RolloutContext::open(named).await?;
    let spec = context.find(&domain(&options.domain)?)?;
    let name = &spec.name;
    if !context.hold(name).await? {
        return Err(Failure::new(
            name.to_string(),
            "its plan is being applied by another process",
            "Wait until that process has finished; `sternpost serve` with [guard] applies plans too.",
        ));
    }
    let applier = context.applier(&spec)?;
    let undone = applier.undo(&context.wanted(&spec), OPERATOR, &options.reason).await;
    let released = context.release(name).await;
    let outcome = undone.map_err(|error| apply_failure(name, &context.config, &error))?;
    released?;
    context.store.close().await;
    match outcome {
        Ok(undone) => {
            say(&in_words(&undone));
            say(&format!(
                "If the settings still ask for it, `sternpost apply {name}` and a [guard] that repairs publish it again: change them first."
            ));
            Ok(Exit::Fine)
        }
        Err(refusal) => {
            let remedy = remedy(&refusal, name.as_str());
            Err(Failure::finding(format!("the last change of {name} is not undone"), refusal, remedy))
        }
    }
}

fn in_words(undone: &Undone) -> String {
    let now = match undone.lines.is_empty() {
        true => format!("{} has no record of Sternpost, as before.", undone.name),
        false => format!("There is again {}", undone.lines.join(" and ")),
    };
    format!("The change of {} at {:.0} is undone. {now}", undone.name, undone.made_at)
}

/// What to do instead.
fn remedy(refusal: &UndoRefusal, name: &str) -> String {
    match refusal {
        UndoRefusal::Manual => "Change the record in the zone; `sternpost plan` shows what is expected.".to_owned(),
        UndoRefusal::Nothing => format!("`sternpost status {name}` shows what was changed."),
        UndoRefusal::NotRestorable(_) | UndoRefusal::ChangedSince { .. } => {
            "Change the record in the zone, if that is what you want.".to_owned()
        }
        UndoRefusal::SendersHoldPolicy { .. } | UndoRefusal::Announced(_) => format!(
            "To remove everything, set the mode \"none\", and let `sternpost apply {name}` retire the domain."
        ),
        UndoRefusal::OtherPolicy(_) | UndoRefusal::NotServed(..) => format!(
            "To return to an earlier policy, change the settings, or `sternpost hold {name}`; `sternpost apply {name}` then announces it with a new id."
        ),
        UndoRefusal::OldHost(_) => {
            "Serve the present policy there first, with a certificate for mta-sts; `sternpost export` writes the files."
                .to_owned()
        }
    }
}
