mod login;
mod odd;
mod quirks;
mod server;

use super::*;
use net::clock::SystemClock;
use quirks::{Quirks, Trouble};
use server::{HOST, Loopback, Server};
use store::Store;
use store::reports::{Arrival, Search};

/// A mailbox at a scripted server, and the inbox that its reports go to.
struct Scene {
    server: Server,
    mailbox: ImapMailbox,
    inbox: Inbox,
    dir: tempfile::TempDir,
}

const QUICK: Pacing = Pacing {
    first_retry: Duration::from_millis(1),
    max_retry: Duration::from_millis(5),
    idle: Duration::from_millis(5),
    poll: Duration::from_millis(5),
    between_rounds: Duration::from_millis(1),
    back_off: BackOff { first: Duration::from_secs(60), longest: Duration::from_secs(6 * 3600) },
};

/// A sign-in with a password, which is kept in a file.
fn password(folder: &std::path::Path, text: &str) -> Login {
    let file = folder.join("imap-password");
    std::fs::write(&file, format!("{text}\n")).unwrap();
    Login::Password(file)
}

impl Scene {
    async fn new(quirks: Quirks) -> Self {
        let server = Server::start(quirks).await;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("inbox.db"), store::Tenant::FIRST).await.unwrap();
        let dns = Arc::new(Loopback { has_v6: false });
        let inbox = Inbox::new(store, dns, Arc::new(SystemClock), Arrival::Imap);
        let mailbox = ImapMailbox {
            host: DomainName::parse(HOST).unwrap(),
            port: server.port,
            tls: if quirks.clear.is_some() { ImapTls::StartTls } else { ImapTls::Implicit },
            user: "u".to_owned(),
            login: password(dir.path(), "secret"),
            folders: vec!["INBOX".to_owned()],
            move_to: Some("TLS reports".to_owned()),
        };
        Self { server, mailbox, inbox, dir }
    }

    fn use_password(&mut self, text: &str) {
        self.mailbox.login = password(self.dir.path(), text);
    }

    /// A scene with report 1, private mail 2, a DMARC report 3 and report 4 in INBOX.
    async fn with_mail(quirks: Quirks) -> Self {
        let this = Self::new(quirks).await;
        this.server.deliver("INBOX", &report("1"));
        this.server.deliver("INBOX", PRIVATE);
        this.server.deliver("INBOX", DMARC);
        this.server.deliver("INBOX", &report("4"));
        this
    }

    /// Reads the mailbox until as many rounds are over.
    async fn rounds(&self, count: usize) {
        let counts = MailboxCounts::default();
        let begun = self.inbox.clock.now().as_second();
        let keep = self.mailbox.keep_pacing(&self.inbox, &self.server.tls, QUICK, &counts);
        let both = async {
            tokio::select! {
                () = keep => unreachable!(),
                () = self.server.rounds(count) => {}
            }
        };
        tokio::time::timeout(Duration::from_secs(60), both).await.expect("the mailbox makes no progress");
        // The server has seen the last search; whether the mailbox has its result is a matter of chance.
        let is_current = (begun..=self.inbox.clock.now().as_second()).contains(&counts.searched.get());
        assert!(count < 2 || is_current, "{count}");
    }

    /// One connection, until it fails.
    async fn failure(&self) -> ImapError {
        let mut memory = Memory::default();
        session::run(&self.mailbox, &self.inbox, &self.server.tls, QUICK, &mut memory, &mut || {})
            .await
            .expect_err("the connection does not end")
    }

    async fn ids(&self) -> Vec<String> {
        let reports = self.inbox.store.reports(&Search { most: 100, ..Search::default() }).await.unwrap();
        let mut ids: Vec<String> = reports.into_iter().map(|report| report.report_id).collect();
        ids.sort();
        ids
    }

    /// The mail that is not a report is where it was, unread, and nothing of it is stored.
    async fn assert_other_mail_is_untouched(&self) {
        let left = self.server.mails("INBOX");
        for uid in [2, 3] {
            let (_, flags) = left.iter().find(|(found, _)| *found == uid).unwrap();
            assert!(!flags.contains(&"\\Seen".to_owned()), "{left:?}");
            assert!(!flags.contains(&"\\Deleted".to_owned()), "{left:?}");
        }
        assert!(self.inbox.store.quarantined(0, 10).await.unwrap().is_empty());
    }

    fn moved(&self) -> Vec<u32> {
        self.server.mails("TLS reports").into_iter().map(|(uid, _)| uid).collect()
    }

    /// The UIDs in INBOX.
    fn left(&self) -> Vec<u32> {
        self.server.mails("INBOX").into_iter().map(|(uid, _)| uid).collect()
    }

    /// The flags of a message in INBOX.
    fn flags(&self, uid: u32) -> Vec<String> {
        self.server.mails("INBOX").into_iter().find(|(found, _)| *found == uid).unwrap().1
    }
}

const PRIVATE: &[u8] = b"From: boss@a.example\r\nSubject: lunch\r\n\r\n{at} one\r\n";
const DMARC: &[u8] = b"From: d@b.example\r\nSubject: Report domain: a.example\r\nContent-Type: application/gzip\r\n\r\n\x1f\x8bnot really\r\n";

fn report(id: &str) -> Vec<u8> {
    format!(
        "From: t@big.example\r\nTLS-Report-Domain: a.example\r\nTLS-Report-Submitter: big.example\r\n\
         Content-Type: application/tlsrpt+json\r\n\r\n\
         {{\"organization-name\":\"Big\",\"date-range\":{{\"start-datetime\":\"2026-11-23T00:00:00Z\",\
         \"end-datetime\":\"2026-11-23T23:59:59Z\"}},\"contact-info\":\"t@big.example\",\"report-id\":\"{id}\",\
         \"policies\":[{{\"policy\":{{\"policy-type\":\"sts\",\"policy-string\":[\"version: STSv1\"],\
         \"policy-domain\":\"a.example\",\"mx-host\":[\"mx.a.example\"]}},\"summary\":\
         {{\"total-successful-session-count\":{id},\"total-failure-session-count\":0}}}}]}}\r\n"
    )
    .into_bytes()
}

#[tokio::test]
async fn dmarc_reports_stay_unread_in_their_place_unless_they_are_imported() {
    let xml = "<feedback><report_metadata><date_range><begin>1763596800</begin></date_range></report_metadata><policy_published><domain>a.example</domain></policy_published></feedback>";
    let mail = format!(
        "From: d@b.example\r\nSubject: Report domain: a.example Submitter: b.example Report-ID: <1>\r\nContent-Type: text/xml\r\n\r\n{xml}\r\n"
    );
    for is_on in [false, true] {
        let mut scene = Scene::new(Quirks::default()).await;
        scene.inbox.dmarc = is_on;
        scene.inbox.counts = Arc::default();
        scene.server.deliver("INBOX", mail.as_bytes());
        scene.server.deliver("INBOX", &report("1"));
        scene.rounds(2).await;
        let (moved, left) = if is_on { (vec![1, 2], vec![]) } else { (vec![2], vec![1]) };
        assert_eq!((scene.moved(), scene.left()), (moved, left));
        let domains = scene.inbox.store.dmarc_domains(jiff::Timestamp::UNIX_EPOCH, 9).await.unwrap();
        assert_eq!(domains.len(), usize::from(is_on));
        assert_eq!(scene.inbox.counts.left_alone(crate::inbox::LeftAlone::Dmarc), u64::from(!is_on));
        assert!(scene.inbox.store.quarantined(0, 9).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn reports_are_moved_and_other_mail_stays_unread_in_its_place() {
    let scene = Scene::with_mail(Quirks::default()).await;
    scene.rounds(2).await;
    assert_eq!(scene.ids().await, ["1", "4"]);
    assert_eq!((scene.moved(), scene.left()), (vec![1, 4], vec![2, 3]));
    scene.assert_other_mail_is_untouched().await;
    assert_eq!(scene.server.count("EXPUNGE"), 0);
}

#[tokio::test]
async fn without_a_target_folder_reports_stay_and_are_marked_as_read() {
    let mut scene = Scene::with_mail(Quirks::default()).await;
    scene.mailbox.move_to = None;
    scene.rounds(2).await;
    assert_eq!(scene.ids().await, ["1", "4"]);
    assert_eq!(scene.flags(1), ["SternpostTaken", "\\Seen"]);
    assert_eq!(scene.flags(2), ["SternpostTaken"]);
    scene.assert_other_mail_is_untouched().await;
}

#[tokio::test]
async fn without_move_reports_are_copied_and_no_other_mail_is_expunged() {
    for quirks in
        [Quirks { no_move: true, ..Quirks::default() }, Quirks { move_is_refused: true, ..Quirks::default() }]
    {
        let scene = Scene::with_mail(quirks).await;
        let others = scene.server.deliver("INBOX", PRIVATE);
        scene.server.flag("INBOX", others, "\\Deleted");
        scene.rounds(2).await;
        assert_eq!(scene.ids().await, ["1", "4"]);
        assert_eq!((scene.moved(), scene.left()), (vec![1, 4], vec![2, 3, others]));
        scene.assert_other_mail_is_untouched().await;
        let announces = usize::from(quirks.move_is_refused);
        assert!(scene.server.count("UID MOVE") <= 2 * announces, "{}", scene.server.count("UID MOVE"));
    }
}

#[tokio::test]
async fn without_uidplus_the_folder_is_expunged_only_if_no_other_mail_would_go() {
    let quirks = Quirks { no_move: true, no_uidplus: true, ..Quirks::default() };
    let scene = Scene::with_mail(quirks).await;
    scene.rounds(2).await;
    assert_eq!((scene.moved(), scene.left()), (vec![1, 4], vec![2, 3]));
    let scene = Scene::with_mail(quirks).await;
    let others = scene.server.deliver("INBOX", PRIVATE);
    scene.server.flag("INBOX", others, "\\Deleted");
    scene.rounds(3).await;
    assert_eq!((scene.moved(), scene.left()), (vec![1, 4], vec![1, 2, 3, 4, others]));
    assert!(scene.flags(1).contains(&"\\Deleted".to_owned()));
    assert_eq!(scene.server.count("EXPUNGE"), 0);
    scene.assert_other_mail_is_untouched().await;
}

#[tokio::test]
async fn without_keywords_each_message_is_fetched_once_and_other_mail_stays_unread() {
    for (quirks, keyword_commands) in [
        (Quirks { no_keywords: true, ..Quirks::default() }, 0),
        (Quirks { keywords_are_refused: true, ..Quirks::default() }, 1),
    ] {
        let mut scene = Scene::with_mail(quirks).await;
        scene.mailbox.move_to = None;
        scene.rounds(4).await;
        assert_eq!(scene.ids().await, ["1", "4"]);
        assert_eq!(scene.server.count("BODY.PEEK"), 4);
        assert_eq!(scene.server.count("SternpostTaken"), keyword_commands);
        assert_eq!((scene.flags(1), scene.flags(2)), (vec!["\\Seen".to_owned()], vec![]));
        scene.assert_other_mail_is_untouched().await;
    }
}

#[tokio::test]
async fn a_message_of_unknown_size_is_fetched_with_a_bound() {
    let scene = Scene::with_mail(Quirks { no_sizes: true, ..Quirks::default() }).await;
    scene.rounds(2).await;
    assert_eq!(scene.ids().await, ["1", "4"]);
    let bound = format!("BODY.PEEK[]<0.{}>", formats::limits::INBOX_MESSAGE_BYTES + 1);
    assert_eq!((scene.server.count("BODY.PEEK"), scene.server.count(&bound)), (4, 4));
}

#[tokio::test]
async fn a_message_that_is_too_large_is_left_alone_whether_its_size_is_known_or_not() {
    let large = [report("9"), vec![b' '; formats::limits::INBOX_MESSAGE_BYTES]].concat();
    for (no_sizes, fetched) in [(false, 1), (true, 2)] {
        let scene = Scene::new(Quirks { no_sizes, ..Quirks::default() }).await;
        scene.server.deliver("INBOX", &large);
        scene.server.deliver("INBOX", &report("2"));
        scene.rounds(3).await;
        assert_eq!((scene.ids().await, scene.left()), (vec!["2".to_owned()], vec![1]));
        assert_eq!(scene.server.count("BODY.PEEK"), fetched);
        assert_eq!(scene.flags(1), ["SternpostTaken"]);
    }
}

#[tokio::test]
async fn reports_are_moved_into_the_namespace_of_the_user() {
    for name in ["TLS reports", "INBOX.TLS reports"] {
        let mut scene = Scene::with_mail(Quirks { prefix: Some("INBOX."), ..Quirks::default() }).await;
        scene.mailbox.move_to = Some(name.to_owned());
        scene.rounds(2).await;
        assert_eq!(scene.ids().await, ["1", "4"]);
        assert_eq!(scene.server.mails("INBOX.TLS reports").len(), 2, "{name}");
        assert_eq!(scene.left(), [2, 3]);
    }
}

#[tokio::test]
async fn a_message_that_the_server_does_not_return_holds_up_no_other() {
    for (trouble, attempts) in
        [(Trouble::Refused, 1), (Trouble::Garbled, 1), (Trouble::Empty, 1), (Trouble::Disconnects, 3)]
    {
        let quirks = Quirks { trouble: Some((1, trouble)), ..Quirks::default() };
        let scene = Scene::with_mail(quirks).await;
        // More rounds than attempts: it is not fetched in each.
        scene.rounds(5).await;
        assert_eq!(scene.ids().await, ["4"]);
        assert_eq!((scene.moved(), scene.left()), (vec![4], vec![1, 2, 3]));
        assert_eq!(scene.server.count("UID FETCH 1 (UID BODY"), attempts);
        // Nothing says that it was handled: after a restart it is tried again.
        assert!(scene.flags(1).is_empty());
        scene.assert_other_mail_is_untouched().await;
    }
}

#[tokio::test]
async fn reports_that_can_not_be_moved_are_imported_once_and_marked_as_read() {
    for no_move in [false, true] {
        let quirks = Quirks { no_move, is_full: Some("[OVERQUOTA] the disk is full"), ..Quirks::default() };
        let scene = Scene::with_mail(quirks).await;
        scene.rounds(4).await;
        assert_eq!(scene.ids().await, ["1", "4"]);
        assert_eq!((scene.moved(), scene.left()), (vec![], vec![1, 2, 3, 4]));
        assert_eq!(scene.flags(1), ["SternpostTaken", "\\Seen"]);
        assert_eq!(scene.server.count("BODY.PEEK"), 4);
        scene.assert_other_mail_is_untouched().await;
    }
}

#[tokio::test]
async fn a_server_without_idle_is_polled() {
    for quirks in
        [Quirks { no_idle: true, ..Quirks::default() }, Quirks { idle_is_refused: true, ..Quirks::default() }]
    {
        let scene = Scene::with_mail(quirks).await;
        scene.rounds(2).await;
        assert_eq!(scene.ids().await, ["1", "4"]);
        assert!(scene.server.count("IDLE") <= 1);
    }
}

#[tokio::test]
async fn several_folders_are_read_and_a_missing_one_holds_up_none() {
    let mut scene = Scene::with_mail(Quirks { prefix: Some("INBOX."), ..Quirks::default() }).await;
    for (folder, id) in [("INBOX.Reports.2025", "25"), ("INBOX.Reports.2026", "26"), ("INBOX.Lists", "7")] {
        scene.server.deliver(folder, &report(id));
    }
    scene.mailbox.folders = ["INBOX", "Nowhere", "Reports.*"].map(str::to_owned).to_vec();
    scene.mailbox.move_to = Some("Reports.Done".to_owned());
    scene.rounds(3).await;
    assert_eq!(scene.ids().await, ["1", "25", "26", "4"]);
    assert_eq!(scene.server.mails("INBOX.Reports.Done").len(), 4);
    assert_eq!(scene.server.mails("INBOX.Lists").len(), 1);
    // The target of moves matches the pattern, and is not read.
    assert_eq!(scene.server.count("SELECT \"INBOX.Reports.Done\""), 0);
    scene.assert_other_mail_is_untouched().await;
}

#[tokio::test]
async fn a_mailbox_without_any_folder_is_an_error() {
    let mut scene = Scene::with_mail(Quirks::default()).await;
    scene.mailbox.folders = vec!["Nowhere".to_owned()];
    assert!(matches!(scene.failure().await, ImapError::NoFolder));
}

#[tokio::test]
async fn a_report_that_the_store_refuses_is_tried_again_and_none_is_marked() {
    let scene = Scene::with_mail(Quirks::default()).await;
    scene.inbox.store.close().await;
    assert!(matches!(scene.failure().await, ImapError::Store(_)));
    assert!(scene.flags(1).is_empty());
    assert_eq!(scene.left(), [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_message_for_which_there_is_no_memory_holds_up_no_other_and_is_tried_again() {
    let mut scene = Scene::new(Quirks::default()).await;
    let large =
        String::from_utf8(report("1")).unwrap().replace("\"Big\"", &format!("{:?}", "B".repeat(500_000)));
    scene.server.deliver("INBOX", large.as_bytes());
    scene.server.deliver("INBOX", &report("4"));
    scene.inbox.pool = Arc::new(crate::inbox::ExtractionPool::new(1, 3 << 20));
    scene.inbox.patience = Duration::ZERO;
    let mut others = scene.inbox.pool.memory().reservation();
    assert!(others.cover((3 << 20) - 200_000));
    scene.rounds(2).await;
    assert_eq!((scene.ids().await, scene.left()), (vec!["4".to_owned()], vec![1]));
    drop(others);
    scene.rounds(5).await;
    assert_eq!((scene.ids().await, scene.moved().len()), (vec!["1".to_owned(), "4".to_owned()], 2));
    assert!(scene.inbox.store.quarantined(0, 10).await.unwrap().is_empty());
}
