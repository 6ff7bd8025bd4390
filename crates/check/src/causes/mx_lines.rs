//! Why an `mx` line of a policy matches no MX host (RFC 8461 §4.1): it names the policy host or a former mail host, or
//! differs from an MX host by a few letters.

use super::distance::edits;
use super::{Cause, FoundCause};
use crate::known::Known;
use crate::observed::ObservedDomain;
use formats::{DomainName, MxPattern, Policy};
use suffix::registered_domain;

/// The most edits between an `mx` line and the MX host that it was meant to be.
const MOST_EDITS: usize = 3;

/// Mail providers, by the end of their MX host names.
const MAIL_PROVIDERS: &[(&str, &str)] = &[
    ("google.com", "Google Workspace"),
    ("googlemail.com", "Google Workspace"),
    ("outlook.com", "Microsoft 365"),
    ("mx.microsoft", "Microsoft 365"),
    ("protonmail.ch", "Proton Mail"),
    ("messagingengine.com", "Fastmail"),
    ("mail.icloud.com", "iCloud Mail"),
    ("zoho.com", "Zoho Mail"),
    ("zoho.eu", "Zoho Mail"),
    ("mailbox.org", "mailbox.org"),
    ("tutanota.de", "Tuta"),
    ("pphosted.com", "Proofpoint"),
    ("ppe-hosted.com", "Proofpoint Essentials"),
    ("mimecast.com", "Mimecast"),
    ("barracudanetworks.com", "Barracuda"),
    ("messagelabs.com", "Broadcom Email Security"),
    ("iphmx.com", "Cisco Secure Email"),
    ("hornetsecurity.com", "Hornetsecurity"),
    ("antispameurope.com", "Hornetsecurity"),
    ("secureserver.net", "GoDaddy"),
    ("emailsrvr.com", "Rackspace Email"),
    ("yahoodns.net", "Yahoo"),
    ("yandex.net", "Yandex"),
    ("qq.com", "Tencent Exmail"),
    ("registrar-servers.com", "Namecheap"),
    ("privateemail.com", "Namecheap Private Email"),
    ("hostinger.com", "Hostinger"),
    ("titan.email", "Titan"),
    ("ovh.net", "OVH"),
    ("gandi.net", "Gandi"),
    ("ionos.com", "IONOS"),
    ("kundenserver.de", "IONOS"),
    ("rzone.de", "STRATO"),
    ("one.com", "one.com"),
    ("infomaniak.ch", "Infomaniak"),
    ("migadu.com", "Migadu"),
    ("mxroute.com", "MXroute"),
    ("improvmx.com", "ImprovMX"),
    ("forwardemail.net", "Forward Email"),
    ("mx.cloudflare.net", "Cloudflare Email Routing"),
    ("amazonaws.com", "Amazon SES"),
    ("mailgun.org", "Mailgun"),
    ("sendgrid.net", "SendGrid"),
    ("mailspamprotection.com", "SiteGround"),
    ("dreamhost.com", "DreamHost"),
    ("startmail.com", "StartMail"),
    ("posteo.de", "Posteo"),
    ("runbox.com", "Runbox"),
];

/// The mail provider of a host.
pub(crate) fn mail_provider(host: &str) -> Option<&'static str> {
    let is_within =
        |end: &str| host.strip_suffix(end).is_some_and(|head| head.is_empty() || head.ends_with('.'));
    MAIL_PROVIDERS.iter().find(|(end, _)| is_within(end)).map(|(_, name)| *name)
}

/// The cause for an MX host that no line matches: that of a line which matches no host. A line that was meant to be this
/// host goes first.
pub(crate) fn of_host(
    seen: &ObservedDomain,
    known: &Known,
    policy: &Policy,
    host: &DomainName,
) -> Option<FoundCause> {
    let unused = || policy.mx.iter().filter(|pattern| !is_used(seen, pattern));
    let meant = unused().find_map(|pattern| resembles(pattern, host));
    meant.or_else(|| unused().find_map(|pattern| of_line(seen, known, pattern)))
}

fn is_used(seen: &ObservedDomain, pattern: &MxPattern) -> bool {
    seen.hosts.iter().any(|host| pattern.matches(&host.name))
}

/// The cause for a line that matches no MX host.
pub(crate) fn of_line(seen: &ObservedDomain, known: &Known, pattern: &MxPattern) -> Option<FoundCause> {
    let name = pattern.name();
    let found = |id, what: String| Some(FoundCause { id, what });
    let registered = |name: &DomainName| registered_domain(name.as_str()).map(str::to_owned);
    if name == &seen.host.name || name.as_str().starts_with("mta-sts.") {
        return found(
            Cause::PolicyHostInMx,
            format!(
                "The line mx: {pattern} names the policy host. It has to name the hosts of the MX records, which receive the mail."
            ),
        );
    }
    if let Some(host) = known.hosts.iter().find(|host| pattern.matches(&host.host)) {
        return found(
            Cause::FormerHost,
            format!(
                "The line mx: {pattern} names the former mail host: {} was in the MX records until {}.",
                host.host, host.seen_at
            ),
        );
    }
    let uncovered = seen
        .hosts
        .iter()
        .filter(|host| !seen.policy.valid.as_ref().is_some_and(|policy| policy.covers(&host.name)));
    if let Some(meant) = uncovered.map(|host| &host.name).find_map(|host| resembles(pattern, host)) {
        return Some(meant);
    }
    let now = seen.hosts.first().map(|host| (host.name.as_str(), mail_provider(host.name.as_str())));
    if let (Some(before), Some((host, now))) = (mail_provider(name.as_str()), now)
        && now != Some(before)
    {
        let there = now.unwrap_or(host);
        return found(
            Cause::FormerProvider,
            format!(
                "The line mx: {pattern} names {before}, but the MX records name {there}: it is most likely left from the former mail host."
            ),
        );
    }
    let is_alias = seen
        .hosts
        .iter()
        .filter_map(|host| host.addresses.as_ref().ok())
        .any(|found| found.aliases.contains(name));
    let is_own = registered(name).is_some() && registered(name) == registered(&seen.domain);
    let is_far = seen.hosts.iter().all(|host| registered(&host.name) != registered(&seen.domain));
    if !is_alias && (name == &seen.domain || is_own && is_far) {
        return found(
            Cause::NotAnMx,
            format!(
                "The line mx: {pattern} names {name}, which no MX record names. It has to name the hosts of the MX records."
            ),
        );
    }
    None
}

/// The cause for a line that was meant to be this host: it differs by a few letters, or by the end of the name.
fn resembles(pattern: &MxPattern, host: &DomainName) -> Option<FoundCause> {
    let expected = match pattern {
        MxPattern::Exact(_) => host.as_str(),
        MxPattern::Wildcard(_) => host.as_str().split_once('.')?.1,
    };
    let written = pattern.name().as_str();
    let line = match pattern {
        MxPattern::Exact(_) => host.to_string(),
        MxPattern::Wildcard(_) => format!("*.{expected}"),
    };
    if let Some(count) = edits(written, expected, MOST_EDITS).filter(|count| count * 3 < expected.len()) {
        let letters = if count == 1 { "one letter" } else { "a few letters" };
        return Some(FoundCause {
            id: Cause::DidYouMean,
            what: format!(
                "The line mx: {pattern} differs from the MX host {host} by {letters}. Did you mean mx: {line}?"
            ),
        });
    }
    let stem = |name: &str| {
        let registered = registered_domain(name)?;
        let (label, _) = registered.split_once('.')?;
        Some(format!("{}{label}", name.strip_suffix(registered)?))
    };
    (stem(written)? == stem(expected)? && stem(written)?.len() > 3).then(|| FoundCause {
        id: Cause::OtherTld,
        what: format!("The line mx: {pattern} differs from the MX host {host} by the end of the name. Did you mean mx: {line}?"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resembling(line: &str, host: &str) -> Option<Cause> {
        resembles(&MxPattern::parse(line).unwrap(), &DomainName::parse(host).unwrap()).map(|found| found.id)
    }

    #[test]
    fn a_line_that_differs_by_a_few_letters_or_by_its_end_was_meant_to_be_the_host() {
        for (line, host, cause) in [
            ("mx1.exmaple.org", "mx1.example.org", Some(Cause::DidYouMean)),
            ("mail.example.or", "mail.example.org", Some(Cause::DidYouMean)),
            ("mx.example.org", "mx1.example.org", Some(Cause::DidYouMean)),
            ("*.exampel.org", "mx1.example.org", Some(Cause::DidYouMean)),
            ("mail.example.com", "mail.example.org", Some(Cause::DidYouMean)),
            ("mail.example.solutions", "mail.example.org", Some(Cause::OtherTld)),
            ("mail.example.co.uk", "mail.example.org", Some(Cause::OtherTld)),
            ("aspmx.l.google.com", "mx1.example.org", None),
            ("a.b", "c.d", None),
            ("web.example.org", "mailhost.example.org", None),
        ] {
            assert_eq!(resembling(line, host), cause, "{line} {host}");
        }
    }

    #[test]
    fn mail_providers_are_recognized_by_whole_labels() {
        assert_eq!(mail_provider("example-org.mail.protection.outlook.com"), Some("Microsoft 365"));
        assert_eq!(mail_provider("aspmx.l.google.com"), Some("Google Workspace"));
        assert_eq!(mail_provider("notgoogle.com"), None);
    }
}
