//! Domains whose faults once gave answers weaker than Postfix alone, or answers that Postfix refuses: forged MX
//! records, TLSA records in another zone than the domain's, other ports than 25, and policies, MX sets and policy
//! hosts beyond the usual size. [`crate::table`] and [`crate::exim`] deliver to them.

use crate::ground::Ground;
use crate::support::until;
use formats::DomainName;
use formats::tlsa::TlsaRecord;
use lab::Lab;
use lab::behavior::Behavior;
use lab::case::Case;
use lab::dns::Rr;
use lab::pki::Cert;
use lab::policy_host::HttpBehavior;
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Lines for main.cf: the next hops with a port, and as many MX hosts as the domain has.
pub const MAIN_CF: &str = "smtp_mx_address_limit = 0\ntransport_maps = inline:{ \
    { port-587.test = smtp:port-587.test:587 }, { port-25.test = smtp:port-25.test:587 }, \
    { service.test = smtp:[mx.service.test]:submissions } }\n";

/// Lines for `[answers]`: the operator requires TLS for the relay `mx.service.test`.
pub const ANSWERS: &str = "[[answers.override]]\ndomain = \"mx.service.test\"\nanswer = \"encrypt\"\n";

/// The domain of the lab's table with another name.
fn like(from: &str, name: &'static str) -> Case {
    let mut case = lab::cases::all().into_iter().find(|case| case.name == from).unwrap();
    case.name = name;
    if let HttpBehavior::Policy(text) = &mut case.setup.answers {
        *text = text.replace(&format!("{from}.test"), &format!("{name}.test"));
    }
    case
}

fn policy(mode: &str, mx: &[&str]) -> HttpBehavior {
    let mut text = format!("version: STSv1\nmode: {mode}\nmax_age: 604800\n");
    for pattern in mx {
        let _ = writeln!(text, "mx: {pattern}");
    }
    HttpBehavior::Policy(text)
}

/// The domain without MX hosts of its own, and with these records.
fn with_records(mut case: Case, records: Vec<(&str, Vec<Rr>)>) -> Case {
    case.setup.mx.clear();
    case.setup.extra.extend(records.into_iter().map(|(label, records)| (label.to_owned(), records)));
    case
}

/// A self-signed mail server, and its TLSA record.
async fn mail_server(lab: &Lab, host: &str) -> (Ipv4Addr, TlsaRecord) {
    let identity = lab.pki.issue(host, Cert::SelfSigned).unwrap();
    let host = DomainName::parse(host).unwrap();
    let address = lab.start_mail_host(&host, Behavior::Good, &identity).await.unwrap();
    let data = net::certificate::association(identity.certificate(), 1);
    (address, TlsaRecord { usage: 3, selector: 0, matching: 1, data })
}

fn wrong(tlsa: &TlsaRecord) -> Rr {
    Rr::Tlsa(TlsaRecord { data: tlsa.data.iter().map(|byte| !byte).collect(), ..tlsa.clone() })
}

/// The server at `address` listens on `port`, too.
async fn also_at(address: Ipv4Addr, port: u16) {
    let listener = TcpListener::bind((address, port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect((address, 25)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
}

/// Adds the domains to the lab.
pub async fn add(lab: &Lab) {
    let mut cases = hosted();
    cases.extend(oversized());
    cases.extend(ports(lab).await);
    cases.extend(aliases(lab).await);
    let mut held = like("good-enforce", "held");
    held.setup.ttl = 1;
    cases.push(held);
    for case in cases {
        lab.add(&case).await.unwrap();
    }
}

/// Unsigned domains whose MX host is in its provider's signed zone and has TLSA records that do not match.
fn hosted() -> Vec<Case> {
    let customer = |from, name, mode| {
        let mx = vec![Rr::Mx(10, "mx1.hoster.test.".into())];
        let mut case = with_records(like(from, name), vec![("", mx)]);
        if matches!(case.setup.answers, HttpBehavior::Policy(_)) {
            case.setup.answers = policy(mode, &["mx1.hoster.test"]);
        }
        case
    };
    vec![
        like("dane-mismatch", "hoster"),
        customer("no-mta-sts", "hosted-plain", "none"),
        customer("good-testing", "hosted-testing", "testing"),
        customer("http-404", "hosted-404", "none"),
        customer("good-enforce", "hosted-enforce", "enforce"),
    ]
}

/// Policies, MX sets and policy hosts beyond the usual size.
fn oversized() -> Vec<Case> {
    let mut patterns = like("good-enforce", "many-patterns");
    let others: Vec<String> = (1000..3400).map(|number| format!("mx{number}.example.org")).collect();
    let others = others.iter().map(String::as_str).chain(["mx1.many-patterns.test"]);
    patterns.setup.answers = policy("enforce", &others.collect::<Vec<_>>());
    let mut address = like("mx-expired", "address-line");
    address.setup.answers = policy("enforce", &["192.0.2.56", "mx1.address-line.test"]);
    let mut unroutable = like("mx-expired", "eight-aaaa");
    let aaaa = |last| Rr::Aaaa(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
    unroutable.setup.extra.push(("mta-sts".into(), (1..=8).map(aaaa).collect()));
    vec![patterns, address, unroutable, many_mx()]
}

/// Forty MX hosts: the first 32 have TLSA records, the others none, and only the last one is up.
fn many_mx() -> Case {
    let mut case = like("dane-none", "many-mx");
    let last = case.setup.mx.remove(0);
    let down = |number: u16| {
        let mut mx = last.clone();
        mx.label = Box::leak(format!("down{number}").into_boxed_str());
        mx.preference = number;
        mx.behavior = None;
        mx
    };
    case.setup.mx = (1..40).map(down).collect();
    let tlsa = lab::case::TlsaSetup { usage: 3, selector: 1, matching: 1, right: true, claims: None };
    case.setup.mx.iter_mut().take(32).for_each(|mx| mx.tlsa = vec![tlsa]);
    case.setup.mx.push(lab::case::Mx { preference: 40, ..last });
    case
}

/// Next hops on other ports than 25.
async fn ports(lab: &Lab) -> Vec<Case> {
    let mut cases = Vec::new();
    for name in ["port-587", "port-25"] {
        let host = format!("mx.{name}.test");
        let (address, tlsa) = mail_server(lab, &host).await;
        also_at(address, 587).await;
        let mut records = vec![
            ("", vec![Rr::Mx(10, format!("{host}."))]),
            ("mx", vec![Rr::A(address)]),
            ("_25._tcp.mx", vec![wrong(&tlsa)]),
        ];
        if name == "port-587" {
            records.push(("_587._tcp.mx", vec![Rr::Tlsa(tlsa)]));
        }
        cases.push(with_records(like("dane-none", name), records));
    }
    let (address, _) = mail_server(lab, "mx.service.test").await;
    also_at(address, 465).await;
    cases.push(with_records(like("no-mta-sts", "service"), vec![("mx", vec![Rr::A(address)])]));
    cases
}

/// MX names in signed zones that are aliases of hosts in an unsigned one, with TLSA records at the MX names.
async fn aliases(lab: &Lab) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut targets = Vec::new();
    for name in ["alias-right", "alias-wrong"] {
        let (address, tlsa) = mail_server(lab, &format!("mx.{name}.test")).await;
        targets.push((name, vec![Rr::A(address)]));
        let records = vec![
            ("", vec![Rr::Mx(10, format!("mx.{name}.test."))]),
            ("mx", vec![Rr::Cname(format!("{name}.unsigned.test."))]),
            ("_25._tcp.mx", vec![if name == "alias-right" { Rr::Tlsa(tlsa) } else { wrong(&tlsa) }]),
        ];
        cases.push(with_records(like("dane-none", name), records));
    }
    cases.push(with_records(like("no-mta-sts", "unsigned"), targets));
    cases
}

/// Changes the MX records of `held.test` from `from` to `forged`, and has Sternpost look them up.
pub fn forge_mx(ground: &Ground, from: &str, forged: &str) {
    let record = |target: &str| format!("held.test. 1 IN MX {target}");
    ground.names.change("held.test.", &record(from), &record(forged));
    until("the resolver has the forged MX records", || {
        ground.names.ask("held.test", "MX").contains(&format!("MX\t{forged}"))
    });
    // By now nobody has the honest records in a cache: their TTL is a second.
    std::thread::sleep(Duration::from_millis(1100));
    let answer = ground.operator("cache refresh held.test");
    assert!(answer.contains("match=mx1.held.test"), "{answer}");
}
