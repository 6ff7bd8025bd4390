//! The zone by its name servers: do they say the same, and is it signed.

use crate::catalogue::{Check, Part};
use crate::finding::Findings;
use crate::observed::ObservedDomain;
use net::dns::{Answer, DnsError, Security, ServerAnswer};

pub(crate) fn check(seen: &ObservedDomain, findings: &mut Findings) {
    findings.looked_at(&[Part::Dns]);
    if let Some(Ok(said)) = &seen.servers {
        findings.looked_at(&[Part::NameServers]);
        each(seen, said, findings);
    }
    if !seen.sees_signatures {
        return findings.add(
            Check::DnssecUnseen,
            "the DNS resolver used here does not pass DNSSEC on, so nobody can tell what is signed",
            "That is this network's, not the domain's: DANE and the zone's signatures were not looked at. Ask a \
             resolver that validates (Debian: apt install unbound), or one on the internet:",
            [format!("sternpost check --resolver 9.9.9.9 {}", seen.domain)],
        );
    }
    findings.looked_at(&[Part::Signed]);
    if seen.mx_security() == Security::Insecure {
        findings.add(
            Check::DnssecUnsigned,
            format!("the zone of {} is not signed", seen.domain),
            "MTA-STS works all the same: its proof is the certificate of the policy host. DANE needs a signed zone, \
             and so do senders that have never seen the policy, if they are to notice that someone hides it.",
            [],
        );
    }
}

fn each(seen: &ObservedDomain, said: &[ServerAnswer], findings: &mut Findings) {
    let name = format!("_mta-sts.{}", seen.domain);
    let answers = |one: &&ServerAnswer| one.said.as_ref().err().is_none_or(DnsError::is_absence);
    let (good, lame): (Vec<&ServerAnswer>, Vec<&ServerAnswer>) = said.iter().partition(answers);
    // When nobody answers it is this network that lets no question through: the resolver got an answer.
    for one in lame.iter().filter(|_| !good.is_empty()) {
        let why = one.said.as_ref().err().map(ToString::to_string).unwrap_or_default();
        findings.add(
            Check::DnsNsLame,
            format!("the name server {} does not answer for {name}: {why}", one.server),
            "Resolvers lose time with it, and the domain when the others fail. Mend it, or take it out of the NS set.",
            [format!("dig @{} {name} TXT +norecurse", one.server)],
        );
    }
    let told = |one: &ServerAnswer| match &one.said {
        Ok(answer) => texts(answer),
        Err(_) => vec!["nothing".to_owned()],
    };
    let Some(first) = good.first() else { return };
    if let Some(other) = good.iter().find(|one| told(one) != told(first)) {
        findings.add(
            Check::DnsNsDisagree,
            format!(
                "name servers disagree about {name}: {} says {}, {} says {}",
                first.server,
                told(first).join(" | "),
                other.server,
                told(other).join(" | ")
            ),
            "Which policy a sender sees depends on which server its resolver asks. Look at zone transfers and \
             serials; right after a change it passes by itself.",
            [format!("dig @{} {} SOA +norecurse", other.server, seen.domain)],
        );
    }
}

fn texts(answer: &Answer) -> Vec<String> {
    let mut texts: Vec<String> =
        answer.texts().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
    texts.extend(answer.aliases.last().map(|target| format!("CNAME {target}")));
    texts.sort();
    texts
}
