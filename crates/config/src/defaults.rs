//! `[defaults]`: what a `[[domain]]` does not say itself. [`validate`] checks the members as those of a domain, and
//! [`merged`] adds them to a domain's table.

use crate::fault::{Fault, fault};
use crate::members::tables;
use receiver::domain::DomainSpec;
use toml::de::DeValue;
use toml::{Spanned, Table, Value};

/// Stands for the name while the members are validated.
const NAME: &str = "defaults.invalid";

/// Validates the section and returns it unchanged.
pub fn validate(
    text: &str,
    value: &Spanned<DeValue<'_>>,
    warnings: &mut Vec<String>,
) -> Result<Value, Fault> {
    let mut named = value.clone();
    if let DeValue::Table(table) = named.get_mut() {
        if let Some((name, _)) = table.iter().find(|(name, _)| name.get_ref() == "name") {
            let remedy = "Give each domain its name in its own [[domain]]";
            return Err(fault(text, name.span(), "[defaults] has no member \"name\"".to_owned(), remedy));
        }
        table.insert(Spanned::new(0..0, "name".into()), Spanned::new(0..0, DeValue::String(NAME.into())));
    }
    let validated = tables::<DomainSpec>(text, "defaults", &[named], warnings)?;
    let mut members = match validated {
        Value::Array(items) => items.into_iter().next().unwrap_or(Value::Table(Table::new())),
        other => other,
    };
    members.as_table_mut().and_then(|table| table.remove("name"));
    Ok(members)
}

/// Adds the members that a domain's table does not have, also those of a table in it (`max_age`).
pub fn merged(mut domain: Table, defaults: &Table) -> Table {
    for (name, value) in defaults {
        match (domain.get_mut(name), value) {
            (None, value) => drop(domain.insert(name.clone(), value.clone())),
            (Some(Value::Table(own)), Value::Table(inner)) => *own = merged(std::mem::take(own), inner),
            (Some(_), _) => {}
        }
    }
    domain
}

/// As [`merged`], for the settings of a domain that the API receives.
pub fn merged_json(domain: &mut serde_json::Map<String, serde_json::Value>, defaults: &Table) {
    for (name, value) in defaults {
        match (domain.get_mut(name), value) {
            (None, value) => {
                let value = serde_json::to_value(value).unwrap_or_default();
                domain.insert(name.clone(), value);
            }
            (Some(serde_json::Value::Object(own)), Value::Table(inner)) => merged_json(own, inner),
            (Some(_), _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Config;
    use formats::{DomainName, Mode};
    use receiver::domain::{DnsBy, HostedBy};

    fn config(text: &str) -> Result<Config, String> {
        Config::parse(text, Some("s.toml".into())).map_err(|failure| failure.to_string())
    }

    const TEXT: &str = "[host]\n[[rfc2136]]\nname = \"ns\"\nserver = \"192.0.2.1:53\"\nkey_name = \"k\"\nkey_file = \"k\"\n\
        [[domain]]\nname = \"a.example\"\n[[domain]]\nname = \"b.example\"\nhost = \"static\"\nrepair = false\nmax_age = { testing = 60 }\n\
        [defaults]\nhost = \"self\"\ndns = \"rfc2136:ns\"\nrepair = true\nmode = \"testing\"\nrua = [\"mailto:r@a.example\"]\nmax_age = { testing = 600, enforce = 6000 }\n";

    #[test]
    fn a_domain_has_the_defaults_for_what_it_does_not_say_itself() {
        let config = config(TEXT).unwrap();
        let [a, b] = &config.domains[..] else { panic!() };
        assert_eq!((a.host, a.mode, a.repair, a.rua.len()), (HostedBy::Sternpost, Mode::Testing, true, 1));
        assert_eq!((a.max_age.testing, a.max_age.enforce), (600, 6000));
        assert_eq!((b.host, b.mode, b.repair), (HostedBy::Static, Mode::Testing, false));
        assert_eq!((b.max_age.testing, b.max_age.enforce, b.max_age.before), (60, 6000, 31_557_600));
        assert_eq!((&a.dns, &b.dns), (&DnsBy::Update("ns".into()), &DnsBy::Update("ns".into())));
        // A domain that a command adds begins with them too.
        let new = config.new_domain(DomainName::parse("c.example").unwrap());
        assert_eq!(
            (new.name.as_str(), new.host, new.max_age.testing),
            ("c.example", HostedBy::Sternpost, 600)
        );
        let mut posted = serde_json::json!({ "host": "static", "max_age": { "testing": 61 } });
        config.add_defaults(posted.as_object_mut().unwrap());
        assert_eq!((&posted["host"], &posted["repair"]), (&"static".into(), &true.into()));
        assert_eq!(posted["max_age"], serde_json::json!({ "testing": 61, "enforce": 6000 }));
        let shown = config.to_toml();
        assert!(shown.contains("enforce = 6000"), "{shown}");
    }

    #[test]
    fn defaults_are_checked_even_without_a_domain() {
        for (text, what) in [
            ("[defaults]\nname = \"a.example\"\n", "line 2, column 1: [defaults] has no member \"name\""),
            ("[defaults]\nmod = \"none\"\n", "[defaults] has no member \"mod\""),
            ("[defaults]\nmode = \"enforced\"\n", "Did you mean enforce?"),
            ("defaults = 3\n", "defaults is a number"),
            // What does not fit a domain is found at the domain.
            ("[defaults]\nhost = \"self\"\n[[domain]]\nname = \"a.example\"\n", "the role [host] is off"),
        ] {
            let error = config(text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
        assert_eq!(config("[defaults]\ncolour = 1\n").unwrap().warnings.len(), 1);
    }
}
