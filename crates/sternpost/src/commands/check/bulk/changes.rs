//! `sternpost check --from LIST --since OLD`: what differs between this run and the results of an earlier one. Of each earlier
//! result, only the mode and the numbers of its checks are kept, so that a million of them fit into memory.

use super::first_pass::FirstPass;
use super::list::digest;
use super::tally::{Counted, Reader};
use check::{Check, Severity};
use config::failure::Failure;
use formats::Mode;
use std::collections::HashMap;
use std::fmt::Write;
use std::fs::File;
use std::io::{BufRead, BufReader};
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

/// The results of an earlier run.
pub struct Since(HashMap<u64, State>);

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
    /// Reads earlier results. Of several results for a name, the last one counts.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let fail = |error| {
            Failure::usage(
                format!("{} can't be read", path.display()),
                error,
                "Give the results of an earlier run with --since.",
            )
        };
        let (reader, mut all) = (Reader::default(), HashMap::new());
        for line in BufReader::new(File::open(path).map_err(fail)?).split(b'\n') {
            let earlier = reader.read(&line.map_err(fail)?);
            if let Some(earlier) = earlier
                && let Some(state) = state(earlier.result.as_ref(), earlier.first_pass)
            {
                all.insert(digest(&earlier.name), state);
            }
        }
        Ok(Self(all))
    }

    /// The change of a name since then; `None` if there is none, or if it is not known now.
    pub fn change<'n>(
        &self,
        domain: &'n str,
        result: Option<&Counted>,
        found: Option<FirstPass>,
    ) -> Option<Change<'n>> {
        let (is, now) = state(result, found)?;
        let old = self.0.get(&digest(domain));
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
        differs.then_some(change)
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
            r#"{"domain":"begun.example","first_pass":{"mta_sts":"nxdomain","tlsrpt":"nxdomain"},"findings":[]}"#,
        ];
        std::fs::write(&path, old.join("\n")).unwrap();
        let since = Since::read(&path).unwrap();
        let result = |mode, checks: &[Check]| Counted {
            mode,
            findings: checks.iter().map(|check| (*check, check.severity(), None)).collect(),
        };
        let text =
            |name: &str, result: &Counted| since.change(name, Some(result), None).map(|change| change.text());
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
        assert_eq!(
            text("failed-then.example", &result(enforce, &[])),
            Some("failed-then.example: new, enforce".to_owned())
        );
        assert_eq!(
            text("begun.example", &result(Some(Mode::Testing), &[])),
            Some("begun.example: nothing to check -> testing".to_owned())
        );
        let gone: FirstPass = serde_json::from_str(r#"{"mta_sts":"nxdomain","tlsrpt":"no-record"}"#).unwrap();
        let change = since.change("worse.example", None, Some(gone)).unwrap();
        assert_eq!(
            change.json(),
            r#"{"schema":1,"domain":"worse.example","is_new":false,"was":"enforce","is":"nothing","appeared":[],"gone":["MX-TTL"]}"#
        );
        assert_eq!(since.change("begun.example", None, Some(gone)), None);
    }
}
