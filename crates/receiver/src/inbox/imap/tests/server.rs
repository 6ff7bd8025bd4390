//! A scripted IMAP server over TLS, with the quirks of servers in the field.

use super::quirks::{Clear, Quirks, Scripted, Trouble};
use lab::pki::{Cert, Pki};
use net::BoxFuture;
use net::certificate::Trust;
use net::clock::SystemClock;
use net::dns::{Absence, Answer, Data, Dns, DnsError, Kind, Security};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, ServerConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub const HOST: &str = "imap.example";

pub struct Mail {
    pub uid: u32,
    pub body: Vec<u8>,
    pub flags: BTreeSet<String>,
}

/// What the server has and what it was asked.
#[derive(Default)]
pub struct State {
    pub folders: BTreeMap<String, Vec<Mail>>,
    pub commands: Vec<String>,
    /// How often the client has waited for mail.
    pub rounds: usize,
    last_uid: u32,
}

pub struct Server {
    pub port: u16,
    pub tls: Arc<ClientConfig>,
    pub acceptor: TlsAcceptor,
    pub state: Arc<Mutex<State>>,
}

impl Server {
    pub async fn start(quirks: Quirks) -> Self {
        let pki = Pki::new(jiff::Timestamp::now()).unwrap();
        let identity = pki.issue(HOST, Cert::Good).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                identity.certified.cert.clone(),
                PrivateKeyDer::Pkcs8(identity.key.to_vec().into()),
            )
            .unwrap();
        let trust = Trust::from_roots([pki.root()]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        state.lock().unwrap().folders.insert("INBOX".to_owned(), Vec::new());
        let this = Self {
            port: listener.local_addr().unwrap().port(),
            tls: Arc::new(trust.client(Arc::new(SystemClock)).unwrap()),
            acceptor: TlsAcceptor::from(Arc::new(config)),
            state,
        };
        let (acceptor, state) = (this.acceptor.clone(), this.state.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::spawn(connection(Box::new(stream), acceptor.clone(), quirks, state.clone()));
            }
        });
        this
    }

    pub fn deliver(&self, folder: &str, body: &[u8]) -> u32 {
        let mut state = self.state.lock().unwrap();
        state.last_uid += 1;
        let uid = state.last_uid;
        let mail = Mail { uid, body: body.to_vec(), flags: BTreeSet::new() };
        state.folders.entry(folder.to_owned()).or_default().push(mail);
        uid
    }

    pub fn flag(&self, folder: &str, uid: u32, flag: &str) {
        let mut state = self.state.lock().unwrap();
        let mails = state.folders.get_mut(folder).unwrap();
        mails.iter_mut().find(|mail| mail.uid == uid).unwrap().flags.insert(flag.to_owned());
    }

    /// The UIDs in a folder with their flags.
    pub fn mails(&self, folder: &str) -> Vec<(u32, Vec<String>)> {
        let state = self.state.lock().unwrap();
        let mails = state.folders.get(folder).map(Vec::as_slice).unwrap_or_default();
        mails.iter().map(|mail| (mail.uid, mail.flags.iter().cloned().collect())).collect()
    }

    /// How many commands contain this text.
    pub fn count(&self, text: &str) -> usize {
        self.state.lock().unwrap().commands.iter().filter(|command| command.contains(text)).count()
    }

    /// Waits until the client has waited for mail as often.
    pub async fn rounds(&self, count: usize) {
        while self.state.lock().unwrap().rounds < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

struct Session {
    stream: BufReader<Box<dyn Stream>>,
    quirks: Quirks,
    state: Arc<Mutex<State>>,
    selected: String,
}

async fn connection(
    stream: Box<dyn Stream>,
    acceptor: TlsAcceptor,
    quirks: Quirks,
    state: Arc<Mutex<State>>,
) -> std::io::Result<()> {
    let session = |stream| Session {
        stream: BufReader::new(stream),
        quirks,
        state: state.clone(),
        selected: String::new(),
    };
    let Some(clear) = quirks.clear else {
        let mut session = session(Box::new(acceptor.accept(stream).await?));
        if let Some(text) = quirks.greeting {
            return session.write(&format!("{text}\r\n")).await;
        }
        session.write("* OK ready {5}\r\n").await?;
        return session.run().await;
    };
    let mut plain = session(stream);
    plain.write(if clear == Clear::IsPreAuth { "* PREAUTH hi\r\n" } else { "* OK hi\r\n" }).await?;
    let Some((tag, _)) = plain.command().await? else { return Ok(()) };
    match clear {
        Clear::Refuses => plain.write(&format!("{tag} NO not today\r\n")).await?,
        Clear::Injects => plain.write(&format!("{tag} OK go on\r\n* PREAUTH welcome\r\n")).await?,
        _ => plain.write(&format!("{tag} OK go on\r\n")).await?,
    }
    if clear != Clear::Upgrades {
        plain.command().await?;
        return Ok(());
    }
    session(Box::new(acceptor.accept(plain.stream.into_inner()).await?)).run().await
}

impl Session {
    async fn write(&mut self, text: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(text.as_ref()).await?;
        self.stream.flush().await
    }

    async fn line(&mut self) -> std::io::Result<Option<String>> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).await? {
            0 => Ok(None),
            _ => Ok(Some(line.trim_end().to_owned())),
        }
    }

    async fn command(&mut self) -> std::io::Result<Option<(String, String)>> {
        let Some(line) = self.line().await? else { return Ok(None) };
        let (tag, command) = line.split_once(' ').unwrap();
        self.state.lock().unwrap().commands.push(command.to_owned());
        Ok(Some((tag.to_owned(), command.to_owned())))
    }

    async fn run(mut self) -> std::io::Result<()> {
        while let Some((tag, command)) = self.command().await? {
            let words: Vec<&str> = command.split(' ').collect();
            if let Some(text) = self.scripted(&command) {
                let text = text.replace("{tag}", &tag);
                let open = text.strip_suffix("{close}");
                self.write(open.unwrap_or(&text)).await?;
                if open.is_some() {
                    return Ok(());
                }
                continue;
            }
            if words.first() == Some(&"UID") {
                self.write(self.quirks.noise).await?;
            }
            match words.as_slice() {
                ["IDLE"] if self.quirks.idle_is_refused => self.write(&format!("{tag} BAD\r\n")).await?,
                ["IDLE"] => {
                    self.write("+ idling\r\n").await?;
                    self.state.lock().unwrap().rounds += 1;
                    self.line().await?;
                    self.write(&format!("{tag} OK done\r\n")).await?;
                }
                ["AUTHENTICATE", _, rest @ ..] => {
                    let initial = match rest.first() {
                        Some(initial) => (*initial).to_owned(),
                        None => {
                            self.write("+ \r\n").await?;
                            self.line().await?.unwrap()
                        }
                    };
                    let words = data_encoding::BASE64.decode(initial.as_bytes()).unwrap();
                    let words = String::from_utf8(words).unwrap();
                    self.state.lock().unwrap().commands.push(words.clone());
                    if words.contains("Bearer good-token\x01") || words == "\0u\0pässword" {
                        self.write(&format!("{tag} OK welcome\r\n")).await?;
                    } else {
                        self.write("+ eyJzdGF0dXMiOiI0MDAifQ==\r\n").await?;
                        let last = self.line().await?.unwrap();
                        self.state.lock().unwrap().commands.push(format!("last {last:?}"));
                        self.write(&format!("{tag} NO [AUTHENTICATIONFAILED] bad-token is bad\r\n")).await?;
                    }
                }
                ["UID", "FETCH", uid, ..]
                    if self.quirks.trouble == Some((uid.parse().unwrap(), Trouble::Disconnects))
                        && command.contains("BODY") =>
                {
                    return Ok(());
                }
                _ => {
                    let (data, end) = self.answer(&words, &command);
                    self.write(&data).await?;
                    self.write(&format!("{tag} {end}\r\n")).await?;
                }
            }
        }
        Ok(())
    }

    /// The answer that the quirks have for a command.
    fn scripted(&self, command: &str) -> Option<&'static str> {
        let state = self.state.lock().unwrap();
        let fits = |scripted: &&Scripted| {
            let asked = state.commands.iter().filter(|command| command.contains(scripted.to)).count();
            command.contains(scripted.to) && asked <= scripted.times
        };
        self.quirks.answers.iter().find(fits).map(|scripted| scripted.text)
    }

    /// The data and the end of the answer to a command.
    fn answer(&mut self, words: &[&str], command: &str) -> (Vec<u8>, String) {
        let quirks = self.quirks;
        let mut state = self.state.lock().unwrap();
        let is_kept =
            |name: &str| name == "INBOX" || quirks.prefix.is_none_or(|prefix| name.starts_with(prefix));
        let ok = |data: String| (data.into_bytes(), "OK done".to_owned());
        let end = |text: &str| (Vec::new(), text.to_owned());
        match words {
            ["CAPABILITY"] => {
                let mut all = format!("* CAPABILITY IMAP4rev1 {}", quirks.offers);
                for (name, is_absent) in [
                    (" NAMESPACE", quirks.prefix.is_none()),
                    (" MOVE", quirks.no_move),
                    (" UIDPLUS", quirks.no_uidplus),
                    (" IDLE", quirks.no_idle),
                ] {
                    all += if is_absent { "" } else { name };
                }
                ok(all + "\r\n")
            }
            ["LOGIN", "\"u\"", "\"secret\""] => end("OK welcome"),
            ["LOGIN", ..] => end(&format!("NO wrong: {command}")),
            ["NAMESPACE"] => ok(format!("* NAMESPACE ((\"{}\" \".\")) NIL NIL\r\n", quirks.prefix.unwrap())),
            ["LIST", ..] => {
                let pattern = command.split('"').nth(3).unwrap().trim_end_matches('*');
                let names = state.folders.keys().filter(|name| name.starts_with(pattern));
                let list = names.map(|name| format!("* LIST () \".\" \"{name}\"\r\n")).collect::<String>();
                ok(format!("* LIST (\\Noselect) \".\" {pattern}none\r\n{list}"))
            }
            ["SELECT", ..] => {
                let name = quoted(command);
                let Some(mails) = state.folders.get(&name) else { return end("NO no such folder") };
                let flags = if quirks.no_keywords { "\\Seen \\Deleted" } else { "\\Seen \\Deleted \\*" };
                let validity = if quirks.no_validity { "" } else { "* OK [UIDVALIDITY 7] ok\r\n" };
                let data =
                    format!("* {} EXISTS\r\n{validity}* OK [PERMANENTFLAGS ({flags})] ok\r\n", mails.len());
                self.selected = name;
                ok(data)
            }
            ["NOOP"] => {
                state.rounds += 1;
                end("OK done")
            }
            ["CREATE", ..] => match quoted(command) {
                name if !is_kept(&name) => end("NO Client tried to access nonexistent namespace"),
                name if state.folders.contains_key(&name) => end("NO [ALREADYEXISTS] it exists"),
                name => {
                    state.folders.insert(name, Vec::new());
                    end("OK created")
                }
            },
            ["SUBSCRIBE", ..] => end("OK done"),
            ["EXPUNGE"] => {
                let mails = state.folders.get_mut(&self.selected).unwrap();
                mails.retain(|mail| !mail.flags.contains("\\Deleted"));
                end("OK done")
            }
            ["UID", "EXPUNGE", uid] if !quirks.no_uidplus => {
                let mails = state.folders.get_mut(&self.selected).unwrap();
                mails.retain(|mail| mail.uid.to_string() != *uid);
                end("OK done")
            }
            ["UID", "SEARCH", ..] => {
                if command.contains("KEYWORD") && (quirks.no_keywords || quirks.keywords_are_refused) {
                    return end("BAD unknown search key");
                }
                let has = |mail: &Mail, flag: &str| mail.flags.contains(flag);
                let found = state.folders[&self.selected].iter().filter(|mail| match words[2] {
                    "DELETED" => has(mail, "\\Deleted"),
                    _ => {
                        !(has(mail, "\\Deleted")
                            || command.contains("UNSEEN") && has(mail, "\\Seen")
                            || command.contains("UNKEYWORD") && has(mail, "SternpostTaken"))
                    }
                });
                ok(format!("* SEARCH {}\r\n", found.map(|mail| format!("{} ", mail.uid)).collect::<String>()))
            }
            ["UID", verb, uid, ..] => {
                let uid: u32 = uid.parse().unwrap();
                let mails = state.folders.get_mut(&self.selected).unwrap();
                let Some(at) = mails.iter().position(|mail| mail.uid == uid) else { return end("OK gone") };
                match *verb {
                    "FETCH" => fetched(&mails[at], command, quirks),
                    "STORE" => {
                        let is_keyword = command.contains("SternpostTaken");
                        if is_keyword && (quirks.no_keywords || quirks.keywords_are_refused) {
                            return end("BAD invalid flag");
                        }
                        let flags = command.split(['(', ')']).nth(1).unwrap();
                        mails[at].flags.extend(flags.split(' ').map(str::to_owned));
                        ok(format!("* {} FETCH (FLAGS ({flags}))\r\n", at + 1))
                    }
                    "MOVE" if quirks.no_move || quirks.move_is_refused => end("BAD unknown command"),
                    "MOVE" | "COPY" => {
                        let target = quoted(command);
                        if !is_kept(&target) {
                            return end("NO Client tried to access nonexistent namespace");
                        }
                        if let Some(why) = quirks.is_full {
                            return end(&format!("NO {why}"));
                        }
                        if !state.folders.contains_key(&target) {
                            return end("NO [TRYCREATE] no such folder");
                        }
                        let mails = state.folders.get_mut(&self.selected).unwrap();
                        let copy = Mail { uid, body: mails[at].body.clone(), flags: mails[at].flags.clone() };
                        if *verb == "MOVE" {
                            mails.remove(at);
                        }
                        state.folders.get_mut(&target).unwrap().push(copy);
                        end("OK done")
                    }
                    _ => end("BAD unknown command"),
                }
            }
            _ => end("BAD unknown command"),
        }
    }
}

/// The quoted string at the end of a command.
fn quoted(command: &str) -> String {
    let inner = command.split_once('"').unwrap().1.strip_suffix('"').unwrap();
    inner.replace("\\\"", "\"").replace("\\\\", "\\")
}

fn fetched(mail: &Mail, command: &str, quirks: Quirks) -> (Vec<u8>, String) {
    let uid = mail.uid;
    if !command.contains("BODY") {
        let size = if quirks.no_sizes { String::new() } else { format!(" RFC822.SIZE {}", mail.body.len()) };
        return (format!("* 1 FETCH (UID {uid}{size})\r\n").into_bytes(), "OK done".to_owned());
    }
    let origin = if command.contains("<0.") { "<0>" } else { "" };
    match quirks.trouble {
        Some((bad, Trouble::Refused)) if bad == uid => (Vec::new(), "NO [SERVERBUG] disk error".to_owned()),
        Some((bad, Trouble::Empty)) if bad == uid => {
            (format!("* 1 FETCH (UID {uid} BODY[] NIL)\r\n").into_bytes(), "OK done".to_owned())
        }
        Some((bad, Trouble::Garbled)) if bad == uid => {
            (format!("* 1 FETCH (UID {uid} BODY[] ((((\"\r\n").into_bytes(), "OK done".to_owned())
        }
        _ => {
            let head = format!("* 1 FETCH (UID {uid} BODY[]{origin} {{{}}}\r\n", mail.body.len());
            ([head.as_bytes(), &mail.body, b")\r\n"].concat(), "OK done".to_owned())
        }
    }
}

/// Every name is at 127.0.0.1, and with `has_v6` also at ::1, which comes first.
pub struct Loopback {
    pub has_v6: bool,
}

impl Dns for Loopback {
    fn lookup<'a>(
        &'a self,
        _: &'a formats::DomainName,
        kind: Kind,
    ) -> BoxFuture<'a, Result<Answer, DnsError>> {
        let records = match kind {
            Kind::A => vec![Data::A(Ipv4Addr::LOCALHOST)],
            Kind::Aaaa if self.has_v6 => vec![Data::Aaaa(Ipv6Addr::LOCALHOST)],
            _ => vec![],
        };
        let absence = DnsError::NoSuchRecord(Absence { security: Security::Insecure, ttl: None });
        let answer = Answer {
            ttl: Duration::from_secs(60),
            security: Security::Insecure,
            aliases: vec![],
            is_split: false,
            records,
        };
        Box::pin(async move { if answer.records.is_empty() { Err(absence) } else { Ok(answer) } })
    }
}
