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

    /// The whole screen, drawn over the former one: of all layouts the first that fits.
    pub(crate) fn screen(&self, title: &str, columns: usize, rows: usize) -> String {
        let heading = format!("\x1b[1m{}\x1b[0m", cut(&clean(title), columns));
        let layouts = LAYOUTS.iter().map(|layout| self.lines(*layout, columns));
        let layouts: Vec<Vec<String>> = layouts.collect();
        let fits = layouts.iter().find(|lines| lines.len() < rows).or(layouts.last());
        let mut lines = vec![heading];
        lines.extend(fits.into_iter().flatten().cloned());
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

    /// The sections, that of the services last: as long as they do well, they are of no interest.
    fn lines(&self, layout: Layout, columns: usize) -> Vec<String> {
        let is_services = |section: &&Section| section.title == SERVICES;
        let others = self.sections.iter().filter(|section| !is_services(section));
        let mut lines = Vec::new();
        for section in others.chain(self.sections.iter().filter(is_services)) {
            lines.extend((layout == Layout::Loose).then(String::new));
            lines.push(format!("\x1b[1m{}\x1b[0m", cut(&section.title, columns)));
            lines.extend(shown(&section.facts, layout).iter().map(|fact| {
                let text = cut(&format!("  {:<14} {}", fact.label, fact.text), columns);
                format!("{}{text}\x1b[0m", colour(fact.level))
            }));
        }
        lines
    }
}

/// The section that init itself publishes.
const SERVICES: &str = "services";

/// How much of a section is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Everything, with empty lines between the sections.
    Loose,
    /// At most so many facts of each section, without empty lines.
    Tight(usize),
}

/// The one with the most room comes first.
const LAYOUTS: [Layout; 7] = [
    Layout::Loose,
    Layout::Tight(FACTS_MAX),
    Layout::Tight(12),
    Layout::Tight(8),
    Layout::Tight(5),
    Layout::Tight(3),
    Layout::Tight(2),
];

/// The facts of a section that are shown: what goes wrong before what goes well, and one line for
/// all that are well alike.
fn shown(facts: &[Fact], layout: Layout) -> Vec<Fact> {
    let Layout::Tight(limit) = layout else { return facts.to_vec() };
    let [first, _, ..] = facts else { return facts.to_vec() };
    if facts.iter().all(|fact| fact.level == Level::Good && fact.text == first.text) {
        let label = format!("all {}", facts.len());
        return vec![Fact { label, ..first.clone() }];
    }
    if facts.len() <= limit {
        return facts.to_vec();
    }
    let urgency = |fact: &Fact| match fact.level {
        Level::Bad => 0,
        Level::Warning => 1,
        Level::Plain | Level::Good => 2,
    };
    let mut kept = facts.to_vec();
    kept.sort_by_key(urgency);
    kept.truncate(limit.saturating_sub(1));
    let text = format!("{} more", facts.len() - kept.len());
    kept.push(Fact { label: "and".to_owned(), text, level: Level::Plain });
    kept
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

    /// On a screen of 80 × 25, the list of services pushed out what the farmer waited for.
    #[test]
    fn a_small_screen_has_room_for_what_is_waited_for() {
        let mut board = Board::default();
        let names = ["devices", "storaged", "netd", "launcher", "contractd"];
        board.publish("services", &names.map(|name| fact(name, "ready"))).unwrap();
        for (section, n) in [("node", 4), ("network", 3), ("disks", 4), ("registration", 2)] {
            let facts: Vec<_> = (0..n).map(|n| fact(&n.to_string(), &format!("t{n}"))).collect();
            board.publish(section, &facts).unwrap();
        }
        let mut contracts: Vec<_> =
            (0..9).map(|n| fact(&format!("c{n}"), &format!("{n}"))).collect();
        contracts[7].level = Level::Bad;
        board.publish("contracts", &contracts).unwrap();
        let screen = board.screen("Zero-OS", 80, 25);
        assert!(screen.matches("\r\n").count() < 25 && !screen.contains("..."), "{screen}");
        for text in ["registration", "  1              t1", "c7", "more", "all 5          ready"] {
            assert!(screen.contains(text), "{text}: {screen}");
        }
        let place = |text: &str| screen.find(text).unwrap();
        assert!(place("contracts") < place("services"));
        assert!(place("c7") < place("c0"), "what goes wrong comes first");
        let tall = board.screen("Zero-OS", 80, 60);
        assert!(tall.contains("netd") && !tall.contains("more"));
        // A service that does not do well is seen.
        let mut services = names.map(|name| fact(name, "ready"));
        services[2] = Fact { level: Level::Bad, ..fact("netd", "restarting") };
        board.publish("services", &services).unwrap();
        assert!(board.screen("Zero-OS", 80, 25).contains("restarting"));
    }

    #[test]
    fn a_screen_fits_its_terminal_and_says_when_it_does_not() {
        let mut board = Board::default();
        for section in 0..14 {
            let many: Vec<_> =
                (0..5).map(|n| fact(&n.to_string(), &format!("{n}").repeat(100))).collect();
            board.publish(&section.to_string(), &many).unwrap();
        }
        let screen = board.screen("Zero-OS 0.1.0", 80, 24);
        assert_eq!(screen.matches("\r\n").count(), 23);
        assert!(screen.contains("\r\n...\x1b[K"));
        assert!(screen.starts_with("\x1b[?25l\x1b[H\x1b[1mZero-OS 0.1.0"));
        let tall = board.screen("Zero-OS 0.1.0", 80, 200);
        assert!(!tall.contains("..."));
    }
}
