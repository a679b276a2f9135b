//! What the console shows: sections of facts, which daemons publish, and the services.
//!
//! Pure: text in, text out. Texts come from daemons, and through them from disks and networks;
//! control characters never reach a terminal.

use node_api::init::{Fact, Level};
use std::fmt::Write;

/// More sections than the daemons of a node have.
const SECTIONS_MAX: usize = 16;
/// More lines than a screen shows.
const FACTS_MAX: usize = 64;
/// Longer texts are cut.
const TEXT_MAX: usize = 160;

/// Every section, in the order of its first publication.
#[derive(Debug, Default, Clone)]
pub(crate) struct Board {
    pub(crate) sections: Vec<Section>,
}

/// What one daemon has to say about one matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) facts: Vec<Fact>,
}

impl Board {
    /// Replaces a section. Returns the lines that tell what changed; none when there are too many
    /// sections already.
    pub(crate) fn publish(&mut self, title: &str, facts: &[Fact]) -> Option<Vec<String>> {
        let title = clean(title);
        let facts: Vec<_> = facts
            .iter()
            .take(FACTS_MAX)
            .map(|fact| Fact {
                label: clean(&fact.label),
                text: clean(&fact.text),
                level: fact.level,
            })
            .collect();
        let place = self.sections.iter().position(|section| section.title == title);
        if place.is_none() && self.sections.len() >= SECTIONS_MAX {
            return None;
        }
        let fresh = Section { title, facts };
        let lines = changes(place.map_or(&[], |place| &self.sections[place].facts), &fresh);
        match place {
            Some(place) => self.sections[place] = fresh,
            None => self.sections.push(fresh),
        }
        Some(lines)
    }

    /// The whole screen, drawn over the former one.
    pub(crate) fn screen(&self, title: &str, columns: usize, rows: usize) -> String {
        let mut lines = vec![format!("\x1b[1m{}\x1b[0m", cut(&clean(title), columns))];
        for section in &self.sections {
            lines.push(String::new());
            lines.push(format!("\x1b[1m{}\x1b[0m", cut(&section.title, columns)));
            for fact in &section.facts {
                let text = cut(&format!("  {:<14} {}", fact.label, fact.text), columns);
                lines.push(format!("{}{text}\x1b[0m", colour(fact.level)));
            }
        }
        if lines.len() > rows {
            lines.truncate(rows.saturating_sub(1));
            lines.push("...".to_owned());
        }
        let mut screen = String::from("\x1b[?25l\x1b[H");
        for (number, line) in lines.iter().enumerate() {
            let newline = if number == 0 { "" } else { "\r\n" };
            write!(screen, "{newline}{line}\x1b[K").expect("a String takes everything");
        }
        screen.push_str("\x1b[J");
        screen
    }
}

fn changes(former: &[Fact], section: &Section) -> Vec<String> {
    let title = &section.title;
    let told = section.facts.iter().filter(|fact| !former.contains(fact));
    let mut lines: Vec<_> =
        told.map(|fact| format!("{title}: {}: {}", fact.label, fact.text)).collect();
    let gone = former.iter().filter(|old| section.facts.iter().all(|new| new.label != old.label));
    lines.extend(gone.map(|fact| format!("{title}: {}: gone", fact.label)));
    lines
}

/// Text without control characters, of bounded length.
pub(crate) fn clean(text: &str) -> String {
    text.chars().take(TEXT_MAX).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn cut(text: &str, columns: usize) -> String {
    text.chars().take(columns).collect()
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::Good => "\x1b[32m",
        Level::Plain => "",
        Level::Warning => "\x1b[33m",
        Level::Bad => "\x1b[31m",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(label: &str, text: &str) -> Fact {
        Fact { label: label.to_owned(), text: text.to_owned(), level: Level::Good }
    }

    #[test]
    fn only_what_changed_is_told() {
        let mut board = Board::default();
        let first = board.publish("disks", &[fact("vda", "new"), fact("vdb", "pool")]).unwrap();
        assert_eq!(first, ["disks: vda: new", "disks: vdb: pool"]);
        let second = board.publish("disks", &[fact("vda", "pool"), fact("vdb", "pool")]).unwrap();
        assert_eq!(second, ["disks: vda: pool"]);
        let third = board.publish("disks", &[fact("vdb", "pool")]).unwrap();
        assert_eq!(third, ["disks: vda: gone"]);
        assert_eq!(board.publish("disks", &[fact("vdb", "pool")]).unwrap(), [""; 0]);
    }

    #[test]
    fn sections_keep_the_order_of_their_first_publication() {
        let mut board = Board::default();
        for title in ["node", "network", "node"] {
            board.publish(title, &[fact("a", "b")]).unwrap();
        }
        let titles: Vec<_> = board.sections.iter().map(|section| &section.title).collect();
        assert_eq!(titles, ["node", "network"]);
    }

    #[test]
    fn a_disk_cannot_write_to_the_terminal() {
        let mut board = Board::default();
        let lines = board.publish("disks", &[fact("vda\n", "\x1b[2Jserial\r")]).unwrap();
        assert_eq!(lines, ["disks: vda?: ?[2Jserial?"]);
        let screen = board.screen("t", 80, 24);
        assert!(screen.contains("vda?"));
        assert!(!screen.contains("\x1b[2J"));
    }

    #[test]
    fn publications_are_bounded() {
        let mut board = Board::default();
        let many: Vec<_> = (0..FACTS_MAX * 2).map(|n| fact(&n.to_string(), "x")).collect();
        assert_eq!(board.publish("many", &many).unwrap().len(), FACTS_MAX);
        let long = board.publish("long", &[fact("a", &"x".repeat(5000))]).unwrap();
        assert!(long[0].len() < TEXT_MAX + 20);
        for number in 2..SECTIONS_MAX {
            board.publish(&number.to_string(), &[]).unwrap();
        }
        assert!(board.publish("one too many", &[]).is_none());
        assert!(board.publish("long", &[]).is_some());
    }

    #[test]
    fn a_screen_fits_its_terminal_and_says_when_it_does_not() {
        let mut board = Board::default();
        let many: Vec<_> = (0..40).map(|n| fact(&n.to_string(), &"long ".repeat(20))).collect();
        board.publish("node", &many).unwrap();
        let screen = board.screen("Zero-OS 0.1.0", 80, 24);
        assert_eq!(screen.matches("\r\n").count(), 23);
        assert!(screen.contains("\r\n...\x1b[K"));
        assert!(screen.starts_with("\x1b[?25l\x1b[H\x1b[1mZero-OS 0.1.0"));
        let tall = board.screen("Zero-OS 0.1.0", 80, 100);
        assert!(!tall.contains("..."));
    }
}
