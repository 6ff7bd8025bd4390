//! TLSA records, and the rules for their use in SMTP (RFC 6698 §2, RFC 7671 §9, RFC 7672 §3). The DNS client provides
//! the records, and [`rule`] determines what a session with the host must satisfy. TLS verification is in the `net`
//! crate.

use crate::domain::{DomainError, DomainName};
use crate::limits::{TLSA_DATA_BYTES, TLSA_RECORDS};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use std::fmt;

/// A TLSA record as published, usable or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsaRecord {
    /// The certificate usage; 0 to 3 are assigned.
    pub usage: u8,
    /// The selector: 0 for the full certificate, 1 for its public key.
    pub selector: u8,
    /// The matching type: 0 for the data itself, 1 for SHA-256, 2 for SHA-512.
    pub matching: u8,
    /// The certificate association data (RFC 6698 §2.1.4).
    pub data: Vec<u8>,
}

/// A record that a sender can use: usage DANE-TA or DANE-EE, a known selector and matching type, and data of valid
/// length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsableTlsa {
    /// The certificate of the chain that the record matches.
    pub usage: Usage,
    /// The part of the certificate that is compared.
    pub selector: Selector,
    /// How that part is compared.
    pub matching: Matching,
    /// The expected value: the part itself or its digest.
    pub data: Vec<u8>,
}

/// The certificate usages that SMTP supports (RFC 7672 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// 2: a trust anchor of the chain. Names and validity dates are checked.
    DaneTa,
    /// 3: the server's own certificate. Names and validity dates are not checked.
    DaneEe,
}

/// The part of a certificate that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selector {
    /// 0: the full certificate.
    Certificate,
    /// 1: the public key (SubjectPublicKeyInfo).
    PublicKey,
}

/// How the selected part is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Matching {
    /// 0: the part itself.
    Full,
    /// 1: its SHA-256 digest.
    Sha256,
    /// 2: its SHA-512 digest.
    Sha512,
}

/// Why a record is unusable. The other records of the set remain usable (DANE-06, DANE-11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The usage is 0 or 1, which SMTP does not support (RFC 7672 §3.1.3).
    #[error("usage {0} (PKIX) is not supported in SMTP")]
    Pkix(u8),
    /// The usage is unassigned.
    #[error("usage {0} is unknown")]
    Usage(u8),
    /// The selector is unassigned.
    #[error("selector {0} is unknown")]
    Selector(u8),
    /// The matching type is unassigned.
    #[error("matching type {0} is unknown")]
    Matching(u8),
    /// The data is empty or does not have the digest's length.
    #[error("the data has {found} bytes; the matching type requires {}", required(.expected))]
    Length {
        /// The number of bytes in the record.
        found: usize,
        /// The number of bytes of the digest; 0 means "one or more".
        expected: usize,
    },
}

/// The required length for display, where 0 means "one or more".
fn required(bytes: &usize) -> String {
    if *bytes == 0 { "at least 1".to_owned() } else { bytes.to_string() }
}

/// Why a text or RDATA is not a valid TLSA record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsaError {
    /// The text is not three numbers followed by data.
    #[error("expected `USAGE SELECTOR MATCHING DATA`, e.g. `3 1 1 6007ee…`")]
    Shape,
    /// A number is not in the range 0 to 255.
    #[error("{0:?} is not a number from 0 to 255")]
    Number(String),
    /// The data is not valid hexadecimal.
    #[error("the data is not an even number of hexadecimal digits")]
    Hex,
    /// The record is shorter than its three fixed bytes, or its data is longer than [`TLSA_DATA_BYTES`].
    #[error("{0} bytes is not a valid length of a TLSA record")]
    Size(usize),
}

impl TlsaRecord {
    /// Parses the RDATA of a DNS message.
    pub fn from_rdata(rdata: &[u8]) -> Result<Self, TlsaError> {
        match rdata {
            [usage, selector, matching, data @ ..] if data.len() <= TLSA_DATA_BYTES => {
                Ok(Self { usage: *usage, selector: *selector, matching: *matching, data: data.to_vec() })
            }
            _ => Err(TlsaError::Size(rdata.len())),
        }
    }

    /// Parses the presentation format. The data may contain spaces.
    pub fn parse(text: &str) -> Result<Self, TlsaError> {
        let mut words = text.split_ascii_whitespace();
        let mut number = || {
            let word = words.next().ok_or(TlsaError::Shape)?;
            word.parse::<u8>().map_err(|_| TlsaError::Number(word.chars().take(20).collect()))
        };
        let (usage, selector, matching) = (number()?, number()?, number()?);
        let digits: String = words.collect();
        if digits.is_empty() {
            return Err(TlsaError::Shape);
        }
        if digits.len() > TLSA_DATA_BYTES * 2 {
            return Err(TlsaError::Size(digits.len() / 2));
        }
        let data = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| TlsaError::Hex)?;
        Ok(Self { usage, selector, matching, data })
    }

    /// Returns the record in the form that SMTP uses, or why it is unusable.
    pub fn usable(&self) -> Result<UsableTlsa, Unusable> {
        let usage = match self.usage {
            2 => Usage::DaneTa,
            3 => Usage::DaneEe,
            0 | 1 => return Err(Unusable::Pkix(self.usage)),
            _ => return Err(Unusable::Usage(self.usage)),
        };
        let selector = match self.selector {
            0 => Selector::Certificate,
            1 => Selector::PublicKey,
            _ => return Err(Unusable::Selector(self.selector)),
        };
        let (matching, expected) = match self.matching {
            0 => (Matching::Full, 0),
            1 => (Matching::Sha256, 32),
            2 => (Matching::Sha512, 64),
            _ => return Err(Unusable::Matching(self.matching)),
        };
        let found = self.data.len();
        if found == 0 || (expected != 0 && found != expected) {
            return Err(Unusable::Length { found, expected });
        }
        Ok(UsableTlsa { usage, selector, matching, data: self.data.clone() })
    }
}

/// What a DNSSEC-validated TLSA record set requires of a session with the host (RFC 7672 §2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsaRule {
    /// There are no records, so DANE does not apply.
    Absent,
    /// No record is usable: TLS is mandatory, but the server is not authenticated (DANE-07).
    EncryptOnly,
    /// One of these records must match.
    Authenticate(Vec<UsableTlsa>),
}

/// Returns the rule for a DNSSEC-validated TLSA record set, with digest agility applied: for each usage and selector,
/// only the records with the strongest digest and those with full data are used (RFC 7671 §9).
pub fn rule(records: &[TlsaRecord]) -> TlsaRule {
    if records.is_empty() {
        return TlsaRule::Absent;
    }
    let usable: Vec<UsableTlsa> =
        records.iter().take(TLSA_RECORDS).filter_map(|record| record.usable().ok()).collect();
    let strongest = |of: &UsableTlsa| {
        usable
            .iter()
            .filter(|other| other.usage == of.usage && other.selector == of.selector)
            .map(|other| other.matching)
            .max()
    };
    let kept: Vec<UsableTlsa> = usable
        .iter()
        .filter(|record| record.matching == Matching::Full || Some(record.matching) == strongest(record))
        .cloned()
        .collect();
    if kept.is_empty() { TlsaRule::EncryptOnly } else { TlsaRule::Authenticate(kept) }
}

/// Returns the name of the TLSA records of a host and TCP port (DANE-01).
pub fn tlsa_name(base: &DomainName, port: u16) -> Result<DomainName, DomainError> {
    base.below(&format!("_{port}._tcp"))
}

/// Returns the names that a certificate may match under DANE-TA: the TLSA base domain, then the next hop domain (RFC
/// 7672 §3.2.2). Under DANE-EE, names are not checked.
pub fn reference_names<'a>(base: &'a DomainName, next_hop: &'a DomainName) -> Vec<&'a DomainName> {
    if base == next_hop { vec![base] } else { vec![base, next_hop] }
}

impl fmt::Display for TlsaRecord {
    /// Writes the presentation format with the data in lower-case hexadecimal, without spaces (RPT-06).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ", self.usage, self.selector, self.matching)?;
        write!(f, "{}", HEXLOWER.encode_display(&self.data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(usage: u8, selector: u8, matching: u8, length: usize) -> TlsaRecord {
        TlsaRecord { usage, selector, matching, data: vec![7; length] }
    }

    #[test]
    fn dane_01_records_stand_at_25_tcp_and_the_host() {
        let host = DomainName::parse("MX.example.org").unwrap();
        assert_eq!(tlsa_name(&host, 25).unwrap().as_str(), "_25._tcp.mx.example.org");
        assert_eq!(tlsa_name(&host, 587).unwrap().as_str(), "_587._tcp.mx.example.org");
    }

    #[test]
    fn dane_05_usages_2_and_3_are_usable_and_0_and_1_are_not() {
        assert_eq!(record(2, 0, 1, 32).usable().unwrap().usage, Usage::DaneTa);
        assert_eq!(record(3, 1, 1, 32).usable().unwrap().usage, Usage::DaneEe);
        assert_eq!(record(0, 0, 1, 32).usable(), Err(Unusable::Pkix(0)));
        assert_eq!(record(1, 1, 1, 32).usable(), Err(Unusable::Pkix(1)));
        assert_eq!(record(4, 1, 1, 32).usable(), Err(Unusable::Usage(4)));
    }

    #[test]
    fn dane_06_unknown_values_make_the_record_unusable_not_the_set() {
        assert_eq!(record(3, 2, 1, 32).usable(), Err(Unusable::Selector(2)));
        assert_eq!(record(3, 1, 3, 32).usable(), Err(Unusable::Matching(3)));
        for (selector, matching, length) in [(0, 0, 500), (1, 0, 90), (0, 1, 32), (1, 2, 64)] {
            assert!(record(3, selector, matching, length).usable().is_ok());
        }
        let TlsaRule::Authenticate(kept) = rule(&[record(3, 9, 1, 32), record(3, 1, 1, 32)]) else {
            panic!()
        };
        assert_eq!(kept.len(), 1);
    }

    #[test]
    fn dane_07_a_set_without_a_usable_record_still_calls_for_tls() {
        assert_eq!(rule(&[record(1, 1, 1, 32), record(3, 1, 1, 31)]), TlsaRule::EncryptOnly);
        assert_eq!(rule(&[]), TlsaRule::Absent);
    }

    #[test]
    fn dane_09_names_under_usage_2_are_the_base_domain_and_the_next_hop() {
        let (base, hop) =
            (DomainName::parse("mx.example.net").unwrap(), DomainName::parse("example.org").unwrap());
        assert_eq!(reference_names(&base, &hop), [&base, &hop]);
        assert_eq!(reference_names(&hop, &hop), [&hop]);
    }

    #[test]
    fn dane_10_per_usage_and_selector_only_the_strongest_digest_counts() {
        let set = [
            record(3, 1, 1, 32),
            record(3, 1, 2, 64),
            record(3, 0, 1, 32),
            record(3, 1, 0, 90),
            record(2, 1, 1, 32),
        ];
        let TlsaRule::Authenticate(kept) = rule(&set) else { panic!() };
        let shape: Vec<_> = kept.iter().map(|r| (r.usage, r.selector, r.matching)).collect();
        assert_eq!(
            shape,
            [
                (Usage::DaneEe, Selector::PublicKey, Matching::Sha512),
                (Usage::DaneEe, Selector::Certificate, Matching::Sha256),
                (Usage::DaneEe, Selector::PublicKey, Matching::Full),
                (Usage::DaneTa, Selector::PublicKey, Matching::Sha256),
            ]
        );
    }

    #[test]
    fn dane_11_a_malformed_record_is_unusable() {
        assert_eq!(record(3, 1, 1, 31).usable(), Err(Unusable::Length { found: 31, expected: 32 }));
        assert_eq!(record(3, 1, 2, 32).usable(), Err(Unusable::Length { found: 32, expected: 64 }));
        assert_eq!(record(3, 1, 0, 0).usable(), Err(Unusable::Length { found: 0, expected: 0 }));
        assert_eq!(TlsaRecord::parse("3 1 1 zz"), Err(TlsaError::Hex));
        assert_eq!(TlsaRecord::parse("3 1 1 abc"), Err(TlsaError::Hex));
        assert_eq!(TlsaRecord::parse("3 1 1"), Err(TlsaError::Shape));
        assert_eq!(TlsaRecord::parse("3 1 256 ab"), Err(TlsaError::Number("256".into())));
        assert_eq!(TlsaRecord::from_rdata(&[3, 1]), Err(TlsaError::Size(2)));
        assert!(TlsaRecord::from_rdata(&vec![0; TLSA_DATA_BYTES + 4]).is_err());
    }

    #[test]
    fn rpt_06_tlsa_prints_without_spaces_inside_the_data() {
        let spaced = TlsaRecord::parse("3 1 1 6007EEE5 53E8\t5D8D").unwrap();
        assert_eq!(spaced.to_string(), "3 1 1 6007eee553e85d8d");
    }

    proptest! {
        #[test]
        fn a_printed_record_parses_to_itself(usage: u8, selector: u8, matching: u8, data in proptest::collection::vec(any::<u8>(), 1..80)) {
            let record = TlsaRecord { usage, selector, matching, data };
            prop_assert_eq!(TlsaRecord::parse(&record.to_string()), Ok(record.clone()));
            let _ = rule(&[record]);
        }

        #[test]
        fn any_text_is_rejected_or_normalized(text in "[0-9a-fA-F \\t]{0,60}") {
            if let Ok(record) = TlsaRecord::parse(&text) {
                prop_assert_eq!(TlsaRecord::parse(&record.to_string()), Ok(record));
            }
        }
    }
}
