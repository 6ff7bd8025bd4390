//! A connection to a server of a PostgreSQL database: TCP with keepalives, TLS, the driver's sign-in, and a check that the
//! server accepts writes.
//!
//! The driver can resolve a name and connect only by itself: by `getaddrinfo`, to one address after the other with minutes
//! for each, without keepalives, and with trusted roots of its own. So the program connects, and the driver gets the byte
//! stream through a Unix socket that only this process can use ([`relay`]).

use super::pool::{Connector, NoConnection, Refusal};
use crate::database::Stream;
use crate::database::location::{PostgresHost, PostgresLocation};
use crate::{Access, StoreError};
use nix::sys::socket::{setsockopt, sockopt};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection, Row, SqlSafeStr};
use std::hash::{BuildHasher, Hasher};
use std::io::Read as _;
use std::os::linux::net::SocketAddrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};

/// The time limit for connecting to the first server of a list that works.
const ATTEMPT_TIME: Duration = Duration::from_secs(10);
/// The time limit for connecting to one server, with TLS and sign-in.
const CONNECT_TIME: Duration = Duration::from_secs(4);
/// Silence after which the kernel begins to probe a connection, the interval of probes, and how many may be lost.
const KEEPALIVE: (u32, u32, u32) = (20, 5, 4);
/// How long the kernel sends data again that is not acknowledged, in milliseconds.
const UNACKNOWLEDGED_MS: u32 = 30_000;
/// The message that begins TLS ("SSLRequest" in PostgreSQL's documentation of the protocol).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// The time limits of the server for single statements, so that a statement which was given up does not go on for ever.
/// Through a pooler in transaction mode, where every statement is a part of a transaction, they are set there. And the tenant whose
/// rows row-level security shows to statements that are not in a transaction (`crate::tenant::Reach::DEFAULT`).
const TIME_LIMITS: &str = "SET lock_timeout = '30s'; SET statement_timeout = '60s'; \
    SET idle_in_transaction_session_timeout = '60s'; SET sternpost.tenant = '0'";
/// Makes the server look every second whether the connection of a running statement was closed, as that of a read which was
/// given up, and end the statement then. Only servers on Linux from PostgreSQL 14 on can do that for sure; others end it after its
/// time limit.
const ENDS_ABANDONED: &str = "SELECT set_config('client_connection_check_interval', '1s', false) \
    WHERE current_setting('client_connection_check_interval', true) IS NOT NULL AND version() LIKE '%linux%'";
/// The maximum size of a password file.
const MAX_PASSWORD_BYTES: u64 = 4096;

/// The time limit for closing a connection with a word to the server, which closes it as well when it notices.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// Connects to the servers of a database for the pool.
pub(crate) struct Servers {
    pub(super) location: PostgresLocation,
    access: Access,
    /// The number of the server that the last connection was made to.
    last: AtomicUsize,
}

impl Servers {
    pub(super) fn new(location: &PostgresLocation, access: &Access) -> Self {
        Self { location: location.clone(), access: access.clone(), last: AtomicUsize::new(0) }
    }

    /// The error of a caller for whom the pool has no connection.
    pub(super) fn error(&self, error: NoConnection) -> StoreError {
        match error {
            NoConnection::Closed => StoreError::Query(sqlx::Error::PoolClosed),
            NoConnection::Away(why) => unreachable(&self.location, why),
        }
    }
}

impl Connector for Servers {
    type Connection = PgConnection;

    async fn connect(&self) -> Result<PgConnection, Refusal> {
        let first = self.last.load(Ordering::Relaxed);
        let attempt = connect(&self.location, &self.access, first);
        let connected = tokio::time::timeout(ATTEMPT_TIME, attempt).await;
        match connected.unwrap_or_else(|_| Err("the servers do not answer".to_owned().into())) {
            Ok((connection, number)) => {
                self.last.store(number, Ordering::Relaxed);
                Ok(connection)
            }
            Err(refusal) => {
                // If the time was over before the last server was tried, the next attempt begins with another one.
                self.last.store((first + 1) % self.location.hosts.len().max(1), Ordering::Relaxed);
                Err(refusal)
            }
        }
    }

    async fn is_alive(&self, connection: &mut PgConnection) -> bool {
        connection.ping().await.is_ok()
    }

    async fn close(&self, connection: PgConnection) {
        let _ = tokio::time::timeout(CLOSE_TIME, connection.close()).await;
    }
}

/// Connects to the first server that accepts writes, beginning with number `first` of the list. Returns the number of that
/// server with the connection. The error says for each server why not, in one line.
pub(super) async fn connect(
    location: &PostgresLocation,
    access: &Access,
    first: usize,
) -> Result<(PgConnection, usize), Refusal> {
    let password = access.password.as_deref().map(password).transpose()?;
    let (mut problems, mut is_full) = (Vec::new(), false);
    let numbered = location.hosts.iter().enumerate();
    for (number, host) in numbered.clone().skip(first).chain(numbered.take(first)) {
        let one = connect_to(location, host, access, password.as_deref());
        let why = match tokio::time::timeout(CONNECT_TIME, one).await {
            Ok(Ok(connection)) => return Ok((connection, number)),
            Ok(Err(refusal)) => {
                is_full |= refusal.is_full;
                refusal.why
            }
            Err(_) => format!("no answer within {} seconds", CONNECT_TIME.as_secs()),
        };
        problems.push(match location.hosts.len() {
            1 => why,
            _ => format!("{host}: {why}"),
        });
    }
    Err(Refusal { why: problems.join("; "), is_full })
}

async fn connect_to(
    location: &PostgresLocation,
    host: &PostgresHost,
    access: &Access,
    password: Option<&str>,
) -> Result<PgConnection, Refusal> {
    let (folder, port) = match host {
        PostgresHost::Socket { folder, port } => (folder.clone(), *port),
        PostgresHost::Tcp { name, port } => {
            let stream = access.network.connect(name, *port).await?;
            set_timeouts(&stream).map_err(|error| error.to_string())?;
            let relayed = match location.uses_tls(host) {
                true => relay(begin_tls(stream, name, location.roots.as_deref(), access).await?),
                false => relay(stream),
            };
            (relayed.map_err(|error| error.to_string())?, RELAY_PORT)
        }
    };
    let mut options = PgConnectOptions::new_without_pgpass()
        .socket(folder)
        .port(port)
        .username(&location.user)
        .database(&location.database)
        .application_name("sternpost")
        // A pooler refuses this parameter.
        .extra_float_digits(None)
        .ssl_mode(PgSslMode::Disable)
        .statement_cache_capacity(location.kept_statements)
        .disable_statement_logging();
    if let Some(password) = password {
        options = options.password(password);
    }
    let mut connection = PgConnection::connect_with(&options).await.map_err(|error| refusal(&error))?;
    check(&mut connection).await?;
    if location.kept_statements > 0 {
        let set = sqlx::raw_sql(TIME_LIMITS.into_sql_str()).execute(&mut connection).await;
        set.map_err(|error| reason(&error))?;
        // A server that refuses the value ends an abandoned statement after the time limit.
        let _ = sqlx::raw_sql(ENDS_ABANDONED.into_sql_str()).execute(&mut connection).await;
    }
    Ok(connection)
}

/// Tells a server that is full from one that does not work. A pooler has a message of its own for that.
fn refusal(error: &sqlx::Error) -> Refusal {
    let code = error.as_database_error().and_then(|error| error.code());
    let why = reason(error);
    let is_full = code.as_deref() == Some("53300") || why.starts_with("no more connections allowed");
    Refusal { why, is_full }
}

/// Checks that the server accepts writes and that the database can store every text.
async fn check(connection: &mut PgConnection) -> Result<(), String> {
    let query = "SELECT current_setting('transaction_read_only'), current_setting('server_encoding')";
    let row = sqlx::raw_sql(query).fetch_one(connection).await.map_err(|error| reason(&error))?;
    let text = |at: usize| row.try_get::<String, _>(at).map_err(|error| error.to_string());
    let (is_read_only, encoding) = (text(0)?, text(1)?);
    if is_read_only != "off" {
        return Err("it is read-only, as a standby is".to_owned());
    }
    match encoding.as_str() {
        "UTF8" => Ok(()),
        other => Err(format!(
            "its encoding is {other}, which can't store the texts of all reports; create it with ENCODING 'UTF8' TEMPLATE template0"
        )),
    }
}

/// The message of a server without the words that the driver puts around it; else the driver's.
pub(super) fn reason(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the server closed the connection".to_owned()
        }
        sqlx::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// Reads a password, without the end of its line, for each new connection, so that it can be changed.
fn password(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read =
        std::fs::File::open(file).and_then(|file| file.take(MAX_PASSWORD_BYTES).read_to_string(&mut text));
    read.map_err(|error| format!("the password file {} can't be read: {error}", file.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Sets keepalives and time limits of the kernel, so that a server that is down is noticed.
fn set_timeouts(stream: &TcpStream) -> std::io::Result<()> {
    let (silence, interval, count) = KEEPALIVE;
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &silence)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &interval)?;
    setsockopt(stream, sockopt::TcpKeepCount, &count)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MS)?;
    Ok(())
}

/// Asks the server for TLS and verifies its certificate for `name`.
async fn begin_tls(
    mut stream: TcpStream,
    name: &str,
    roots: Option<&Path>,
    access: &Access,
) -> Result<Box<dyn Stream>, String> {
    let mut answer = [0];
    let asked = async {
        stream.write_all(&SSL_REQUEST).await?;
        stream.read_exact(&mut answer).await
    };
    asked.await.map_err(|error| error.to_string())?;
    if answer != *b"S" {
        return Err(
            "the server does not support TLS; sslmode=disable in the URL connects without it".to_owned()
        );
    }
    access.network.begin_tls(stream, name, roots).await
}

/// The port in the name of the driver's socket.
const RELAY_PORT: u16 = 1;

/// Passes bytes between the server and a socket for the driver, until one side closes. Returns the folder of the socket.
/// It is in the abstract namespace (unix(7)), has an unforeseeable name, and accepts one connection, of this process.
fn relay(mut server: impl Stream + 'static) -> std::io::Result<PathBuf> {
    let random = std::hash::RandomState::new().build_hasher().finish();
    let folder = format!("sternpost-{}-{random:016x}", std::process::id());
    let address =
        std::os::unix::net::SocketAddr::from_abstract_name(format!("{folder}/.s.PGSQL.{RELAY_PORT}"))?;
    let listener = std::os::unix::net::UnixListener::bind_addr(&address)?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    tokio::spawn(async move {
        let Ok(Ok(mut driver)) = tokio::time::timeout(CONNECT_TIME, accept_own(&listener)).await else {
            return;
        };
        drop(listener);
        // An error closes both sides, which the driver notices.
        let _ = tokio::io::copy_bidirectional(&mut driver, &mut server).await;
    });
    Ok(format!("\0{folder}").into())
}

/// Accepts a connection of this process, and closes those of others.
async fn accept_own(listener: &UnixListener) -> std::io::Result<UnixStream> {
    loop {
        let (stream, _) = listener.accept().await?;
        if stream.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok()) == Some(std::process::id()) {
            return Ok(stream);
        }
    }
}

/// The error of a database that can't be used now.
pub(super) fn unreachable(location: &PostgresLocation, why: impl Into<String>) -> StoreError {
    StoreError::Unreachable { database: location.to_string(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Location;
    use crate::scratch::access;
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn the_socket_of_a_relay_has_one_client_and_passes_bytes_both_ways() {
        let (mut server, end) = UnixStream::pair().unwrap();
        let folder = relay(end).unwrap();
        let path = format!("{}/.s.PGSQL.{RELAY_PORT}", folder.display());
        let mut driver = UnixStream::connect(&path).await.unwrap();
        driver.write_all(b"question").await.unwrap();
        let mut read = [0; 8];
        server.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"question");
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut rest = Vec::new();
        driver.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"answer");
        assert!(UnixStream::connect(&path).await.is_err());
    }

    /// A network of hosts that do not answer, and of some that refuse. It notes which were asked.
    struct SilentNetwork(Mutex<String>);

    impl crate::Network for SilentNetwork {
        fn connect<'a>(&'a self, host: &'a str, _: u16) -> crate::Connecting<'a, TcpStream> {
            self.0.lock().unwrap().push_str(host);
            match host {
                "r" => Box::pin(async { Err("refused".to_owned()) }),
                _ => Box::pin(std::future::pending()),
            }
        }

        fn begin_tls<'a>(
            &'a self,
            _: TcpStream,
            _: &'a str,
            _: Option<&'a Path>,
        ) -> crate::Connecting<'a, Box<dyn Stream>> {
            Box::pin(async { Err("this network has no TLS".to_owned()) })
        }
    }

    /// The time for an attempt is over before the last of many servers.
    #[test]
    fn each_server_of_a_list_is_tried_in_turn_also_if_those_before_it_do_not_answer() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let text = "postgres://u@a:1,b:1,c:1,r:1,e:1/d?sslmode=disable";
            let Ok(Location::Postgres(location)) = Location::parse(text, Path::new("")) else { panic!() };
            let network = Arc::new(SilentNetwork(Mutex::default()));
            let servers = Servers::new(&location, &Access { network: network.clone(), ..access() });
            let asked = || std::mem::take(&mut *network.0.lock().unwrap());
            for expected in ["abc", "bcre", "crea", "reab", "eab", "abc"] {
                let refusal = servers.connect().await.unwrap_err();
                assert_eq!(
                    (asked(), refusal.why.as_str()),
                    (expected.to_owned(), "the servers do not answer")
                );
            }
        });
    }

    #[test]
    fn a_password_is_read_without_the_end_of_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p");
        for (content, expected) in
            [("s3cret\n", "s3cret"), ("a b\r\n", "a b"), ("p:@/%?#'\" ", "p:@/%?#'\" "), ("", "")]
        {
            std::fs::write(&file, content).unwrap();
            assert_eq!(password(&file).unwrap(), expected);
        }
        assert!(password(dir.path()).unwrap_err().contains("can't be read"));
    }
}
