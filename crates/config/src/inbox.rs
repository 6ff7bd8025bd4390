//! `[inbox]`, `[dashboard]` and `[gate]`: where reports about your domains arrive, where operators read them, and
//! which evidence from them allows enforcement.

use crate::failure::Failure;
use crate::oidc::OidcConfig;
use crate::read::Read;
use crate::specs::CertificateFiles;
use formats::DomainName;
use formats::limits::INBOX_CONNECTIONS_PER_CLIENT;
#[cfg(feature = "imap")]
use receiver::inbox::imap::ImapMailbox;
use receiver::inbox::{Quota, Retention};
use receiver::rollout::gate::Thresholds;
use sender::serve::listen::Address;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `[inbox]`: how reports arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxConfig {
    /// The recipients that are accepted, in lower case.
    pub addresses: Vec<String>,
    /// SMTP listen addresses.
    pub smtp: Vec<Address>,
    /// LMTP listen addresses.
    pub lmtp: Vec<Address>,
    /// The host name in SMTP and LMTP greetings; `None` means the machine's name.
    pub name: Option<DomainName>,
    /// The certificate for STARTTLS; `None` disables it.
    pub certificate: Option<CertificateFiles>,
    /// The path for reports by HTTPS POST; `None` disables it.
    pub http: Option<String>,
    /// The maximum number of messages per client and minute over SMTP.
    pub messages_per_minute: u32,
    /// The maximum number of SMTP connections of one client at once.
    pub connections_per_client: usize,
    /// How long, and how much of, reports and quarantined input is kept.
    pub retention: Retention,
    /// Whether DMARC reports are imported too.
    pub dmarc: bool,
    /// The webhook for received reports; `None` disables it.
    pub webhook: Option<ReportWebhook>,
    /// The IMAP mailboxes that reports are fetched from.
    #[cfg(feature = "imap")]
    pub imap: Vec<ImapMailbox>,
}

/// `inbox.webhook`: POSTs about received reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportWebhook {
    /// The `http:` or `https:` URL that the POSTs go to.
    pub url: String,
    /// The file with the secret that signs the posts; `None` leaves them unsigned.
    pub secret: Option<PathBuf>,
    /// Whether only reports with failed sessions are posted.
    pub failures_only: bool,
    /// The least time between two posts.
    pub every: Duration,
    /// Whether the URL may be at a special-purpose address.
    pub allow_private: bool,
}

/// `[dashboard]`: the web interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DashboardConfig {
    /// Listen addresses: of TCP, or sockets of systemd.
    pub listen: Vec<Address>,
    /// The certificate for HTTPS; `None` means plain HTTP.
    pub certificate: Option<CertificateFiles>,
    /// The base URL for browsers, without a trailing slash.
    pub url: String,
    /// Whether `/check` is open to visitors who are not signed in.
    pub public_check: bool,
    /// Whether requests come through a reverse proxy that sets `X-Forwarded-For`.
    pub behind_proxy: bool,
    /// `[dashboard.oidc]`: sign-in by an OpenID Connect provider; `None` allows passwords only.
    pub oidc: Option<OidcConfig>,
}

pub fn inbox(read: &Read, folder: &Path) -> Result<InboxConfig, Failure> {
    let from_folder = |address| match address {
        Address::Unix(path) => Address::Unix(folder.join(path)),
        other => other,
    };
    let listeners = |key| read.addresses(key, "").into_iter().map(from_folder).collect::<Vec<_>>();
    #[cfg(not(feature = "imap"))]
    refuse_mailbox(read)?;
    let config = InboxConfig {
        addresses: read.list("inbox.addresses").iter().map(|address| address.to_ascii_lowercase()).collect(),
        smtp: listeners("inbox.smtp"),
        lmtp: listeners("inbox.lmtp"),
        name: read.text("inbox.name").and_then(|name| DomainName::parse(name).ok()),
        certificate: files(read, folder, "inbox")?,
        http: read.text("inbox.http").map(str::to_owned),
        messages_per_minute: read.number("inbox.messages_per_minute", 600),
        connections_per_client: usize::try_from(read.number("inbox.connections_per_client", 32))
            .unwrap_or(INBOX_CONNECTIONS_PER_CLIENT),
        retention: retention(read)?,
        dmarc: read.flag("inbox.dmarc"),
        webhook: webhook(read, folder),
        #[cfg(feature = "imap")]
        imap: crate::mailbox::mailboxes(read, folder)?,
    };
    let takes_mail = !config.smtp.is_empty() || !config.lmtp.is_empty();
    if takes_mail && config.addresses.is_empty() {
        return Err(Failure::usage(
            "inbox.addresses is empty",
            "it listens for mail, and would reject every recipient",
            "Add the addresses in your _smtp._tls records:\n  addresses = [\"tlsrpt@example.org\"]",
        ));
    }
    if config.http.is_some() && !read.has("dashboard") {
        return Err(Failure::usage(
            "inbox.http can't be served",
            "reports over HTTPS arrive at the dashboard's address, and the dashboard is off",
            "Enable the dashboard by adding\n  [dashboard]",
        ));
    }
    Ok(config)
}

/// The limits of what is kept. Evidence that the gate needs must not expire.
fn retention(read: &Read) -> Result<Retention, Failure> {
    let default = Retention::default();
    let bytes = |key: &str, default: u64| {
        let mebibytes = u32::try_from(default >> 20).unwrap_or(u32::MAX);
        u64::from(read.number(key, mebibytes)) << 20
    };
    let retention = Retention {
        quarantine: Quota {
            bytes: bytes("inbox.quarantine_size", default.quarantine.bytes),
            ..default.quarantine
        },
        quarantine_days: read.number("inbox.keep_quarantined", default.quarantine_days),
        unverified: Quota {
            bytes: bytes("inbox.unverified_size", default.unverified.bytes),
            ..default.unverified
        },
        unverified_days: read.number("inbox.keep_unverified", default.unverified_days),
        received_days: read.number("inbox.keep_received", default.received_days),
        received_bytes: bytes("inbox.received_size", default.received_bytes),
    };
    let gate = thresholds(read);
    let needed = gate.days_in_testing.max(gate.clean_days).max(gate.quiet_days).saturating_add(SPARE_DAYS);
    if retention.received_days < needed {
        return Err(Failure::usage(
            format!("inbox.keep_received = {} is too short", retention.received_days),
            format!(
                "the gate would lose evidence: with the settings of [gate], it needs the reports of {needed} days"
            ),
            format!("Set at least\n  [inbox]\n  keep_received = {needed}"),
        ));
    }
    Ok(retention)
}

/// Days by which reports are kept longer than the gate looks back: the 30 days that the pages show.
const SPARE_DAYS: u32 = 30;

fn webhook(read: &Read, folder: &Path) -> Option<ReportWebhook> {
    Some(ReportWebhook {
        url: read.text("inbox.webhook")?.to_owned(),
        secret: read.text("inbox.webhook_secret_file").map(|file| folder.join(file)),
        failures_only: read.text("inbox.webhook_reports") == Some("failures"),
        every: Duration::from_secs(u64::from(read.number("inbox.webhook_every", 60))),
        allow_private: read.flag("inbox.webhook_private") || read.flag("trust.allow_private_addresses"),
    })
}

/// Rejects a configured mailbox: this build can't read it, and its reports would be lost silently.
#[cfg(not(feature = "imap"))]
fn refuse_mailbox(read: &Read) -> Result<(), Failure> {
    match read.value("inbox.imap") {
        None => Ok(()),
        Some(_) => Err(Failure::usage(
            "[inbox.imap] can't be used by this build",
            "it was built without the feature imap",
            "Build with the default features, or remove [inbox.imap].",
        )),
    }
}

pub fn dashboard(read: &Read, folder: &Path) -> Result<DashboardConfig, Failure> {
    let listed = read.addresses("dashboard.listen", "");
    let listen = match listed.is_empty() {
        true => vec![Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 8460)))],
        false => listed,
    };
    let certificate = files(read, folder, "dashboard")?;
    let is_safe = certificate.is_some() || read.flag("dashboard.behind_proxy");
    if let Some(open) = listen.iter().find(|at| at.is_exposed() && !is_safe) {
        return Err(Failure::usage(
            format!("the dashboard can't listen on {open}"),
            "the address is reachable from other hosts, and passwords would cross the network unencrypted",
            "Configure a certificate:\n  [dashboard]\n  certificate = \"fullchain.pem\"\n  key = \"key.pem\"\nIf only your own HTTPS reverse proxy can reach the address, set instead:\n  behind_proxy = true",
        ));
    }
    let scheme = if certificate.is_some() { "https" } else { "http" };
    let first = listen.iter().find(|at| matches!(at, Address::Tcp(_)));
    let url = match (read.text("dashboard.url"), first) {
        (Some(url), _) => url.to_owned(),
        (None, Some(at)) => format!("{scheme}://{at}"),
        (None, None) => {
            return Err(Failure::usage(
                "dashboard.url is not set",
                "the address of the dashboard's socket is known to systemd only",
                "Add the URL that browsers use:\n  [dashboard]\n  url = \"https://sternpost.example.org\"",
            ));
        }
    };
    valid_base_url(&url)?;
    Ok(DashboardConfig {
        listen,
        certificate,
        url: url.trim_end_matches('/').to_owned(),
        public_check: read.flag("dashboard.public_check"),
        behind_proxy: read.flag("dashboard.behind_proxy"),
        oidc: crate::oidc::oidc(read, folder)?,
    })
}

/// Rejects a base URL that links can't begin with: its path has plain segments, and nothing follows it.
fn valid_base_url(url: &str) -> Result<(), Failure> {
    let after_scheme = url.split_once("://").map_or("", |(_, rest)| rest);
    let (host, path) = after_scheme.trim_end_matches('/').split_once('/').unwrap_or((after_scheme, ""));
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    let is_segment = |part: &str| part.chars().all(is_plain) && !matches!(part, "" | "." | "..");
    let host = host.trim_end_matches('/');
    let has_host = !host.is_empty() && host.chars().all(is_host);
    match has_host && (path.is_empty() || path.split('/').all(is_segment)) {
        true => Ok(()),
        false => Err(Failure::usage(
            format!("dashboard.url = {url:?} can't be the beginning of links"),
            "it has to be a scheme, a host name and, optionally, a port and a path of letters, digits and -._~",
            "Write it as \"https://sternpost.example.org\", or \"https://tools.example.org/sternpost\" for a path.",
        )),
    }
}

pub fn thresholds(read: &Read) -> Thresholds {
    let default = Thresholds::default();
    Thresholds {
        days_in_testing: read.number("gate.days_in_testing", default.days_in_testing),
        clean_days: read.number("gate.clean_days", default.clean_days),
        failure_rate: f64::from(read.number("gate.failures_per_thousand", 5)) / 1000.0,
        quiet_days: read.number("gate.quiet_days", default.quiet_days),
        senders: read.number("gate.senders", default.senders),
        delay_days: read.number("gate.delay_days", default.delay_days),
    }
}

/// The keys `certificate` and `key` of a section; `None` if neither is set.
pub(crate) fn files(read: &Read, folder: &Path, section: &str) -> Result<Option<CertificateFiles>, Failure> {
    let file = |name: &str| read.text(&format!("{section}.{name}")).map(|file| folder.join(file));
    match (file("certificate"), file("key")) {
        (Some(certificate), Some(key)) => Ok(Some(CertificateFiles { certificate, key })),
        (None, None) => Ok(None),
        (certificate, _) => {
            let (there, missing) =
                if certificate.is_some() { ("certificate", "key") } else { ("key", "certificate") };
            Err(Failure::usage(
                format!("[{section}] has a {there} but no {missing}"),
                "a certificate and its key are needed together",
                format!("Add\n  {missing} = \"{missing}.pem\""),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Config;

    #[test]
    fn a_base_url_has_a_host_and_plain_segments() {
        let url = |url: &str| Config::parse(&format!("[dashboard]\nurl = \"{url}\"\n"), None);
        for (given, kept) in [
            ("https://a.example", "https://a.example"),
            ("https://a.example/", "https://a.example"),
            ("https://a.example:8443/tools/mail-tls/", "https://a.example:8443/tools/mail-tls"),
            ("http://[::1]:8460/x", "http://[::1]:8460/x"),
        ] {
            assert_eq!(url(given).unwrap().dashboard.unwrap().url, kept, "{given}");
        }
        for wrong in [
            "https://",
            "https:///x",
            "https",
            "httpx",
            "https://a.example/x?y",
            "https://a.example/x#y",
            "https://a.example//x",
            "https://a.example/../x",
            "https://a.example/a b",
            "https://u:p@a.example/x",
            "https://a.example/%2e",
            "https://a.example/x;y",
            "https://a.example?x",
        ] {
            let error = url(wrong).unwrap_err().to_string();
            assert!(error.contains("dashboard.url"), "{wrong}: {error}");
        }
    }
}
