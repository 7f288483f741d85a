//! The known word that a mistyped one was meant to be.

/// The known word nearest to one that is not known; `None` if no word is near enough to be meant. Case, `_` and `-` don't
/// count: `allowWrite` is `allow_write`.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| -> Vec<char> {
        text.chars().filter(|c| *c != '_' && *c != '-').map(|c| c.to_ascii_lowercase()).take(65).collect()
    };
    let word = plain(word);
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let measured = known.map(|candidate| {
        let other = plain(candidate);
        let begins = word.len() >= 3 && (other.starts_with(&word) || word.starts_with(&other));
        (if begins { 1.min(distance(&word, &other)) } else { distance(&word, &other) }, other.len(), candidate)
    });
    let (edits, length, best) = measured.min_by_key(|(edits, ..)| *edits)?;
    (edits <= 1 + word.len().max(length) / 5).then_some(best)
}

/// Edits that make one word of the other: insertions, deletions, substitutions, and swaps of neighbours (optimal string
/// alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (above[j] + 1).min(row[j - 1] + 1).min(above[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits() {
        let table = [("", "", 0), ("abc", "", 3), ("memroy", "memory", 1), ("kitten", "sitting", 3), ("ab", "ba", 1)];
        for (a, b, edits) in table {
            let (a, b): (Vec<_>, Vec<_>) = (a.chars().collect(), b.chars().collect());
            assert_eq!((distance(&a, &b), distance(&b, &a)), (edits, edits), "{a:?} {b:?}");
        }
    }

    #[test]
    fn the_word_that_was_meant() {
        let known = ["memory", "pids", "cpu", "cpu_quota", "allow_write", "allow_read"];
        let table = [
            ("memroy", Some("memory")),
            ("mem", Some("memory")),
            ("pid", Some("pids")),
            ("cpus", Some("cpu")),
            ("allowWrite", Some("allow_write")),
            ("allow-raed", Some("allow_read")),
            ("timeout", None),
            ("", None),
        ];
        for (word, meant) in table {
            assert_eq!(nearest(word, known.into_iter()), meant, "{word}");
        }
        assert_eq!(nearest(&"m".repeat(1 << 20), known.into_iter()), None);
    }
}
