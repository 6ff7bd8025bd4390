//! `[collector]` and `[reporter]`: how mail servers submit the results of their sessions, and how TLS reports (RFC
//! 8460) about them are signed and delivered.

use crate::failure::Failure;
use crate::inbox::files;
use crate::owner;
use crate::read::Read;
use crate::specs::{CertificateFiles, Deliver, KeySpec, LoginSpec};
use crate::targets::TargetSpec;
use formats::DomainName;
use formats::tlsrpt_record::{HttpsUrl, MailAddress};
use net::https::Verify;
use net::smtp::Helo;
use sender::report::{Addresses, Reporter, Rules, TargetRule, is_denied};
use sender::serve::listen::{Address, SocketFileOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `[collector]`: session results from mail servers.
#[derive(Debug, Clone)]
pub struct CollectorConfig {
    /// The Unix socket that libtlsrpt writes to, or a socket of systemd.
    pub socket: Address,
    /// Mode and owner of that socket.
    pub socket_file: SocketFileOptions,
    /// The listen address for `POST /v1/sessions`; `None` disables it.
    pub http: Option<Address>,
    /// The file with the token of requests; `None` if they need none.
    pub token_file: Option<PathBuf>,
    /// The certificate of that address; `None` means plain HTTP.
    pub certificate: Option<CertificateFiles>,
    /// Whether only an HTTPS reverse proxy reaches that address.
    pub behind_proxy: bool,
    /// Where sessions are posted instead of being counted here: a URL with the path `/v1/sessions`.
    pub forward_to: Option<HttpsUrl>,
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
    /// Rules that replace, block or add targets.
    pub targets: Vec<TargetRule>,
    /// The name for EHLO; `None` derives it from the machine.
    pub helo: Option<Helo>,
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

pub fn collector(read: &Read, folder: &Path) -> Result<CollectorConfig, Failure> {
    let role = CollectorConfig {
        socket: match read.address("collector.socket") {
            Some(systemd @ Address::Systemd(Some(_))) => systemd,
            _ => Address::Unix(
                folder.join(read.text("collector.socket").unwrap_or(crate::keys::COLLECTOR_SOCKET)),
            ),
        },
        socket_file: SocketFileOptions {
            mode: read
                .text("collector.socket_mode")
                .map_or(Some(0o666), |mode| u32::from_str_radix(mode, 8).ok()),
            owner: read.text("collector.socket_owner").and_then(|owner| owner::numbers(owner).ok()),
        },
        http: read.address("collector.http"),
        token_file: read.text("collector.token_file").map(|file| folder.join(file)),
        certificate: files(read, folder, "collector")?,
        behind_proxy: read.flag("collector.behind_proxy"),
        forward_to: read.text("collector.forward_to").and_then(sessions_url),
    };
    protected(&role)?;
    Ok(role)
}

/// The URL of `POST /v1/sessions` at a collector.
fn sessions_url(text: &str) -> Option<HttpsUrl> {
    const PATH: &str = "/v1/sessions";
    let base = text.trim_end_matches('/');
    let base = base.strip_suffix(PATH).unwrap_or(base);
    HttpsUrl::parse(&format!("{base}{PATH}")).ok()
}

/// Checks that others neither submit sessions without a token nor read the token.
fn protected(role: &CollectorConfig) -> Result<(), Failure> {
    if role.forward_to.is_some() && role.token_file.is_none() {
        return Err(Failure::usage(
            "collector.forward_to is set without collector.token_file",
            "the other collector takes sessions only with a token",
            "Copy the token file of the other machine, and add\n  [collector]\n  token_file = \"collector.token\"",
        ));
    }
    let Some(address) = role.http.as_ref().filter(|address| address.is_exposed()) else { return Ok(()) };
    let what = format!("collector.http = {:?} is reachable from other hosts", address.to_string());
    if role.token_file.is_none() {
        return Err(Failure::usage(
            what,
            "there is no authentication",
            "Listen on 127.0.0.1, or create a token file that only Sternpost can read\n  (umask 077; openssl rand -hex 32 > collector.token)\nand add\n  [collector]\n  token_file = \"collector.token\"",
        ));
    }
    if role.certificate.is_none() && !role.behind_proxy {
        return Err(Failure::usage(
            what,
            "the token would be sent without TLS",
            "Configure a certificate:\n  [collector]\n  certificate = \"fullchain.pem\"\n  key = \"key.pem\"\nIf only your own HTTPS reverse proxy can reach the address, set instead:\n  behind_proxy = true",
        ));
    }
    Ok(())
}

pub fn reporter(read: &Read, folder: &Path) -> Result<ReporterConfig, Failure> {
    let address = |key| read.text(key).and_then(|text| MailAddress::parse(text).ok());
    let Some(from) = address("reporter.from") else {
        return Err(Failure::usage(
            "reporter.from is not set",
            "reports need a sender address, and its domain signs them",
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
    let denied: Vec<DomainName> = names("reporter.deny");
    let targets: Vec<TargetRule> =
        read.tables::<TargetSpec>("reporter.targets").into_iter().map(|spec| spec.0).collect();
    no_denied_target(&targets, &denied)?;
    let organization = read.text("reporter.organization").map(str::to_owned);
    Ok(ReporterConfig {
        reporter: Reporter {
            organization: organization.unwrap_or_else(|| from.domain().to_string()),
            contact: address("reporter.contact").unwrap_or_else(|| from.clone()),
            from,
            addresses: match read.text("reporter.addresses") {
                Some("shortened") => Addresses::Shortened,
                Some("omitted") => Addresses::Omitted,
                _ => Addresses::Full,
            },
        },
        keys,
        deliver,
        denied,
        targets,
        helo: read.text("reporter.helo").and_then(|text| Helo::parse(text).ok()),
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

/// Checks that no rule sends reports to a host that `reporter.deny` lists.
fn no_denied_target(rules: &[TargetRule], denied: &[DomainName]) -> Result<(), Failure> {
    let mut all = rules.iter().flat_map(|rule| rule.send_to.iter().flatten().chain(&rule.copy_to));
    match all.find(|target| is_denied(target, denied)) {
        None => Ok(()),
        Some(target) => Err(Failure::usage(
            format!("reporter.targets sends reports to {target}"),
            "reporter.deny lists its host",
            "Remove the host from reporter.deny, or the target from the rule.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_that_others_reach_needs_a_token_and_tls() {
        let parsed = |lines: &str| {
            let config = crate::Config::parse(&format!("[collector]\n{lines}"), None);
            config.map(|config| config.collector.unwrap()).map_err(|failure| failure.to_string())
        };
        assert!(parsed("http = \"127.0.0.1:8464\"").is_ok());
        let open = "http = \"192.0.2.10:8464\"\n";
        assert!(parsed(open).unwrap_err().contains("there is no authentication"));
        let with_token = format!("{open}token_file = \"t\"\n");
        assert!(parsed(&with_token).unwrap_err().contains("without TLS"));
        assert!(parsed(&format!("{with_token}behind_proxy = true")).is_ok());
        let with_tls = format!("{with_token}certificate = \"c\"\nkey = \"k\"");
        assert!(parsed(&with_tls).unwrap().certificate.is_some());
        assert!(parsed("http = \"localhost:8464\"").unwrap_err().contains("address:port"));
    }

    #[test]
    fn sessions_are_forwarded_to_a_name_with_a_token_and_then_not_reported_here() {
        let parsed = |lines: &str| {
            let config = crate::Config::parse(&format!("[collector]\n{lines}"), None);
            config.map(|config| config.collector.unwrap()).map_err(|failure| failure.to_string())
        };
        let token = "token_file = \"t\"\n";
        for text in
            ["https://r.example:8464", "https://r.example:8464/", "https://r.example:8464/v1/sessions"]
        {
            let role = parsed(&format!("{token}forward_to = \"{text}\"")).unwrap();
            assert_eq!(role.forward_to.unwrap().to_string(), "https://r.example:8464/v1/sessions");
        }
        assert!(parsed("forward_to = \"https://r.example\"").unwrap_err().contains("collector.token_file"));
        assert!(
            parsed(&format!("{token}forward_to = \"http://r.example\"")).unwrap_err().contains("https://")
        );
        let both = format!(
            "{token}forward_to = \"https://r.example\"\n[reporter]\nfrom = \"t@a.example\"\ndeliver = \"folder:out\"\n"
        );
        assert!(parsed(&both).unwrap_err().contains("[reporter]"));
    }

    #[test]
    fn contact_and_helo_are_set_apart_from_the_sender() {
        let parsed = |lines: &str| {
            let text =
                format!("[reporter]\nfrom = \"no-reply@mail.example\"\ndeliver = \"folder:out\"\n{lines}");
            crate::Config::parse(&text, None)
                .map(|config| config.reporter.unwrap())
                .map_err(|f| f.to_string())
        };
        let apart = parsed("contact = \"help@desk.example\"\nhelo = \"[192.0.2.1]\"\n").unwrap();
        assert_eq!(apart.reporter.contact.to_string(), "help@desk.example");
        assert_eq!(apart.reporter.submitter().as_str(), "mail.example");
        assert_eq!(apart.helo, Some(Helo::Address("192.0.2.1".parse().unwrap())));
        let plain = parsed("").unwrap();
        assert_eq!(
            (plain.reporter.contact.to_string().as_str(), plain.helo),
            ("no-reply@mail.example", None)
        );
        for bad in ["vm", "[192.0.2.1", "192.0.2.1", "a b"] {
            let error = parsed(&format!("helo = \"{bad}\"")).unwrap_err();
            assert!(error.contains("reporter.helo takes"), "{error}");
        }
    }

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
