//! The name that this machine gives in EHLO and HELO (RFC 5321 §4.1.1.1). A client without a fully qualified name gives
//! the address that it connects from, as an address literal (§4.1.4); many MX hosts refuse a name without a dot.

use formats::DomainName;
use std::fmt;
use std::net::IpAddr;

/// The name in EHLO and HELO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Helo {
    /// A fully qualified host name.
    Name(DomainName),
    /// A fixed address, for a machine that others see under another address than its own.
    Address(IpAddr),
    /// The local address of each connection.
    LocalAddress,
}

impl Helo {
    /// Parses a fully qualified host name, or an address literal: `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
    ///
    /// # Errors
    /// The reason, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(literal) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let (is_v6, address) = match literal.get(..5) {
                Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => {
                    (true, literal.get(5..).unwrap_or_default())
                }
                _ => (false, literal),
            };
            let parsed = address.parse().ok().filter(|ip: &IpAddr| ip.is_ipv6() == is_v6);
            return parsed.map(Self::Address).ok_or_else(|| "the address literal is not valid".to_owned());
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err(
                "an address is written in brackets, such as [192.0.2.1] or [IPv6:2001:db8::1]".to_owned()
            );
        }
        let name = DomainName::parse(text).map_err(|error| error.to_string())?;
        match name.as_str().contains('.') {
            true => Ok(Self::Name(name)),
            false => Err("the name has no dot, so it is not fully qualified".to_owned()),
        }
    }

    /// The text for a connection from this local address. Without an address, the text is `localhost`.
    pub(super) fn on(&self, local: Option<IpAddr>) -> String {
        match (self, local) {
            (Self::LocalAddress, Some(address)) => Self::Address(address).to_string(),
            (Self::LocalAddress, None) => "localhost".to_owned(),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Helo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Address(address) => match address.to_canonical() {
                IpAddr::V4(v4) => write!(f, "[{v4}]"),
                IpAddr::V6(v6) => write!(f, "[IPv6:{v6}]"),
            },
            Self::LocalAddress => f.write_str("the local address of each connection"),
        }
    }
}

impl From<DomainName> for Helo {
    fn from(name: DomainName) -> Self {
        Self::Name(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_address_literals_are_parsed_as_they_are_written() {
        for text in ["mail.example.org", "[192.0.2.1]", "[IPv6:2001:db8::1]"] {
            assert_eq!(Helo::parse(text).unwrap().to_string(), text);
        }
        for bad in
            ["", "vm", "localhost", "[]", "[IPv6:192.0.2.1]", "[2001:db8::1]", "192.0.2.1", "a b.example"]
        {
            assert!(Helo::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn without_a_name_the_address_of_the_connection_is_given() {
        let on = |text: &str| Helo::LocalAddress.on(text.parse().ok());
        assert_eq!(on("192.0.2.7"), "[192.0.2.7]");
        assert_eq!(on("::ffff:192.0.2.7"), "[192.0.2.7]");
        assert_eq!(on("2001:db8::7"), "[IPv6:2001:db8::7]");
        let name = Helo::parse("mail.example.org").unwrap();
        assert_eq!(name.on("192.0.2.7".parse().ok()), "mail.example.org");
    }
}
