//! Everything that Sternpost asks of a zone, in every way that the answer can be "nothing here" or "look there": the
//! verdicts of our own validation have to be those of `delv`, BIND's validator.
//!
//! The zones are signed as a table says (`SIGNINGS`): by dnssec-signzone with NSEC, NSEC3 and NSEC3 with opt-out, and with the
//! algorithms in use, and served as they are by Knot and by BIND; or by Knot for each response, with minimal NSEC records that
//! say of every absent name that it exists without the type ("black lies"). Each question goes to both name servers and to Knot
//! through Unbound, which answers from the server alone or, as by default, also from the denials in its cache. The names are
//! made by a table: what is at the end of a chain (`FORMS`), in which zone that is (`PLACES`), and how the chain leads there
//! (`WAYS`).

use crate::support::{Running, daemon, in_a_room_of_its_own, shell, until};
use formats::DomainName;
use futures_util::StreamExt;
use net::dns::weaker;
use net::dns::{Answer, Dns, DnsError, Dnssec, Kind, Resolver, ResolverConfig, Security};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::path::Path;
use std::sync::Mutex;

/// How zones are signed, and how they prove that something is absent.
struct Signing {
    /// The label of the zones below `test`.
    name: &'static str,
    by: Signer,
    /// The ways of `WAYS` that its names are made for. Algorithms need one: what is proved does not depend on them.
    ways: &'static [&'static str],
}

#[derive(Clone, Copy)]
enum Signer {
    /// dnssec-signzone, with the number of the algorithm and options.
    Offline(&'static str, &'static str),
    /// Knot's module onlinesign. No other server has the zones.
    Online,
}

const fn whole(name: &'static str, by: Signer) -> Signing {
    Signing { name, by, ways: &WAYS }
}

const fn algorithm(name: &'static str, number: &'static str, options: &'static str) -> Signing {
    Signing { name, by: Signer::Offline(number, options), ways: &["one"] }
}

const ECDSA_P256: &str = "13";
const SIGNINGS: [Signing; 8] = [
    whole("nsec", Signer::Offline(ECDSA_P256, "")),
    whole("nsec3", Signer::Offline(ECDSA_P256, "-3 -")),
    whole("optout", Signer::Offline(ECDSA_P256, "-3 - -A")),
    whole("online", Signer::Online),
    algorithm("rsasha256", "8", ""),
    algorithm("rsasha512", "10", "-3 -"),
    algorithm("p384", "14", "-3 - -A"),
    algorithm("ed25519", "15", ""),
];
/// The types that Sternpost asks for.
const TYPES: [(&str, Kind); 6] = [
    ("A", Kind::A),
    ("AAAA", Kind::Aaaa),
    ("MX", Kind::Mx),
    ("TXT", Kind::Txt),
    ("TLSA", Kind::Tlsa),
    ("CNAME", Kind::Cname),
];
/// What is at the end of a chain: a record of each type, none of the type, an empty non-terminal, a wildcard with a record
/// of each type, a wildcard with none of them, no such name.
const FORMS: [&str; 6] = ["data", "nodata", "ent", "x.wild", "x.wnodata", "nothing"];
/// The zone that the end of a chain is in.
const PLACES: [&str; 3] = ["same", "other", "unsigned"];
/// How a name leads to the end of a chain: one alias, two, an alias by a wildcard, an alias by a wildcard to another alias.
const WAYS: [&str; 4] = ["one", "two", "x.any", "x.anytwo"];
/// The name servers on loopback. BIND listens only at addresses of interfaces.
const KNOT: &str = "127.0.0.2";
const BIND: &str = "127.0.0.1";
const UNBOUND: &str = "127.0.0.4";
/// Unbound with the settings that decide about absence left at their defaults.
const UNBOUND_BY_DEFAULT: &str = "127.0.0.5";
const SERVERS: [&str; 4] = [KNOT, BIND, UNBOUND, UNBOUND_BY_DEFAULT];

/// The signings of the zones that a server answers for.
fn signings_at(server: &str) -> impl Iterator<Item = &'static Signing> {
    SIGNINGS.iter().filter(move |signing| server != BIND || !matches!(signing.by, Signer::Online))
}

fn zone_of(place: &str, signing: &str) -> String {
    match place {
        "same" => format!("{signing}.test"),
        "other" => format!("other-{signing}.test"),
        _ => format!("un.{signing}.test"),
    }
}

/// The records at the ends of chains, the same in each zone.
const ENDS: &str = "data A 192.0.2.1\ndata AAAA 2001:db8::1\ndata MX 10 mx\ndata TXT \"v=STSv1; id=1;\"\ndata TLSA 3 1 1 00\n\
     nodata CAA 0 issue \"ca.example\"\ndeep.ent CAA 0 issue \"ca.example\"\n\
     *.wild A 192.0.2.1\n*.wild AAAA 2001:db8::1\n*.wild MX 10 mx\n*.wild TXT \"v=STSv1; id=1;\"\n*.wild TLSA 3 1 1 00\n\
     *.wnodata CAA 0 issue \"ca.example\"\nmx A 192.0.2.9\nonlya A 192.0.2.1\n";

fn aliases(signing: &str) -> String {
    let mut text = String::new();
    for place in PLACES {
        for form in FORMS {
            let (to, label) = (format!("{form}.{}.", zone_of(place, signing)), form.replace('.', "-"));
            let _ = writeln!(text, "one-{place}-{label} CNAME {to}");
            let _ = writeln!(text, "two-{place}-{label} CNAME one-{place}-{label}");
            let _ = writeln!(text, "*.any-{place}-{label} CNAME {to}");
            let _ = writeln!(text, "*.anytwo-{place}-{label} CNAME one-{place}-{label}");
        }
    }
    text
}

/// Mail domains whose policy host is an alias: to a name in each of the zones, with and without an IPv6 address.
fn mail_domains(signing: &str) -> Vec<(String, String)> {
    let of_place = |place: &&str| {
        let zone = zone_of(place, signing);
        ["data", "onlya"].map(|end| (format!("mail-{place}-{end}.{signing}.test"), format!("{end}.{zone}.")))
    };
    PLACES.iter().flat_map(of_place).collect()
}

/// A question: a name and a type.
#[derive(Debug, Clone)]
struct Question {
    name: String,
    /// The name at the end of the chain; the same name if it is no alias.
    end: String,
    kind: &'static str,
}

/// Every question of the table, below the zone of a signing.
fn questions(Signing { name: signing, ways, .. }: &Signing) -> Vec<Question> {
    let zone = zone_of("same", signing);
    let mut names = Vec::new();
    for place in PLACES {
        for form in FORMS {
            let end = format!("{form}.{}", zone_of(place, signing));
            let of_way = |way: &str| format!("{way}-{place}-{}.{zone}", form.replace('.', "-"));
            names.push((end.clone(), end.clone()));
            names.extend(ways.iter().map(|way| (of_way(way), end.clone())));
        }
    }
    let of_name = |(name, end): (String, String)| {
        TYPES.map(|(kind, _)| Question { name: name.clone(), end: end.clone(), kind })
    };
    names.into_iter().flat_map(of_name).collect()
}

struct Zone {
    origin: String,
    /// `None` leaves the zone unsigned.
    signer: Option<Signer>,
    text: String,
}

fn zones() -> Vec<Zone> {
    let zone = |origin: &str, signer, text: String| Zone { origin: origin.to_owned(), signer, text };
    let mut test = String::from("ns A 127.0.0.2\n");
    let mut below = Vec::new();
    for Signing { name, by, .. } in SIGNINGS {
        let mut un = format!("un NS ns.test.\n{}{}", ENDS, aliases(name));
        for (domain, host) in mail_domains(name) {
            let _ = write!(un, "{domain}. MX 10 mx.{name}.test.\nmta-sts.{domain}. CNAME {host}\n");
        }
        below.push(zone(&zone_of("unsigned", name), None, ENDS.to_owned()));
        below.push(zone(&zone_of("same", name), Some(by), un));
        below.push(zone(&zone_of("other", name), Some(by), ENDS.to_owned()));
        let _ = write!(test, "{name} NS ns.test.\nother-{name} NS ns.test.\n");
    }
    let above = Some(Signer::Offline(ECDSA_P256, ""));
    below.push(zone("test", above, test));
    below.push(zone("", above, "test NS ns.test.\nns.test. A 127.0.0.2\n".to_owned()));
    below
}

/// Signs a zone in a file and returns the name of the file to serve. Children come first: dnssec-signzone finds their DS records
/// in the files `dsset-…` beside it.
fn sign(place: &Path, zone: &Zone, file: &str) -> String {
    let (dir, origin) = (place.display(), format!("{}.", zone.origin));
    match zone.signer {
        None => return file.to_owned(),
        // The key that the module would make itself, made before, since the parent needs its DS record.
        Some(Signer::Online) => shell(&format!(
            "cd {dir} && keymgr -D run/keys {origin} generate algorithm=ECDSAP256SHA256 ksk=yes zsk=yes && \
             keymgr -D run/keys {origin} ds | grep ' 13 2 ' >dsset-{origin}"
        )),
        Some(Signer::Offline(algorithm, options)) => {
            let bits = if matches!(algorithm, "8" | "10") { "-b 2048" } else { "" };
            shell(&format!(
                "cd {dir} && key=$(dnssec-keygen -q -a {algorithm} {bits} -f KSK {origin}) && \
                 dnssec-signzone -q -S -z -g {options} -o {origin} -f {file}.signed {file} >/dev/null && \
                 {{ [ {origin} != . ] || cp $key.key root.key; }}"
            ));
            return format!("{file}.signed");
        }
    };
    file.to_owned()
}

/// Signs the zones, children first, and writes the configuration of the servers.
fn write_all(place: &Path) {
    let dir = place.display();
    let mut knot = format!(
        "server:\n  listen: {KNOT}@53\n  rundir: {dir}/run\ndatabase:\n  storage: {dir}/run\n\
         log:\n  - target: stderr\n    any: warning\n\
         policy:\n  - id: online\n    algorithm: ecdsap256sha256\n    single-type-signing: on\n    manual: on\n\
         mod-onlinesign:\n  - id: online\n    policy: online\nzone:\n"
    );
    let mut bind = format!(
        "options {{ directory \"{dir}\"; pid-file none; session-keyfile none; listen-on {{ {BIND}; }}; listen-on-v6 {{ none; }};\n\
         recursion no; dnssec-validation no; }};\ncontrols {{ }};\n"
    );
    std::fs::create_dir_all(place.join("run")).unwrap();
    for zone in zones() {
        let origin = format!("{}.", zone.origin);
        let file = format!("zone-{}", if zone.origin.is_empty() { "root" } else { &zone.origin });
        let text = format!(
            "$ORIGIN {origin}\n$TTL 60\n@ SOA ns.test. hostmaster.test. 1 3600 600 86400 60\n@ NS ns.test.\n{}",
            zone.text
        );
        std::fs::write(place.join(&file), text).unwrap();
        let served = sign(place, &zone, &file);
        let _ = write!(knot, "  - domain: {origin}\n    file: {dir}/{served}\n");
        if matches!(zone.signer, Some(Signer::Online)) {
            knot += "    module: mod-onlinesign/online\n";
        } else {
            let _ = writeln!(bind, "zone \"{origin}\" {{ type primary; file \"{dir}/{served}\"; }};");
        }
    }
    std::fs::write(place.join("knot.conf"), knot).unwrap();
    std::fs::write(place.join("named.conf"), bind).unwrap();
    let anchor = std::fs::read_to_string(place.join("root.key")).unwrap();
    let record = anchor.lines().find(|line| line.contains("DNSKEY")).unwrap();
    let data: Vec<&str> = record.split("DNSKEY").nth(1).unwrap().split_whitespace().collect();
    let delv = format!(
        "trust-anchors {{ . static-key {} {} {} \"{}\"; }};\n",
        data[0],
        data[1],
        data[2],
        data[3..].concat()
    );
    std::fs::write(place.join("delv.key"), delv).unwrap();
    let from_the_server = "  aggressive-nsec: no\n  harden-below-nxdomain: no\n";
    for (server, settings) in [(UNBOUND, from_the_server), (UNBOUND_BY_DEFAULT, "")] {
        std::fs::write(
            place.join(format!("unbound-{server}.conf")),
            format!(
                "server:\n  interface: {server}\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  directory: \"{dir}\"\n\
                 \x20 pidfile: \"{dir}/unbound-{server}.pid\"\n  use-syslog: no\n  do-not-query-localhost: no\n\
                 \x20 local-zone: \"test.\" nodefault\n\
                 \x20 trust-anchor-file: \"{dir}/root.key\"\n  access-control: 127.0.0.0/8 allow\n{settings}\
                 remote-control:\n  control-enable: no\n\
                 stub-zone:\n  name: \".\"\n  stub-addr: {KNOT}\n  stub-prime: no\n"
            ),
        )
        .unwrap();
    }
}

fn start(place: &Path) -> [Running; 4] {
    write_all(place);
    let dir = place.display();
    let unbound = |server: &str| {
        daemon(
            &format!("unbound -d -c {dir}/unbound-{server}.conf"),
            &place.join(format!("unbound-{server}.log")),
        )
    };
    let running = [
        daemon(&format!("knotd -c {dir}/knot.conf"), &place.join("knot.log")),
        daemon(&format!("named -f -g -c {dir}/named.conf"), &place.join("named.log")),
        unbound(UNBOUND),
        unbound(UNBOUND_BY_DEFAULT),
    ];
    for server in SERVERS {
        until("the name server answers", || {
            shell(&format!("dig @{server} +time=1 +tries=1 data.nsec.test A || true")).contains("192.0.2.1")
        });
    }
    running
}

/// A verdict about a question: what is there, and how sure that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Records(Security),
    NoData(Security),
    NoName(Security),
    Failed,
}

fn ours(outcome: &Result<Answer, DnsError>) -> Verdict {
    match outcome {
        Ok(answer) => Verdict::Records(answer.security),
        Err(DnsError::NoSuchRecord(absence)) => Verdict::NoData(absence.security),
        Err(DnsError::NoSuchName(absence)) => Verdict::NoName(absence.security),
        Err(_) => Verdict::Failed,
    }
}

/// The weaker of two verdicts that say the same.
fn weakest(one: Verdict, end: Verdict) -> Verdict {
    match (one, end) {
        (Verdict::NoData(one), Verdict::NoData(end)) => Verdict::NoData(weaker(one, end)),
        (Verdict::NoName(one), Verdict::NoName(end)) => Verdict::NoName(weaker(one, end)),
        _ => one,
    }
}

/// Reads what `delv` prints: a comment for each set of records, and the weakest one counts. It has none for the end of a
/// chain that is nothing: see `ask_delv`.
fn of_delv(text: &str) -> Verdict {
    let security = if text.contains("unsigned answer") { Security::Insecure } else { Security::Secure };
    if text.contains("ncache nxdomain") {
        Verdict::NoName(security)
    } else if text.contains("ncache nxrrset") {
        Verdict::NoData(security)
    } else if text.contains("fully validated") || text.contains("unsigned answer") {
        Verdict::Records(security)
    } else {
        Verdict::Failed
    }
}

/// What `delv` says of a response that it takes for malformed: Unbound may follow an alias also where the alias itself was
/// queried, and then has the response code of the target. `delv` has no verdict about such a response; ours has to be that about
/// the response of the name server.
const NO_VERDICT: &str = "CNAME/DNAME chain complete, but RCODE indicates error";

fn run_delv(place: &Path, server: &str, Question { name, kind, .. }: &Question) -> String {
    let place = place.display();
    shell(&format!("delv @{server} -a {place}/delv.key +root=. {name} {kind} || true"))
}

/// The verdicts of `delv` for all questions at a server, some at a time. The verdict about a chain that ends in nothing is
/// that of the aliases and that of the end, which is a question of its own.
fn ask_delv(place: &Path, server: &str, questions: &[Question]) -> Vec<(Verdict, String)> {
    let answers = Mutex::new(vec![None; questions.len()]);
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(question) = questions.get(at) else { return };
                    let mut text = run_delv(place, server, question);
                    if text.contains(NO_VERDICT) {
                        text = run_delv(place, KNOT, question);
                    }
                    answers.lock().unwrap()[at] = Some((of_delv(&text), text));
                }
            });
        }
    });
    let answers: Vec<(Verdict, String)> =
        answers.into_inner().unwrap().into_iter().map(Option::unwrap).collect();
    let ends: HashMap<(&str, &str), Verdict> = questions
        .iter()
        .zip(&answers)
        .map(|(question, (verdict, _))| ((&*question.name, question.kind), *verdict))
        .collect();
    let whole = |(question, (verdict, text)): (&Question, &(Verdict, String))| {
        (weakest(*verdict, ends[&(&*question.end, question.kind)]), text.clone())
    };
    questions.iter().zip(&answers).map(whole).collect()
}

/// What takes minutes, for `./test all`.
mod whole {
    #[test]
    fn every_answer_about_absence_aliases_and_wildcards_has_the_verdict_of_delv() {
        super::compare(1);
    }
}

#[test]
fn a_sample_of_answers_about_absence_aliases_and_wildcards_has_the_verdict_of_delv() {
    compare(11);
}

/// The questions about a signing that lead to one in `step` ends, from the one with this number on.
fn chosen(signing: &Signing, first: usize, step: usize) -> Vec<Question> {
    let all = questions(signing);
    let ends: BTreeSet<String> = all.iter().map(|question| question.end.clone()).collect();
    let chosen: BTreeSet<String> = ends.into_iter().skip(5 * first % step).step_by(step).collect();
    all.into_iter().filter(|question| chosen.contains(&question.end)).collect()
}

/// Compares the verdicts on the questions that lead to one in `step` ends, others at each server.
fn compare(step: usize) {
    in_a_room_of_its_own(move || {
        let place = tempfile::tempdir().unwrap();
        let _running = start(place.path());
        let anchor = std::fs::read_to_string(place.path().join("root.key")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (mut asked, mut differing) = (0, Vec::new());
        for (first, server) in SERVERS.into_iter().enumerate() {
            let chosen = signings_at(server).zip(first..).flat_map(|(signing, at)| chosen(signing, at, step));
            let questions: Vec<Question> = chosen.collect();
            let verdicts = ask_delv(place.path(), server, &questions);
            let config = ResolverConfig {
                servers: vec![format!("{server}:53").parse().unwrap()],
                dnssec: Dnssec::Validate,
                trust_anchor: Some(anchor.clone()),
                ..ResolverConfig::default()
            };
            let of_question = |question: Question| {
                // A resolver of its own for each question: what others learned must not help.
                let resolver = Resolver::new(&config).unwrap();
                async move {
                    let kind = TYPES.iter().find(|(word, _)| *word == question.kind).unwrap().1;
                    resolver.lookup(&DomainName::parse(&question.name).unwrap(), kind).await
                }
            };
            let outcomes = futures_util::stream::iter(questions.clone()).map(of_question).buffered(16);
            let outcomes: Vec<_> = runtime.block_on(outcomes.collect());
            for ((question, outcome), (expected, text)) in questions.iter().zip(outcomes).zip(verdicts) {
                asked += 1;
                if ours(&outcome) != expected {
                    let Question { name, kind, .. } = question;
                    differing
                        .push(format!("{server} {name} {kind}: {outcome:?}, delv: {expected:?}\n{text}"));
                }
            }
        }
        println!("{asked} questions, {} differ", differing.len());
        assert!(asked > 9_000 / step, "{asked}");
        assert!(differing.is_empty(), "{} of {asked} differ:\n{}", differing.len(), differing.join("\n"));
    });
}

#[test]
fn a_plan_is_made_for_a_signed_zone_in_which_the_policy_host_is_an_alias() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let _running = start(place.path());
        let dir = place.path().display();
        for server in SERVERS {
            let config = format!(
                "[dns]\nservers = [\"{server}:53\"]\ntrust_anchor = \"root.key\"\n[trust]\nallow_private_addresses = true\n"
            );
            let all = signings_at(server).flat_map(|signing| mail_domains(signing.name));
            let domains: Vec<String> = all.map(|(domain, _)| domain).collect();
            let tables: String =
                domains.iter().map(|domain| format!("[[domain]]\nname = \"{domain}\"\n")).collect();
            std::fs::write(place.path().join("sternpost.toml"), config + &tables).unwrap();
            let planned = shell(&format!("cd {dir} && sternpost plan"));
            for domain in domains {
                let begin =
                    format!("{domain}: from no policy to enforce\n\n  1. serve the policy of mode testing");
                assert!(planned.contains(&begin), "{server} {domain}\n{planned}");
            }
        }
    });
}
