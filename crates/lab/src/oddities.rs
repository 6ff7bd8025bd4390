//! The table of lab domains for `sternpost check`: faults that the check has to report but that rarely affect
//! senders. Each domain differs from `cases::good` only in the stated way.

use crate::behavior::Behavior;
use crate::case::{Case, HostAddress, SecondServer};
use crate::cases::{policy_text, second};
use crate::dns::{Rr, Signing};
use crate::odd::{DANE_EE, odd, txt};
use crate::pki::Cert;
use crate::policy_host::HttpBehavior;
use formats::tlsa::TlsaRecord;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// All domains of this table.
pub fn all() -> Vec<Case> {
    [names(), records(), hosts(), policies(), mail(), dane(), reports(), crate::causes::all()].concat()
}

fn names() -> Vec<Case> {
    let all =
        odd("good-all", "no findings: signed, DANE, two MX hosts, reports to another domain, DMARC, SPF")
            .two(20)
            .with(|s| {
                s.signing = Signing::Signed;
                s.mx.iter_mut().for_each(|mx| mx.tlsa = vec![DANE_EE]);
            })
            .rua("v=TLSRPTv1; rua=mailto:tlsrpt@good-enforce.test")
            .extra("", vec![txt("v=spf1 mx -all")])
            .extra("_dmarc", vec![txt("v=DMARC1; p=reject; rua=mailto:dmarc@good-all.test")]);
    let sub = odd("sub.good-all.test", "a subdomain of a registered domain")
        .body(HttpBehavior::Policy(policy_text("enforce", &["mx1.sub.good-all.test"], "604800")));
    let suffix = odd("co.uk", "a public suffix").body(HttpBehavior::Policy(policy_text(
        "enforce",
        &["mx1.co.uk"],
        "604800",
    )));
    vec![
        all,
        sub,
        suffix,
        odd("xn--bcher-kva", "an internationalized domain name"),
        odd("nothing-yet", "MX records only, without MTA-STS and TLSRPT")
            .no_policy()
            .with(|s| s.tlsrpt_records.clear())
            .unprotected(),
        odd("ttl-long", "all records have a TTL of two days").with(|s| s.ttl = 172_800),
        odd("ds-missing", "the zone is signed, and its parent has no DS record")
            .with(|s| s.signing = Signing::Unlinked),
        odd("ds-wanted", "the same, and the zone asks for the DS record by CDS")
            .with(|s| s.signing = Signing::Unlinked)
            .extra("", vec![Rr::Cds]),
        odd("ns-ipv6", "two name servers with an IPv6 address")
            .extra("", vec![Rr::Ns("ns1.ns-ipv6.test.".into()), Rr::Ns("ns2.ns-ipv6.test.".into())])
            .extra("ns1", vec![Rr::Aaaa(Ipv6Addr::LOCALHOST)])
            .extra("ns2", vec![Rr::Aaaa(Ipv6Addr::LOCALHOST)]),
        odd("ns-lame", "a name server that does not answer")
            .with(|s| s.second_server = Some(SecondServer::Lame)),
        odd("ns-disagree", "two name servers with different records")
            .with(|s| s.second_server = Some(SecondServer::Says("v=STSv1; id=20250101000000;".into()))),
        odd("with-bimi", "a BIMI record")
            .extra("default._bimi", vec![txt("v=BIMI1; l=https://logo.with-bimi.test/a.svg")]),
    ]
}

fn records() -> Vec<Case> {
    vec![
        odd("txt-wrong-name", "the record is published at _mta_sts")
            .with(|s| s.sts_records.clear())
            .extra("_mta_sts", vec![txt("v=STSv1; id=20260101000000;")])
            .unprotected(),
        odd("txt-quotes", "the record contains quotes")
            .record("\"v=STSv1; id=20260101000000;\"")
            .unprotected(),
        odd("txt-id-word", "the id is not a timestamp").record("v=STSv1; id=first;"),
        odd("txt-id-future", "the id is a timestamp in the year 2099").record("v=STSv1; id=20991231235959;"),
        odd("txt-unknown", "the record has an unknown field")
            .record("v=STSv1; id=20260101000000; color=blue;"),
        odd("txt-wildcard", "the record comes from a wildcard")
            .with(|s| s.sts_records.clear())
            .extra("*", vec![txt("v=STSv1; id=20260101000000;")]),
    ]
}

fn hosts() -> Vec<Case> {
    let address = |name, about, address| odd(name, about).with(|s| s.host_address = address);
    let policy = |name: &str| policy_text("enforce", &[&format!("mx1.{name}.test")], "604800");
    vec![
        address("host-private", "the policy host has a private address", HostAddress::Private).unprotected(),
        address(
            "host-ipv6-broken",
            "the policy host's IPv6 address refuses connections",
            HostAddress::Ipv6Broken,
        ),
        address(
            "host-partial",
            "one of the policy host's two addresses refuses connections",
            HostAddress::Partial,
        ),
        address("host-pages", "the policy host is at a well-known hosting provider", HostAddress::Pages),
        odd("cert-expiring", "the policy host's certificate expires in ten days")
            .with(|s| s.host_cert = Cert::Expiring),
        odd("cert-chain-cut", "the policy host does not send the intermediate certificate")
            .with(|s| s.host_cert = Cert::ChainCut)
            .unprotected(),
        odd("cert-long-lived", "the policy host's certificate is valid for 198 days")
            .with(|s| s.host_cert = Cert::LongLived),
        odd("cert-clients-only", "the policy host's certificate is for TLS clients only")
            .with(|s| s.host_cert = Cert::ForClientsOnly)
            .unprotected(),
        odd("cert-revoked", "the policy host's certificate is revoked").with(|s| s.host_cert = Cert::Revoked),
        odd("http-slow", "the policy host takes two seconds to respond")
            .body(HttpBehavior::Slow(Duration::from_secs(2), policy("http-slow"))),
        odd("http-cached", "the policy may be cached for one day").body(HttpBehavior::Header(
            "cache-control",
            "public, max-age=86400",
            policy("http-cached"),
        )),
        odd("http-browsers", "browsers get an HTML page")
            .body(HttpBehavior::Browsers(policy("http-browsers"))),
        odd("http-challenge", "the policy host requires a browser challenge")
            .body(HttpBehavior::Challenge)
            .unprotected(),
        odd("caa-nobody", "CAA allows no CA to issue").extra("", vec![Rr::Caa(None)]),
    ]
}

fn policies() -> Vec<Case> {
    vec![
        odd("policy-bad-mode", "an unknown mode")
            .lines("version: STSv1\nmode: strict\nmx: mx1.NAME.test\nmax_age: 604800\n")
            .unprotected(),
        odd("policy-no-colon", "a line without a colon")
            .lines("version: STSv1\nmode: enforce\nmx mx1.NAME.test\nmax_age: 604800\n")
            .unprotected(),
        odd("policy-short", "max_age is one day")
            .lines("version: STSv1\nmode: enforce\nmx: mx1.NAME.test\nmax_age: 86400\n"),
        odd("policy-broad", "an mx wildcard for a shared domain")
            .lines("version: STSv1\nmode: enforce\nmx: mx1.NAME.test\nmx: *.google.com\nmax_age: 604800\n"),
        odd("policy-alias", "the policy lists the CNAME target of the MX host")
            .lines("version: STSv1\nmode: enforce\nmx: real.NAME.test\nmax_age: 604800\n")
            .mx(|mx| mx.alias = true),
    ]
}

fn mail() -> Vec<Case> {
    let does = |name, about, how| odd(name, about).mx(move |mx| mx.behavior = Some(how));
    let cert = |name, about, kind| odd(name, about).mx(move |mx| mx.cert = kind);
    vec![
        odd("mx-address", "an MX record with an address instead of a host name")
            .extra("", vec![Rr::Mx(10, "192.0.2.1.".into())]),
        odd("mx-null-beside", "a null MX next to another MX record")
            .extra("", vec![Rr::Mx(0, ".".into()), Rr::Mx(10, "mx1.mx-null-beside.test.".into())]),
        odd("mx-unaddressed", "an MX host without an address").mx(|mx| mx.unaddressed = true),
        odd("mx-private", "an MX host with a private address").mx(|mx| {
            mx.unaddressed = true;
            mx.more = vec![Rr::A(Ipv4Addr::new(10, 1, 2, 3))];
        }),
        does("mx-blocked", "an MX host behind a firewall that drops connections", Behavior::Walled),
        odd("mx-ipv6", "an MX host whose IPv6 address refuses connections")
            .mx(|mx| mx.more = vec![Rr::Aaaa(Ipv6Addr::LOCALHOST)]),
        odd("mx-equal", "two MX hosts with the same preference").two(10),
        odd("mx-twin", "two addresses of one MX host, one with an expired certificate")
            .mx(|mx| mx.twin = Some((Behavior::Good, Cert::Expired))),
        does("mx-greylists", "greylisting at the greeting", Behavior::Greylists),
        does("mx-only-tls12", "the MX host supports TLS 1.2 at most", Behavior::OnlyTls12),
        does("mx-only-sni", "the MX host presents another certificate without SNI", Behavior::OnlyWithSni),
        does("mx-wants-certificate", "the MX host requires a client certificate", Behavior::WantsCertificate),
        does("mx-old-tls-too", "the MX host also accepts TLS 1.0 and 1.1", Behavior::OldTlsToo),
        does("mx-weak-cipher", "the MX host also accepts triple DES", Behavior::WeakCiphersToo),
        does("mx-flaps", "the MX host offers STARTTLS on every second connection", Behavior::Flaps),
        does(
            "mx-injection",
            "the MX host executes commands sent before the handshake",
            Behavior::TakesInjection,
        ),
        does(
            "mx-hangs-on-large",
            "the MX host does not answer a large ClientHello",
            Behavior::HangsOnLargeHello,
        ),
        does("mx-requiretls", "the MX host offers REQUIRETLS", Behavior::RequireTls),
        cert("mx-expiring", "the MX certificate expires in ten days", Cert::Expiring),
        cert("mx-chain-cut", "the MX host does not send the intermediate certificate", Cert::ChainCut),
        cert("mx-long-lived", "the MX certificate is valid for 198 days", Cert::LongLived),
        cert("mx-clients-too", "the MX certificate is for TLS clients as well", Cert::ForClientsToo),
        cert("mx-clients-only", "the MX certificate is for TLS clients only", Cert::ForClientsOnly),
        microsoft_move(),
        cert("mx-weak-key", "the MX certificate is signed with SHA-1", Cert::Sha1),
    ]
}

/// The domain of a Microsoft 365 tenant that has got an MX host with DANE beside the one that its policy was made for.
fn microsoft_move() -> Case {
    let case =
        odd("microsoft-move", "Microsoft 365 moves the domain to an MX host with DANE, under mx.microsoft")
            .lines("version: STSv1\nmode: enforce\nmx: *.mail.protection.outlook.com\nmax_age: 604800\n")
            .mx(|mx| (mx.label, mx.provider) = ("microsoft-move-test", Some("mail.protection.outlook.com")));
    case.with(|setup| {
        setup.mx.push(second(|mx| {
            (mx.label, mx.provider) = ("microsoft-move-test", Some("o-v1.mx.microsoft"));
        }));
    })
}

fn dane() -> Vec<Case> {
    let signed = |name, about| odd(name, about).with(|s| s.signing = Signing::Signed);
    let short = TlsaRecord { usage: 3, selector: 1, matching: 1, data: vec![1, 2, 3, 4, 5] };
    vec![
        signed("dane-short", "a TLSA record whose digest is too short")
            .extra("_25._tcp.mx1", vec![Rr::Tlsa(short)]),
        signed("dane-partial", "only one of two MX hosts has TLSA records").two(20).with(|s| {
            if let Some(mx) = s.mx.first_mut() {
                mx.tlsa = vec![DANE_EE];
            }
        }),
        signed("dnssec-mx", "the second MX host is in a zone that is not signed")
            .lines("version: STSv1\nmode: enforce\nmx: mx1.NAME.test\nmx: mx1.good-enforce.test\nmax_age: 604800\n")
            .extra("", vec![Rr::Mx(10, "mx1.dnssec-mx.test.".into()), Rr::Mx(20, "mx1.good-enforce.test.".into())]),
        signed("dane-rollover", "one TLSA record and a certificate that expires in ten days").mx(|mx| {
            mx.tlsa = vec![DANE_EE];
            mx.cert = Cert::Expiring;
        }),
    ]
}

fn reports() -> Vec<Case> {
    let rua = |name, about, text: &str| odd(name, about).rua(text);
    vec![
        odd("rpt-missing", "no _smtp._tls record").with(|s| s.tlsrpt_records.clear()),
        odd("rpt-two", "two _smtp._tls records")
            .with(|s| s.tlsrpt_records.push(vec!["v=TLSRPTv1; rua=mailto:b@rpt-two.test".into()])),
        rua("rpt-syntax", "the TLSRPT record has no rua", "v=TLSRPTv1; ruf=mailto:a@rpt-syntax.test"),
        odd("rpt-wrong-name", "the TLSRPT record is published at _tls._smtp")
            .with(|s| s.tlsrpt_records.clear())
            .extra("_tls._smtp", vec![txt("v=TLSRPTv1; rua=mailto:a@rpt-wrong-name.test")]),
        rua("rpt-scheme", "a report target with scheme http", "v=TLSRPTv1; rua=http://rpt-scheme.test/in"),
        rua(
            "rpt-nobody",
            "a report target whose domain does not exist",
            "v=TLSRPTv1; rua=mailto:a@no-such-domain.test",
        ),
        rua(
            "rpt-https",
            "a report target that refuses connections",
            "v=TLSRPTv1; rua=https://mta-sts.rpt-https.test:9/in",
        ),
        rua(
            "rpt-many",
            "three report targets",
            "v=TLSRPTv1; rua=mailto:a@rpt-many.test,mailto:b@rpt-many.test,mailto:c@good-enforce.test",
        ),
        rua(
            "rpt-encode",
            "a report target with an exclamation mark",
            "v=TLSRPTv1; rua=mailto:a!10m@rpt-encode.test",
        ),
    ]
}
