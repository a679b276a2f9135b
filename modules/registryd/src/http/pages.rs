//! Pages for people: read-only, rendered here, without scripts. Every text of a statement is
//! escaped by the template; there is no other way to put one on a page.

mod contracts;
mod layout;
mod nodes;

use super::{
    App,
    extract::{Fields, Segments},
    unknown,
};
use crate::{
    db::Fault,
    standing::{self, Filter},
    views::{self, Order},
};
use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
    routing::get,
};
use contract::{ContractId, IdentityId, NodeId};
use maud::Markup;
use serde::Deserialize;

const STYLE: &str = include_str!("pages/style.css");
/// Results on one page.
const RESULTS_SHOWN: usize = 200;
/// Nothing but our own style sheet is loaded or run, wherever a text came from.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/", get(home))
        .route("/farms", get(farms))
        .route("/nodes", get(node_list))
        .route("/nodes/{id}", get(node))
        .route("/contracts", get(contract_list))
        .route("/contracts/{id}", get(contract))
        .route("/results", get(results))
        .route("/style.css", get(style))
}

fn page(markup: Markup) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, markup.into_string()).into_response()
}

async fn style() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=300"),
    ];
    (headers, STYLE).into_response()
}

async fn home(State(app): State<App>) -> Result<Response, Fault> {
    let now = (app.now)();
    let network = app.network.to_string();
    let work = move |db: &_| {
        Ok((
            views::farms(db, None, now)?,
            views::nodes(db, None, None, now)?,
            standing::contracts(db, &Filter::default(), now)?,
            views::results(db, None, None, Order::Newest, 10)?,
        ))
    };
    let (farms, nodes, contracts, results) = app.db.read(work).await?;
    Ok(page(contracts::home(&network, &farms, &nodes, &contracts, &results)))
}

async fn farms(State(app): State<App>) -> Result<Response, Fault> {
    let now = (app.now)();
    let farms = app.db.read(move |db| views::farms(db, None, now)).await?;
    Ok(page(nodes::farms(&farms)))
}

#[derive(Debug, Deserialize)]
struct NodeFields {
    farm: Option<IdentityId>,
}

async fn node_list(
    State(app): State<App>,
    Fields(fields): Fields<NodeFields>,
) -> Result<Response, Fault> {
    let now = (app.now)();
    let found = app.db.read(move |db| views::nodes(db, fields.farm, None, now)).await?;
    Ok(page(nodes::list(&found)))
}

async fn node(State(app): State<App>, Segments(id): Segments<NodeId>) -> Result<Response, Fault> {
    let now = (app.now)();
    let work = move |db: &_| {
        let results = views::results(db, None, Some(id), Order::Newest, RESULTS_SHOWN)?;
        Ok((views::node(db, &id, now)?, results))
    };
    let (node, results) = app.db.read(work).await?;
    let node = node.ok_or_else(|| unknown("node", &id))?;
    Ok(page(nodes::one(&node, &results)))
}

async fn contract_list(State(app): State<App>) -> Result<Response, Fault> {
    let now = (app.now)();
    let work = move |db: &_| standing::contracts(db, &Filter::default(), now);
    Ok(page(contracts::list(&app.db.read(work).await?)))
}

async fn contract(
    State(app): State<App>,
    Segments(id): Segments<ContractId>,
) -> Result<Response, Fault> {
    let now = (app.now)();
    let work = move |db: &_| {
        let results = views::results(db, Some(id), None, Order::Newest, RESULTS_SHOWN)?;
        Ok((standing::contract(db, &id, now)?, results))
    };
    let (contract, results) = app.db.read(work).await?;
    let contract = contract.ok_or_else(|| unknown("contract", &id))?;
    Ok(page(contracts::one(&contract, &results)))
}

async fn results(State(app): State<App>) -> Result<Response, Fault> {
    let work = |db: &_| views::results(db, None, None, Order::Newest, RESULTS_SHOWN);
    Ok(page(contracts::results(&app.db.read(work).await?)))
}
