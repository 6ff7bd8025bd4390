//! What is behind a policy host that serves no policy: a registrar's parking page or another server for every name of the
//! domain, or a provider that does not know the domain. Certificate, response and addresses together tell.

use super::{Cause, FoundCause};
use crate::catalogue::Check;
use crate::observed::ObservedDomain;
use formats::DomainName;
use net::https::Visit;
use suffix::independent_domain;

/// A cause with the records or commands that remove it.
pub(crate) struct Remedied {
    pub cause: FoundCause,
    pub remedy: Vec<String>,
}

/// Registrars and hosts of parked domains, by a part of the names in their certificates, pages and aliases.
const PARKING: &[(&str, &str)] = &[
    ("porkbun", "Porkbun"),
    ("sedoparking", "Sedo"),
    ("sedo.com", "Sedo"),
    ("parkingcrew", "ParkingCrew"),
    ("bodis.com", "Bodis"),
    ("afternic", "Afternic"),
    ("dan.com", "Dan.com"),
    ("above.com", "Above.com"),
    ("hugedomains", "HugeDomains"),
    ("secureserver.net", "GoDaddy"),
    ("godaddy", "GoDaddy"),
    ("registrar-servers.com", "Namecheap"),
    ("namecheap", "Namecheap"),
    ("dns-parking.com", "Hostinger"),
    ("hostinger", "Hostinger"),
    ("dynadot", "Dynadot"),
    ("name.com", "Name.com"),
    ("squarespace", "Squarespace"),
    ("wixdns", "Wix"),
    ("ui-dns", "IONOS"),
    ("ionos", "IONOS"),
    ("strato", "STRATO"),
    ("united-domains", "united-domains"),
    ("one.com", "one.com"),
];

/// Texts of the pages of parked domains, in lower case.
const PARKED: &[&str] = &[
    "domain is parked",
    "parked domain",
    "parked free",
    "domain parking",
    "this domain is for sale",
    "buy this domain",
    "domain has been registered",
    "domain has expired",
    "future home of",
    "parkingpage",
    "domain is registered",
];

/// Providers of policy hosts, by the end of the names that they have customers alias to.
const POLICY_PROVIDERS: &[(&str, &str)] = &[
    ("dmarcreport.com", "DMARCReport"),
    ("duocircle.com", "DMARCReport"),
    ("powerdmarc.com", "PowerDMARC"),
    ("easydmarc.com", "EasyDMARC"),
    ("easydmarc.us", "EasyDMARC"),
    ("easydmarc.eu", "EasyDMARC"),
    ("mailhardener.com", "Mailhardener"),
    ("uriports.com", "URIports"),
    ("sendmarc.com", "Sendmarc"),
    ("ondmarc.com", "OnDMARC"),
    ("redsift.io", "OnDMARC"),
    ("redsift.cloud", "OnDMARC"),
    ("tutanota.de", "Tuta"),
    ("tutanota.com", "Tuta"),
    ("tuta.com", "Tuta"),
    ("dmarcadvisor.com", "DMARC Advisor"),
    ("dmarcian.com", "dmarcian"),
    ("dmarc-report.com", "DMARC Report"),
    ("valimail.com", "Valimail"),
    ("github.io", "GitHub Pages"),
    ("pages.dev", "Cloudflare Pages"),
    ("netlify.app", "Netlify"),
    ("vercel-dns.com", "Vercel"),
    ("cloudfront.net", "Amazon CloudFront"),
    ("azurestaticapps.net", "Azure Static Web Apps"),
    ("web.app", "Firebase Hosting"),
];

/// The host that the policy host is an alias of, if another organization runs it, with the name of that.
pub(crate) fn provider(seen: &ObservedDomain) -> Option<(&DomainName, String)> {
    let target = seen.host.addresses.as_ref().ok()?.aliases.last()?;
    let there = independent_domain(target.as_str());
    if there == independent_domain(seen.domain.as_str()) {
        return None;
    }
    let is_within = |end: &str| {
        target.as_str().strip_suffix(end).is_some_and(|head| head.is_empty() || head.ends_with('.'))
    };
    let known = POLICY_PROVIDERS.iter().find(|(end, _)| is_within(end));
    Some((target, known.map_or(there, |(_, name)| name).to_owned()))
}

/// Why the policy host of a domain does not serve its policy. `visit` is the visit that failed, if there was one.
pub(crate) fn cause(seen: &ObservedDomain, check: Check, visit: Option<&Visit>) -> Option<Remedied> {
    catch_all(seen, check, visit).or_else(|| unknown(seen, check, visit))
}

/// Signs that a server answers for every name of the domain.
fn catch_all(seen: &ObservedDomain, check: Check, visit: Option<&Visit>) -> Option<Remedied> {
    if !Cause::CatchAll.checks().contains(&check) {
        return None;
    }
    let (host, domain) = (&seen.host.name, &seen.domain);
    let names = visit.map(foreign_names).unwrap_or_default();
    let shown = names.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    let page = visit.and_then(|visit| visit.outcome.as_ref().ok()).and_then(|page| page.body.as_deref().ok());
    let page =
        String::from_utf8_lossy(page.and_then(|body| body.get(..16_384.min(body.len()))).unwrap_or_default())
            .to_ascii_lowercase();
    let aliases = seen.host.addresses.as_ref().map(|found| found.aliases.as_slice()).unwrap_or_default();
    let places =
        names.iter().map(String::as_str).chain(aliases.iter().map(DomainName::as_str)).chain([page.as_str()]);
    let registrar = places.clone().find_map(|text| PARKING.iter().find(|(part, _)| text.contains(part)));
    let is_parked = PARKED.iter().any(|words| page.contains(words));
    // One sign alone is not enough: a certificate for another name may just be a mistake.
    let is_parking = is_parked || registrar.is_some() && !names.is_empty();
    if !seen.host.is_catch_all && !is_parking {
        return None;
    }
    let mut signs = Vec::new();
    if seen.host.is_catch_all {
        signs.push(format!("any name below {domain} has the same addresses, by a wildcard record"));
    }
    if !shown.is_empty() {
        signs.push(format!("the server presents a certificate for {shown}"));
    }
    match registrar {
        Some((_, name)) if is_parked => signs.push(format!("its page is a parking page of {name}")),
        Some((_, name)) => signs.push(format!("the server is one of {name}")),
        None if is_parked => signs.push("its page is that of a parked domain".to_owned()),
        None => {}
    }
    let what = format!("{host} was never set up: {}.", signs.join("; "));
    let cause = FoundCause { id: Cause::CatchAll, what };
    let remedy = vec![
        format!(
            "{host}.  A  192.0.2.1   ; replace with the address of your policy host: a record of its own goes before the wildcard"
        ),
        format!("sternpost init {domain}   # or remove _mta-sts.{domain}, if you do not want MTA-STS"),
    ];
    Some(Remedied { cause, remedy })
}

/// The names in the certificate of a visit, if none of them is in the host's organization.
fn foreign_names(visit: &Visit) -> Vec<String> {
    let own = visit.tls.as_ref().filter(|tls| tls.pkix.is_err()).and_then(|tls| tls.chain.first());
    own.map(|own| {
        own.names.iter().cloned().chain(own.common_name.clone().filter(|_| own.names.is_empty())).collect()
    })
    .unwrap_or_default()
}

/// A provider that has no certificate or no policy for the domain.
fn unknown(seen: &ObservedDomain, check: Check, visit: Option<&Visit>) -> Option<Remedied> {
    if !Cause::UnknownToProvider.checks().contains(&check) {
        return None;
    }
    let (target, name) = provider(seen)?;
    let (host, domain) = (&seen.host.name, &seen.domain);
    let status = visit.and_then(|visit| visit.outcome.as_ref().ok()).map(|page| page.status);
    let lacks = match status {
        Some(404 | 410) => "has no policy file for it",
        Some(_) if check == Check::HttpsStatus => return None,
        _ => "has no certificate for it",
    };
    let what = format!(
        "{host} is delegated by CNAME to {target}, and {name} {lacks}: {domain} was never set up there, or is no longer."
    );
    let cause = FoundCause { id: Cause::UnknownToProvider, what };
    let remedy = vec![
        format!("# Set up {domain} at {name}; if you do not use it, remove both records:"),
        format!("{host}.  CNAME  {target}."),
        format!("_mta-sts.{domain}.  TXT"),
    ];
    Some(Remedied { cause, remedy })
}

/// The cause of a policy file without content.
pub(crate) fn empty_file(seen: &ObservedDomain) -> FoundCause {
    match provider(seen) {
        Some((target, name)) => FoundCause {
            id: Cause::ProviderOptOut,
            what: format!(
                "{} is delegated by CNAME to {target}, and {name} serves an empty file, as for domains that opted out or left. \
                 Set up {} there, or remove the CNAME and the record.",
                seen.host.name, seen.domain
            ),
        },
        None => FoundCause {
            id: Cause::EmptyFile,
            what: "The file is empty, without a version, a mode and mx lines.".to_owned(),
        },
    }
}
