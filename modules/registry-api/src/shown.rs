//! Characters of texts by others that change how what stands around them is shown.

/// Whether a character steers a terminal or a page, turns the direction of writing, takes no room, or
/// looks like a space and is another one. All that Unicode lets a program leave out is among them.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{a0}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{1680}'
            | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2000}'..='\u{200f}'
            | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}' | '\u{2800}' | '\u{3000}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::steers;

    #[test]
    fn what_cannot_be_seen_is_known_and_letters_are_left_alone() {
        for c in "\u{0}\n\u{1b}\u{7f}\u{9b}\u{ad}\u{61c}\u{200b}\u{202e}\u{2066}\u{feff}\u{e0041}"
            .chars()
        {
            assert!(steers(c), "{}", c.escape_unicode());
        }
        for c in "\u{a0}\u{2003}\u{202f}\u{3000}\u{2800}\u{fe00}\u{fe0f}\u{e0100}\u{e01ef}\u{17b4}\
                  \u{1d173}\u{fff0}\u{fff8}"
            .chars()
        {
            assert!(steers(c), "{}", c.escape_unicode());
        }
        for c in "aÄß 中文 العربية עברית 👍🏽 \u{301}".chars() {
            assert!(!steers(c), "{}", c.escape_unicode());
        }
    }
}
