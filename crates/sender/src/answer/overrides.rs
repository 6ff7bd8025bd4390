//! The operator's override table: rules that replace or skip what a domain publishes.
//!
//! The program builds [`Overrides`] from the configuration. [`super::decide`] applies the rule of a domain.

use super::sts::{EffectivePolicy, HeldPolicy};
use formats::domain::DomainError;
use formats::tls_policy::Answer;
use formats::{DomainName, Policy, PolicyId};
use jiff::Timestamp;
use std::collections::HashMap;

/// The domains that a rule applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// One domain, without its subdomains.
    Domain(DomainName),
    /// All subdomains of a domain, at any depth, without the domain itself.
    Below(DomainName),
    /// All domains.
    Everything,
}

impl Scope {
    /// Parses `example.org`, `*.example.org` or `*`. Fails if the name is not a valid domain.
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        match text.strip_prefix("*.") {
            _ if text == "*" => Ok(Self::Everything),
            Some(parent) => DomainName::parse(parent).map(Self::Below),
            None => DomainName::parse(text).map(Self::Domain),
        }
    }
}

/// The override for a scope.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// The answer to return without a lookup; `None` to look up.
    pub answer: Option<Answer>,
    /// The policy to apply instead of the published one; `None` to use the published one.
    pub policy: Option<Policy>,
    /// Ignore the published MTA-STS policy.
    pub skip_mta_sts: bool,
    /// Ignore the TLSA records of the MX hosts.
    pub skip_dane: bool,
}

impl Rule {
    /// True if the published MTA-STS policy can affect the answer.
    pub fn uses_published_policy(&self) -> bool {
        self.answer.is_none() && self.policy.is_none() && !self.skip_mta_sts
    }

    /// The policy of the rule, in the form of a fetched one; `None` if the rule has none.
    pub fn pinned(&self) -> Option<EffectivePolicy> {
        let policy = self.policy.clone()?;
        let held = HeldPolicy {
            body: policy.to_string(),
            policy,
            id: PolicyId::parse("override").ok()?,
            fetched_at: Timestamp::UNIX_EPOCH,
        };
        Some(EffectivePolicy::Policy { held, refresh_error: None })
    }
}

/// All rules. The most specific one applies: the domain itself, then its closest parent, then `*`.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    domains: HashMap<DomainName, Rule>,
    below: HashMap<DomainName, Rule>,
    everything: Option<Rule>,
}

impl Overrides {
    /// Adds a rule. Returns false if it replaced another rule of the same scope.
    pub fn add(&mut self, scope: Scope, rule: Rule) -> bool {
        match scope {
            Scope::Domain(name) => self.domains.insert(name, rule).is_none(),
            Scope::Below(name) => self.below.insert(name, rule).is_none(),
            Scope::Everything => self.everything.replace(rule).is_none(),
        }
    }

    /// The rule that applies to a domain; `None` if no scope matches.
    pub fn rule(&self, domain: &DomainName) -> Option<&Rule> {
        if let Some(rule) = self.domains.get(domain) {
            return Some(rule);
        }
        let mut rest = domain.as_str();
        while let Some((_, parent)) = rest.split_once('.').filter(|_| !self.below.is_empty()) {
            let rule = DomainName::from_ascii(parent).ok().and_then(|parent| self.below.get(&parent));
            if rule.is_some() {
                return rule;
            }
            rest = parent;
        }
        self.everything.as_ref()
    }

    /// The number of rules.
    pub fn len(&self) -> usize {
        self.domains.len() + self.below.len() + usize::from(self.everything.is_some())
    }

    /// True if there are no rules.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_rule_applies() {
        let mut all = Overrides::default();
        let rule = |reason: &str| Rule { answer: Some(Answer::Temp(reason.into())), ..Rule::default() };
        for scope in ["example.org", "*.example.org", "*.deep.example.org"] {
            assert!(all.add(Scope::parse(scope).unwrap(), rule(scope)));
        }
        assert!(!all.add(Scope::parse("*.EXAMPLE.org.").unwrap(), rule("*.example.org")));
        let found =
            |name: &str| all.rule(&DomainName::parse(name).unwrap()).and_then(|rule| rule.answer.clone());
        let temp = |reason: &str| Some(Answer::Temp(reason.into()));
        assert_eq!(found("example.org"), temp("example.org"));
        assert_eq!(found("a.b.example.org"), temp("*.example.org"));
        assert_eq!(found("x.deep.example.org"), temp("*.deep.example.org"));
        assert_eq!(found("deep.example.org"), temp("*.example.org"));
        assert_eq!(found("notexample.org"), None);
        assert!(Scope::parse("*.").is_err() && Scope::parse("*x").is_err());
    }
}
