//! `sternpost check --from LIST --since OLD`: what differs between this run and the results of an earlier one. Of each earlier
//! result, only the mode and the numbers of its checks are kept, so that a million of them fit into memory.

use super::earlier::{Counted, Reader};
use super::first_pass::FirstPass;
use super::lines::read_results;
use super::list::digest;
use check::{Check, Severity};
use config::failure::Failure;
use formats::Mode;
use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

/// What is compared of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
enum Standing {
    /// The first pass found nothing to check.
    Nothing,
    /// Checked, and the mode that applies is none, as without a policy.
    None,
    /// Checked, in mode testing.
    Testing,
    /// Checked, in mode enforce.
    Enforce,
}

impl Standing {
    fn word(self) -> &'static str {
        match self {
            Self::Nothing => "nothing to check",
            Self::None => "none",
            Self::Testing => "testing",
            Self::Enforce => "enforce",
        }
    }
}

/// The standing, and the numbers of the checks that found errors or warnings, in order.
type State = (Standing, Box<[u16]>);

/// The state of a name; `None` where DNS failed, which is not a change.
fn state(result: Option<&Counted>, found: Option<FirstPass>) -> Option<State> {
    let Some(result) = result else {
        return (!found?.is_undetermined()).then(|| (Standing::Nothing, Box::default()));
    };
    let standing = match result.mode? {
        Mode::None => Standing::None,
        Mode::Testing => Standing::Testing,
        Mode::Enforce => Standing::Enforce,
    };
    let own = result.findings.iter().filter(|(_, severity, _)| *severity != Severity::Info);
    let mut checks: Vec<u16> = own.map(|(check, ..)| *check as u16).collect();
    checks.sort_unstable();
    checks.dedup();
    Some((standing, checks.into()))
}

/// The results of an earlier run; `None` for a name whose lookup failed then.
pub struct Since(HashMap<u64, Option<State>>);

/// How a name compares with the earlier run.
#[derive(Debug, PartialEq, Eq)]
pub enum Comparison<'n> {
    /// Nothing changed, or the name is not determined now.
    Same,
    /// The name was not determined then, so it can't be compared.
    Unknown,
    /// Something changed.
    Changed(Change<'n>),
}

/// How a name differs from the earlier run.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub struct Change<'n> {
    schema: u32,
    domain: &'n str,
    /// True if the earlier run did not have the name.
    is_new: bool,
    was: Option<Standing>,
    is: Standing,
    /// Checks that find an error or a warning, and did not before.
    appeared: Vec<Check>,
    /// Checks that found an error or a warning before, and do not now.
    gone: Vec<Check>,
}

impl Since {
    /// Reads earlier results. Of several results for a name, the last one counts, and a failed lookup never replaces a result.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let (reader, mut all) = (Reader::default(), HashMap::new());
        let remedy = "Give the results of an earlier run with --since.";
        read_results(path, ("a result of check --from", remedy), |line| {
            let Some(earlier) = reader.read(line) else { return Ok(false) };
            let state = match earlier.is_undetermined() {
                true => None,
                false => state(earlier.result.as_ref(), earlier.first_pass),
            };
            let entry: &mut Option<State> = all.entry(digest(&earlier.name)).or_default();
            *entry = state.or(entry.take());
            Ok(true)
        })?;
        Ok(Self(all))
    }

    /// Compares a name with the earlier run.
    pub fn compare<'n>(
        &self,
        domain: &'n str,
        result: Option<&Counted>,
        found: Option<FirstPass>,
    ) -> Comparison<'n> {
        let Some((is, now)) = state(result, found) else { return Comparison::Same };
        let old = match self.0.get(&digest(domain)) {
            Some(None) => return Comparison::Unknown,
            Some(Some(old)) => Some(old),
            None => None,
        };
        let before = old.map(|(_, checks)| &**checks).unwrap_or_default();
        let only = |of: &[u16], other: &[u16]| -> Vec<Check> {
            let only = of.iter().filter(|number| other.binary_search(number).is_err());
            only.filter_map(|number| Check::ALL.get(usize::from(*number)).copied()).collect()
        };
        let change = Change {
            schema: 1,
            domain,
            is_new: old.is_none(),
            was: old.map(|(standing, _)| *standing),
            is,
            appeared: only(&now, before),
            gone: only(before, &now),
        };
        let differs = change.was != Some(is) || !change.appeared.is_empty() || !change.gone.is_empty();
        if differs { Comparison::Changed(change) } else { Comparison::Same }
    }
}

impl Change<'_> {
    /// The change as one line of text.
    pub fn text(&self) -> String {
        let mut out = match self.was {
            None => format!("{}: new, {}", self.domain, self.is.word()),
            Some(was) if was != self.is => format!("{}: {} -> {}", self.domain, was.word(), self.is.word()),
            Some(_) => format!("{}: {}", self.domain, self.is.word()),
        };
        for (lead, checks) in [("now", &self.appeared), ("no longer", &self.gone)] {
            if !checks.is_empty() {
                let ids: Vec<&str> = checks.iter().map(|check| check.id()).collect();
                let _ = write!(out, "; {lead} {}", ids.join(", "));
            }
        }
        out
    }

    /// The change as one line of JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_and_a_failed_lookup_is_not_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old");
        let old = [
            r#"{"domain":"same.example","mode":"enforce","findings":[{"check":"MX-TTL","severity":"warning"},{"check":"MX-SINGLE","severity":"info"}]}"#,
            r#"{"domain":"worse.example","mode":"enforce","findings":[{"check":"MX-TTL","severity":"warning"}]}"#,
            r#"{"domain":"failed.example","mode":"enforce","findings":[]}"#,
            r#"{"domain":"failed-then.example","mode":"none","findings":[{"check":"DNS-SERVFAIL","severity":"error"}]}"#,
            r#"{"domain":"failed-later.example","first_pass":{"mta_sts":"no-response","tlsrpt":"nxdomain"},"findings":[]}"#,
            r#"{"domain":"broke-then.example","failed":"a fault","findings":[]}"#,
            r#"{"domain":"failed-again.example","mode":"enforce","findings":[]}"#,
            r#"{"domain":"failed-again.example","first_pass":{"mta_sts":"servfail","tlsrpt":"nxdomain"},"findings":[]}"#,
            r#"{"domain":"begun.example","first_pass":{"mta_sts":"nxdomain","tlsrpt":"nxdomain"},"findings":[]}"#,
        ];
        std::fs::write(&path, old.join("\n")).unwrap();
        let since = Since::read(&path).unwrap();
        let other = folder.path().join("list");
        std::fs::write(&other, "same.example\n").unwrap();
        assert!(Since::read(&other).is_err(), "a list in the place of results");
        let result = |mode, checks: &[Check]| Counted {
            mode,
            findings: checks.iter().map(|check| (*check, check.severity(), None)).collect(),
            ..Counted::default()
        };
        fn changed<'n>(
            since: &Since,
            name: &'n str,
            result: Option<&Counted>,
            found: Option<FirstPass>,
        ) -> Option<Change<'n>> {
            match since.compare(name, result, found) {
                Comparison::Changed(change) => Some(change),
                Comparison::Same | Comparison::Unknown => None,
            }
        }
        let text =
            |name, result: &Counted| changed(&since, name, Some(result), None).map(|change| change.text());
        let enforce = Some(Mode::Enforce);
        // MX-TTL was a warning, and is information now.
        assert_eq!(
            text("same.example", &result(enforce, &[Check::MxTtl])),
            Some("same.example: enforce; no longer MX-TTL".to_owned())
        );
        assert_eq!(
            text("worse.example", &result(Some(Mode::None), &[Check::StsTxtSyntax, Check::StsTxtTtl])),
            Some(
                "worse.example: enforce -> none; now STS-TXT-SYNTAX, STS-TXT-TTL; no longer MX-TTL"
                    .to_owned()
            )
        );
        assert_eq!(text("failed.example", &result(None, &[Check::DnsServfail])), None);
        for name in ["failed-then.example", "failed-later.example", "broke-then.example"] {
            assert_eq!(since.compare(name, Some(&result(enforce, &[])), None), Comparison::Unknown, "{name}");
        }
        assert_eq!(
            since.compare("failed-again.example", Some(&result(enforce, &[])), None),
            Comparison::Same
        );
        assert_eq!(text("new.example", &result(enforce, &[])), Some("new.example: new, enforce".to_owned()));
        assert_eq!(
            text("begun.example", &result(Some(Mode::Testing), &[])),
            Some("begun.example: nothing to check -> testing".to_owned())
        );
        let gone: FirstPass = serde_json::from_str(r#"{"mta_sts":"nxdomain","tlsrpt":"no-record"}"#).unwrap();
        let change = changed(&since, "worse.example", None, Some(gone)).unwrap();
        assert_eq!(
            change.json(),
            r#"{"schema":1,"domain":"worse.example","is_new":false,"was":"enforce","is":"nothing","appeared":[],"gone":["MX-TTL"]}"#
        );
        assert_eq!(since.compare("begun.example", None, Some(gone)), Comparison::Same);
    }
}
