//! What waits for somebody's decision: the difference, and the command that signs it elsewhere.

use super::{
    App, Fields, Tab,
    contracts::{action, decision, retention},
    difference::{self, Signing},
    layout::{frame, person, said, time},
    list::{fill, follows, unshown},
    page, registry,
};
use crate::{
    db::Fault,
    overview::{self, Page, Row, Shown},
    proposal::{About, Matter},
    views,
};
use axum::{extract::State, http::HeaderMap, response::Response};
use contract::{ContractId, IdentityId};
use maud::{Markup, html};
use serde::Deserialize;

/// Orders to end one contract that are shown. Each is decided on by itself.
const MATTERS_SHOWN: usize = 8;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    identity: Option<IdentityId>,
    after: Option<ContractId>,
}

pub(super) async fn get(
    State(app): State<App>,
    headers: HeaderMap,
    Fields(Asked { identity, after }): Fields<Asked>,
) -> Result<Response, Fault> {
    let title = "To sign";
    let Some(who) = identity else {
        return Ok(page(frame(Tab::Inbox, title, &form(None))));
    };
    let now = (app.now)();
    let work = move |db: &_| Ok((views::name(db, &who)?, overview::inbox(db, &who, after, now)?));
    let (name, found) = app.db.read_page(work).await?;
    let registry = registry(&headers);
    let content = html! {
        p { "What waits for " (person(name.as_deref(), &who)) }
        (waiting(&who, &found, &app.network, registry.as_deref()))
        (form(Some(&who)))
    };
    Ok(page(frame(Tab::Inbox, title, &content)))
}

fn form(who: Option<&IdentityId>) -> Markup {
    html! {
        form method="get" action="/inbox" {
            label for="identity" { "Id of an identity: 64 digits, as " code { "3bot key list" } " shows them" }
            div .field {
                input #identity name="identity" required pattern="[0-9a-f]{64}" size="64"
                    autocomplete="off" spellcheck="false" autocapitalize="off"
                    value=[who.map(ToString::to_string)];
                button type="submit" { "Show what waits" }
            }
        }
    }
}

fn waiting(
    who: &IdentityId,
    found: &Page<ContractId, Vec<Matter>>,
    network: &str,
    registry: Option<&str>,
) -> Markup {
    let (rows, shown) = fill(&found.rows, |row| contract(row, network, registry));
    let next = format!("/inbox?identity={who}&after=");
    html! {
        @if found.rows.is_empty() && found.next.is_none() {
            p { "Nothing waits for this identity here." }
        } @else if found.rows.is_empty() {
            p { "Nothing in these " (found.seen) " contracts; there are more." }
        }
        (rows)
        (follows(Some(&next), found, shown))
    }
}

fn contract(row: &Row<ContractId, Vec<Matter>>, network: &str, registry: Option<&str>) -> Markup {
    html! { @match &row.shown {
        Shown::Read(matters) => {
            @for one in matters.iter().take(MATTERS_SHOWN) { (matter(one, network, registry)) }
            @if matters.len() > MATTERS_SHOWN {
                p .note {
                    "Not all is shown here: " (matters.len() - MATTERS_SHOWN) " more orders of "
                    a href={ "/contracts/" (row.id) } { code { (row.id) } } "."
                }
            }
        }
        Shown::Unreadable | Shown::TooLarge => {
            section { h2 { "A contract that cannot be shown" } p { code { (row.id) } " " (unshown(&row.shown)) } }
        }
    } }
}

fn matter(one: &Matter, network: &str, registry: Option<&str>) -> Markup {
    let asked = &one.asked;
    let signing = Signing {
        contract: one.contract,
        subject: asked.subject,
        action: asked.action,
        network,
        registry: registry.map(str::to_owned),
    };
    let cut = match &one.about {
        About::Version(found) if !difference::is_whole(found) => Some(found),
        About::Version(_) | About::Cancel { .. } => None,
    };
    // Ids are digits, and so are those of elements.
    let heading = format!("matter-{}", asked.subject);
    html! { section .matter aria-labelledby=(heading) {
        h2 id=(heading) { (said(&one.title)) ": " (action(asked.action)) " version " (asked.version) }
        p {
            "Asked as " (asked.role) " with weight " (asked.weight) ". Decisions count until "
            (time(one.until)) "."
            @if let Some(made) = one.decided { " So far you have decided: " (decision(Some(made))) }
        }
        dl { dt { "Owner" } dd {
            @if let Some(name) = &one.owner_name { (said(name)) " " }
            code { (one.owner) }
        } }
        h3 { "What is decided" }
        @match &one.about {
            About::Version(found) => {
                (difference::what(found))
                (difference::lines(found, 0))
            }
            About::Cancel { reason, effective_at, retention: data } => {
                dl {
                    dt { "Contract" }
                    dd { a href={ "/contracts/" (one.contract) } { code { (one.contract) } } }
                    dt { "Statement" } dd { code { (asked.subject) } }
                    dt { "Workloads stop" } dd { (time(*effective_at)) }
                    dt { "Data" } dd { (retention(*data)) }
                    dt { "Reason" } dd { (said(reason)) }
                }
            }
        }
        h3 { "To decide on it" }
        // Nobody is handed the command below a part of what it signs.
        @if let Some(found) = cut {
            p { a href={ "/contracts/" (found.contract) "/difference?statement=" (found.statement) } {
                "Read all of the difference"
            } "; the command stands below it." }
        } @else {
            (signing.commands())
        }
    } }
}
