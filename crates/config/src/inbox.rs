//! `[inbox]`, `[dashboard]` and `[gate]`: the report side.

use crate::failure::Failure;
use crate::read::Read;
use crate::specs::CertificateFiles;
use formats::DomainName;
use receiver::inbox::imap::ImapMailbox;
use receiver::rollout::gate::Thresholds;
use sender::serve::listen::Address;
use std::net::SocketAddr;
use std::path::Path;

/// `[inbox]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxConfig {
    /// For whom mail is taken, in lower case.
    pub addresses: Vec<String>,
    /// Where, by SMTP.
    pub smtp: Vec<Address>,
    /// Where, by LMTP.
    pub lmtp: Vec<Address>,
    /// How it calls itself.
    pub name: Option<DomainName>,
    /// For STARTTLS.
    pub certificate: Option<CertificateFiles>,
    /// The path for HTTPS POST.
    pub http: Option<String>,
    /// Messages of one address in a minute, by SMTP.
    pub messages_per_minute: u32,
    /// A mailbox that is read.
    pub imap: Option<ImapMailbox>,
}

/// `[dashboard]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DashboardConfig {
    /// Where.
    pub listen: Vec<SocketAddr>,
    /// For HTTPS.
    pub certificate: Option<CertificateFiles>,
    /// How people reach it, without a slash at the end.
    pub url: String,
    /// Whether everybody may check domains there.
    pub public_check: bool,
    /// Whether a proxy says who asks.
    pub behind_proxy: bool,
}

pub fn inbox(read: &Read, folder: &Path) -> Result<InboxConfig, Failure> {
    let from_folder = |address| match address {
        Address::Unix(path) => Address::Unix(folder.join(path)),
        other => other,
    };
    let listeners = |key| read.addresses(key, "").into_iter().map(from_folder).collect::<Vec<_>>();
    let config = InboxConfig {
        addresses: read.list("inbox.addresses").iter().map(|address| address.to_ascii_lowercase()).collect(),
        smtp: listeners("inbox.smtp"),
        lmtp: listeners("inbox.lmtp"),
        name: read.text("inbox.name").and_then(|name| DomainName::parse(name).ok()),
        certificate: files(read, folder, "inbox")?,
        http: read.text("inbox.http").map(str::to_owned),
        messages_per_minute: read.number("inbox.messages_per_minute", 600),
        imap: mailbox(read, folder)?,
    };
    let takes_mail = !config.smtp.is_empty() || !config.lmtp.is_empty();
    if takes_mail && config.addresses.is_empty() {
        return Err(Failure::usage(
            "[inbox] takes mail for nobody",
            "it listens, and no address is named for which it takes reports",
            "Name those in your _smtp._tls records:\n  addresses = [\"tlsrpt@example.org\"]",
        ));
    }
    if config.http.is_some() && !read.has("dashboard") {
        return Err(Failure::usage(
            "inbox.http has no place",
            "reports are taken by HTTPS at the address of the dashboard, which is off",
            "Switch it on by\n  [dashboard]",
        ));
    }
    Ok(config)
}

fn mailbox(read: &Read, folder: &Path) -> Result<Option<ImapMailbox>, Failure> {
    let text = |name: &str| read.text(&format!("inbox.imap.{name}")).map(str::to_owned);
    if ["host", "user", "password_file", "move_to"].into_iter().all(|name| text(name).is_none()) {
        return Ok(None);
    }
    let (Some(host), Some(user), Some(file)) = (text("host"), text("user"), text("password_file")) else {
        return Err(Failure::usage(
            "[inbox.imap] is not complete",
            "it takes the server, the user and where the password is",
            "Write\n  [inbox.imap]\n  host = \"imap.example.org\"\n  user = \"tlsrpt@example.org\"\n  password_file = \"imap-password\"",
        ));
    };
    let path = folder.join(file);
    let password = std::fs::read_to_string(&path).map_err(|error| {
        Failure::usage(
            format!("the password in {} can't be read", path.display()),
            error,
            "Put the password alone into that file, readable by the user that Sternpost runs as.",
        )
    })?;
    let host = DomainName::parse(&host)
        .map_err(|error| Failure::usage("inbox.imap.host is no host name", error, ""))?;
    Ok(Some(ImapMailbox {
        host,
        port: read.port("inbox.imap.port", 993),
        user,
        password: password.trim_end_matches(['\r', '\n']).to_owned(),
        folder: text("folder").unwrap_or_else(|| "INBOX".to_owned()),
        move_to: text("move_to"),
    }))
}

pub fn dashboard(read: &Read, folder: &Path) -> Result<DashboardConfig, Failure> {
    let listed: Vec<SocketAddr> =
        read.list("dashboard.listen").iter().filter_map(|text| text.parse().ok()).collect();
    let listen = match listed.is_empty() {
        true => vec![SocketAddr::from(([127, 0, 0, 1], 8460))],
        false => listed,
    };
    let certificate = files(read, folder, "dashboard")?;
    let is_safe = certificate.is_some() || read.flag("dashboard.behind_proxy");
    if let Some(open) = listen.iter().find(|at| !at.ip().is_loopback() && !is_safe) {
        return Err(Failure::usage(
            format!("the dashboard does not listen at {open}"),
            "others can reach that address, and passwords would cross the network in the clear",
            "Give it a certificate\n  [dashboard]\n  certificate = \"fullchain.pem\"\n  key = \"key.pem\"\nor, when a proxy of yours that speaks HTTPS is the only one who can reach it, state so:\n  behind_proxy = true",
        ));
    }
    let scheme = if certificate.is_some() { "https" } else { "http" };
    let at = listen.first().map_or("127.0.0.1:8460".to_owned(), ToString::to_string);
    let url = read.text("dashboard.url").map_or(format!("{scheme}://{at}"), str::to_owned);
    Ok(DashboardConfig {
        listen,
        certificate,
        url: url.trim_end_matches('/').to_owned(),
        public_check: read.flag("dashboard.public_check"),
        behind_proxy: read.flag("dashboard.behind_proxy"),
    })
}

pub fn thresholds(read: &Read) -> Thresholds {
    let default = Thresholds::default();
    Thresholds {
        days_in_testing: read.number("gate.days_in_testing", default.days_in_testing),
        clean_days: read.number("gate.clean_days", default.clean_days),
        failure_rate: f64::from(read.number("gate.failures_per_thousand", 5)) / 1000.0,
        quiet_days: read.number("gate.quiet_days", default.quiet_days),
    }
}

fn files(read: &Read, folder: &Path, section: &str) -> Result<Option<CertificateFiles>, Failure> {
    let file = |name: &str| read.text(&format!("{section}.{name}")).map(|file| folder.join(file));
    match (file("certificate"), file("key")) {
        (Some(certificate), Some(key)) => Ok(Some(CertificateFiles { certificate, key })),
        (None, None) => Ok(None),
        (certificate, _) => {
            let (there, missing) =
                if certificate.is_some() { ("certificate", "key") } else { ("key", "certificate") };
            Err(Failure::usage(
                format!("[{section}] names a {there} and no {missing}"),
                "one is of no use without the other",
                format!("Add\n  {missing} = \"{missing}.pem\""),
            ))
        }
    }
}
