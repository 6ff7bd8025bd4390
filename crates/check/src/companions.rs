//! Short findings about related records (DMARC, SPF, BIMI), and about well-known mail and web hosts whose
//! documentation states the `mx` lines or the set-up to use.

use crate::catalogue::{Check, Part};
use crate::causes::behind_host;
use crate::causes::mx_lines::mail_provider;
use crate::finding::Findings;
use crate::observed::ObservedDomain;
use formats::DomainName;
use suffix::independent_domain;

pub(crate) fn check(seen: &ObservedDomain, findings: &mut Findings) {
    findings.mark_examined(&[Part::Companions]);
    let domain = &seen.domain;
    if seen.companions.has_dmarc == Some(false) {
        findings.add(
            Check::DmarcMissing,
            format!("there is no record _dmarc.{domain}"),
            "DMARC protects the domain in the From header against forgery. It is independent of TLS.",
            [format!("_dmarc.{domain}.  TXT  \"v=DMARC1; p=none; rua=mailto:dmarc@{domain}\"")],
        );
    }
    if seen.companions.has_spf == Some(false) {
        findings.add(
            Check::SpfMissing,
            format!("{domain} has no SPF record"),
            "SPF lists the hosts that may send mail for the domain. It is independent of TLS.",
            [format!("{domain}.  TXT  \"v=spf1 mx -all\"")],
        );
    }
    if seen.companions.has_bimi {
        findings.add(
            Check::Bimi,
            format!("{domain} has a BIMI record"),
            "Mail clients may show the logo of a domain that enforces DMARC.",
            [],
        );
    }
    provider(seen, findings);
    two_providers(seen, findings);
}

/// Mail providers: the suffix of their MX names, the name, and the `mx` patterns that they document.
const MAIL_PROVIDERS: &[(&str, &str, &[&str])] = &[
    ("smtp.google.com", "Google Workspace", &["smtp.google.com"]),
    ("aspmx.l.google.com", "Google Workspace", &["aspmx.l.google.com", "*.aspmx.l.google.com"]),
    ("mail.protection.outlook.com", "Microsoft 365", &["*.mail.protection.outlook.com"]),
    ("mx.microsoft", "Microsoft 365 with DANE", &[]),
    ("protonmail.ch", "Proton Mail", &["mail.protonmail.ch", "mailsec.protonmail.ch"]),
    ("messagingengine.com", "Fastmail", &["in1-smtp.messagingengine.com", "in2-smtp.messagingengine.com"]),
    ("mail.icloud.com", "iCloud Mail", &["mx01.mail.icloud.com", "mx02.mail.icloud.com"]),
    ("zoho.com", "Zoho Mail", &["mx.zoho.com", "mx2.zoho.com", "mx3.zoho.com"]),
    ("mailbox.org", "mailbox.org", &["mxext1.mailbox.org", "mxext2.mailbox.org", "mxext3.mailbox.org"]),
];

/// Web hosting providers: the suffix of the policy host's CNAME target, and the name.
const WEB_PROVIDERS: &[(&str, &str)] = &[
    ("github.io", "GitHub Pages"),
    ("pages.dev", "Cloudflare Pages"),
    ("netlify.app", "Netlify"),
    ("vercel-dns.com", "Vercel"),
    ("cloudfront.net", "Amazon CloudFront"),
    ("azurestaticapps.net", "Azure Static Web Apps"),
    ("web.app", "Firebase Hosting"),
];

fn provider(seen: &ObservedDomain, findings: &mut Findings) {
    let ends = |name: &DomainName, end: &str| {
        name.as_str() == end || name.as_str().strip_suffix(end).is_some_and(|head| head.ends_with('.'))
    };
    let mail = MAIL_PROVIDERS.iter().find(|(end, ..)| seen.hosts.iter().any(|host| ends(&host.name, end)));
    if let Some((_, name, patterns)) = mail {
        let lines: Vec<String> = match patterns.is_empty() {
            false => patterns.iter().map(|pattern| format!("mx: {pattern}")).collect(),
            true => seen.hosts.iter().map(|host| format!("mx: {}", host.name)).collect(),
        };
        let hosts = || seen.hosts.iter().map(|host| &host.name);
        let is_moving = *name == "Microsoft 365" && hosts().any(|host| ends(host, "mx.microsoft"));
        let why = match (is_moving, patterns.is_empty()) {
            (true, _) => {
                "The domain moves to its hosts with DANE, mx.microsoft. The policy has to name both until the old MX record is gone; a wildcard matches one label only."
            }
            (false, false) => "Its documentation recommends these mx lines for the policy.",
            (false, true) => {
                "The policy has to name exactly these hosts, since a wildcard matches one label only."
            }
        };
        let mut lines = lines;
        if is_moving {
            let new = hosts().filter(|host| ends(host, "mx.microsoft"));
            lines.extend(new.map(|host| format!("mx: {host}")));
        }
        findings.add(Check::Provider, format!("the mail provider of {} is {name}", seen.domain), why, lines);
    }
    let target = seen.host.addresses.as_ref().ok().and_then(|found| found.aliases.last());
    if let Some((_, name)) = target.and_then(|target| WEB_PROVIDERS.iter().find(|(end, _)| ends(target, end)))
    {
        findings.add(
            Check::Provider,
            format!("the policy host is served by {name}"),
            "`sternpost export` writes the files to deploy there.",
            [],
        );
    }
}

/// Tells that two providers have to agree about the MX hosts: one serves the policy, the other receives the mail.
fn two_providers(seen: &ObservedDomain, findings: &mut Findings) {
    let Some((target, policy)) = seen.binding().and(behind_host::provider(seen)) else { return };
    let own = independent_domain(seen.domain.as_str());
    let foreign =
        seen.hosts.iter().map(|host| host.name.as_str()).find(|name| independent_domain(name) != own);
    let Some(mail) = foreign.filter(|name| independent_domain(name) != independent_domain(target.as_str()))
    else {
        return;
    };
    let name = mail_provider(mail).unwrap_or(independent_domain(mail));
    findings.add(
        Check::ProviderTwo,
        format!("the policy of {} is served by {policy}, and its mail received by {name}", seen.domain),
        "When the mail provider changes its hosts, somebody has to tell the provider of the policy before. Of the domains with \
         two providers 3.4 % had a policy that did not match their MX hosts; of those with one, hardly any.",
        [],
    );
}
