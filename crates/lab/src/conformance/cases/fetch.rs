//! Fetching the policy file by HTTPS.

use super::{Case, elsewhere, honored, ignored};
use crate::case::HostAddress;
use crate::conformance::case::{Check, Fate, Group::Fetch, Ipv6, Level};
use crate::dns::Rr;
use crate::pki::Cert;
use crate::policy_host::HttpBehavior;
use std::time::Duration;

const FETCH: &str = "RFC 8461 §3.3";
const LIMITS: &str = "RFC 8461 §3.3, §10.2";

pub(super) fn cases() -> Vec<Case> {
    [valid(), certificates(), statuses(), broken()].concat()
}

fn valid() -> Vec<Case> {
    let yes = |id, about| honored(id, Fetch, FETCH, about);
    let served =
        |id: &'static str, about, answers: HttpBehavior| yes(id, about).with(|s| s.answers = answers);
    vec![
        yes("fetch", "a usual policy host").checks(&[Check::Fetched, Check::RightRequest]),
        yes("fetch-cname", "the policy host is a CNAME of another name")
            .with(|s| s.host_address = HostAddress::Cname)
            .checks(&[Check::RightRequest]),
        yes("fetch-wildcard-certificate", "a wildcard certificate for the policy host's label")
            .with(|s| s.host_cert = Cert::Wildcard),
        yes("fetch-dead-ipv6", "an IPv6 address where nothing listens, and an IPv4 address that works")
            .ipv6("mta-sts", Ipv6::Dead)
            .level(Level::Should),
        yes("fetch-ipv6-only", "the policy host has an IPv6 address only")
            .ipv6("mta-sts", Ipv6::Only)
            .checks(&[Check::RightRequest]),
        yes("fetch-dead-address", "two addresses, at one of which nothing listens")
            .with(|s| s.host_address = HostAddress::Partial)
            .level(Level::Should),
        served(
            "fetch-charset",
            "the media type has a charset",
            HttpBehavior::Typed("text/plain; charset=us-ascii", elsewhere("fetch-charset").into_bytes()),
        ),
        served(
            "fetch-type-case",
            "the media type in upper case",
            HttpBehavior::Typed("TEXT/PLAIN", elsewhere("fetch-type-case").into_bytes()),
        ),
        served(
            "fetch-slow",
            "the response takes a second",
            HttpBehavior::Slow(Duration::from_secs(1), elsewhere("fetch-slow")),
        )
        .level(Level::Should),
        served(
            "fetch-max-age-header",
            "a Cache-Control header that forbids caching",
            HttpBehavior::Header("cache-control", "no-store", elsewhere("fetch-max-age-header")),
        ),
        served(
            "fetch-http10",
            "the policy host answers by HTTP/1.0, without the length of the body",
            HttpBehavior::Http10(elsewhere("fetch-http10")),
        )
        .level(Level::Should),
        served(
            "fetch-http2",
            "the policy host offers HTTP/2 as well as HTTP/1.1 (ALPN)",
            HttpBehavior::Http2(elsewhere("fetch-http2")),
        ),
        served(
            "fetch-chunked",
            "the policy file comes in chunks",
            HttpBehavior::Chunked(elsewhere("fetch-chunked")),
        ),
        served(
            "fetch-large",
            "a policy file of 60 KiB",
            HttpBehavior::Policy(padded("fetch-large", 60 * 1024)),
        )
        .level(Level::Should),
    ]
}

/// A policy file with unknown keys up to about this size.
fn padded(name: &str, bytes: usize) -> String {
    let mut text = elsewhere(name);
    while text.len() < bytes {
        text.push_str("padding: 0123456789012345678901234567890123456789\r\n");
    }
    text
}

fn certificates() -> Vec<Case> {
    let bad = |id, about, kind| {
        ignored(id, Fetch, FETCH, about).with(|s| s.host_cert = kind).level(Level::Security)
    };
    vec![
        bad("fetch-expired", "the policy host's certificate has expired", Cert::Expired),
        bad("fetch-not-yet-valid", "the certificate is not valid yet", Cert::NotYetValid),
        bad("fetch-wrong-name", "the certificate is for another host", Cert::WrongName),
        bad("fetch-self-signed", "the certificate is self-signed", Cert::SelfSigned),
        bad("fetch-untrusted", "the certificate is issued by an unknown CA", Cert::Untrusted),
        bad("fetch-chain-cut", "the server leaves out the intermediate certificate", Cert::ChainCut),
        bad("fetch-common-name", "the host name is only in the common name", Cert::CommonNameOnly),
        bad(
            "fetch-deep-wildcard",
            "a wildcard certificate that would have to match two labels",
            Cert::DeepWildcard,
        ),
        bad("fetch-client-certificate", "the certificate is for TLS clients only", Cert::ForClientsOnly),
    ]
}

fn statuses() -> Vec<Case> {
    let no = |id: &'static str, about, answers: HttpBehavior| {
        ignored(id, Fetch, FETCH, about).with(|s| s.answers = answers)
    };
    vec![
        redirect("fetch-redirect", "a redirect (301) to another host with a policy", "www"),
        redirect("fetch-redirect-subhost", "a redirect (301) to a name below the policy host", "new.mta-sts"),
        no("fetch-204", "status 204", HttpBehavior::Status(204)),
        no("fetch-403", "status 403 with a page for browsers", HttpBehavior::Challenge),
        no("fetch-404", "status 404", HttpBehavior::Status(404)),
        no("fetch-500", "status 500", HttpBehavior::Status(500)),
        no(
            "fetch-html",
            "the policy is served as text/html",
            HttpBehavior::Typed("text/html", elsewhere("fetch-html").into_bytes()),
        )
        .level(Level::Should),
        no(
            "fetch-octets",
            "the policy is served as application/octet-stream",
            HttpBehavior::Typed("application/octet-stream", elsewhere("fetch-octets").into_bytes()),
        )
        .level(Level::Should),
    ]
}

fn redirect(id: &'static str, about: &'static str, label: &'static str) -> Case {
    let target = format!("https://{label}.{id}.test/.well-known/mta-sts.txt");
    let mut case = ignored(id, Fetch, FETCH, about)
        .with(|s| {
            s.answers = HttpBehavior::Redirect(target);
            s.extra.push((label.into(), vec![Rr::Cname(format!("mta-sts.{id}.test."))]));
        })
        .checks(&[Check::NoRequestTo(label)]);
    case.sites.push((label, elsewhere(id)));
    case
}

fn broken() -> Vec<Case> {
    let no = |id, about| ignored(id, Fetch, FETCH, about);
    let serves = |id, about, answers: HttpBehavior| no(id, about).with(|s| s.answers = answers);
    vec![
        no("fetch-no-address", "the policy host does not exist")
            .with(|s| s.host_address = HostAddress::Missing),
        no("fetch-refused", "nothing listens at the policy host")
            .with(|s| s.host_address = HostAddress::Refused),
        serves(
            "fetch-silent",
            "the policy host accepts the connection and sends nothing",
            HttpBehavior::Silent,
        )
        // The fetch may take a minute, and the message may wait for it.
        .beyond(&[Fate::Waits]),
        serves(
            "fetch-aborts",
            "the policy host closes the connection in the handshake",
            HttpBehavior::Aborts,
        ),
        serves("fetch-tls10", "the policy host supports TLS 1.0 only", HttpBehavior::OldTls),
        serves("fetch-cut-off", "the connection ends in the middle of the policy file", HttpBehavior::CutOff),
        serves(
            "fetch-compressed",
            "the response is compressed although nobody asked for that",
            HttpBehavior::Compressed,
        )
        .level(Level::Should),
        ignored(
            "fetch-oversize",
            Fetch,
            LIMITS,
            "a policy file of 80 KiB, of which the first lines are a policy",
        )
        .with(|s| s.answers = HttpBehavior::Policy(padded("fetch-oversize", 80 * 1024)))
        .level(Level::Should),
        ignored("fetch-endless", Fetch, LIMITS, "a response that never ends")
            .with(|s| s.answers = HttpBehavior::Endless)
            .level(Level::Should),
    ]
}
