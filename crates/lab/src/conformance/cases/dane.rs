//! DANE: TLSA records in signed and unsigned zones, alone and with a policy.

use super::{Case, naming_mx1, plain};
use crate::behavior::Behavior;
use crate::case::{Mx, TlsaSetup};
use crate::cases::second;
use crate::conformance::case::{Change, Check, Fate, Group::Dane, Level, Phase};
use crate::dns::{Rr, Signing, Tampering};
use crate::pki::Cert;
use crate::policy_host::HttpBehavior;
use formats::tlsa::TlsaRecord;

const EE: TlsaSetup = TlsaSetup { usage: 3, selector: 1, matching: 1, right: true, claims: None };
const WRONG: TlsaSetup = TlsaSetup { right: false, ..EE };
const TA: TlsaSetup = TlsaSetup { usage: 2, selector: 0, ..EE };

pub(super) fn cases() -> Vec<Case> {
    [
        delivered(),
        refused(),
        several(),
        insecure().into_iter().map(Case::clear_as_well).collect(),
        aliases(),
        with_policy(),
    ]
    .concat()
}

/// A signed domain without a policy, whose MX host has these TLSA records.
fn signed(id: &'static str, source: &'static str, about: &'static str, tlsa: &[TlsaSetup]) -> Case {
    let tlsa = tlsa.to_vec();
    plain(id, Dane, source, about).no_policy().with(|s| {
        s.signing = Signing::Signed;
        s.mx.iter_mut().for_each(|mx| mx.tlsa = tlsa.clone());
    })
}

fn mx(case: Case, change: impl Fn(&mut Mx)) -> Case {
    case.with(|s| s.mx.iter_mut().for_each(change))
}

fn delivered() -> Vec<Case> {
    let yes = |id, about, tlsa: &[TlsaSetup]| signed(id, "RFC 7672 §3.1", about, tlsa);
    let self_signed = |case| mx(case, |mx| mx.cert = Cert::SelfSigned);
    vec![
        self_signed(yes("dane-ee", "a DANE-EE record and a self-signed certificate", &[EE]))
            .checks(&[Check::TlsaAsked("mx1"), Check::NothingInClear])
            .discriminates(),
        mx(
            yes(
                "dane-ee-expired",
                "a DANE-EE record; the certificate has expired, which does not count",
                &[EE],
            ),
            |mx| {
                mx.cert = Cert::Expired;
            },
        ),
        mx(yes("dane-ee-name", "a DANE-EE record; the certificate's name does not count", &[EE]), |mx| {
            mx.cert = Cert::WrongName
        }),
        self_signed(yes(
            "dane-ee-sha512",
            "a DANE-EE record with SHA-512",
            &[TlsaSetup { matching: 2, ..EE }],
        )),
        self_signed(yes(
            "dane-ee-certificate",
            "a DANE-EE record of the certificate",
            &[TlsaSetup { selector: 0, ..EE }],
        )),
        self_signed(yes(
            "dane-ee-full",
            "a DANE-EE record with the complete key",
            &[TlsaSetup { matching: 0, ..EE }],
        ))
        .level(Level::Should),
        mx(yes("dane-ta", "a DANE-TA record for the CA", &[TA]), |_| {}),
        mx(
            yes(
                "dane-ta-untrusted",
                "a DANE-TA record for a CA that nobody trusts otherwise",
                &[TlsaSetup { selector: 1, ..TA }],
            ),
            |mx| {
                mx.cert = Cert::Untrusted;
            },
        ),
        self_signed(yes("dane-one-of-two", "one of two DANE-EE records matches", &[WRONG, EE])),
        self_signed(yes(
            "dane-agility",
            "the record with the stronger digest matches, the weaker one does not",
            &[WRONG, TlsaSetup { matching: 2, ..EE }],
        )),
    ]
}

fn refused() -> Vec<Case> {
    let no = |id, source, about, tlsa: &[TlsaSetup]| {
        signed(id, source, about, tlsa).fates(&[Fate::Waits]).level(Level::Security).discriminates()
    };
    let plain_text =
        |case| mx(case, |mx| mx.behavior = Some(Behavior::NoStarttls)).checks(&[Check::NothingInClear]);
    vec![
        no("dane-mismatch", "RFC 7672 §2.2", "no TLSA record matches", &[WRONG]),
        no(
            "dane-ta-mismatch",
            "RFC 7672 §3.1",
            "a DANE-TA record for another CA",
            &[TlsaSetup { right: false, ..TA }],
        ),
        mx(
            no(
                "dane-ta-name",
                "RFC 7671 §5.2, §7, RFC 7672 §3.2.2",
                "a DANE-TA record; the certificate is for another host",
                &[TlsaSetup { selector: 1, ..TA }],
            ),
            |mx| {
                mx.cert = Cert::WrongName;
            },
        ),
        mx(
            no(
                "dane-ta-expired",
                "RFC 7672 §3.1",
                "a DANE-TA record; the certificate has expired",
                &[TlsaSetup { selector: 1, ..TA }],
            ),
            |mx| {
                mx.cert = Cert::Expired;
            },
        ),
        no(
            "dane-agility-wrong",
            "RFC 7671 §9",
            "the record with the weaker digest matches, the stronger one does not",
            &[EE, TlsaSetup { matching: 2, ..WRONG }],
        )
        .level(Level::Should),
        plain_text(no("dane-no-starttls", "RFC 7672 §2.2", "TLSA records, but no STARTTLS", &[EE])),
        no("dane-stripped", "RFC 7672 §2.2", "TLSA records; an attacker strips STARTTLS", &[EE]).phases(
            vec![
                Phase::of(&[Fate::Waits]).after(vec![Change::Strip("mx1")]).checks(&[Check::NothingInClear]),
            ],
        ),
        plain_text(no(
            "dane-unusable-clear",
            "RFC 7672 §2.2",
            "only unusable TLSA records (usage 1), and no STARTTLS",
            &[TlsaSetup { usage: 1, ..EE }],
        )),
        no("dane-tlsa-servfail", "RFC 7672 §2.1.1", "the query for TLSA records gets SERVFAIL", &[EE])
            .with(|s| s.mx.iter_mut().for_each(|mx| mx.tlsa_trouble = Some(Tampering::ServFail))),
        mx(
            signed(
                "dane-unusable",
                "RFC 7672 §2.2",
                "only unusable TLSA records (usage 1): TLS without authentication",
                &[TlsaSetup { usage: 1, ..EE }],
            ),
            |mx| {
                mx.cert = Cert::SelfSigned;
            },
        ),
        signed("dane-bogus", "RFC 7672 §2.1.1", "the zone fails DNSSEC validation", &[EE])
            .with(|s| s.signing = Signing::Bogus)
            .fates(&[Fate::Waits])
            .level(Level::Security),
    ]
}

fn several() -> Vec<Case> {
    let two = |case: Case, first: &[TlsaSetup], other: &[TlsaSetup]| {
        let (first, other) = (first.to_vec(), other.to_vec());
        case.with(|s| {
            s.mx.iter_mut().for_each(|mx| mx.tlsa = first.clone());
            s.mx.push(second(|mx| mx.tlsa = other));
        })
    };
    let base = |id, about| signed(id, "RFC 7672 §2.2", about, &[]);
    vec![
        two(
            base("dane-second-host", "the first MX host fails DANE, the second fulfills it"),
            &[WRONG],
            &[EE],
        )
        .checks(&[Check::DeliveredTo("mx2")])
        .discriminates(),
        two(
            base("dane-second-without", "the first MX host fails DANE, the second has no TLSA records"),
            &[WRONG],
            &[],
        )
        .checks(&[Check::DeliveredTo("mx2")])
        .discriminates(),
        two(base("dane-both", "both MX hosts fail DANE"), &[WRONG], &[WRONG])
            .fates(&[Fate::Waits])
            .discriminates(),
    ]
}

fn insecure() -> Vec<Case> {
    let case = |id, about, signing, tlsa: &[TlsaSetup]| {
        signed(id, "RFC 7672 §2.1.3, §2.2", about, tlsa).with(|s| s.signing = signing)
    };
    vec![
        case(
            "dane-unsigned",
            "TLSA records in an unsigned zone, which do not match and do not count",
            Signing::Unsigned,
            &[WRONG],
        ),
        case(
            "dane-unsigned-query",
            "an unsigned zone, where TLSA records are not to be queried",
            Signing::Unsigned,
            &[],
        )
        .level(Level::Should)
        .checks(&[Check::NoTlsaAsked]),
        elsewhere(
            "dane-host-unsigned",
            "a signed domain, the MX host in an unsigned zone; TLSA records there do not count",
            Signing::Unsigned,
            &[WRONG],
        ),
        elsewhere(
            "dane-host-bogus",
            "a signed domain, the first MX host in a zone that fails DNSSEC validation",
            Signing::Bogus,
            &[],
        )
        .with(|s| s.mx.push(second(|mx| mx.tlsa = vec![EE])))
        .checks(&[Check::DeliveredTo("mx2")]),
        case(
            "dane-unlinked",
            "a signed zone without DS record; its TLSA records do not count",
            Signing::Unlinked,
            &[WRONG],
        ),
        mx(
            case(
                "dane-none",
                "a signed zone without TLSA records, a self-signed certificate",
                Signing::Signed,
                &[],
            ),
            |mx| {
                mx.cert = Cert::SelfSigned;
            },
        ),
    ]
}

/// MX hosts whose name is an alias. RFC 7671 §7: where the chain is secure, the name at its end SHOULD be the TLSA base domain, and
/// the name of the MX record SHOULD be if there are no TLSA records at the former.
fn aliases() -> Vec<Case> {
    let alias = |id, about| {
        mx(signed(id, "RFC 7671 §7, RFC 7672 §2.2.2", about, &[]), |mx| mx.alias = true)
            .fates(&[Fate::Waits])
            .level(Level::Should)
            .discriminates()
    };
    let wrong = TlsaRecord { usage: 3, selector: 1, matching: 1, data: vec![0; 32] };
    vec![
        alias("dane-alias", "the MX host is a CNAME; a TLSA record that does not match is at the alias")
            .with(|s| s.mx.iter_mut().for_each(|mx| mx.tlsa = vec![WRONG])),
        alias(
            "dane-alias-target",
            "the MX host is a CNAME; a TLSA record that does not match is at its target",
        )
        .with(|s| s.extra.push(("_25._tcp.real".into(), vec![Rr::Tlsa(wrong)]))),
    ]
}

/// A signed domain whose MX host `mx1.mail` is in a zone of its own.
fn elsewhere(id: &'static str, about: &'static str, zone: Signing, tlsa: &[TlsaSetup]) -> Case {
    signed(id, "RFC 7672 §2.1.1, §2.2.3", about, tlsa).with(|s| {
        s.zones.push(("mail", zone));
        s.mx.iter_mut().for_each(|mx| mx.label = "mx1.mail");
    })
}

fn with_policy() -> Vec<Case> {
    let both = |id: &'static str, about, mode, tlsa: &[TlsaSetup]| {
        let tlsa = tlsa.to_vec();
        plain(id, Dane, "RFC 8461 §2", about).with(|s| {
            s.signing = Signing::Signed;
            s.mx.iter_mut().for_each(|mx| mx.tlsa = tlsa.clone());
            s.answers = HttpBehavior::Policy(naming_mx1(id, mode));
        })
    };
    vec![
        both(
            "dane-fails-enforce",
            "DANE fails; the policy in mode enforce is fulfilled",
            "enforce",
            &[WRONG],
        )
        .fates(&[Fate::Waits])
        .level(Level::Security)
        .discriminates(),
        both("dane-fails-testing", "DANE fails; a policy in mode testing", "testing", &[WRONG])
            .fates(&[Fate::Waits])
            .level(Level::Security)
            .discriminates(),
        mx(
            both(
                "dane-instead-of-policy",
                "DANE is fulfilled by a self-signed certificate; the policy in mode enforce is not",
                "enforce",
                &[EE],
            ),
            |mx| {
                mx.cert = Cert::SelfSigned;
            },
        )
        .level(Level::Should)
        .beyond(&[Fate::Waits]),
        both("dane-and-policy", "DANE and the policy in mode enforce are fulfilled", "enforce", &[EE]),
        mx(
            both(
                "policy-in-signed-zone",
                "a policy in mode enforce in a signed zone without TLSA records; a self-signed certificate",
                "enforce",
                &[],
            ),
            |mx| {
                mx.cert = Cert::SelfSigned;
            },
        )
        .fates(&[Fate::Waits])
        .level(Level::Security)
        .discriminates(),
    ]
}
