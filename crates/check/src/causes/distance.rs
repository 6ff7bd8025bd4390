//! The edit distance between two names, for "did you mean".

/// The least number of letters to insert, remove, replace or exchange with their neighbor (Damerau and Levenshtein's
/// distance with adjacent exchanges). `None` if it is over `most`, or if a text has over 255 letters.
pub(crate) fn edits(one: &str, other: &str, most: usize) -> Option<usize> {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    if one.len().max(other.len()) > 255 || one.len().abs_diff(other.len()) > most {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, a) in one.iter().enumerate() {
        let mut now = vec![row + 1];
        for (column, b) in other.iter().enumerate() {
            let at = |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX - 1);
            let mut least = (at(&last, column) + usize::from(a != b))
                .min(at(&last, column + 1) + 1)
                .min(at(&now, column) + 1);
            let is_exchange =
                row > 0 && column > 0 && one.get(row - 1) == Some(b) && other.get(column - 1) == Some(a);
            if is_exchange {
                least = least.min(at(&before, column - 1) + 1);
            }
            now.push(least);
        }
        before = std::mem::replace(&mut last, now);
    }
    last.last().copied().filter(|edits| *edits <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted_with_exchanges_and_a_bound() {
        assert_eq!(edits("max_age", "max_age", 2), Some(0));
        assert_eq!(edits("max-age", "max_age", 2), Some(1));
        assert_eq!(edits("maxage", "max_age", 2), Some(1));
        assert_eq!(edits("rau", "rua", 1), Some(1));
        assert_eq!(edits("mx1.exmaple.org", "mx1.example.org", 3), Some(1));
        assert_eq!(edits("", "abc", 3), Some(3));
        assert_eq!(edits("", "abcd", 3), None);
        assert_eq!(edits("kitten", "sitting", 3), Some(3));
        assert_eq!(edits("kitten", "sitting", 2), None);
        assert_eq!(edits(&"a".repeat(300), &"a".repeat(300), 3), None);
    }
}
