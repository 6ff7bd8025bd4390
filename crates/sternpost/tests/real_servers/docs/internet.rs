//! The internet of a page: the lab at public addresses, and a door through which the commands of the page's machine change it,
//! as the owners of domains, CAs and hosting platforms do.

use crate::runbook::page::{Asked, asked_for, domain};
use formats::policy::Policy;
use formats::sts_record::StsRecord;
use formats::tlsrpt_record::TlsrptRecord;
use lab::case::{Case, HostAddress};
use lab::dns::{Rr, Signing};
use lab::pki::Cert;
use lab::policy_host::{HttpBehavior, Site};
use lab::{Lab, Ports};
use net::clock::{Clock, SystemClock};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;

/// The first two numbers of the lab's addresses.
pub const NETWORK: [u8; 2] = [11, 77];
/// The address of the page's machine.
pub const MACHINE: Ipv4Addr = Ipv4Addr::new(11, 88, 0, 2);
/// The address of the machine's router, with the door at port 999.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(11, 88, 0, 1);

/// The lab, and what keeps it running.
pub struct Internet {
    pub lab: Arc<Lab>,
    _runtime: tokio::runtime::Runtime,
}

/// The domains of every page: example.org and others with a mail server and nothing else, and some with an enforced policy.
fn domains() -> Vec<Case> {
    let bare = |name| {
        let mut case = domain(name);
        case.setup.sts_records.clear();
        case.setup.tlsrpt_records.clear();
        case.setup.host_address = HostAddress::Missing;
        case.setup.answers = HttpBehavior::Status(404);
        case
    };
    let mut signed = domain("signed.example");
    signed.setup.signing = Signing::Signed;
    vec![
        bare("example.org"),
        bare("example.net"),
        bare("example.com"),
        bare("customer.example"),
        domain("partner.example"),
        domain("gmail.com"),
        signed,
    ]
}

impl Internet {
    /// Starts it in the network of this thread.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let ports = Ports { dns: 53, https: 443, smtp: 25, block: 0 };
        let lab = runtime.block_on(async {
            let lab = Lab::start_in(NETWORK, ports, SystemClock.now()).await.unwrap();
            for case in domains() {
                lab.add(&case).await.unwrap();
            }
            lab
        });
        Self { lab: Arc::new(lab), _runtime: runtime }
    }

    /// Answers at the door until the process ends.
    pub fn open_door(&self) {
        let listener = TcpListener::bind((ROUTER, 999)).unwrap();
        let lab = self.lab.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let _ = answer(&lab, client);
            }
        });
    }

    /// Publishes what a program asks its operator for: records and policy files, by hand.
    pub fn publish_by_hand(&self, printed: &str) {
        for asked in asked_for(printed) {
            let done = match asked {
                Asked::Record(line) if line.contains("NAME-OF-YOUR-PLATFORM") => Ok(()),
                Asked::Record(line) => {
                    let here = self.lab.policy_host_address().to_string();
                    publish(&self.lab, &line.replace("ADDRESS-OF-YOUR-WEB-SERVER", &here))
                }
                Asked::Policy { host, text } => {
                    put_site(&self.lab, host.as_deref().unwrap_or("mta-sts.example.org"), &text);
                    Ok(())
                }
            };
            done.unwrap_or_else(|error: String| panic!("{error}\n{printed}"));
        }
    }
}

/// Two lines come in, a command with its arguments and a text with `\n` for its line ends; the answer is `ok` or `error` and a
/// text.
fn answer(lab: &Lab, client: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?.take(1 << 20));
    let (mut command, mut text) = (String::new(), String::new());
    reader.read_line(&mut command)?;
    reader.read_line(&mut text)?;
    let text = text.trim_end_matches('\n').replace("\\n", "\n");
    let words: Vec<&str> = command.split_whitespace().collect();
    let said = match carry_out(lab, &words, &text) {
        Ok(said) => format!("ok\n{said}"),
        Err(error) => format!("error\n{error}\n"),
    };
    (&client).write_all(said.as_bytes())
}

fn carry_out(lab: &Lab, words: &[&str], text: &str) -> Result<String, String> {
    match words {
        ["publish"] => text.lines().try_for_each(|line| publish(lab, line)).map(|()| String::new()),
        ["remove", name] => {
            lab.names.remove(&rooted(name)).map(|()| String::new()).map_err(|error| error.to_string())
        }
        ["policy"] => match Policy::parse(text.replace('\n', "\r\n").as_bytes()) {
            Ok(_) => Ok(String::new()),
            Err(error) => Err(format!("{error:?}")),
        },
        ["site", host] => {
            put_site(lab, host, text);
            publish(lab, &format!("{host}. IN A {}", lab.policy_host_address()))?;
            Ok(String::new())
        }
        ["address"] => Ok(format!("{}\n", lab.policy_host_address())),
        ["key", host] => Ok(lab.pki.issue(host, Cert::Good).map_err(|e| e.to_string())?.key_pem()),
        ["certificate", host] => {
            let identity = lab.pki.issue(host, Cert::Good).map_err(|e| e.to_string())?;
            Ok(identity.key_pem() + &identity.chain_pem())
        }
        ["received"] => Ok(lab
            .mail_traffic
            .take_received()
            .iter()
            .map(|mail| format!("{}\n", mail.incoming.to.join(" ")))
            .collect()),
        _ => Err(format!("no such command of the world: {}", words.join(" "))),
    }
}

fn put_site(lab: &Lab, host: &str, policy: &str) {
    let identity = lab.pki.issue(host, Cert::Good).unwrap();
    let policy = policy.replace("\r\n", "\n").replace('\n', "\r\n");
    lab.sites.put(host, Site { answers: HttpBehavior::Policy(policy), identity });
}

fn rooted(name: &str) -> String {
    if name.ends_with('.') { name.to_owned() } else { format!("{name}.") }
}

/// Publishes a record in zone-file form. An address for documentation (RFC 5737) is that of the page's machine.
fn publish(lab: &Lab, line: &str) -> Result<(), String> {
    let line = line.split(" ;").next().unwrap_or(line).trim();
    if line.is_empty() {
        return Ok(());
    }
    let (name, record) = record(line).ok_or_else(|| format!("not a record: {line}"))?;
    if let Rr::Txt(strings) = &record {
        let text = strings.concat();
        let is = |label: &str| name.starts_with(label);
        if is("_mta-sts.") {
            StsRecord::parse(text.as_bytes()).map_err(|error| format!("{line}: {error}"))?;
        } else if is("_smtp._tls.") {
            TlsrptRecord::parse(text.as_bytes()).map_err(|error| format!("{line}: {error}"))?;
        }
    }
    // A name has an alias or addresses, never both.
    if matches!(record, Rr::A(_) | Rr::Cname(_)) {
        lab.names.remove(&rooted(&name)).map_err(|error| format!("{line}: {error}"))?;
    }
    if matches!(record, Rr::Aaaa(_)) {
        return Ok(()); // The page's internet has IPv4 only.
    }
    lab.names.set(&rooted(&name), vec![record]).map_err(|error| format!("{line}: {error}"))
}

fn record(line: &str) -> Option<(String, Rr)> {
    let (name, mut rest) = line.split_once(char::is_whitespace)?;
    loop {
        let (word, more) = rest.trim_start().split_once(char::is_whitespace)?;
        let more = more.trim();
        let record = match word {
            "IN" => None,
            ttl if ttl.bytes().all(|byte| byte.is_ascii_digit()) => None,
            "A" => Some(Rr::A(own_address(more.parse().ok()?))),
            "AAAA" => Some(Rr::Aaaa(more.parse().ok()?)),
            "CNAME" => Some(Rr::Cname(rooted(more))),
            "NS" => Some(Rr::Ns(rooted(more))),
            "MX" => {
                let (preference, host) = more.split_once(char::is_whitespace)?;
                Some(Rr::Mx(preference.parse().ok()?, rooted(host.trim())))
            }
            "TXT" => Some(Rr::Txt(strings(more)?)),
            "CAA" => Some(Rr::Caa(Some(strings(more.splitn(3, ' ').nth(2)?)?.concat()))),
            _ => return None,
        };
        match record {
            Some(record) => return Some((name.to_owned(), record)),
            None => rest = more,
        }
    }
}

/// The strings in quotation marks.
fn strings(text: &str) -> Option<Vec<String>> {
    let parts: Vec<&str> = text.split('"').collect();
    let between = parts.iter().step_by(2).all(|part| part.trim().is_empty());
    let strings = parts.iter().skip(1).step_by(2).map(|part| (*part).to_owned()).collect();
    (parts.len() > 2 && parts.len() % 2 == 1 && between).then_some(strings)
}

fn own_address(address: Ipv4Addr) -> Ipv4Addr {
    if address.is_documentation() { MACHINE } else { address }
}

#[test]
fn records_are_read_as_a_zone_file_has_them() {
    let txt = |text: &str| Rr::Txt(vec![text.to_owned()]);
    let read = |line: &str| record(line).map(|(_, record)| record);
    assert_eq!(read("_mta-sts.example.org. 300 IN TXT \"v=STSv1; id=1;\""), Some(txt("v=STSv1; id=1;")));
    assert_eq!(read("a.example.org. TXT \"a\" \"b\""), Some(Rr::Txt(vec!["a".into(), "b".into()])));
    assert_eq!(read("mta-sts.example.org. IN A 192.0.2.10"), Some(Rr::A(MACHINE)));
    assert_eq!(read("x. IN CNAME user.github.io."), Some(Rr::Cname("user.github.io.".into())));
    assert_eq!(read("x. IN CAA 0 issue \"letsencrypt.org\""), Some(Rr::Caa(Some("letsencrypt.org".into()))));
    for wrong in ["x. IN TXT v=STSv1", "x. IN TXT \"open", "x. IN MX mx1.example.org.", "x. IN WKS 1", "x."] {
        assert_eq!(read(wrong), None, "{wrong}");
    }
}
