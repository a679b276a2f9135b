//! The description of this API for programs (OpenAPI 3.1). Made from the handlers themselves.

use super::{App, files, json, log, query, read, write};
use axum::{extract::State, response::Response};
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Zero-OS registry",
        description = "Stores, orders and serves the signed statements of a grid. Whoever reads \
                       them judges them: nothing is true because it is served here."
    ),
    tags(
        (name = "statements", description = "What people and nodes sign"),
        (name = "nodes", description = "What nodes ask for and report"),
        (name = "queries", description = "What follows from the statements"),
        (name = "content", description = "Published flists, as static files"),
        (name = "log", description = "The transparency log, once it has begun"),
        (name = "operation", description = "The service itself")
    ),
    paths(
        write::statement, read::statement, write::documents, write::document, read::document,
        read::bundle, read::inbox, write::results, write::heartbeat,
        query::identity, query::farms, query::farm, query::nodes, query::node,
        query::contracts, query::contract, query::approvals, query::results,
        files::get, files::put, files::get_release, files::put_release, log::checkpoint, log::tile, log::proof, read::healthz
    )
)]
struct Description;

pub(super) async fn document(State(_): State<App>) -> Response {
    json(&Description::openapi())
}
