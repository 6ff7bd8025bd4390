//! Clients of the inbox by SMTP, by LMTP and by HTTPS POST, without any courtesy. What comes of a session is a word: the last code
//! that the server sent, or how the session ended otherwise.

use crate::place::{ADDRESS, Target};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

/// What came of a session; as an error, before it was over.
pub type Outcome = Result<String, String>;

/// How long a client waits for a reply.
const PATIENCE: Duration = Duration::from_secs(90);

/// Connects from an address of this machine.
pub async fn connect(from: Ipv4Addr, to: SocketAddr) -> Result<TcpStream, String> {
    let socket = TcpSocket::new_v4().map_err(|_| "no socket")?;
    // Two of a client's connections may be given the same port.
    socket.set_reuseaddr(true).map_err(|_| "no socket")?;
    socket.bind((from, 0).into()).map_err(|_| "no port")?;
    let stream = socket.connect(to).await.map_err(|_| "no connection")?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// A session by SMTP or LMTP.
pub struct Smtp {
    pub stream: BufReader<TcpStream>,
}

impl Smtp {
    /// Connects, and says EHLO.
    pub async fn open(from: Ipv4Addr, target: &Target) -> Result<Self, String> {
        Self::greet(connect(from, target.smtp).await?, b"EHLO stranger.example\r\n").await
    }

    /// Connects by LMTP, as the operator's mail server does that passes on what strangers send to it.
    pub async fn open_lmtp(target: &Target) -> Result<Self, String> {
        Self::greet(connect(Ipv4Addr::LOCALHOST, target.lmtp).await?, b"LHLO mail.ours.test\r\n").await
    }

    async fn greet(stream: TcpStream, greeting: &[u8]) -> Result<Self, String> {
        let mut session = Self { stream: BufReader::new(stream) };
        expect(session.reply().await?, "220")?;
        expect(session.say(greeting).await?, "250")?;
        Ok(session)
    }

    /// The code of the next reply.
    pub async fn reply(&mut self) -> Outcome {
        let reading = async {
            loop {
                let mut line = String::new();
                match self.stream.read_line(&mut line).await {
                    Ok(4..) if line.as_bytes()[3] == b'-' => {}
                    Ok(4..) => return Ok(line[..3].to_owned()),
                    _ => return Err("closed".to_owned()),
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap_or_else(|_| Err("no reply".into()))
    }

    /// Sends bytes. A server that has closed the connection may have said why before.
    pub async fn send(&mut self, bytes: &[u8]) {
        let sending = self.stream.get_mut().write_all(bytes);
        let _ = tokio::time::timeout(PATIENCE, sending).await;
    }

    /// Sends a command, and returns the code of the reply.
    pub async fn say(&mut self, bytes: &[u8]) -> Outcome {
        self.send(bytes).await;
        self.reply().await
    }

    /// Says all that comes before the text of a message.
    pub async fn begin(&mut self) -> Result<(), String> {
        expect(self.say(b"MAIL FROM:<tls@anybody.example>\r\n").await?, "250")?;
        expect(self.say(format!("RCPT TO:<{ADDRESS}>\r\n").as_bytes()).await?, "250")?;
        expect(self.say(b"DATA\r\n").await?, "354")
    }

    /// Sends a message with lines that end in CRLF.
    pub async fn message(&mut self, message: &[u8]) -> Outcome {
        self.begin().await?;
        self.send(&stuffed(message)).await;
        self.say(b".\r\n").await
    }
}

/// A reply with another code ends the session.
fn expect(code: String, wanted: &str) -> Result<(), String> {
    if code == wanted { Ok(()) } else { Err(code) }
}

/// A message with its leading dots doubled (RFC 5321 §4.5.2).
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(message.len());
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            text.push(b'.');
        }
        text.extend_from_slice(line);
    }
    text
}

/// The head of a POST to a path.
pub fn head(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/tlsrpt+gzip\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )
}

/// The status of a response.
pub async fn status(stream: &mut TcpStream) -> Outcome {
    let mut start = [0; 12];
    let reading = async {
        match stream.read_exact(&mut start).await {
            Ok(_) => Ok(String::from_utf8_lossy(&start[9..]).into_owned()),
            Err(_) => Err("closed".to_owned()),
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap_or_else(|_| Err("no reply".into()))
}

/// Posts a body to a path.
pub async fn post(from: Ipv4Addr, to: SocketAddr, path: &str, body: &[u8]) -> Outcome {
    let mut stream = connect(from, to).await?;
    let sending = async {
        let _ = stream.write_all(head(path, body.len()).as_bytes()).await;
        // A server may answer before it has read the body.
        let _ = stream.write_all(body).await;
    };
    let _ = tokio::time::timeout(PATIENCE, sending).await;
    status(&mut stream).await
}
