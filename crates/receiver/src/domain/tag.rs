//! Tags of domains: words by which an operator groups them, such as a customer or a team. They only filter lists; nothing
//! else depends on them.

use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// The maximum length of a tag, in characters.
pub const MAX_TAG_CHARS: usize = 30;
/// The maximum number of tags of a domain.
pub const MAX_TAGS: usize = 10;

/// A tag: 1 to [`MAX_TAG_CHARS`] lower-case letters of ASCII, digits, `.`, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Tag(String);

impl Tag {
    /// Parses a tag. The error states what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        match (1..=MAX_TAG_CHARS).contains(&text.len()) && text.bytes().all(is_allowed) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "a tag has 1 to {MAX_TAG_CHARS} characters of a-z, 0-9, '.', '-' and '_', unlike {text:?}"
            )),
        }
    }

    /// Parses the tags of a domain, sorted and without repetitions.
    pub fn parse_all<'t>(texts: impl Iterator<Item = &'t str>) -> Result<Vec<Self>, String> {
        let mut tags = texts.map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        tags.sort();
        tags.dedup();
        match tags.len() {
            0..=MAX_TAGS => Ok(tags),
            more => Err(format!("a domain has at most {MAX_TAGS} tags, not {more}")),
        }
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads the member `tags` of a domain.
pub(super) fn from_texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Tag>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    Tag::parse_all(texts.iter().map(String::as_str)).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_short_words_sorted_and_few() {
        let all = |texts: &[&str]| Tag::parse_all(texts.iter().copied());
        let read = all(&["shop", "customer-7", "shop"]).unwrap();
        assert_eq!(read.iter().map(Tag::as_str).collect::<Vec<_>>(), ["customer-7", "shop"]);
        for wrong in ["", "Shop", "a b", "ä", "a,b", &"x".repeat(MAX_TAG_CHARS + 1)] {
            assert!(all(&[wrong]).unwrap_err().contains("1 to 30 characters"), "{wrong:?}");
        }
        let names: Vec<String> = (0..=MAX_TAGS).map(|number| number.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(all(&names[1..]).is_ok());
        assert!(all(&names).unwrap_err().contains("at most 10 tags"));
    }
}
