//! The `_smtp._tls` TXT record, which lists the targets of TLS reports (RFC 8460 §3). The report delivery and the check
//! parse the TXT answers; the rollout publishes records.

use crate::domain::DomainName;
use crate::fields::{Field, check_unknown, fields, has_version, select};
pub use crate::fields::{FieldError, FieldFault, SelectError};
use crate::limits::{RUA_TARGETS, TXT_RECORDS};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;
use std::fmt;
use url::{Host, ParseError, Position, Url};

const VERSION: &str = "v=TLSRPTv1";

/// A valid `_smtp._tls` record (RFC 8460 §3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsrptRecord {
    /// The report targets in order, at most [`RUA_TARGETS`].
    pub rua: Vec<Rua>,
    /// Names and values of unknown fields, in order.
    pub extensions: Vec<(String, String)>,
    /// Oddities that do not make the record invalid.
    pub notes: Vec<TlsrptNote>,
}

/// A report target: one URI of the field `rua`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Rua {
    /// Send reports by mail to this address.
    Mailto(MailAddress),
    /// Send reports by HTTPS POST to this URL.
    Https(HttpsUrl),
}

/// A mail address `local@domain`, without quoting and comments.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MailAddress {
    local: String,
    domain: DomainName,
}

/// An `https:` URL whose host is a domain name. [`fmt::Display`] prints it as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpsUrl {
    text: String,
    host: DomainName,
    url: Url,
}

/// An oddity of a valid record, for `check`, which has a finding for each kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsrptNote {
    /// The target has a scheme other than `mailto:` and `https:`, and is ignored.
    UnknownScheme(String),
    /// The target is not a valid URI of its scheme, and is ignored, since the record has others.
    BadTarget {
        /// The byte position in the record, counted from 1.
        column: usize,
        /// The target as written; empty between two commas.
        target: String,
        /// The reason, for display.
        why: &'static str,
    },
    /// The field of this name occurs more than once; the first value is used.
    Repeated(String),
    /// There are more than [`RUA_TARGETS`] targets; further ones are ignored.
    TooManyTargets,
    /// There is white space before the first `;`. Some senders discard such a record.
    SpaceBeforeDelimiter,
}

impl TlsrptRecord {
    /// Parses one TXT record with its strings joined. Fails with [`SelectError::None`] if it has a different version.
    pub fn parse(record: &[u8]) -> Result<Self, SelectError> {
        if !has_version(record, VERSION) {
            return Err(SelectError::None);
        }
        Ok(Self::parse_versioned(record)?)
    }

    /// Finds and parses the only record of this version among the TXT records of a name (RPT-01).
    pub fn select<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, SelectError> {
        let record = select(records.into_iter().take(TXT_RECORDS), VERSION)?;
        Ok(Self::parse_versioned(record)?)
    }

    /// Creates a record that contains only these targets.
    pub fn new(rua: Vec<Rua>) -> Self {
        Self { rua, extensions: Vec::new(), notes: Vec::new() }
    }

    fn parse_versioned(record: &[u8]) -> Result<Self, FieldError> {
        let mut kept = Self::new(Vec::new());
        let mut seen_rua = false;
        if record.get(VERSION.len()) != Some(&b';') {
            kept.notes.push(TlsrptNote::SpaceBeforeDelimiter);
        }
        for field in fields(record, VERSION)? {
            let field = field?;
            let is_rua = field.name == "rua";
            let seen =
                if is_rua { seen_rua } else { kept.extensions.iter().any(|(name, _)| name == field.name) };
            if seen {
                kept.notes.push(TlsrptNote::Repeated(field.name.to_owned()));
            } else if is_rua {
                seen_rua = true;
                kept.take_rua(field)?;
            } else {
                check_unknown(field)?;
                kept.extensions.push((field.name.to_owned(), field.value.to_owned()));
            }
        }
        if !seen_rua {
            return Err(FieldError { column: record.len() + 1, fault: FieldFault::NoRua });
        }
        Ok(kept)
    }

    /// Takes the valid targets of the field. An invalid target is ignored if the field has a valid one, since it says
    /// nothing about the others; it is never changed into something that the owner did not write.
    fn take_rua(&mut self, field: Field<'_>) -> Result<(), FieldError> {
        let mut column = field.column + field.name.len() + 1;
        let mut bad = Vec::new();
        for raw in field.value.split(',') {
            let target = raw.trim();
            let at = column + (raw.len() - raw.trim_start().len());
            column += raw.len() + 1;
            if self.rua.len() == RUA_TARGETS {
                self.notes.push(TlsrptNote::TooManyTargets);
                break;
            }
            match Rua::parse(target) {
                Ok(Some(rua)) => self.rua.push(rua),
                Ok(None) => self.notes.push(TlsrptNote::UnknownScheme(target.to_owned())),
                Err(why) => bad.push((at, target.to_owned(), why)),
            }
        }
        if self.rua.is_empty()
            && let Some((column, target, why)) = bad.first().cloned()
        {
            return Err(FieldError { column, fault: FieldFault::BadRua(target, why) });
        }
        let notes =
            bad.into_iter().map(|(column, target, why)| TlsrptNote::BadTarget { column, target, why });
        self.notes.extend(notes);
        Ok(())
    }
}

impl Rua {
    /// Parses one URI. Returns `Ok(None)` for a valid URI with a scheme other than `mailto:` and `https:`. The error
    /// is the reason, for display.
    pub fn parse(text: &str) -> Result<Option<Self>, &'static str> {
        let (scheme, rest) = text.split_once(':').ok_or("expected mailto: or https:")?;
        let scheme_fits = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        if !scheme_fits {
            return Err("the text before `:` is not a valid URI scheme");
        }
        if rest.contains(['!', ';', ',']) || !rest.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("`,`, `!`, `;` and spaces inside a target must be percent-encoded");
        }
        percent_decode(rest).ok_or("a `%` is not followed by two hexadecimal digits")?;
        if scheme.eq_ignore_ascii_case("mailto") {
            return Ok(Some(Self::Mailto(MailAddress::from_uri(rest)?)));
        }
        if scheme.eq_ignore_ascii_case("https") {
            return Ok(Some(Self::Https(HttpsUrl::parse(text)?)));
        }
        Ok(None)
    }
}

impl MailAddress {
    fn from_uri(rest: &str) -> Result<Self, &'static str> {
        // Slashes begin a host in other URIs; in an address they have to be percent-encoded (RFC 6068 §2).
        if rest.starts_with("//") {
            return Err("slashes after `mailto:` are not part of an address");
        }
        let address = rest.split('?').next().unwrap_or_default();
        let decoded = percent_decode(address).ok_or("a `%` is not followed by two hexadecimal digits")?;
        Self::parse(&decoded)
    }

    /// Parses `local@domain`. The local part is stored unquoted; [`fmt::Display`] quotes it where SMTP and message
    /// headers require that (RFC 5321 §4.1.2). The error is the reason, for display.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (local, domain) = text.rsplit_once('@').ok_or("expected local@domain")?;
        let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '"' | '\\' | '@');
        if local.is_empty() || local.len() > 64 || !local.chars().all(fits) {
            return Err(
                "the part before `@` must be 1 to 64 printable ASCII characters without quotes or brackets",
            );
        }
        let domain = DomainName::parse(domain).map_err(|_| "the part after `@` is not a domain name")?;
        Ok(Self { local: local.to_owned(), domain })
    }

    /// Returns the domain of the address.
    pub fn domain(&self) -> &DomainName {
        &self.domain
    }
}

impl HttpsUrl {
    /// Parses `https://host[:port][/path][?query]` in printable ASCII. Rejects user names, backslashes, and IP
    /// addresses as host. Decodes percent-encoded letters of the host. The error is the reason, for display.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const SCHEME: &str = "https://";
        if !text.get(..SCHEME.len()).is_some_and(|head| head.eq_ignore_ascii_case(SCHEME)) {
            return Err("expected https://");
        }
        // `Url` repairs URLs as browsers do: it drops tabs and line ends, and reads backslashes and extra slashes
        // before the host as `/`. Such texts are not valid URIs (RFC 3986 §2), so they are rejected first.
        let rest = text.get(SCHEME.len()..).unwrap_or_default();
        if rest.starts_with('/') || rest.contains('\\') || !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the host is not a domain name");
        }
        let url = Url::parse(text).map_err(|error| match error {
            ParseError::InvalidPort => "the port is not a number up to 65535",
            _ => "the host is not a domain name",
        })?;
        if rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@')) {
            return Err("a URL with a user name is not accepted");
        }
        let Some(Host::Domain(host)) = url.host() else { return Err("the host is not a domain name") };
        let host = DomainName::parse(host).map_err(|_| "the host is not a domain name")?;
        Ok(Self { text: text.to_owned(), host, url })
    }

    /// Returns the host, in lower case.
    pub fn host(&self) -> &DomainName {
        &self.host
    }

    /// Returns the port; 443 if the URL has none.
    pub fn port(&self) -> u16 {
        self.url.port().unwrap_or(443)
    }

    /// Returns path and query for the request, without the fragment. The path is `/` if the URL has none.
    pub fn path(&self) -> &str {
        &self.url[Position::BeforePath..Position::AfterQuery]
    }
}

/// The characters of a local part that are percent-encoded: delimiters of the record (RFC 8460 §3) and of a `mailto:`
/// URI (RFC 6068 §2).
const LOCAL_PART: &AsciiSet =
    &CONTROLS.add(b' ').add(b',').add(b'!').add(b';').add(b'%').add(b'?').add(b'#').add(b'=').add(b'/');

/// Decodes `%XX`. Returns `None` if a `%` is not followed by two hexadecimal digits, or if the result is not UTF-8.
/// `percent_decode_str` keeps such a `%` unchanged, which RFC 3986 §2.1 does not allow.
fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    let is_encoded = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !text.split('%').skip(1).all(is_encoded) {
        return None;
    }
    percent_decode_str(text).decode_utf8().ok()
}

impl fmt::Display for MailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let atom = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
        let plain = self.local.split('.').all(|part| !part.is_empty() && part.chars().all(atom));
        let quote = if plain { "" } else { "\"" };
        write!(f, "{quote}{}{quote}@{}", self.local, self.domain)
    }
}

impl fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Rua {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mailto(address) => {
                f.write_str("mailto:")?;
                write!(f, "{}@{}", utf8_percent_encode(&address.local, LOCAL_PART), address.domain)
            }
            Self::Https(url) => url.fmt(f),
        }
    }
}

impl fmt::Display for TlsrptRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("v=TLSRPTv1; rua=")?;
        for (index, rua) in self.rua.iter().enumerate() {
            write!(f, "{}{rua}", if index > 0 { "," } else { "" })?;
        }
        self.extensions.iter().try_for_each(|(name, value)| write!(f, "; {name}={value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<TlsrptRecord, SelectError> {
        TlsrptRecord::parse(text.as_bytes())
    }

    fn targets(text: &str) -> Vec<String> {
        parse(text).unwrap().rua.iter().map(Rua::to_string).collect()
    }

    #[test]
    fn rpt_01_exactly_one_record_of_the_version_remains() {
        let one: &[u8] = b"v=TLSRPTv1; rua=mailto:a@b.example";
        let select = |records: &[&[u8]]| TlsrptRecord::select(records.iter().copied());
        assert_eq!(select(&[b"v=STSv1; id=1", one]).unwrap().rua.len(), 1);
        assert_eq!(select(&[one, one]), Err(SelectError::Multiple(2)));
        for other in [
            "v=TLSRPTv0",
            "v=TLSRPTv10; rua=mailto:a@b.example",
            "v=TLSRPTv1",
            "v=tlsrptv1; rua=mailto:a@b.example",
        ] {
            assert_eq!(parse(other), Err(SelectError::None), "{other:?}");
        }
        for bad in [
            "v=TLSRPTv1;",
            "v=TLSRPTv1; ext=1",
            "v=TLSRPTv1; rua=mailto:x@x.example;;",
            "v=TLSRPTv1; rua=mailto:x@x.example; more=",
            "v=TLSRPTv1; rua=mailto:x@x.example; 1%=a",
        ] {
            assert!(matches!(parse(bad), Err(SelectError::Invalid(_))), "{bad:?}");
        }
    }

    #[test]
    fn rpt_02_rua_is_one_or_more_mailto_or_https_uris() {
        assert_eq!(
            targets("v=TLSRPTv1; rua=mailto:tlsrpt@mox.example , \t https://mox.example/tlsrpt  "),
            ["mailto:tlsrpt@mox.example", "https://mox.example/tlsrpt"]
        );
        assert_eq!(
            targets("v=TLSRPTv1;rua=mailto:a%2Cb%21c%3Bd@x.example"),
            ["mailto:a%2Cb%21c%3Bd@x.example"]
        );
        let record = parse("v=TLSRPTv1; rua=ftp://x.example/,MAILTO:a@x.example; ext=yes").unwrap();
        assert_eq!(record.rua.len(), 1);
        assert_eq!(record.notes, [TlsrptNote::UnknownScheme("ftp://x.example/".into())]);
        assert_eq!(record.extensions, [("ext".into(), "yes".into())]);
        for bad in [
            "",
            "noscheme",
            ",, ,",
            "mailto:x@x.example other",
            "http://bad/%",
            "mailto:",
            "mailto://a@x.example",
            "mailto:@x.example",
            "mailto:x@192.0.2.1",
            "https://",
            "https:x",
            "https://u@x.example/",
            "https://x.example:99999/",
            "mailto:a@x.example!10m",
            "mailto:a%2@x.example",
            "https:///x.example/",
            "https://x.example\\@y.example/",
            "https://192.0.2.1/",
            "https://0x7f.1/",
            "https://[2001:db8::1]/",
        ] {
            assert!(parse(&format!("v=TLSRPTv1; rua={bad}")).is_err(), "{bad:?}");
        }
        let url = HttpsUrl::parse("https://X.example:8443/a?b=c#d").unwrap();
        assert_eq!((url.host().as_str(), url.port(), url.path()), ("x.example", 8443, "/a?b=c"));
        assert_eq!(HttpsUrl::parse("https://x.example").unwrap().path(), "/");
        assert_eq!(HttpsUrl::parse("https://x.example?key=1#top").unwrap().path(), "/?key=1");
        let encoded = HttpsUrl::parse("https://%78.example/a%2Cb").unwrap();
        assert_eq!((encoded.host().as_str(), encoded.path()), ("x.example", "/a%2Cb"));
        assert!(HttpsUrl::parse("https://x.exa\tmple/").is_err());
    }

    #[test]
    fn rpt_02_a_bad_target_is_skipped_where_there_is_a_good_one_and_never_rewritten() {
        for bad in [
            "mailto:",
            "mailto:postmaster",
            "mailto:b@x.example!10m",
            "postmaster@x.example",
            "",
            "mailto:b@x.example mailto:c@x.example",
            "https://192.0.2.1/",
            "<mailto:b@x.example>",
        ] {
            let good = "mailto:a@x.example";
            for list in [format!("{bad},{good}"), format!("{good}, {bad}"), format!("{good},{bad},{good}")] {
                let record = parse(&format!("v=TLSRPTv1; rua={list}")).unwrap();
                assert!(
                    !record.rua.is_empty() && record.rua.iter().all(|rua| rua.to_string() == good),
                    "{list}"
                );
                let [TlsrptNote::BadTarget { column, target, .. }] = record.notes.as_slice() else {
                    panic!("{list}: {:?}", record.notes)
                };
                assert_eq!(target, bad);
                let text = format!("v=TLSRPTv1; rua={list}");
                assert!(text[column - 1..].starts_with(bad), "{text} {column}");
            }
            let SelectError::Invalid(error) = parse(&format!("v=TLSRPTv1; rua={bad}")).unwrap_err() else {
                panic!()
            };
            assert!(matches!(error.fault, FieldFault::BadRua(target, _) if target == bad));
        }
        // A scheme of the future is not a fault of the record, but there is nothing to send to.
        assert!(parse("v=TLSRPTv1; rua=xmpp:a@x.example").unwrap().rua.is_empty());
        assert!(parse("v=TLSRPTv1; rua=xmpp:a@x.example,mailto:").is_err());
    }

    #[test]
    fn rpt_03_the_first_of_repeated_rua_counts() {
        let record = parse("v=TLSRPTv1 ; rua=mailto:x@x.example; rua=mailto:y@x.example").unwrap();
        assert_eq!(record.rua.len(), 1);
        assert_eq!(record.rua[0].to_string(), "mailto:x@x.example");
        assert!(record.notes.contains(&TlsrptNote::Repeated("rua".into())));
    }

    #[test]
    fn targets_are_bounded() {
        let many = vec!["mailto:a@x.example"; 100].join(",");
        let record = parse(&format!("v=TLSRPTv1; rua={many}")).unwrap();
        assert_eq!(record.rua.len(), RUA_TARGETS);
        assert_eq!(record.notes, [TlsrptNote::TooManyTargets]);
    }

    proptest! {
        #[test]
        fn a_printed_record_parses_to_itself(local in "[a-z!,;%+=/]{1,20}", path in "(/[a-z0-9.-]{0,10}){0,3}", port in proptest::option::of(1u16..)) {
            let port = port.map(|p| format!(":{p}")).unwrap_or_default();
            let record = TlsrptRecord::new(vec![
                Rua::Mailto(MailAddress::parse(&format!("{local}@x.example")).unwrap()),
                Rua::Https(HttpsUrl::parse(&format!("https://r.example{port}{path}")).unwrap()),
            ]);
            prop_assert_eq!(parse(&record.to_string()), Ok(record));
        }

        #[test]
        fn any_bytes_are_rejected_or_normalized(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut text = b"v=TLSRPTv1; rua=".to_vec();
            text.extend(bytes);
            if let Ok(record) = TlsrptRecord::parse(&text) && !record.rua.is_empty() {
                let again = TlsrptRecord::parse(record.to_string().as_bytes()).unwrap();
                prop_assert_eq!((again.rua, again.extensions), (record.rua, record.extensions));
            }
        }
    }
}
