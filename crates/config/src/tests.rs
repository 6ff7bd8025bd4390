use crate::*;
use net::dns::Dnssec;
use proptest::prelude::*;
use std::path::Path;

fn said(text: &str) -> String {
    Config::parse(text, Some("s.toml".into())).unwrap_err().to_string()
}

#[test]
fn without_a_file_the_defaults_are_in_force() {
    let config = Config::parse("", None).unwrap();
    assert_eq!((config.dnssec, config.allow_private_addresses), (Dnssec::Validate, false));
    assert_eq!((config.https_port, config.smtp_port, config.dns_servers.len()), (443, 25, 0));
}

#[test]
fn what_is_set_is_taken_and_files_are_relative_to_the_configuration() {
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
fn an_unknown_key_names_its_place_and_the_nearest_right_one() {
    let error = said("[dns]\nservrs = []\n");
    assert!(error.starts_with("error: s.toml, line 2, column 1: there is no key \"dns.servrs\""), "{error}");
    assert!(error.contains("Did you mean dns.servers?"), "{error}");
    assert!(said("[dnss]\n").contains("Did you mean [dns]?"));
    assert!(said("[qqqqqqqq]\n").contains("config reference"));
}

#[test]
fn a_value_of_the_wrong_kind_says_what_was_expected() {
    for (text, expected) in [
        ("[dns]\ndnssec = \"maybe\"", "line 2, column 10: \"maybe\" is not one of the words for dns.dnssec"),
        ("[dns]\nservers = [\"localhost\"]", "\"localhost\" is not an address and a port"),
        ("[dns]\nservers = \"127.0.0.1:53\"", "dns.servers is a text"),
        ("[trust]\nallow_private_addresses = 1", "trust.allow_private_addresses is a number"),
        ("[lab]\nsmtp_port = 0", "0 is not a port"),
        ("[lab]\nsmtp_port = 70000", "70000 is not a port"),
        ("dns = 3", "[dns] is a section"),
        ("[dns\n", "line 1, column"),
    ] {
        let error = said(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn the_reference_is_what_the_documentation_shows() {
    let written = include_str!("../../../docs/configuration.md");
    assert_eq!(written, reference(), "run: sternpost config reference > docs/configuration.md");
}

#[test]
fn each_default_is_a_value_of_its_kind() {
    for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
        // A role that takes more than its defaults.
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
    fn any_text_is_refused_or_taken(text in "(\\[(dns|trust|lab)\\]\n)?[a-z_]{0,8}( = )?\\PC{0,40}") {
        let _ = Config::parse(&text, None);
    }
}
