//! Records in the APIs of DNS providers. A [`Record`] has typed data for comparisons, and the provider's own text, so
//! that an unchanged record is sent back exactly as it was listed. Most providers use the presentation format of
//! RFC 1035 §5.1 for TXT data.

use super::Fault;
use formats::DomainName;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The record types that we publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    A,
    Aaaa,
    Cname,
    Txt,
}

impl Kind {
    /// The mnemonic, which all five APIs use.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
            Self::Txt => "TXT",
        }
    }
}

/// The data of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    /// The target in lower case, without the final dot.
    Cname(String),
    /// All character strings, joined.
    Txt(Vec<u8>),
}

impl Data {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::A(_) => Kind::A,
            Self::Aaaa(_) => Kind::Aaaa,
            Self::Cname(_) => Kind::Cname,
            Self::Txt(_) => Kind::Txt,
        }
    }

    pub(super) fn address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::A(address),
            IpAddr::V6(address) => Self::Aaaa(address),
        }
    }

    pub(super) fn alias(target: &str) -> Self {
        Self::Cname(target.trim_end_matches('.').to_ascii_lowercase())
    }

    /// Formats the data for a zone file, with TXT data split into character strings of at most 255 bytes.
    pub(super) fn text(&self, escapes: Escapes) -> String {
        match self {
            Self::A(address) => address.to_string(),
            Self::Aaaa(address) => address.to_string(),
            Self::Cname(target) => format!("{target}."),
            Self::Txt(bytes) => quote(bytes, escapes),
        }
    }

    /// Parses zone-file format. TXT data without quotes is used unchanged, since some APIs list it as it was entered.
    pub(super) fn parse(kind: Kind, text: &str, escapes: Escapes) -> Result<Self, Fault> {
        let invalid = || Fault::Other(format!("{text:?} is not valid data for {}", kind.as_str()));
        match kind {
            Kind::A => text.trim().parse().map(Self::A).map_err(|_| invalid()),
            Kind::Aaaa => text.trim().parse().map(Self::Aaaa).map_err(|_| invalid()),
            Kind::Cname => Ok(Self::alias(text.trim())),
            Kind::Txt if text.trim_start().starts_with('"') => {
                unquote(text, escapes).map(Self::Txt).ok_or_else(invalid)
            }
            Kind::Txt => Ok(Self::Txt(text.as_bytes().to_vec())),
        }
    }
}

/// A record that a provider lists, or that is to be created there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) data: Data,
    /// The provider's own text of the data; `None` for a new record.
    pub(super) shown: Option<String>,
    /// The comment on the record at the provider, which is kept. Only Hetzner has comments in record sets.
    pub(super) comment: Option<String>,
    /// The provider's identifier of the record, where it has one.
    pub(super) id: Option<String>,
}

impl Record {
    /// Creates a record that the provider does not have yet.
    pub(super) fn new(data: Data) -> Self {
        Self { data, shown: None, comment: None, id: None }
    }

    /// A record from a provider's list.
    pub(super) fn listed(kind: Kind, text: &str, escapes: Escapes) -> Result<Self, Fault> {
        let data = Data::parse(kind, text, escapes)?;
        Ok(Self { shown: Some(text.to_owned()), ..Self::new(data) })
    }

    /// The text to send: the provider's own, or zone-file format for a new record.
    pub(super) fn text(&self, escapes: Escapes) -> String {
        self.shown.clone().unwrap_or_else(|| self.data.text(escapes))
    }
}

/// The base of the three digits after `\` that represent a byte other than printable ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escapes {
    /// As in RFC 1035 §5.1.
    Decimal,
    /// As the API of Route 53 writes them.
    Octal,
}

/// The maximum length of a character string in a TXT record, in bytes (RFC 1035 §3.3).
const MAX_STRING_BYTES: usize = 255;

fn quote(bytes: &[u8], escapes: Escapes) -> String {
    if bytes.is_empty() {
        return "\"\"".to_owned();
    }
    let mut out = String::new();
    for string in bytes.chunks(MAX_STRING_BYTES) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push('"');
        for byte in string {
            // Writing to a string does not fail.
            let _ = match (byte, escapes) {
                (b'"' | b'\\', _) => write!(out, "\\{}", char::from(*byte)),
                (b' '..=b'~', _) => write!(out, "{}", char::from(*byte)),
                (_, Escapes::Decimal) => write!(out, "\\{byte:03}"),
                (_, Escapes::Octal) => write!(out, "\\{byte:03o}"),
            };
        }
        out.push('"');
    }
    out
}

/// Parses quoted character strings separated by white space and joins them; `None` if the text is malformed.
fn unquote(text: &str, escapes: Escapes) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut bytes = text.trim().bytes();
    loop {
        match bytes.next() {
            None => return Some(out),
            Some(b' ' | b'\t') => continue,
            Some(b'"') => {}
            Some(_) => return None,
        }
        loop {
            match bytes.next()? {
                b'"' => break,
                b'\\' => out.push(match bytes.next()? {
                    first @ b'0'..=b'9' => {
                        let digits = [first, bytes.next()?, bytes.next()?];
                        let radix = match escapes {
                            Escapes::Decimal => 10,
                            Escapes::Octal => 8,
                        };
                        u8::from_str_radix(std::str::from_utf8(&digits).ok()?, radix).ok()?
                    }
                    other => other,
                }),
                other => out.push(other),
            }
        }
    }
}

/// The part of a name below a zone; `None` for the zone's own name. Fails for a name outside the zone.
pub(super) fn label<'a>(name: &'a DomainName, zone: &str) -> Result<Option<&'a str>, Fault> {
    match name.as_str().strip_suffix(zone) {
        Some("") => Ok(None),
        Some(rest) if rest.len() > 1 && rest.ends_with('.') => Ok(rest.strip_suffix('.')),
        _ => Err(Fault::Other(format!("{name} is not in the zone {zone}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn txt_data_is_quoted_and_split() {
        let text = |bytes: &[u8], escapes| Data::Txt(bytes.to_vec()).text(escapes);
        assert_eq!(text(b"", Escapes::Decimal), "\"\"");
        assert_eq!(text(b"v=STSv1; id=1;", Escapes::Decimal), "\"v=STSv1; id=1;\"");
        assert_eq!(text(b"a\"b\\c", Escapes::Octal), r#""a\"b\\c""#);
        assert_eq!(text(b"\xfc", Escapes::Decimal), "\"\\252\"");
        assert_eq!(text(b"\xfc", Escapes::Octal), "\"\\374\"");
        let long = text(&[b'x'; 300], Escapes::Decimal);
        assert_eq!(long, format!("\"{}\" \"{}\"", "x".repeat(255), "x".repeat(45)));
    }

    #[test]
    fn txt_data_is_parsed_with_and_without_quotes() {
        let parse = |text: &str| Data::parse(Kind::Txt, text, Escapes::Decimal);
        assert_eq!(parse("site=verification").unwrap(), Data::Txt(b"site=verification".to_vec()));
        assert_eq!(parse("\"a \" \"b\"").unwrap(), Data::Txt(b"a b".to_vec()));
        assert_eq!(parse("\"a\"\"b\"").unwrap(), Data::Txt(b"ab".to_vec()));
        for malformed in ["\"a", "\"a\" b", "\"\\", "\"\\999\"", "\"\\12\""] {
            assert!(parse(malformed).is_err(), "{malformed}");
        }
        assert!(Data::parse(Kind::A, "2001:db8::1", Escapes::Decimal).is_err());
        assert_eq!(
            Data::parse(Kind::Cname, "Host.Example.NET", Escapes::Decimal).unwrap().text(Escapes::Decimal),
            "host.example.net."
        );
    }

    #[test]
    fn labels_are_relative_to_the_zone() {
        let name = DomainName::parse("_mta-sts.mail.example.org").unwrap();
        assert_eq!(label(&name, "example.org").unwrap(), Some("_mta-sts.mail"));
        assert_eq!(label(&name, name.as_str()).unwrap(), None);
        assert!(label(&name, "ample.org").is_err());
        assert!(label(&name, "example.net").is_err());
    }

    proptest! {
        #[test]
        fn txt_data_survives_a_round_trip(bytes in prop::collection::vec(any::<u8>(), 0..700), octal: bool) {
            let escapes = if octal { Escapes::Octal } else { Escapes::Decimal };
            let data = Data::Txt(bytes);
            prop_assert_eq!(Data::parse(Kind::Txt, &data.text(escapes), escapes).unwrap(), data);
        }

        #[test]
        fn txt_data_with_many_quotes_survives_a_round_trip(text in "[\"\\\\ a]{250,600}") {
            let data = Data::Txt(text.into_bytes());
            let shown = data.text(Escapes::Decimal);
            prop_assert_eq!(Data::parse(Kind::Txt, &shown, Escapes::Decimal).unwrap(), data);
        }

        #[test]
        fn any_text_is_parsed_or_rejected(text in ".{0,100}") {
            for kind in [Kind::A, Kind::Aaaa, Kind::Cname, Kind::Txt] {
                if let Ok(record) = Record::listed(kind, &text, Escapes::Octal) {
                    prop_assert_eq!(record.text(Escapes::Octal), text.clone());
                }
            }
        }
    }
}
