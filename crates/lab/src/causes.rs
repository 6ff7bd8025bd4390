//! The table of lab domains for the causes that `sternpost check` names: the mistakes that measurements found on the internet
//! (Ashiq et al., IMC 2025; Lee et al., USENIX Security 2022), and those that people make in records and policy files. It is a
//! part of [`crate::oddities::all`]. Each domain differs from `cases::good` only in the stated way.

use crate::behavior::Behavior;
use crate::case::{Case, HostAddress, TlsaSetup};
use crate::dns::{Rr, Signing};
use crate::odd::{DANE_EE, odd};
use crate::pki::Cert;
use crate::policy_host::HttpBehavior;
use formats::tlsa::TlsaRecord;

/// All domains of this table.
pub fn all() -> Vec<Case> {
    [records(), report_records(), policies(), hosts(), mx_lines(), dane()].concat()
}

fn records() -> Vec<Case> {
    let record = |name, about, text: &str| odd(name, about).record(text).unprotected();
    vec![
        record("txt-comma", "a comma in the place of the first semicolon", "v=STSv1, id=20260101000000"),
        record("txt-typo", "a misspelled version", "v=STS1; id=20260101000000;"),
        record("txt-of-spf", "an SPF record at _mta-sts", "v=spf1 -all"),
        record("txt-bare", "a version without a semicolon", "v=STSv1"),
        record("txt-no-version", "an id without a version", "id=20260101000000;"),
        record("txt-id-first", "the id precedes the version", "id=20260101000000; v=STSv1"),
        record("txt-no-semicolon", "no semicolon between version and id", "v=STSv1 id=20260101000000"),
        record("txt-backslash", "a backslash before each semicolon", "v=STSv1\\; id=20260101000000\\;"),
        record("txt-leading-space", "white space before the version", " v=STSv1; id=20260101000000;"),
        record("txt-full-width", "full-width semicolons", "v=STSv1；id=20260101000000；"),
        record("txt-nbsp", "a no-break space before the id", "v=STSv1;\u{a0}id=20260101000000;"),
        record(
            "txt-policy-lines",
            "lines of the policy in the record",
            "v=STSv1; id=20260101000000; mode: enforce; max_age: 604800",
        ),
        record(
            "txt-zone-line",
            "a line of a zone file as the value",
            "_mta-sts IN TXT v=STSv1; id=20260101000000;",
        ),
        record("txt-look-alike", "a Cyrillic letter in the version", "v=S\u{422}Sv1; id=20260101000000;"),
        record("txt-invisible", "a zero-width space after the id", "v=STSv1; id=20260101000000\u{200b};"),
        record("txt-line-break", "line ends in the record", "v=STSv1;\nid=20260101000000;\n"),
        record("txt-space-in-field", "white space around an equals sign", "v=STSv1; id = 20260101000000;"),
        record("txt-key-case", "the name of the id in upper case", "v=STSv1; ID=20260101000000;"),
        record("txt-bad-field", "the id without its name", "v=STSv1; 20260101000000;"),
    ]
}

fn report_records() -> Vec<Case> {
    let rua = |name, about, text: &str| odd(name, about).rua(text);
    vec![
        rua("rpt-case", "the version in lower case", "v=tlsrptv1; rua=mailto:tls@rpt-case.test"),
        rua("rpt-typo", "a misspelled version", "v=TLSRPT1; rua=mailto:tls@rpt-typo.test"),
        rua("rpt-quotes", "the record contains quotes", "\"v=TLSRPTv1; rua=mailto:tls@rpt-quotes.test\""),
        rua(
            "rpt-no-semicolon",
            "no semicolon after the version",
            "v=TLSRPTv1 rua=mailto:tls@rpt-no-semicolon.test",
        ),
        rua(
            "rpt-space",
            "white space before the first semicolon",
            "v=TLSRPTv1 ; rua=mailto:tls@rpt-space.test",
        ),
        rua(
            "rpt-no-scheme",
            "a report address without mailto:",
            "v=TLSRPTv1; rua=postmaster@rpt-no-scheme.test",
        ),
        rua(
            "rpt-comma-end",
            "a comma after the last report target",
            "v=TLSRPTv1; rua=mailto:tls@rpt-comma-end.test,",
        ),
        rua(
            "rpt-two-spaced",
            "white space between two report targets",
            "v=TLSRPTv1; rua=mailto:a@rpt-two-spaced.test mailto:b@rpt-two-spaced.test",
        ),
        rua(
            "rpt-size",
            "a size limit after a report address",
            "v=TLSRPTv1; rua=mailto:tls@rpt-size.test!10m",
        ),
        rua(
            "rpt-one-bad",
            "one report target of two is invalid",
            "v=TLSRPTv1; rua=mailto:postmaster,mailto:tls@good-enforce.test",
        ),
        rua(
            "rpt-encoded",
            "an encoded exclamation mark in a report address",
            "v=TLSRPTv1; rua=mailto:a%21b@rpt-encoded.test",
        ),
        rua(
            "rpt-ruf",
            "a field of DMARC beside the report target",
            "v=TLSRPTv1; rua=mailto:a@rpt-ruf.test; ruf=mailto:b@rpt-ruf.test",
        ),
    ]
}

fn policies() -> Vec<Case> {
    let bad = |name, about, lines: &str| odd(name, about).lines(lines).unprotected();
    let good = "version: STSv1\nmode: enforce\nmx: mx1.NAME.test\nmax_age: 604800\n";
    vec![
        bad("policy-equals", "an equals sign in the place of a colon", &good.replace("mode: ", "mode=")),
        bad("policy-near-key", "max-age in the place of max_age", &good.replace("max_age", "max-age")),
        odd("policy-nmx", "a second mx line is misspelled")
            .lines(&good.replace("max_age", "nmx: mx2.NAME.test\nmax_age")),
        bad("policy-comment", "a comment in the policy", &format!("# policy of NAME.test\n{good}")),
        bad(
            "policy-template",
            "a placeholder that was not replaced",
            &good.replace("mx1.NAME.test", "{{ mx_host }}"),
        ),
        bad("policy-nbsp", "a no-break space in the policy", &good.replace("mode: ", "mode:\u{a0}")),
        bad("policy-unit", "max_age with a unit", &good.replace("604800", "7d")),
        bad(
            "policy-mx-list",
            "two hosts in one mx line",
            &good.replace("mx1.NAME.test", "mx1.NAME.test, mx2.NAME.test"),
        ),
        odd("policy-utf16", "the policy is saved as UTF-16")
            .body(HttpBehavior::Typed("text/plain", utf_16(&good.replace("NAME", "policy-utf16"))))
            .unprotected(),
        odd("policy-mx-dot", "an mx line ends in a dot")
            .lines(&good.replace("mx1.NAME.test", "mx1.NAME.test.")),
        odd("policy-blank-end", "the policy ends with empty lines").lines(&format!("{good}\n\n")),
        odd("policy-latin-1", "the policy is saved as Latin-1")
            .body(HttpBehavior::Typed(
                "text/plain",
                latin_1(&format!("{}note: f\u{fc}r alle\n", good.replace("NAME", "policy-latin-1"))),
            ))
            .unprotected(),
        bad(
            "policy-in-page",
            "the policy is inside a web page",
            &format!("<html><pre>\n{good}</pre></html>\n"),
        ),
        bad("policy-literal-newline", "a line end is written as \\n", &good.replacen('\n', "\\n", 1)),
        bad("policy-one-line", "all fields are in one line", &good.trim_end().replace('\n', "; ")),
        bad("policy-blank-line", "an empty line between the fields", &good.replace("mode", "\nmode")),
        bad("policy-key-space", "white space before a colon", &good.replace("mode: ", "mode : ")),
        bad("policy-key-case", "a key is capitalized", &good.replace("mode: ", "Mode: ")),
        bad("policy-punctuation", "the mode ends in a semicolon", &good.replace("enforce", "enforce;")),
        bad("policy-of-record", "the text of the record in the policy", "v=STSv1; id=20260101000000;\n"),
        bad("policy-bad-line", "dashes before the first field", &format!("---\n{good}")),
        bad("policy-preference", "an mx line has a preference", &good.replace("mx: ", "mx: 10 ")),
        bad("policy-bad-wildcard", "a wildcard without a dot", &good.replace("mx1.NAME", "*NAME")),
    ]
}

fn latin_1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect()
}

fn utf_16(text: &str) -> Vec<u8> {
    [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
}

fn hosts() -> Vec<Case> {
    let page = b"<html><title>Parked</title><p>This domain is parked free, courtesy of Porkbun".to_vec();
    let empty = HttpBehavior::Policy(String::new());
    vec![
        odd("host-parked", "every name below the domain leads to a registrar's parking page")
            .with(|s| (s.host_address, s.host_cert) = (HostAddress::CatchAll, Cert::Parking))
            .body(HttpBehavior::Typed("text/html", page.clone()))
            .unprotected(),
        odd("host-wildcard", "every name below the domain leads to one web server, and there is no record")
            .with(|s| {
                s.sts_records.clear();
                s.host_address = HostAddress::CatchAll;
            })
            .body(HttpBehavior::Status(404))
            .unprotected(),
        odd("host-not-customer", "the policy host is delegated to a provider that has no certificate for it")
            .with(|s| s.host_address = HostAddress::Provider)
            .body(HttpBehavior::Aborts)
            .unprotected(),
        odd("host-opted-out", "the policy host is delegated to a provider that serves an empty file")
            .with(|s| s.host_address = HostAddress::Provider)
            .body(empty)
            .unprotected(),
        odd("two-providers", "the policy is at one provider and the mail at another")
            .with(|s| s.host_address = HostAddress::Provider)
            .lines("version: STSv1\nmode: enforce\nmx: *.mail.protection.outlook.com\nmax_age: 604800\n")
            .mx(|mx| (mx.label, mx.provider) = ("two-providers-test", Some("mail.protection.outlook.com"))),
    ]
}

fn mx_lines() -> Vec<Case> {
    let line = |name, about, mx: &str| {
        odd(name, about).lines(&format!("version: STSv1\nmode: enforce\nmx: {mx}\nmax_age: 604800\n"))
    };
    vec![
        line("mx-policy-host", "the mx line names the policy host", "mta-sts.NAME.test"),
        line("mx-former", "the mx line names the former mail provider", "*.mail.protection.outlook.com"),
        line("mx-moved", "the mx line names the MX host of an earlier check", FORMER_HOST),
        line("mx-typo", "the mx line has a typing error", "mx1.mx-tpyo.test"),
        line("mx-other-end", "the mx line has another end", "mx1.mx-other-end.example"),
        line("mx-apex", "the mx line names the domain, and its mail is elsewhere", "NAME.test")
            .mx(|mx| (mx.label, mx.provider) = ("mx-apex", Some("mail.hoster.example"))),
    ]
}

fn dane() -> Vec<Case> {
    let signed = |name, about, tlsa: TlsaSetup| {
        odd(name, about).with(|s| s.signing = Signing::Signed).mx(move |mx| mx.tlsa = vec![tlsa])
    };
    let wrong = TlsaSetup { right: false, ..DANE_EE };
    let record = |data: [u8; 32]| TlsaRecord { usage: 3, selector: 1, matching: 1, data: data.to_vec() };
    let (nothing, former) = (record(EMPTY_SHA256), record(FORMER_KEY));
    vec![
        signed(
            "dane-selector-0",
            "the TLSA record is for the whole certificate",
            TlsaSetup { selector: 0, ..DANE_EE },
        ),
        signed(
            "dane-other-selector",
            "the TLSA record has the data of another selector",
            TlsaSetup { claims: Some((3, 0, 1)), ..DANE_EE },
        ),
        signed(
            "dane-other-usage",
            "the TLSA record has usage 3 and the data of the CA",
            TlsaSetup { usage: 2, claims: Some((3, 1, 1)), ..DANE_EE },
        ),
        odd("dane-nothing", "the digest of the TLSA record is that of nothing")
            .with(|s| s.signing = Signing::Signed)
            .extra("_25._tcp.mx1", vec![Rr::Tlsa(nothing)]),
        signed("dane-renewed", "the certificate was renewed, and the TLSA record was not", wrong)
            .mx(|mx| mx.cert = Cert::Renewed),
        odd("dane-former", "the TLSA record is that of the certificate of an earlier check")
            .with(|s| s.signing = Signing::Signed)
            .extra("_25._tcp.mx1", vec![Rr::Tlsa(former)]),
        odd("dane-other-host", "the TLSA record of an MX host is an alias of that of another")
            .two(20)
            .with(|s| {
                s.signing = Signing::Signed;
                s.mx.last_mut().into_iter().for_each(|mx| mx.tlsa = vec![DANE_EE]);
            })
            .extra("_25._tcp.mx1", vec![Rr::Cname("_25._tcp.mx2.dane-other-host.test.".into())]),
        signed("dane-other-address", "two addresses of a host, and a TLSA record for one", DANE_EE)
            .mx(|mx| mx.twin = Some((Behavior::Good, Cert::Good))),
    ]
}

/// The MX host that `mx-moved` had before.
pub const FORMER_HOST: &str = "mail.former-hoster.example";

/// The digest of the public key that the MX host of `dane-former` had before.
pub const FORMER_KEY: [u8; 32] = [0x5a; 32];

/// SHA-256 of no bytes.
const EMPTY_SHA256: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27,
    0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];
