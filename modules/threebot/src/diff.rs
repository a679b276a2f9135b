//! What changed between two texts, line by line.

/// A line of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// In both.
    Same(String),
    /// In the old text only.
    Removed(String),
    /// In the new text only.
    Added(String),
}

/// Cells of the table below: about 64 MB of memory at most.
const CELLS_MAX: usize = 16_000_000;

/// The shortest way from the old text to the new one (longest common subsequence).
///
/// Texts too long for that are shown as wholly removed and added, except for their common ends.
pub fn lines(old: &[String], new: &[String]) -> Vec<Line> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let rest = old[head..].iter().rev().zip(new[head..].iter().rev());
    let tail = rest.take_while(|(a, b)| a == b).count();
    let (a, b) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let same = |line: &String| Line::Same(line.clone());
    let mut found: Vec<Line> = old[..head].iter().map(same).collect();
    if (a.len() + 1).saturating_mul(b.len() + 1) > CELLS_MAX {
        found.extend(a.iter().cloned().map(Line::Removed));
        found.extend(b.iter().cloned().map(Line::Added));
    } else {
        found.extend(middle(a, b));
    }
    found.extend(old[old.len() - tail..].iter().map(same));
    found
}

fn middle(a: &[String], b: &[String]) -> Vec<Line> {
    let width = b.len() + 1;
    // common[i * width + j]: length of the longest common subsequence of a[i..] and b[j..].
    let mut common = vec![0_u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i * width + j] = if a[i] == b[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut found) = (0, 0, Vec::with_capacity(a.len() + b.len()));
    while i < a.len() || j < b.len() {
        let both = i < a.len() && j < b.len();
        if both && a[i] == b[j] {
            found.push(Line::Same(a[i].clone()));
            i += 1;
            j += 1;
        } else if j == b.len() || (both && common[(i + 1) * width + j] >= common[i * width + j + 1])
        {
            found.push(Line::Removed(a[i].clone()));
            i += 1;
        } else {
            found.push(Line::Added(b[j].clone()));
            j += 1;
        }
    }
    found
}

/// Whether anything changed.
pub fn changed(lines: &[Line]) -> bool {
    lines.iter().any(|line| !matches!(line, Line::Same(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(old: &str, new: &str) -> String {
        let split = |text: &str| -> Vec<String> { text.chars().map(String::from).collect() };
        let shown = lines(&split(old), &split(new)).into_iter().map(|line| match line {
            Line::Same(text) => text,
            Line::Removed(text) => format!("-{text}"),
            Line::Added(text) => format!("+{text}"),
        });
        shown.collect()
    }

    #[test]
    fn the_shortest_change_is_shown() {
        let check = |old, new, wanted: &str| assert_eq!(show(old, new), wanted, "{old} → {new}");
        check("abc", "abc", "abc");
        check("abc", "axc", "a-b+xc");
        check("", "ab", "+a+b");
        check("ab", "", "-a-b");
        check("abcd", "bcde", "-abcd+e");
        check("aab", "ab", "a-ab");
    }

    #[test]
    fn long_texts_are_compared_in_bounded_memory() {
        let old: Vec<_> = (0..9000).map(|n| format!("a{n}")).collect();
        let new: Vec<_> = (0..9000).map(|n| format!("b{n}")).collect();
        assert_eq!(lines(&old, &new).len(), 18_000);
        assert!(changed(&lines(&old, &new)));
        assert!(!changed(&lines(&old, &old)));
    }
}
