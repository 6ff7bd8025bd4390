//! Parses the TOML text and validates every key and value against the table in `keys`. An unknown key, a value of the
//! wrong type and a malformed value are errors with line and column. The result, [`Read`], is what the sections are
//! built from.

use crate::credentials::{expanded, misunderstanding};
use crate::fault::{Fault, fault, kind_of, line_and_column, nearest, syntax_fault};
use crate::keys::{KEYS, Key, Kind};
#[cfg(feature = "imap")]
use crate::mailbox::MailboxSpec;
use crate::members::{ignored, known_members, line_of, misspelled, tables};
use crate::specs::{AuthoritySpec, CertificateFiles, Deliver, KeySpec, ProviderSpec, UpdateServer};
use crate::targets::TargetSpec;
use crate::week_time::WeekTime;
use crate::{defaults, maps, overrides, owner};
use formats::DomainName;
use formats::tlsrpt_record::{HttpsUrl, MailAddress};
use net::smtp::Helo;
use receiver::domain::DomainSpec;
use sender::serve::listen::Address;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::Path;
use store::tenants::TenantName;
use store::{Location, LocationError};
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Value};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The line of the file, from 1.
    Line(usize),
    /// The environment variable of this name.
    Variable(String),
}

/// The validated values by key, each with its origin, and the sections that are present.
#[derive(Debug, Clone)]
pub struct Read {
    values: Values,
    sections: BTreeSet<String>,
    /// Keys and variables that were ignored, since only a newer release may know them.
    pub warnings: Vec<String>,
}

impl Read {
    /// Reads the text of a file. `credentials` is the folder that `$CREDENTIALS_DIRECTORY` stands for.
    pub fn new(text: &str, credentials: &Path) -> Result<Self, Fault> {
        let table = DeTable::parse(text)
            .map_err(|error| syntax_fault(text, error.span().unwrap_or_default(), error.message()))?;
        let mut read = Self { values: BTreeMap::new(), sections: BTreeSet::new(), warnings: Vec::new() };
        walk(text, table.get_ref(), "", &mut read)?;
        for (value, _) in read.values.values_mut() {
            *value = expanded(std::mem::replace(value, Value::Boolean(false)), credentials);
        }
        // The library sorts tables by name.
        read.warnings.sort_by_key(|warning| line_of(warning));
        Ok(read)
    }

    pub fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key).map(|(value, _)| value)
    }

    /// Where the value of the key comes from; `None` if the key is not set.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.values.get(key).map(|(_, origin)| origin)
    }

    /// Sets a validated value. The sections that the key is in count as present.
    pub fn set(&mut self, key: &'static Key, value: Value, origin: Origin) {
        self.sections
            .extend(key.path.match_indices('.').filter_map(|(at, _)| Some(key.path.get(..at)?.to_owned())));
        self.values.insert(key.path, (value, origin));
    }

    /// Adds the members of `[defaults]` to the domains that do not have them.
    pub fn add_defaults(&mut self) {
        let defaults = self.defaults();
        let Some((Value::Array(domains), _)) = self.values.get_mut("domain") else { return };
        for domain in domains {
            if let Value::Table(members) = domain {
                *members = defaults::merged(std::mem::take(members), &defaults);
            }
        }
    }

    /// The members of `[defaults]`; empty without that section.
    pub fn defaults(&self) -> toml::Table {
        self.value("defaults").and_then(Value::as_table).cloned().unwrap_or_default()
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        self.value(key).and_then(Value::as_str)
    }

    pub fn list(&self, key: &str) -> Vec<&str> {
        self.value(key)
            .and_then(Value::as_array)
            .map(|items| items.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default()
    }

    /// The listen address of a key that has at most one. It was validated when the file was read.
    pub fn address(&self, key: &str) -> Option<Address> {
        self.text(key).and_then(Address::parse)
    }

    /// True if the file has the section, even an empty one, or the environment sets one of its keys.
    pub fn has(&self, section: &str) -> bool {
        self.sections.contains(section)
    }

    /// The listen addresses of a key, or the default. They were validated when the file was read.
    pub fn addresses(&self, key: &str, default: &str) -> Vec<Address> {
        let listed = self.value(key).map(|_| self.list(key));
        let texts = listed.unwrap_or_else(|| if default.is_empty() { Vec::new() } else { vec![default] });
        texts.into_iter().filter_map(Address::parse).collect()
    }

    /// The tables of a key. They were validated when the file was read.
    pub fn tables<T: DeserializeOwned>(&self, key: &str) -> Vec<T> {
        let items = self.value(key).and_then(Value::as_array).cloned().unwrap_or_default();
        items.into_iter().filter_map(|item| item.try_into().ok()).collect()
    }

    pub fn number(&self, key: &str, default: u32) -> u32 {
        self.value(key).and_then(Value::as_integer).and_then(|n| n.try_into().ok()).unwrap_or(default)
    }

    pub fn flag(&self, key: &str) -> bool {
        self.value(key).and_then(Value::as_bool).unwrap_or(false)
    }

    pub fn port(&self, key: &str, default: u16) -> u16 {
        self.value(key).and_then(Value::as_integer).and_then(|port| port.try_into().ok()).unwrap_or(default)
    }
}

type Values = BTreeMap<&'static str, (Value, Origin)>;

/// Validates a table and its sections. `prefix` is the section's name; empty at the top level.
fn walk(text: &str, table: &DeTable<'_>, prefix: &str, read: &mut Read) -> Result<(), Fault> {
    for (name, value) in table {
        let path = if prefix.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{prefix}.{}", name.get_ref())
        };
        let is_section = KEYS
            .iter()
            .any(|key| key.path.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('.')));
        if let Some(key) = KEYS.iter().find(|key| key.path == path) {
            let validated = validate(text, key, value, &mut read.warnings)?;
            let line = line_and_column(text, name.span().start).0;
            read.values.insert(key.path, (validated, Origin::Line(line)));
        } else if is_section {
            let DeValue::Table(inner) = value.get_ref() else {
                return Err(fault(
                    text,
                    value.span(),
                    format!("[{path}] is a section"),
                    &format!("Write it as\n  [{path}]"),
                ));
            };
            read.sections.insert(path.clone());
            walk(text, inner, &path, read)?;
        } else {
            if is_misspelled(&path) {
                return Err(unknown(text, name.span(), &path));
            }
            if KEYS.iter().any(|key| key.path == name.get_ref().as_ref()) {
                return Err(misplaced(text, name.span(), name.get_ref(), prefix));
            }
            read.warnings.push(ignored(text, &name.span(), &path) + &elsewhere(name.get_ref()));
        }
    }
    Ok(())
}

/// True if a known key or section is spelled nearly like `path`. A key in a section resembles only those of its section, and
/// those of the same name in another one.
fn is_misspelled(path: &str) -> bool {
    match path.rsplit_once('.') {
        None => {
            let heads = KEYS.iter().map(|key| key.path.split('.').next().unwrap_or_default());
            misspelled(path, heads).is_some()
                || KEYS.iter().any(|key| key.path.rsplit('.').next() == Some(path))
        }
        Some((section, name)) => {
            let below = |key: &Key| key.path.strip_prefix(section)?.strip_prefix('.')?.split('.').next();
            misspelled(name, KEYS.iter().filter_map(below)).is_some()
        }
    }
}

/// The error for a key of the top level that is placed below a section.
fn misplaced(text: &str, span: Range<usize>, name: &str, section: &str) -> Fault {
    let what = format!("{name} is below [{section}], but is a top-level key");
    fault(
        text,
        span,
        what,
        "Move it above the first section of the file: a key belongs to the section above it",
    )
}

/// Where a key of this name belongs, for the warning about one in a section that does not have it; empty if nowhere.
fn elsewhere(name: &str) -> String {
    let of_keys = KEYS.iter().filter_map(|key| key.path.rsplit_once('.')).filter(|(_, last)| *last == name);
    let mut places: Vec<String> = of_keys.map(|(section, _)| format!("[{section}]")).collect();
    if known_members::<DomainSpec>().iter().any(|member| member == name) {
        places.push("[[domain]]".to_owned());
    }
    match places.is_empty() {
        true => String::new(),
        false => format!("; it belongs to {}", places.join(" or ")),
    }
}

/// The error for an unknown key, with the closest known one.
fn unknown(text: &str, span: Range<usize>, path: &str) -> Fault {
    let sections = KEYS.iter().map(|key| key.path.split_once('.').map_or(key.path, |(head, _)| head));
    let near = match path.contains('.') {
        true => nearest(path, KEYS.iter().map(|key| key.path)).map(|near| format!("Did you mean {near}? ")),
        false => nearest(path, sections).map(|near| format!("Did you mean [{near}]? ")),
    };
    let remedy = format!("{}`sternpost config reference` lists all keys.", near.unwrap_or_default());
    fault(text, span, format!("unknown key {path:?}"), &remedy)
}

/// Checks that a value is of the key's kind, and converts it.
pub fn validate(
    text: &str,
    key: &Key,
    value: &Spanned<DeValue<'_>>,
    warnings: &mut Vec<String>,
) -> Result<Value, Fault> {
    let wrong = |what: String| {
        fault(text, value.span(), what, &format!("{} takes {}", key.path, key.kind.expected()))
    };
    match (key.kind, value.get_ref()) {
        (Kind::Bool, DeValue::Boolean(on)) => Ok(Value::Boolean(*on)),
        (Kind::File, DeValue::String(file)) if !file.is_empty() => match misunderstanding(file) {
            None => Ok(Value::String(file.to_string())),
            Some(what) => {
                let remedy = "Only $CREDENTIALS_DIRECTORY/ is replaced, by the folder of the unit's credentials (LoadCredential=)";
                Err(fault(text, value.span(), what, remedy))
            }
        },
        (Kind::DatagramSocket, DeValue::String(place)) => {
            match (place.strip_prefix("systemd:"), Address::parse(place)) {
                (None, _) if !place.is_empty() => Ok(Value::String(place.to_string())),
                (Some(_), Some(Address::Systemd(Some(_)))) => Ok(Value::String(place.to_string())),
                _ => Err(wrong(format!("{place:?} is not a valid socket"))),
            }
        }
        (Kind::Choice(words), DeValue::String(word)) if words.contains(&word.as_ref()) => {
            Ok(Value::String(word.to_string()))
        }
        (Kind::Choice(words), DeValue::String(word)) => {
            let near = nearest(word, words.iter().copied()).map(|near| format!(". Did you mean {near:?}?"));
            let remedy = format!("{} takes {}{}", key.path, key.kind.expected(), near.unwrap_or_default());
            Err(fault(text, value.span(), format!("{word:?} is not a valid value of {}", key.path), &remedy))
        }
        (Kind::Port, DeValue::Integer(port)) => match i64::from_str_radix(port.as_str(), port.radix()) {
            Ok(number @ 1..=65_535) => Ok(Value::Integer(number)),
            _ => Err(wrong(format!("{} is not a valid port", port.as_str()))),
        },
        (Kind::Number(least, most), DeValue::Integer(number)) => {
            match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) if (least..=most).contains(&number) => Ok(Value::Integer(number)),
                _ => Err(wrong(format!("{} is out of range", number.as_str()))),
            }
        }
        (Kind::Store, DeValue::String(place)) => match Location::parse(place, Path::new("")) {
            Ok(_) => Ok(Value::String(place.to_string())),
            // The text may contain a password.
            Err(LocationError::Password) => Err(fault(
                text,
                value.span(),
                format!("the URL in {} is not valid: {}", key.path, LocationError::Password),
                "Write the password to a file that only the user of Sternpost can read, and name it with\n  store_password_file = \"/etc/sternpost/store-password\"",
            )),
            Err(error) => Err(wrong(format!("the value of {} is not valid: {error}", key.path))),
        },
        (Kind::FileMode, DeValue::String(mode)) => match u32::from_str_radix(mode, 8) {
            Ok(0..=0o777) => Ok(Value::String(mode.to_string())),
            _ => Err(wrong(format!("{mode:?} is not a valid file mode"))),
        },
        (Kind::Owner, DeValue::String(owner)) => match owner::numbers(owner) {
            Ok(_) => Ok(Value::String(owner.to_string())),
            Err(what) => Err(wrong(what)),
        },
        (Kind::Loopback, DeValue::String(address)) => match Address::parse(address) {
            Some(Address::Tcp(tcp)) if tcp.ip().is_loopback() => Ok(Value::String(address.to_string())),
            Some(Address::Systemd(_)) => Ok(Value::String(address.to_string())),
            Some(Address::Tcp(_)) => Err(fault(
                text,
                value.span(),
                match key.path {
                    "admin.listen" => format!(
                        "{address:?} is reachable from other hosts, and the interface has no TLS, which would protect its token"
                    ),
                    _ => format!(
                        "{address:?} is reachable from other hosts, and the protocol has no authentication"
                    ),
                },
                match key.path {
                    "admin.listen" => "Listen on 127.0.0.1, and put a reverse proxy with TLS in front",
                    _ => "Listen on 127.0.0.1, and put a reverse proxy with authentication in front",
                },
            )),
            _ => Err(wrong(format!("{address:?} is not a valid address and port"))),
        },
        (Kind::Listeners, DeValue::Array(items)) => texts(
            items,
            |place| Address::parse(place).is_some(),
            |other, span| {
                let remedy = "Write it as \"127.0.0.1:8461\", \"unix:/run/sternpost/answers.sock\" or \"systemd:NAME\"";
                fault(text, span, format!("{other:?} is not a valid listen address"), remedy)
            },
            || wrong(format!("{} contains a value that is not a string", key.path)),
        ),
        (Kind::TcpListeners, DeValue::Array(items)) => texts(
            items,
            is_tcp_listener,
            |other, span| {
                let remedy = "Write it as \"127.0.0.1:8460\", \"[::1]:8460\" or \"systemd:NAME\"";
                fault(text, span, format!("{other:?} is not a valid listen address"), remedy)
            },
            || wrong(format!("{} contains a value that is not a string", key.path)),
        ),
        (Kind::Addresses, DeValue::Array(items)) => texts(
            items,
            |address| address.parse::<SocketAddr>().is_ok(),
            |other, span| {
                let remedy = "Write it as \"192.0.2.1:53\" or \"[2001:db8::1]:53\"";
                fault(text, span, format!("{other:?} is not a valid address and port"), remedy)
            },
            || wrong(format!("{} contains a value that is not a string", key.path)),
        ),
        (Kind::Overrides, DeValue::Array(items)) => overrides::validate_all(text, items, warnings),
        (Kind::Maps, DeValue::Table(tables)) => maps::validate(text, tables, warnings),
        (Kind::Domains, DeValue::Array(items)) => tables::<DomainSpec>(text, key.path, items, warnings),
        (Kind::DomainDefaults, DeValue::Table(_)) => defaults::validate(text, value, warnings),
        (Kind::Updates, DeValue::Array(items)) => tables::<UpdateServer>(text, key.path, items, warnings),
        (Kind::Authorities, DeValue::Array(items)) => {
            tables::<AuthoritySpec>(text, key.path, items, warnings)
        }
        (Kind::CertificateFiles, DeValue::Array(items)) => {
            tables::<CertificateFiles>(text, key.path, items, warnings)
        }
        (Kind::Providers, DeValue::Array(items)) => tables::<ProviderSpec>(text, key.path, items, warnings),
        (Kind::Tenant, DeValue::String(name)) => match name.parse::<TenantName>() {
            Ok(_) => Ok(Value::String(name.to_string())),
            Err(error) => Err(wrong(error.to_string())),
        },
        (Kind::Name, DeValue::String(name)) => match DomainName::parse(name) {
            Ok(_) => Ok(Value::String(name.to_string())),
            Err(error) => Err(wrong(format!("{name:?}: {error}"))),
        },
        (Kind::Helo, DeValue::String(name)) => match Helo::parse(name) {
            Ok(_) => Ok(Value::String(name.to_string())),
            Err(error) => Err(wrong(format!("{name:?}: {error}"))),
        },
        (Kind::Targets, DeValue::Array(items)) => tables::<TargetSpec>(text, key.path, items, warnings),
        (Kind::TcpAddress, DeValue::String(address)) => match is_tcp_listener(address) {
            true => Ok(Value::String(address.to_string())),
            false => Err(wrong(format!("{address:?} is not a valid address and port"))),
        },
        (Kind::HttpsUrl, DeValue::String(url)) => match HttpsUrl::parse(url) {
            Ok(_) => Ok(Value::String(url.to_string())),
            Err(error) => Err(wrong(format!("{url:?}: {error}"))),
        },
        (Kind::IpAddresses, DeValue::Array(items)) => texts(
            items,
            |address| address.parse::<IpAddr>().is_ok(),
            |other, span| {
                fault(text, span, format!("{other:?} is not a valid IP address"), "Write it as \"192.0.2.1\"")
            },
            || wrong(format!("{} contains a value that is not a string", key.path)),
        ),
        (Kind::Url(scheme), DeValue::String(url)) if is_url(scheme, url) => {
            Ok(Value::String(url.to_string()))
        }
        // The path of a webhook is often its secret, so the value is not shown.
        (Kind::Url(_), DeValue::String(_)) => {
            Err(wrong(format!("the value of {} is not a valid URL", key.path)))
        }
        (Kind::MailAddresses, DeValue::Array(items)) => texts(
            items,
            |address| MailAddress::parse(address).is_ok(),
            |other, span| {
                fault(
                    text,
                    span,
                    format!("{other:?} is not a valid mail address"),
                    "Write it as \"tlsrpt@example.org\"",
                )
            },
            || wrong(format!("{} contains a value that is not a string", key.path)),
        ),
        (Kind::MailAddress, DeValue::String(address)) => match MailAddress::parse(address) {
            Ok(_) => Ok(Value::String(address.to_string())),
            Err(error) => Err(wrong(format!("{address:?}: {error}"))),
        },
        (Kind::Names, DeValue::Array(items)) => texts(
            items,
            |name| DomainName::parse(name).is_ok(),
            |other, span| {
                let remedy = "Write it as \"example.org\"; it covers its subdomains too";
                fault(text, span, format!("{other:?} is not a valid domain name"), remedy)
            },
            || wrong(format!("{} contains a value that is not a string", key.path)),
        ),
        (Kind::DkimKeys, DeValue::Array(items)) => tables::<KeySpec>(text, key.path, items, warnings),
        (Kind::DkimKeys, DeValue::Table(_)) => {
            tables::<KeySpec>(text, key.path, std::slice::from_ref(value), warnings)
        }
        #[cfg(feature = "imap")]
        (Kind::Mailboxes, DeValue::Array(items)) => tables::<MailboxSpec>(text, key.path, items, warnings),
        #[cfg(feature = "imap")]
        (Kind::Mailboxes, DeValue::Table(_)) => {
            tables::<MailboxSpec>(text, key.path, std::slice::from_ref(value), warnings)
        }
        // A build that reads no mailbox rejects any.
        #[cfg(not(feature = "imap"))]
        (Kind::Mailboxes, DeValue::Array(_) | DeValue::Table(_)) => Ok(Value::Boolean(true)),
        (Kind::Deliver, DeValue::String(way)) => match Deliver::parse(way) {
            Some(_) => Ok(Value::String(way.to_string())),
            None => Err(wrong(format!("{way:?} is not a valid delivery method"))),
        },
        (Kind::UrlPath, DeValue::String(path)) => match path.strip_prefix('/') {
            Some(rest) if !rest.is_empty() && rest.split('/').all(is_segment) => {
                Ok(Value::String(path.to_string()))
            }
            _ => Err(wrong(format!("{path:?} is not a valid URL path"))),
        },
        (Kind::WeekTime, DeValue::String(time)) => match WeekTime::parse(time) {
            Some(_) => Ok(Value::String(time.to_string())),
            None => Err(wrong(format!("{time:?} is not a valid time of the week"))),
        },
        (Kind::Text, DeValue::String(word)) if !word.is_empty() => Ok(Value::String(word.to_string())),
        (kind, DeValue::Table(_)) if kind.is_list_of_tables() => Err(fault(
            text,
            value.span(),
            format!("[{}] is a single table", key.path),
            &format!("Write [[{}]], with two brackets", key.path),
        )),
        (kind, other) if kind.is_list_of_tables() => Err(fault(
            text,
            value.span(),
            format!("{} is {}", key.path, kind_of(other)),
            &format!("Write one [[{}]] for each; `sternpost config reference` describes it", key.path),
        )),
        (_, other) => Err(wrong(format!("{} is {}", key.path, kind_of(other)))),
    }
}

/// True for a URL that begins with `scheme` and has a host, or for `mailto:`, an address.
fn is_url(scheme: &str, url: &str) -> bool {
    let is_clean = url.starts_with(scheme) && !url.chars().any(|c| c.is_whitespace() || c.is_control());
    is_clean
        && match url.split_once("://") {
            Some((_, rest)) => {
                let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
                !host.rsplit('@').next().unwrap_or_default().trim_start_matches(':').is_empty()
            }
            None => url.strip_prefix("mailto:").is_some_and(|address| address.contains('@')),
        }
}

/// True for a TCP address, and for a socket of systemd.
fn is_tcp_listener(text: &str) -> bool {
    matches!(Address::parse(text), Some(Address::Tcp(_) | Address::Systemd(_)))
}

/// True for a non-empty path segment of letters, digits, `-` and `_`.
fn is_segment(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Validates a list of strings. `is_good` accepts an item, `bad` describes a rejected one, `no_text` another type.
fn texts(
    items: &[Spanned<DeValue<'_>>],
    is_good: impl Fn(&str) -> bool,
    bad: impl Fn(&str, Range<usize>) -> Fault,
    no_text: impl Fn() -> Fault,
) -> Result<Value, Fault> {
    let one = |item: &Spanned<DeValue<'_>>| match item.get_ref() {
        DeValue::String(given) if is_good(given) => Ok(Value::String(given.to_string())),
        DeValue::String(other) => Err(bad(other, item.span())),
        _ => Err(no_text()),
    };
    Ok(Value::Array(items.iter().map(one).collect::<Result<_, _>>()?))
}
