//! `[collector]` and `[reporter]`: how mail servers submit the results of their sessions, and how TLS reports (RFC
//! 8460) about them are signed and delivered.

use crate::failure::Failure;
use crate::owner;
use crate::read::Read;
use crate::specs::{Deliver, KeySpec, LoginSpec};
use formats::DomainName;
use formats::tlsrpt_record::MailAddress;
use net::https::Verify;
use sender::report::{Addresses, Reporter, Rules};
use sender::serve::listen::SocketFileOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `[collector]`: session results from mail servers.
#[derive(Debug, Clone)]
pub struct CollectorConfig {
    /// The Unix socket that libtlsrpt writes to.
    pub socket: PathBuf,
    /// Mode and owner of that socket.
    pub socket_file: SocketFileOptions,
    /// The listen address for `POST /v1/sessions`; `None` disables it.
    pub http: Option<SocketAddr>,
}

/// `[reporter]`: TLS reports to other domains.
#[derive(Debug, Clone)]
pub struct ReporterConfig {
    /// The organization, the contact and the form of addresses in reports.
    pub reporter: Reporter,
    /// The DKIM keys; empty if mail is not signed here.
    pub keys: Vec<KeySpec>,
    /// The delivery method for report mail.
    pub deliver: Deliver,
    /// Target hosts that no report is sent to; subdomains are included.
    pub denied: Vec<DomainName>,
    /// Whether the certificates of HTTPS targets are verified.
    pub verify: Verify,
    /// Whether MX hosts of domains in mode `testing` are probed.
    pub tests: bool,
    /// Excluded domains, spreading and retention.
    pub rules: Rules,
}

/// The delivery method of a section, from the keys `deliver`, `user` and `password_file`. `keys` is their common
/// prefix, such as `guard.mail_`.
///
/// # Errors
///
/// If only one of user and password file is set, or if they are set without a relay that has a host name.
pub fn deliver(read: &Read, folder: &Path, keys: &str, default: &str) -> Result<Deliver, Failure> {
    let text = |name: &str| read.text(&format!("{keys}{name}"));
    let given = text("deliver").unwrap_or(default);
    let deliver = Deliver::parse(given).unwrap_or(Deliver::Direct).in_folder(folder);
    let login = match (text("user"), text("password_file")) {
        (None, None) => return Ok(deliver),
        (Some(user), Some(file)) => LoginSpec { user: user.to_owned(), password_file: folder.join(file) },
        _ => {
            return Err(Failure::usage(
                format!("{keys}user and {keys}password_file"),
                "SMTP authentication requires both, and one of them is missing",
                "Set both, or neither.",
            ));
        }
    };
    match deliver {
        Deliver::Relay(host, port, _) if host.parse::<std::net::IpAddr>().is_err() => {
            Ok(Deliver::Relay(host, port, Some(login)))
        }
        Deliver::Relay(host, ..) => Err(Failure::usage(
            format!("{keys}deliver has the relay's IP address, {host}"),
            "a password is sent only to a relay whose certificate matches its host name",
            format!(
                "Use the relay's host name in {keys}deliver, such as \"smarthost:mail.example.org:587\"."
            ),
        )),
        _ => Err(Failure::usage(
            format!("{keys}user"),
            "SMTP authentication applies only to a relay, and no relay is configured",
            format!(
                "Set {keys}deliver to \"smarthost:HOST:PORT\", or remove {keys}user and {keys}password_file."
            ),
        )),
    }
}

pub fn collector(read: &Read, folder: &Path) -> CollectorConfig {
    CollectorConfig {
        socket: folder.join(read.text("collector.socket").unwrap_or(crate::keys::COLLECTOR_SOCKET)),
        socket_file: SocketFileOptions {
            mode: read
                .text("collector.socket_mode")
                .map_or(Some(0o666), |mode| u32::from_str_radix(mode, 8).ok()),
            owner: read.text("collector.socket_owner").and_then(|owner| owner::numbers(owner).ok()),
        },
        http: read.text("collector.http").and_then(|text| text.parse().ok()),
    }
}

pub fn reporter(read: &Read, folder: &Path) -> Result<ReporterConfig, Failure> {
    let Some(contact) = read.text("reporter.from").and_then(|text| MailAddress::parse(text).ok()) else {
        return Err(Failure::usage(
            "reporter.from is not set",
            "reports need a contact address, and its domain signs them",
            "Add\n  [reporter]\n  from = \"tlsrpt@example.org\"",
        ));
    };
    let deliver = deliver(read, folder, "reporter.", "direct")?;
    let mut keys: Vec<KeySpec> = read.tables("reporter.dkim");
    keys.iter_mut().for_each(|key| key.key_file = folder.join(&key.key_file));
    if keys.is_empty() && deliver == Deliver::Direct {
        return Err(Failure::usage(
            "[reporter] has no DKIM key",
            "receivers reject unsigned reports (RFC 8460 §3)",
            "Add\n  [reporter]\n  dkim = { selector = \"tlsrpt\", key_file = \"dkim.pem\" }\nand create the key with\n  sternpost reports key",
        ));
    }
    let names = |key| read.list(key).into_iter().filter_map(|name| DomainName::parse(name).ok()).collect();
    let usual = Rules::default();
    let organization = read.text("reporter.organization").map(str::to_owned);
    Ok(ReporterConfig {
        reporter: Reporter {
            organization: organization.unwrap_or_else(|| contact.domain().to_string()),
            contact,
            addresses: match read.text("reporter.addresses") {
                Some("shortened") => Addresses::Shortened,
                Some("omitted") => Addresses::Omitted,
                _ => Addresses::Full,
            },
        },
        keys,
        deliver,
        denied: names("reporter.deny"),
        verify: if read.flag("reporter.https_unverified") { Verify::Skip } else { Verify::Certificate },
        tests: read.value("reporter.look_at_tested_policies").and_then(toml::Value::as_bool).unwrap_or(true),
        rules: Rules {
            excluded: names("reporter.exclude"),
            spread: Duration::from_secs(u64::from(read.number("reporter.spread", 14_100))),
            keep_tallies: read.number("reporter.keep_tallies", usual.keep_tallies),
            keep_reports: read.number("reporter.keep_reports", usual.keep_reports),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivery_methods_are_parsed() {
        assert_eq!(Deliver::parse("direct"), Some(Deliver::Direct));
        assert_eq!(
            Deliver::parse("smarthost:mail.example:587"),
            Some(Deliver::Relay("mail.example".into(), 587, None))
        );
        assert_eq!(Deliver::parse("smarthost:[::1]:25"), Some(Deliver::Relay("::1".into(), 25, None)));
        assert_eq!(
            Deliver::parse("sendmail:/usr/sbin/sendmail"),
            Some(Deliver::Sendmail("/usr/sbin/sendmail".into()))
        );
        assert_eq!(Deliver::parse("folder:out"), Some(Deliver::Folder("out".into())));
        for bad in [
            "",
            "Direct",
            "smarthost:mail.example",
            "smarthost::25",
            "sendmail:sendmail",
            "folder:",
            "relay:x:1",
        ] {
            assert_eq!(Deliver::parse(bad), None, "{bad}");
        }
    }
}
