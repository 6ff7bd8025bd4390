//! The first two messages of a TLS handshake up to 1.2, for asking a server what it would agree to
//! with a client of old, which the TLS library can't play (RFC 2246 §7.4.1, RFC 5246 §7.4.1).

use crate::domain::DomainName;

/// A version of TLS that a client can claim to speak at most.
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
    /// As it stands in the messages.
    pub fn number(self) -> u16 {
        match self {
            Self::Tls10 => 0x0301,
            Self::Tls11 => 0x0302,
            Self::Tls12 => 0x0303,
        }
    }

    /// As people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls10 => "TLS 1.0",
            Self::Tls11 => "TLS 1.1",
            Self::Tls12 => "TLS 1.2",
        }
    }
}

/// Ciphers that servers of the time of TLS 1.0 and 1.1 have.
pub const OLD_CIPHERS: &[u16] =
    &[0xc014, 0xc013, 0xc00a, 0xc009, 0x0039, 0x0033, 0x0035, 0x002f, 0xc012, 0x0016, 0x000a, 0x0005];

/// Ciphers that nobody should agree to: without encryption, of export strength, DES, triple DES and RC4
/// (RFC 9325 §4.1). Anonymous ones are left out, since with opportunistic TLS they take nothing away.
pub const WEAK_CIPHERS: &[u16] = &[
    0x0001, 0x0002, 0x003b, 0xc006, 0xc010, 0x0003, 0x0006, 0x0008, 0x000b, 0x000e, 0x0011, 0x0014, 0x0009,
    0x000c, 0x000f, 0x0012, 0x0015, 0x0004, 0x0005, 0xc007, 0xc011, 0x000a, 0x0016, 0xc008, 0xc012,
];

/// A ClientHello in one record that claims to speak `version` at most and names `host`.
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

/// `content` behind its length in so many bytes.
fn sized(bytes: usize, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut all: Vec<u8> = length.into_iter().skip(4 - bytes).collect();
    all.extend_from_slice(content);
    all
}

/// What a server's first bytes say to a ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// More has to come.
    Unfinished,
    /// A ServerHello: it agrees to this version and cipher.
    Agrees {
        /// The version's number, such as 0x0301.
        version: u16,
        /// The cipher's number.
        cipher: u16,
    },
    /// An alert, or nothing of TLS.
    Refuses,
}

/// Reads a server's first bytes.
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

/// The version that a ClientHello claims at most, when these bytes begin with one. TLS 1.3 counts as 1.2
/// here, since it says so itself in this place.
pub fn claimed_version(bytes: &[u8]) -> Option<u16> {
    match bytes {
        [22, _, _, _, _, 1, _, _, _, high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

/// The name of a cipher of [`WEAK_CIPHERS`] as RFC 5246 and RFC 8422 write it, or its number.
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
    fn a_client_hello_claims_its_version() {
        for version in [Version::Tls10, Version::Tls11, Version::Tls12] {
            let hello = client_hello(version, OLD_CIPHERS, &host(), [7; 32]);
            assert_eq!(claimed_version(&hello), Some(version.number()));
            let length = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
            assert_eq!(hello.len(), length + 5);
        }
        assert_eq!(claimed_version(b"EHLO there\r\n"), None);
    }

    #[test]
    fn a_server_hello_is_told_from_an_alert_and_from_text() {
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
        fn any_bytes_are_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (server_answer(&bytes), claimed_version(&bytes));
        }
    }
}
