//! The invitation for the first user, in a file in the state folder. `serve` writes it at startup.

use crate::invitations::invite;
use crate::visitor::Role;
use config::DashboardConfig;
use config::failure::Failure;
use operations::{RolloutContext, store_failure};
use std::path::Path;
use store::Tenant;
use store::tenants::TenantInfo;

/// Creates an invitation for the user `operator` if no user exists yet, and writes the link to the file
/// `dashboard-link`. Only the user that runs Sternpost can read the file.
///
/// # Errors
///
/// If the store fails or the file can't be written.
pub async fn first_link(context: &RolloutContext, config: &DashboardConfig) -> Result<(), Failure> {
    if !context.store.people(Tenant::FIRST).await.map_err(|error| store_failure(&error))?.is_empty() {
        return Ok(());
    }
    let now = context.world.clock.now();
    let first = invite(&context.store, &TenantInfo::main(), now, "operator", Some(Role::Operator)).await?;
    let file = context.config.state_folder.join("dashboard-link");
    let written = write_secret(&file, &format!("{}{}\n", config.url, first.path));
    written.map_err(|error| {
        Failure::new(
            format!("can't write the link for the first sign-in to {}", file.display()),
            error,
            "Allow the user that Sternpost runs as to write to that directory.",
        )
    })?;
    tracing::warn!(
        "the dashboard has no users yet; the link for the first sign-in is in {} (valid for one day, usable once)",
        file.display()
    );
    Ok(())
}

/// Writes a new file with mode 0600.
fn write_secret(file: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    // An existing file may be readable by other users, or be a symbolic link.
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    out.write_all(text.as_bytes())
}
