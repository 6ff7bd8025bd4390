//! `[[reporter.targets]]`: rules that replace, block or add report targets. The reader validates each table with
//! [`TargetSpec`]; the sending side applies the rules ([`sender::report::TargetRule`]).

use formats::DomainName;
use formats::tlsrpt_record::Rua;
use sender::report::{TargetMatch, TargetRule};
use serde::Deserialize;
use serde::de::Error;

/// A rule of `[[reporter.targets]]`, which is validated when it is deserialized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSpec(pub TargetRule);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    domain: Option<String>,
    target: Option<String>,
    send_to: Option<Vec<String>>,
    #[serde(default)]
    copy_to: Vec<String>,
}

impl<'de> Deserialize<'de> for TargetSpec {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = Table::deserialize(deserializer)?;
        if table.domain.is_none() && table.target.is_none() {
            return Err(D::Error::custom(
                "a rule needs `domain` or `target`; domain = \"*\" is every domain",
            ));
        }
        if table.send_to.is_none() && table.copy_to.is_empty() {
            return Err(D::Error::custom("a rule needs `send_to` or `copy_to`"));
        }
        let uris = |texts: Vec<String>| texts.iter().map(|text| uri(text)).collect::<Result<Vec<_>, _>>();
        Ok(Self(TargetRule {
            about: table.domain.map_or(Ok(None), |text| domain(&text)).map_err(D::Error::custom)?,
            target: table.target.map(|text| target(&text)).transpose().map_err(D::Error::custom)?,
            send_to: table.send_to.map(uris).transpose().map_err(D::Error::custom)?,
            copy_to: uris(table.copy_to).map_err(D::Error::custom)?,
        }))
    }
}

fn domain(text: &str) -> Result<Option<DomainName>, String> {
    match text {
        "*" => Ok(None),
        name => DomainName::parse(name).map(Some).map_err(|error| format!("{name:?}: {error}")),
    }
}

fn target(text: &str) -> Result<TargetMatch, String> {
    match text.contains(':') {
        true => uri(text).map(TargetMatch::Uri),
        false => DomainName::parse(text).map(TargetMatch::Host).map_err(|error| format!("{text:?}: {error}")),
    }
}

fn uri(text: &str) -> Result<Rua, String> {
    match Rua::parse(text) {
        Ok(Some(rua)) => Ok(rua),
        Ok(None) => Err(format!("{text:?} is neither a mailto: nor an https: URI")),
        Err(why) => Err(format!("{text:?} is not a report target: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use crate::Config;

    fn parsed(rule: &str) -> Result<Config, String> {
        let text = format!(
            "[reporter]\nfrom = \"t@own.example\"\ndeliver = \"folder:out\"\ndeny = [\"denied.example\"]\n[[reporter.targets]]\n{rule}\n"
        );
        Config::parse(&text, None).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_rule_says_what_it_matches_and_what_follows() {
        let config = parsed(
            "domain = \"corp.example\"\nsend_to = [\"https://in.example/r\"]\ncopy_to = [\"mailto:me@own.example\"]",
        );
        let rules = config.unwrap().reporter.unwrap().targets;
        assert_eq!(rules.len(), 1);
        assert_eq!(rules[0].to_string(), "the rule for domain corp.example");
        let any = parsed("domain = \"*\"\ncopy_to = [\"mailto:me@own.example\"]").unwrap();
        assert_eq!(any.reporter.unwrap().targets[0].about, None);
    }

    #[test]
    fn the_documented_rules_are_valid() {
        let page = include_str!("../../../docs/tlsrpt-sending.md");
        let block = page.split("```toml targets\n").nth(1).unwrap().split("```").next().unwrap();
        let text = format!("[reporter]\nfrom = \"t@own.example\"\ndeliver = \"folder:out\"\n{block}");
        let rules = Config::parse(&text, None).unwrap().reporter.unwrap().targets;
        assert_eq!(rules.len(), 4);
    }

    #[test]
    fn rules_that_say_nothing_or_contradict_are_rejected_with_the_reason() {
        for (rule, why) in [
            ("send_to = []", "needs `domain` or `target`"),
            ("domain = \"a.example\"", "needs `send_to` or `copy_to`"),
            ("domain = \"a b\"\nsend_to = []", "a b"),
            ("target = \"ftp:x\"\nsend_to = []", "neither a mailto: nor an https: URI"),
            ("domain = \"*\"\ncopy_to = [\"me@own.example\"]", "not a report target"),
            ("domain = \"*\"\nsent_to = []", "sent_to"),
            ("domain = \"*\"\ncopy_to = [\"mailto:x@sub.denied.example\"]", "reporter.deny"),
        ] {
            let error = parsed(rule).unwrap_err();
            assert!(error.contains(why), "{rule}: {error}");
        }
    }
}
