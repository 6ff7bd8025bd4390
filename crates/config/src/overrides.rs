//! `[[answers.override]]`: domains whose answer differs from what they publish. [`validate`] validates each table for the
//! reader; [`rules`] builds the table of overrides that the answer service uses.

use crate::failure::Failure;
use crate::fault::{Fault, fault, kind_of, nearest};
use crate::members::{ignored, misspelled};
use formats::Policy;
use formats::tls_policy::{Answer, Level, pattern_of_match};
use sender::answer::overrides::{Overrides, Rule, Scope};
use std::ops::Range;
use std::path::Path;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Value};

/// The members of an override.
const MEMBERS: [&str; 5] = ["domain", "answer", "policy_file", "skip_mta_sts", "skip_dane"];

/// Validates a list of tables of the file and returns it unchanged.
pub fn validate_all(
    text: &str,
    items: &[Spanned<DeValue<'_>>],
    warnings: &mut Vec<String>,
) -> Result<Value, Fault> {
    let one = |item: &Spanned<DeValue<'_>>| match item.get_ref() {
        DeValue::Table(table) => validate(text, item.span(), table, warnings),
        _ => {
            let what = "the list of overrides contains a value that is not a table".to_owned();
            Err(fault(text, item.span(), what, "Write one [[answers.override]] for each domain"))
        }
    };
    Ok(Value::Array(items.iter().map(one).collect::<Result<_, _>>()?))
}

/// Validates one table of the file and returns it unchanged.
fn validate(
    text: &str,
    span: Range<usize>,
    table: &DeTable<'_>,
    warnings: &mut Vec<String>,
) -> Result<Value, Fault> {
    let mut validated = toml::Table::new();
    for (name, value) in table {
        let key_span = name.span();
        let wrong = |what: String, remedy: &str| fault(text, value.span(), what, remedy);
        let name = name.get_ref().as_ref();
        let value = match (name, value.get_ref()) {
            ("domain", DeValue::String(domain)) => {
                Scope::parse(domain).map_err(|error| {
                    wrong(format!("{domain:?}: {error}"), "Write example.org, *.example.org or *")
                })?;
                Value::String(domain.to_string())
            }
            ("answer", DeValue::String(answer)) => {
                parse_answer(answer).ok_or_else(|| {
                    wrong(
                        format!("{answer:?} is not a valid answer"),
                        "Write none, may, encrypt, dane, dane-only, secure or \"secure match=mx1.example.org:.example.net\"",
                    )
                })?;
                Value::String(answer.to_string())
            }
            ("policy_file", DeValue::String(file)) => Value::String(file.to_string()),
            ("skip_mta_sts" | "skip_dane", DeValue::Boolean(on)) => Value::Boolean(*on),
            (known, other) if MEMBERS.contains(&known) => {
                return Err(wrong(
                    format!("{known} is {}", kind_of(other)),
                    "See `sternpost config reference`",
                ));
            }
            (unknown, _) if misspelled(unknown, MEMBERS.into_iter()).is_none() => {
                warnings.push(ignored(text, &key_span, &format!("{unknown} in [[answers.override]]")));
                continue;
            }
            (unknown, _) => {
                let near = nearest(unknown, MEMBERS.into_iter());
                let remedy = near.map_or("See `sternpost config reference`".to_owned(), |near| {
                    format!("Did you mean {near}?")
                });
                return Err(wrong(format!("an override has no member {unknown:?}"), &remedy));
            }
        };
        validated.insert(name.to_owned(), value);
    }
    if !validated.contains_key("domain") {
        return Err(fault(
            text,
            span,
            "this override has no domain".to_owned(),
            "Add\n  domain = \"example.org\"",
        ));
    }
    if validated.len() == 1 {
        let remedy = "Add answer, policy_file, skip_mta_sts or skip_dane";
        return Err(fault(text, span, "this override changes nothing".to_owned(), remedy));
    }
    if validated.contains_key("answer") && validated.len() > 2 {
        let remedy = "Remove either answer or the other members";
        return Err(fault(
            text,
            span,
            "answer can't be combined with other members of an override".to_owned(),
            remedy,
        ));
    }
    Ok(Value::Table(validated))
}

fn parse_answer(text: &str) -> Option<Answer> {
    let level = match text {
        "none" => return Some(Answer::NotFound),
        "may" => Level::May,
        "encrypt" => Level::Encrypt,
        "dane" => Level::Dane,
        "dane-only" => Level::DaneOnly,
        "secure" => Level::Secure(Vec::new()),
        other => {
            let names = other.strip_prefix("secure match=")?.split(':');
            Level::Secure(names.map(pattern_of_match).collect::<Result<_, _>>().ok()?)
        }
    };
    Some(Answer::Level(level, None))
}

/// Builds the overrides from the tables of the file. Policy files are read relative to `folder`.
///
/// # Errors
///
/// If two tables have the same domain, or a policy file can't be read or parsed.
pub fn rules(value: Option<&Value>, folder: &Path) -> Result<Overrides, Failure> {
    let mut all = Overrides::default();
    for table in value.and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| table.get(name).and_then(Value::as_str);
        let flag = |name: &str| table.get(name).and_then(Value::as_bool).unwrap_or(false);
        let domain = text("domain").unwrap_or_default();
        let policy = text("policy_file").map(|file| pinned(&folder.join(file), domain)).transpose()?;
        let rule = Rule {
            answer: text("answer").and_then(parse_answer),
            policy,
            skip_mta_sts: flag("skip_mta_sts"),
            skip_dane: flag("skip_dane"),
        };
        let is_new = Scope::parse(domain).is_ok_and(|scope| all.add(scope, rule));
        if !is_new {
            return Err(Failure::usage(
                format!("the overrides of {domain}"),
                "they appear twice in the configuration",
                "Merge the two into one [[answers.override]].",
            ));
        }
    }
    Ok(all)
}

/// Reads the policy file of an override.
fn pinned(file: &Path, domain: &str) -> Result<Policy, Failure> {
    let what = format!("the policy {} for {domain}", file.display());
    let body = std::fs::read(file)
        .map_err(|error| Failure::usage(&what, error, "An override names this file; correct policy_file."))?;
    Policy::parse(&body).map_err(|error| {
        Failure::usage(what, error, "The file must be a valid MTA-STS policy (RFC 8461 §3.2).")
    })
}
