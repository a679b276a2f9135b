//! Pages for people: read-only, rendered here, without scripts. Every text of a statement is
//! escaped by the template, and characters that could steer the page are spelled out on the way out;
//! there is no other way to put a text on a page. What is long is bounded in rows and bytes, and says so.

mod contracts;
mod difference;
mod farms;
mod home;
mod inbox;
mod layout;
mod list;
mod log;
mod nodes;
mod results;

use super::{
    App,
    extract::{Fields, Segments},
    unknown,
};
use axum::{
    Router,
    http::{HeaderMap, HeaderName, header},
    middleware,
    response::{IntoResponse as _, Response},
    routing::get,
};
use layout::Tab;
use maud::{Markup, html};
use registry_api::{Problem, shown::steers};
use std::fmt::Write as _;

const STYLE: &str = include_str!("pages/style.css");
/// Nothing but our own style sheet is loaded or run, wherever a text came from, and the only forms
/// lead back here.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'";

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/", get(home::get))
        .route("/farms", get(farms::get))
        .route("/nodes", get(nodes::list))
        .route("/nodes/{id}", get(nodes::one))
        .route("/contracts", get(contracts::list))
        .route("/contracts/{id}", get(contracts::one))
        .route("/contracts/{id}/difference", get(difference::get))
        .route("/inbox", get(inbox::get))
        .route("/results", get(results::get))
        .route("/log", get(log::list))
        .route("/log/{index}", get(log::one))
        .route("/style.css", get(style))
        .layer(middleware::map_response(in_words))
}

fn page(markup: Markup) -> Response {
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Commands on it name the host that was asked for.
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, spelled_out(&markup.into_string())).into_response()
}

/// Characters that turn the direction of writing or cannot be seen, wherever on a page they are.
fn spelled_out(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    for c in html.chars() {
        if steers(c) && c != '\n' {
            write!(out, "\\u{{{:x}}}", u32::from(c)).expect("a String takes everything");
        } else {
            out.push(c);
        }
    }
    out
}

/// What cannot be shown is a page as well.
async fn in_words(mut response: Response) -> Response {
    let Some(problem) = response.extensions_mut().remove::<Box<Problem>>() else { return response };
    let mut shown = page(layout::frame(
        Tab::None,
        &problem.title,
        &html! {
            p { (layout::said(&problem.detail)) }
            p .dim { "The code is " code { (problem.code) } ", the status " (problem.status) "." }
        },
    ));
    *shown.status_mut() = response.status();
    shown
}

async fn style() -> Response {
    let headers: [(HeaderName, &str); 3] = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "public, max-age=300"),
    ];
    (headers, STYLE).into_response()
}

/// The registry as whoever asks calls it, to be named in a command. A proxy in front says whether
/// it speaks TLS. `None` when the request names no host that is one.
fn registry(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let is_host = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    if host.is_empty() || host.len() > 255 || !host.chars().all(is_host) {
        return None;
    }
    // Several proxies make a list; the first is the one that was asked.
    let proto = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
    let first = proto.and_then(|list| list.split(',').next()).unwrap_or_default();
    let scheme = if first.trim().eq_ignore_ascii_case("https") { "https" } else { "http" };
    // Brackets of an IPv6 address mean something to a shell.
    let quote = if host.contains('[') { "'" } else { "" };
    Some(format!("{quote}{scheme}://{host}{quote}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_page_is_spelled_out() {
        let html = spelled_out("a\u{202e}b\u{7}\nc\u{2066}ä");
        assert_eq!(html, "a\\u{202e}b\\u{7}\nc\\u{2066}ä");
    }

    #[test]
    fn a_registry_is_named_as_it_was_asked_for() {
        let check = |host: &'static str, proto: Option<&'static str>, wanted: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            headers.extend(proto.map(|proto| {
                (HeaderName::from_static("x-forwarded-proto"), proto.parse().unwrap())
            }));
            assert_eq!(registry(&headers).as_deref(), wanted, "{host}");
        };
        check("registry.example:8080", None, Some("http://registry.example:8080"));
        check("registry.example", Some("https"), Some("https://registry.example"));
        check("registry.example", Some("HTTPS"), Some("https://registry.example"));
        check("registry.example", Some("https, http"), Some("https://registry.example"));
        check("registry.example", Some("http, https"), Some("http://registry.example"));
        check("registry.example", Some("gopher"), Some("http://registry.example"));
        check("[::1]:80", None, Some("'http://[::1]:80'"));
        for bad in ["a b", "a'b", "a;b", "$(x)", "", "a/b"] {
            check(bad, None, None);
        }
        assert_eq!(registry(&HeaderMap::new()), None);
    }
}
