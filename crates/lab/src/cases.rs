//! The table of lab domains for senders, with the delivery and the report that RFC 8461, 8460 and 7672 require.
//! Each domain differs from `good` only in the stated way. [`crate::Lab`] runs the domains; `sternpost lab list`
//! shows them. [`crate::oddities`] has the domains for `sternpost check`.

use crate::behavior::Behavior;
use crate::case::{Attack, Case, Delivery, HostAddress, Mx, NoMx, Setup, TlsaSetup, Topic, Verdict};
use crate::dns::{Signing, Tampering};
use crate::pki::Cert;
use crate::policy_host::HttpBehavior;
use Delivery::{Clear, Deferred, Encrypted, Refused, Verified};
use ResultType::{
    CertificateExpired, CertificateHostMismatch, CertificateNotTrusted, DnssecInvalid, StarttlsNotSupported,
    StsPolicyFetchError, StsPolicyInvalid, StsWebpkiInvalid, ValidationFailure,
};
use Topic::{Dane, Policy, PolicyHost, Record};
use formats::ResultType;
use formats::result_type::PolicyType::{self, NoPolicyFound, Sts, Tlsa};

/// All domains of this table.
pub fn all() -> Vec<Case> {
    [record(), policy_host(), policy(), mx(), dane(), attacks()].concat()
}

pub(crate) fn policy_text(mode: &str, mx: &[&str], max_age: &str) -> String {
    let mx: String = mx.iter().map(|mx| format!("mx: {mx}\r\n")).collect();
    format!("version: STSv1\r\nmode: {mode}\r\n{mx}max_age: {max_age}\r\n")
}

/// A correct domain with one MX host and a policy in mode enforce.
pub(crate) fn good(name: &'static str, topic: Topic, about: &'static str) -> Case {
    let mx = Mx {
        label: "mx1",
        preference: 10,
        behavior: Some(Behavior::Good),
        cert: Cert::Good,
        tlsa: vec![],
        tlsa_trouble: None,
        alias: false,
        twin: None,
        more: vec![],
        unaddressed: false,
        provider: None,
    };
    let setup = Setup {
        signing: Signing::Unsigned,
        sts_records: vec![vec!["v=STSv1; id=20260101000000;".into()]],
        record_by_cname: false,
        record_trouble: None,
        host_address: HostAddress::Direct,
        answers: HttpBehavior::Policy(policy_text("enforce", &[&format!("mx1.{name}.test")], "604800")),
        host_cert: Cert::Good,
        mx: vec![mx],
        no_mx: NoMx::Implicit,
        tlsrpt_records: vec![vec![format!("v=TLSRPTv1; rua=mailto:tlsrpt@{name}.test")]],
        extra: vec![],
        zones: vec![],
        ttl: 300,
        second_server: None,
    };
    Case { name, topic, about, setup, attack: Attack::default(), verdict: verdict(Verified, Sts, &[]) }
}

fn verdict(delivery: Delivery, policy_type: PolicyType, results: &[ResultType]) -> Verdict {
    Verdict { delivery, policy_type, results: results.to_vec() }
}

impl Case {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Setup)) -> Self {
        change(&mut self.setup);
        self
    }

    pub(crate) fn mx(self, change: impl Fn(&mut Mx)) -> Self {
        self.with(|setup| setup.mx.iter_mut().for_each(change))
    }

    pub(crate) fn mode(self, mode: &str) -> Self {
        let mx = format!("mx1.{}.test", self.name);
        self.with(|setup| setup.answers = HttpBehavior::Policy(policy_text(mode, &[&mx], "604800")))
    }

    pub(crate) fn record(self, text: &str) -> Self {
        self.with(|setup| setup.sts_records = vec![vec![text.into()]])
    }

    pub(crate) fn no_policy(self) -> Self {
        self.with(|setup| {
            setup.sts_records.clear();
            setup.host_address = HostAddress::Missing;
        })
    }

    pub(crate) fn body(self, answers: HttpBehavior) -> Self {
        self.with(|setup| setup.answers = answers)
    }

    fn attacked(mut self, attack: Attack) -> Self {
        self.attack = attack;
        self
    }

    fn expect(mut self, delivery: Delivery, policy_type: PolicyType, results: &[ResultType]) -> Self {
        self.verdict = verdict(delivery, policy_type, results);
        self
    }

    pub(crate) fn unprotected(self) -> Self {
        self.expect(Encrypted, NoPolicyFound, &[])
    }

    fn unfetched(self, why: ResultType) -> Self {
        self.expect(Encrypted, Sts, &[why])
    }
}

fn record() -> Vec<Case> {
    vec![
        good("good-enforce", Record, "a correct domain in mode enforce"),
        good("good-testing", Record, "a correct domain in mode testing").mode("testing").expect(
            Encrypted,
            Sts,
            &[],
        ),
        good("good-none", Record, "a correct domain in mode none").mode("none").unprotected(),
        good("no-mta-sts", Record, "no record and no policy host").no_policy().unprotected(),
        good("txt-missing", Record, "a policy host, but no record")
            .with(|s| s.sts_records.clear())
            .unprotected(),
        good("txt-two-records", Record, "two STSv1 records")
            .with(|s| s.sts_records.push(vec!["v=STSv1; id=2;".into()]))
            .unprotected(),
        good("txt-other-version", Record, "a record of version STSv2").record("v=STSv2; id=1;").unprotected(),
        good("txt-version-case", Record, "the version in lower case").record("v=stsv1; id=1;").unprotected(),
        good("txt-no-id", Record, "the record has no id").record("v=STSv1;").unprotected(),
        good("txt-bad-id", Record, "the id contains dashes").record("v=STSv1; id=2026-01-01;").unprotected(),
        good("txt-long-id", Record, "the id has 33 characters")
            .record("v=STSv1; id=012345678901234567890123456789012;")
            .unprotected(),
        good("txt-empty-field", Record, "the record has two consecutive semicolons")
            .record("v=STSv1; id=1;;")
            .unprotected(),
        good("txt-not-ascii", Record, "the record contains a non-ASCII character")
            .record("v=STSv1; id=1; x=ü;")
            .unprotected(),
        good("txt-split", Record, "the record is split into two strings")
            .with(|s| s.sts_records = vec![vec!["v=STSv1; id=2026".into(), "0101000000;".into()]]),
        good("txt-cname", Record, "the record is delegated by CNAME").with(|s| s.record_by_cname = true),
        good("txt-space", Record, "white space before the first semicolon").record("v=STSv1 ; id=1;"),
        good("txt-others", Record, "an unrelated TXT record at the same name")
            .with(|s| s.sts_records.push(vec!["some other text".into()])),
        good("txt-servfail", Record, "the query for the record returns SERVFAIL")
            .with(|s| s.record_trouble = Some(Tampering::ServFail))
            .unprotected(),
        good("txt-timeout", Record, "the query for the record times out")
            .with(|s| s.record_trouble = Some(Tampering::Drop))
            .unprotected(),
    ]
}

fn policy_host() -> Vec<Case> {
    let host = |name, about| good(name, PolicyHost, about);
    let cert = |name, about, kind| host(name, about).with(|s| s.host_cert = kind);
    let http = |name, about, answers| host(name, about).body(answers).unfetched(StsPolicyFetchError);
    vec![
        host("host-missing", "the policy host has no address")
            .with(|s| s.host_address = HostAddress::Missing)
            .unfetched(StsPolicyFetchError),
        host("host-cname", "the policy host is delegated by CNAME")
            .with(|s| s.host_address = HostAddress::Cname),
        host("host-refused", "the policy host refuses connections")
            .with(|s| s.host_address = HostAddress::Refused)
            .unfetched(StsPolicyFetchError),
        http("host-silent", "the policy host accepts connections but sends nothing", HttpBehavior::Silent),
        http("host-aborts", "the policy host aborts the TLS handshake", HttpBehavior::Aborts),
        http("host-tls10", "the policy host supports only TLS 1.0", HttpBehavior::OldTls),
        cert("cert-wildcard", "a matching wildcard certificate", Cert::Wildcard),
        cert("cert-expired", "the policy host's certificate has expired", Cert::Expired)
            .unfetched(StsWebpkiInvalid),
        cert("cert-not-yet", "the certificate is not valid yet", Cert::NotYetValid)
            .unfetched(StsWebpkiInvalid),
        cert("cert-wrong-name", "the certificate is for another host", Cert::WrongName)
            .unfetched(StsWebpkiInvalid),
        cert("cert-self-signed", "the certificate is self-signed", Cert::SelfSigned)
            .unfetched(StsWebpkiInvalid),
        cert("cert-untrusted", "the certificate is issued by an unknown root", Cert::Untrusted)
            .unfetched(StsWebpkiInvalid),
        cert("cert-cn-only", "the host name is only in the common name", Cert::CommonNameOnly)
            .unfetched(StsWebpkiInvalid),
        cert("cert-deep-wildcard", "a wildcard certificate one level too high", Cert::DeepWildcard)
            .unfetched(StsWebpkiInvalid),
        http(
            "http-redirect",
            "a redirect to a valid policy",
            HttpBehavior::Redirect("https://mta-sts.good-enforce.test/.well-known/mta-sts.txt".into()),
        ),
        http("http-404", "status 404", HttpBehavior::Status(404)),
        http("http-500", "status 500", HttpBehavior::Status(500)),
        http("http-204", "status 204", HttpBehavior::Status(204)),
        http(
            "http-html",
            "the policy is served as text/html",
            HttpBehavior::Typed(
                "text/html",
                policy_text("enforce", &["mx1.http-html.test"], "604800").into_bytes(),
            ),
        ),
        http(
            "http-oversize",
            "the policy file is one byte over 64 KiB",
            HttpBehavior::Typed("text/plain", oversize()),
        ),
        http("http-cut-off", "the connection closes in the middle of the policy file", HttpBehavior::CutOff),
        http("http-stalls", "the response body never arrives", HttpBehavior::Stalls),
        http("http-drips", "the response body arrives too slowly", HttpBehavior::Drips),
        http("http-endless", "the response body never ends", HttpBehavior::Endless),
        http(
            "http-compressed",
            "the response is compressed although the client did not allow it",
            HttpBehavior::Compressed,
        ),
    ]
}

/// A policy file that is one byte larger than the limit.
fn oversize() -> Vec<u8> {
    let mut body = policy_text("enforce", &["mx1.http-oversize.test"], "604800").into_bytes();
    while body.len() + 50 < formats::limits::POLICY_BYTES {
        body.extend(b"padding: 1234567890\r\n");
    }
    body.resize(formats::limits::POLICY_BYTES + 1, b' ');
    body
}

fn policy() -> Vec<Case> {
    let file = |name, about, body: &str| {
        good(name, Policy, about).body(HttpBehavior::Policy(body.replace("NAME", name)))
    };
    let bad = |name, about, body: &str| file(name, about, body).unfetched(StsPolicyInvalid);
    vec![
        bad(
            "policy-no-version",
            "the policy has no version",
            "mode: enforce\r\nmx: mx1.NAME.test\r\nmax_age: 604800\r\n",
        ),
        bad(
            "policy-mode-case",
            "the mode is capitalized",
            "version: STSv1\r\nmode: Enforce\r\nmx: mx1.NAME.test\r\nmax_age: 604800\r\n",
        ),
        bad(
            "policy-no-max-age",
            "the policy has no max_age",
            "version: STSv1\r\nmode: enforce\r\nmx: mx1.NAME.test\r\n",
        ),
        bad(
            "policy-bad-max-age",
            "max_age has a unit",
            "version: STSv1\r\nmode: enforce\r\nmx: mx1.NAME.test\r\nmax_age: 7d\r\n",
        ),
        bad(
            "policy-no-mx",
            "mode enforce without an mx line",
            "version: STSv1\r\nmode: enforce\r\nmax_age: 604800\r\n",
        ),
        bad("policy-empty", "the policy file is empty", ""),
        bad("policy-html", "an HTML page instead of a policy", "<!DOCTYPE html>\n<title>Not found</title>\n"),
        bad(
            "policy-bom",
            "the policy begins with a byte-order mark",
            "\u{feff}version: STSv1\r\nmode: enforce\r\nmx: mx1.NAME.test\r\nmax_age: 604800\r\n",
        ),
        bad(
            "policy-u-label",
            "an mx line with a U-label",
            "version: STSv1\r\nmode: enforce\r\nmx: mxü.NAME.test\r\nmax_age: 604800\r\n",
        ),
        bad(
            "policy-bare-star",
            "an mx line with only an asterisk",
            "version: STSv1\r\nmode: enforce\r\nmx: *\r\nmax_age: 604800\r\n",
        ),
        file(
            "policy-lf",
            "the lines end in LF",
            "version: STSv1\nmode: enforce\nmx: mx1.NAME.test\nmax_age: 604800\n",
        ),
        file(
            "policy-unknown",
            "the policy has an unknown key",
            "version: STSv1\r\nfoo: bar\r\nmode: enforce\r\nmx: mx1.NAME.test\r\nmax_age: 604800\r\n",
        ),
        file(
            "policy-duplicate",
            "a second mode line, which is ignored",
            "version: STSv1\r\nmode: enforce\r\nmode: none\r\nmx: mx1.NAME.test\r\nmax_age: 604800\r\n",
        ),
        file(
            "policy-wildcard",
            "an mx line with a wildcard",
            "version: STSv1\r\nmode: enforce\r\nmx: *.NAME.test\r\nmax_age: 604800\r\n",
        ),
        file(
            "policy-upper-case",
            "an mx line in upper case",
            "version: STSv1\r\nmode: enforce\r\nmx: MX1.NAME.TEST\r\nmax_age: 604800\r\n",
        ),
        file(
            "policy-long-max-age",
            "max_age is over one year",
            "version: STSv1\r\nmode: enforce\r\nmx: mx1.NAME.test\r\nmax_age: 9999999999\r\n",
        ),
        file(
            "policy-max-age-zero",
            "max_age is 0",
            "version: STSv1\r\nmode: enforce\r\nmx: mx1.NAME.test\r\nmax_age: 0\r\n",
        ),
    ]
}

pub(crate) fn second(change: impl FnOnce(&mut Mx)) -> Mx {
    let mut mx = Mx {
        label: "mx2",
        preference: 20,
        behavior: Some(Behavior::Good),
        cert: Cert::Good,
        tlsa: vec![],
        tlsa_trouble: None,
        alias: false,
        twin: None,
        more: vec![],
        unaddressed: false,
        provider: None,
    };
    change(&mut mx);
    mx
}

fn mx() -> Vec<Case> {
    let case = |name, about| good(name, Topic::Mx, about);
    let cert = |name, about, kind| case(name, about).mx(move |mx| mx.cert = kind);
    let does = |name, about, how| case(name, about).mx(move |mx| mx.behavior = Some(how));
    let both = |setup: &mut Setup, name: &str| {
        setup.answers = HttpBehavior::Policy(policy_text(
            "enforce",
            &[&format!("mx1.{name}.test"), &format!("mx2.{name}.test")],
            "604800",
        ))
    };
    vec![
        case("mx-not-listed", "the MX host does not match the policy").mx(|mx| mx.label = "other").expect(
            Deferred,
            Sts,
            &[ValidationFailure],
        ),
        case("mx-not-listed-testing", "the MX host does not match a policy in mode testing")
            .mode("testing")
            .mx(|mx| mx.label = "other")
            .expect(Encrypted, Sts, &[ValidationFailure]),
        case("mx-too-deep", "a wildcard would have to match two labels")
            .mx(|mx| mx.label = "a.b")
            .body(HttpBehavior::Policy(policy_text("enforce", &["*.mx-too-deep.test"], "604800")))
            .expect(Deferred, Sts, &[ValidationFailure]),
        does("mx-no-starttls", "the MX host does not offer STARTTLS", Behavior::NoStarttls).expect(
            Deferred,
            Sts,
            &[StarttlsNotSupported],
        ),
        does("mx-no-starttls-testing", "no STARTTLS, in mode testing", Behavior::NoStarttls)
            .mode("testing")
            .expect(Clear, Sts, &[StarttlsNotSupported]),
        does("mx-no-starttls-none", "no STARTTLS, in mode none", Behavior::NoStarttls).mode("none").expect(
            Clear,
            NoPolicyFound,
            &[],
        ),
        does("mx-starttls-refused", "the MX host offers STARTTLS but replies 454", Behavior::StarttlsRefused)
            .expect(Deferred, Sts, &[ValidationFailure]),
        does("mx-handshake-breaks", "the MX host aborts the TLS handshake", Behavior::HandshakeBreaks)
            .expect(Deferred, Sts, &[ValidationFailure]),
        does("mx-tls10", "the MX host supports only TLS 1.0", Behavior::OldTls).expect(
            Deferred,
            Sts,
            &[ValidationFailure],
        ),
        does("mx-garbage", "the MX host replies to the ClientHello with text", Behavior::Garbage).expect(
            Deferred,
            Sts,
            &[ValidationFailure],
        ),
        does("mx-silent", "the MX host accepts connections but sends nothing", Behavior::Silent).expect(
            Deferred,
            Sts,
            &[],
        ),
        does("mx-busy", "the MX host greets with 421", Behavior::Busy).expect(Deferred, Sts, &[]),
        does("mx-refuses", "the MX host greets with 554", Behavior::Refuses).expect(Deferred, Sts, &[]),
        does("mx-closes", "the MX host closes the connection immediately", Behavior::Closes).expect(
            Deferred,
            Sts,
            &[],
        ),
        cert("mx-expired", "the MX certificate has expired", Cert::Expired).expect(
            Deferred,
            Sts,
            &[CertificateExpired],
        ),
        cert("mx-expired-testing", "an expired MX certificate, in mode testing", Cert::Expired)
            .mode("testing")
            .expect(Encrypted, Sts, &[CertificateExpired]),
        cert("mx-not-yet", "the MX certificate is not valid yet", Cert::NotYetValid).expect(
            Deferred,
            Sts,
            &[CertificateExpired],
        ),
        cert("mx-wrong-name", "the MX certificate is for another host", Cert::WrongName).expect(
            Deferred,
            Sts,
            &[CertificateHostMismatch],
        ),
        cert("mx-self-signed", "the MX certificate is self-signed", Cert::SelfSigned).expect(
            Deferred,
            Sts,
            &[CertificateNotTrusted],
        ),
        cert("mx-untrusted", "the MX certificate is issued by an unknown root", Cert::Untrusted).expect(
            Deferred,
            Sts,
            &[CertificateNotTrusted],
        ),
        cert("mx-cn-only", "the MX host name is only in the common name", Cert::CommonNameOnly).expect(
            Deferred,
            Sts,
            &[CertificateHostMismatch],
        ),
        cert("mx-wildcard-cert", "a matching wildcard certificate", Cert::Wildcard),
        case("mx-second-good", "the first MX host has an expired certificate, the second a valid one")
            .mx(|mx| mx.cert = Cert::Expired)
            .with(|s| {
                s.mx.push(second(|_| {}));
                both(s, "mx-second-good");
            })
            .expect(Verified, Sts, &[CertificateExpired]),
        case("mx-first-down", "the first MX host refuses connections, the second is correct")
            .mx(|mx| mx.behavior = None)
            .with(|s| {
                s.mx.push(second(|_| {}));
                both(s, "mx-first-down");
            }),
        case("mx-first-unlisted", "only the second MX host matches the policy")
            .mx(|mx| mx.label = "other")
            .with(|s| s.mx.push(second(|mx| mx.label = "mx1")))
            .expect(Verified, Sts, &[ValidationFailure]),
        case("mx-alias", "the MX name is a CNAME; the policy matches the name in the MX record")
            .mx(|mx| mx.alias = true),
        case("mx-implicit", "no MX record: the domain itself is the implicit MX").with(|s| {
            s.mx.clear();
            s.answers = HttpBehavior::Policy(policy_text("enforce", &["mx-implicit.test"], "604800"));
        }),
        case("mx-null", "a null MX")
            .with(|s| {
                s.mx.clear();
                s.no_mx = NoMx::Null;
            })
            .no_policy()
            .expect(Refused, NoPolicyFound, &[]),
        does("plain-no-starttls", "no policy, no STARTTLS", Behavior::NoStarttls).no_policy().expect(
            Clear,
            NoPolicyFound,
            &[],
        ),
        cert("plain-self-signed", "no policy, a self-signed MX certificate", Cert::SelfSigned)
            .no_policy()
            .unprotected(),
        does("plain-handshake-breaks", "no policy, the TLS handshake fails", Behavior::HandshakeBreaks)
            .no_policy()
            .expect(Clear, NoPolicyFound, &[]),
    ]
}

const DANE_EE: TlsaSetup = TlsaSetup { usage: 3, selector: 1, matching: 1, right: true, claims: None };
const WRONG_DANE_EE: TlsaSetup = TlsaSetup { right: false, ..DANE_EE };

fn dane() -> Vec<Case> {
    let signed = |name, about, tlsa: &[TlsaSetup]| {
        let tlsa = tlsa.to_vec();
        good(name, Dane, about)
            .no_policy()
            .with(|s| s.signing = Signing::Signed)
            .mx(move |mx| mx.tlsa = tlsa.clone())
            .expect(Verified, Tlsa, &[])
    };
    vec![
        signed("dane-ee", "DANE-EE with a self-signed certificate", &[DANE_EE])
            .mx(|mx| mx.cert = Cert::SelfSigned),
        signed("dane-ee-expired", "DANE-EE with an expired certificate, which is ignored", &[DANE_EE])
            .mx(|mx| mx.cert = Cert::Expired),
        signed("dane-ee-name", "DANE-EE with a wrong name, which is ignored", &[DANE_EE])
            .mx(|mx| mx.cert = Cert::WrongName),
        signed(
            "dane-ee-full",
            "DANE-EE with the full certificate instead of a digest",
            &[TlsaSetup { selector: 0, matching: 0, ..DANE_EE }],
        ),
        signed("dane-ta", "DANE-TA for the lab's root", &[TlsaSetup { usage: 2, selector: 0, ..DANE_EE }]),
        signed(
            "dane-ta-untrusted",
            "DANE-TA for a root that is not in the trust store",
            &[TlsaSetup { usage: 2, ..DANE_EE }],
        )
        .mx(|mx| mx.cert = Cert::Untrusted),
        signed("dane-ta-name", "DANE-TA with a wrong name", &[TlsaSetup { usage: 2, ..DANE_EE }])
            .mx(|mx| mx.cert = Cert::WrongName)
            .expect(Deferred, Tlsa, &[CertificateHostMismatch]),
        signed(
            "dane-ta-expired",
            "DANE-TA with an expired certificate",
            &[TlsaSetup { usage: 2, ..DANE_EE }],
        )
        .mx(|mx| mx.cert = Cert::Expired)
        .expect(Deferred, Tlsa, &[CertificateExpired]),
        signed("dane-mismatch", "no TLSA record matches", &[WRONG_DANE_EE]).expect(
            Deferred,
            Tlsa,
            &[ValidationFailure],
        ),
        signed("dane-two", "one of two TLSA records matches", &[WRONG_DANE_EE, DANE_EE]),
        signed(
            "dane-agility",
            "only the stronger digest matches",
            &[WRONG_DANE_EE, TlsaSetup { matching: 2, ..DANE_EE }],
        ),
        signed(
            "dane-agility-wrong",
            "only the weaker digest matches",
            &[DANE_EE, TlsaSetup { matching: 2, ..WRONG_DANE_EE }],
        )
        .expect(Deferred, Tlsa, &[ValidationFailure]),
        signed(
            "dane-unusable",
            "only a record of usage 1: TLS without verification",
            &[TlsaSetup { usage: 1, ..DANE_EE }],
        )
        .mx(|mx| mx.cert = Cert::SelfSigned)
        .expect(Encrypted, Tlsa, &[]),
        signed(
            "dane-unusable-plain",
            "only a record of usage 1, no STARTTLS",
            &[TlsaSetup { usage: 1, ..DANE_EE }],
        )
        .mx(|mx| mx.behavior = Some(Behavior::NoStarttls))
        .expect(Deferred, Tlsa, &[StarttlsNotSupported]),
        signed("dane-no-starttls", "TLSA records, but no STARTTLS", &[DANE_EE])
            .mx(|mx| mx.behavior = Some(Behavior::NoStarttls))
            .expect(Deferred, Tlsa, &[StarttlsNotSupported]),
        signed("dane-tlsa-servfail", "the query for TLSA records returns SERVFAIL", &[DANE_EE])
            .mx(|mx| mx.tlsa_trouble = Some(Tampering::ServFail))
            .expect(Deferred, Tlsa, &[DnssecInvalid]),
        signed("dane-unsigned", "TLSA records in an unsigned zone, which are ignored", &[WRONG_DANE_EE])
            .with(|s| s.signing = Signing::Unsigned)
            .unprotected(),
        signed("dane-none", "a signed zone without TLSA records", &[]).unprotected(),
        signed("dane-bogus", "the zone fails DNSSEC validation", &[DANE_EE])
            .with(|s| s.signing = Signing::Bogus)
            .expect(Deferred, Tlsa, &[DnssecInvalid]),
        good("dane-beats-sts", Dane, "DANE succeeds where the policy in mode enforce would fail")
            .with(|s| s.signing = Signing::Signed)
            .mx(|mx| {
                mx.cert = Cert::SelfSigned;
                mx.tlsa = vec![DANE_EE];
            })
            .expect(Verified, Tlsa, &[]),
        good("dane-fails-sts", Dane, "DANE fails where the policy in mode enforce would succeed")
            .with(|s| s.signing = Signing::Signed)
            .mx(|mx| mx.tlsa = vec![WRONG_DANE_EE])
            .expect(Deferred, Tlsa, &[ValidationFailure]),
        good("sts-signed", Dane, "a policy in mode enforce in a signed zone without TLSA records")
            .with(|s| s.signing = Signing::Signed),
    ]
}

fn attacks() -> Vec<Case> {
    let case = |name, about| good(name, Topic::Attack, about);
    let strip = Attack { strip: true, ..Attack::default() };
    vec![
        case("attack-strip-plain", "no policy; STARTTLS is stripped without notice")
            .no_policy()
            .attacked(strip)
            .expect(Clear, NoPolicyFound, &[]),
        case("attack-strip-testing", "mode testing; STARTTLS is stripped and the failure reported")
            .mode("testing")
            .attacked(strip)
            .expect(Clear, Sts, &[StarttlsNotSupported]),
        case("attack-strip-enforce", "mode enforce; STARTTLS is stripped").attacked(strip).expect(
            Deferred,
            Sts,
            &[StarttlsNotSupported],
        ),
        case(
            "attack-first-contact",
            "the record is suppressed before the first contact, so MTA-STS can't protect",
        )
        .attacked(Attack { suppress_record: true, strip: true, ..Attack::default() })
        .expect(Clear, NoPolicyFound, &[]),
        case(
            "attack-suppress-cached",
            "the record is suppressed and STARTTLS is stripped; the policy is cached",
        )
        .attacked(Attack { policy_cached: true, suppress_record: true, strip: true, ..Attack::default() })
        .expect(Deferred, Sts, &[StarttlsNotSupported]),
        case("attack-suppress-only", "the record is suppressed; the policy is cached").attacked(Attack {
            policy_cached: true,
            suppress_record: true,
            ..Attack::default()
        }),
        case("attack-block-cached", "the policy host is blocked; the policy is cached").attacked(Attack {
            policy_cached: true,
            block_host: true,
            ..Attack::default()
        }),
        case("attack-block-first", "the policy host is blocked before the first contact")
            .attacked(Attack { block_host: true, ..Attack::default() })
            .unfetched(StsPolicyFetchError),
        case("attack-forge-mx", "the MX records are forged; the policy is cached")
            .attacked(Attack { policy_cached: true, forge_mx: true, ..Attack::default() })
            .expect(Deferred, Sts, &[ValidationFailure]),
        case(
            "attack-forge-mx-plain",
            "no policy; the MX records are forged and the attacker receives the mail",
        )
        .no_policy()
        .attacked(Attack { forge_mx: true, ..Attack::default() })
        .unprotected(),
    ]
}
