//! What all pages share: the frame, and how texts, numbers, states and ids are written.

use super::list::{ITEMS_MAX, more_items};
use contract::{Capacity, Timestamp, report::State};
use maud::{DOCTYPE, Markup, html};
use registry_api::view::ContractState;

/// Characters of one text of a statement that a page shows.
const SAID_MAX: usize = 600;

/// The pages in the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Home,
    Farms,
    Nodes,
    Contracts,
    Inbox,
    Results,
    Log,
    /// A page that is not in the navigation.
    None,
}

impl Tab {
    const ALL: [Self; 7] = [
        Self::Home,
        Self::Farms,
        Self::Nodes,
        Self::Contracts,
        Self::Inbox,
        Self::Results,
        Self::Log,
    ];

    fn link(self) -> (&'static str, &'static str) {
        match self {
            Self::Home => ("/", "Grid"),
            Self::Farms => ("/farms", "Farms"),
            Self::Nodes => ("/nodes", "Nodes"),
            Self::Contracts => ("/contracts", "Contracts"),
            Self::Inbox => ("/inbox", "To sign"),
            Self::Results => ("/results", "Results"),
            Self::Log => ("/log", "Log"),
            Self::None => ("/", ""),
        }
    }
}

/// How good a state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Waiting,
    Bad,
    Over,
}

impl Tone {
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Good => "badge good",
            Self::Waiting => "badge waiting",
            Self::Bad => "badge bad",
            Self::Over => "badge over",
        }
    }
}

pub(super) fn frame(tab: Tab, title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (cut(title).0) " · Zero-OS registry" }
                link rel="stylesheet" href="/style.css";
            }
            body {
                a .skip href="#main" { "Skip to the content" }
                header {
                    span .brand { "Zero-OS" span { " registry" } }
                    nav aria-label="Pages" {
                        @for one in Tab::ALL {
                            @let (href, name) = one.link();
                            @if one == tab { a href=(href) aria-current="page" { (name) } }
                            @else { a href=(href) { (name) } }
                        }
                    }
                }
                main #main tabindex="-1" { h1 { (said(title)) } (content) }
                footer {
                    "Everything here follows from signed statements. Judge for yourself: "
                    a href="/openapi.json" { "the API" }
                    " serves them as they were signed."
                }
            }
        }
    }
}

pub(super) fn badge(tone: Tone, word: &str) -> Markup {
    html! { span class=(tone.class()) { (word) } }
}

pub(super) fn contract_state(state: ContractState) -> Markup {
    let tone = match state {
        ContractState::Running => Tone::Good,
        ContractState::Proposed | ContractState::Agreed | ContractState::Deploying => Tone::Waiting,
        ContractState::Rejected | ContractState::Degraded | ContractState::Lapsed => Tone::Bad,
        ContractState::Cancelled | ContractState::Expired | ContractState::Wiped => Tone::Over,
    };
    badge(tone, state.name())
}

pub(super) fn work_state(state: State) -> Markup {
    let (tone, word) = match state {
        State::Accepted => (Tone::Waiting, "accepted"),
        State::Refused => (Tone::Bad, "refused"),
        State::Running => (Tone::Good, "running"),
        State::Failed => (Tone::Bad, "failed"),
        State::Stopped => (Tone::Over, "stopped"),
        State::Wiped => (Tone::Over, "wiped"),
        State::Done => (Tone::Good, "done"),
    };
    badge(tone, word)
}

/// An id by its first digits, with the whole of it for whoever looks closer.
pub(super) fn short(id: &dyn std::fmt::Display) -> Markup {
    let text = id.to_string();
    let first: String = text.chars().take(8).collect();
    html! { code title=(text) { (first) } }
}

pub(super) fn time(at: Timestamp) -> Markup {
    let text = at.to_string();
    let shown = text.replace('T', " ").replace('Z', " UTC");
    html! { time datetime=(text) { (shown) } }
}

/// Bytes in binary units, with one digit after the point.
pub(super) fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if size < 1024 {
        return format!("{size} B");
    }
    let (mut tenths, mut unit) = (u128::from(size) * 10 / 1024, 0);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

pub(super) fn cores(milli: u64) -> String {
    if milli.is_multiple_of(1000) {
        format!("{}", milli / 1000)
    } else {
        format!("{}.{:03}", milli / 1000, milli % 1000)
    }
}

/// What there is, and how much of it is free when that is known.
pub(super) fn capacity(all: &Capacity, free: Option<&Capacity>) -> Markup {
    let parts = [
        ("cores", cores(all.cru_milli), free.map(|free| cores(free.cru_milli)), all.cru_milli),
        ("memory", bytes(all.mru_bytes), free.map(|free| bytes(free.mru_bytes)), all.mru_bytes),
        ("flash", bytes(all.sru_bytes), free.map(|free| bytes(free.sru_bytes)), all.sru_bytes),
        ("disk", bytes(all.hru_bytes), free.map(|free| bytes(free.hru_bytes)), all.hru_bytes),
    ];
    html! {
        ul .plain {
            @for (name, total, free, amount) in &parts {
                @if *amount > 0 {
                    li {
                        @if let Some(free) = free { (free) " of " }
                        (total) " " span .dim { (name) }
                    }
                }
            }
        }
    }
}

/// A text that somebody else wrote: apart from what stands around it, and no longer than fits.
pub(super) fn said(text: &str) -> Markup {
    let (shown, left_out) = cut(text);
    html! {
        bdi { (shown) }
        @if left_out > 0 { " " span .dim { "… and " (left_out) " more characters" } }
    }
}

fn cut(text: &str) -> (&str, usize) {
    match text.char_indices().nth(SAID_MAX) {
        Some((end, _)) => (&text[..end], text[end..].chars().count()),
        None => (text, 0),
    }
}

pub(super) fn reasons(texts: &[String]) -> Markup {
    html! {
        @if !texts.is_empty() {
            ul .plain .reasons {
                @for text in texts.iter().take(ITEMS_MAX) { li { (said(text)) } }
                (more_items(texts.len()))
            }
        }
    }
}

pub(super) fn person(name: Option<&str>, id: &dyn std::fmt::Display) -> Markup {
    html! { @if let Some(name) = name { (said(name)) " " } (short(id)) }
}

/// A command to be copied: it wraps, not within an option, and stays one line.
pub(super) fn command(line: &str) -> Markup {
    html! { pre .command { code {
        @for (place, word) in line.split(' ').enumerate() {
            @if place > 0 { " " }
            @if word.starts_with("--") { span .option { (word) } } @else { (word) }
        }
    } } }
}

/// Seconds in words.
pub(super) fn span(seconds: u64) -> String {
    let parts = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "min")];
    let words: Vec<_> = parts
        .iter()
        .skip_while(|(count, _)| *count == 0)
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    if words.is_empty() { format!("{seconds} s") } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        assert_eq!(said("short").into_string(), "<bdi>short</bdi>");
        let long = said(&"ü".repeat(SAID_MAX + 7)).into_string();
        assert!(
            long.contains("… and 7 more characters") && !long.contains(&"ü".repeat(SAID_MAX + 1))
        );
    }

    #[test]
    fn sizes_are_written_in_binary_units() {
        for (size, wanted) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1 << 30, "1.0 GiB"),
            (100 << 40, "100.0 TiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(bytes(size), wanted);
        }
        assert_eq!([span(0), span(59), span(61)], ["0 s", "59 s", "1 min"]);
        assert_eq!(span(86_400 * 3 + 120), "3 d 0 h 2 min");
        assert_eq!((cores(4000).as_str(), cores(1500).as_str()), ("4", "1.500"));
    }
}
