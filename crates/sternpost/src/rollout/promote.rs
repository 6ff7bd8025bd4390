//! `sternpost promote`: the operator's word that a domain in testing may be enforced.

use super::Desk;
use super::desk::store_failure;
use crate::failure::{Exit, Failure};
use crate::terminal::say;
use formats::Mode;
use receiver::rollout::gate::Gate;
use std::path::Path;

/// Which domain.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The domain
    domain: String,
    /// Also when the reports do not show yet that enforcement loses no mail
    #[arg(long)]
    without_evidence: bool,
}

/// Allows enforcement; the next `apply` carries it out.
pub async fn run(options: &Options, named: Option<&Path>) -> Result<Exit, Failure> {
    let desk = Desk::open(named).await?;
    let specs = desk.domains(std::slice::from_ref(&options.domain))?;
    for spec in &specs {
        let mut standing = desk.standing(&spec.name).await?;
        let refuse = |why: String, remedy: String| {
            Err(Failure::finding(format!("{} is not promoted", spec.name), why, remedy))
        };
        if spec.mode != Mode::Enforce {
            return refuse(
                format!("the configuration wants it in mode {}", spec.mode),
                "Set mode = \"enforce\" in its [[domain]].".to_owned(),
            );
        }
        match standing.mode.map(|known| known.mode) {
            Some(Mode::Testing) => {}
            Some(Mode::Enforce) => {
                say(&format!("{} is enforced already.", spec.name));
                continue;
            }
            Some(Mode::None) | None => {
                return refuse(
                    "its policy was not seen in testing yet".to_owned(),
                    format!("First run\n  sternpost apply {}", spec.name),
                );
            }
        }
        let (_, gate) = desk.gate(&spec.name, &standing).await?;
        if gate != Gate::Ready && !options.without_evidence {
            return refuse(
                format!("the evidence is {gate}"),
                format!(
                    "Wait for reports, or take the risk that mail waits at senders which can't verify your MX hosts:\n  sternpost promote --without-evidence {}",
                    spec.name
                ),
            );
        }
        let now = desk.world.clock.now();
        standing.approved = Some(now);
        desk.store.put_rollout(&spec.name, &standing).await.map_err(|error| store_failure(&error))?;
        let what = format!("enforcement allowed; the evidence is {gate}");
        desk.store
            .journal(&spec.name, now, "operator", &what)
            .await
            .map_err(|error| store_failure(&error))?;
        say(&format!("{} may be enforced. Carry it out:\n  sternpost apply {}", spec.name, spec.name));
    }
    desk.store.close().await;
    Ok(Exit::Fine)
}
