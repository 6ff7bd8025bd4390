//! The policy host: names, addresses, TLS, certificate, HTTP (RFC 8461 §3.3).

use crate::catalogue::{Check, Part, Severity};
use crate::certificate::{Kind, chain_line, ends_soon};
use crate::finding::Findings;
use crate::observed::{ObservedDomain, ObservedPolicyHost};
use net::certificate::{CertificateFacts, Problem};
use net::https::{FetchError, Fetched, Page, Revocation, Visit};
use net::tls::TlsFacts;

const HOUR: u64 = 3600;

/// Without a record, trouble with the policy host is no news: the missing record has told whether there is
/// one.
pub(crate) fn check(seen: &ObservedDomain, findings: &mut Findings) {
    let host = &seen.host;
    let is_announced = match &seen.record {
        Ok(answer) => {
            answer.texts().any(|text| text.get(..7).is_some_and(|v| v.eq_ignore_ascii_case(b"v=STSv1")))
        }
        Err(error) => !error.is_absence(),
    };
    if host.is_nowhere() && !is_announced {
        return;
    }
    findings.looked_at(&[Part::PolicyHost]);
    names(seen, findings);
    if host.visits.is_empty() {
        return unfetched(seen, is_announced, findings);
    }
    each_address(host, findings);
    let reached = host.visits.iter().any(|visit| visit.tls.is_some());
    if reached {
        findings.looked_at(&[Part::Https]);
    }
    if host.without_sni.is_some() {
        findings.looked_at(&[Part::HttpsDeep]);
    }
    match host.fetched() {
        Ok(_) => {
            // Of a bad certificate only the first fault is known.
            findings.looked_at(&[Part::HttpsCertificate, Part::Http]);
            details(seen, findings);
        }
        Err(_) => unfetched(seen, is_announced, findings),
    }
}

fn names(seen: &ObservedDomain, findings: &mut Findings) {
    let host = &seen.host;
    let Ok(found) = &host.addresses else { return };
    if let Some(target) = found.aliases.last() {
        findings.add(
            Check::HostCname,
            format!("{} is delegated to {target}", host.name),
            "Whoever runs that host decides what senders read. When you leave them, take the CNAME away first: \
             who gets the name after you can publish a policy for you.",
            [],
        );
    }
    for address in &found.addresses {
        if let Some(what) = seen.special(*address) {
            findings.add(
                Check::HostPrivate,
                format!("{} has the address {address}, which is {what}", host.name),
                "No sender fetches from it.",
                [format!("{}.  A  192.0.2.1   ; a public address of your policy host", host.name)],
            );
        }
    }
}

/// A visit that found nobody in time is one without a connection.
fn unanswered(visit: &Visit) -> Result<Fetched, FetchError> {
    match visit.judged() {
        Err(FetchError::Time) if visit.tls.is_none() => {
            Err(FetchError::Connect("no answer in time".to_owned()))
        }
        outcome => outcome,
    }
}

/// What differs from address to address.
fn each_address(host: &ObservedPolicyHost, findings: &mut Findings) {
    let outcomes: Vec<_> = host.visits.iter().map(|visit| (visit.address, unanswered(visit))).collect();
    let Some((_, Ok(good))) = outcomes.iter().find(|(_, outcome)| outcome.is_ok()) else { return };
    for (address, outcome) in &outcomes {
        match outcome {
            Err(FetchError::Connect(why)) if address.is_ipv6() => findings.add(
                Check::HostIpv6Broken,
                format!("{} has the address {address}, which takes no connection: {why}", host.name),
                "Senders try IPv6 first and lose time, or give up. Mend it or take the AAAA record away.",
                [format!("curl -6 -v https://{}/.well-known/mta-sts.txt", host.name)],
            ),
            Err(error) => findings.add(
                Check::HostPartial,
                format!("{} fails at {address} and answers elsewhere: {error}", host.name),
                "Which address a sender takes is up to it: some get no policy.",
                [format!(
                    "curl -v --resolve {0}:443:{address} https://{0}/.well-known/mta-sts.txt",
                    host.name
                )],
            ),
            Ok(other) if other.body != good.body => findings.add(
                Check::HostPartial,
                format!("{} serves another policy at {address} than at {}", host.name, good.address),
                "Which one a sender gets is up to chance. Bring the servers in step.",
                [format!(
                    "curl -s --resolve {0}:443:{address} https://{0}/.well-known/mta-sts.txt",
                    host.name
                )],
            ),
            Ok(_) => {}
        }
    }
}

fn unfetched(seen: &ObservedDomain, is_announced: bool, findings: &mut Findings) {
    let Err(error) = seen.host.fetched() else { return };
    if !is_announced {
        return;
    }
    let name = &seen.host.name;
    let visit = seen.host.visits.iter().find(|visit| visit.judged().as_ref().err() == Some(&error));
    let (check, remedy) = told(seen, visit, &error);
    let why = "New senders can't get the policy and deliver as if there were none; those who have it go on with \
         it until it expires.";
    let severity = if check == Check::HttpsSlow { Severity::Error } else { check.severity() };
    let detail = visit.and_then(|visit| visit.outcome.as_ref().ok()).and_then(wall);
    let what = match detail.filter(|_| check == Check::HttpsAuth) {
        Some(wall) => format!("no policy can be fetched from {name}: {wall} stands before it ({error})"),
        None => format!("no policy can be fetched from {name}: {error}"),
    };
    findings.add_as(severity, check, what, why, [remedy]);
    findings.seen_by(visit.iter().flat_map(|visit| evidence(visit)));
}

fn told(seen: &ObservedDomain, visit: Option<&Visit>, error: &FetchError) -> (Check, String) {
    let host = &seen.host.name;
    let url = format!("https://{host}/.well-known/mta-sts.txt");
    let tls = |more: &str| format!("openssl s_client -connect {host}:443 -servername {host}{more}");
    match error {
        FetchError::HostName | FetchError::Dns(_) => {
            let line = format!("{host}.  A  192.0.2.1   ; the address of your policy host, or a CNAME to it");
            (Check::HostMissing, line)
        }
        FetchError::SpecialAddress { .. } => {
            (Check::HostPrivate, format!("{host}.  A  192.0.2.1   ; a public address of your policy host"))
        }
        FetchError::Connect(_) => (Check::HostUnreachable, format!("curl -v {url}")),
        FetchError::Certificate(problem) => {
            let facts = visit.and_then(|visit| visit.tls.as_ref());
            (of_certificate(problem, facts), tls(""))
        }
        FetchError::TlsVersion(_) => (Check::HttpsTlsOld, tls(" -tls1_2")),
        FetchError::Tls(_) => (Check::HttpsHandshake, tls("")),
        FetchError::Status(status) => {
            let page = visit.and_then(|visit| visit.outcome.as_ref().ok());
            let check = match status {
                300..=399 => Check::HttpsRedirect,
                401 | 403 | 407 | 429 => Check::HttpsAuth,
                _ if page.and_then(wall).is_some() => Check::HttpsAuth,
                _ => Check::HttpsStatus,
            };
            (check, format!("curl -i {url}   # has to answer 200"))
        }
        FetchError::MediaType(_) => (Check::HttpsType, "Content-Type: text/plain".to_owned()),
        FetchError::Size => (Check::HttpsSize, format!("curl -s {url} | wc -c")),
        FetchError::Time => (Check::HttpsSlow, format!("curl -v {url}")),
        FetchError::Compressed(_) | FetchError::Http(_) => (Check::HttpsBroken, format!("curl -v {url}")),
    }
}

/// Who stands before a page, by the marks that they leave.
fn wall(page: &Page) -> Option<&'static str> {
    let body = page.body.as_deref().unwrap_or_default();
    let body =
        String::from_utf8_lossy(body.get(..8192.min(body.len())).unwrap_or_default()).to_ascii_lowercase();
    let says = |header: &str, word: &str| {
        page.header(header).is_some_and(|value| value.to_ascii_lowercase().contains(word))
    };
    match () {
        () if says("cf-mitigated", "challenge") || body.contains("challenge-platform") => {
            Some("a challenge by Cloudflare")
        }
        () if says("server", "awselb") || says("x-amzn-waf-action", "") => Some("AWS WAF"),
        () if body.contains("_incapsula_") || says("x-iinfo", "") => Some("Imperva"),
        () if says("server", "akamaighost") => Some("Akamai"),
        () if page.header("www-authenticate").is_some() => Some("a password"),
        () if body.contains("captcha") => Some("a captcha"),
        () => None,
    }
}

fn evidence(visit: &Visit) -> Vec<String> {
    let mut lines = vec![format!("address {}", visit.address)];
    if let Some(tls) = &visit.tls {
        lines.push(format!("{} {}", tls.version, tls.cipher));
        lines.extend(tls.chain.iter().map(chain_line));
    }
    if let Ok(page) = &visit.outcome {
        lines.push(format!("status {}", page.status));
        lines.extend(page.headers.iter().map(|(name, value)| format!("{name}: {value}")));
    }
    lines
}

/// Which check a bad certificate of the policy host trips.
fn of_certificate(problem: &Problem, facts: Option<&TlsFacts>) -> Check {
    match Kind::of(problem, facts) {
        Kind::Expired => Check::HttpsCertExpired,
        Kind::NotYet => Check::HttpsCertNotYet,
        Kind::Name => Check::HttpsCertName,
        Kind::CommonNameOnly => Check::HttpsCertCnOnly,
        Kind::OfItself => Check::HttpsCertSelf,
        Kind::ChainCut => Check::HttpsCertChain,
        Kind::Untrusted => Check::HttpsCertUntrusted,
    }
}

/// What is odd about a host that gives a policy.
fn details(seen: &ObservedDomain, findings: &mut Findings) {
    let host = &seen.host;
    let name = &host.name;
    let Some(visit) = host.visits.iter().find(|visit| visit.judged().is_ok()) else { return };
    let own = visit.tls.as_ref().and_then(|tls| tls.chain.first());
    if let Some((own, ending)) = own.and_then(|own| Some((own, ends_soon(own, seen.now)?))) {
        findings.add(
            Check::HttpsCertExpiring,
            format!("the certificate of {name} {ending}"),
            "When it ends, no sender can fetch or renew the policy. Renew it now, and find out why that did not \
             happen by itself.",
            [],
        );
        findings.seen_by([chain_line(own)]);
    }
    if visit.took > seen.slow {
        findings.add(
            Check::HttpsSlow,
            format!("{name} takes {:.1} seconds for the policy file", visit.took.as_secs_f32()),
            "Senders give up after a minute at the latest, many sooner.",
            [format!("curl -o /dev/null -w '%{{time_total}}\\n' https://{name}/.well-known/mta-sts.txt")],
        );
    }
    if let Some(age) = visit.outcome.as_ref().ok().and_then(cached_for).filter(|age| *age > HOUR) {
        findings.add(
            Check::HttpsCache,
            format!("{name} lets caches keep the policy file for {age} seconds"),
            "A proxy in front may hand out the old file after the id has changed.",
            ["Cache-Control: max-age=300".to_owned()],
        );
    }
    without_sni(host, visit, findings);
    as_browser(host, visit, findings);
    caa(seen, own, findings);
    revocation(host, own, findings);
}

fn revocation(host: &ObservedPolicyHost, own: Option<&CertificateFacts>, findings: &mut Findings) {
    if host.revocation != Some(Revocation::Revoked) {
        return;
    }
    findings.add(
        Check::HttpsRevoked,
        format!("the certificate of {} is on its authority's list of revoked ones", host.name),
        "Authorities take a certificate back when its key was lost or its name was not proven. Senders that look at such lists \
         can't fetch the policy, and who has the key could serve another. Order a new one with a new key.",
        [format!("certbot certonly --force-renewal --new-key -d {}", host.name)],
    );
    findings.seen_by(own.map(chain_line));
}

fn cached_for(page: &Page) -> Option<u64> {
    let control = page.header("cache-control")?.to_ascii_lowercase();
    let value =
        |key: &str| control.split(',').find_map(|part| part.trim().strip_prefix(key)?.parse::<u64>().ok());
    value("s-maxage=").or_else(|| value("max-age="))
}

fn without_sni(host: &ObservedPolicyHost, visit: &Visit, findings: &mut Findings) {
    let Some(nameless) = &host.without_sni else { return };
    let fingerprint = |visit: &Visit| Some(visit.tls.as_ref()?.chain.first()?.fingerprint.clone());
    if fingerprint(nameless) != fingerprint(visit) && nameless.judged().is_err() {
        // Every sender that fetches policies names the host, so that nothing is lost today.
        findings.add_as(
            Severity::Info,
            Check::HttpsSni,
            format!("without SNI {} gives another certificate, or none", host.name),
            "Senders have to name the host in the handshake, so this is fine; only programs of old trip over it.",
            [],
        );
    }
}

fn as_browser(host: &ObservedPolicyHost, visit: &Visit, findings: &mut Findings) {
    let Some(other) = &host.as_browser else { return };
    let body = |visit: &Visit| visit.judged().map(|fetched| fetched.body).ok();
    if body(other) != body(visit) {
        findings.add(
            Check::HttpsUserAgent,
            format!("{} answers a browser otherwise than a program", host.name),
            "Something in front looks at who asks. The next rule may keep senders out: let the path of the policy \
             file through for everyone.",
            [format!("curl -A Mozilla/5.0 -i https://{}/.well-known/mta-sts.txt", host.name)],
        );
    }
}

/// Authorities by the name that their certificates carry, and what CAA calls them.
const AUTHORITIES: &[(&str, &[&str])] = &[
    ("let's encrypt", &["letsencrypt.org"]),
    ("zerossl", &["sectigo.com", "zerossl.com"]),
    ("sectigo", &["sectigo.com", "comodoca.com"]),
    ("google trust", &["pki.goog"]),
    ("digicert", &["digicert.com"]),
    ("globalsign", &["globalsign.com"]),
    ("ssl.com", &["ssl.com"]),
    ("buypass", &["buypass.com"]),
    ("actalis", &["actalis.it"]),
    ("amazon", &["amazon.com", "amazontrust.com", "awstrust.com", "amazonaws.com"]),
];

fn caa(seen: &ObservedDomain, own: Option<&CertificateFacts>, findings: &mut Findings) {
    let issuers: Vec<&str> = seen
        .host
        .caa
        .iter()
        .filter(|caa| caa.tag == "issue")
        .map(|caa| caa.value.split(';').next().unwrap_or_default().trim())
        .collect();
    let Some(own) = own.filter(|_| !issuers.is_empty()) else { return };
    let known = AUTHORITIES.iter().find(|(name, _)| own.issuer.to_ascii_lowercase().contains(name));
    let is_nobody = issuers.iter().all(|domain| domain.is_empty());
    let allowed = known.map(|(_, allowed)| *allowed).unwrap_or_default();
    let is_let = issuers.iter().any(|domain| allowed.iter().any(|known| domain.eq_ignore_ascii_case(known)));
    if is_let || known.is_none() && !is_nobody {
        return;
    }
    let shown = if is_nobody { "no one".to_owned() } else { issuers.join(", ") };
    findings.add(
        Check::HttpsCaa,
        format!(
            "CAA lets {shown} issue for {}, and the certificate in use is by {}",
            seen.host.name, own.issuer
        ),
        "The renewal will be refused, and the policy host stops answering when this certificate ends.",
        [format!("{}.  CAA  0 issue \"{}\"", seen.domain, allowed.first().unwrap_or(&"letsencrypt.org"))],
    );
    findings.seen_by(seen.host.caa.iter().map(|caa| format!("CAA {} {:?}", caa.tag, caa.value)));
}
