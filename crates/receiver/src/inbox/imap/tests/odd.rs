//! Servers that answer in odd or hostile ways. Mail that can be read is read, and nothing else is touched.

use super::quirks::{Scripted, always, kept};
use super::*;
use net::clock::ManualClock;

/// The answer to FETCH of message 1, with items in this form. `BODY` stands for the name and the literal.
fn fetched(items: &str, literal: &str) -> &'static [Scripted] {
    let body = String::from_utf8(report("1")).unwrap();
    let item = format!("BODY[] {}\r\n{body}", literal.replace("LENGTH", &body.len().to_string()));
    let text = format!("* 1 FETCH ({})\r\n{{tag}} OK done\r\n", items.replace("BODY", &item));
    vec![always("UID FETCH 1 (UID BODY", kept(text))].leak()
}

/// Reads the mailbox while `meanwhile` runs.
async fn reading<T>(scene: &Scene, meanwhile: impl Future<Output = T>) -> T {
    let counts = MailboxCounts::default();
    let keep = scene.mailbox.keep_pacing(&scene.inbox, &scene.server.tls, QUICK, &counts);
    let both = async {
        tokio::select! {
            () = keep => unreachable!(),
            value = meanwhile => value,
        }
    };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("the mailbox makes no progress")
}

/// Waits until the server has received so many commands that contain a text.
async fn commands(scene: &Scene, text: &str, count: usize) {
    while scene.server.count(text) < count {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn responses_that_nobody_asked_for_change_nothing() {
    let noise = "\r\n* \r\n* 1 EXPUNGE\r\n* VANISHED (EARLIER) 1:4\r\n* VANISHED 1\r\n* 2 RECENT\r\n\
                 * 1 FETCH (FLAGS (\\Seen) MODSEQ (917162500))\r\n* 2 FETCH (UID 4 FLAGS ())\r\n\
                 * OK [HIGHESTMODSEQ 715194045007] ok\r\n* OK [ALERT] \x1b[2J ] \"odd\\\r\n\
                 * FLAGS (\\Answered)\r\n* 9 FETCH (UID 0 BODY[] NIL)\r\n* STATUS INBOX (UIDNEXT 7)\r\n";
    let scene = Scene::with_mail(Quirks { noise, ..Quirks::default() }).await;
    scene.rounds(2).await;
    assert_eq!(scene.ids().await, ["1", "4"]);
    assert_eq!((scene.moved(), scene.left()), (vec![1, 4], vec![2, 3]));
    scene.assert_other_mail_is_untouched().await;
}

#[tokio::test]
async fn a_message_is_read_in_each_form_of_a_response() {
    for (items, literal) in [
        ("BODY UID 1", "{LENGTH}"),
        ("FLAGS (\\Recent) BODY RFC822.SIZE 3 UID 1 ENVELOPE NIL", "{LENGTH}"),
        ("UID 1 BODY", "~{LENGTH}"),
        ("UID 1 BODY MODSEQ (12)", "{LENGTH+}"),
        ("ENVELOPE (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) UID 1 BODY", "~{LENGTH+}"),
    ] {
        let answers = fetched(items, literal);
        let scene = Scene::with_mail(Quirks { answers, ..Quirks::default() }).await;
        scene.rounds(2).await;
        assert_eq!((scene.ids().await, scene.moved()), (vec!["1".into(), "4".into()], vec![1, 4]), "{items}");
        scene.assert_other_mail_is_untouched().await;
    }
}

#[tokio::test]
async fn a_literal_with_a_wrong_length_or_a_bye_in_the_midst_holds_up_no_other_message() {
    let bye = "* BYE see you\r\n{close}";
    let long = "* 1 FETCH (UID 1 BODY[] {99999}\r\nshort)\r\n{tag} OK done\r\n{close}";
    let huge = "* 1 FETCH (UID 1 BODY[] {99999999999999999999}\r\nshort)\r\n{tag} OK done\r\n{close}";
    for answers in [
        fetched("UID 1 BODY", "{9}"),
        vec![always("UID FETCH 1 (UID BODY", bye)].leak(),
        vec![always("UID FETCH 1 (UID BODY", long)].leak(),
        vec![always("UID FETCH 1 (UID BODY", huge)].leak(),
    ] {
        let scene = Scene::with_mail(Quirks { answers, ..Quirks::default() }).await;
        scene.rounds(4).await;
        assert_eq!((scene.ids().await, scene.moved()), (vec!["4".to_owned()], vec![4]));
        assert_eq!((scene.left(), scene.flags(1)), (vec![1, 2, 3], vec![]));
        scene.assert_other_mail_is_untouched().await;
    }
}

#[tokio::test]
async fn a_message_that_was_refused_is_tried_again_after_a_while_without_a_restart() {
    for text in ["{tag} NO [SERVERBUG] disk error\r\n", "{tag} OK no data\r\n", "* BYE x\r\n{close}"] {
        let times = if text.ends_with("{close}") { 3 } else { 1 };
        let answers = vec![Scripted { to: "UID FETCH 1 (UID BODY", text, times }].leak();
        let mut scene = Scene::with_mail(Quirks { answers, ..Quirks::default() }).await;
        let clock = Arc::new(ManualClock::new(jiff::Timestamp::now()));
        scene.inbox.clock = clock.clone();
        reading(&scene, async {
            scene.server.rounds(5).await;
            assert_eq!(scene.server.count("UID FETCH 1 (UID BODY"), times, "{text}");
            assert_eq!(scene.ids().await, ["4"]);
            clock.advance(60);
            scene.server.rounds(8).await;
        })
        .await;
        assert_eq!((scene.ids().await, scene.left()), (vec!["1".into(), "4".into()], vec![2, 3]), "{text}");
        assert_eq!(scene.server.count("UID FETCH 1 (UID BODY"), times + 1);
    }
}

#[tokio::test]
async fn without_an_answer_about_deleted_messages_nothing_is_expunged() {
    for text in
        ["{tag} OK done\r\n", "* SEARCH\r\n{tag} OK done\r\n", "* SEARCH 1 4 what\r\n{tag} OK done\r\n"]
    {
        let answers = vec![always("UID SEARCH DELETED", text)].leak();
        let quirks = Quirks { no_move: true, no_uidplus: true, answers, ..Quirks::default() };
        let scene = Scene::with_mail(quirks).await;
        let others = scene.server.deliver("INBOX", PRIVATE);
        scene.server.flag("INBOX", others, "\\Deleted");
        scene.rounds(3).await;
        assert_eq!((scene.ids().await, scene.server.count("EXPUNGE")), (vec!["1".into(), "4".into()], 0));
        assert_eq!(scene.left(), [1, 2, 3, 4, others], "{text:?}");
    }
}

#[tokio::test]
async fn uids_that_are_zero_or_repeated_are_read_once() {
    let text =
        "* SEARCH 0 4 1 4 1\r\n* SEARCH 1 2 3\r\n* ESEARCH (TAG \"A1\") UID ALL 3:1,0\r\n{tag} OK done\r\n";
    let answers = vec![Scripted { to: "UID SEARCH UNDELETED", text, times: 1 }].leak();
    let scene = Scene::with_mail(Quirks { answers, ..Quirks::default() }).await;
    scene.rounds(3).await;
    assert_eq!((scene.ids().await, scene.moved()), (vec!["1".into(), "4".into()], vec![1, 4]));
    assert_eq!((scene.server.count("BODY.PEEK"), scene.server.count("UID FETCH 0")), (4, 0));
    scene.assert_other_mail_is_untouched().await;
}

#[tokio::test]
async fn a_million_messages_are_read_in_batches_between_which_other_folders_have_their_turn() {
    let text = "* ESEARCH (TAG \"A1\") UID ALL 1:1000000\r\n{tag} OK done\r\n";
    let answers = vec![always("UID SEARCH UNDELETED", text)].leak();
    let mut scene = Scene::with_mail(Quirks { answers, ..Quirks::default() }).await;
    scene.server.deliver("Other", &report("7"));
    scene.mailbox.folders = vec!["Other".to_owned(), "INBOX".to_owned()];
    let batch = formats::limits::IMAP_ROUND_MESSAGES;
    // INBOX is read first.
    reading(&scene, commands(&scene, "SELECT \"INBOX\"", 2)).await;
    assert_eq!(scene.ids().await, ["1", "4", "7"]);
    // Those that are gone are not fetched again at once.
    let fetched = scene.server.count("RFC822.SIZE");
    assert!((2 * batch..=3 * batch).contains(&fetched), "{fetched}");
    scene.assert_other_mail_is_untouched().await;
}

#[tokio::test]
async fn folders_are_opened_by_the_names_that_the_server_lists_whatever_is_in_them() {
    let list = "* LIST (\\HasNoChildren) NIL \"Rep\\\"o\\\\rts\"\r\n* LIST () \"\\\\\" {15}\r\nReports {9} two\r\n\
                * LIST () \".\" Rep&APw-\r\n* LIST () \"/\" \"Repü\"\r\n* LIST (\\NoSelect) \"/\" Reps\r\n\
                * LIST () \"/\" {8}\r\nRep\r\nA X\r\n* LIST () \".\" Rep&AOQ- (\"OLDNAME\" (\"a\"))\r\n{tag} OK done\r\n";
    let answers = vec![always("LIST", list)].leak();
    let mut scene = Scene::new(Quirks { answers, ..Quirks::default() }).await;
    scene.mailbox.folders = vec!["Rep*".to_owned()];
    // The server lists it in the encoding that it prefers.
    scene.mailbox.move_to = Some("Repä".to_owned());
    let names = ["Rep\"o\\rts", "Reports {9} two", "Rep&APw-", "Repü"];
    for (number, name) in names.iter().enumerate() {
        scene.server.deliver(name, &report(&number.to_string()));
    }
    scene.rounds(2).await;
    assert_eq!(scene.ids().await, ["0", "1", "2", "3"]);
    assert_eq!(scene.server.mails("Rep&AOQ-").len(), 4);
    assert_eq!(scene.server.count("SELECT \"Rep&AOQ-\""), 0);
}

#[tokio::test]
async fn a_folder_in_which_the_server_can_not_search_keeps_no_other_from_being_read() {
    let answers = vec![Scripted { to: "UID SEARCH", text: "{tag} NO index is corrupt\r\n", times: 2 }].leak();
    let mut scene = Scene::with_mail(Quirks { answers, ..Quirks::default() }).await;
    scene.server.deliver("Other", &report("7"));
    // The last one is searched first, twice: for new mail, and for unread mail.
    scene.mailbox.folders = vec!["INBOX".to_owned(), "Other".to_owned()];
    scene.rounds(1).await;
    assert_eq!(scene.ids().await, ["1", "4"]);
    let before = scene.server.state.lock().unwrap().rounds;
    scene.rounds(before + 2).await;
    assert_eq!(scene.ids().await, ["1", "4", "7"]);
}

#[tokio::test]
async fn a_server_without_uidvalidity_or_uidnext_is_read() {
    let scene = Scene::with_mail(Quirks { no_validity: true, ..Quirks::default() }).await;
    scene.rounds(3).await;
    assert_eq!((scene.ids().await, scene.moved()), (vec!["1".into(), "4".into()], vec![1, 4]));
    scene.assert_other_mail_is_untouched().await;
}

#[tokio::test]
async fn a_report_that_the_store_refuses_holds_up_neither_other_mail_nor_other_folders() {
    let mut scene = Scene::with_mail(Quirks::default()).await;
    scene.mailbox.folders = vec!["Other".to_owned(), "INBOX".to_owned()];
    scene.server.deliver("Other", PRIVATE);
    scene.inbox.store.close().await;
    assert!(matches!(scene.failure().await, ImapError::Store(_)));
    assert_eq!([1, 2, 3, 4].map(|uid| scene.flags(uid).len()), [0, 1, 1, 0]);
    assert_eq!(scene.server.mails("Other"), [(5, vec!["SternpostTaken".to_owned()])]);
}

#[tokio::test]
async fn a_greeting_that_repeats_the_password_of_an_earlier_connection_does_not_show_it() {
    let mut scene =
        Scene::with_mail(Quirks { greeting: Some("* BYE correct-horse-battery"), ..Quirks::default() }).await;
    scene.use_password("correct-horse-battery");
    assert_eq!(scene.failure().await.to_string(), "the server closed the connection: …");
}
