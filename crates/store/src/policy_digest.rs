//! Identifies the policy under which sessions were, so that evidence about one policy does not count for another.
//!
//! Two policies are the same if they accept the same MX hosts: a session passes or fails under both alike. Their mode
//! and `max_age` don't matter, except that a policy in mode `none` demands nothing.

use crate::reports::digest;
use formats::{Mode, MxPattern};
use std::collections::BTreeSet;

/// The digest of what a policy demands of an MX host: the set of its `mx` patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct PolicyDigest(i64);

impl PolicyDigest {
    /// The digest of a policy with these patterns, in mode `testing` or `enforce`.
    pub fn of_patterns<'p>(patterns: impl IntoIterator<Item = &'p MxPattern>) -> Self {
        Self::of(patterns.into_iter().map(ToString::to_string).collect())
    }

    /// The digest of a policy as reports state it: the lines of its file (RFC 8460 §4.4). `None` if the lines contain
    /// neither a pattern nor the mode `none`, so that the policy is unknown.
    pub fn of_lines(lines: &[String]) -> Option<Self> {
        let mut patterns = BTreeSet::new();
        for (key, value) in lines.iter().filter_map(|line| line.split_once(':')) {
            let (key, value) = (key.trim(), value.trim());
            if key.eq_ignore_ascii_case("mode") && value.eq_ignore_ascii_case(Mode::None.as_str()) {
                return Some(Self::of(BTreeSet::new()));
            }
            if key.eq_ignore_ascii_case("mx") {
                let value = value.to_ascii_lowercase();
                let pattern = MxPattern::parse(&value).map(|pattern| pattern.to_string());
                patterns.insert(pattern.unwrap_or(value));
            }
        }
        (!patterns.is_empty()).then(|| Self::of(patterns))
    }

    fn of(patterns: BTreeSet<String>) -> Self {
        let text = patterns.into_iter().collect::<Vec<_>>().join("\n");
        // 0 stands for an unknown policy.
        Self(match digest(&[text.as_bytes()]) {
            0 => 1,
            number => number,
        })
    }

    /// The value of the column; 0 if the policy is unknown.
    pub(crate) fn column(digest: Option<Self>) -> i64 {
        digest.map_or(0, |digest| digest.0)
    }

    /// The digest in a column.
    pub(crate) fn from_column(number: i64) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<PolicyDigest> {
        PolicyDigest::of_lines(&text.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn policies_that_accept_the_same_hosts_are_the_same() {
        let pattern = |text: &str| MxPattern::parse(text).unwrap();
        let ours = Some(PolicyDigest::of_patterns(&[pattern("mx1.a.example"), pattern("*.b.example")]));
        let same = "version: STSv1\nmode: testing\nmx: mx1.a.example\nmx: *.b.example\nmax_age: 86400";
        assert_eq!(of(same), ours);
        assert_eq!(of("MX:*.B.example.\nmx: MX1.A.example\nmode: enforce\nmx: mx1.a.example"), ours);
        assert_ne!(of("mx: mx1.a.example"), ours);
        assert_ne!(of("mode: none\nmx: mx1.a.example\nmx: *.b.example"), ours);
        assert_eq!(of("mode: none"), of("mode: none\nmx: x.example"));
    }

    #[test]
    fn a_policy_without_patterns_is_unknown() {
        for text in ["", "version: STSv1\nmode: testing", "mx mx1.a.example", "no lines of a policy"] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(PolicyDigest::from_column(PolicyDigest::column(None)), None);
        let some = of("mx: a.example");
        assert_eq!(PolicyDigest::from_column(PolicyDigest::column(some)), some);
    }
}
