//! `[guard]`: how often domains are checked, what raises an alert, and where alerts are sent.

use crate::failure::Failure;
use crate::read::Read;
use crate::reporting::deliver;
use crate::specs::Deliver;
use crate::week_time::WeekTime;
use formats::tlsrpt_record::MailAddress;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `[guard]`: monitoring of the domains.
#[derive(Debug, Clone)]
pub struct GuardConfig {
    /// The interval between two checks of a domain.
    pub every: Duration,
    /// The longest duration of one check of a domain.
    pub deadline: Duration,
    /// The maximum number of checks that run at once, at least 1.
    pub at_once: usize,
    /// The share of failed sessions that raises an alert, from 0 to 1.
    pub failure_rate: f64,
    /// Whether plans are carried out automatically, as far as they need no operator.
    pub apply: bool,
    /// The URL that alerts are posted to; `None` posts none.
    pub webhook: Option<String>,
    /// What the webhook takes.
    pub webhook_format: WebhookFormat,
    /// The file with the secret that signs the posts; `None` leaves them unsigned.
    pub webhook_secret: Option<PathBuf>,
    /// When the weekly summary is mailed; `None` sends none.
    pub weekly: Option<WeekTime>,
    /// Alert mail; `None` sends none.
    pub mail: Option<AlertMail>,
}

/// What a webhook for alerts takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookFormat {
    /// All fields of the alert, for programs.
    Json,
    /// A JSON object with a member `text`, as Slack, Mattermost, Google Chat and Matrix's Hookshot take it.
    Text,
    /// An adaptive card, as the workflows of Microsoft Teams take it.
    Teams,
    /// Plain text with a title, as ntfy takes it.
    Ntfy,
}

impl WebhookFormat {
    /// The format with this name; the first one without a name.
    fn of(name: Option<&str>) -> Self {
        match name {
            Some("text") => Self::Text,
            Some("teams") => Self::Teams,
            Some("ntfy") => Self::Ntfy,
            _ => Self::Json,
        }
    }
}

/// The settings of alert mail.
#[derive(Debug, Clone)]
pub struct AlertMail {
    /// The recipients (`guard.mail`).
    pub to: Vec<MailAddress>,
    /// The envelope and From address.
    pub from: MailAddress,
    /// The delivery method (`guard.mail_deliver`).
    pub deliver: Deliver,
}

pub fn guard(read: &Read, folder: &Path) -> Result<GuardConfig, Failure> {
    let (mail, weekly) = (mail(read, folder)?, read.text("guard.weekly").and_then(WeekTime::parse));
    if weekly.is_some() && mail.is_none() {
        return Err(Failure::usage(
            "guard.weekly is set, but guard.mail is not",
            "the weekly summary has no recipient",
            "Add\n  [guard]\n  mail = [\"ops@example.org\"]\n  mail_from = \"sternpost@example.org\"",
        ));
    }
    Ok(GuardConfig {
        every: Duration::from_secs(u64::from(read.number("guard.every", 300))),
        deadline: Duration::from_secs(u64::from(read.number("guard.deadline", 180))),
        at_once: usize::try_from(read.number("guard.at_once", 16)).unwrap_or(usize::MAX).max(1),
        failure_rate: f64::from(read.number("guard.failures_per_thousand", 10)) / 1000.0,
        apply: read.flag("guard.apply"),
        webhook: read.text("guard.webhook").map(str::to_owned),
        webhook_format: WebhookFormat::of(read.text("guard.webhook_format")),
        webhook_secret: read.text("guard.webhook_secret_file").map(|file| folder.join(file)),
        weekly,
        mail,
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
            "guard.mail_from is not set",
            "alert mail needs a sender address, and mail servers reject one that does not exist",
            "Add\n  [guard]\n  mail_from = \"sternpost@example.org\"",
        ));
    };
    let deliver = deliver(read, folder, "guard.mail_", super::keys::ALERT_RELAY)?;
    Ok(Some(AlertMail { to, from, deliver }))
}
