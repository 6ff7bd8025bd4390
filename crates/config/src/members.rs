//! Members of tables: what the errors of the TOML library about them mean, in one line each, and which unknown names are
//! misspelled and which a newer release may know.

use crate::fault::{Fault, fault, line_and_column, nearest, type_fault};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::ops::Range;
use toml::de::{DeValue, ValueDeserializer};
use toml::{Spanned, Value};

/// The maximum edit distance, in characters, at which a name counts as a misspelling of a known one.
fn most_changes(name: &str) -> usize {
    match name.chars().count() {
        0..4 => 1,
        4..12 => 2,
        longer => longer / 4,
    }
}

/// The known name that `name` is a misspelling of; `None` if it resembles none of them, as a name that only a newer
/// release knows.
pub fn misspelled<'c>(name: &str, known: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let plain = name.to_ascii_lowercase().replace('-', "_");
    let known: Vec<&str> = known.collect();
    let same = known.iter().find(|known| **known == plain).copied();
    let near = || {
        let near = nearest(&plain, known.iter().copied())?;
        (crate::fault::changes(&plain, near) <= most_changes(&plain)).then_some(near)
    };
    same.or_else(near)
}

/// A key that is ignored, with its line.
pub fn ignored(text: &str, span: &Range<usize>, what: &str) -> String {
    let (line, _) = line_and_column(text, span.start);
    format!("line {line}: {what} is not known to this release and is ignored")
}

/// The line that a warning is about.
pub fn line_of(warning: &str) -> usize {
    let number = warning.strip_prefix("line ").and_then(|rest| rest.split(':').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Validates the tables of the key `path` as type `T`. An error carries the position of the faulty member. Unknown members
/// that are not misspelled are left out, with a warning.
pub fn tables<T: DeserializeOwned>(
    text: &str,
    path: &str,
    items: &[Spanned<DeValue<'_>>],
    warnings: &mut Vec<String>,
) -> Result<Value, Fault> {
    let mut all = Vec::new();
    for item in items {
        all.push(one::<T>(text, path, item.clone(), warnings)?);
    }
    Ok(Value::Array(all))
}

fn one<T: DeserializeOwned>(
    text: &str,
    path: &str,
    mut item: Spanned<DeValue<'_>>,
    warnings: &mut Vec<String>,
) -> Result<Value, Fault> {
    loop {
        let wrong = |error: &toml::de::Error, span: Range<usize>| explained(text, path, error, span);
        match T::deserialize(ValueDeserializer::from(item.clone())) {
            Ok(_) => {
                return Value::deserialize(ValueDeserializer::from(item.clone()))
                    .map_err(|error| wrong(&error, item.span()));
            }
            Err(error) => {
                let span = error.span().unwrap_or(item.span());
                let unknown = unknown_member(error.message())
                    .filter(|(name, known)| misspelled(name, known.iter().map(String::as_str)).is_none());
                let Some((name, known)) = unknown else { return Err(wrong(&error, span)) };
                if !remove(item.get_mut(), &name, &span) {
                    return Err(wrong(&error, span));
                }
                let hint = longer_form(&name, &known);
                warnings.push(ignored(text, &span, &format!("{name} in [[{path}]]")) + &hint);
            }
        }
    }
}

/// The known member that a longer name such as `mx_hosts` begins with, as a question; empty without one.
fn longer_form(name: &str, known: &[String]) -> String {
    let head = name.split(['_', '-']).next().unwrap_or_default();
    let meant = known.iter().find(|known| head.len() < name.len() && *known == head);
    meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default()
}

/// The names of the members of a table's type, from the library's error about one that can't exist.
pub fn known_members<T: DeserializeOwned>() -> Vec<String> {
    let table = toml::Table::from_iter([("?".to_owned(), Value::Boolean(true))]);
    let message = Value::Table(table).try_into::<T>().err().map(|error| error.message().to_owned());
    message.and_then(|message| unknown_member(&message)).map(|(_, known)| known).unwrap_or_default()
}

/// Removes the member whose name is at `span` from a table or from a table in it. Returns whether it was there. The position
/// must be that of the name itself: a table around it can be a known member with the same name.
fn remove(value: &mut DeValue<'_>, name: &str, span: &Range<usize>) -> bool {
    match value {
        DeValue::Table(table) => {
            let before = table.len();
            let stays = |key: &Spanned<Cow<'_, str>>| key.get_ref() != name || key.span() != *span;
            *table = std::mem::take(table).into_iter().filter(|(key, _)| stays(key)).collect();
            table.len() < before || table.iter_mut().any(|(_, value)| remove(value.get_mut(), name, span))
        }
        DeValue::Array(items) => items.iter_mut().any(|item| remove(item.get_mut(), name, span)),
        _ => false,
    }
}

/// The name and the known members in the library's error about an unknown member.
fn unknown_member(message: &str) -> Option<(String, Vec<String>)> {
    let mut names = quoted(message.strip_prefix("unknown field ")?);
    let name = names.next()?;
    Some((name, names.collect()))
}

/// The words between backticks.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// The library's error in one line, with the nearest right value.
fn explained(text: &str, path: &str, error: &toml::de::Error, span: Range<usize>) -> Fault {
    let message = error.message().replace('\n', ", ");
    let section = if path == "defaults" { "[defaults]".to_owned() } else { format!("[[{path}]]") };
    let see = format!("`sternpost config reference` describes {section}.");
    let near = |word: &str, known: &[String]| {
        let near = nearest(word, known.iter().map(String::as_str));
        near.map(|near| format!("Did you mean {near}? ")).unwrap_or_default()
    };
    if let Some((name, known)) = unknown_member(&message) {
        let what = format!("{section} has no member {name:?}");
        return fault(text, span, what, &format!("{}{see}", near(&name, &known)));
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let mut words = quoted(rest);
        let (word, known) = (words.next().unwrap_or_default(), words.collect::<Vec<_>>());
        let member = member_at(text, span.start);
        let remedy = format!("{member} takes {}. {}", listed(&known), near(&word, &known));
        return fault(text, span, format!("{word:?} is not a valid value of {member}"), remedy.trim_end());
    }
    if let Some(name) = message.strip_prefix("missing field ").and_then(|rest| quoted(rest).next()) {
        return fault(text, span, format!("{section} has no {name:?}, which is required"), &see);
    }
    if let Some((given, expected)) = type_fault(&message) {
        let member = member_at(text, span.start);
        return fault(
            text,
            span,
            format!("{member} is {given}"),
            &format!("{member} takes {expected}. {see}"),
        );
    }
    fault(text, span, message, &see)
}

/// The name of the member whose value is at `at`.
fn member_at(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or_default();
    let name = before.rsplit_once('=').map_or("it", |(head, _)| head.trim_end());
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let name = name.rsplit(|c| !is_name(c)).next().unwrap_or_default();
    if name.is_empty() { "it".to_owned() } else { name.to_owned() }
}

/// Joins words as in "a, b or c"; "another value" if there are none.
fn listed(words: &[String]) -> String {
    match words {
        [] => "another value".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use proptest::strategy::Strategy as _;

    fn config(text: &str) -> Result<Config, String> {
        Config::parse(text, Some("s.toml".into())).map_err(|failure| failure.to_string())
    }

    #[test]
    fn an_unknown_name_is_misspelled_if_it_resembles_a_known_one() {
        let known = ["listen", "http", "deadline", "failures_per_thousand", "mx"];
        let near = |name: &str| misspelled(name, known.into_iter());
        for (name, expected) in [
            ("lisetn", "listen"),
            ("Listen", "listen"),
            ("dead-line", "deadline"),
            ("deadlines", "deadline"),
            ("failure_per_thousand", "failures_per_thousand"),
            ("failures-per-thousand", "failures_per_thousand"),
            ("http2", "http"),
            ("mxs", "mx"),
        ] {
            assert_eq!(near(name), Some(expected), "{name}");
        }
        for name in ["quic_listen", "telemetry", "dead", "failures", "ip"] {
            assert_eq!(near(name), None, "{name}");
        }
    }

    #[test]
    fn a_key_that_only_a_newer_release_knows_is_ignored_with_a_warning() {
        let text = "telemetry = true\n[quic]\nlisten = []\n[answers]\nprefetch_share = 3\n[[answers.override]]\ndomain = \"a.example\"\nskip_dane = true\nweekdays = \"mon\"\n\
            [answers.maps.strict]\ntlsrpt = true\ncolour = 1\n\
            [[domain]]\nname = \"a.example\"\ncolour = \"red\"\nmax_age = { testing = 60, holidays = 3 }\n";
        let config = config(text).unwrap();
        assert_eq!(
            config.warnings,
            [
                "line 1: telemetry is not known to this release and is ignored",
                "line 2: quic is not known to this release and is ignored",
                "line 5: answers.prefetch_share is not known to this release and is ignored",
                "line 9: weekdays in [[answers.override]] is not known to this release and is ignored",
                "line 12: colour in [answers.maps.strict] is not known to this release and is ignored",
                "line 15: colour in [[domain]] is not known to this release and is ignored",
                "line 16: holidays in [[domain]] is not known to this release and is ignored",
            ]
        );
        assert_eq!(config.domains[0].max_age.testing, 60);
    }

    #[test]
    fn a_wrong_value_is_explained_in_one_line_with_the_nearest_right_one() {
        let domain = |rest: &str| config(&format!("[[domain]]\nname = \"a.example\"\n{rest}\n")).unwrap_err();
        for (rest, what, remedy) in [
            (
                "mode = \"enforced\"",
                "line 3, column 8: \"enforced\" is not a valid value of mode",
                "mode takes enforce, testing or none. Did you mean enforce?",
            ),
            (
                "host = \"selfs\"",
                "\"selfs\" is not a valid value of host",
                "host takes self, static or elsewhere. Did you mean self?",
            ),
            ("mod = \"enforce\"", "[[domain]] has no member \"mod\"", "Did you mean mode?"),
            ("max_age = { tesing = 3 }", "[[domain]] has no member \"tesing\"", "Did you mean testing?"),
            (
                "rua = [\"ftp://x\"]",
                "mailto: or https:",
                "`sternpost config reference` describes [[domain]].",
            ),
            ("mode = 3", "wanted string or table", "describes [[domain]]"),
        ] {
            let error = domain(rest);
            assert!(error.contains(what) && error.contains(remedy), "{rest}: {error}");
            assert!(error.lines().count() <= 2 && error.len() < 300, "{error}");
        }
        for (text, what) in [
            ("[[domain]]\nmode = \"none\"\n", "[[domain]] has no \"name\", which is required"),
            ("[domain]\nname = \"a.example\"\n", "Write [[domain]], with two brackets"),
            ("[rfc2136]\nname = \"a\"\n", "Write [[rfc2136]], with two brackets"),
            ("[log]\nlevel = \"warning\"\n", "Did you mean \"warn\"?"),
            ("[dns]\ndnssec = \"validated\"\n", "Did you mean \"validate\"?"),
        ] {
            let error = config(text).unwrap_err();
            assert!(error.contains(what) && error.lines().count() <= 2, "{text}: {error}");
        }
    }

    #[test]
    fn an_unknown_member_is_removed_and_not_the_known_table_of_the_same_name_around_it() {
        let text = "[[domain]]\nname = \"a.example\"\nmax_age = { testing = 60, max_age = 3 }\n";
        let config = config(text).unwrap();
        assert_eq!(
            config.warnings,
            ["line 3: max_age in [[domain]] is not known to this release and is ignored"]
        );
        assert_eq!(config.domains[0].max_age.testing, 60);
    }

    /// How the table `max_age` is written.
    #[derive(Debug, Clone, Copy)]
    enum Written {
        Inline,
        Dotted,
        Header,
    }

    fn text_of(written: Written, outer: &[&str], inner: &[&str]) -> String {
        let value = |name: &&str| match *name {
            "name" => "name = \"a.example\"".to_owned(),
            "mode" => "mode = \"testing\"".to_owned(),
            "mx" => "mx = [\"mx.a.example\"]".to_owned(),
            "repair" => "repair = true".to_owned(),
            other => format!("{other} = 61"),
        };
        let inner: Vec<String> = inner.iter().map(value).collect();
        let mut lines: Vec<String> = outer.iter().map(value).collect();
        match written {
            Written::Inline => lines.insert(0, format!("max_age = {{ {} }}", inner.join(", "))),
            Written::Dotted => lines.extend(inner.iter().map(|member| format!("max_age.{member}"))),
            Written::Header => lines.extend(["[domain.max_age]".to_owned()].into_iter().chain(inner)),
        }
        format!("[[domain]]\n{}\n", lines.join("\n"))
    }

    proptest::proptest! {
        #[test]
        fn unknown_members_change_nothing_wherever_they_are_and_whatever_their_names(
            written in proptest::sample::select(vec![Written::Inline, Written::Dotted, Written::Header]),
            outer in proptest::sample::subsequence(vec!["before", "weekdays", "repair", "testing", "mx", "name", "enforce", "mode"], 0..=8).prop_shuffle(),
            inner in proptest::sample::subsequence(vec!["mx", "testing", "max_age", "before", "name", "enforce", "repair", "weekdays", "mode"], 1..=9).prop_shuffle(),
        ) {
            let known_outer = ["name", "mode", "mx", "repair"];
            let known_inner = ["testing", "enforce", "before"];
            let outer: Vec<&'static str> = ["name"].into_iter().chain(outer.into_iter().filter(|name| *name != "name")).collect();
            let only = |names: &[&'static str], known: &[&str]| {
                names.iter().copied().filter(|name| known.contains(name)).collect::<Vec<_>>()
            };
            let (plain_outer, plain_inner) = (only(&outer, &known_outer), only(&inner, &known_inner));
            let unknown = outer.len() + inner.len() - plain_outer.len() - plain_inner.len();
            let with = config(&text_of(written, &outer, &inner)).unwrap();
            let without = config(&text_of(written, &plain_outer, &plain_inner)).unwrap();
            proptest::prop_assert_eq!(&with.domains, &without.domains);
            proptest::prop_assert_eq!((with.warnings.len(), without.warnings.len()), (unknown, 0));
        }
    }
}
