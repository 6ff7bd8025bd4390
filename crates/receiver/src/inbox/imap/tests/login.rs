//! Connecting and signing in: TLS, passwords, access tokens.

use super::quirks::Clear;
use super::*;
use formats::limits::ACCESS_TOKEN_BYTES;
use net::redaction::Secrets;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

#[tokio::test]
async fn the_password_is_not_sent_to_a_server_that_announces_logindisabled() {
    for offers in ["LOGINDISABLED AUTH=XOAUTH2", "LoginDisabled AUTH=PLAIN SASL-IR"] {
        let scene = Scene::with_mail(Quirks { offers, ..Quirks::default() }).await;
        assert!(matches!(scene.failure().await, ImapError::PasswordRefused));
        assert_eq!((scene.server.count("LOGIN"), scene.server.count("AUTHENTICATE")), (0, 0));
    }
}

#[tokio::test]
async fn a_wrong_password_is_an_error_that_does_not_show_it() {
    for password in ["guess", "gu\"es\\s"] {
        let mut scene = Scene::with_mail(Quirks::default()).await;
        scene.use_password(password);
        let error = scene.failure().await;
        assert!(matches!(error, ImapError::SignIn(_)));
        assert!(error.to_string().ends_with("wrong: LOGIN \"u\" \"…\""), "{error}");
    }
}

#[tokio::test]
async fn a_password_is_read_at_each_sign_in_so_that_a_new_one_needs_no_reload() {
    let mut scene = Scene::with_mail(Quirks::default()).await;
    scene.use_password("former");
    assert!(matches!(scene.failure().await, ImapError::SignIn(_)));
    std::fs::write(scene.dir.path().join("imap-password"), "secret\r\n").unwrap();
    scene.rounds(1).await;
    for content in ["", "\n", &"x".repeat(ACCESS_TOKEN_BYTES + 1)] {
        std::fs::write(scene.dir.path().join("imap-password"), content).unwrap();
        assert!(matches!(scene.failure().await, ImapError::PasswordFile(..)));
    }
    std::fs::remove_file(scene.dir.path().join("imap-password")).unwrap();
    let error = scene.failure().await.to_string();
    assert!(
        error.starts_with("can't read the IMAP password file") && error.contains("imap-password"),
        "{error}"
    );
}

#[tokio::test]
async fn a_password_that_is_not_ascii_is_sent_by_plain() {
    for (offers, works) in [("AUTH=PLAIN", true), ("AUTH=PLAIN SASL-IR", true), ("", false)] {
        let mut scene = Scene::with_mail(Quirks { offers, ..Quirks::default() }).await;
        scene.use_password("pässword");
        match works {
            true => scene.rounds(1).await,
            false => assert!(matches!(scene.failure().await, ImapError::NotAscii)),
        }
    }
}

#[tokio::test]
async fn starttls_is_used_and_without_it_nothing_is_sent() {
    let scene = Scene::with_mail(Quirks { clear: Some(Clear::Upgrades), ..Quirks::default() }).await;
    scene.rounds(1).await;
    assert_eq!(scene.ids().await, ["1", "4"]);
    for clear in [Clear::Refuses, Clear::IsPreAuth, Clear::Injects] {
        let scene = Scene::with_mail(Quirks { clear: Some(clear), ..Quirks::default() }).await;
        assert!(matches!(scene.failure().await, ImapError::StartTls(_)));
        let state = scene.server.state.lock().unwrap();
        assert!(state.commands.iter().all(|command| command == "STARTTLS"), "{:?}", state.commands);
    }
}

#[tokio::test]
async fn a_certificate_for_another_host_ends_the_connection() {
    for clear in [None, Some(Clear::Upgrades)] {
        let mut scene = Scene::with_mail(Quirks { clear, ..Quirks::default() }).await;
        scene.mailbox.host = DomainName::parse("other.example").unwrap();
        assert!(matches!(scene.failure().await, ImapError::Tls(_)));
        assert_eq!(scene.server.count("LOGIN"), 0);
    }
}

/// A listener at ::1 whose queue is full: the kernel drops further SYNs, as a broken IPv6 route does.
async fn black_hole(port: u16) -> (TcpListener, Vec<JoinHandle<std::io::Result<TcpStream>>>) {
    let socket = TcpSocket::new_v6().unwrap();
    let address = format!("[::1]:{port}").parse().unwrap();
    socket.bind(address).unwrap();
    let listener = socket.listen(1).unwrap();
    let fill = (0..8).map(|_| tokio::spawn(TcpStream::connect(address))).collect();
    (listener, fill)
}

#[tokio::test]
async fn an_address_that_does_not_answer_does_not_keep_the_mailbox_from_being_read() {
    let mut scene = Scene::with_mail(Quirks::default()).await;
    scene.inbox.dns = Arc::new(Loopback { has_v6: true });
    let _hole = black_hole(scene.server.port).await;
    scene.rounds(1).await;
    assert_eq!(scene.ids().await, ["1", "4"]);
}

fn secret(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[tokio::test]
async fn an_access_token_is_sent_by_the_mechanism_that_the_server_offers() {
    let dir = tempfile::tempdir().unwrap();
    let file = secret(dir.path(), "token", "good-token\n");
    for (offers, mechanism, words) in [
        ("LOGINDISABLED AUTH=XOAUTH2", "XOAUTH2", "user=u\x01auth=Bearer good-token\x01\x01"),
        ("AUTH=XOAUTH2 SASL-IR", "XOAUTH2 ", "user=u\x01auth=Bearer good-token\x01\x01"),
        ("AUTH=XOAUTH2 AUTH=OAUTHBEARER SASL-IR", "OAUTHBEARER ", "n,a=u,\x01host=imap.example\x01port="),
    ] {
        let mut scene = Scene::with_mail(Quirks { offers, ..Quirks::default() }).await;
        scene.mailbox.login = Login::Token(TokenSource::File(file.clone()));
        scene.rounds(1).await;
        assert_eq!(scene.ids().await, ["1", "4"]);
        assert_eq!(scene.server.count(&format!("AUTHENTICATE {mechanism}")), 1, "{offers}");
        assert_eq!((scene.server.count(words), scene.server.count("LOGIN")), (1, 0), "{offers}");
    }
}

#[tokio::test]
async fn a_refused_access_token_is_an_error_that_does_not_show_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = secret(dir.path(), "token", "bad-token");
    for (offers, last) in [("AUTH=XOAUTH2", "last \"\""), ("AUTH=OAUTHBEARER SASL-IR", "last \"AQ==\"")] {
        let mut scene = Scene::with_mail(Quirks { offers, ..Quirks::default() }).await;
        scene.mailbox.login = Login::Token(TokenSource::File(file.clone()));
        let error = scene.failure().await.to_string();
        assert!(error.contains("[AUTHENTICATIONFAILED] … is bad"), "{error}");
        assert_eq!(scene.server.count(last), 1);
    }
    let mut scene = Scene::with_mail(Quirks::default()).await;
    scene.mailbox.login = Login::Token(TokenSource::File(file));
    assert!(matches!(scene.failure().await, ImapError::NoTokens));
}

/// The access token of a source, or the error's text.
async fn token(scene: &Scene, source: TokenSource) -> Result<String, String> {
    let token = source.token(scene.inbox.dns.as_ref(), &scene.server.tls, &Secrets::default()).await;
    token.map_err(|error| error.to_string())
}

#[tokio::test]
async fn an_access_token_comes_from_a_file_or_a_command() {
    let scene = Scene::new(Quirks::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let shell = |script: &str| TokenSource::Command(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
    assert_eq!(token(&scene, shell("echo good-token; echo noise >&2")).await.unwrap(), "good-token");
    let error = token(&scene, shell("echo good-token; exit 3")).await.unwrap_err();
    assert!(error.contains("/bin/sh: exit status: 3") && !error.contains("good-token"), "{error}");
    for script in ["echo", "echo 'one two'", "printf 'a\\001b'"] {
        let error = token(&scene, shell(script)).await.unwrap_err();
        assert!(error.contains("no valid access token in the output of /bin/sh"), "{error}");
    }
    let file = secret(dir.path(), "token", "good-token");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = token(&scene, TokenSource::File(file)).await.unwrap_err();
    assert!(error.contains("can be read by other users"), "{error}");
}

/// An OAuth server that answers one request, which is returned.
async fn oauth_server(scene: &Scene, answer: &'static str) -> (u16, JoinHandle<String>) {
    oauth_server_with(scene, "200 OK", answer).await
}

async fn oauth_server_with(
    scene: &Scene,
    status: &'static str,
    answer: &'static str,
) -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = scene.server.acceptor.clone();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(acceptor.accept(stream).await.unwrap());
        let (mut request, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
            request += &line;
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", answer.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        request + &String::from_utf8(body).unwrap()
    });
    (port, task)
}

fn endpoint(port: u16, secret_file: Option<PathBuf>, refresh_file: Option<PathBuf>) -> TokenSource {
    TokenSource::Endpoint(TokenEndpoint {
        url: formats::tlsrpt_record::HttpsUrl::parse(&format!("https://{HOST}:{port}/token?v=2")).unwrap(),
        client_id: "my client".to_owned(),
        client_secret_file: secret_file,
        refresh_token_file: refresh_file,
        scope: Some("https://a.example/.default".to_owned()),
    })
}

/// RFC 6749 §6: the new refresh token replaces the old one.
#[tokio::test]
async fn a_refresh_token_is_exchanged_and_its_successor_is_stored_for_its_owner_alone() {
    let scene = Scene::new(Quirks::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let refresh = secret(dir.path(), "refresh", "old&token\n");
    let answer = "{\"access_token\":\"good-token\",\"token_type\":\"Bearer\",\"expires_in\":3599,\"refresh_token\":\"new\"}";
    let (port, server) = oauth_server(&scene, answer).await;
    let source = endpoint(port, None, Some(refresh.clone()));
    assert_eq!(token(&scene, source).await.unwrap(), "good-token");
    let request = server.await.unwrap();
    assert!(request.starts_with("POST /token?v=2 HTTP/1.1\r\n"), "{request}");
    let form = "grant_type=refresh_token&client_id=my%20client&refresh_token=old%26token&scope=https%3A%2F%2Fa.example%2F.default";
    assert!(request.ends_with(form), "{request}");
    assert_eq!(std::fs::read_to_string(&refresh).unwrap(), "new");
    assert_eq!(std::fs::metadata(&refresh).unwrap().permissions().mode() & 0o777, 0o600);
}

/// RFC 6749 §4.4.
#[tokio::test]
async fn client_credentials_are_exchanged_for_an_access_token() {
    let scene = Scene::new(Quirks::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let client = secret(dir.path(), "client", "s3cret");
    let (port, server) = oauth_server(&scene, "{\"access_token\":\"good-token\"}").await;
    assert_eq!(token(&scene, endpoint(port, Some(client), None)).await.unwrap(), "good-token");
    let form = "grant_type=client_credentials&client_id=my%20client&client_secret=s3cret&scope=";
    assert!(server.await.unwrap().contains(form));
}

#[tokio::test]
async fn the_reason_of_an_oauth_server_is_shown_without_secrets() {
    let scene = Scene::new(Quirks::default()).await;
    let dir = tempfile::tempdir().unwrap();
    for (answer, expected) in [
        (
            "{\"error\":\"invalid_client\",\"error_description\":\"s3cret is\\nwrong\"}",
            "refuses a token: invalid_client: … is\u{fffd}wrong",
        ),
        ("<html>s3cret</html>", "the answer is not the JSON of RFC 6749"),
        ("{}", "no valid access token in the answer of imap.example"),
    ] {
        let client = secret(dir.path(), "client", "s3cret");
        let (port, _server) = oauth_server(&scene, answer).await;
        let error = token(&scene, endpoint(port, Some(client), None)).await.unwrap_err();
        assert!(error.contains(expected) && !error.contains("s3cret"), "{error}");
    }
}

/// RFC 6749 §5.2, and what servers and proxies answer in place of it.
#[tokio::test]
async fn a_token_endpoint_that_fails_is_named_with_its_status_or_reason_and_without_secrets() {
    let scene = Scene::new(Quirks::default()).await;
    let dir = tempfile::tempdir().unwrap();
    for (status, answer, expected) in [
        (
            "400 Bad Request",
            "{\"error\":\"invalid_grant\",\"error_description\":\"old-token has expired\"}",
            "refuses a token: invalid_grant: … has expired",
        ),
        ("401 Unauthorized", "{\"error\":\"invalid_client\"}", "refuses a token: invalid_client"),
        ("401 Unauthorized", "{\"message\":\"s3cret\"}", "status 401, without an error code of RFC 6749"),
        (
            "503 Service Unavailable",
            "<html>old-token, s3cret</html>",
            "token endpoint imap.example: status 503, and the answer is not the JSON of RFC 6749",
        ),
        // A token in the answer of an error is not used.
        ("500 Oops", "{\"access_token\":\"good-token\"}", "status 500, without an error code"),
    ] {
        let (client, refresh) =
            (secret(dir.path(), "client", "s3cret"), secret(dir.path(), "refresh", "old-token"));
        let (port, _server) = oauth_server_with(&scene, status, answer).await;
        let error = token(&scene, endpoint(port, Some(client), Some(refresh.clone()))).await.unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(
            ["s3cret", "old-token", "good-token"].iter().all(|secret| !error.contains(secret)),
            "{error}"
        );
        assert_eq!(std::fs::read_to_string(refresh).unwrap(), "old-token");
    }
}

/// The mailbox is read with the access token as long as the old refresh token works.
#[tokio::test]
async fn a_new_refresh_token_that_can_not_be_stored_is_not_lost_silently() {
    let scene = Scene::new(Quirks::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let refresh = secret(dir.path(), "refresh", "old-token");
    // The place of the new file is taken by a folder, which also root can't replace.
    std::fs::create_dir(dir.path().join("refresh.new")).unwrap();
    let answer = "{\"access_token\":\"good-token\",\"refresh_token\":\"new-token\"}";
    let (port, _server) = oauth_server(&scene, answer).await;
    let source = endpoint(port, None, Some(refresh.clone()));
    assert_eq!(token(&scene, source.clone()).await.unwrap(), "good-token");
    assert_eq!(std::fs::read_to_string(&refresh).unwrap(), "old-token");
    // What the log says.
    let TokenSource::Endpoint(endpoint) = source else { panic!("{source:?}") };
    let text = endpoint.keep(&refresh, "new-token").unwrap_err().to_string();
    assert!(
        text.starts_with("can't store the new refresh token of my client in ") && text.contains("writable"),
        "{text}"
    );
    assert!(["old-token", "new-token"].iter().all(|secret| !text.contains(secret)), "{text}");
}
