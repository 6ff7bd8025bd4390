//! The formats in which programs write the root zone's trust anchor. [`zone_file`] turns them into DNSKEY records in zone-file
//! form, which the library reads.
//!
//! - zone files and `dig . DNSKEY`: `. 86400 IN DNSKEY 257 3 13 …`, also over several lines in parentheses
//! - Knot's `keymgr . dnskey`: `. DNSKEY 257 3 13 …`, without TTL and class
//! - Unbound's `root.key` (RFC 5011 state): as in a zone file, with `;;state=…` comments
//! - BIND's `bind.keys`: `trust-anchors { . initial-key 257 3 8 "…"; };`, also `static-key`, and the older `managed-keys` and
//!   `trusted-keys`

use super::ResolverError;

/// The flags of a DNSKEY record with the bit REVOKE (RFC 5011 §2.1).
const REVOKED: u16 = 0x0080;

/// The DNSKEY records in a text, one a line, with TTL and class.
///
/// # Errors
///
/// [`ResolverError::TrustAnchor`] if the text has no DNSKEY record of the root, with what it has instead.
pub(super) fn zone_file(text: &str) -> Result<String, ResolverError> {
    let wrong = |why: &str| ResolverError::TrustAnchor(why.to_owned());
    let words = words(text);
    let keys = match is_bind(text) {
        true => bind_keys(&words),
        false => records(&words),
    };
    let lines: Vec<String> = keys
        .into_iter()
        .filter(|key| key.flags & REVOKED == 0)
        .map(|key| {
            format!(". 3600 IN DNSKEY {} {} {} {}\n", key.flags, key.protocol, key.algorithm, key.data)
        })
        .collect();
    let has = |kind: &str| words.iter().any(|word| word.eq_ignore_ascii_case(kind));
    match lines.is_empty() {
        false => Ok(lines.concat()),
        true if has("DS") || has("static-ds") || has("initial-ds") => {
            Err(wrong("it has a DS record, and the DNSKEY record itself is required"))
        }
        true => Err(wrong("it has no DNSKEY record of the root zone")),
    }
}

struct Key {
    flags: u16,
    protocol: u8,
    algorithm: u8,
    /// The public key in base64.
    data: String,
}

/// True for the clauses of BIND's configuration.
fn is_bind(text: &str) -> bool {
    ["trust-anchors", "managed-keys", "trusted-keys"].iter().any(|clause| text.contains(clause))
}

/// The words of a text without its comments. Braces, semicolons outside of comments and the ends of lines are words.
fn words(text: &str) -> Vec<String> {
    let is_bind = is_bind(text);
    let mut words = Vec::new();
    // The base64 in quotes may contain `//`, and go on in the next line.
    let mut is_quoted = false;
    for line in text.lines() {
        let comments: &[&str] = if is_bind { &["//", "#", "/*"] } else { &[";"] };
        let start = line.char_indices().find(|(at, c)| {
            is_quoted ^= *c == '"';
            !is_quoted
                && comments
                    .iter()
                    .any(|comment| line.get(*at..).is_some_and(|rest| rest.starts_with(comment)))
        });
        let line = start.map_or(line, |(at, _)| line.get(..at).unwrap_or(line));
        let spaced = line.replace('{', " { ").replace('}', " } ").replace(';', " ; ");
        words.extend(spaced.split_whitespace().map(str::to_owned));
        words.push("\n".to_owned());
    }
    words
}

/// The keys of BIND's clauses: `. initial-key FLAGS PROTOCOL ALGORITHM "DATA";`, in `trusted-keys` without the second word.
fn bind_keys(words: &[String]) -> Vec<Key> {
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| *word != "\n").collect();
    let clauses = words.split(|word| [";", "{", "}"].contains(word));
    let of_clause = |clause: &[&str]| {
        let (name, rest) = clause.split_first()?;
        let is_root = name.trim_matches('"') == ".";
        let rest = match rest.first()? {
            kind if ["initial-key", "static-key"].contains(kind) => rest.get(1..)?,
            _ => rest,
        };
        key(rest).filter(|_| is_root)
    };
    clauses.filter_map(of_clause).collect()
}

/// The keys of records in zone-file form.
fn records(words: &[String]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = words;
    while let Some(at) = rest.iter().position(|word| word.eq_ignore_ascii_case("DNSKEY")) {
        let (before, after) = rest.split_at(at);
        let owner = before.iter().rev().take_while(|word| *word != "\n").last();
        let after = after.get(1..).unwrap_or_default();
        // In parentheses a record goes on over the end of the line.
        let is_open = after.iter().take_while(|word| *word != "\n").any(|word| word.starts_with('('));
        let end = match is_open {
            true => after.iter().position(|word| word.ends_with(')')).map(|at| at + 1),
            false => after.iter().position(|word| word == "\n"),
        };
        let (record, later) = after.split_at(end.unwrap_or(after.len()).min(after.len()));
        let record: Vec<&str> = record
            .iter()
            .map(|word| word.trim_matches(['(', ')']))
            .filter(|word| !word.is_empty() && *word != "\n")
            .collect();
        keys.extend(key(&record).filter(|_| owner.is_none_or(|owner| owner == ".")));
        rest = later;
    }
    keys
}

fn key(words: &[&str]) -> Option<Key> {
    let [flags, protocol, algorithm, data @ ..] = words else { return None };
    let data = data.concat().replace('"', "");
    Some(Key {
        flags: flags.parse().ok()?,
        protocol: protocol.parse().ok()?,
        algorithm: algorithm.parse().ok()?,
        data: Some(data).filter(|data| !data.is_empty())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::dnssec::TrustAnchors;

    const KEY: &str =
        "mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+KkxLbxILfDLUT0rAK9iUzy1L53eKGQ==";

    #[test]
    fn every_format_of_the_root_key_is_read() {
        let (first, second) = KEY.split_at(40);
        let texts = [
            format!(". 86400 IN DNSKEY 257 3 13 {KEY}"),
            format!(".\t300 DNSKEY 257 3 13 {first} {second}\n"),
            // keymgr . dnskey
            format!(". DNSKEY 257 3 13 {KEY}\n"),
            // dig with +multiline
            format!(
                ".\t\t3600 IN DNSKEY 257 3 13 (\n\t{first}\n\t{second}\n\t) ; KSK; alg = ECDSAP256SHA256 ; key id = 1\n"
            ),
            // dnssec-keygen
            format!(
                "; This is a key-signing key, keyid 27909, for .\n; Created: 20261127134153\n. IN DNSKEY 257 3 13 {first} {second}\n"
            ),
            // unbound-anchor
            format!(
                "; autotrust trust anchor file\n;;id: . 1\n;;last_queried: 1795790514 ;;Fri Nov 27\n.\t86400\tIN\tDNSKEY\t257 3 13 {KEY} ;{{id = 20326 (ksk), size = 2048b}} ;;state=2 [  VALID  ] ;;count=0\n"
            ),
            // bind.keys
            format!(
                "# The keys of the root.\ntrust-anchors {{\n\t. initial-key 257 3 13 \"{first}\n\t\t{second}\";\n}};\n"
            ),
            format!("trust-anchors {{ \".\" static-key 257 3 13 \"{KEY}\"; }};"),
            format!("managed-keys {{ . initial-key 257 3 13 \"{KEY}\"; }}; // old"),
            format!("trusted-keys {{ . 257 3 13 \"{KEY}\"; }};"),
        ];
        for text in texts {
            let read = zone_file(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(read, format!(". 3600 IN DNSKEY 257 3 13 {KEY}\n"), "{text}");
            assert_eq!(read.parse::<TrustAnchors>().unwrap().len(), 1);
        }
    }

    #[test]
    fn several_keys_are_kept_and_those_that_do_not_count_are_not() {
        let record = |flags: u16, owner: &str| format!("{owner} DNSKEY {flags} 3 13 {KEY}\n");
        let both = record(257, ".") + &record(256, ".");
        assert_eq!(zone_file(&both).unwrap().lines().count(), 2);
        // A revoked key, and that of another zone.
        let text = record(257, ".") + &record(385, ".") + &record(257, "example.org.");
        assert_eq!(zone_file(&text).unwrap().lines().count(), 1);
    }

    #[test]
    fn a_text_without_a_key_says_what_is_missing() {
        let why = |text: &str| zone_file(text).unwrap_err().to_string();
        assert!(why("").contains("no DNSKEY record of the root zone"));
        assert!(why(". DS 20326 8 2 E06D44B8").contains("it has a DS record"));
        assert!(
            why("trust-anchors { . initial-ds 20326 8 2 \"E06D44B8\"; };").contains("it has a DS record")
        );
        assert!(why("<xml>").contains("no DNSKEY record"));
        assert!(why(". DNSKEY 257 3").contains("no DNSKEY record"));
    }
}
