//! Farms.

use super::{
    App, Fields, Tab,
    layout::{Tone, badge, capacity, frame, said, short},
    list::{List, list},
    page,
};
use crate::{db::Fault, overview};
use axum::{extract::State, response::Response};
use contract::IdentityId;
use maud::{Markup, html};
use registry_api::view::FarmView;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    after: Option<IdentityId>,
}

pub(super) async fn get(
    State(app): State<App>,
    Fields(Asked { after }): Fields<Asked>,
) -> Result<Response, Fault> {
    let now = (app.now)();
    let found = app.db.read_page(move |db| overview::farms(db, after, now)).await?;
    let about = List {
        caption: "Farms and what their adopted nodes offer",
        columns: &["Farm", "Location", "Nodes", "Capacity", "Enrolment keys"],
        none: "No farm has been registered yet.",
        next: Some("/farms?after="),
    };
    Ok(page(frame(Tab::Farms, "Farms", &list(&about, &found, row))))
}

fn row(farm: &FarmView) -> Markup {
    html! { tr {
        th scope="row" {
            a href={ "/nodes?farm=" (farm.id) } { (said(&farm.name)) " " (short(&farm.id)) }
        }
        td { (said(&farm.location)) }
        td {
            (farm.online) " of " (farm.nodes) " online"
            @if farm.waiting > 0 {
                " " (badge(Tone::Waiting, &format!("{} waiting", farm.waiting)))
            }
        }
        td { (capacity(&farm.capacity, None)) }
        td { (farm.enrolment_keys) }
    } }
}
