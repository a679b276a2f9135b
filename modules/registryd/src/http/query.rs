//! Queries: what follows from the statements, for people and programs to find their way.

use super::{
    App,
    extract::{Fields, Segments},
    json, unknown,
};
use crate::{
    db::Fault,
    standing::{self, Filter},
    views::{self, Order},
};
use axum::{extract::State, response::Response};
use contract::{ContractId, IdentityId, NodeId};
use registry_api::view::{ContractState, LIST_MAX};
use serde::Deserialize;

/// An identity.
#[utoipa::path(get, path = "/v1/identities/{id}", tag = "queries",
    params(("id" = String, Path, description = "64 hexadecimal digits")),
    responses((status = 200, body = registry_api::view::IdentityView),
              (status = 404, body = registry_api::Problem)))]
pub(super) async fn identity(
    State(app): State<App>,
    Segments(id): Segments<IdentityId>,
) -> Result<Response, Fault> {
    let found = app.db.read(move |db| views::identity(db, &id)).await?;
    found.map(|view| json(&view)).ok_or_else(|| unknown("identity", &id))
}

/// Where a list goes on.
#[derive(Debug, Deserialize)]
pub(super) struct FarmFields {
    after: Option<IdentityId>,
}

/// Farms, sorted by id.
#[utoipa::path(get, path = "/v1/farms", tag = "queries",
    params(("after" = Option<String>, Query, description = "`next` of the former answer")),
    responses((status = 200, body = registry_api::view::Farms)))]
pub(super) async fn farms(
    State(app): State<App>,
    Fields(fields): Fields<FarmFields>,
) -> Result<Response, Fault> {
    let now = (app.now)();
    Ok(json(&app.db.read(move |db| views::farms(db, fields.after, now)).await?))
}

/// A farm.
#[utoipa::path(get, path = "/v1/farms/{id}", tag = "queries",
    params(("id" = String, Path, description = "64 hexadecimal digits")),
    responses((status = 200, body = registry_api::view::FarmView),
              (status = 404, body = registry_api::Problem)))]
pub(super) async fn farm(
    State(app): State<App>,
    Segments(id): Segments<IdentityId>,
) -> Result<Response, Fault> {
    let now = (app.now)();
    let found = app.db.read(move |db| views::farm(db, &id, now)).await?;
    found.map(|view| json(&view)).ok_or_else(|| unknown("farm", &id))
}

/// Which nodes are wanted.
#[derive(Debug, Deserialize)]
pub(super) struct NodeFields {
    farm: Option<IdentityId>,
    after: Option<NodeId>,
}

/// Nodes, sorted by id.
#[utoipa::path(get, path = "/v1/nodes", tag = "queries",
    params(("farm" = Option<String>, Query, description = "only those that name this farm"),
           ("after" = Option<String>, Query, description = "`next` of the former answer")),
    responses((status = 200, body = registry_api::view::Nodes)))]
pub(super) async fn nodes(
    State(app): State<App>,
    Fields(fields): Fields<NodeFields>,
) -> Result<Response, Fault> {
    let now = (app.now)();
    let work = move |db: &_| views::nodes(db, fields.farm, fields.after, now);
    Ok(json(&app.db.read(work).await?))
}

/// A node.
#[utoipa::path(get, path = "/v1/nodes/{id}", tag = "queries",
    params(("id" = String, Path, description = "64 hexadecimal digits")),
    responses((status = 200, body = registry_api::view::NodeView),
              (status = 404, body = registry_api::Problem)))]
pub(super) async fn node(
    State(app): State<App>,
    Segments(id): Segments<NodeId>,
) -> Result<Response, Fault> {
    let now = (app.now)();
    let found = app.db.read(move |db| views::node(db, &id, now)).await?;
    found.map(|view| json(&view)).ok_or_else(|| unknown("node", &id))
}

/// Which contracts are wanted.
#[derive(Debug, Deserialize)]
pub(super) struct ContractFields {
    owner: Option<IdentityId>,
    state: Option<ContractState>,
    signer: Option<IdentityId>,
    after: Option<ContractId>,
}

/// Contracts, sorted by id. All fields that are given must fit.
#[utoipa::path(get, path = "/v1/contracts", tag = "queries",
    params(("owner" = Option<String>, Query, description = "only those of this identity"),
           ("state" = Option<ContractState>, Query, description = "only those in this state"),
           ("signer" = Option<String>, Query, description = "only those that wait for this one"),
           ("after" = Option<String>, Query, description = "`next` of the former answer")),
    responses((status = 200, body = registry_api::view::Contracts)))]
pub(super) async fn contracts(
    State(app): State<App>,
    Fields(fields): Fields<ContractFields>,
) -> Result<Response, Fault> {
    let now = (app.now)();
    let ContractFields { owner, state, signer, after } = fields;
    let filter = Filter { owner, state, signer, after };
    Ok(json(&app.db.read(move |db| standing::contracts(db, &filter, now)).await?))
}

/// A contract: where it stands, who still has to sign, what its nodes report.
#[utoipa::path(get, path = "/v1/contracts/{id}", tag = "queries",
    params(("id" = String, Path, description = "64 hexadecimal digits")),
    responses((status = 200, body = registry_api::view::ContractView),
              (status = 404, body = registry_api::Problem)))]
pub(super) async fn contract(
    State(app): State<App>,
    Segments(id): Segments<ContractId>,
) -> Result<Response, Fault> {
    let now = (app.now)();
    let found = app.db.read(move |db| standing::contract(db, &id, now)).await?;
    found.map(|view| json(&view)).ok_or_else(|| unknown("contract", &id))
}

/// Where a list goes on.
#[derive(Debug, Deserialize)]
pub(super) struct AfterFields {
    #[serde(default)]
    after: u64,
}

/// Every decision on a contract in the order of arrival, also those that no longer stand.
#[utoipa::path(get, path = "/v1/contracts/{id}/approvals", tag = "queries",
    params(("id" = String, Path, description = "64 hexadecimal digits"),
           ("after" = Option<u64>, Query, description = "`next` of the former answer")),
    responses((status = 200, body = registry_api::view::Decisions),
              (status = 404, body = registry_api::Problem)))]
pub(super) async fn approvals(
    State(app): State<App>,
    Segments(id): Segments<ContractId>,
    Fields(AfterFields { after }): Fields<AfterFields>,
) -> Result<Response, Fault> {
    let found = app.db.read(move |db| views::decisions(db, &id, after)).await?;
    found.map(|view| json(&view)).ok_or_else(|| unknown("contract", &id))
}

/// Which results are wanted.
#[derive(Debug, Deserialize)]
pub(super) struct ResultFields {
    contract: Option<ContractId>,
    node: Option<NodeId>,
    #[serde(default)]
    after: u64,
}

/// Results in the order of their arrival.
#[utoipa::path(get, path = "/v1/results", tag = "queries",
    params(("contract" = Option<String>, Query, description = "only those about this contract"),
           ("node" = Option<String>, Query, description = "only those of this node"),
           ("after" = Option<u64>, Query, description = "`next` of the former answer")),
    responses((status = 200, body = registry_api::view::Results)))]
pub(super) async fn results(
    State(app): State<App>,
    Fields(fields): Fields<ResultFields>,
) -> Result<Response, Fault> {
    let ResultFields { contract, node, after } = fields;
    let work = move |db: &_| views::results(db, contract, node, Order::After(after), LIST_MAX);
    Ok(json(&app.db.read(work).await?))
}
