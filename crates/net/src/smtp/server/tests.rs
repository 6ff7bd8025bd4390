use super::*;
use std::sync::Mutex;

#[derive(Default)]
struct TestMailbox(Mutex<Vec<Incoming>>);

/// A mailbox whose store fails.
struct FullMailbox;

impl Mailbox for FullMailbox {
    fn takes(&self, _: &str) -> bool {
        true
    }
    fn keep(&self, _: Incoming) -> BoxFuture<'_, Result<(), KeepError>> {
        Box::pin(async { Err(KeepError::Temporary("the disk\r\n250 is full".into())) })
    }
}

impl Mailbox for TestMailbox {
    fn takes(&self, recipient: &str) -> bool {
        recipient == "a@b.example"
    }
    fn keep(&self, incoming: Incoming) -> BoxFuture<'_, Result<(), KeepError>> {
        Box::pin(async move {
            self.0.lock().unwrap().push(incoming);
            Ok(())
        })
    }
}

async fn run_smtp(script: &[u8]) -> (String, Vec<Incoming>) {
    run_session(Protocol::Smtp, script).await
}

async fn run_session(protocol: Protocol, script: &[u8]) -> (String, Vec<Incoming>) {
    run_with(&ServerConfig { protocol, ..config() }, script).await
}

fn config() -> ServerConfig {
    let mut config = ServerConfig::new(DomainName::parse("mx.b.example").unwrap(), Starttls::Unavailable);
    config.line_time = Duration::from_secs(5);
    config
}

async fn run_with(config: &ServerConfig, script: &[u8]) -> (String, Vec<Incoming>) {
    let mailbox = TestMailbox::default();
    let output = run_at(&mailbox, config, script).await;
    (output, mailbox.0.into_inner().unwrap())
}

async fn run_at(mailbox: &dyn Mailbox, config: &ServerConfig, script: &[u8]) -> String {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (mut replies, mut commands) = tokio::io::split(near);
    let write = async {
        let _ = commands.write_all(script).await;
        let _ = commands.shutdown().await;
    };
    let mut output = String::new();
    let (_, (), _) =
        tokio::join!(serve(Box::new(far), config, mailbox), write, replies.read_to_string(&mut output));
    output
}

/// A session with one message of these bytes, from the reply 354 on.
async fn send(config: &ServerConfig, data: &[u8]) -> (String, Vec<Incoming>) {
    let head = b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n".as_slice();
    let (output, kept) = run_with(config, &[head, data, b"QUIT\r\n"].concat()).await;
    (output.split_once("354 go ahead\r\n").unwrap().1.to_owned(), kept)
}

#[tokio::test]
async fn a_message_is_stored_before_the_250_reply() {
    let (output, kept) = run_smtp(b"EHLO x\r\nMAIL FROM:<s@c.example>\r\nRCPT TO:<no@b.example>\r\nRCPT TO:<a@b.example>\r\nDATA\r\nhi\r\n..dot\r\n.\r\nQUIT\r\n").await;
    let codes: Vec<_> =
        output.lines().filter(|line| line.as_bytes().get(3) == Some(&b' ')).map(|line| &line[..3]).collect();
    assert_eq!(codes, ["220", "250", "250", "550", "250", "354", "250", "221"]);
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].message.as_slice(), kept[0].tls), (&b"hi\r\n.dot\r\n"[..], false));
}

#[tokio::test]
async fn lmtp_replies_once_for_each_recipient() {
    let script = b"EHLO x\r\nLHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nRCPT TO:<a@b.example>\r\nDATA\r\nhi\r\n.\r\nQUIT\r\n";
    let (output, kept) = run_session(Protocol::Lmtp, script).await;
    assert!(output.starts_with("220 mx.b.example LMTP\r\n502"), "{output}");
    assert_eq!((output.matches("250 kept\r\n").count(), kept.len()), (2, 1));
}

/// RFC 2033 §4.2: one reply for each accepted recipient, whatever becomes of the message.
#[tokio::test]
async fn lmtp_refuses_a_message_once_for_each_recipient() {
    let head = "LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nRCPT TO:<no@b.example>\r\n\
                RCPT TO:<a@b.example>\r\nDATA\r\n";
    let refused = async |config: ServerConfig, mailbox: &dyn Mailbox, data: &[u8]| {
        let script = [head.as_bytes(), data, b"NOOP\r\n"].concat();
        let config = ServerConfig { protocol: Protocol::Lmtp, ..config };
        let output = run_at(mailbox, &config, &script).await;
        output.split_once("354 go ahead\r\n").map(|(_, after)| after.to_owned()).unwrap_or(output)
    };
    let lines = [[b'x'; 998].as_slice(), b"\r\n"].concat();
    let memory = MemoryBudget::new(200_000, 1000);
    let mut others = memory.reservation();
    assert!(others.cover(100_000));
    let scarce = ServerConfig { memory, ..config() };
    let kept = TestMailbox::default();
    for (config, data, reply) in [
        (scarce, lines.repeat(100), NO_ROOM.to_owned()),
        (config(), lines.repeat(15_729), "552 message size exceeds the limit".to_owned()),
        (config(), b"one\ntwo\r\n".to_vec(), "550 5.5.2 bare <LF> received".to_owned()),
        (config(), vec![b'x'; INBOX_LINE_BYTES + 1], "554 5.6.0".to_owned()),
    ] {
        let data = [data.as_slice(), b"\r\n.\r\n"].concat();
        let output = refused(config, &kept, &data).await;
        let lines: Vec<&str> = output.lines().collect();
        // Of three recipients, one was not accepted.
        assert_eq!((lines.len(), lines[2]), (3, "250 ok"), "{output}");
        assert!(lines[..2].iter().all(|line| line.starts_with(&reply)), "{output}");
    }
    assert!(kept.0.into_inner().unwrap().is_empty());
    let output = run_at(
        &FullMailbox,
        &ServerConfig { protocol: Protocol::Lmtp, ..config() },
        format!("{head}hi\r\n.\r\nNOOP\r\n").as_bytes(),
    )
    .await;
    let (_, output) = output.split_once("354 go ahead\r\n").unwrap();
    // All recipients are accepted here, and a reason can't be more than one line.
    assert_eq!(output, format!("{}250 ok\r\n", "451 the disk  250 is full\r\n".repeat(3)));
}

#[tokio::test]
async fn a_message_announced_as_too_large_is_rejected_at_mail_from() {
    let (output, _) = run_smtp(b"EHLO x\r\nMAIL FROM:<a@b.example> BODY=8BITMIME SIZE=99999999\r\n").await;
    assert!(output.ends_with("552 message size exceeds the limit\r\n"), "{output}");
    let (output, _) = run_smtp(b"EHLO x\r\nMAIL FROM:<a@b.example> SIZE=1000\r\n").await;
    assert!(output.ends_with("250 ok\r\n"), "{output}");
}

#[tokio::test]
async fn invalid_commands_are_rejected_and_too_many_end_the_session() {
    let (output, kept) = run_smtp(&b"GET / HTTP/1.1\r\n".repeat(30)).await;
    assert!(output.ends_with("421 too many errors\r\n"));
    assert!(kept.is_empty());
    let (output, _) = run_smtp(b"DATA\r\nRCPT TO:<a@b.example>\r\nMAIL x\r\nSTARTTLS\r\n").await;
    assert!(output.contains("503") && output.contains("501") && output.contains("454"));
    let (output, _) = run_smtp(&vec![b'x'; 10_000]).await;
    assert_eq!(output, "220 mx.b.example ESMTP\r\n500 5.5.2 line too long\r\n");
}

/// A message in one session.
const MESSAGE: &str = "MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\nhi\r\n.\r\n";

#[tokio::test]
async fn commands_without_a_message_are_counted_whatever_they_are_and_a_message_begins_the_count_again() {
    for command in ["NOOP", "RSET", "EHLO x", "HELO x", "MAIL FROM:<>", "rset x"] {
        let (output, _) = run_smtp(format!("{command}\r\n").repeat(2 * INBOX_COMMANDS).as_bytes()).await;
        assert!(output.ends_with("421 4.7.0 too many commands without a message\r\n"), "{command}");
        let replies = output.lines().filter(|line| line.starts_with("250 ")).count();
        assert_eq!(replies, INBOX_COMMANDS, "{command}");
    }
    let noops = "NOOP\r\n".repeat(INBOX_COMMANDS - 10);
    let (output, kept) = run_smtp(format!("{noops}{MESSAGE}{noops}{MESSAGE}QUIT\r\n").as_bytes()).await;
    assert!(output.ends_with("221 bye\r\n") && kept.len() == 2, "{output}");
}

#[tokio::test]
async fn refused_commands_are_counted_also_between_good_ones() {
    for command in
        ["VRFY a", "EXPN a", "AUTH PLAIN x", "GET / HTTP/1.1", "RCPT TO:<x@y.example>", "DATA", "STARTTLS"]
    {
        let script = format!("{command}\r\nNOOP\r\n").repeat(3 * INBOX_BAD_COMMANDS);
        let (output, _) = run_smtp(script.as_bytes()).await;
        assert!(output.ends_with("421 too many errors\r\n"), "{command}: {output}");
        assert_eq!(output.matches("250 ok").count(), INBOX_BAD_COMMANDS, "{command}");
    }
    let bad = "VRFY a\r\n".repeat(INBOX_BAD_COMMANDS);
    let (output, kept) = run_smtp(format!("{bad}{MESSAGE}{bad}QUIT\r\n").as_bytes()).await;
    assert!(output.ends_with("221 bye\r\n") && kept.len() == 1, "{output}");
}

/// The replies of a session whose client sends pieces of a text, as many as the server reads, and never closes.
async fn run_open(config: &ServerConfig, piece: &str) -> (String, io::Result<()>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let mailbox = TestMailbox::default();
    let (mut replies, mut commands) = tokio::io::split(near);
    let flood = async {
        while commands.write_all(piece.as_bytes()).await.is_ok() {
            tokio::task::yield_now().await;
        }
        std::future::pending::<()>().await;
    };
    let mut output = String::new();
    let session =
        async { tokio::join!(serve(Box::new(far), config, &mailbox), replies.read_to_string(&mut output)).0 };
    let outcome = tokio::select! {
        outcome = session => outcome,
        () = flood => unreachable!(),
    };
    (output, outcome)
}

#[tokio::test]
async fn a_session_without_a_message_ends_in_time_however_the_client_behaves() {
    let short = Duration::from_millis(30);
    for (line_time, idle_time) in [(short, Duration::from_secs(60)), (Duration::from_secs(60), short)] {
        let config = ServerConfig { line_time, idle_time, ..config() };
        let (output, _) = run_open(&config, "").await;
        assert!(output.ends_with("421 4.4.2 timeout\r\n"), "{output}");
    }
    // Half a message, and then nothing.
    let config = ServerConfig { line_time: short, ..config() };
    let (near, far) = tokio::io::duplex(1 << 16);
    let mailbox = TestMailbox::default();
    let (mut replies, mut commands) = tokio::io::split(near);
    commands.write_all(MESSAGE.strip_suffix(".\r\n").unwrap().as_bytes()).await.unwrap();
    let mut output = String::new();
    let (outcome, _) =
        tokio::join!(serve(Box::new(far), &config, &mailbox), replies.read_to_string(&mut output));
    assert!(outcome.is_err() && output.ends_with("354 go ahead\r\n421 4.4.2 timeout\r\n"), "{output}");
}

#[tokio::test]
async fn a_command_that_arrives_byte_by_byte_has_the_time_of_one_command() {
    let config = ServerConfig { line_time: Duration::from_millis(30), ..config() };
    let (near, far) = tokio::io::duplex(1 << 16);
    let mailbox = TestMailbox::default();
    let (mut replies, mut commands) = tokio::io::split(near);
    let trickle = async {
        loop {
            let _ = commands.write_all(b"N").await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let mut output = String::new();
    tokio::select! {
        _ = async { tokio::join!(serve(Box::new(far), &config, &mailbox), replies.read_to_string(&mut output)) } => {}
        () = trickle => {}
    }
    assert!(output.ends_with("421 4.4.2 timeout\r\n"), "{output}");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected() {
    let config = ServerConfig { line_time: Duration::from_millis(30), ..config() };
    // The replies do not fit into the stream's buffer.
    let (mut near, far) = tokio::io::duplex(40);
    let mailbox = TestMailbox::default();
    let write = async {
        while near.write_all(b"NOOP\r\n").await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let outcome = tokio::select! {
        outcome = serve(Box::new(far), &config, &mailbox) => outcome,
        () = write => unreachable!(),
    };
    assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

/// Replaces the stream by one on which a client has sent a `MAIL` command.
struct FakeTls;

impl Upgrade for FakeTls {
    fn upgrade(&self, _: AnyStream) -> BoxFuture<'_, io::Result<AnyStream>> {
        Box::pin(async {
            let (mut near, far) = tokio::io::duplex(1 << 16);
            near.write_all(b"NOOP\r\n").await?;
            // Kept open, so that the session does not end by itself.
            tokio::spawn(async move {
                let mut output = String::new();
                let _ = near.read_to_string(&mut output).await;
            });
            Ok(Box::new(far) as AnyStream)
        })
    }
}

#[tokio::test]
async fn commands_sent_ahead_of_the_tls_handshake_are_dropped() {
    let config = ServerConfig {
        starttls: Starttls::Offered(Arc::new(FakeTls)),
        line_time: Duration::from_millis(30),
        ..config()
    };
    let script = format!("EHLO x\r\nMAIL FROM:<evil@c.example>\r\nSTARTTLS\r\n{MESSAGE}");
    let (output, kept) = run_with(&config, script.as_bytes()).await;
    assert!(output.ends_with("220 go ahead\r\n") && kept.is_empty(), "{output}");
}

#[tokio::test]
async fn a_declined_connection_gets_one_reply() {
    let (mut near, far) = tokio::io::duplex(1 << 16);
    let mut output = String::new();
    decline(Box::new(far), &config(), "4.3.2 too many connections").await.unwrap();
    near.read_to_string(&mut output).await.unwrap();
    assert_eq!(output, "421 4.3.2 too many connections\r\n");
}

#[tokio::test]
async fn a_bare_line_feed_ends_neither_the_data_nor_a_command() {
    let hidden = "MAIL FROM:<x@y.example>\r\nRCPT TO:<a@b.example>\r\nDATA\r\nhidden\r\n.\r\n";
    for end in ["\n.\n", "\n.\r\n", "\r\n.\n", "\n\n.\n\n"] {
        let (output, kept) = send(&config(), format!("one{end}{hidden}").as_bytes()).await;
        assert_eq!(output, "550 5.5.2 bare <LF> received\r\n221 bye\r\n", "{end:?}");
        assert!(kept.is_empty(), "{end:?}");
    }
    for end in ["\r.\r", "\r.\r\n", "\r\n.\r"] {
        let (output, kept) = send(&config(), format!("one{end}x\r\n.\r\n").as_bytes()).await;
        assert_eq!((output.as_str(), kept.len()), ("250 kept\r\n221 bye\r\n", 1), "{end:?}");
    }
    let (output, _) = run_smtp(b"EHLO x\nMAIL FROM:<>\r\n").await;
    assert!(output.contains("550 5.5.2 bare <LF> received\r\n250 ok"), "{output}");
}

#[tokio::test]
async fn a_message_over_the_size_limit_or_with_an_overlong_line_is_refused_and_the_session_goes_on() {
    let line = vec![b'x'; INBOX_LINE_BYTES];
    let (output, kept) = send(&config(), &[&line, b"\r\n.\r\n".as_slice()].concat()).await;
    assert_eq!((output.as_str(), kept.len()), ("250 kept\r\n221 bye\r\n", 1));
    let (output, kept) = send(&config(), &[&line, b"x\r\n.\r\n".as_slice()].concat()).await;
    assert!(output.starts_with("554 5.6.0 a line is longer") && output.ends_with("221 bye\r\n"), "{output}");
    assert!(kept.is_empty());
    let lines = [&[b'x'; 998], b"\r\n".as_slice()].concat();
    for (count, reply) in [(15_728, "250 kept"), (15_729, "552 message size exceeds the limit")] {
        let (output, kept) = send(&config(), &[lines.repeat(count).as_slice(), b".\r\n"].concat()).await;
        assert_eq!(output, format!("{reply}\r\n221 bye\r\n"));
        assert!(kept.iter().all(|mail| mail.message.len() == count * 1000));
    }
}

#[tokio::test]
async fn messages_beyond_the_memory_of_all_sessions_are_refused_with_452_and_memory_is_given_back() {
    let memory = MemoryBudget::new(200_000, 1000);
    let config = ServerConfig { memory: memory.clone(), ..config() };
    let mut others = memory.reservation();
    assert!(others.cover(100_000));
    let large = [[b'x'; 998].as_slice(), b"\r\n"].concat().repeat(100);
    let data = [large.as_slice(), b".\r\n"].concat();
    let (output, kept) = send(&config, &data).await;
    assert!(output.starts_with("452 4.3.1") && output.ends_with("221 bye\r\n"), "{output}");
    assert_eq!((kept.len(), memory.used()), (0, 100_000));
    let (output, _) = run_with(&config, b"EHLO x\r\nMAIL FROM:<> SIZE=100000\r\n").await;
    assert!(output.ends_with(&format!("{NO_ROOM}\r\n")), "{output}");
    drop(others);
    let (output, kept) = send(&config, &data).await;
    assert_eq!((output.as_str(), kept.len()), ("250 kept\r\n221 bye\r\n", 1));
    assert_eq!(memory.used(), 0);
    let mut others = memory.reservation();
    assert!(others.cover(150_000) && memory.reservation().cover(0));
    let (output, _) = run_with(&config, b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n").await;
    assert!(output.ends_with(&format!("{NO_ROOM}\r\n")), "{output}");
}

#[tokio::test]
async fn a_command_may_have_555_bytes() {
    for (length, reply) in
        [(SMTP_COMMAND_BYTES, "250 ok"), (SMTP_COMMAND_BYTES + 1, "500 5.5.2 line too long")]
    {
        let command = format!("NOOP {}\r\n", "x".repeat(length - 7));
        let (output, _) = run_smtp(command.as_bytes()).await;
        assert!(output.ends_with(&format!("{reply}\r\n")), "{output}");
    }
}
