//! People's names as they are shown: bounded plain text. Never interprets markup; the client shows text as text.

use crate::protocol::NAME_CHARS_MAX;

/// Drops what is invisible or turns the text around, folds white space, cuts at [`NAME_CHARS_MAX`].
pub fn shown_name(name: &str) -> String {
    let mut shown = String::new();
    let mut chars = 0;
    let mut gap = false;
    for c in name.chars() {
        if c.is_whitespace() {
            gap = !shown.is_empty();
            continue;
        }
        if c.is_control() || is_deceptive(c) {
            continue;
        }
        let needed = 1 + usize::from(gap);
        if chars + needed > NAME_CHARS_MAX {
            break;
        }
        if gap {
            shown.push(' ');
            gap = false;
        }
        shown.push(c);
        chars += needed;
    }
    shown
}

/// Marks that reorder the text after them, and characters without a shape of their own. The joiners U+200C and
/// U+200D stay: Persian, Indic scripts and emoji need them.
fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        | '\u{ad}' | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn markup_is_text() {
        assert_eq!(shown_name("<b>Ana</b>"), "<b>Ana</b>");
    }

    #[test]
    fn direction_overrides_and_controls_are_dropped() {
        assert_eq!(shown_name("A\u{202e}na\u{2066}\u{7}\r\n\tMaría"), "Ana María");
    }

    #[test]
    fn ten_thousand_characters_are_cut() {
        assert_eq!(shown_name(&"ñ".repeat(10_000)), "ñ".repeat(NAME_CHARS_MAX));
    }

    #[test]
    fn families_of_emoji_survive() {
        assert_eq!(shown_name("👩\u{200d}👩\u{200d}👧"), "👩\u{200d}👩\u{200d}👧");
    }

    proptest! {
        #[test]
        fn any_name_becomes_bounded_plain_text(name in any::<String>()) {
            let shown = shown_name(&name);
            prop_assert!(shown.chars().count() <= NAME_CHARS_MAX);
            prop_assert!(!shown.chars().any(char::is_control));
            prop_assert_eq!(shown.trim(), &shown);
            prop_assert_eq!(shown_name(&shown), shown);
        }
    }
}
