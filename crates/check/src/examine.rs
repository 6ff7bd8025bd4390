//! Examination of a domain: [`Checker::observe`] collects what is published and served, then each topic
//! module derives its findings. The topics do no I/O. Findings are sorted at the end, so the order of the
//! topics matters only where one asks whether another has reported a check.

use crate::catalogue::Part;
use crate::finding::{CertificateState, CheckedMx, Examination, Findings};
use crate::known::Known;
use crate::observe::Checker;
use crate::observed::{ObservedDomain, ObservedMxHost};
use crate::progress::Progress;
use crate::{
    companions, dane, delivery, domain, matching, mx, policy, policy_host, record, rollout, servers, tls,
    tlsrpt,
};
use formats::{DomainName, Mode};
use net::BoxFuture;

impl Checker {
    /// Checks `domain` without earlier knowledge and without progress output.
    pub async fn examine(&self, domain: &DomainName) -> Examination {
        self.examine_with(domain, &Known::default(), &()).await
    }

    /// Checks `domain`, compares it with what is already `known`, and reports partial results to `progress`.
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
            findings.mark_examined(&[part]);
        }
    }
    record::check(seen, known, &mut findings);
    servers::check(seen, &mut findings);
    policy_host::check(seen, &mut findings);
    policy::check(seen, &mut findings);
    matching::check(seen, known, &mut findings);
    mx::check(seen, &mut findings);
    tls::check(seen, &mut findings);
    dane::check(seen, known, &mut findings);
    tlsrpt::check(seen, known, &mut findings);
    rollout::check(seen, known, &mut findings);
    delivery::check(seen, &mut findings);
    companions::check(seen, &mut findings);
    let published = seen.policy.id.clone().zip(seen.policy.file.clone());
    let mx_hosts = seen.hosts.iter().map(checked_mx).collect();
    Examination { published, mx_hosts, ..findings.conclude(&seen.domain, seen.mode()) }
}

fn checked_mx(host: &ObservedMxHost) -> CheckedMx {
    let tls = || host.sessions.iter().filter_map(|session| session.report().tls.as_ref());
    let certificate = match tls().next() {
        None => CertificateState::Unknown,
        Some(_) if tls().any(|tls| tls.pkix.is_ok()) => CertificateState::Valid,
        Some(_) => CertificateState::Invalid,
    };
    let facts = tls().find_map(|tls| tls.chain.first().cloned());
    CheckedMx { host: host.name.clone(), certificate, facts }
}
