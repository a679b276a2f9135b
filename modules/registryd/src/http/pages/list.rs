//! Lists and tables: bounded in rows and bytes, with a way to what follows.

use super::{
    layout::{Tone, badge},
    spelled_out,
};
use crate::overview::{Page, Shown};
use maud::{Markup, PreEscaped, html};
use std::fmt;

/// Items of a list within a row or a section.
pub(super) const ITEMS_MAX: usize = 8;
/// Bytes of the rows of one table; the row that goes beyond is the last.
const BYTES_MAX: usize = 192 << 10;

/// That there are more than are shown.
pub(super) fn more_items(count: usize) -> Markup {
    html! { @if count > ITEMS_MAX { li .dim { "and " (count - ITEMS_MAX) " more" } } }
}

/// As many rows as fit, and how many these are. The first always does.
pub(super) fn fill<T>(items: &[T], row: impl Fn(&T) -> Markup) -> (Markup, usize) {
    let (mut text, mut shown) = (String::new(), 0);
    for item in items {
        if text.len() > BYTES_MAX {
            break;
        }
        // Counted as they leave: one character may become ten.
        text.push_str(&spelled_out(&row(item).into_string()));
        shown += 1;
    }
    (PreEscaped(text), shown)
}

/// A table that scrolls by itself where the screen is narrow, also by keyboard.
pub(super) fn table(caption: &str, columns: &[&str], rows: &Markup) -> Markup {
    html! {
        div .wide role="region" aria-label=(caption) tabindex="0" { table {
            caption { (caption) }
            thead { tr { @for name in columns { th scope="col" { (name) } } } }
            tbody { (rows) }
        } }
    }
}

/// A table of what is at hand. What does not fit is counted.
pub(super) fn section<T>(
    caption: &str,
    columns: &[&str],
    items: &[T],
    most: usize,
    row: impl Fn(&T) -> Markup,
) -> Markup {
    let (rows, shown) = fill(&items[..items.len().min(most)], row);
    html! {
        (table(caption, columns, &rows))
        @if shown < items.len() {
            p .note { "Not all are shown here: " (items.len() - shown) " more of " (items.len()) "." }
        }
    }
}

/// What a list is called, and where it goes on.
pub(super) struct List<'a> {
    /// What the table shows.
    pub(super) caption: &'a str,
    /// Its columns; the first is what names a row.
    pub(super) columns: &'a [&'a str],
    /// Said when there is nothing.
    pub(super) none: &'a str,
    /// The address of the page after this one, without the id at its end; `None` where nothing leads on.
    pub(super) next: Option<&'a str>,
}

/// A page of a list. `name` links an id, for rows that cannot be shown.
pub(super) fn list<Id: Copy + fmt::Display, T>(
    about: &List<'_>,
    page: &Page<Id, T>,
    row: impl Fn(&T) -> Markup,
) -> Markup {
    let span = about.columns.len().saturating_sub(1);
    let (rows, shown) = fill(&page.rows, |one| match &one.shown {
        Shown::Read(found) => row(found),
        Shown::Unreadable | Shown::TooLarge => html! { tr {
            th scope="row" { code { (one.id) } }
            td colspan=(span) { (unshown(&one.shown)) }
        } },
    });
    html! {
        @if page.rows.is_empty() && page.next.is_none() { p .dim { (about.none) } }
        @else { (table(about.caption, about.columns, &rows)) }
        (follows(about.next, page, shown))
    }
}

/// Why something is not shown.
pub(super) fn unshown<T>(shown: &Shown<T>) -> Markup {
    html! { @match shown {
        Shown::Read(_) => {},
        Shown::Unreadable => {
            (badge(Tone::Bad, "cannot be read")) " The registry's log says why."
        }
        Shown::TooLarge => {
            (badge(Tone::Bad, "too large")) " It is larger than what a page reads; the API has it."
        }
    } }
}

/// The way to the next page, when there is one.
pub(super) fn follows<Id: Copy + fmt::Display, T>(
    next: Option<&str>,
    page: &Page<Id, T>,
    shown: usize,
) -> Markup {
    let cut = page.rows[..shown].last().filter(|_| shown < page.rows.len()).map(|row| row.id);
    html! {
        @if let (Some(next), Some(id)) = (next, cut.or(page.next)) {
            p .more { a rel="next" href={ (next) (id) } { "More" } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overview::Row;

    fn numbers(count: u64, next: Option<u64>) -> Page<u64, u64> {
        let rows = (0..count).map(|id| Row { id, shown: Shown::Read(id) }).collect();
        Page { rows, seen: 0, next }
    }

    fn show(page: &Page<u64, u64>, row: impl Fn(&u64) -> Markup) -> String {
        let about =
            List { caption: "c", columns: &["a", "b"], none: "none", next: Some("/x?after=") };
        list(&about, page, row).into_string()
    }

    #[test]
    fn a_list_that_is_cut_by_its_bytes_goes_on_after_its_last_row() {
        let large = "x".repeat(BYTES_MAX / 2);
        let row = |id: &u64| html! { tr { td { (id) (large) } } };
        let text = show(&numbers(9, Some(70)), row);
        assert!(text.len() < 2 * BYTES_MAX, "{}", text.len());
        assert!(text.contains("/x?after=1\"") && !text.contains("after=70"), "two rows fit");
        let whole = show(&numbers(2, None), row);
        assert!(!whole.contains("More"));
        assert!(show(&numbers(2, Some(70)), row).contains("/x?after=70"));
    }

    #[test]
    fn characters_that_are_spelled_out_count_as_they_are_written() {
        let large = "\u{e0041}".repeat(BYTES_MAX / 8);
        let (text, shown) = fill(&[0; 9], |_| html! { tr { td { (large) } } });
        assert_eq!(shown, 1, "{}", text.into_string().len());
        let (_, shown) = fill(&[0; 9], |_| html! { tr { td { "x" } } });
        assert_eq!(shown, 9);
    }

    #[test]
    fn nothing_leads_on_from_a_list_that_has_no_address() {
        let about = List { caption: "c", columns: &["a"], none: "none", next: None };
        let row = |id: &u64| html! { tr { td { (id) } } };
        assert!(!list(&about, &numbers(2, Some(70)), row).into_string().contains("More"));
    }

    #[test]
    fn an_empty_list_says_so_and_a_bad_row_is_named() {
        let row = |id: &u64| html! { tr { td { (id) } } };
        assert!(show(&numbers(0, None), row).contains("none"));
        let mut page = numbers(3, None);
        page.rows[1].shown = Shown::Unreadable;
        page.rows[2].shown = Shown::TooLarge;
        let text = show(&page, row);
        assert!(text.contains("<code>1</code>") && text.contains("cannot be read"));
        assert!(text.contains("<code>2</code>") && text.contains("too large"));
        assert!(text.contains("<td>0</td>"));
    }
}
