//! Domains with what a preflight has to notice and senders hardly do: each differs from a good one in
//! what its entry says.

use crate::behavior::Behavior;
use crate::case::{Case, HostAddress, SecondServer, TlsaSetup, Topic};
use crate::cases::{good, policy_text, second};
use crate::dns::{Rr, Signing};
use crate::pki::Cert;
use crate::policy_host::HttpBehavior;
use formats::tlsa::TlsaRecord;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// All of them.
pub fn all() -> Vec<Case> {
    [names(), records(), hosts(), policies(), mail(), dane(), reports()].concat()
}

fn odd(name: &'static str, about: &'static str) -> Case {
    good(name, Topic::Preflight, about)
}

fn txt(text: &str) -> Rr {
    Rr::Txt(vec![text.to_owned()])
}

impl Case {
    fn extra(self, label: &str, records: Vec<Rr>) -> Self {
        self.with(|setup| setup.extra.push((label.to_owned(), records)))
    }

    /// A policy of these lines in place of the usual ones, `NAME` standing for the domain's.
    fn lines(self, lines: &str) -> Self {
        let body = lines.replace("NAME", self.name).replace('\n', "\r\n");
        self.body(HttpBehavior::Policy(body))
    }

    fn rua(self, text: &str) -> Self {
        self.with(|setup| setup.tlsrpt_records = vec![vec![text.to_owned()]])
    }

    /// A second MX host beside `mx1`, both in the policy.
    fn two(self, preference: u16) -> Self {
        let mx = [format!("mx1.{}.test", self.name), format!("mx2.{}.test", self.name)];
        let policy = policy_text("enforce", &[&mx[0], &mx[1]], "604800");
        self.body(HttpBehavior::Policy(policy))
            .with(|setup| setup.mx.push(second(|mx| mx.preference = preference)))
    }
}

const DANE_EE: TlsaSetup = TlsaSetup { usage: 3, selector: 1, matching: 1, right: true };

fn names() -> Vec<Case> {
    let all = odd("good-all", "nothing to find: signed, DANE, two hosts, reports elsewhere, DMARC, SPF")
        .two(20)
        .with(|s| {
            s.signing = Signing::Signed;
            s.mx.iter_mut().for_each(|mx| mx.tlsa = vec![DANE_EE]);
        })
        .rua("v=TLSRPTv1; rua=mailto:tlsrpt@good-enforce.test")
        .extra("", vec![txt("v=spf1 mx -all")])
        .extra("_dmarc", vec![txt("v=DMARC1; p=reject; rua=mailto:dmarc@good-all.test")]);
    let sub = odd("sub.good-all.test", "a name below a registered domain")
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
        odd("xn--bcher-kva", "a name with an umlaut"),
        odd("nothing-yet", "mail, and nothing else")
            .no_policy()
            .with(|s| s.tlsrpt_records.clear())
            .unprotected(),
        odd("ttl-long", "all records live for two days").with(|s| s.ttl = 172_800),
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
        odd("txt-wrong-name", "the record at _mta_sts")
            .with(|s| s.sts_records.clear())
            .extra("_mta_sts", vec![txt("v=STSv1; id=20260101000000;")])
            .unprotected(),
        odd("txt-quotes", "quotes within the record").record("\"v=STSv1; id=20260101000000;\"").unprotected(),
        odd("txt-id-word", "an id that is no time stamp").record("v=STSv1; id=first;"),
        odd("txt-id-future", "an id of the year 2099").record("v=STSv1; id=20991231235959;"),
        odd("txt-unknown", "an unknown field").record("v=STSv1; id=20260101000000; color=blue;"),
        odd("txt-wildcard", "the record by a wildcard")
            .with(|s| s.sts_records.clear())
            .extra("*", vec![txt("v=STSv1; id=20260101000000;")]),
    ]
}

fn hosts() -> Vec<Case> {
    let address = |name, about, address| odd(name, about).with(|s| s.host_address = address);
    let policy = |name: &str| policy_text("enforce", &[&format!("mx1.{name}.test")], "604800");
    vec![
        address("host-private", "the policy host in an inner network", HostAddress::Private).unprotected(),
        address("host-ipv6-broken", "an IPv6 address that does not answer", HostAddress::Ipv6Broken),
        address("host-partial", "one of two addresses does not answer", HostAddress::Partial),
        address("host-pages", "a well-known web host", HostAddress::Pages),
        odd("cert-expiring", "a certificate that ends in ten days").with(|s| s.host_cert = Cert::Expiring),
        odd("cert-chain-cut", "the issuer's certificate is not sent along")
            .with(|s| s.host_cert = Cert::ChainCut)
            .unprotected(),
        odd("cert-revoked", "the authority has taken the certificate back")
            .with(|s| s.host_cert = Cert::Revoked),
        odd("http-slow", "the policy takes a second")
            .body(HttpBehavior::Slow(Duration::from_millis(900), policy("http-slow"))),
        odd("http-cached", "the policy may be kept for a day").body(HttpBehavior::Header(
            "cache-control",
            "public, max-age=86400",
            policy("http-cached"),
        )),
        odd("http-browsers", "browsers get a page").body(HttpBehavior::Browsers(policy("http-browsers"))),
        odd("http-challenge", "a page that asks who is human").body(HttpBehavior::Challenge).unprotected(),
        odd("caa-nobody", "CAA lets no one issue").extra("", vec![Rr::Caa(None)]),
    ]
}

fn policies() -> Vec<Case> {
    vec![
        odd("policy-bad-mode", "a mode that is none of the three")
            .lines("version: STSv1\nmode: strict\nmx: mx1.NAME.test\nmax_age: 604800\n")
            .unprotected(),
        odd("policy-no-colon", "a line without a colon")
            .lines("version: STSv1\nmode: enforce\nmx mx1.NAME.test\nmax_age: 604800\n")
            .unprotected(),
        odd("policy-short", "a max_age of a day")
            .lines("version: STSv1\nmode: enforce\nmx: mx1.NAME.test\nmax_age: 86400\n"),
        odd("policy-broad", "a wildcard over a shared domain")
            .lines("version: STSv1\nmode: enforce\nmx: mx1.NAME.test\nmx: *.google.com\nmax_age: 604800\n"),
        odd("policy-alias", "the policy names where a CNAME leads")
            .lines("version: STSv1\nmode: enforce\nmx: real.NAME.test\nmax_age: 604800\n")
            .mx(|mx| mx.alias = true),
    ]
}

fn mail() -> Vec<Case> {
    let does = |name, about, how| odd(name, about).mx(move |mx| mx.behavior = Some(how));
    let cert = |name, about, kind| odd(name, about).mx(move |mx| mx.cert = kind);
    vec![
        odd("mx-address", "an address in place of an MX name")
            .extra("", vec![Rr::Mx(10, "192.0.2.1.".into())]),
        odd("mx-null-beside", "the null MX beside another")
            .extra("", vec![Rr::Mx(0, ".".into()), Rr::Mx(10, "mx1.mx-null-beside.test.".into())]),
        odd("mx-unaddressed", "an MX name without an address").mx(|mx| mx.unaddressed = true),
        odd("mx-private", "an MX in an inner network").mx(|mx| {
            mx.unaddressed = true;
            mx.more = vec![Rr::A(Ipv4Addr::new(10, 1, 2, 3))];
        }),
        does("mx-blocked", "an MX behind a wall", Behavior::Walled),
        odd("mx-ipv6", "an MX with an IPv6 address, where nothing listens")
            .mx(|mx| mx.more = vec![Rr::Aaaa(Ipv6Addr::LOCALHOST)]),
        odd("mx-equal", "two MX hosts of one preference").two(10),
        odd("mx-twin", "two machines behind one name, one of them with an expired certificate")
            .mx(|mx| mx.twin = Some((Behavior::Good, Cert::Expired))),
        does("mx-greylists", "a greeting that asks to come again", Behavior::Greylists),
        does("mx-only-tls12", "TLS 1.2 at most", Behavior::OnlyTls12),
        does("mx-only-sni", "another certificate without SNI", Behavior::OnlyWithSni),
        does("mx-wants-certificate", "insists on a certificate of the client", Behavior::WantsCertificate),
        does("mx-old-tls-too", "TLS 1.0 and 1.1 too", Behavior::OldTlsToo),
        does("mx-weak-cipher", "agrees to triple DES", Behavior::WeakCiphersToo),
        does("mx-flaps", "offers STARTTLS to every other client", Behavior::Flaps),
        does("mx-injection", "answers what came before the handshake", Behavior::TakesInjection),
        does("mx-requiretls", "offers REQUIRETLS", Behavior::RequireTls),
        cert("mx-expiring", "a certificate that ends in ten days", Cert::Expiring),
        cert("mx-chain-cut", "the issuer's certificate is not sent along", Cert::ChainCut),
        cert("mx-weak-key", "a certificate signed with SHA-1", Cert::Sha1),
    ]
}

fn dane() -> Vec<Case> {
    let signed = |name, about| odd(name, about).with(|s| s.signing = Signing::Signed);
    let short = TlsaRecord { usage: 3, selector: 1, matching: 1, data: vec![1, 2, 3, 4, 5] };
    vec![
        signed("dane-short", "a TLSA record whose digest is too short")
            .extra("_25._tcp.mx1", vec![Rr::Tlsa(short)]),
        signed("dane-partial", "one of two MX hosts has TLSA records").two(20).with(|s| {
            if let Some(mx) = s.mx.first_mut() {
                mx.tlsa = vec![DANE_EE];
            }
        }),
        signed("dane-rollover", "one TLSA record, and a certificate that ends in ten days").mx(|mx| {
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
        rua("rpt-syntax", "no rua", "v=TLSRPTv1; ruf=mailto:a@rpt-syntax.test"),
        odd("rpt-wrong-name", "the record at _tls._smtp")
            .with(|s| s.tlsrpt_records.clear())
            .extra("_tls._smtp", vec![txt("v=TLSRPTv1; rua=mailto:a@rpt-wrong-name.test")]),
        rua("rpt-scheme", "a target by http", "v=TLSRPTv1; rua=http://rpt-scheme.test/in"),
        rua(
            "rpt-nobody",
            "a target whose domain is not there",
            "v=TLSRPTv1; rua=mailto:a@no-such-domain.test",
        ),
        rua(
            "rpt-https",
            "a target where nothing listens",
            "v=TLSRPTv1; rua=https://mta-sts.rpt-https.test:9/in",
        ),
        rua(
            "rpt-many",
            "three targets",
            "v=TLSRPTv1; rua=mailto:a@rpt-many.test,mailto:b@rpt-many.test,mailto:c@good-enforce.test",
        ),
        rua(
            "rpt-encode",
            "a target with an exclamation mark",
            "v=TLSRPTv1; rua=mailto:a!10m@rpt-encode.test",
        ),
    ]
}
