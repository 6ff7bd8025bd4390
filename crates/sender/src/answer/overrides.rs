//! The operator's own table: domains that are answered another way than by what they publish.

use super::sts::{EffectivePolicy, HeldPolicy};
use formats::domain::DomainError;
use formats::tls_policy::Answer;
use formats::{DomainName, Policy, PolicyId};
use jiff::Timestamp;
use std::collections::HashMap;

/// For which domains a rule holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// This one.
    Domain(DomainName),
    /// All below this one, at any depth, without itself.
    Below(DomainName),
    /// All.
    Everything,
}

impl Scope {
    /// Takes `example.org`, `*.example.org` or `*`.
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        match text.strip_prefix("*.") {
            _ if text == "*" => Ok(Self::Everything),
            Some(parent) => DomainName::parse(parent).map(Self::Below),
            None => DomainName::parse(text).map(Self::Domain),
        }
    }
}

/// What holds for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// This answer, whatever they publish.
    pub answer: Option<Answer>,
    /// This policy in place of theirs.
    pub policy: Option<Policy>,
    /// MTA-STS does not count.
    pub skip_mta_sts: bool,
    /// DANE does not count.
    pub skip_dane: bool,
}

impl Rule {
    /// True when the MTA-STS policy that the domain publishes can change the answer.
    pub fn uses_published_policy(&self) -> bool {
        self.answer.is_none() && self.policy.is_none() && !self.skip_mta_sts
    }

    /// The pinned policy as if it had been fetched.
    pub fn pinned(&self) -> Option<EffectivePolicy> {
        let policy = self.policy.clone()?;
        let held = HeldPolicy {
            body: policy.to_string(),
            policy,
            id: PolicyId::parse("override").ok()?,
            fetched_at: Timestamp::UNIX_EPOCH,
        };
        Some(EffectivePolicy::Policy { held, trouble: None })
    }
}

/// All rules. The nearest one counts: the domain itself, then its parents, then `*`.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    domains: HashMap<DomainName, Rule>,
    below: HashMap<DomainName, Rule>,
    everything: Option<Rule>,
}

impl Overrides {
    /// Adds a rule; false when the scope has one already.
    pub fn add(&mut self, scope: Scope, rule: Rule) -> bool {
        match scope {
            Scope::Domain(name) => self.domains.insert(name, rule).is_none(),
            Scope::Below(name) => self.below.insert(name, rule).is_none(),
            Scope::Everything => self.everything.replace(rule).is_none(),
        }
    }

    /// The rule for a domain.
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

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.domains.len() + self.below.len() + usize::from(self.everything.is_some())
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_rule_counts() {
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
