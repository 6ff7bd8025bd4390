//! `[collector]` and `[reporter]`: what mail servers say of their sessions, and the reports about that.

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

/// `[collector]`.
#[derive(Debug, Clone)]
pub struct CollectorConfig {
    /// Where libtlsrpt writes to.
    pub socket: PathBuf,
    /// How that socket is made.
    pub socket_file: SocketFileOptions,
    /// Where sessions are posted.
    pub http: Option<SocketAddr>,
}

/// `[reporter]`.
#[derive(Debug, Clone)]
pub struct ReporterConfig {
    /// In whose name.
    pub reporter: Reporter,
    /// What signs.
    pub keys: Vec<KeySpec>,
    /// How mail leaves.
    pub deliver: Deliver,
    /// Hosts that nothing is sent to.
    pub denied: Vec<DomainName>,
    /// Whether hosts that are posted to have to prove themselves.
    pub verify: Verify,
    /// Whether policies in `testing` are looked at.
    pub tests: bool,
    /// What else is decided.
    pub rules: Rules,
}

/// By the keys `SECTION.PREFIXdeliver`, `…user` and `…password_file`.
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
                "one of them is missing, and one is of no use without the other",
                "Set both, or none.",
            ));
        }
    };
    match deliver {
        Deliver::Relay(host, port, _) if host.parse::<std::net::IpAddr>().is_err() => {
            Ok(Deliver::Relay(host, port, Some(login)))
        }
        Deliver::Relay(host, ..) => Err(Failure::usage(
            format!("{keys}deliver names a relay by its address, {host}"),
            "a password is told only to a server whose certificate proves its name",
            format!("Name it in {keys}deliver, as in \"smarthost:mail.example.org:587\"."),
        )),
        _ => Err(Failure::usage(
            format!("{keys}user"),
            "only a relay takes a password, and mail does not leave by one",
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
            "[reporter] does not say from whom reports come",
            "receivers ask that address about them, and its domain signs",
            "Write\n  [reporter]\n  from = \"tlsrpt@example.org\"",
        ));
    };
    let deliver = deliver(read, folder, "reporter.", "direct")?;
    let mut keys: Vec<KeySpec> = read.tables("reporter.dkim");
    keys.iter_mut().for_each(|key| key.key_file = folder.join(&key.key_file));
    if keys.is_empty() && deliver == Deliver::Direct {
        return Err(Failure::usage(
            "[reporter] has no DKIM key",
            "receivers refuse reports that are not signed (RFC 8460 §3)",
            "Write\n  [reporter]\n  dkim = { selector = \"tlsrpt\", key_file = \"dkim.pem\" }\nand make the key by\n  sternpost reports key",
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
    fn ways_to_deliver_are_taken_as_the_configuration_has_them() {
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
