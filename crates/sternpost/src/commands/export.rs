//! `sternpost export`: writes the policy files and the configuration of a web server or hosting platform that serves
//! them, with a guide. The files come from [`receiver::export`].

use super::plan::SIDE_BY_SIDE;
use crate::replaced_file::{create_folders, replace};
use crate::terminal::{marks, say};
use clap::ValueEnum;
use config::Chosen;
use config::failure::{Exit, Failure};
use formats::Policy;
use futures_util::StreamExt;
use operations::RolloutContext;
use operations::apply_failure;
use receiver::domain::DomainSpec;
use receiver::export::{File, GUIDE, Page, Platform, files};
use receiver::rollout::Observation;
use receiver::rollout::plan::{Stage, Step, plan};
use std::path::{Path, PathBuf};

/// The options of `sternpost export`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Web server or platform that will serve the policies
    #[arg(long = "for", value_name = "PLATFORM")]
    platform: Target,
    /// Folder to write to; may be a repository with other files
    dir: PathBuf,
    /// Export this domain only; repeatable [default: all]
    #[arg(long = "domain", value_name = "DOMAIN")]
    domains: Vec<String>,
}

/// A value of --for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Target {
    CloudflarePages,
    GithubPages,
    Nginx,
    Caddy,
    Apache,
}

impl From<Target> for Platform {
    fn from(target: Target) -> Self {
        match target {
            Target::CloudflarePages => Self::CloudflarePages,
            Target::GithubPages => Self::GithubPages,
            Target::Nginx => Self::Nginx,
            Target::Caddy => Self::Caddy,
            Target::Apache => Self::Apache,
        }
    }
}

/// Writes the files and prints where the guide is. A domain that can't be looked up keeps its last known policy.
pub async fn run(options: &Options, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    let context = RolloutContext::open_to_show(chosen).await?;
    let (mut pages, mut failures) = (Vec::new(), Vec::new());
    let specs = context.domains(&options.domains)?;
    let shared = &context;
    let looked = specs.iter().map(move |spec| async move { (spec, policy(shared, spec).await) });
    let mut looked = futures_util::stream::iter(looked).buffered(SIDE_BY_SIDE);
    while let Some((spec, found)) = looked.next().await {
        let found = match found {
            Ok(found) => found,
            // Without its policy, the written configuration would stop serving what senders may hold.
            Err(failure) => {
                let kept = known_policy(&context, spec).await?;
                if kept.is_some() {
                    say(&format!("{} {}: its last known policy is written.", marks().warning, spec.name));
                }
                failures.push(failure);
                match kept {
                    Some(kept) => Some(kept),
                    None => continue,
                }
            }
        };
        match found {
            Some(policy) => pages.push(Page { domain: spec.name.clone(), policy }),
            None => say(&format!("{} {}: skipped, it needs no policy now.", marks().info, spec.name)),
        }
    }
    drop(looked);
    if options.domains.is_empty() {
        failures.extend(context.unreadable());
    }
    failures.iter().for_each(|failure| eprintln!("{failure}"));
    context.store.close().await;
    let exit = Exit::of_failures(&failures, Exit::Fine);
    if pages.is_empty() && !failures.is_empty() {
        // A configuration without any domain would replace one that serves policies.
        return Ok(exit);
    }
    let shown = options.dir.display().to_string();
    let fail = |error: std::io::Error| {
        Failure::usage(format!("can't write to the folder {shown}"), error, "Name another one.")
    };
    create_folders(&options.dir).map_err(fail)?;
    let folder = options.dir.canonicalize().map_err(fail)?;
    for file in files(options.platform.into(), &pages, &folder) {
        write(&folder, &file)?;
    }
    if !pages.is_empty() {
        say(&format!("{} The remaining steps are in {}.", marks().fine, guide(&folder, options, &pages)));
    }
    Ok(exit)
}

/// The newest policy that was published, as the store has it.
async fn known_policy(context: &RolloutContext, spec: &DomainSpec) -> Result<Option<Policy>, Failure> {
    let rollout = context.rollout(&spec.name).await?;
    Ok(rollout.newest().filter(|newest| !newest.assumed).map(Policy::from))
}

/// The policy to serve now: that of the plan's next steps, before any wait, or the one that is already served.
async fn policy(context: &RolloutContext, spec: &DomainSpec) -> Result<Option<Policy>, Failure> {
    let (desired, applier) = (context.desired(spec), context.applier(spec)?);
    let observed = applier.observe(&desired).await;
    let Observation { rollout, seen, now } =
        observed.map_err(|error| apply_failure(&spec.name, &context.config, &error))?;
    let stages = plan(&desired, &rollout, &seen, RolloutContext::permit(&rollout), now);
    let first =
        stages.into_iter().take_while(|stage| matches!(stage, Stage::Step(..))).find_map(
            |stage| match stage {
                Stage::Step(Step::Serve(policy), _) => Some(policy),
                _ => None,
            },
        );
    let newest = || rollout.newest().filter(|newest| !newest.assumed).map(Policy::from);
    Ok(first.or_else(newest))
}

fn write(folder: &Path, file: &File) -> Result<(), Failure> {
    let path = folder.join(&file.path);
    let fail =
        |error: std::io::Error| Failure::usage(format!("{} can't be written", path.display()), error, "");
    if let Some(parent) = path.parent() {
        create_folders(parent).map_err(fail)?;
    }
    replace(&path, &file.content).map_err(fail)?;
    say(&format!("  {}", path.display()));
    Ok(())
}

fn guide(folder: &Path, options: &Options, pages: &[Page]) -> String {
    let one_each = Platform::from(options.platform).is_one_policy_each() && pages.len() > 1;
    let place = if one_each { folder.join("DOMAIN") } else { folder.to_owned() };
    place.join(GUIDE).display().to_string()
}
