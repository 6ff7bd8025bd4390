use crate::*;
use net::dns::Dnssec;
use proptest::prelude::*;
use std::path::Path;

fn error_of(text: &str) -> String {
    Config::parse(text, Some("s.toml".into())).unwrap_err().to_string()
}

#[test]
fn without_a_file_the_defaults_apply() {
    let config = Config::parse("", None).unwrap();
    assert_eq!((config.dnssec, config.allow_private_addresses), (Dnssec::Validate, false));
    assert_eq!((config.https_port, config.smtp_port, config.dns_servers.len()), (443, 25, 0));
}

#[test]
fn set_values_apply_and_paths_start_at_the_configuration_file() {
    let text = "[dns]\nservers = [\"127.0.0.1:53\"]\ndnssec = \"trust-ad\"\ntrust_anchor = \"root.key\"\n[trust]\nca_file = \"/x/ca.pem\"\nallow_private_addresses = true\n[lab]\nsmtp_port = 2525\n";
    let config = Config::parse(text, Some("/etc/sternpost/s.toml".into())).unwrap();
    assert_eq!(config.dnssec, Dnssec::TrustAd);
    assert_eq!(config.trust_anchor.as_deref(), Some(Path::new("/etc/sternpost/root.key")));
    assert_eq!(config.ca_file.as_deref(), Some(Path::new("/x/ca.pem")));
    assert_eq!((config.smtp_port, config.dns_servers.len()), (2525, 1));
    let shown = config.to_toml();
    assert!(shown.contains("dnssec = \"trust-ad\"  # /etc/sternpost/s.toml, line 3"), "{shown}");
    assert!(shown.contains("https_port = 443  # default"), "{shown}");
    assert!(Config::parse(&shown, None).is_ok(), "{shown}");
}

#[test]
fn reports_and_quarantine_have_limits_that_leave_the_evidence_to_the_gate() {
    let defaults = Config::parse("", None).unwrap().retention();
    assert_eq!(Config::parse("[inbox]\n", None).unwrap().retention(), defaults);
    assert_eq!(
        (defaults.received_days, defaults.quarantine.bytes, defaults.unverified.bytes),
        (400, 256 << 20, 128 << 20)
    );
    let text = "[inbox]\nkeep_received = 60\nkeep_unverified = 7\nunverified_size = 16\nkeep_quarantined = 3\nquarantine_size = 64\n";
    let set = Config::parse(text, None).unwrap().retention();
    assert_eq!((set.received_days, set.unverified_days, set.quarantine_days), (60, 7, 3));
    assert_eq!((set.unverified.bytes, set.quarantine.bytes), (16 << 20, 64 << 20));
    // A message of the largest size fits into the share of its source.
    assert!(set.quarantine.share().bytes >= formats::limits::INBOX_MESSAGE_BYTES as u64);
    let error = error_of(&format!("{text}[gate]\ndays_in_testing = 90\n"));
    assert!(
        error.contains("keep_received = 60 is too short") && error.contains("keep_received = 120"),
        "{error}"
    );
    assert!(error_of("[inbox]\nquarantine_size = 10\n").contains("from 64 to"));
}

#[test]
fn an_unknown_key_error_names_its_position_and_the_closest_known_key() {
    let error = error_of("[dns]\nservrs = []\n");
    assert!(error.starts_with("error: s.toml, line 2, column 1: unknown key \"dns.servrs\""), "{error}");
    assert!(error.contains("Did you mean dns.servers?"), "{error}");
    assert!(error_of("[dnss]\n").contains("Did you mean [dns]?"));
    assert!(error_of("listen = []\n").contains("config reference"));
    assert_eq!(Config::parse("[qqqqqqqq]\n", None).unwrap().warnings.len(), 1);
}

#[test]
fn the_error_for_a_wrong_value_says_what_is_expected() {
    for (text, expected) in [
        ("[dns]\ndnssec = \"maybe\"", "line 2, column 10: \"maybe\" is not a valid value of dns.dnssec"),
        ("[dns]\nservers = [\"localhost\"]", "\"localhost\" is not a valid address and port"),
        ("[dns]\nservers = \"127.0.0.1:53\"", "dns.servers is a string"),
        ("[trust]\nallow_private_addresses = 1", "trust.allow_private_addresses is a number"),
        ("[lab]\nsmtp_port = 0", "0 is not a valid port"),
        ("[lab]\nsmtp_port = 70000", "70000 is not a valid port"),
        ("dns = 3", "[dns] is a section"),
        ("[dns\n", "line 1, column"),
    ] {
        let error = error_of(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn the_weekly_summary_needs_a_valid_time_and_a_recipient() {
    let mail = "mail = [\"ops@example.org\"]\nmail_from = \"s@example.org\"\nmail_deliver = \"direct\"\n";
    let config = Config::parse(&format!("[guard]\n{mail}weekly = \"fri 17:30\"\n"), None).unwrap();
    assert_eq!(config.guard.unwrap().weekly, WeekTime::parse("fri 17:30"));
    assert!(error_of("[guard]\nweekly = \"fri 17:30\"\n").contains("guard.mail is not"));
    assert!(
        error_of("[guard]\nweekly = \"friday\"\n").contains("\"friday\" is not a valid time of the week")
    );
}

#[test]
fn a_url_needs_a_host_and_is_not_shown_since_it_may_be_a_secret() {
    for url in [
        "https://",
        "http:///T0/B0/s3cret",
        "https:hooks/s3cret",
        "http://a b/s3cret",
        "ftp://h/s3cret",
        "httpx",
    ] {
        for key in ["[inbox]\nwebhook", "[guard]\nwebhook"] {
            let text = format!("{key} = \"{url}\"\n");
            let failure = Config::parse(&text, None).unwrap_err().to_string();
            assert!(failure.contains("webhook is not a valid URL"), "{failure}");
            assert!(!failure.contains("s3cret"), "{failure}");
        }
    }
    assert!(
        Config::parse("[guard]\nwebhook = \"https://user:pw@[2001:db8::1]:8443/T0?x=y\"\n", None).is_ok()
    );
}

#[test]
fn the_webhook_for_reports_is_off_and_refuses_private_addresses_by_default() {
    let inbox = |text: &str| Config::parse(text, Some("/etc/s.toml".into())).unwrap().inbox.unwrap();
    assert_eq!((inbox("[inbox]\n").webhook, inbox("[inbox]\n").dmarc), (None, false));
    let url = "[inbox]\nwebhook = \"https://hooks.example.org/\"\n";
    let hook = inbox(url).webhook.unwrap();
    assert!(!hook.failures_only && !hook.allow_private && hook.secret.is_none());
    assert_eq!(hook.every.as_secs(), 60);
    let set = format!(
        "{url}webhook_reports = \"failures\"\nwebhook_secret_file = \"hook.key\"\nwebhook_private = true\n"
    );
    let hook = inbox(&set).webhook.unwrap();
    assert!(hook.failures_only && hook.allow_private);
    assert_eq!(hook.secret.as_deref(), Some(Path::new("/etc/hook.key")));
    let lab = format!("{url}[trust]\nallow_private_addresses = true\n");
    assert!(inbox(&lab).webhook.unwrap().allow_private);
}

#[test]
fn the_documentation_is_the_generated_reference() {
    let written = include_str!("../../../docs/configuration.md");
    assert_eq!(written, reference(), "run: sternpost config reference > docs/configuration.md");
}

#[test]
fn each_default_is_a_valid_value_of_its_kind() {
    for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
        // The roles below have required keys.
        let needs = "from = \"a@b.example\"\ndkim = { selector = \"k\", key_file = \"k.pem\" }";
        let text = match key.path.split_once('.') {
            Some(("reporter", name)) => format!("[reporter]\n{needs}\n{name} = {}\n", key.default),
            Some(("admin", name)) => format!("[admin]\ntoken_file = \"t\"\n{name} = {}\n", key.default),
            Some((section, name)) => format!("[{section}]\n{name} = {}\n", key.default),
            None => format!("{} = {}\n", key.path, key.default),
        };
        assert!(Config::parse(&text, None).is_ok(), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_accepted_or_rejected(text in "(\\[(dns|trust|lab)\\]\n)?[a-z_]{0,8}( = )?\\PC{0,40}") {
        let _ = Config::parse(&text, None);
    }
}

#[test]
fn errors_of_the_syntax_say_which_key_it_is_and_how_to_write_it() {
    let twice = error_of("[inbox]\nsmtp = []\n\n[log]\n[inbox]\nlmtp = []\n");
    assert!(twice.contains("line 5, column 2: the section [inbox] is there already, in line 1"), "{twice}");
    assert!(twice.contains("Move the keys below this one into [inbox] in line 1"), "{twice}");
    let twice = error_of("[dns]\ndnssec = \"off\"\ndnssec = \"off\"\n");
    assert!(twice.contains("dnssec is set already, in line 2"), "{twice}");
    for bare in ["info", "mx1.example.org", "/var/lib/x", "192.0.2.1:53 # resolver", "1.2.3.4"] {
        let error = error_of(&format!("[log]\nlevel = {bare}\n"));
        let value = bare.split(' ').next().unwrap();
        assert!(error.contains(&format!("level = \"{value}\"")), "{error}");
    }
    let other = error_of("# Postfix\ncompatibility_level = 3.6\nmyhostname mx\n");
    assert!(other.contains("The file is TOML") && other.contains("another program"), "{other}");
    let list = error_of("[[domain]]\nname = \"a.example\"\nmx = \"mx1.example.org\"\n");
    assert!(
        list.contains("mx is the text \"mx1.example.org\"") && list.contains("mx takes a list"),
        "{list}"
    );
    let flag = error_of("[[domain]]\nname = \"a.example\"\nrepair = \"yes\"\n");
    assert!(flag.contains("repair takes true or false"), "{flag}");
}

#[test]
fn a_key_in_the_wrong_section_is_told_where_it_belongs() {
    let below = error_of("[lab]\nsmtp_port = 25\nstore = \"sqlite:/var/lib/x.db\"\n");
    assert!(below.contains("line 3, column 1: store is below [lab], but is a top-level key"), "{below}");
    assert!(below.contains("above the first section"), "{below}");
    let warnings = |text: &str| Config::parse(text, None).unwrap().warnings;
    assert!(warnings("[answers]\nmode = \"enforce\"\n")[0].ends_with("it belongs to [[domain]]"));
    assert!(warnings("[[domain]]\nname = \"a.example\"\nmx_hosts = []\n")[0].ends_with("did you mean mx?"));
    let admin = error_of("[admin]\nlisten = \"0.0.0.0:8464\"\ntoken_file = \"t\"\n");
    assert!(admin.contains("has no TLS") && !admin.contains("no authentication"), "{admin}");
    let with_tls = "[admin]\nlisten = \"0.0.0.0:8464\"\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n";
    let admin = Config::parse(with_tls, None).unwrap().admin.unwrap();
    assert!(admin.certificate.is_some() && admin.token_file.is_none());
    assert!(error_of("[admin]\ncertificate = \"c.pem\"\n").contains("but no key"));
    assert!(error_of("[answers]\nhttp = \"0.0.0.0:8464\"\n").contains("no authentication"));
}
