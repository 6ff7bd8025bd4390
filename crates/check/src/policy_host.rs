//! Checks of the policy host: name, addresses, TLS, certificate and HTTP response (RFC 8461 §3.3).

use crate::catalogue::{Check, Part, Severity};
use crate::causes::behind_host;
use crate::certificate::{CertificateFault, SHORTER_LIVES, chain_line, ends_soon, is_too_long_from_2027};
use crate::finding::Findings;
use crate::observed::{ObservedDomain, ObservedPolicyHost};
use formats::caa::IssueValue;
use net::certificate::{CertificateFacts, Problem};
use net::https::{FetchError, Fetched, Page, Revocation, Visit};
use net::tls::TlsFacts;

const HOUR: u64 = 3600;

/// Without a record, failures of the policy host are not reported: `STS-TXT-MISSING` covers that case.
pub(crate) fn check(seen: &ObservedDomain, findings: &mut Findings) {
    let host = &seen.host;
    let is_announced = seen.announces_policy();
    if host.is_nowhere() && !is_announced {
        return;
    }
    findings.mark_examined(&[Part::PolicyHost]);
    names(seen, findings);
    if host.visits.is_empty() {
        return unfetched(seen, is_announced, findings);
    }
    each_address(host, findings);
    let reached = host.visits.iter().any(|visit| visit.tls.is_some());
    if reached {
        findings.mark_examined(&[Part::Https]);
    }
    if host.without_sni.is_some() {
        findings.mark_examined(&[Part::HttpsDeep]);
    }
    match host.fetched() {
        Ok(_) => {
            // For a bad certificate only the first fault is known, so the other checks can't pass.
            findings.mark_examined(&[Part::HttpsCertificate, Part::Http]);
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
            "The operator of that host controls the policy that senders fetch. Remove the CNAME before you stop using \
             the host: the next owner of its name could publish a policy for your domain.",
            [],
        );
    }
    for address in &found.addresses {
        if let Some(what) = seen.special(*address) {
            findings.add(
                Check::HostPrivate,
                format!("{} has the address {address}, which is {what}", host.name),
                "Senders on the internet can't fetch the policy from it.",
                [format!(
                    "{}.  A  192.0.2.1   ; replace with a public address of your policy host",
                    host.name
                )],
            );
        }
    }
}

/// The outcome of a visit, with a time-out before the TLS handshake counted as a failed connection.
fn unanswered(visit: &Visit) -> Result<Fetched, FetchError> {
    match visit.judged() {
        Err(FetchError::Time) if visit.tls.is_none() => {
            Err(FetchError::Connect("no answer in time".to_owned()))
        }
        outcome => outcome,
    }
}

/// Reports addresses that fail or serve a different policy while another address serves a valid one.
fn each_address(host: &ObservedPolicyHost, findings: &mut Findings) {
    let outcomes: Vec<_> = host.visits.iter().map(|visit| (visit.address, unanswered(visit))).collect();
    let Some((_, Ok(good))) = outcomes.iter().find(|(_, outcome)| outcome.is_ok()) else { return };
    for (address, outcome) in &outcomes {
        match outcome {
            Err(FetchError::Connect(why)) if address.is_ipv6() => findings.add(
                Check::HostIpv6Broken,
                format!("{} has the address {address}, which accepts no connections: {why}", host.name),
                "Senders that try IPv6 first lose time or give up. Fix the address or remove its AAAA record.",
                [format!("curl -6 -v https://{}/.well-known/mta-sts.txt", host.name)],
            ),
            Err(error) => findings.add(
                Check::HostPartial,
                format!("{} fails at {address} but works at another address: {error}", host.name),
                "Senders choose one of the addresses, so some of them get no policy.",
                [format!(
                    "curl -v --resolve {0}:443:{address} https://{0}/.well-known/mta-sts.txt",
                    host.name
                )],
            ),
            Ok(other) if other.body != good.body => findings.add(
                Check::HostPartial,
                format!("{} serves a different policy at {address} than at {}", host.name, good.address),
                "It depends on the chosen address which policy a sender gets. Deploy the same file to all servers.",
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
    // The finding about the address tells it.
    if matches!(error, FetchError::SpecialAddress { .. }) && findings.has(Check::HostPrivate) {
        return;
    }
    let name = &seen.host.name;
    let visit = seen.host.visits.iter().find(|visit| visit.judged().as_ref().err() == Some(&error));
    let (check, remedy) = check_and_remedy(seen, visit, &error);
    let why = "Senders without a cached policy can't get it and deliver as if there were none. Senders with a cached \
         policy use it until it expires.";
    let severity = if check == Check::HttpsSlow { Severity::Error } else { check.severity() };
    let detail = visit.and_then(|visit| visit.outcome.as_ref().ok()).and_then(blocker);
    let what = match detail.filter(|_| check == Check::HttpsAuth) {
        Some(blocker) => {
            format!("no policy can be fetched from {name}: {blocker} blocks the request ({error})")
        }
        None => format!("no policy can be fetched from {name}: {error}"),
    };
    findings.add_as(severity, check, what, why, [remedy]);
    if let Some(found) = behind_host::cause(seen, check, visit) {
        findings.name_remedied(found);
    }
    findings.attach_evidence(visit.iter().flat_map(|visit| evidence(visit)));
}

fn check_and_remedy(seen: &ObservedDomain, visit: Option<&Visit>, error: &FetchError) -> (Check, String) {
    let host = &seen.host.name;
    let url = format!("https://{host}/.well-known/mta-sts.txt");
    let tls = |more: &str| format!("openssl s_client -connect {host}:443 -servername {host}{more}");
    match error {
        FetchError::HostName | FetchError::Dns(_) => {
            let line = format!(
                "{host}.  A  192.0.2.1   ; replace with the address of your policy host, or use a CNAME"
            );
            (Check::HostMissing, line)
        }
        FetchError::SpecialAddress { .. } => (
            Check::HostPrivate,
            format!("{host}.  A  192.0.2.1   ; replace with a public address of your policy host"),
        ),
        FetchError::Connect(_) => (Check::HostUnreachable, format!("curl -v {url}")),
        FetchError::Certificate(problem) => {
            let facts = visit.and_then(|visit| visit.tls.as_ref());
            (certificate_check(problem, facts), tls(""))
        }
        FetchError::TlsVersion(_) => (Check::HttpsTlsOld, tls(" -tls1_2")),
        FetchError::Tls(_) => (Check::HttpsHandshake, tls("")),
        FetchError::Status(status) => {
            let page = visit.and_then(|visit| visit.outcome.as_ref().ok());
            let check = match status {
                300..=399 => Check::HttpsRedirect,
                401 | 403 | 407 | 429 => Check::HttpsAuth,
                _ if page.and_then(blocker).is_some() => Check::HttpsAuth,
                _ => Check::HttpsStatus,
            };
            (check, format!("curl -i {url}   # has to return status 200"))
        }
        FetchError::MediaType(_) => (Check::HttpsType, "Content-Type: text/plain".to_owned()),
        FetchError::Size => (Check::HttpsSize, format!("curl -s {url} | wc -c")),
        FetchError::Time => (Check::HttpsSlow, format!("curl -v {url}")),
        FetchError::Compressed(_) | FetchError::Http(_) => (Check::HttpsBroken, format!("curl -v {url}")),
    }
}

/// The service or mechanism that blocked a request, recognized by headers and page contents.
fn blocker(page: &Page) -> Option<&'static str> {
    let body = page.body.as_deref().unwrap_or_default();
    let body =
        String::from_utf8_lossy(body.get(..8192.min(body.len())).unwrap_or_default()).to_ascii_lowercase();
    let says = |header: &str, word: &str| {
        page.header(header).is_some_and(|value| value.to_ascii_lowercase().contains(word))
    };
    match () {
        () if says("cf-mitigated", "challenge") || body.contains("challenge-platform") => {
            Some("a Cloudflare challenge")
        }
        () if says("server", "awselb") || says("x-amzn-waf-action", "") => Some("AWS WAF"),
        () if body.contains("_incapsula_") || says("x-iinfo", "") => Some("Imperva"),
        () if says("server", "akamaighost") => Some("Akamai"),
        () if page.header("www-authenticate").is_some() => Some("a password prompt"),
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

/// The check that reports this fault of the policy host's certificate.
fn certificate_check(problem: &Problem, facts: Option<&TlsFacts>) -> Check {
    match CertificateFault::of(problem, facts) {
        CertificateFault::Expired => Check::HttpsCertExpired,
        CertificateFault::NotYetValid => Check::HttpsCertNotYet,
        CertificateFault::WrongName => Check::HttpsCertName,
        CertificateFault::CommonNameOnly => Check::HttpsCertCnOnly,
        CertificateFault::SelfSigned => Check::HttpsCertSelf,
        CertificateFault::MissingIntermediate => Check::HttpsCertChain,
        CertificateFault::NotForServers => Check::HttpsCertUsage,
        CertificateFault::Untrusted => Check::HttpsCertUntrusted,
    }
}

/// Reports weaknesses of a host that serves a valid response.
fn details(seen: &ObservedDomain, findings: &mut Findings) {
    let host = &seen.host;
    let name = &host.name;
    let Some(visit) = host.visits.iter().find(|visit| visit.judged().is_ok()) else { return };
    let own = visit.tls.as_ref().and_then(|tls| tls.chain.first());
    if let Some((own, ending)) = own.and_then(|own| Some((own, ends_soon(own, seen.now)?))) {
        findings.add(
            Check::HttpsCertExpiring,
            format!("the certificate of {name} {ending}"),
            "After that, no sender can fetch or refresh the policy. Renew the certificate now, and find out why the \
             automatic renewal did not happen.",
            [],
        );
        findings.attach_evidence([chain_line(own)]);
    }
    if let Some(days) = own.and_then(is_too_long_from_2027) {
        findings.add(
            Check::HttpsCertLife,
            format!("the certificate of {name} is valid for {days} days"),
            SHORTER_LIVES,
            [format!("certbot certonly -d {name}   # or another ACME client")],
        );
        findings.attach_evidence(own.map(chain_line));
    }
    if visit.took > seen.slow {
        findings.add(
            Check::HttpsSlow,
            format!("{name} takes {:.1} seconds to serve the policy file", visit.took.as_secs_f32()),
            "Senders give up after one minute, many of them sooner.",
            [format!("curl -o /dev/null -w '%{{time_total}}\\n' https://{name}/.well-known/mta-sts.txt")],
        );
    }
    if let Some(age) = visit.outcome.as_ref().ok().and_then(cached_for).filter(|age| *age > HOUR) {
        findings.add(
            Check::HttpsCache,
            format!("{name} lets caches store the policy file for {age} seconds"),
            "A cache or proxy may serve the old file after the id has changed. Use a short max-age.",
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
        format!("the certificate of {} has been revoked by its CA", host.name),
        "CAs revoke certificates when the key was compromised or the name was not validated properly. Senders that \
         check revocation can't fetch the policy, and a holder of the key could serve a different one. Order a new \
         certificate with a new key.",
        [format!("certbot certonly --force-renewal --new-key -d {}", host.name)],
    );
    findings.attach_evidence(own.map(chain_line));
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
        // Senders have to send SNI when they fetch policies, so this loses nothing today.
        findings.add_as(
            Severity::Info,
            Check::HttpsSni,
            format!("without SNI, {} presents a different certificate or none", host.name),
            "This is harmless: senders have to send SNI. Only very old clients are affected.",
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
            format!("{} serves browsers a different response than other clients", host.name),
            "A proxy or firewall in front of it filters by User-Agent, and its rules may also block senders. Exempt the \
             path of the policy file from such rules.",
            [format!("curl -A Mozilla/5.0 -i https://{}/.well-known/mta-sts.txt", host.name)],
        );
    }
}

/// CAs by a part of the issuer name in their certificates, with their CAA issuer domains.
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
    let records = seen.host.caa.iter().filter(|caa| caa.tag == "issue");
    let values: Vec<IssueValue> = records.map(|caa| IssueValue::parse(&caa.value)).collect();
    let issuers: Vec<&str> = values.iter().map(|value| value.issuer.as_str()).collect();
    let Some(own) = own.filter(|_| !issuers.is_empty()) else { return };
    let known = AUTHORITIES.iter().find(|(name, _)| own.issuer.to_ascii_lowercase().contains(name));
    let allows_none = issuers.iter().all(|domain| domain.is_empty());
    let allowed = known.map(|(_, allowed)| *allowed).unwrap_or_default();
    let is_allowed =
        issuers.iter().any(|domain| allowed.iter().any(|known| domain.eq_ignore_ascii_case(known)));
    if is_allowed {
        return bound_caa(seen, &values, allowed, findings);
    }
    if known.is_none() && !allows_none {
        return;
    }
    let shown = if allows_none { "no CA".to_owned() } else { issuers.join(", ") };
    findings.add(
        Check::HttpsCaa,
        format!(
            "CAA records allow {shown} to issue for {}, but the current certificate is from {}",
            seen.host.name, own.issuer
        ),
        "The CA will refuse the renewal, and senders can't fetch the policy after this certificate expires.",
        [format!("{}.  CAA  0 issue \"{}\"", seen.domain, allowed.first().unwrap_or(&"letsencrypt.org"))],
    );
    findings.attach_evidence(seen.host.caa.iter().map(|caa| format!("CAA {} {:?}", caa.tag, caa.value)));
}

/// Tells that the CA may renew for certain accounts or by certain validation methods only (RFC 8657).
fn bound_caa(seen: &ObservedDomain, values: &[IssueValue], allowed: &[&str], findings: &mut Findings) {
    let ours: Vec<&IssueValue> =
        values.iter().filter(|value| allowed.iter().any(|known| value.issuer == *known)).collect();
    let Some(limits) = limits(&ours) else { return };
    findings.add_as(
        Severity::Info,
        Check::HttpsCaa,
        format!("CAA records allow the CA to renew the certificate of {} only {limits}", seen.host.name),
        "The CA refuses the renewal to any other account and by any other method. Before you use another ACME account \
         or challenge, change the record.",
        [],
    );
    findings.attach_evidence(seen.host.caa.iter().map(|caa| format!("CAA {} {:?}", caa.tag, caa.value)));
}

/// To what the records that name one CA limit it; `None` if one of them has no limits.
fn limits(values: &[&IssueValue]) -> Option<String> {
    let of = |value: &IssueValue, wanted: &str| -> Vec<String> {
        let all = value.parameters.iter().filter(|(name, _)| name == wanted);
        all.map(|(_, value)| value.clone()).collect()
    };
    let mut all = Vec::new();
    for value in values {
        let (accounts, methods) = (of(value, "accounturi"), of(value, "validationmethods"));
        let accounts = accounts.iter().map(|account| format!("for the account {account}"));
        let limits: Vec<String> =
            accounts.chain(methods.iter().map(|methods| format!("by {methods}"))).collect();
        if limits.is_empty() {
            return None;
        }
        all.push(limits.join(" "));
    }
    (!all.is_empty()).then(|| all.join(", or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caa_records_that_bind_an_account_or_a_method_are_told() {
        let limits = |texts: &[&str]| {
            let values: Vec<IssueValue> = texts.iter().map(|text| IssueValue::parse(text)).collect();
            limits(&values.iter().collect::<Vec<_>>())
        };
        assert_eq!(limits(&[]), None);
        assert_eq!(limits(&["letsencrypt.org"]), None);
        let bound = "letsencrypt.org; accounturi=https://ca/1; validationmethods=dns-01";
        assert_eq!(limits(&[bound]).as_deref(), Some("for the account https://ca/1 by dns-01"));
        assert_eq!(limits(&[bound, "letsencrypt.org"]), None, "another record allows everybody");
        let two = limits(&[bound, "letsencrypt.org; validationmethods=http-01"]).unwrap();
        assert_eq!(two, "for the account https://ca/1 by dns-01, or by http-01");
    }
}
