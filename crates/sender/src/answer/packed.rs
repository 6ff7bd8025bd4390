//! Answers as they lie in memory: the words that every answer has are one byte each, since a million
//! domains say them. Clean text has no control characters, so those are the codes.

/// The words, by their code less one. Line feed and carriage return are no exception: an answer has
/// neither.
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

/// Packs clean text.
pub fn pack(text: &str, packed: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(first) = rest.as_bytes().first() {
        match (1..).zip(DICTIONARY).find(|(_, word)| rest.starts_with(word)) {
            Some((code, word)) => {
                packed.push(code);
                rest = rest.get(word.len()..).unwrap_or_default();
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

/// Appends the text again.
pub fn unpack(packed: &[u8], text: &mut Vec<u8>) {
    let mut rest = packed;
    while let Some(at) = rest.iter().position(|byte| *byte < b' ') {
        let (plain, from_code) = rest.split_at(at);
        text.extend_from_slice(plain);
        let Some((code, after)) = from_code.split_first() else { break };
        let word = DICTIONARY.get(usize::from(*code).wrapping_sub(1)).copied().unwrap_or_default();
        text.extend_from_slice(word.as_bytes());
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
        fn what_is_packed_comes_out_as_it_went_in(
            words in proptest::collection::vec((0..DICTIONARY.len(), "[ -~ü]{0,12}"), 0..8)
        ) {
            let text: String = words.iter().map(|(word, other)| format!("{}{other}", DICTIONARY[*word])).collect();
            let (mut packed, mut back) = (Vec::new(), Vec::new());
            pack(&text, &mut packed);
            unpack(&packed, &mut back);
            prop_assert_eq!(String::from_utf8(back).unwrap(), text.clone());
            prop_assert!(packed.len() <= text.len());
        }
    }
}
