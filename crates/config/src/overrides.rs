//! `[[answers.override]]`: domains that are answered another way than by what they publish.

use crate::failure::Failure;
use crate::fault::{Fault, fault, kind_of, nearest};
use formats::Policy;
use formats::tls_policy::{Answer, Level, pattern_of_match};
use sender::answer::overrides::{Overrides, Rule, Scope};
use std::ops::Range;
use std::path::Path;
use toml::Value;
use toml::de::{DeTable, DeValue};

const NAMES: [&str; 5] = ["domain", "answer", "policy_file", "skip_mta_sts", "skip_dane"];

/// Takes one table as it stands in the file.
pub fn take(text: &str, span: Range<usize>, table: &DeTable<'_>) -> Result<Value, Fault> {
    let mut taken = toml::Table::new();
    for (name, value) in table {
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
                        format!("{answer:?} is no answer"),
                        "Write none, may, encrypt, dane, dane-only, secure or \"secure match=mx1.example.org:.example.net\"",
                    )
                })?;
                Value::String(answer.to_string())
            }
            ("policy_file", DeValue::String(file)) => Value::String(file.to_string()),
            ("skip_mta_sts" | "skip_dane", DeValue::Boolean(on)) => Value::Boolean(*on),
            (known, other) if NAMES.contains(&known) => {
                return Err(wrong(
                    format!("{known} is {}", kind_of(other)),
                    "See `sternpost config reference`",
                ));
            }
            (unknown, _) => {
                let near = nearest(unknown, NAMES.into_iter());
                let remedy = near.map_or("See `sternpost config reference`".to_owned(), |near| {
                    format!("Did you mean {near}?")
                });
                return Err(wrong(format!("an override has no {unknown:?}"), &remedy));
            }
        };
        taken.insert(name.to_owned(), value);
    }
    if !taken.contains_key("domain") {
        return Err(fault(
            text,
            span,
            "this override has no domain".to_owned(),
            "Add\n  domain = \"example.org\"",
        ));
    }
    if taken.len() == 1 {
        let remedy = "Add one of answer, policy_file, skip_mta_sts, skip_dane";
        return Err(fault(text, span, "this override changes nothing".to_owned(), remedy));
    }
    if taken.contains_key("answer") && taken.len() > 2 {
        let remedy = "Keep either answer or the others";
        return Err(fault(
            text,
            span,
            "with an answer, nothing else of an override counts".to_owned(),
            remedy,
        ));
    }
    Ok(Value::Table(taken))
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

/// The rules of the file, its pinned policies read from `folder`.
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
                "there are two of them",
                "Put both into one [[answers.override]].",
            ));
        }
    }
    Ok(all)
}

fn pinned(file: &Path, domain: &str) -> Result<Policy, Failure> {
    let what = format!("the policy {} for {domain}", file.display());
    let body = std::fs::read(file)
        .map_err(|error| Failure::usage(&what, error, "The configuration names it in an override."))?;
    Policy::parse(&body).map_err(|error| {
        Failure::usage(what, error, "It has to be a policy file as a policy host serves it.")
    })
}
