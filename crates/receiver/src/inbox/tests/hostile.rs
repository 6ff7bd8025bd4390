//! Input that is made to exhaust memory, processor time or the patience of others.

use super::*;
use net::memory_budget::MemoryBudget;
use std::sync::Mutex;

const MEGABYTE: usize = 1 << 20;

/// Gzip data of a text that can't be read: a wrong checksum, too many values, no JSON, cut, and more than allowed.
fn bombs() -> Vec<Vec<u8>> {
    let blanks = pack(&vec![b' '; 20 * MEGABYTE]).unwrap();
    let mut checksum = pack(&[json("1"), vec![b' '; MEGABYTE]].concat()).unwrap();
    let at = checksum.len() - 6;
    checksum[at] ^= 1;
    let values =
        pack(format!("{{\"x\":[{}0]}}", "{},".repeat(formats::limits::JSON_NODES)).as_bytes()).unwrap();
    let nested = pack(format!("{{\"x\":[{}", "[[],[],[{}]],".repeat(100_000)).as_bytes()).unwrap();
    let lines = String::from_utf8(json("1")).unwrap().replace("version: STSv1", &"a\\n".repeat(30_000));
    let latin = [vec![b'{', b'"'], vec![0xe4; MEGABYTE]].concat();
    let cut = blanks[..blanks.len() / 2].to_vec();
    vec![blanks, checksum, values, nested, pack(lines.as_bytes()).unwrap(), pack(&latin).unwrap(), cut]
}

fn incoming(message: Vec<u8>) -> Incoming {
    Incoming { from: "x".into(), to: vec!["r@a.example".into()], message, tls: true }
}

#[test]
fn what_can_not_be_read_gives_its_memory_back_at_once() {
    let budget = MemoryBudget::new(512 * MEGABYTE, 512 * MEGABYTE);
    for bomb in bombs() {
        let mut memory = budget.reservation();
        let found = extract_file(&bomb, "", &mut memory).unwrap();
        let kept = if found.reports.is_empty() { 0 } else { 4 * MEGABYTE };
        assert!(memory.bytes() <= kept, "{} {:?}", memory.bytes(), found.problems);
        let mail = attached(&[("a.json.gz", bomb.clone()), ("b.json.gz", bomb), ("c.json", json("2"))]);
        let mut memory = budget.reservation();
        extract_message(&mail, false, &mut memory).unwrap();
        assert!(memory.bytes() < 8 * MEGABYTE, "{}", memory.bytes());
    }
    assert_eq!(budget.used(), 0);
    assert!(budget.peak() > 100 * MEGABYTE);
}

/// Many hostile mails at the same time stay below the budget, and leave it whole.
#[tokio::test]
async fn hostile_mails_side_by_side_stay_within_the_budget_and_leave_it_whole() {
    let (_dir, base) = inbox(Names::default()).await;
    let total = 300 * MEGABYTE;
    let inbox = Arc::new(Inbox { pool: Arc::new(ExtractionPool::new(3, total)), ..base });
    let tasks: Vec<_> = (0..3)
        .flat_map(|_| bombs())
        .map(|bomb| {
            let (inbox, mail) =
                (inbox.clone(), attached(&[("a.json.gz", bomb.clone()), ("b.json.gz", bomb)]));
            tokio::spawn(
                async move { inbox.read_mail(Arc::new(mail), false, Arrival::Smtp).await.map(|_| ()) },
            )
        })
        .collect();
    for task in tasks {
        let _ = task.await.unwrap();
    }
    let memory = inbox.pool.memory();
    assert!((100 * MEGABYTE..=total).contains(&memory.peak()), "{}", memory.peak());
    assert_eq!(memory.used(), 0);
    assert_eq!(inbox.keep(incoming(message("multipart/report", json("7")))).await, Ok(()));
    assert_eq!(ids(&inbox).await, ["7"]);
}

#[tokio::test]
async fn a_report_that_needs_more_memory_than_there_is_fails_for_good() {
    let (_dir, base) = inbox(Names::default()).await;
    let inbox = Inbox { pool: Arc::new(ExtractionPool::new(1, MEGABYTE)), ..base };
    let large = [json("1"), vec![b' '; 2 * MEGABYTE]].concat();
    let outcome = accept(&inbox, &message("multipart/report", pack(&large).unwrap())).await;
    let reason = outcome.quarantined.unwrap();
    assert!(reason.contains("more memory than there is for all reports"), "{reason}");
    let narrow = Inbox { pool: Arc::new(ExtractionPool::new(1, 1000)), ..inbox.clone() };
    let signed = [forged(&["s"]), message("multipart/report", json("1"))].concat();
    let reading = narrow.read_mail_patiently(&Arc::new(signed), Arrival::Imap).await.unwrap();
    assert!(reading.reports.is_empty() && reading.reason().contains("more memory than there is"));
    let private =
        attached(&[("backup.gz", pack(&[b"{".as_slice(), &vec![b'x'; 2 * MEGABYTE]].concat()).unwrap())]);
    let reading = inbox.read_mail_patiently(&Arc::new(private), Arrival::Imap).await.unwrap();
    assert!(!reading.claims && reading.reports.is_empty(), "left alone");
    assert_eq!(inbox.pool.memory().used(), 0);
}

#[test]
fn a_large_backup_beside_a_report_does_not_use_up_what_the_message_may_expand_to() {
    let backup = pack(&vec![b'x'; 200 * MEGABYTE]).unwrap();
    let mail = attached(&[("backup.gz", backup), ("a.json.gz", pack(&json("1")).unwrap())]);
    let budget = MemoryBudget::new(512 * MEGABYTE, 512 * MEGABYTE);
    let found = extract_message(&mail, false, &mut budget.reservation()).unwrap();
    assert_eq!((found.reports.len(), found.problems.len()), (1, 0));
    assert!(budget.peak() < MEGABYTE);
}

#[tokio::test]
async fn who_waits_for_memory_goes_on_when_it_is_given_back_and_gives_up_in_the_end() {
    let (_dir, base) = inbox(Names::default()).await;
    let inbox = Arc::new(Inbox { pool: Arc::new(ExtractionPool::new(1, MEGABYTE)), ..base });
    let mail = Arc::new(message("multipart/report", json("1")));
    let mut others = inbox.pool.memory().reservation();
    assert!(others.cover(MEGABYTE));
    let waiting = tokio::spawn({
        let (inbox, mail) = (inbox.clone(), mail.clone());
        async move { inbox.read_mail_patiently(&mail, Arrival::Import).await.map(|read| read.reports.len()) }
    });
    tokio::task::yield_now().await;
    others.clear();
    assert_eq!(waiting.await.unwrap(), Ok(1));
    assert!(others.cover(MEGABYTE));
    // The clock jumps to the deadline as soon as there is nothing else to do.
    tokio::time::pause();
    assert!(inbox.read_mail_patiently(&mail, Arrival::Import).await.is_err());
    let item =
        files::Item { name: "r.json".to_owned(), bytes: Arc::new(json("1")), ..files::Item::default() };
    assert!(inbox.read_item_patiently(&item, Arrival::Import).await.is_err());
    tokio::time::resume();
    let here = tokio::task::spawn_blocking({
        let inbox = Inbox { patience: Duration::ZERO, ..(*inbox).clone() };
        move || inbox.read_file_here(&json("1"), "r.json", Arrival::Import).is_err()
    });
    assert!(here.await.unwrap());
}

/// Records the memory in use at each lookup. Selectors that begin with `slow` are never answered.
pub(super) struct Watched {
    pub pool: Arc<ExtractionPool>,
    names: Names,
    pub used: Mutex<Vec<usize>>,
}

impl Dns for Watched {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        self.used.lock().unwrap().push(self.pool.memory().used());
        match name.as_str().starts_with("slow") {
            true => Box::pin(std::future::pending()),
            false => self.names.lookup(name, kind),
        }
    }
}

pub(super) fn watched(record: &str) -> Watched {
    let pool = Arc::new(ExtractionPool::new(1, 64 * MEGABYTE));
    Watched { pool, names: publishing("s._domainkey.big.example", record), used: Mutex::default() }
}

/// Signatures that are invalid, with these selectors.
fn forged(selectors: &[&str]) -> Vec<u8> {
    let one = |selector: &&str| {
        format!(
            "DKIM-Signature: v=1; a=ed25519-sha256; d=big.example; s={selector}; h=from; bh=AAAA; b=AAAA\r\n"
        )
    };
    selectors.iter().map(one).collect::<String>().into_bytes()
}

#[tokio::test]
async fn no_memory_is_held_while_keys_are_looked_up() {
    let key = key();
    let report = message("multipart/report", pack(&json("1")).unwrap());
    // Without a name and a type that say so, the report is found only when the message is extracted.
    let unnamed = MessageBuilder::new()
        .from("noreply@mail.big.example")
        .body(MimePart::new("application/gzip", pack(&json("2")).unwrap()));
    for mail in [report, unnamed.write_to_vec().unwrap()] {
        let (_dir, base) = inbox(Names::default()).await;
        let dns = Arc::new(watched(&key.record));
        let inbox = Inbox { pool: dns.pool.clone(), dns: dns.clone(), ..base };
        let signed =
            [forged(&["other"]), sign_headers(&mail, &key, "big.example", &["From"], false)].concat();
        let outcome = accept(&inbox, &signed).await;
        assert_eq!(outcome.reports[0].trust, Trust::Verified);
        assert_eq!(*dns.used.lock().unwrap(), [0, 0]);
        assert_eq!(dns.pool.memory().used(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn one_slow_key_costs_one_deadline_and_no_other_signature() {
    let key = key();
    let dns = watched(&key.record);
    let mail = message("multipart/report", pack(&json("1")).unwrap());
    let selectors = ["slow1", "slow2", "slow3", "slow4", "slow5", "slow6", "slow7"];
    let signed = [forged(&selectors), sign(&mail, &key, "big.example", false)].concat();
    let submitter = DomainName::parse("big.example").unwrap();
    let (begun, now) = (tokio::time::Instant::now(), jiff::Timestamp::now());
    let state = check_signature(&dns, &signed, &submitter, now, begun + Duration::from_secs(10)).await;
    assert!(matches!(state, SignatureState::Verified { .. }), "{state:?}");
    assert!(begun.elapsed() < Duration::from_secs(11));
    assert_eq!(dns.used.lock().unwrap().len(), 8);
    let unknown = [forged(&selectors), mail].concat();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let state = check_signature(&dns, &unknown, &submitter, now, deadline).await;
    assert_eq!(state, SignatureState::Unknown);
}

#[tokio::test]
async fn signatures_over_very_many_fields_and_beyond_the_first_ones_do_not_count() {
    let key = key();
    let mail = message("multipart/report", pack(&json("1")).unwrap());
    let dns = || publishing("s._domainkey.big.example", &key.record);
    let over = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| format!("X{number}")).collect();
        let fields: String = names.iter().map(|name| format!("{name}: y\r\n")).collect();
        let listed: Vec<&str> = ["From"].into_iter().chain(names.iter().map(String::as_str)).collect();
        sign_headers(&[fields.as_bytes(), &mail].concat(), &key, "big.example", &listed, false)
    };
    assert_eq!(trust_of(&over(400), dns()).await, Trust::Verified);
    assert_eq!(trust_of(&over(600), dns()).await, Trust::Failed);
    let good = sign(&mail, &key, "big.example", false);
    let behind = |count: usize| [forged(&vec!["s"; count]), good.clone()].concat();
    assert_eq!(trust_of(&behind(7), dns()).await, Trust::Verified);
    assert_eq!(trust_of(&behind(8), dns()).await, Trust::Failed);
}

#[tokio::test]
async fn a_submitter_that_only_the_report_names_is_verified_too() {
    let key = key();
    let head = b"From: \r\nContent-Type: application/json; name=r.json\r\n\r\n";
    let mail = [head.as_slice(), &json("1"), b"\r\n"].concat();
    let signed = sign_headers(&mail, &key, "big.example", &["From"], false);
    let dns = publishing("s._domainkey.big.example", &key.record);
    assert_eq!(trust_of(&signed, dns).await, Trust::Verified);
}

/// A clock that notes the threads that ask it. The last one to ask is the one that stores.
#[derive(Debug, Default)]
struct Asked(Mutex<Vec<std::thread::ThreadId>>);

impl Clock for Asked {
    fn now(&self) -> jiff::Timestamp {
        self.0.lock().unwrap().push(std::thread::current().id());
        SystemClock.now()
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }
}

/// The runtime of this test has one thread, as an event loop that answers a mail server.
#[tokio::test]
async fn large_input_is_stored_on_a_thread_of_its_own() {
    let broken = || ("b.json", b"{\"report-id\": \"1\", \"policies\": [".to_vec());
    let detail = r#"{"result-type":"certificate-expired","failed-session-count":1}"#;
    let details = format!("\"failure-details\":[{}]}}]}}", vec![detail; 20_000].join(","));
    let many = String::from_utf8(json("many")).unwrap();
    let many = format!("{},{details}", many.strip_suffix("}]}").unwrap());
    let files = [
        ("small", false, vec![("a.json", json("small")), broken()]),
        ("quarantined", true, vec![broken(), ("c.txt", vec![b'x'; 2 * STORED_INLINE])]),
        ("many rows", true, vec![("a.json.gz", pack(many.as_bytes()).unwrap()), broken()]),
    ];
    for (name, is_aside, files) in files {
        let (_dir, base) = inbox(Names::default()).await;
        let clock = Arc::new(Asked::default());
        let inbox = Inbox { clock: clock.clone(), ..base };
        let outcome = accept(&inbox, &attached(&files)).await;
        assert!(outcome.quarantined.is_some(), "{name}");
        assert_eq!(outcome.reports.len(), usize::from(name != "quarantined"), "{name}");
        let last = clock.0.lock().unwrap().last().copied().unwrap();
        assert_eq!(last != std::thread::current().id(), is_aside, "{name}");
    }
}
