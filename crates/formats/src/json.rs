//! A JSON parser for untrusted input. It bounds the nesting depth and the number of values, and keeps repeated member names, so that the report
//! parser can warn about them: I-JSON forbids them (RFC 7493 §2.3), and RFC 8460 §4 requires I-JSON.

use crate::limits::{JSON_DEPTH, JSON_NODES};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// A JSON value. Objects keep all members in order, repeated names included.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool,
    Count(u64),
    Number(f64),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses one value. Nesting deeper than [`JSON_DEPTH`] is an error, as are more than `nodes` values; `nodes` is
    /// counted down.
    pub(crate) fn parse(text: &str, nodes: &mut usize) -> Result<Self, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let value = Seed { depth: JSON_DEPTH, nodes }.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(value)
    }

    /// Returns the kind of the value, for error messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Count(_) | Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// Deserializes a JSON value within limits on its depth and its number of values.
struct Seed<'n> {
    /// The remaining nesting depth.
    depth: usize,
    /// The remaining number of values.
    nodes: &'n mut usize,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Json;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        match self.nodes.checked_sub(1) {
            Some(left) => *self.nodes = left,
            None => return Err(de::Error::custom(format_args!("more than {JSON_NODES} values"))),
        }
        deserializer.deserialize_any(self)
    }
}

impl Seed<'_> {
    fn deeper<E: de::Error>(&mut self) -> Result<Seed<'_>, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Seed { depth, nodes: self.nodes }),
            None => Err(E::custom(format_args!("nested deeper than {JSON_DEPTH}"))),
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Bool)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Count(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(self.deeper()?)? {
            values.push(value);
        }
        // A vector of one value has room for four, which would multiply the memory of many small ones.
        values.shrink_to_fit();
        Ok(Json::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(name) = members.next_key::<String>()? {
            values.push((name, members.next_value_seed(self.deeper()?)?));
        }
        values.shrink_to_fit();
        Ok(Json::Object(values))
    }
}

/// Checks that JSON text is nested at most `most` levels deep, for parsers that do not build a [`Json`]. The error is
/// the byte at which the nesting exceeds `most`.
pub(crate) fn check_depth(bytes: &[u8], most: usize) -> Result<(), usize> {
    let (mut depth, mut inside, mut escaped) = (0usize, false, false);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            b'[' | b'{' if !inside => depth += 1,
            b']' | b'}' if !inside => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > most {
            return Err(at);
        }
    }
    Ok(())
}
