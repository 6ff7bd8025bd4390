//! Rules for report targets (`[[reporter.targets]]`): an operator replaces targets of `_smtp._tls` records, blocks them,
//! or has copies of reports sent elsewhere.
//!
//! [`super::ReportDelivery`] looks up the record of a domain and applies the rules to it. The result of a rule is not
//! matched against the rules again, so rules cannot form a loop. Each target says which rule it came from, and the
//! scheduler records that with the target's reply.

use super::delivery::{host, is_within};
use formats::DomainName;
use formats::limits::RUA_TARGETS;
use formats::tlsrpt_record::Rua;
use std::fmt;

/// A rule for report targets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetRule {
    /// The domains that the reports are about, with their subdomains; `None` is every domain.
    pub about: Option<DomainName>,
    /// The targets that the rule is about; `None` is all targets of the domain.
    pub target: Option<TargetMatch>,
    /// The targets that replace those that match; empty blocks them. `None` leaves them.
    pub send_to: Option<Vec<Rua>>,
    /// Targets that get a copy of each report that is sent.
    pub copy_to: Vec<Rua>,
}

/// The targets that a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetMatch {
    /// Targets at this host or a subdomain of it.
    Host(DomainName),
    /// This target only.
    Uri(Rua),
}

impl TargetMatch {
    fn matches(&self, target: &Rua) -> bool {
        match self {
            Self::Host(name) => is_within(host(target), std::slice::from_ref(name)),
            Self::Uri(uri) => uri == target,
        }
    }
}

impl TargetRule {
    fn is_about(&self, domain: &DomainName) -> bool {
        self.about.as_ref().is_none_or(|name| is_within(domain, std::slice::from_ref(name)))
    }
}

impl fmt::Display for TargetRule {
    /// Names the rule by what it matches.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = self.about.as_ref().map_or("*", DomainName::as_str);
        match &self.target {
            None => write!(f, "the rule for domain {about}"),
            Some(target) => {
                match target {
                    TargetMatch::Host(name) => write!(f, "the rule for target {name}")?,
                    TargetMatch::Uri(uri) => write!(f, "the rule for target {uri}")?,
                }
                if self.about.is_some() { write!(f, " and domain {about}") } else { Ok(()) }
            }
        }
    }
}

/// A target of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTarget {
    /// The URI that the report is sent to.
    pub target: Rua,
    /// True for a copy: whether it arrives does not decide about the report.
    pub is_copy: bool,
    /// The rule that added the target, in words; `None` for a target of the record.
    pub rule: Option<String>,
}

/// The targets of a report after all rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetPlan {
    /// False if the domain requests no reports and no rule sends them: the report is unwanted.
    pub is_wanted: bool,
    /// The targets, copies last, each once.
    pub targets: Vec<PlannedTarget>,
    /// Targets that a rule removed, with that rule in words.
    pub removed: Vec<(Rua, String)>,
    /// The rule that replaced the whole record, in words.
    pub replaced_by: Option<String>,
}

/// Applies the rules to the targets of a domain's record; `None` if it publishes no valid record.
///
/// For each target, the first rule with `send_to` that matches decides. A rule for all targets of the domain precedes
/// those for single targets.
pub fn plan(domain: &DomainName, record: Option<Vec<Rua>>, rules: &[TargetRule]) -> TargetPlan {
    let of_domain: Vec<&TargetRule> = rules.iter().filter(|rule| rule.is_about(domain)).collect();
    let whole = of_domain.iter().find(|rule| rule.target.is_none() && rule.send_to.is_some());
    let mut plan = TargetPlan { is_wanted: record.is_some() || whole.is_some(), ..TargetPlan::default() };
    if !plan.is_wanted {
        return plan;
    }
    let record = record.unwrap_or_default();
    match whole {
        Some(rule) => {
            plan.replaced_by = Some(rule.to_string());
            plan.removed.extend(record.iter().map(|target| (target.clone(), rule.to_string())));
            plan.add(rule.send_to.iter().flatten(), false, Some(rule));
        }
        None => {
            for target in &record {
                match replacing(&of_domain, target) {
                    Some(rule) => {
                        plan.removed.push((target.clone(), rule.to_string()));
                        plan.add(rule.send_to.iter().flatten(), false, Some(rule));
                    }
                    None => plan.add([target], false, None),
                }
            }
        }
    }
    for rule in of_domain {
        let matches = |target: &TargetMatch| record.iter().any(|one| target.matches(one));
        if rule.target.as_ref().is_none_or(matches) {
            plan.add(&rule.copy_to, true, Some(rule));
        }
    }
    plan
}

fn replacing<'r>(rules: &[&'r TargetRule], target: &Rua) -> Option<&'r TargetRule> {
    let matches = |rule: &&&TargetRule| rule.target.as_ref().is_some_and(|one| one.matches(target));
    rules.iter().filter(|rule| rule.send_to.is_some()).find(matches).copied()
}

/// The maximum number of targets of a report, with all replacements and copies.
const MAX_TARGETS: usize = 2 * RUA_TARGETS;

impl TargetPlan {
    fn add<'t>(
        &mut self,
        targets: impl IntoIterator<Item = &'t Rua>,
        is_copy: bool,
        rule: Option<&TargetRule>,
    ) {
        for target in targets {
            let is_new = self.targets.iter().all(|known| known.target != *target);
            if is_new && self.targets.len() < MAX_TARGETS {
                let rule = rule.map(ToString::to_string);
                self.targets.push(PlannedTarget { target: target.clone(), is_copy, rule });
            }
        }
    }

    /// The reason why a report without any target is not sent, in words.
    pub fn without_target(&self) -> String {
        match self.removed.first().map(|(_, rule)| rule).or(self.replaced_by.as_ref()) {
            Some(rule) => format!("blocked by {rule}"),
            None => "the record has no supported target".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn rua(text: &str) -> Rua {
        Rua::parse(text).unwrap().unwrap()
    }

    fn ruas(texts: &[&str]) -> Vec<Rua> {
        texts.iter().map(|text| rua(text)).collect()
    }

    fn rule(about: &str, target: &str, send_to: Option<&[&str]>, copy_to: &[&str]) -> TargetRule {
        let target = match target {
            "" => None,
            uri if uri.contains(':') => Some(TargetMatch::Uri(rua(uri))),
            host => Some(TargetMatch::Host(name(host))),
        };
        let about = (!about.is_empty()).then(|| name(about));
        TargetRule { about, target, send_to: send_to.map(ruas), copy_to: ruas(copy_to) }
    }

    fn shown(plan: &TargetPlan) -> Vec<String> {
        let mark = |target: &PlannedTarget| if target.is_copy { "+" } else { "" };
        plan.targets.iter().map(|target| format!("{}{}", mark(target), target.target)).collect()
    }

    #[test]
    fn a_rule_replaces_the_targets_of_a_domain_also_where_it_has_none() {
        let rules = [rule("corp.example", "", Some(&["https://in.example/r"]), &[])];
        let record = || Some(ruas(&["mailto:r@corp.example"]));
        for (domain, record, expected) in [
            ("corp.example", record(), &["https://in.example/r"][..]),
            ("x.corp.example", None, &["https://in.example/r"]),
            ("notcorp.example", record(), &["mailto:r@corp.example"]),
        ] {
            assert_eq!(shown(&plan(&name(domain), record, &rules)), expected, "{domain}");
        }
        assert!(!plan(&name("other.example"), None, &rules).is_wanted);
        let replaced = plan(&name("corp.example"), record(), &rules);
        assert_eq!(replaced.targets[0].rule.as_deref(), Some("the rule for domain corp.example"));
    }

    #[test]
    fn a_rule_replaces_or_blocks_single_targets_by_host_or_uri() {
        let rules = [
            rule("", "mailto:old@dead.example", Some(&["mailto:new@live.example"]), &[]),
            rule("", "dead.example", Some(&[]), &[]),
        ];
        let record = ruas(&["mailto:old@dead.example", "mailto:x@sub.dead.example", "mailto:y@fine.example"]);
        let done = plan(&name("a.example"), Some(record), &rules);
        assert_eq!(shown(&done), ["mailto:new@live.example", "mailto:y@fine.example"]);
        assert_eq!(done.removed.len(), 2);
        let blocked = plan(&name("a.example"), Some(ruas(&["mailto:x@dead.example"])), &rules);
        assert_eq!((shown(&blocked).len(), blocked.is_wanted), (0, true));
        assert_eq!(blocked.without_target(), "blocked by the rule for target dead.example");
    }

    #[test]
    fn a_copy_goes_with_reports_that_are_sent_and_only_with_these() {
        let rules = [rule("", "", None, &["mailto:me@own.example"])];
        let with = plan(&name("a.example"), Some(ruas(&["mailto:r@a.example"])), &rules);
        assert_eq!(shown(&with), ["mailto:r@a.example", "+mailto:me@own.example"]);
        assert!(!plan(&name("a.example"), None, &rules).is_wanted);
        let own = plan(&name("own.example"), Some(ruas(&["mailto:me@own.example"])), &rules);
        assert_eq!(shown(&own), ["mailto:me@own.example"]);
    }

    #[test]
    fn results_of_rules_are_not_matched_again() {
        let rules = [
            rule("", "a.example", Some(&["mailto:x@b.example"]), &[]),
            rule("", "b.example", Some(&["mailto:x@a.example"]), &[]),
        ];
        let done =
            plan(&name("d.example"), Some(ruas(&["mailto:x@a.example", "mailto:x@b.example"])), &rules);
        assert_eq!(shown(&done), ["mailto:x@b.example", "mailto:x@a.example"]);
    }

    proptest! {
        #[test]
        fn any_rules_leave_distinct_bounded_targets_that_the_record_or_a_rule_names(
            record in proptest::collection::vec(0..6usize, 0..16),
            rules in proptest::collection::vec((0..4usize, 0..6usize, proptest::option::of(proptest::collection::vec(0..40usize, 0..4)), proptest::collection::vec(0..40usize, 0..4)), 0..8),
        ) {
            let uri = |n: &usize| rua(&format!("mailto:r@t{n}.example"));
            let record: Vec<Rua> = record.iter().map(uri).collect();
            let rules: Vec<TargetRule> = rules.iter().map(|(about, target, send, copy)| TargetRule {
                about: (*about < 3).then(|| name(&format!("d{about}.example"))),
                target: (*target < 5).then(|| TargetMatch::Host(name(&format!("t{target}.example")))),
                send_to: send.as_ref().map(|send| send.iter().map(uri).collect()),
                copy_to: copy.iter().map(uri).collect(),
            }).collect();
            let done = plan(&name("d1.example"), Some(record.clone()), &rules);
            prop_assert!(done.targets.len() <= MAX_TARGETS);
            for (at, one) in done.targets.iter().enumerate() {
                prop_assert!(done.targets[..at].iter().all(|other| other.target != one.target));
                let of_rule = rules.iter().any(|rule| {
                    rule.send_to.iter().flatten().chain(&rule.copy_to).any(|target| *target == one.target)
                });
                let is_named = if one.rule.is_some() { of_rule } else { record.contains(&one.target) };
                prop_assert!(is_named);
            }
        }
    }
}
