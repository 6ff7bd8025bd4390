//! Compression of cached answers: each phrase that recurs in most answers takes one byte.
//!
//! The input is the text of an answer from [`super::entry::Entry`], which has no control characters. The codes of
//! the phrases are therefore control characters. The cache can hold a million answers, so the saving counts.

/// The phrases; the code of a phrase is its index plus 1. Codes 10 and 13 are safe: an answer has no line breaks.
const DICTIONARY: [&str; 14] = [
    "secure match=",
    " servername=hostname",
    " policy_type=sts policy_domain=",
    " { policy_string = version: STSv1 }",
    " { policy_string = mode: enforce }",
    " { policy_string = mode: testing }",
    " { policy_string = max_age: 604800 }",
    " { policy_string = max_age: 86400 }",
    " { policy_string = max_age: ",
    " { policy_string = mx: ",
    " { policy_string = ",
    " }",
    " mx_host_pattern=",
    "may policy_type=sts policy_domain=",
];

/// Appends the packed form of `text` to `packed`. `text` must not contain control characters.
pub fn pack(text: &str, packed: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(first) = rest.as_bytes().first() {
        match (1..).zip(DICTIONARY).find(|(_, phrase)| rest.starts_with(phrase)) {
            Some((code, phrase)) => {
                packed.push(code);
                rest = rest.get(phrase.len()..).unwrap_or_default();
            }
            None => {
                packed.push(*first);
                let mut chars = rest.chars();
                let width = chars.next().map_or(1, char::len_utf8);
                packed.extend_from_slice(rest.as_bytes().get(1..width).unwrap_or_default());
                rest = chars.as_str();
            }
        }
    }
}

/// Appends the text that [`pack`] packed.
pub fn unpack(packed: &[u8], text: &mut Vec<u8>) {
    let mut rest = packed;
    while let Some(at) = rest.iter().position(|byte| *byte < b' ') {
        let (plain, from_code) = rest.split_at(at);
        text.extend_from_slice(plain);
        let Some((code, after)) = from_code.split_first() else { break };
        let phrase = DICTIONARY.get(usize::from(*code).wrapping_sub(1)).copied().unwrap_or_default();
        text.extend_from_slice(phrase.as_bytes());
        rest = after;
    }
    text.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn unpacking_restores_the_packed_text(
            parts in proptest::collection::vec((0..DICTIONARY.len(), "[ -~ü]{0,12}"), 0..8)
        ) {
            let text: String = parts.iter().map(|(phrase, other)| format!("{}{other}", DICTIONARY[*phrase])).collect();
            let (mut packed, mut unpacked) = (Vec::new(), Vec::new());
            pack(&text, &mut packed);
            unpack(&packed, &mut unpacked);
            prop_assert_eq!(String::from_utf8(unpacked).unwrap(), text.clone());
            prop_assert!(packed.len() <= text.len());
        }
    }
}
