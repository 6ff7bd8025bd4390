//! The link for the first sign-in, in a file beside the store.

use crate::auth::invite;
use crate::visitor::Role;
use config::DashboardConfig;
use config::failure::Failure;
use operations::{RolloutContext, store_failure};
use std::path::Path;

/// When nobody may sign in yet: a link for the first, in a file that only the program's user can read.
pub async fn first_link(context: &RolloutContext, config: &DashboardConfig) -> Result<(), Failure> {
    if !context.store.people().await.map_err(|error| store_failure(&error))?.is_empty() {
        return Ok(());
    }
    let path = invite(&context.store, context.world.clock.now(), "operator", Role::Operator).await?;
    let file = context.config.store.with_file_name("dashboard-link");
    let written = write_secret(&file, &format!("{}{path}\n", config.url));
    written.map_err(|error| {
        Failure::new(
            format!("the link for the first sign-in can't be written to {}", file.display()),
            error,
            "The user that Sternpost runs as has to be able to write in that folder.",
        )
    })?;
    tracing::warn!(
        "nobody can sign in to the dashboard yet; a link for that, good for a day and once, is in {}",
        file.display()
    );
    Ok(())
}

fn write_secret(file: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    // What stands there may be readable by others, or be a link to elsewhere.
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    out.write_all(text.as_bytes())
}
