//! Where a database is: the path of an SQLite file, or the URL of a PostgreSQL database as libpq defines it
//! (<https://www.postgresql.org/docs/current/libpq-connect.html>), restricted to what the store needs. A password in the
//! URL is refused, so that no location contains a secret, and all can be logged.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The location of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// The path of an SQLite file.
    Sqlite(PathBuf),
    /// A database of a PostgreSQL server.
    Postgres(PostgresLocation),
}

/// Where a PostgreSQL database is, and as which user to sign in there. Its text is a URL, without a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresLocation {
    pub(crate) user: String,
    pub(crate) database: String,
    /// At least one. The first that accepts writes is used.
    pub(crate) hosts: Vec<PostgresHost>,
    /// `sslmode`; `None` means [`TlsMode::VerifyFull`] for other machines, and no TLS on this one.
    tls: Option<TlsMode>,
    /// `sslrootcert`: PEM file with the roots that the certificate of the server is verified by.
    pub(crate) roots: Option<PathBuf>,
    /// The number of prepared statements of a connection. With 0 every statement runs in a transaction of its own and is
    /// not kept, as a pooler in transaction mode requires.
    pub(crate) kept_statements: usize,
}

/// A server of a PostgreSQL database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PostgresHost {
    /// The socket `.s.PGSQL.PORT` in a folder.
    Socket {
        folder: PathBuf,
        port: u16,
    },
    Tcp {
        name: String,
        port: u16,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsMode {
    /// `disable`: connections do not use TLS.
    Off,
    /// `verify-full`: the certificate has to be valid for the host name.
    VerifyFull,
}

/// Why a text is not the URL of a PostgreSQL database. The text itself is not repeated, since it may contain a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// The text is too long.
    #[error("it is longer than {MAX_BYTES} bytes")]
    Length,
    /// The URL contains a password, or a colon before an at sign, which could be one.
    #[error(
        "it contains a password, which would be shown in logs and lists of processes (an @ that follows a colon and is part of no password is written %40)"
    )]
    Password,
    /// The URL names no user.
    #[error("it names no user; write it as postgres://USER@HOST/DATABASE")]
    User,
    /// A host name is missing or contains characters that none has.
    #[error("a host name in it is empty or not valid")]
    Host,
    /// A port is not a number from 1 to 65535, or there are several ports and another number of hosts.
    #[error("a port in it is not a number from 1 to 65535")]
    Port,
    /// A percent sign is not followed by two hexadecimal digits, or they do not encode UTF-8.
    #[error("a percent sign in it does not begin a valid code such as %40")]
    Escape,
    /// The URL has a parameter that is not one of [`LOCATION_PARAMETERS`].
    #[error("its parameter {0} is not supported, only {known}", known = LOCATION_PARAMETERS.join(", "))]
    Parameter(String),
    /// A parameter has a value that is not supported.
    #[error("its parameter {name} takes {expected}")]
    Value {
        /// The name of the parameter.
        name: &'static str,
        /// The accepted values.
        expected: &'static str,
    },
    /// The text does not begin with `sqlite:`, `postgres://` or `postgresql://`.
    #[error("it does not begin with sqlite: or postgres://")]
    Scheme,
}

/// The parameters of a URL that are supported.
pub const LOCATION_PARAMETERS: [&str; 8] = [
    "host",
    "port",
    "user",
    "dbname",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
    "statement-cache-capacity",
];
const MAX_BYTES: usize = 4096;
const DEFAULT_PORT: u16 = 5432;
/// The folder of the socket of Debian's PostgreSQL.
const DEFAULT_FOLDER: &str = "/run/postgresql";
/// The number of prepared statements that a connection keeps.
const KEPT_STATEMENTS: usize = 200;

impl Location {
    /// Parses `sqlite:FILE` or `postgres://USER@HOST:PORT/DATABASE`. A relative file starts at `folder`.
    ///
    /// # Errors
    ///
    /// [`LocationError`] if the text is neither.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, LocationError> {
        if text.len() > MAX_BYTES {
            return Err(LocationError::Length);
        }
        if let Some(file) = text.strip_prefix("sqlite:").filter(|file| !file.is_empty()) {
            return Ok(Self::Sqlite(folder.join(file)));
        }
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        PostgresLocation::parse(rest.ok_or(LocationError::Scheme)?, folder).map(Self::Postgres)
    }

    /// True for a PostgreSQL server behind a Unix socket, which as a rule knows users by the system's user names.
    pub fn is_behind_a_socket(&self) -> bool {
        let is_socket = |host: &PostgresHost| matches!(host, PostgresHost::Socket { .. });
        matches!(self, Self::Postgres(location) if location.hosts.iter().any(is_socket))
    }

    /// The command for an administrator of the server that creates this database; `None` for an SQLite file, which is created
    /// when it is opened.
    pub fn creation(&self) -> Option<String> {
        let Self::Postgres(location) = self else { return None };
        let server = match location.hosts.first()? {
            PostgresHost::Tcp { name, port } => {
                format!("createdb --host={name} --port={port} --username=postgres")
            }
            PostgresHost::Socket { folder, port } => {
                let mut command = "sudo -u postgres createdb".to_owned();
                if folder != Path::new(DEFAULT_FOLDER) {
                    command.push_str(&format!(" --host={}", quoted(&folder.display().to_string())));
                }
                if *port != DEFAULT_PORT {
                    command.push_str(&format!(" --port={port}"));
                }
                command
            }
        };
        let (owner, database) = (quoted(&location.user), quoted(&location.database));
        Some(format!("{server} --owner={owner} --encoding=UTF8 --template=template0 {database}"))
    }

    /// The path of the SQLite file; `None` for a PostgreSQL database.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(file) => Some(file),
            Self::Postgres(_) => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(file) => file.display().fmt(f),
            Self::Postgres(location) => location.fmt(f),
        }
    }
}

impl PostgresLocation {
    /// Parses the part of a URL after `postgres://`.
    fn parse(text: &str, folder: &Path) -> Result<Self, LocationError> {
        // A password may contain what separates the parts, and no message may repeat a part of it.
        // So this is decided before anything is split: by a colon before the first at sign.
        let has_colon = |text: &str| text.contains(':');
        if text.split_once('@').is_some_and(|(before, _)| has_colon(before)) {
            return Err(LocationError::Password);
        }
        let (rest, parameters) = text.split_once('?').unwrap_or((text, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        if has_colon(user) {
            return Err(LocationError::Password);
        }
        let mut parsed = Self {
            user: decoded(user)?,
            database: decoded(database)?,
            hosts: Vec::new(),
            tls: None,
            roots: None,
            kept_statements: KEPT_STATEMENTS,
        };
        let mut listed: Vec<(String, Option<u16>)> =
            hosts.split(',').filter(|_| !hosts.is_empty()).map(host_and_port).collect::<Result<_, _>>()?;
        let mut ports = Vec::new();
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, raw) = parameter.split_once('=').unwrap_or((parameter, ""));
            let (name, value) = (decoded(name)?, decoded(raw)?);
            match name.as_str() {
                "user" if has_colon(raw) => return Err(LocationError::Password),
                "host" => listed = value.split(',').map(|host| (host.to_owned(), None)).collect(),
                "port" => ports = value.split(',').map(port).collect::<Result<_, _>>()?,
                _ => parsed.set(&name, &value, folder)?,
            }
        }
        if parsed.user.is_empty() {
            return Err(LocationError::User);
        }
        if parsed.database.is_empty() {
            parsed.database = parsed.user.clone();
        }
        if listed.is_empty() {
            listed.push((DEFAULT_FOLDER.to_owned(), None));
        }
        if ports.len() > 1 && ports.len() != listed.len() {
            return Err(LocationError::Port);
        }
        for (at, (name, port)) in listed.into_iter().enumerate() {
            let of_parameter = ports.get(at).or(ports.first()).copied();
            parsed.hosts.push(host(name, port.or(of_parameter).unwrap_or(DEFAULT_PORT))?);
        }
        Ok(parsed)
    }

    /// Sets a parameter other than a host and a port.
    fn set(&mut self, name: &str, value: &str, folder: &Path) -> Result<(), LocationError> {
        let wrong = |name, expected| Err(LocationError::Value { name, expected });
        match (name, value) {
            ("user", _) => self.user = value.to_owned(),
            ("dbname", _) => self.database = value.to_owned(),
            ("password", _) => return Err(LocationError::Password),
            ("sslmode", "disable") => self.tls = Some(TlsMode::Off),
            ("sslmode", "verify-full") => self.tls = Some(TlsMode::VerifyFull),
            // The other modes leave it to an attacker on the path whether TLS is used, or who answers.
            ("sslmode", _) => return wrong("sslmode", "verify-full or disable"),
            ("sslrootcert", "") => return wrong("sslrootcert", "a file"),
            ("sslrootcert", file) => self.roots = Some(folder.join(file)),
            // The store needs a server that accepts writes, so this is always so.
            ("target_session_attrs", "read-write" | "primary") => {}
            ("target_session_attrs", _) => return wrong("target_session_attrs", "read-write"),
            ("statement-cache-capacity", number) => match number.parse() {
                Ok(number @ 0..=1000) => self.kept_statements = number,
                _ => return wrong("statement-cache-capacity", "a number from 0 to 1000"),
            },
            (name, _) => return Err(LocationError::Parameter(name.to_owned())),
        }
        Ok(())
    }

    /// Whether connections to this host use TLS.
    #[cfg(any(test, feature = "postgres"))]
    pub(crate) fn uses_tls(&self, host: &PostgresHost) -> bool {
        match (self.tls, host) {
            (_, PostgresHost::Socket { .. }) | (Some(TlsMode::Off), _) => false,
            (Some(TlsMode::VerifyFull), _) => true,
            (None, PostgresHost::Tcp { name, .. }) => !is_this_machine(name),
        }
    }
}

impl fmt::Display for PostgresLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@", encoded(&self.user, ""))?;
        let mut parameters = Vec::new();
        let is_socket = |host: &PostgresHost| matches!(host, PostgresHost::Socket { .. });
        if self.hosts.iter().any(is_socket) {
            let (names, ports): (Vec<_>, Vec<_>) = self.hosts.iter().map(PostgresHost::parts).unzip();
            parameters.push(format!("host={}", encoded(&names.join(","), "/,:")));
            if ports.iter().any(|port| *port != DEFAULT_PORT) {
                let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
                parameters.push(format!("port={}", ports.join(",")));
            }
        } else {
            let hosts: Vec<_> = self.hosts.iter().map(ToString::to_string).collect();
            f.write_str(&hosts.join(","))?;
        }
        write!(f, "/{}", encoded(&self.database, ""))?;
        match self.tls {
            Some(TlsMode::Off) => parameters.push("sslmode=disable".to_owned()),
            Some(TlsMode::VerifyFull) => parameters.push("sslmode=verify-full".to_owned()),
            None => {}
        }
        if let Some(file) = &self.roots {
            parameters.push(format!("sslrootcert={}", encoded(&file.display().to_string(), "/")));
        }
        if self.kept_statements != KEPT_STATEMENTS {
            parameters.push(format!("statement-cache-capacity={}", self.kept_statements));
        }
        match parameters.is_empty() {
            true => Ok(()),
            false => write!(f, "?{}", parameters.join("&")),
        }
    }
}

impl PostgresHost {
    fn parts(&self) -> (String, u16) {
        match self {
            Self::Socket { folder, port } => (folder.display().to_string(), *port),
            Self::Tcp { name, port } => (name.clone(), *port),
        }
    }
}

impl fmt::Display for PostgresHost {
    /// `host:port`; the path of a socket.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket { folder, port } => write!(f, "{}/.s.PGSQL.{port}", folder.display()),
            Self::Tcp { name, port } if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Tcp { name, port } => write!(f, "{name}:{port}"),
        }
    }
}

/// Splits `host:port`, `[address]:port` or `%2Ffolder`.
fn host_and_port(text: &str) -> Result<(String, Option<u16>), LocationError> {
    let (name, rest) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((address, rest))) => (address, rest.strip_prefix(':').or(rest.is_empty().then_some(""))),
        Some(None) => return Err(LocationError::Host),
        None => match text.split_once(':') {
            Some((name, number)) => (name, Some(number)),
            None => (text, Some("")),
        },
    };
    match rest {
        Some("") => Ok((decoded(name)?, None)),
        Some(number) => Ok((decoded(name)?, Some(port(number)?))),
        None => Err(LocationError::Port),
    }
}

fn host(name: String, port: u16) -> Result<PostgresHost, LocationError> {
    let is_character = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    match name.as_bytes().first() {
        Some(b'/') if !name.contains(['\0', ',']) => Ok(PostgresHost::Socket { folder: name.into(), port }),
        Some(_) if name.parse::<IpAddr>().is_ok() || name.bytes().all(is_character) => {
            Ok(PostgresHost::Tcp { name, port })
        }
        Some(_) | None => Err(LocationError::Host),
    }
}

fn port(text: &str) -> Result<u16, LocationError> {
    text.parse().ok().filter(|port| *port > 0).ok_or(LocationError::Port)
}

/// True for the loopback interface.
#[cfg(any(test, feature = "postgres"))]
fn is_this_machine(name: &str) -> bool {
    name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Replaces `%` codes (RFC 3986 §2.1). NUL is refused: the protocol ends texts by it.
fn decoded(text: &str) -> Result<String, LocationError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        let byte = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let code = digit(high).zip(digit(low)).map(|(high, low)| high * 16 + low);
                code.and_then(|code| u8::try_from(code).ok()).filter(|byte| *byte != 0)
            }
            (b'%', _) => None,
            (byte, _) => Some(*byte),
        };
        bytes.push(byte.ok_or(LocationError::Escape)?);
    }
    String::from_utf8(bytes).map_err(|_| LocationError::Escape)
}

/// A text as one word of a shell.
fn quoted(text: &str) -> String {
    match text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._".contains(&byte)) && !text.is_empty()
    {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// Writes `%` codes for all characters that have a meaning in a URL.
/// `plain` lists more characters to leave as they are.
fn encoded(text: &str, plain: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            byte if plain.as_bytes().contains(&byte) => out.push(byte.into()),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Location, LocationError> {
        Location::parse(text, Path::new("/etc/sternpost"))
    }

    fn url(text: &str) -> PostgresLocation {
        match parse(text) {
            Ok(Location::Postgres(location)) => location,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_location_is_a_file_or_the_url_of_a_postgresql_database() {
        assert_eq!(parse("sqlite:s.db"), Ok(Location::Sqlite("/etc/sternpost/s.db".into())));
        assert_eq!(parse("sqlite:/var/s.db"), Ok(Location::Sqlite("/var/s.db".into())));
        let found = url("postgres://ann@db.example:5433/mail");
        assert_eq!((found.user.as_str(), found.database.as_str()), ("ann", "mail"));
        assert_eq!(found.to_string(), "postgres://ann@db.example:5433/mail");
        assert_eq!(url("postgresql://ann@db.example").to_string(), "postgres://ann@db.example:5432/ann");
        assert_eq!(url("postgres://ann@/mail").hosts, url("postgres://ann@/mail?host=/run/postgresql").hosts);
    }

    #[test]
    fn the_parameters_of_a_url_are_those_that_are_listed() {
        for name in LOCATION_PARAMETERS {
            let value = match name {
                "sslmode" => "disable",
                "port" | "statement-cache-capacity" => "7",
                "target_session_attrs" => "read-write",
                _ => "x",
            };
            assert!(parse(&format!("postgres://u@h/d?{name}={value}")).is_ok(), "{name}");
        }
        let error = parse("postgres://u@h/d?sslmod=disable").unwrap_err();
        assert_eq!(error, LocationError::Parameter("sslmod".to_owned()));
        assert!(error.to_string().contains("sslmod is not supported, only host, port, user,"), "{error}");
    }

    #[test]
    fn the_command_that_creates_a_database_can_be_pasted() {
        let creation = |text: &str| parse(text).unwrap().creation();
        assert_eq!(creation("sqlite:s.db"), None);
        let rest = "--owner=ann --encoding=UTF8 --template=template0 mail";
        for (text, command) in [
            ("postgres://ann@/mail", "sudo -u postgres createdb"),
            (
                "postgres://ann@/mail?host=/tmp/my%20sockets&port=7",
                "sudo -u postgres createdb --host='/tmp/my sockets' --port=7",
            ),
            ("postgres://ann@db.example/mail", "createdb --host=db.example --port=5432 --username=postgres"),
        ] {
            assert_eq!(creation(text), Some(format!("{command} {rest}")));
        }
        let hostile = creation("postgres://a%27%3Breboot@/d").unwrap();
        assert!(hostile.contains(r"--owner='a'\'';reboot' "), "{hostile}");
    }

    #[test]
    fn several_hosts_sockets_and_ipv6_addresses_are_read_as_libpq_reads_them() {
        let of = |text: &str| url(text).hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(
            of("postgres://u@a.example,b.example:5433,[2001:db8::1]:5434/d"),
            "a.example:5432 b.example:5433 [2001:db8::1]:5434"
        );
        assert_eq!(of("postgres://u@/d?host=a.example,b.example&port=1,2"), "a.example:1 b.example:2");
        assert_eq!(of("postgres://u@a.example,b.example/d?port=7"), "a.example:7 b.example:7");
        assert_eq!(of("postgres://u@%2Fvar%2Frun:7/d"), "/var/run/.s.PGSQL.7");
        assert_eq!(of("postgres:///d?host=/tmp&user=u"), "/tmp/.s.PGSQL.5432");
        for text in [
            "u@a,b/d?port=1,2,3",
            "u@a:0/d",
            "u@a:70000/d",
            "u@a:x/d",
            "u@[::1/d",
            "u@[::1]x/d",
            "u@a,/d",
            "u@a b/d",
        ] {
            assert!(parse(&format!("postgres://{text}")).is_err(), "{text}");
        }
    }

    #[test]
    fn tls_is_verified_unless_the_server_is_on_this_machine_or_it_is_switched_off() {
        let uses = |text: &str| {
            let location = url(text);
            location.uses_tls(&location.hosts[0])
        };
        for (text, is_on) in [
            ("postgres://u@db.example/d", true),
            ("postgres://u@192.0.2.1/d", true),
            ("postgres://u@localhost.example/d", true),
            ("postgres://u@db.example/d?sslmode=disable", false),
            ("postgres://u@localhost/d", false),
            ("postgres://u@127.0.0.2/d", false),
            ("postgres://u@[::1]/d", false),
            ("postgres://u@[::1]/d?sslmode=verify-full", true),
            ("postgres://u@/d?sslmode=verify-full", false),
        ] {
            assert_eq!(uses(text), is_on, "{text}");
        }
        for mode in ["prefer", "require", "allow", "verify-ca", ""] {
            let error = parse(&format!("postgres://u@h/d?sslmode={mode}")).unwrap_err().to_string();
            assert_eq!(error, "its parameter sslmode takes verify-full or disable");
        }
        let roots = |text: &str| url(text).roots;
        assert_eq!(roots("postgres://u@h/d?sslrootcert=ca.pem"), Some("/etc/sternpost/ca.pem".into()));
    }

    #[test]
    fn a_password_and_what_is_not_supported_are_refused_without_repeating_a_secret() {
        for text in [
            "postgres://u:secret@h/d",
            "postgres://u:@h/d",
            "postgres://u@h/d?password=secret",
            "postgres://u:12345?secret@h/d",
            // Another at sign follows in a parameter, the database or the password itself.
            "postgres://u:secret@127.0.0.1:1/db?sslrootcert=/run/credentials/sternpost@main.service/ca.pem",
            "postgres://u:secret@h/tenant@one",
            "postgres://u:secret@/x@h/db",
            "postgres://u:se/cret@h/d?sslrootcert=/a@b",
            "postgres://u:12345/secret?x@h/d@e",
            "postgres://u@h:secret@x/d",
            "postgres://h/d?user=u:secret",
            "postgres://:secret@h/d?user=u",
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error, LocationError::Password, "{text}");
            assert!(!format!("{error:?} {error}").contains("secret"));
        }
        // An at sign elsewhere is not a password.
        let found = url("postgres://u@h:7/tenant@one?sslrootcert=/run/sternpost@main.service/ca.pem");
        assert_eq!((found.user.as_str(), found.database.as_str()), ("u", "tenant@one"));
        let found = url("postgres://h:7/d?user=u&sslrootcert=/run/sternpost%40main.service/ca.pem");
        assert_eq!(found.roots, Some("/run/sternpost@main.service/ca.pem".into()));
        assert_eq!(parse("postgres://h/d"), Err(LocationError::User));
        assert_eq!(parse("postgres://u@h/d?options=-c"), Err(LocationError::Parameter("options".into())));
        for text in ["mysql://u@h/d", "sqlite:", "/var/s.db", ""] {
            assert_eq!(parse(text), Err(LocationError::Scheme), "{text}");
        }
        for text in ["postgres://u%4@h/d", "postgres://u%00@h/d", "postgres://%ff@h/d", "postgres://u%zz@h/d"]
        {
            assert_eq!(parse(text), Err(LocationError::Escape), "{text}");
        }
        assert_eq!(parse(&format!("postgres://u@{}/d", "h".repeat(5000))), Err(LocationError::Length));
        assert!(parse("postgres://u@h/d?target_session_attrs=any").is_err());
        assert!(parse("postgres://u@h/d?target_session_attrs=read-write").is_ok());
        assert!(parse("postgres://u@h/d?statement-cache-capacity=-1").is_err());
        assert_eq!(url("postgres://u@h/d?statement-cache-capacity=0").kept_statements, 0);
    }

    #[test]
    fn names_with_special_characters_are_encoded() {
        let found = url("postgres://o%40range%2Fx%3A@h/my%20d%3F");
        assert_eq!((found.user.as_str(), found.database.as_str()), ("o@range/x:", "my d?"));
        assert_eq!(found.to_string(), "postgres://o%40range%2Fx%3A@h:5432/my%20d%3F");
    }

    proptest! {
        #[test]
        fn a_password_is_in_no_location_and_no_message_whatever_surrounds_it(
            before in "[a-z/?=&%@]{0,6}", after in "[a-z@:/?&=.,%-]{0,30}"
        ) {
            // What follows the first colon in front of an at sign.
            let text = format!("postgres://{before}:SECRET@{after}");
            let shown = match parse(&text) {
                Ok(location) => format!("{location} {location:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            // Without a user before the colon there is no password: the secret is a port, or part of a name.
            prop_assert!(before.contains(['@', '/', '?']) || !shown.contains("SECRET"), "{text}: {shown}");
        }

        #[test]
        fn any_text_is_parsed_or_refused_and_what_is_parsed_is_printed_as_a_url_of_the_same(
            text in "(postgres://|sqlite:)?[a-z%@:/,?=&.\\[\\]0-9 é-]{0,40}"
        ) {
            if let Ok(Location::Postgres(location)) = parse(&text) {
                prop_assert_eq!(parse(&location.to_string()), Ok(Location::Postgres(location)));
            }
        }
    }
}
