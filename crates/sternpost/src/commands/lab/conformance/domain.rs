//! `sternpost lab conformance --domain`: the receiving side of one domain as a table for an auditor. The findings are those of
//! `sternpost check`; the crate `check` makes the table of them.

use super::output::write;
use crate::commands::check::known::Memory;
use crate::terminal::show;
use check::Depth;
use check::audit::Audit;
use check::render::audit as render;
use config::Config;
use config::failure::{Exit, Failure};
use formats::DomainName;
use formats::requirement::Level;
use operations::world::{Reach, World, domain};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long each response of the domain's servers may take.
const RESPONSE_TIME: Duration = Duration::from_secs(15);
/// The longest time for which DNS answers are cached: 7 days.
const MAX_TTL: Duration = Duration::from_secs(7 * 86_400);

/// Where the table is written beside the terminal.
pub struct Files<'f> {
    /// As JSON, docs/audit.schema.json.
    pub json: Option<&'f PathBuf>,
    /// As Markdown.
    pub markdown: Option<&'f PathBuf>,
    /// As an HTML page.
    pub html: Option<&'f PathBuf>,
}

/// Examines a domain, shows the table, writes the files, and exits with 1 if a requirement of this level is not met.
pub async fn run(
    typed: &str,
    config: Option<&Path>,
    files: &Files<'_>,
    level: Option<Level>,
) -> Result<Exit, Failure> {
    let (audit, is_incomplete) = examine(&domain(typed)?, Config::load_if_readable(config)?).await?;
    show(&render::text(&audit));
    if let Some(path) = files.json {
        let text = serde_json::to_string_pretty(&audit)
            .map_err(|error| Failure::new("can't write the table as JSON", error, ""))?;
        write(path, &(text + "\n"))?;
    }
    for (path, text) in [(files.markdown, render::markdown(&audit)), (files.html, render::html(&audit))] {
        if let Some(path) = path {
            write(path, &text)?;
        }
    }
    Ok(match level {
        Some(level) if audit.unmet(level).next().is_some() => Exit::Findings,
        _ if is_incomplete => Exit::Unknown,
        _ => Exit::Fine,
    })
}

/// The table, and whether a lookup failed that it rests on.
async fn examine(domain: &DomainName, config: Config) -> Result<(Audit, bool), Failure> {
    let reach =
        Reach { sources: Vec::new(), addresses: Vec::new(), time: Some(RESPONSE_TIME), max_ttl: MAX_TTL };
    let world = Arc::new(World::with(&config, &reach)?);
    let options = check::Options { depth: Depth::Full, ..world.check_options(&config) };
    let checker = world.checker(&config, options, false).await?;
    let memory = Memory::open(config, world).await;
    let known = memory.recall(domain).await;
    let seen = checker.examine_with(domain, &known, &()).await;
    memory.keep(&seen).await;
    Ok((Audit::of(&seen, memory.now()), seen.is_incomplete()))
}
