//! The builders of lab domains for `sternpost check`, which the tables in [`crate::oddities`] and [`crate::causes`] share.

use crate::case::{Case, TlsaSetup, Topic};
use crate::cases::{good, policy_text, second};
use crate::dns::Rr;
use crate::policy_host::HttpBehavior;

pub(crate) fn odd(name: &'static str, about: &'static str) -> Case {
    good(name, Topic::Preflight, about)
}

pub(crate) fn txt(text: &str) -> Rr {
    Rr::Txt(vec![text.to_owned()])
}

impl Case {
    pub(crate) fn extra(self, label: &str, records: Vec<Rr>) -> Self {
        self.with(|setup| setup.extra.push((label.to_owned(), records)))
    }

    /// Replaces the policy file; `NAME` stands for the domain's label.
    pub(crate) fn lines(self, lines: &str) -> Self {
        let body = lines.replace("NAME", self.name).replace('\n', "\r\n");
        self.body(HttpBehavior::Policy(body))
    }

    pub(crate) fn rua(self, text: &str) -> Self {
        self.with(|setup| setup.tlsrpt_records = vec![vec![text.to_owned()]])
    }

    /// Adds a second MX host; the policy lists both.
    pub(crate) fn two(self, preference: u16) -> Self {
        let mx = [format!("mx1.{}.test", self.name), format!("mx2.{}.test", self.name)];
        let policy = policy_text("enforce", &[&mx[0], &mx[1]], "604800");
        self.body(HttpBehavior::Policy(policy))
            .with(|setup| setup.mx.push(second(|mx| mx.preference = preference)))
    }
}

pub(crate) const DANE_EE: TlsaSetup =
    TlsaSetup { usage: 3, selector: 1, matching: 1, right: true, claims: None };
