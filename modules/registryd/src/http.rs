//! The paths of the registry. Handlers read, ask the database, and answer; rules are elsewhere.

mod extract;
mod files;
mod log;
mod openapi;
mod pages;
mod query;
mod read;
mod write;

use crate::{
    content::Content,
    db::{self, Db, Fault},
    refusal,
    transparency::Log,
};
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use contract::Timestamp;
use registry_api::{paths, problem::codes};
use std::sync::Arc;

/// What every handler can reach.
#[derive(Debug, Clone)]
pub struct App {
    /// The database.
    pub db: Db,
    /// The content store.
    pub content: Arc<Content>,
    /// The grid that this registry belongs to.
    pub network: Arc<str>,
    /// The transparency log, if it has begun.
    pub log: Option<Log>,
    /// The clock.
    pub now: fn() -> Timestamp,
}

/// Every path.
pub fn router(app: App) -> Router {
    Router::new()
        .route(paths::STATEMENTS, post(write::statement))
        .route("/v1/statements/{id}", get(read::statement))
        .route("/v1/statements/{id}/proof", get(log::proof))
        .route("/checkpoint", get(log::checkpoint))
        .route("/tile/{*path}", get(log::tile))
        .route("/v1/documents/{id}", get(read::document).put(write::document))
        .route("/v1/contracts/{id}/versions/{version}/documents", put(write::documents))
        .route("/v1/contracts/{id}/bundle", get(read::bundle))
        .route("/v1/contracts/{id}/approvals", get(query::approvals))
        .route("/v1/contracts/{id}", get(query::contract))
        .route(paths::CONTRACTS, get(query::contracts))
        .route("/v1/nodes/{id}", get(query::node))
        .route(paths::NODES, get(query::nodes))
        .route("/v1/farms/{id}", get(query::farm))
        .route(paths::FARMS, get(query::farms))
        .route("/v1/identities/{id}", get(query::identity))
        .route("/v1/nodes/{id}/inbox", get(read::inbox))
        .route(paths::RESULTS, post(write::results).get(query::results))
        .route(paths::HEARTBEATS, post(write::heartbeat))
        .route("/content/{family}/{id}", get(files::get).put(files::put))
        .route(
            "/content/releases/{id}/{publisher}",
            get(files::get_release).put(files::put_release),
        )
        .route(paths::HEALTHZ, get(read::healthz))
        .route(paths::OPENAPI, get(openapi::document))
        .merge(pages::router())
        .fallback(nothing_here)
        .method_not_allowed_fallback(other_method)
        .layer(middleware::map_response_with_state(app.clone(), name_network))
        .with_state(app)
}

/// So that nobody takes the silence of another network for an answer.
async fn name_network(State(app): State<App>, mut response: Response) -> Response {
    if let Ok(network) = HeaderValue::from_str(&app.network) {
        response.headers_mut().insert(paths::NETWORK_HEADER, network);
    }
    response
}

async fn nothing_here(request: Request) -> Fault {
    let text = format!("there is nothing at {}", request.uri().path());
    refusal(404, codes::NOT_FOUND, text, "See /openapi.json.")
}

async fn other_method(request: Request) -> Fault {
    let text = format!("{} does not take {}", request.uri().path(), request.method());
    refusal(405, codes::METHOD, text, "See /openapi.json.")
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let problem = match self {
            Self::Refused(problem) => problem,
            Self::Broken(error) => {
                // That is told once, and not as often as somebody asks.
                if !db::is_lost(&error) {
                    crate::log(&format!("{error:#}"));
                }
                let told = if db::is_full(&error) {
                    refusal(507, codes::UNAVAILABLE, "the registry has no room left", "")
                } else if db::is_lost(&error) {
                    let text = "the registry cannot reach its database; what was sent, if anything, \
                                may be stored";
                    let hint = "Send it again later: a second time changes nothing.";
                    refusal(503, codes::UNAVAILABLE, text, hint)
                } else {
                    refusal(500, codes::INTERNAL, "the registry has a fault of its own", "")
                };
                match told {
                    Self::Refused(problem) => problem,
                    Self::Broken(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                }
            }
        };
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json(&problem);
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(paths::PROBLEM_JSON));
        // For pages, which say it in words.
        response.extensions_mut().insert(problem);
        response
    }
}

/// An answer in JSON that nobody keeps.
fn json<T: serde::Serialize>(value: &T) -> Response {
    let Ok(body) = serde_json::to_vec(value) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, body).into_response()
}

/// Something that is not known here.
fn unknown(what: &str, id: &dyn std::fmt::Display) -> Fault {
    refusal(404, codes::NOT_FOUND, format!("the {what} {id} is not known here"), "")
}
