//! Examination of a domain: [`Checker::observe`] collects what is published and served, then each topic
//! module judges its part. The topics are pure, so the order in which they run only sets the order of
//! findings of equal severity.

use crate::catalogue::Part;
use crate::finding::{Examination, Findings};
use crate::known::Known;
use crate::observe::Checker;
use crate::observed::ObservedDomain;
use crate::progress::Progress;
use crate::{
    companions, dane, delivery, domain, matching, mx, policy, policy_host, record, rollout, servers, tls,
    tlsrpt,
};
use formats::{DomainName, Mode};
use net::BoxFuture;

impl Checker {
    /// Everything that can be said about `domain` now.
    pub async fn examine(&self, domain: &DomainName) -> Examination {
        self.examine_with(domain, &Known::default(), &()).await
    }

    /// The same, with what is known from before, and with someone watching.
    pub fn examine_with<'a>(
        &'a self,
        domain: &'a DomainName,
        known: &'a Known,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Examination> {
        Box::pin(async move {
            let seen = self.observe(domain, progress).await;
            judge(&seen, known)
        })
    }
}

fn judge(seen: &ObservedDomain, known: &Known) -> Examination {
    let mut findings = Findings::default();
    if !domain::check(seen, &mut findings) {
        return findings.conclude(&seen.domain, Mode::None);
    }
    for (part, is_known) in [
        (Part::ExtraProbes, seen.is_deep),
        (Part::History, known.previous.is_some()),
        (Part::Inbox, known.last_report.is_some()),
    ] {
        if is_known {
            findings.looked_at(&[part]);
        }
    }
    record::check(seen, known, &mut findings);
    servers::check(seen, &mut findings);
    policy_host::check(seen, &mut findings);
    policy::check(seen, &mut findings);
    matching::check(seen, &mut findings);
    mx::check(seen, &mut findings);
    tls::check(seen, &mut findings);
    dane::check(seen, &mut findings);
    tlsrpt::check(seen, known, &mut findings);
    rollout::check(seen, known, &mut findings);
    delivery::check(seen, &mut findings);
    companions::check(seen, &mut findings);
    let published = seen.policy.id.clone().zip(seen.policy.file.clone());
    Examination { published, ..findings.conclude(&seen.domain, seen.mode()) }
}
