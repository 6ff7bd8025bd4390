use super::*;
use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex, split};

const LIMITS: CommandLimits =
    CommandLimits { bytes: 1 << 20, read: Duration::from_secs(60), command: Duration::from_secs(60) };

fn pair(limits: CommandLimits) -> (Connection, ReadHalf<DuplexStream>, WriteHalf<DuplexStream>) {
    let (near, far) = duplex(1 << 16);
    let (from_client, to_client) = split(far);
    (Connection::new(Box::new(near), Secrets::default(), limits), from_client, to_client)
}

/// The answer to the first command (A0001), after which the server sends nothing and keeps the connection open.
async fn answered(limits: CommandLimits, expected: ExpectedData, script: &str) -> Result<Data, ImapError> {
    let (mut connection, _from_client, mut to_client) = pair(limits);
    let write = async {
        // The client may give up before everything is written.
        let _ = to_client.write_all(script.as_bytes()).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = connection.command("X", expected) => answer,
        () = write => unreachable!(),
    }
}

/// Sends a text again and again.
async fn flood(mut to_client: WriteHalf<DuplexStream>, text: &str) {
    while to_client.write_all(text.as_bytes()).await.is_ok() {}
}

#[tokio::test]
async fn only_what_a_command_asks_for_is_kept() {
    let noise = "\r\n* \r\n* 7 EXISTS\r\n* 7 EXPUNGE\r\n* OK hi\r\n* SEARCH 4\r\n* CAPABILITY IDLE\r\n\
                 * NAMESPACE ((\"a\" \"/\")) NIL NIL\r\n* LIST () \"/\" a\r\n* VANISHED (EARLIER) 1:9\r\n\
                 * OK [UIDVALIDITY 5] ok\r\n* 1 FETCH (UID 8 BODY[] \"x\")\r\n+ go on\r\nA0000 OK old\r\nB NO x\r\n";
    let script = format!("{noise}{noise}A0001 OK done\r\n");
    let kept = async |expected| answered(LIMITS, expected, &script).await.unwrap();
    assert_eq!(kept(ExpectedData::Nothing).await, Data::default());
    let one = Data { validity: Some(5), ..Data::default() };
    assert_eq!(kept(ExpectedData::Folder).await, one);
    let one = Data { found: Some(UidSet::from_ranges([(4, 4)])), ..Data::default() };
    assert_eq!(kept(ExpectedData::Search).await, one);
    assert_eq!(kept(ExpectedData::Message(9)).await, Data::default());
    let fetched = Fetched { uid: Some(8), size: None, body: Some(b"x".to_vec()) };
    assert_eq!(kept(ExpectedData::Message(8)).await, Data { message: Some(fetched), ..Data::default() });
    let one = Data { namespaces: Some(vec!["a".to_owned()]), ..Data::default() };
    assert_eq!(kept(ExpectedData::Namespaces).await, one);
    assert_eq!(kept(ExpectedData::Capabilities).await.capabilities.len(), 1);
}

#[tokio::test]
async fn what_is_kept_is_bounded_however_often_the_server_sends_it() {
    let limits = CommandLimits { bytes: 1 << 26, ..LIMITS };
    let names = (0..2 * IMAP_LISTED).map(|number| format!("* LIST () \"/\" n{number}\r\n"));
    let listed =
        answered(limits, ExpectedData::Mailboxes, &(names.collect::<String>() + "A0001 OK\r\n")).await;
    assert_eq!(listed.unwrap().mailboxes.len(), IMAP_LISTED);
    let words = (0..2000).map(|number| format!("* CAPABILITY X{number}\r\n")).collect::<String>();
    let listed = answered(limits, ExpectedData::Capabilities, &(words + "A0001 OK\r\n")).await;
    assert_eq!(listed.unwrap().capabilities.len(), IMAP_CAPABILITIES);
    let bodies = "* 1 FETCH (UID 8 BODY[] \"first\")\r\n* 1 FETCH (UID 8 BODY[] \"next\")\r\n".repeat(1000);
    let message =
        answered(limits, ExpectedData::Message(8), &(bodies + "A0001 OK\r\n")).await.unwrap().message;
    assert_eq!(message.unwrap().body.unwrap(), b"first");
    let all = "* ESEARCH (TAG \"A0001\") UID ALL 1:4294967295\r\n".repeat(100) + "A0001 OK\r\n";
    let found = answered(limits, ExpectedData::Search, &all).await.unwrap().found.unwrap();
    assert_eq!((found.range_count(), found.len()), (1, u64::from(u32::MAX)));
}

#[tokio::test]
async fn tiny_responses_without_end_meet_the_limit_of_bytes() {
    for line in ["\r\n", "* \r\n", "* 1 EXISTS\r\n", "* OK\r\n", "x", "* 1 FETCH (UID 1 BODY[] {9}\r\n"] {
        let (mut connection, _from_client, to_client) = pair(CommandLimits { bytes: 100_000, ..LIMITS });
        let outcome = tokio::select! {
            outcome = connection.command("X", ExpectedData::Folder) => outcome,
            () = flood(to_client, line) => unreachable!(),
        };
        let error = outcome.unwrap_err();
        assert!(matches!(error, ImapError::TooMuch { bytes: 100_000 }), "{line:?}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_sends_without_end_meets_the_deadline() {
    let limits = CommandLimits { bytes: usize::MAX, command: Duration::from_millis(30), ..LIMITS };
    let (mut connection, _from_client, to_client) = pair(limits);
    let outcome = tokio::select! {
        outcome = connection.command("X", ExpectedData::Nothing) => outcome.map(drop),
        () = flood(to_client, "* 1 EXPUNGE\r\n") => unreachable!(),
    };
    assert!(matches!(outcome.unwrap_err(), ImapError::Slow));
    let (mut connection, _from_client, to_client) = pair(limits);
    let greeting = tokio::select! {
        greeting = connection.greeting() => greeting,
        // One byte after the other, so that no single read takes long.
        () = flood(to_client, "*") => unreachable!(),
    };
    assert!(matches!(greeting.unwrap_err(), ImapError::Slow | ImapError::Frame(_)));
}

#[tokio::test]
async fn a_server_that_sends_one_challenge_after_the_other_does_not_keep_the_sign_in() {
    for is_inline in [true, false] {
        let (mut connection, mut from_client, to_client) = pair(LIMITS);
        let mut sink = tokio::io::sink();
        let outcome = tokio::select! {
            outcome = connection.authenticate("PLAIN", "secret", is_inline, "*") => outcome,
            () = flood(to_client, "+ again\r\n") => unreachable!(),
            copied = tokio::io::copy(&mut from_client, &mut sink) => panic!("{copied:?}"),
        };
        assert!(matches!(outcome.unwrap_err(), ImapError::SignIn(_)));
    }
}

#[tokio::test]
async fn a_literal_that_is_longer_than_what_is_sent_meets_the_deadline() {
    let limits = CommandLimits { read: Duration::from_millis(30), ..LIMITS };
    let script = "* 1 FETCH (UID 8 BODY[] {9999}\r\nshort)\r\nA0001 OK done\r\n";
    assert!(matches!(answered(limits, ExpectedData::Message(8), script).await, Err(ImapError::Slow)));
}

#[tokio::test]
async fn a_literal_that_is_shorter_than_what_is_sent_yields_no_message_and_the_connection_goes_on() {
    let script =
        "* 1 FETCH (UID 8 BODY[] {5}\r\nshort and\r\nlonger\r\n* BAD x {9}\r\n)\r\nA0001 OK done\r\n";
    let data = answered(LIMITS, ExpectedData::Message(8), script).await.unwrap();
    assert_eq!(data, Data::default());
}

#[tokio::test]
async fn idle_ends_in_time_under_noise_and_when_the_server_ends_it() {
    let (mut connection, from_client, mut to_client) = pair(LIMITS);
    let server = async {
        let mut lines = BufReader::new(from_client).lines();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "A0001 IDLE");
        to_client.write_all(b"+ idling\r\n").await.unwrap();
        {
            let mut done = std::pin::pin!(lines.next_line());
            loop {
                tokio::select! {
                    biased;
                    line = &mut done => break assert_eq!(line.unwrap().unwrap(), "DONE"),
                    written = to_client.write_all(b"* OK still here\r\n") => written.unwrap(),
                }
            }
        }
        // The end of a line that the break may have cut.
        to_client.write_all(b"\r\nA0001 OK done\r\n").await.unwrap();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "A0002 IDLE");
        to_client.write_all(b"+ idling\r\nA0002 OK enough\r\n").await.unwrap();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "A0003 IDLE");
        to_client.write_all(b"A0003 NO idle\r\n").await.unwrap();
    };
    let client = async {
        connection.idle(Duration::from_millis(30)).await.unwrap();
        connection.idle(Duration::from_secs(600)).await.unwrap();
        let error = connection.idle(Duration::from_secs(600)).await.unwrap_err();
        assert!(matches!(error, ImapError::Refused { .. }));
    };
    tokio::join!(server, client);
}

#[tokio::test]
async fn alerts_are_kept_printable_and_in_a_bounded_number() {
    let (mut connection, _from_client, mut to_client) = pair(LIMITS);
    connection.secrets.remember("correct horse");
    let alerts = "* OK [ALERT] \x1b[31mfull\x07 ] correct horse\r\n".repeat(2 * MAX_ALERTS);
    to_client.write_all((alerts + "A0001 OK [ALERT] done\r\n").as_bytes()).await.unwrap();
    connection.command("X", ExpectedData::Nothing).await.unwrap();
    let alerts = connection.take_alerts();
    assert_eq!((alerts.len(), alerts[0].as_str()), (MAX_ALERTS, "\u{fffd}[31mfull\u{fffd} ] …"));
    assert!(connection.take_alerts().is_empty());
}

#[tokio::test]
async fn a_refusal_or_bye_that_repeats_a_secret_is_shown_without_it_wherever_it_is_cut() {
    let secret = "correct-horse-battery-staple";
    for before in 150..230 {
        for head in ["A0001 NO ", "A0001 BAD [X] ", "* BYE ", "A0001 NO [CODE "] {
            let (mut connection, _from_client, mut to_client) = pair(LIMITS);
            connection.secrets.remember(secret);
            let line = format!("{head}{}{secret} is wrong\r\n", "x".repeat(before));
            to_client.write_all(line.as_bytes()).await.unwrap();
            let error = connection.command("X", ExpectedData::Nothing).await.unwrap_err().to_string();
            let leaks =
                secret.as_bytes().windows(8).any(|part| error.as_bytes().windows(8).any(|at| at == part));
            assert!(!leaks && error.contains("xxx"), "{error}");
        }
    }
}
