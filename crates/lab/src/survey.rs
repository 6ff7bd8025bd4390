//! A population of mail domains with the faults of a measurement in its shares, for `sternpost check --from`: the table of Ashiq,
//! Fiebig and Chung (ACM IMC 2025, doi 10.1145/3730567.3732916), or any other. [`Lab::populate`] serves it. Domains are in zones
//! of their own top-level names, `s0.`, `s1.` and so on, so that each is a registered domain.

use crate::behavior::Behavior;
use crate::dns::{Rr, Signing};
use crate::internet::{Lab, LabError};
use crate::pki::{Cert, Identity};
use crate::policy_host::{HttpBehavior, Site};
use crate::random::Random;
use formats::DomainName;
use std::net::Ipv4Addr;

/// What is wrong with a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The record has no `id`.
    RecordNoId,
    /// The `id` has hyphens.
    RecordIdForm,
    /// The record has another version.
    RecordVersion,
    /// Lines of the policy are in the record.
    RecordPolicyLines,
    /// The policy host has no address.
    HostNoAddress,
    /// Nothing listens at the address of the policy host.
    HostClosed,
    /// A registrar's parking page answers for all names of the domain.
    HostParked,
    /// The certificate of the policy host is for another name.
    HostCertificateName,
    /// The certificate of the policy host is self-signed or has expired.
    HostCertificateOther,
    /// The provider of the policy host has no certificate for it.
    HostUnknownToProvider,
    /// The policy host answers with status 404 or 500.
    HostStatus,
    /// An mx line of the policy is a mail address.
    PolicyMx,
    /// The policy is malformed in another way.
    PolicySyntax,
    /// The provider serves an empty file.
    PolicyOptOut,
    /// One of two MX hosts has an invalid certificate.
    MxCertificateSome,
    /// The only MX host has an invalid certificate.
    MxCertificateAll,
    /// The policy names the former MX host, which is in the history.
    MatchFormer,
    /// The policy names a host that the domain has nothing to do with.
    MatchOther,
    /// The policy names the policy host.
    MatchPolicyHost,
    /// The policy names another host of the domain, which is not an MX host.
    MatchOwnHost,
    /// The policy has a typing error.
    MatchTypo,
    /// The policy names a host with another end of the name.
    MatchOtherEnd,
}

/// How many domains have a fault, and how many of these have a policy in enforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The fault.
    pub fault: Fault,
    /// The domains with it.
    pub domains: usize,
    /// Those of them whose policy is in enforce; the others are in testing.
    pub in_enforce: usize,
}

const fn share(fault: Fault, domains: usize, in_enforce: usize) -> Share {
    Share { fault, domains, in_enforce }
}

/// The domains that the study looked at on 2024-09-29: those with a record at `_mta-sts`.
pub const PAPER_DOMAINS: usize = 68_030;

/// The faults of the study. Where it gives no modes, half of the policies are in enforce. TLS errors other than wrong names and
/// unknown domains are one class here, and 133 of the 730 policies that name another host of the domain do not name the policy host.
pub const PAPER: &[Share] = &[
    share(Fault::RecordNoId, 65, 32),
    share(Fault::RecordIdForm, 203, 101),
    share(Fault::RecordVersion, 52, 26),
    share(Fault::RecordPolicyLines, 2, 1),
    share(Fault::HostNoAddress, 42, 21),
    share(Fault::HostClosed, 227, 113),
    share(Fault::HostParked, 7_237, 3_618),
    share(Fault::HostCertificateName, 1_148, 574),
    share(Fault::HostCertificateOther, 1_138, 569),
    share(Fault::HostUnknownToProvider, 463, 231),
    share(Fault::HostStatus, 592, 296),
    share(Fault::PolicyMx, 87, 43),
    share(Fault::PolicySyntax, 44, 22),
    share(Fault::PolicyOptOut, 5, 2),
    share(Fault::MxCertificateSome, 117, 58),
    share(Fault::MxCertificateAll, 1_326, 269),
    share(Fault::MatchFormer, 644, 144),
    share(Fault::MatchOther, 379, 85),
    share(Fault::MatchPolicyHost, 597, 134),
    share(Fault::MatchOwnHost, 133, 29),
    share(Fault::MatchTypo, 63, 14),
];

/// A population that is served.
#[derive(Debug, Clone, Default)]
pub struct Population {
    /// The domains, in the order of the list, each with its fault.
    pub domains: Vec<(DomainName, Option<Fault>)>,
    /// Lines `domain,host,date` with the former MX host of each domain that has one.
    pub history: String,
}

/// Domains in a zone. The name server searches a whole zone for names that do not exist, so zones are small.
const IN_A_ZONE: usize = 500;

/// Names of MX hosts that domains share.
const SHARED_HOSTS: usize = 500;

/// The domain of the MX hosts with valid certificates, and those of the ones with invalid certificates.
const GOOD: &str = "good-mail.example";
const BAD: [(&str, Cert); 3] = [
    ("self-signed-mail.example", Cert::SelfSigned),
    ("expired-mail.example", Cert::Expired),
    ("misnamed-mail.example", Cert::WrongName),
];

/// The zone of the names that a provider of policy hosts has its customers alias to.
const PROVIDER: &str = "dmarcreport.com";

/// What is served for one domain.
struct Served {
    host: Option<Vec<Rr>>,
    cert: Cert,
    answers: Option<HttpBehavior>,
    mx: Vec<String>,
    records: Vec<(String, Vec<Rr>)>,
}

impl Lab {
    /// Serves so many domains with these faults, in an order that depends on `seed`; the other domains are without fault.
    ///
    /// # Errors
    /// If a certificate can't be issued, or a zone or server can't be set up.
    pub async fn populate(
        &self,
        domains: usize,
        faults: &[Share],
        seed: u64,
    ) -> Result<Population, LabError> {
        self.shared_mail().await?;
        let closed = self.fresh_address();
        self.names.add_zone(&format!("{PROVIDER}."), Signing::Unsigned)?;
        let plan = plan(domains, faults, seed);
        let zones: Vec<String> = (0..domains.div_ceil(IN_A_ZONE)).map(|zone| format!("s{zone}.")).collect();
        self.names.add_zones(&zones, Signing::Unsigned)?;
        let (mut population, mut aliases) = (Population::default(), Vec::new());
        for (zone, part) in plan.chunks(IN_A_ZONE).enumerate() {
            let mut records = Vec::new();
            for (at, (fault, enforced)) in part.iter().enumerate() {
                let number = zone * IN_A_ZONE + at;
                let name = format!("d{number}.s{zone}");
                let mode = if *enforced { "enforce" } else { "testing" };
                self.serve_domain(&name, number, (*fault, mode), closed, &mut records).await?;
                if matches!(fault, Some(Fault::HostUnknownToProvider | Fault::PolicyOptOut)) {
                    aliases.push((format!("d{number}.{PROVIDER}."), vec![Rr::A(self.policy_host_address())]));
                }
                if *fault == Some(Fault::MatchFormer) {
                    population.history += &format!("{name},{},2024-08-25\n", former(number));
                }
                let domain = DomainName::parse(&name).map_err(|_| LabError::Name(name))?;
                population.domains.push((domain, *fault));
            }
            self.names.set_all(&format!("s{zone}."), records)?;
        }
        self.names.set_all(&format!("{PROVIDER}."), aliases)?;
        Ok(population)
    }

    /// Starts the MX hosts that domains share.
    async fn shared_mail(&self) -> Result<(), LabError> {
        for (parent, cert) in [(GOOD, Cert::Wildcard)].into_iter().chain(BAD) {
            let host = format!("mx.{parent}");
            let identity = self.pki.issue(&host, cert)?;
            let name = DomainName::parse(&host).map_err(|_| LabError::Name(host))?;
            let address = self.start_mail_host(&name, Behavior::Good, &identity).await?;
            self.names.add_zone(&format!("{parent}."), Signing::Unsigned)?;
            let host = |number: usize| (format!("mx{number}.{parent}."), vec![Rr::A(address)]);
            let mut records: Vec<_> = (0..SHARED_HOSTS).map(host).collect();
            records.push((format!("{parent}."), vec![Rr::Mx(10, format!("mx0.{parent}."))]));
            self.names.set_all(&format!("{parent}."), records)?;
        }
        Ok(())
    }

    /// Serves a domain, and adds its records. Nothing listens at the address `closed`.
    async fn serve_domain(
        &self,
        name: &str,
        number: usize,
        (fault, mode): (Option<Fault>, &str),
        closed: Ipv4Addr,
        records: &mut Vec<(String, Vec<Rr>)>,
    ) -> Result<(), LabError> {
        let txt = |text: &str| vec![Rr::Txt(vec![text.to_owned()])];
        let here = vec![Rr::A(self.policy_host_address())];
        let good = format!("mx{}.{GOOD}", number % SHARED_HOSTS);
        let bad = BAD.get(number % BAD.len()).map_or(GOOD, |(parent, _)| *parent);
        let mut served = Served {
            host: Some(here.clone()),
            cert: Cert::Good,
            answers: None,
            mx: vec![good.clone()],
            records: Vec::new(),
        };
        let mut record = "v=STSv1; id=20260101000000;".to_owned();
        let mut lines: Option<Vec<String>> = None;
        let own_mail = format!("mail.{name}");
        match fault {
            None => {}
            Some(Fault::RecordNoId) => record = "v=STSv1;".to_owned(),
            Some(Fault::RecordIdForm) => record = "v=STSv1; id=2026-01-01;".to_owned(),
            Some(Fault::RecordVersion) => record = "v=STS1; id=20260101000000;".to_owned(),
            Some(Fault::RecordPolicyLines) => {
                record = "v=STSv1; id=20260101000000; mx: a.com; mode: testing;".to_owned();
            }
            Some(Fault::HostNoAddress) => served.host = None,
            Some(Fault::HostClosed) => served.host = Some(vec![Rr::A(closed)]),
            Some(Fault::HostParked) => {
                (served.host, served.cert) = (None, Cert::Parking);
                served.records.push((format!("*.{name}."), here));
                let page = b"<html><p>This domain is parked free, courtesy of Porkbun".to_vec();
                served.answers = Some(HttpBehavior::Typed("text/html", page));
            }
            Some(Fault::HostCertificateName) => served.cert = Cert::WrongName,
            Some(Fault::HostCertificateOther) => {
                served.cert = if number.is_multiple_of(2) { Cert::SelfSigned } else { Cert::Expired };
            }
            Some(Fault::HostUnknownToProvider) => {
                served.host = Some(vec![Rr::Cname(format!("d{number}.{PROVIDER}."))]);
                served.answers = Some(HttpBehavior::Aborts);
            }
            Some(Fault::HostStatus) => {
                let status = if number.is_multiple_of(3) { 500 } else { 404 };
                served.answers = Some(HttpBehavior::Status(status));
            }
            Some(Fault::PolicyMx) => lines = Some(vec![format!("postmaster@{name}")]),
            Some(Fault::PolicySyntax) => {
                let text = format!("version: STSv1\r\nmode={mode}\r\nmx: {good}\r\nmax_age: 604800\r\n");
                served.answers = Some(HttpBehavior::Policy(text));
            }
            Some(Fault::PolicyOptOut) => {
                served.host = Some(vec![Rr::Cname(format!("d{number}.{PROVIDER}."))]);
                served.answers = Some(HttpBehavior::Policy(String::new()));
            }
            Some(Fault::MxCertificateSome) => served.mx.push(format!("mx{}.{bad}", number % SHARED_HOSTS)),
            Some(Fault::MxCertificateAll) => served.mx = vec![format!("mx{}.{bad}", number % SHARED_HOSTS)],
            Some(Fault::MatchFormer) => lines = Some(vec![former(number)]),
            Some(Fault::MatchOther) => lines = Some(vec![format!("post{number}.nobody-knows.example")]),
            Some(Fault::MatchPolicyHost | Fault::MatchOwnHost) => {
                let address = self.own_mail(&own_mail).await?;
                served.records.push((format!("{own_mail}."), vec![Rr::A(address)]));
                let host = if fault == Some(Fault::MatchPolicyHost) { "mta-sts" } else { "smtp-gateway" };
                (served.mx, lines) = (vec![own_mail.clone()], Some(vec![format!("{host}.{name}")]));
            }
            Some(Fault::MatchTypo) => lines = Some(vec![good.replace("good-mail", "god-mail")]),
            Some(Fault::MatchOtherEnd) => lines = Some(vec![good.replace(".example", ".solutions")]),
        }
        let lines: String =
            lines.as_ref().unwrap_or(&served.mx).iter().map(|mx| format!("mx: {mx}\r\n")).collect();
        let policy = format!("version: STSv1\r\nmode: {mode}\r\n{lines}max_age: 604800\r\n");
        let host = format!("mta-sts.{name}");
        if served.host.is_some() || fault == Some(Fault::HostParked) {
            let identity: Identity = self.pki.issue(&host, served.cert)?;
            let answers = served.answers.unwrap_or(HttpBehavior::Policy(policy));
            self.sites.put(&host, Site { answers, identity });
        }
        records.extend(served.host.map(|own| (format!("{host}."), own)));
        records.push((format!("_mta-sts.{name}."), txt(&record)));
        if number.is_multiple_of(2) {
            let reports = format!("v=TLSRPTv1; rua=mailto:tls@{GOOD}");
            records.push((format!("_smtp._tls.{name}."), txt(&reports)));
        }
        let mx = served.mx.iter().zip(1..).map(|(mx, preference)| Rr::Mx(preference * 10, format!("{mx}.")));
        records.push((format!("{name}."), mx.collect()));
        records.append(&mut served.records);
        Ok(())
    }

    /// Starts an MX host of a domain's own.
    async fn own_mail(&self, host: &str) -> Result<Ipv4Addr, LabError> {
        let identity = self.pki.issue(host, Cert::Good)?;
        let name = DomainName::parse(host).map_err(|_| LabError::Name(host.to_owned()))?;
        self.start_mail_host(&name, Behavior::Good, &identity).await
    }
}

/// The former MX host of a domain.
fn former(number: usize) -> String {
    format!("in{number}.former-hoster.example")
}

/// The fault of each domain, and whether its policy is in enforce, in an order that depends on the seed.
fn plan(domains: usize, faults: &[Share], seed: u64) -> Vec<(Option<Fault>, bool)> {
    let mut all = Vec::with_capacity(domains);
    for share in faults {
        all.extend((0..share.domains).map(|number| (Some(share.fault), number < share.in_enforce)));
    }
    all.truncate(domains);
    all.extend((all.len()..domains).map(|number| (None, number % 2 == 0)));
    let mut random = Random::new(seed);
    for at in (1..all.len()).rev() {
        all.swap(at, random.below(at + 1));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_each_fault_as_often_as_asked_for_in_a_mixed_order() {
        let plan = plan(PAPER_DOMAINS, PAPER, 1);
        assert_eq!(plan.len(), PAPER_DOMAINS);
        for share in PAPER {
            let own = || plan.iter().filter(|(fault, _)| *fault == Some(share.fault));
            let enforced = own().filter(|(_, enforced)| *enforced).count();
            assert_eq!((own().count(), enforced), (share.domains, share.in_enforce), "{share:?}");
        }
        let early = plan.iter().take(1000).filter(|(fault, _)| *fault == Some(Fault::HostParked)).count();
        assert!((60..160).contains(&early), "{early}");
    }
}
