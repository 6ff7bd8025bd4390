//! `sternpost undo`: publishes the record again that the last change of a domain replaced, where the rules of the plan allow
//! it ([`receiver::rollout::undo`]). With `--drop-change`, it drops changes that were cut off and can't be ended
//! ([`Applier::drop_changes`]).

use crate::terminal::say;
use config::Chosen;
use config::failure::{Exit, Failure};
use operations::promotion::OPERATOR;
use operations::world::domain;
use operations::{RolloutContext, apply_failure};
use receiver::domain::DomainSpec;
use receiver::rollout::undo::{UndoRefusal, Undone};
use receiver::rollout::{Applier, DroppedChange};

/// The options of `sternpost undo`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Mail domain, such as example.org
    domain: String,
    /// Undo nothing, but drop a change that was interrupted, if the present name server or DNS provider can't tell how far it has come
    #[arg(long)]
    drop_change: bool,
    /// Reason, recorded in the journal
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Undoes the last change of a domain's records.
pub async fn run(options: &Options, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    if options.reason.trim().is_empty() {
        return Err(Failure::usage(
            "--reason is empty",
            "the journal records why a change was undone or dropped",
            "Say why, such as --reason \"wrong report address\".",
        ));
    }
    let context = RolloutContext::open(chosen).await?;
    let spec = context.find(&domain(&options.domain)?)?;
    let name = &spec.name;
    let Some(lease) = context.hold(name).await? else {
        return Err(Failure::new(
            name.to_string(),
            "its plan is being applied by another process",
            "Wait until that process has finished; `sternpost serve` with [guard] applies plans too.",
        ));
    };
    let outcome = match context.applier_under(&spec, &lease) {
        Ok(applier) if options.drop_change => drop_changes(&context, &spec, &applier, &options.reason).await,
        Ok(applier) => undo(&context, &spec, &applier, &options.reason).await,
        Err(failure) => Err(failure),
    };
    let released = context.release(&lease).await;
    context.store.close().await;
    let exit = outcome?;
    released.map(|()| exit)
}

async fn undo(
    context: &RolloutContext,
    spec: &DomainSpec,
    applier: &Applier,
    reason: &str,
) -> Result<Exit, Failure> {
    let name = &spec.name;
    let undone = applier.undo(&context.desired(spec), OPERATOR, reason).await;
    match undone.map_err(|error| apply_failure(name, &context.config, &error))? {
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

/// Drops changes that were cut off and can't be ended. What was to be published is shown, since parts of it may be in DNS.
async fn drop_changes(
    context: &RolloutContext,
    spec: &DomainSpec,
    applier: &Applier,
    reason: &str,
) -> Result<Exit, Failure> {
    let name = &spec.name;
    let ended = applier.drop_changes(&context.desired(spec), OPERATOR, reason).await;
    let (done, dropped) = ended.map_err(|error| apply_failure(name, &context.config, &error))?;
    done.iter().for_each(|what| say(&format!("{what}.")));
    dropped.iter().for_each(|one| say(&dropped_in_words(one)));
    if !dropped.is_empty() {
        say(&format!("`sternpost apply {name}` goes on from what the name servers show now."));
        return Ok(Exit::Fine);
    }
    let ended =
        if done.is_empty() { "none was interrupted" } else { "those that were interrupted have been ended" };
    Err(Failure::finding(
        format!("no change of {name} is dropped"),
        ended,
        format!("`sternpost apply {name}` carries out its plan."),
    ))
}

fn dropped_in_words(one: &DroppedChange) -> String {
    let records = match one.records() {
        Some([before, after]) => format!(
            "\n  before it: {before}\n  after it:  {after}\nWhere that name was published then, there may be the records before it, those after it, or a part of both. Remove what is not wanted."
        ),
        None => "\nThis release can't read what was to be published.".to_owned(),
    };
    format!(
        "Dropped the change of {} that was interrupted at {:.0}: {}{records}",
        one.name(),
        one.at,
        one.why
    )
}

fn in_words(undone: &Undone) -> String {
    let now = match undone.lines.is_empty() {
        true => format!("{} has no record of Sternpost, as before.", undone.name),
        false => format!("There is again {}", undone.lines.join(" and ")),
    };
    format!("The change of {} at {:.0} is undone. {now}", undone.name, undone.made_at)
}

/// The remedy for a refusal to undo.
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

#[cfg(test)]
mod tests {
    use super::*;
    use formats::DomainName;
    use jiff::Timestamp;
    use receiver::publish::{Previous, Records};
    use receiver::rollout::RecordedChange;

    #[test]
    fn a_dropped_change_is_shown_with_what_may_be_left_of_it() {
        let line = "_mta-sts.a.example. 300 IN TXT \"v=STSv1; id=1;\"".to_owned();
        let change = RecordedChange {
            name: DomainName::parse("_mta-sts.a.example").unwrap(),
            before: Previous { lines: vec![line.clone()], records: None },
            after: Records::NoTxt,
            policy: None,
        };
        let one =
            |change| DroppedChange { at: Timestamp::UNIX_EPOCH, change, why: "no such zone".to_owned() };
        let text = dropped_in_words(&one(Some(change)));
        assert!(
            text.starts_with("Dropped the change of _mta-sts.a.example that was interrupted at 1970-01-01"),
            "{text}"
        );
        assert!(text.contains(&format!("before it: {line}\n  after it:  no record\n")), "{text}");
        assert!(dropped_in_words(&one(None)).contains("can't read what was to be published"));
    }
}
