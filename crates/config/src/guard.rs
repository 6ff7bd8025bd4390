//! `[guard]`: the watch over domains, and whom it tells.

use crate::failure::Failure;
use crate::read::Read;
use crate::reporting::deliver;
use crate::specs::Deliver;
use formats::tlsrpt_record::MailAddress;
use std::path::Path;
use std::time::Duration;

/// `[guard]`.
#[derive(Debug, Clone)]
pub struct GuardConfig {
    /// Between two looks at a domain.
    pub every: Duration,
    /// The share of failed sessions that is too much.
    pub failure_rate: f64,
    /// Whether plans are carried out where that takes no hands.
    pub apply: bool,
    /// Where alerts are posted.
    pub webhook: Option<String>,
    /// To whom they go by mail.
    pub mail: Option<AlertMail>,
}

/// Alerts by mail.
#[derive(Debug, Clone)]
pub struct AlertMail {
    /// To whom.
    pub to: Vec<MailAddress>,
    /// In whose name.
    pub from: MailAddress,
    /// How it leaves.
    pub deliver: Deliver,
}

pub fn guard(read: &Read, folder: &Path) -> Result<GuardConfig, Failure> {
    Ok(GuardConfig {
        every: Duration::from_secs(u64::from(read.number("guard.every", 300))),
        failure_rate: f64::from(read.number("guard.failures_per_thousand", 10)) / 1000.0,
        apply: read.flag("guard.apply"),
        webhook: read.text("guard.webhook").map(str::to_owned),
        mail: mail(read, folder)?,
    })
}

fn mail(read: &Read, folder: &Path) -> Result<Option<AlertMail>, Failure> {
    let to: Vec<MailAddress> =
        read.list("guard.mail").into_iter().filter_map(|text| MailAddress::parse(text).ok()).collect();
    if to.is_empty() {
        return Ok(None);
    }
    let Some(from) = read.text("guard.mail_from").and_then(|text| MailAddress::parse(text).ok()) else {
        return Err(Failure::usage(
            "[guard] does not say in whose name alerts are mailed",
            "mail needs a sender, and mail servers refuse one that does not exist",
            "Write\n  [guard]\n  mail_from = \"sternpost@example.org\"",
        ));
    };
    let deliver = deliver(read, folder, "guard.mail_", super::keys::ALERT_RELAY)?;
    Ok(Some(AlertMail { to, from, deliver }))
}
