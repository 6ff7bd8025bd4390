//! Domain and host names in one normal form: A-labels in lower case without the final dot (RFC 5890). Unicode input is
//! mapped by UTS 46. All crates use [`DomainName`], which is always valid.

use crate::limits::{DOMAIN_BYTES, LABEL_BYTES};
use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// A mail domain or host name: lower-case A-labels without the final dot, at most 253 bytes.
///
/// Underscores are allowed, since some MX host names contain them. IP addresses are not valid names.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DomainName(Box<str>);

/// Why a text is not a domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// The text is empty.
    #[error("the name is empty")]
    Empty,
    /// The name has more than 253 bytes as A-labels, or far more as Unicode.
    #[error("the name has {0} bytes; at most 253 are allowed")]
    TooLong(usize),
    /// A label has more than 63 bytes.
    #[error("the label {0:?} has over 63 bytes")]
    LabelTooLong(String),
    /// The name contains two successive dots or begins with a dot.
    #[error("the name has an empty label (two successive dots, or a leading dot)")]
    EmptyLabel,
    /// The name contains a character other than letters, digits, hyphens and underscores.
    #[error("the character {0:?} is not allowed in a domain name")]
    BadCharacter(char),
    /// A label begins or ends with a hyphen.
    #[error("the label {0:?} begins or ends with a hyphen")]
    Hyphen(String),
    /// The text is an IPv4 or IPv6 address, or its last label is a number.
    #[error("{0} is an address, not a name")]
    Address(String),
    /// UTS 46 can't map the Unicode text to A-labels.
    #[error("{0:?} is not a valid internationalized name")]
    Idna(String),
}

impl DomainName {
    /// Parses a name in any case, as A-labels or Unicode, with or without the final dot.
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        if text.is_ascii() {
            return Self::from_ascii(text);
        }
        if text.len() > DOMAIN_BYTES * 4 {
            return Err(DomainError::TooLong(text.len()));
        }
        let mapped = idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::EMPTY)
            .map_err(|_| DomainError::Idna(clip(text)))?;
        Self::from_ascii(&mapped)
    }

    /// Parses a name as A-labels. Use it for formats that do not allow Unicode (POL-19).
    pub fn from_ascii(text: &str) -> Result<Self, DomainError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        validate(text)?;
        let mut kept: Box<str> = text.into();
        kept.make_ascii_lowercase();
        Ok(Self(kept))
    }

    /// Returns the name as lower-case A-labels without the final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the labels from left to right.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }

    /// Returns the name without its leftmost label. `None` for a single label.
    pub fn parent(&self) -> Option<Self> {
        let (_, rest) = self.0.split_once('.')?;
        Self::from_ascii(rest).ok()
    }

    /// True if `self` is `ancestor` or a subdomain of it.
    pub fn is_within(&self, ancestor: &DomainName) -> bool {
        match self.0.strip_suffix(ancestor.as_str()) {
            Some(head) => head.is_empty() || head.ends_with('.'),
            None => false,
        }
    }

    /// Returns `prefix.self`, where `prefix` is one or more labels, e.g. `mta-sts`. Fails if the result is not a
    /// valid name.
    pub fn below(&self, prefix: &str) -> Result<Self, DomainError> {
        Self::from_ascii(&format!("{prefix}.{}", self.0))
    }

    /// Returns the name in Unicode for display, or as A-labels if they do not decode.
    pub fn to_unicode(&self) -> String {
        let (shown, result) = idna::domain_to_unicode(&self.0);
        if result.is_ok() { shown } else { self.0.to_string() }
    }
}

fn validate(text: &str) -> Result<(), DomainError> {
    if is_valid(text.as_bytes()) { Ok(()) } else { find_fault(text) }
}

/// A fast test for validity. If it returns false, [`find_fault`] finds the reason. Names are parsed more often than
/// anything else, and almost all are valid.
fn is_valid(text: &[u8]) -> bool {
    let class = |byte: &u8| CLASSES.get(usize::from(*byte)).copied().unwrap_or(INVALID);
    let mut seen = 0;
    for label in text.split(|byte| *byte == b'.') {
        seen = label.iter().fold(0, |seen, byte| seen | class(byte));
        let hyphen = label.first() == Some(&b'-') || label.last() == Some(&b'-');
        if seen >= INVALID || hyphen || !(1..=LABEL_BYTES).contains(&label.len()) {
            return false;
        }
    }
    // A name whose last label is a number is an address or invalid.
    seen > DIGIT && text.len() <= DOMAIN_BYTES
}

const DIGIT: u8 = 1;
const OTHER: u8 = 2;
const INVALID: u8 = 4;

/// The class of each byte within a label.
#[expect(clippy::indexing_slicing, reason = "the compiler runs this: out of bounds does not build")]
const CLASSES: [u8; 256] = {
    let mut classes = [INVALID; 256];
    let mut byte = 0;
    while byte < classes.len() {
        classes[byte] = match byte as u8 {
            b'0'..=b'9' => DIGIT,
            b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' => OTHER,
            _ => INVALID,
        };
        byte += 1;
    }
    classes
};

fn find_fault(text: &str) -> Result<(), DomainError> {
    if text.is_empty() {
        return Err(DomainError::Empty);
    }
    if text.len() > DOMAIN_BYTES {
        return Err(DomainError::TooLong(text.len()));
    }
    if text.contains(':') && text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(DomainError::Address(text.to_owned()));
    }
    let mut last_is_number = false;
    for label in text.split('.') {
        validate_label(label)?;
        last_is_number = label.bytes().all(|b| b.is_ascii_digit());
    }
    if last_is_number {
        return Err(DomainError::Address(text.to_owned()));
    }
    Ok(())
}

fn validate_label(label: &str) -> Result<(), DomainError> {
    if label.is_empty() {
        return Err(DomainError::EmptyLabel);
    }
    if label.len() > LABEL_BYTES {
        return Err(DomainError::LabelTooLong(label.to_owned()));
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !label.bytes().all(fits) {
        let bad = label.chars().find(|c| !(c.is_ascii() && fits(*c as u8)));
        return Err(DomainError::BadCharacter(bad.unwrap_or('?')));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(DomainError::Hyphen(label.to_owned()));
    }
    Ok(())
}

fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

impl FromStr for DomainName {
    type Err = DomainError;
    fn from_str(text: &str) -> Result<Self, DomainError> {
        Self::parse(text)
    }
}

impl AsRef<str> for DomainName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for DomainName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for DomainName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for DomainName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn val_03_names_in_unicode_and_a_labels_are_the_same_name() {
        let unicode = DomainName::parse("Bücher.Example.").unwrap();
        assert_eq!(unicode.as_str(), "xn--bcher-kva.example");
        assert_eq!(unicode, DomainName::parse("XN--BCHER-KVA.example").unwrap());
        assert_eq!(unicode.to_unicode(), "bücher.example");
        assert_eq!(DomainName::parse("例え。テスト").unwrap().as_str(), "xn--r8jz45g.xn--zckzah");
    }

    #[test]
    fn invalid_names_are_rejected_with_the_reason() {
        let error = |text: &str| DomainName::parse(text).unwrap_err();
        assert_eq!(error(""), DomainError::Empty);
        assert_eq!(error("."), DomainError::Empty);
        assert_eq!(error("a..b"), DomainError::EmptyLabel);
        assert_eq!(error(".a"), DomainError::EmptyLabel);
        assert_eq!(error("a b"), DomainError::BadCharacter(' '));
        assert_eq!(error("user@example.org"), DomainError::BadCharacter('@'));
        assert_eq!(error("-a.example"), DomainError::Hyphen("-a".into()));
        assert_eq!(error("192.0.2.1"), DomainError::Address("192.0.2.1".into()));
        assert_eq!(error("2001:db8::1"), DomainError::Address("2001:db8::1".into()));
        assert!(matches!(error(&"a".repeat(64)), DomainError::LabelTooLong(_)));
        assert!(matches!(error(&"a.".repeat(200)), DomainError::TooLong(_)));
    }

    #[test]
    fn is_within_compares_whole_labels() {
        let name = |text: &str| DomainName::parse(text).unwrap();
        assert!(name("a.example.org").is_within(&name("example.org")));
        assert!(name("example.org").is_within(&name("example.org")));
        assert!(!name("badexample.org").is_within(&name("example.org")));
        assert_eq!(name("a.example.org").parent(), Some(name("example.org")));
        assert_eq!(name("org").parent(), None);
    }

    proptest! {
        #[test]
        fn the_fast_test_and_the_slow_one_agree(text in "[aZ0._*:-]{0,12}|[a.-]{0,5}a{60,66}\\.?[0b]{0,3}|([ab0]{1,60}\\.){4,5}[ab]{0,14}") {
            prop_assert_eq!(is_valid(text.as_bytes()), find_fault(&text).is_ok());
        }

        #[test]
        fn any_text_is_rejected_or_normalized(text in "\\PC{0,80}") {
            if let Ok(name) = DomainName::parse(&text) {
                prop_assert_eq!(DomainName::parse(name.as_str()), Ok(name.clone()));
                prop_assert!(name.as_str().bytes().all(|b| !b.is_ascii_uppercase()));
                prop_assert!(name.as_str().len() <= DOMAIN_BYTES);
            }
        }
    }
}
