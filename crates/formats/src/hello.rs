//! ClientHello and ServerHello of TLS 1.0 to 1.2 (RFC 2246 §7.4.1, RFC 5246 §7.4.1). The check uses them to probe
//! whether a server accepts obsolete versions or weak ciphers, which the TLS library does not offer.

use crate::domain::DomainName;

/// The highest TLS version that a ClientHello offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.0.
    Tls10,
    /// TLS 1.1.
    Tls11,
    /// TLS 1.2.
    Tls12,
}

impl Version {
    /// Returns the version number in TLS messages.
    pub fn number(self) -> u16 {
        match self {
            Self::Tls10 => 0x0301,
            Self::Tls11 => 0x0302,
            Self::Tls12 => 0x0303,
        }
    }

    /// Returns the version's name for display.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls10 => "TLS 1.0",
            Self::Tls11 => "TLS 1.1",
            Self::Tls12 => "TLS 1.2",
        }
    }
}

/// Cipher suites that servers with TLS 1.0 and 1.1 commonly support.
pub const OLD_CIPHERS: &[u16] =
    &[0xc014, 0xc013, 0xc00a, 0xc009, 0x0039, 0x0033, 0x0035, 0x002f, 0xc012, 0x0016, 0x000a, 0x0005];

/// Cipher suites that servers should not accept: no encryption, export strength, DES, triple DES and RC4 (RFC 9325
/// §4.1). Anonymous suites are omitted, since opportunistic TLS does not authenticate the server anyway.
pub const WEAK_CIPHERS: &[u16] = &[
    0x0001, 0x0002, 0x003b, 0xc006, 0xc010, 0x0003, 0x0006, 0x0008, 0x000b, 0x000e, 0x0011, 0x0014, 0x0009,
    0x000c, 0x000f, 0x0012, 0x0015, 0x0004, 0x0005, 0xc007, 0xc011, 0x000a, 0x0016, 0xc008, 0xc012,
];

/// Builds a ClientHello in one record. It offers `version` as the highest version, and `host` as the server name.
pub fn client_hello(version: Version, ciphers: &[u16], host: &DomainName, random: [u8; 32]) -> Vec<u8> {
    let mut body = version.number().to_be_bytes().to_vec();
    body.extend(random);
    body.push(0);
    let ciphers: Vec<u8> = ciphers.iter().flat_map(|cipher| cipher.to_be_bytes()).collect();
    body.extend(sized(2, &ciphers));
    body.extend([1, 0]);
    body.extend(sized(2, &extensions(version, host)));
    let mut message = vec![1];
    message.extend(sized(3, &body));
    let mut record = vec![22, 3, 1];
    record.extend(sized(2, &message));
    record
}

fn extensions(version: Version, host: &DomainName) -> Vec<u8> {
    let mut name = vec![0];
    name.extend(sized(2, host.as_str().as_bytes()));
    let mut all = extension(0, &sized(2, &name));
    all.extend(extension(10, &sized(2, &[0, 29, 0, 23, 0, 24])));
    all.extend(extension(11, &sized(1, &[0])));
    if version == Version::Tls12 {
        let schemes: [u8; 12] = [4, 3, 5, 3, 4, 1, 5, 1, 2, 3, 2, 1];
        all.extend(extension(13, &sized(2, &schemes)));
    }
    all
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    let mut all = kind.to_be_bytes().to_vec();
    all.extend(sized(2, content));
    all
}

/// Returns `content` prefixed with its length, which takes `bytes` bytes.
fn sized(bytes: usize, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut all: Vec<u8> = length.into_iter().skip(4 - bytes).collect();
    all.extend_from_slice(content);
    all
}

/// A server's response to a ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The response is incomplete; more bytes are needed.
    Unfinished,
    /// A ServerHello, which selects a version and cipher suite.
    Agrees {
        /// The version number, e.g. 0x0301 for TLS 1.0.
        version: u16,
        /// The number of the cipher suite.
        cipher: u16,
    },
    /// An alert, or bytes that are not TLS.
    Refuses,
}

/// Parses the first bytes of a server's response.
pub fn server_answer(bytes: &[u8]) -> Answer {
    let [kind, _, _, high, low, rest @ ..] = bytes else {
        return if bytes.first().is_none_or(|kind| *kind == 22) {
            Answer::Unfinished
        } else {
            Answer::Refuses
        };
    };
    if *kind != 22 {
        return Answer::Refuses;
    }
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    match rest.get(..length) {
        Some(message) => server_hello(message).unwrap_or(Answer::Refuses),
        None => Answer::Unfinished,
    }
}

fn server_hello(message: &[u8]) -> Option<Answer> {
    let [2, _, _, _, body @ ..] = message else { return None };
    let version = u16::from_be_bytes([*body.first()?, *body.get(1)?]);
    let session = usize::from(*body.get(34)?);
    let cipher = u16::from_be_bytes([*body.get(35 + session)?, *body.get(36 + session)?]);
    Some(Answer::Agrees { version, cipher })
}

/// Returns the highest version that a ClientHello offers, or `None` if the bytes do not begin with one. For TLS 1.3
/// this is the number of TLS 1.2, which its `legacy_version` field contains (RFC 8446 §4.1.2).
pub fn offered_version(bytes: &[u8]) -> Option<u16> {
    match bytes {
        [22, _, _, _, _, 1, _, _, _, high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

/// Returns a description of a cipher suite for display: its weakness, if it is one of [`WEAK_CIPHERS`], and its number.
pub fn cipher_name(cipher: u16) -> String {
    let kind = match cipher {
        0x0001 | 0x0002 | 0x003b | 0xc006 | 0xc010 => "no encryption",
        0x0003 | 0x0006 | 0x0008 | 0x000b | 0x000e | 0x0011 | 0x0014 => "export strength",
        0x0009 | 0x000c | 0x000f | 0x0012 | 0x0015 => "DES",
        0x0004 | 0x0005 | 0xc007 | 0xc011 => "RC4",
        0x000a | 0x0016 | 0xc008 | 0xc012 => "triple DES",
        _ => "cipher",
    };
    format!("{kind} (0x{cipher:04x})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host() -> DomainName {
        DomainName::parse("mx.example.org").unwrap()
    }

    #[test]
    fn a_client_hello_offers_its_version() {
        for version in [Version::Tls10, Version::Tls11, Version::Tls12] {
            let hello = client_hello(version, OLD_CIPHERS, &host(), [7; 32]);
            assert_eq!(offered_version(&hello), Some(version.number()));
            let length = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
            assert_eq!(hello.len(), length + 5);
        }
        assert_eq!(offered_version(b"EHLO there\r\n"), None);
    }

    #[test]
    fn a_server_hello_is_distinguished_from_an_alert_and_from_text() {
        let mut body = vec![3, 1];
        body.extend([9; 32]);
        body.extend([0, 0, 0x0a, 0]);
        let mut message = vec![2];
        message.extend(sized(3, &body));
        let mut record = vec![22, 3, 1];
        record.extend(sized(2, &message));
        for end in 0..record.len() {
            assert_eq!(server_answer(&record[..end]), Answer::Unfinished, "{end}");
        }
        assert_eq!(server_answer(&record), Answer::Agrees { version: 0x0301, cipher: 0x000a });
        assert_eq!(server_answer(&[21, 3, 1, 0, 2, 2, 70]), Answer::Refuses);
        assert_eq!(server_answer(b"454 TLS not available\r\n"), Answer::Refuses);
        assert_eq!(server_answer(&[22, 3, 1, 0, 1, 2]), Answer::Refuses);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (server_answer(&bytes), offered_version(&bytes));
        }
    }
}
