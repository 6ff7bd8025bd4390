//! Domain and host names as this project keeps them: A-labels, lower case, no final dot
//! (RFC 5890; Unicode input is mapped by UTS 46). A value of [`DomainName`] is always valid.

use crate::limits::{DOMAIN_BYTES, LABEL_BYTES};
use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// A mail domain or host name: lower-case A-labels without the final dot, at most 253 bytes.
///
/// Underscores are taken (they stand in real MX names); addresses are not names.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DomainName(Box<str>);

/// Why a text is not a domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// Nothing was given.
    #[error("the name is empty")]
    Empty,
    /// Over 253 bytes as A-labels.
    #[error("the name has {0} bytes; at most 253 are allowed")]
    TooLong(usize),
    /// A label over 63 bytes.
    #[error("the label {0:?} has over 63 bytes")]
    LabelTooLong(String),
    /// Two dots in a row, or a dot in front.
    #[error("there is an empty label (two dots in a row, or a dot in front)")]
    EmptyLabel,
    /// A character that no host name has.
    #[error("the character {0:?} cannot stand in a domain name")]
    BadCharacter(char),
    /// A label that begins or ends with a hyphen.
    #[error("the label {0:?} begins or ends with a hyphen")]
    Hyphen(String),
    /// An IPv4 or IPv6 address.
    #[error("{0} is an address, not a name")]
    Address(String),
    /// Unicode that UTS 46 does not map to A-labels.
    #[error("{0:?} is not a valid internationalised name")]
    Idna(String),
}

impl DomainName {
    /// Takes a name in any case, as A-labels or Unicode, with or without the final dot.
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

    /// Takes A-labels only: what a wire format calls for (POL-19).
    pub fn from_ascii(text: &str) -> Result<Self, DomainError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        validate(text)?;
        let mut kept: Box<str> = text.into();
        kept.make_ascii_lowercase();
        Ok(Self(kept))
    }

    /// The name as lower-case A-labels without the final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels from left to right.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }

    /// The name without its left-most label, if one is left.
    pub fn parent(&self) -> Option<Self> {
        let (_, rest) = self.0.split_once('.')?;
        Self::from_ascii(rest).ok()
    }

    /// True when `self` is `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &DomainName) -> bool {
        match self.0.strip_suffix(ancestor.as_str()) {
            Some(head) => head.is_empty() || head.ends_with('.'),
            None => false,
        }
    }

    /// `prefix.self`, where the prefix is one or more labels, such as `mta-sts`.
    pub fn below(&self, prefix: &str) -> Result<Self, DomainError> {
        Self::from_ascii(&format!("{prefix}.{}", self.0))
    }

    /// The name for people: Unicode where the A-labels decode, else as they are.
    pub fn to_unicode(&self) -> String {
        let (shown, result) = idna::domain_to_unicode(&self.0);
        if result.is_ok() { shown } else { self.0.to_string() }
    }
}

fn validate(text: &str) -> Result<(), DomainError> {
    if is_ordinary(text.as_bytes()) { Ok(()) } else { find_fault(text) }
}

/// Says yes to valid names; what it says no to is looked at again for the reason. Names are parsed more
/// often than anything else, and nearly all are valid.
fn is_ordinary(text: &[u8]) -> bool {
    let class = |byte: &u8| CLASSES.get(usize::from(*byte)).copied().unwrap_or(INVALID);
    let mut seen = 0;
    for label in text.split(|byte| *byte == b'.') {
        seen = label.iter().fold(0, |seen, byte| seen | class(byte));
        let hyphen = label.first() == Some(&b'-') || label.last() == Some(&b'-');
        if seen >= INVALID || hyphen || !(1..=LABEL_BYTES).contains(&label.len()) {
            return false;
        }
    }
    // A last label of digits alone makes an address, or nothing at all.
    seen > DIGIT && text.len() <= DOMAIN_BYTES
}

const DIGIT: u8 = 1;
const OTHER: u8 = 2;
const INVALID: u8 = 4;

/// What each byte is inside a label.
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
        let odd = label.chars().find(|c| !(c.is_ascii() && fits(*c as u8)));
        return Err(DomainError::BadCharacter(odd.unwrap_or('?')));
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
    fn refuses_what_is_no_name_and_says_why() {
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
    fn within_needs_whole_labels() {
        let name = |text: &str| DomainName::parse(text).unwrap();
        assert!(name("a.example.org").is_within(&name("example.org")));
        assert!(name("example.org").is_within(&name("example.org")));
        assert!(!name("badexample.org").is_within(&name("example.org")));
        assert_eq!(name("a.example.org").parent(), Some(name("example.org")));
        assert_eq!(name("org").parent(), None);
    }

    proptest! {
        #[test]
        fn the_quick_look_and_the_slow_one_agree(text in "[aZ0._*:-]{0,12}|[a.-]{0,5}a{60,66}\\.?[0b]{0,3}|([ab0]{1,60}\\.){4,5}[ab]{0,14}") {
            prop_assert_eq!(is_ordinary(text.as_bytes()), find_fault(&text).is_ok());
        }

        #[test]
        fn any_text_is_refused_or_normal(text in "\\PC{0,80}") {
            if let Ok(name) = DomainName::parse(&text) {
                prop_assert_eq!(DomainName::parse(name.as_str()), Ok(name.clone()));
                prop_assert!(name.as_str().bytes().all(|b| !b.is_ascii_uppercase()));
                prop_assert!(name.as_str().len() <= DOMAIN_BYTES);
            }
        }
    }
}
