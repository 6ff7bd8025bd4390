//! `[answers.maps.NAME]`: settings that the name of a socketmap selects. [`validate`] validates the tables for the reader;
//! [`settings`] combines each with the settings of `[answers]`.

use crate::failure::Failure;
use crate::fault::{Fault, fault, kind_of, nearest};
use crate::keys::answers::{DEFAULT_LEVELS, TESTING_LEVELS};
use crate::members::{ignored, misspelled};
use crate::overrides;
use formats::tls_policy::Level;
use sender::answer::Settings;
use sender::answer::decide::DefaultLevel;
use sender::answer::maps::TLSRPT_SUFFIX;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Value};

/// The members that a table of `[answers.maps]` may have.
const MEMBERS: [&str; 4] = ["tlsrpt", "testing_level", "default_level", "override"];
/// The maximum length of a map's name, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// Validates the tables of the file and returns them unchanged.
pub fn validate(text: &str, tables: &DeTable<'_>, warnings: &mut Vec<String>) -> Result<Value, Fault> {
    let mut validated = toml::Table::new();
    for (name, table) in tables {
        check_name(text, name.span(), name.get_ref())?;
        let DeValue::Table(members) = table.get_ref() else {
            let what = format!("answers.maps.{} is {}", name.get_ref(), kind_of(table.get_ref()));
            let remedy = format!("Write it as\n  [answers.maps.{}]", name.get_ref());
            return Err(fault(text, table.span(), what, &remedy));
        };
        validated.insert(name.get_ref().to_string(), one(text, name.get_ref(), members, warnings)?);
    }
    Ok(Value::Table(validated))
}

fn check_name(text: &str, span: Range<usize>, name: &str) -> Result<(), Fault> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_plain) {
        let remedy = format!("Use up to {MAX_NAME_BYTES} letters, digits, `-`, `_` and `.`");
        return Err(fault(text, span, format!("{name:?} is not a valid map name"), &remedy));
    }
    if let Some(short) = name.strip_suffix(TLSRPT_SUFFIX) {
        let what = format!("{name:?} ends in {TLSRPT_SUFFIX}, which requests attributes from any map");
        return Err(fault(text, span, what, &format!("Name it {short:?}; Postfix may use both names")));
    }
    Ok(())
}

fn one(text: &str, map: &str, members: &DeTable<'_>, warnings: &mut Vec<String>) -> Result<Value, Fault> {
    let mut validated = toml::Table::new();
    for (name, value) in members {
        let key_span = name.span();
        let name = name.get_ref().as_ref();
        let value = match (name, value.get_ref()) {
            ("tlsrpt", DeValue::Boolean(on)) => Value::Boolean(*on),
            ("testing_level", DeValue::String(word)) => level(text, value, word, TESTING_LEVELS)?,
            ("default_level", DeValue::String(word)) => level(text, value, word, DEFAULT_LEVELS)?,
            ("override", DeValue::Array(items)) => overrides::validate_all(text, items, warnings)?,
            (known, other) if MEMBERS.contains(&known) => {
                let what = format!("{known} is {}", kind_of(other));
                return Err(fault(text, value.span(), what, "See `sternpost config reference`"));
            }
            (unknown, _) if misspelled(unknown, MEMBERS.into_iter()).is_none() => {
                warnings.push(ignored(text, &key_span, &format!("{unknown} in [answers.maps.{map}]")));
                continue;
            }
            (unknown, _) => {
                let near = nearest(unknown, MEMBERS.into_iter());
                let remedy = near.map_or("See `sternpost config reference`".to_owned(), |near| {
                    format!("Did you mean {near}?")
                });
                return Err(fault(text, value.span(), format!("a map has no member {unknown:?}"), &remedy));
            }
        };
        validated.insert(name.to_owned(), value);
    }
    Ok(Value::Table(validated))
}

fn level(text: &str, value: &Spanned<DeValue<'_>>, word: &str, words: &[&str]) -> Result<Value, Fault> {
    match words.contains(&word) {
        true => Ok(Value::String(word.to_owned())),
        false => {
            let remedy = format!("Write one of {}", words.join(", "));
            Err(fault(text, value.span(), format!("{word:?} is not a valid level"), &remedy))
        }
    }
}

/// The settings of each map: those of its table, and `default` for the others. Policy files are read relative to `folder`.
///
/// # Errors
///
/// If an override is not valid ([`overrides::rules`]).
pub fn settings(
    tables: Option<&Value>,
    default: &Settings,
    folder: &Path,
) -> Result<BTreeMap<String, Settings>, Failure> {
    let mut all = BTreeMap::new();
    for (name, table) in tables.and_then(Value::as_table).into_iter().flatten() {
        let text = |member: &str| table.get(member).and_then(Value::as_str);
        let mut settings = default.clone();
        if let Some(on) = table.get("tlsrpt").and_then(Value::as_bool) {
            settings.tlsrpt = on;
        }
        if let Some(word) = text("testing_level") {
            settings.testing = testing_level(word);
        }
        if let Some(word) = text("default_level") {
            settings.default_level = default_level(word);
        }
        if let Some(tables) = table.get("override") {
            settings.overrides = overrides::rules(Some(tables), folder)?;
        }
        all.insert(name.clone(), settings);
    }
    Ok(all)
}

/// The level for a value of `testing_level`.
pub fn testing_level(word: &str) -> Option<Level> {
    match word {
        "may" => Some(Level::May),
        "encrypt" => Some(Level::Encrypt),
        "dane" => Some(Level::Dane),
        "secure" => Some(Level::Secure(Vec::new())),
        _ => None,
    }
}

/// The level for a value of `default_level`.
pub fn default_level(word: &str) -> DefaultLevel {
    match word {
        "none" | "may" => DefaultLevel::May,
        "dane" => DefaultLevel::Dane,
        _ => DefaultLevel::Stricter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn error_of(text: &str) -> String {
        Config::parse(text, Some("s.toml".into())).unwrap_err().to_string()
    }

    #[test]
    fn a_map_has_its_own_settings_and_those_of_answers_otherwise() {
        let text = "[answers]\ntlsrpt = true\ntesting_level = \"may\"\ndeadline = 7\n\
            [[answers.override]]\ndomain = \"a.example\"\nanswer = \"may\"\n\
            [answers.maps.strict]\ntesting_level = \"secure\"\ndefault_level = \"dane\"\n\
            [answers.maps.lax]\ntlsrpt = false\n\
            [[answers.maps.lax.override]]\ndomain = \"*\"\nanswer = \"none\"\n\
            [[answers.maps.lax.override]]\ndomain = \"b.example\"\nskip_dane = true\n";
        let config = Config::parse(text, None).unwrap();
        let answers = config.answers.clone().unwrap();
        let names: Vec<&String> = answers.maps.keys().collect();
        assert_eq!(names, ["lax", "strict"]);
        let (strict, lax) = (&answers.maps["strict"], &answers.maps["lax"]);
        assert_eq!(strict.testing, Some(Level::Secure(Vec::new())));
        assert_eq!((strict.default_level, strict.tlsrpt), (DefaultLevel::Dane, true));
        assert_eq!((lax.testing.clone(), lax.tlsrpt), (Some(Level::May), false));
        assert_eq!((strict.overrides.len(), lax.overrides.len(), lax.patience.as_secs()), (1, 2, 7));
        let again = Config::parse(&config.to_toml(), None).unwrap().answers.unwrap();
        assert_eq!(format!("{:?}", again.maps), format!("{:?}", answers.maps), "{}", config.to_toml());
    }

    #[test]
    fn an_invalid_map_is_an_error_with_its_place() {
        let long = "x".repeat(65);
        for (text, expected) in [
            ("[answers.maps]\nstrict = 1", "line 2, column 10: answers.maps.strict is a number"),
            ("[answers]\nmaps = 1", "answers.maps is a number"),
            ("[answers.maps.\"a b\"]", "\"a b\" is not a valid map name"),
            (&format!("[answers.maps.{long}]"), "is not a valid map name"),
            ("[answers.maps.strictwithTLSRPT]", "Name it \"strict\""),
            ("[answers.maps.x]\ntesting_level = \"none\"", "\"none\" is not a valid level"),
            ("[answers.maps.x]\ntlsrpt = 1", "tlsrpt is a number"),
            ("[answers.maps.x]\ntestinglevel = \"may\"", "Did you mean testing_level?"),
            ("[answers.maps.x]\noverride = [1]", "contains a value that is not a table"),
            ("[[answers.maps.x.override]]\ndomain = \"a.example\"", "this override changes nothing"),
        ] {
            let error = error_of(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
