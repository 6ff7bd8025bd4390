//! The table of lab domains. Each differs from `good` in what its entry says, and in nothing else.

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

/// All lab domains.
pub fn all() -> Vec<Case> {
    [record(), policy_host(), policy(), mx(), dane(), attacks()].concat()
}

pub(crate) fn policy_text(mode: &str, mx: &[&str], max_age: &str) -> String {
    let mx: String = mx.iter().map(|mx| format!("mx: {mx}\r\n")).collect();
    format!("version: STSv1\r\nmode: {mode}\r\n{mx}max_age: {max_age}\r\n")
}

/// A domain with everything right, its policy in `enforce`.
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
        good("good-enforce", Record, "everything right, enforced"),
        good("good-testing", Record, "everything right, testing").mode("testing").expect(Encrypted, Sts, &[]),
        good("good-none", Record, "a policy of mode none").mode("none").unprotected(),
        good("no-mta-sts", Record, "neither record nor policy host").no_policy().unprotected(),
        good("txt-missing", Record, "a policy host, but no record")
            .with(|s| s.sts_records.clear())
            .unprotected(),
        good("txt-two-records", Record, "two records of the version")
            .with(|s| s.sts_records.push(vec!["v=STSv1; id=2;".into()]))
            .unprotected(),
        good("txt-other-version", Record, "a record of version STSv2").record("v=STSv2; id=1;").unprotected(),
        good("txt-version-case", Record, "the version in lower case").record("v=stsv1; id=1;").unprotected(),
        good("txt-no-id", Record, "no id").record("v=STSv1;").unprotected(),
        good("txt-bad-id", Record, "an id with dashes").record("v=STSv1; id=2026-01-01;").unprotected(),
        good("txt-long-id", Record, "an id of 33 characters")
            .record("v=STSv1; id=012345678901234567890123456789012;")
            .unprotected(),
        good("txt-empty-field", Record, "two semicolons in a row").record("v=STSv1; id=1;;").unprotected(),
        good("txt-not-ascii", Record, "a letter outside ASCII").record("v=STSv1; id=1; x=ü;").unprotected(),
        good("txt-split", Record, "the record in two strings")
            .with(|s| s.sts_records = vec![vec!["v=STSv1; id=2026".into(), "0101000000;".into()]]),
        good("txt-cname", Record, "the record delegated by CNAME").with(|s| s.record_by_cname = true),
        good("txt-space", Record, "white space before the first semicolon").record("v=STSv1 ; id=1;"),
        good("txt-others", Record, "other TXT records beside it")
            .with(|s| s.sts_records.push(vec!["some other text".into()])),
        good("txt-servfail", Record, "SERVFAIL for the record")
            .with(|s| s.record_trouble = Some(Tampering::ServFail))
            .unprotected(),
        good("txt-timeout", Record, "no answer for the record")
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
        host("host-cname", "the policy host delegated by CNAME")
            .with(|s| s.host_address = HostAddress::Cname),
        host("host-refused", "nothing listens at the policy host")
            .with(|s| s.host_address = HostAddress::Refused)
            .unfetched(StsPolicyFetchError),
        http("host-silent", "the policy host takes connections and says nothing", HttpBehavior::Silent),
        http("host-aborts", "the policy host breaks off the handshake", HttpBehavior::Aborts),
        http("host-tls10", "the policy host speaks TLS 1.0 only", HttpBehavior::OldTls),
        cert("cert-wildcard", "a wildcard certificate that fits", Cert::Wildcard),
        cert("cert-expired", "the policy host's certificate has expired", Cert::Expired)
            .unfetched(StsWebpkiInvalid),
        cert("cert-not-yet", "the certificate is not valid yet", Cert::NotYetValid)
            .unfetched(StsWebpkiInvalid),
        cert("cert-wrong-name", "the certificate is for another host", Cert::WrongName)
            .unfetched(StsWebpkiInvalid),
        cert("cert-self-signed", "the certificate is self-signed", Cert::SelfSigned)
            .unfetched(StsWebpkiInvalid),
        cert("cert-untrusted", "the certificate is of an unknown root", Cert::Untrusted)
            .unfetched(StsWebpkiInvalid),
        cert("cert-cn-only", "the name stands only in the common name", Cert::CommonNameOnly)
            .unfetched(StsWebpkiInvalid),
        cert("cert-deep-wildcard", "a wildcard one level too high", Cert::DeepWildcard)
            .unfetched(StsWebpkiInvalid),
        http(
            "http-redirect",
            "a redirect to a good policy",
            HttpBehavior::Redirect("https://mta-sts.good-enforce.test/.well-known/mta-sts.txt".into()),
        ),
        http("http-404", "status 404", HttpBehavior::Status(404)),
        http("http-500", "status 500", HttpBehavior::Status(500)),
        http("http-204", "status 204", HttpBehavior::Status(204)),
        http(
            "http-html",
            "the policy as text/html",
            HttpBehavior::Typed(
                "text/html",
                policy_text("enforce", &["mx1.http-html.test"], "604800").into_bytes(),
            ),
        ),
        http(
            "http-oversize",
            "a policy of 64 KiB and one byte",
            HttpBehavior::Typed("text/plain", oversize()),
        ),
        http("http-cut-off", "the connection ends in the middle of the policy", HttpBehavior::CutOff),
        http("http-stalls", "the policy never comes", HttpBehavior::Stalls),
        http("http-drips", "the policy comes byte by byte, too slowly", HttpBehavior::Drips),
        http("http-endless", "a body that never ends", HttpBehavior::Endless),
        http("http-compressed", "a compressed policy that was not asked for", HttpBehavior::Compressed),
    ]
}

/// A policy that would be valid, but for one byte too many.
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
        bad("policy-no-version", "no version", "mode: enforce\r\nmx: mx1.NAME.test\r\nmax_age: 604800\r\n"),
        bad(
            "policy-mode-case",
            "the mode in upper case",
            "version: STSv1\r\nmode: Enforce\r\nmx: mx1.NAME.test\r\nmax_age: 604800\r\n",
        ),
        bad("policy-no-max-age", "no max_age", "version: STSv1\r\nmode: enforce\r\nmx: mx1.NAME.test\r\n"),
        bad(
            "policy-bad-max-age",
            "a max_age with a unit",
            "version: STSv1\r\nmode: enforce\r\nmx: mx1.NAME.test\r\nmax_age: 7d\r\n",
        ),
        bad("policy-no-mx", "enforce without mx", "version: STSv1\r\nmode: enforce\r\nmax_age: 604800\r\n"),
        bad("policy-empty", "an empty file", ""),
        bad(
            "policy-html",
            "a web page under the policy's name",
            "<!DOCTYPE html>\n<title>Not found</title>\n",
        ),
        bad(
            "policy-bom",
            "a byte-order mark in front",
            "\u{feff}version: STSv1\r\nmode: enforce\r\nmx: mx1.NAME.test\r\nmax_age: 604800\r\n",
        ),
        bad(
            "policy-u-label",
            "an mx in Unicode",
            "version: STSv1\r\nmode: enforce\r\nmx: mxü.NAME.test\r\nmax_age: 604800\r\n",
        ),
        bad(
            "policy-bare-star",
            "an mx that is only a star",
            "version: STSv1\r\nmode: enforce\r\nmx: *\r\nmax_age: 604800\r\n",
        ),
        file(
            "policy-lf",
            "lines that end in LF",
            "version: STSv1\nmode: enforce\nmx: mx1.NAME.test\nmax_age: 604800\n",
        ),
        file(
            "policy-unknown",
            "keys that are not known",
            "version: STSv1\r\nfoo: bar\r\nmode: enforce\r\nmx: mx1.NAME.test\r\nmax_age: 604800\r\n",
        ),
        file(
            "policy-duplicate",
            "a second mode, which does not count",
            "version: STSv1\r\nmode: enforce\r\nmode: none\r\nmx: mx1.NAME.test\r\nmax_age: 604800\r\n",
        ),
        file(
            "policy-wildcard",
            "an mx wildcard",
            "version: STSv1\r\nmode: enforce\r\nmx: *.NAME.test\r\nmax_age: 604800\r\n",
        ),
        file(
            "policy-upper-case",
            "an mx in upper case",
            "version: STSv1\r\nmode: enforce\r\nmx: MX1.NAME.TEST\r\nmax_age: 604800\r\n",
        ),
        file(
            "policy-long-max-age",
            "a max_age over a year",
            "version: STSv1\r\nmode: enforce\r\nmx: mx1.NAME.test\r\nmax_age: 9999999999\r\n",
        ),
        file(
            "policy-max-age-zero",
            "a max_age of 0",
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
        case("mx-not-listed", "the MX is not in the policy").mx(|mx| mx.label = "other").expect(
            Deferred,
            Sts,
            &[ValidationFailure],
        ),
        case("mx-not-listed-testing", "the MX is not in a policy in testing")
            .mode("testing")
            .mx(|mx| mx.label = "other")
            .expect(Encrypted, Sts, &[ValidationFailure]),
        case("mx-too-deep", "the wildcard would have to match two labels")
            .mx(|mx| mx.label = "a.b")
            .body(HttpBehavior::Policy(policy_text("enforce", &["*.mx-too-deep.test"], "604800")))
            .expect(Deferred, Sts, &[ValidationFailure]),
        does("mx-no-starttls", "the MX does not offer STARTTLS", Behavior::NoStarttls).expect(
            Deferred,
            Sts,
            &[StarttlsNotSupported],
        ),
        does("mx-no-starttls-testing", "the same, in testing", Behavior::NoStarttls).mode("testing").expect(
            Clear,
            Sts,
            &[StarttlsNotSupported],
        ),
        does("mx-no-starttls-none", "the same, in mode none", Behavior::NoStarttls).mode("none").expect(
            Clear,
            NoPolicyFound,
            &[],
        ),
        does("mx-starttls-refused", "STARTTLS is offered and answered 454", Behavior::StarttlsRefused)
            .expect(Deferred, Sts, &[ValidationFailure]),
        does("mx-handshake-breaks", "the MX breaks off the handshake", Behavior::HandshakeBreaks).expect(
            Deferred,
            Sts,
            &[ValidationFailure],
        ),
        does("mx-tls10", "the MX speaks TLS 1.0 only", Behavior::OldTls).expect(
            Deferred,
            Sts,
            &[ValidationFailure],
        ),
        does("mx-garbage", "the MX answers the handshake with text", Behavior::Garbage).expect(
            Deferred,
            Sts,
            &[ValidationFailure],
        ),
        does("mx-silent", "the MX takes connections and says nothing", Behavior::Silent).expect(
            Deferred,
            Sts,
            &[],
        ),
        does("mx-busy", "the MX greets with 421", Behavior::DeliveryLimits).expect(Deferred, Sts, &[]),
        does("mx-refuses", "the MX greets with 554", Behavior::Refuses).expect(Deferred, Sts, &[]),
        does("mx-closes", "the MX closes at once", Behavior::Closes).expect(Deferred, Sts, &[]),
        cert("mx-expired", "the MX certificate has expired", Cert::Expired).expect(
            Deferred,
            Sts,
            &[CertificateExpired],
        ),
        cert("mx-expired-testing", "the same, in testing", Cert::Expired).mode("testing").expect(
            Encrypted,
            Sts,
            &[CertificateExpired],
        ),
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
        cert("mx-untrusted", "the MX certificate is of an unknown root", Cert::Untrusted).expect(
            Deferred,
            Sts,
            &[CertificateNotTrusted],
        ),
        cert("mx-cn-only", "the MX name stands only in the common name", Cert::CommonNameOnly).expect(
            Deferred,
            Sts,
            &[CertificateHostMismatch],
        ),
        cert("mx-wildcard-cert", "a wildcard certificate that fits", Cert::Wildcard),
        case("mx-second-good", "the first MX has expired, the second is good")
            .mx(|mx| mx.cert = Cert::Expired)
            .with(|s| {
                s.mx.push(second(|_| {}));
                both(s, "mx-second-good");
            })
            .expect(Verified, Sts, &[CertificateExpired]),
        case("mx-first-down", "nothing listens at the first MX, the second is good")
            .mx(|mx| mx.behavior = None)
            .with(|s| {
                s.mx.push(second(|_| {}));
                both(s, "mx-first-down");
            }),
        case("mx-first-unlisted", "the first MX is not in the policy, the second is")
            .mx(|mx| mx.label = "other")
            .with(|s| s.mx.push(second(|mx| mx.label = "mx1")))
            .expect(Verified, Sts, &[ValidationFailure]),
        case("mx-alias", "the MX name is a CNAME; the name in the record counts").mx(|mx| mx.alias = true),
        case("mx-implicit", "no MX record: the domain itself is the MX").with(|s| {
            s.mx.clear();
            s.answers = HttpBehavior::Policy(policy_text("enforce", &["mx-implicit.test"], "604800"));
        }),
        case("mx-null", "the null MX")
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
        cert("plain-self-signed", "no policy, a self-signed certificate", Cert::SelfSigned)
            .no_policy()
            .unprotected(),
        does("plain-handshake-breaks", "no policy, a handshake that fails", Behavior::HandshakeBreaks)
            .no_policy()
            .expect(Clear, NoPolicyFound, &[]),
    ]
}

const DANE_EE: TlsaSetup = TlsaSetup { usage: 3, selector: 1, matching: 1, right: true };
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
        signed("dane-ee", "DANE-EE and a self-signed certificate", &[DANE_EE])
            .mx(|mx| mx.cert = Cert::SelfSigned),
        signed("dane-ee-expired", "DANE-EE and an expired certificate, which does not matter", &[DANE_EE])
            .mx(|mx| mx.cert = Cert::Expired),
        signed("dane-ee-name", "DANE-EE and another name, which does not matter", &[DANE_EE])
            .mx(|mx| mx.cert = Cert::WrongName),
        signed(
            "dane-ee-full",
            "DANE-EE of the whole certificate, undigested",
            &[TlsaSetup { selector: 0, matching: 0, ..DANE_EE }],
        ),
        signed("dane-ta", "DANE-TA of the root", &[TlsaSetup { usage: 2, selector: 0, ..DANE_EE }]),
        signed(
            "dane-ta-untrusted",
            "DANE-TA of a root that nobody else trusts",
            &[TlsaSetup { usage: 2, ..DANE_EE }],
        )
        .mx(|mx| mx.cert = Cert::Untrusted),
        signed("dane-ta-name", "DANE-TA and another name", &[TlsaSetup { usage: 2, ..DANE_EE }])
            .mx(|mx| mx.cert = Cert::WrongName)
            .expect(Deferred, Tlsa, &[CertificateHostMismatch]),
        signed("dane-ta-expired", "DANE-TA and an expired certificate", &[TlsaSetup { usage: 2, ..DANE_EE }])
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
            "a stronger digest matches, a weaker one does not",
            &[WRONG_DANE_EE, TlsaSetup { matching: 2, ..DANE_EE }],
        ),
        signed(
            "dane-agility-wrong",
            "a weaker digest matches, the stronger one does not",
            &[DANE_EE, TlsaSetup { matching: 2, ..WRONG_DANE_EE }],
        )
        .expect(Deferred, Tlsa, &[ValidationFailure]),
        signed(
            "dane-unusable",
            "only a record of usage 1: TLS with whoever answers",
            &[TlsaSetup { usage: 1, ..DANE_EE }],
        )
        .mx(|mx| mx.cert = Cert::SelfSigned)
        .expect(Encrypted, Tlsa, &[]),
        signed(
            "dane-unusable-plain",
            "only a record of usage 1, and no STARTTLS",
            &[TlsaSetup { usage: 1, ..DANE_EE }],
        )
        .mx(|mx| mx.behavior = Some(Behavior::NoStarttls))
        .expect(Deferred, Tlsa, &[StarttlsNotSupported]),
        signed("dane-no-starttls", "TLSA records and no STARTTLS", &[DANE_EE])
            .mx(|mx| mx.behavior = Some(Behavior::NoStarttls))
            .expect(Deferred, Tlsa, &[StarttlsNotSupported]),
        signed("dane-tlsa-servfail", "SERVFAIL for the TLSA records", &[DANE_EE])
            .mx(|mx| mx.tlsa_trouble = Some(Tampering::ServFail))
            .expect(Deferred, Tlsa, &[DnssecInvalid]),
        signed("dane-unsigned", "TLSA records in an unsigned zone, which do not count", &[WRONG_DANE_EE])
            .with(|s| s.signing = Signing::Unsigned)
            .unprotected(),
        signed("dane-none", "a signed zone without TLSA records", &[]).unprotected(),
        signed("dane-bogus", "the zone fails DNSSEC validation", &[DANE_EE])
            .with(|s| s.signing = Signing::Bogus)
            .expect(Deferred, Tlsa, &[DnssecInvalid]),
        good("dane-beats-sts", Dane, "DANE matches where the enforced policy would not")
            .with(|s| s.signing = Signing::Signed)
            .mx(|mx| {
                mx.cert = Cert::SelfSigned;
                mx.tlsa = vec![DANE_EE];
            })
            .expect(Verified, Tlsa, &[]),
        good("dane-fails-sts", Dane, "DANE fails where the enforced policy would not")
            .with(|s| s.signing = Signing::Signed)
            .mx(|mx| mx.tlsa = vec![WRONG_DANE_EE])
            .expect(Deferred, Tlsa, &[ValidationFailure]),
        good("sts-signed", Dane, "an enforced policy in a signed zone without TLSA")
            .with(|s| s.signing = Signing::Signed),
    ]
}

fn attacks() -> Vec<Case> {
    let case = |name, about| good(name, Topic::Attack, about);
    let strip = Attack { strip: true, ..Attack::default() };
    vec![
        case("attack-strip-plain", "no policy; STARTTLS is stripped and nobody notices")
            .no_policy()
            .attacked(strip)
            .expect(Clear, NoPolicyFound, &[]),
        case("attack-strip-testing", "testing; STARTTLS is stripped, and reported")
            .mode("testing")
            .attacked(strip)
            .expect(Clear, Sts, &[StarttlsNotSupported]),
        case("attack-strip-enforce", "enforce; STARTTLS is stripped").attacked(strip).expect(
            Deferred,
            Sts,
            &[StarttlsNotSupported],
        ),
        case("attack-first-contact", "the record is suppressed before the first contact: MTA-STS can't help")
            .attacked(Attack { suppress_record: true, strip: true, ..Attack::default() })
            .expect(Clear, NoPolicyFound, &[]),
        case(
            "attack-suppress-cached",
            "the record is suppressed and STARTTLS stripped, the policy is cached",
        )
        .attacked(Attack { policy_cached: true, suppress_record: true, strip: true, ..Attack::default() })
        .expect(Deferred, Sts, &[StarttlsNotSupported]),
        case("attack-suppress-only", "the record is suppressed, the policy is cached").attacked(Attack {
            policy_cached: true,
            suppress_record: true,
            ..Attack::default()
        }),
        case("attack-block-cached", "the policy host is cut off, the policy is cached").attacked(Attack {
            policy_cached: true,
            block_host: true,
            ..Attack::default()
        }),
        case("attack-block-first", "the policy host is cut off before the first contact")
            .attacked(Attack { block_host: true, ..Attack::default() })
            .unfetched(StsPolicyFetchError),
        case("attack-forge-mx", "the MX records are forged, the policy is cached")
            .attacked(Attack { policy_cached: true, forge_mx: true, ..Attack::default() })
            .expect(Deferred, Sts, &[ValidationFailure]),
        case("attack-forge-mx-plain", "no policy; the MX records are forged and the attacker takes the mail")
            .no_policy()
            .attacked(Attack { forge_mx: true, ..Attack::default() })
            .unprotected(),
    ]
}
