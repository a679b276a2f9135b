//! One exchange with the server of a bucket.
//!
//! Owns every byte that such a server sends: each exchange has a bound in bytes and one in time, no redirect is
//! followed, and of what a server says about an error only its code and its message are kept: the rest repeats
//! the headers that were signed, and a session token is one of them.

use flist::body::BODY_MAX;
use futures_util::future::BoxFuture;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    },
};
use reqwest::header::DATE;
use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::time;

/// A server that says nothing for so long is dead.
const SILENCE: Duration = Duration::from_mins(1);
/// Who is slower has failed; as for nodes that fetch.
const BYTES_PER_S_MIN: u64 = 16 << 10;
/// A body of an flist. A listing of a thousand names, each of a thousand bytes, is far below.
const ANSWER_BYTES_MAX: usize = BODY_MAX;
/// Of each word that a server says about an error.
const SAID_CHARS_MAX: usize = 300;
/// By which clocks may differ, as for signatures. Whoever clears up reckons with the server's times and with ours.
const CLOCKS_DIFFER_MAX: Duration = Duration::from_mins(15);

/// What to do when a server knows the key not, or not for this.
const REFUSED: &str = "the store refuses the key: look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, \
                       AWS_SESSION_TOKEN, AWS_REGION and AWS_ENDPOINT_URL, and whether the key may list, read, \
                       write and delete. ";

/// Makes the one client that the library knows.
#[derive(Debug)]
pub(super) struct Connector(Exchange);

impl Connector {
    /// With what must not be shown, though a server may repeat it.
    pub(super) fn new(client: &reqwest::Client, secrets: &Arc<[String]>) -> Self {
        Self(Exchange { client: client.clone(), secrets: Secrets(Arc::clone(secrets)) })
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

#[derive(Debug, Clone)]
struct Exchange {
    client: reqwest::Client,
    secrets: Secrets,
}

#[derive(Clone)]
struct Secrets(Arc<[String]>);

impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secrets")
    }
}

impl Secrets {
    /// A text of a server without them.
    fn hide(&self, text: &[u8]) -> String {
        let text = String::from_utf8_lossy(text).into_owned();
        self.0.iter().fold(text, |text, secret| text.replace(secret.as_str(), "…"))
    }
}

/// What the library cannot know of an exchange that has failed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("nothing came from the server for a minute")]
    Silent,
    #[error("the exchange went on with less than {} KiB a second", BYTES_PER_S_MIN >> 10)]
    Slow,
    #[error("the server's answer has more than {ANSWER_BYTES_MAX} bytes")]
    Long,
    #[error("the server's answer is no listing that can be read to its end")]
    NoListing,
    #[error("the server's answer says not what time it is there, and ages would mean nothing")]
    Timeless,
    #[error(
        "the clock here and that of the server differ by more than a quarter of an hour: set the clock"
    )]
    Clocks,
    #[error(
        "the server sends us elsewhere (status {status}{region}): set AWS_REGION or AWS_ENDPOINT_URL to where \
         the bucket is"
    )]
    Elsewhere { status: u16, region: String },
}

impl HttpService for Exchange {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> BoxFuture<'b, Result<HttpResponse, HttpError>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let sent = request.body().content_length() as u64;
            let at_most = |bytes: u64| SILENCE + Duration::from_secs(bytes / BYTES_PER_S_MIN);
            let whole = time::timeout(
                at_most(sent + ANSWER_BYTES_MAX as u64),
                exchange(self, request, at_most(sent)),
            );
            whole
                .await
                .unwrap_or_else(|_| Err(HttpError::new(HttpErrorKind::Timeout, Failed::Slow)))
        })
    }
}

async fn exchange(
    exchange: &Exchange,
    request: HttpRequest,
    head_max: Duration,
) -> Result<HttpResponse, HttpError> {
    let query = request.uri().query().unwrap_or_default();
    let is_listing_asked = query.split('&').any(|pair| pair == "list-type=2");
    let asked_from = form_value(query, "continuation-token");
    let silent = |_| HttpError::new(HttpErrorKind::Timeout, Failed::Silent);
    let request = reqwest::Request::try_from(request.map(reqwest::Body::wrap)).map_err(broken)?;
    let asked = time::timeout(head_max, exchange.client.execute(request)).await;
    let mut answer = asked.map_err(silent)?.map_err(broken)?;
    let status = answer.status();
    if status.is_redirection() {
        let region = answer.headers().get("x-amz-bucket-region");
        let region = region.and_then(|region| region.to_str().ok()).unwrap_or_default();
        let region = if region.is_empty() { String::new() } else { format!(", region {region}") };
        let failed = Failed::Elsewhere {
            status: status.as_u16(),
            region: printable(&exchange.secrets.hide(region.as_bytes()), SAID_CHARS_MAX),
        };
        return Err(HttpError::new(HttpErrorKind::Unknown, failed));
    }
    let mut body = Vec::new();
    loop {
        let chunk = time::timeout(SILENCE, answer.chunk()).await;
        let Some(chunk) = chunk.map_err(silent)?.map_err(broken)? else {
            break;
        };
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(HttpError::new(HttpErrorKind::Unknown, Failed::Long));
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_client_error() || status.is_server_error() {
        let hint = if [401, 403].contains(&status.as_u16()) { REFUSED } else { "" };
        body = format!("{hint}{}", said(exchange.secrets.hide(&body).as_bytes())).into();
    } else {
        let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
        check_clocks(date, SystemTime::now())
            .map_err(|failed| HttpError::new(HttpErrorKind::Unknown, failed))?;
        if is_listing_asked && !is_listing(&body, asked_from.as_deref()) {
            return Err(HttpError::new(HttpErrorKind::Unknown, Failed::NoListing));
        }
    }
    let mut response = HttpResponse::new(body.into());
    *response.status_mut() = status;
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    Ok(response)
}

/// Whatever breaks a connection may go better the next time; the library tries again what does no harm.
fn broken(error: reqwest::Error) -> HttpError {
    let kind = if error.is_builder() {
        HttpErrorKind::Unknown
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else {
        HttpErrorKind::Interrupted
    };
    HttpError::new(kind, error.without_url())
}

/// Code and message of an error as servers of buckets say it, in XML.
pub fn said(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        let (content, _) = rest.split_once(&format!("</{name}>"))?;
        Some(printable(content, SAID_CHARS_MAX))
    };
    [element("Code"), element("Message")].into_iter().flatten().collect::<Vec<_>>().join(": ")
}

/// Whether an answer is a listing that ends, or goes on elsewhere than where this one began. The library takes any
/// document for a listing of nothing, and a listing whose next part has no name for a whole one. What is not seen
/// is not kept.
pub fn is_listing(body: &[u8], asked_from: Option<&str>) -> bool {
    let text = String::from_utf8_lossy(body);
    let next =
        text.split_once("<NextContinuationToken>").and_then(|(_, rest)| rest.split_once('<'));
    let next = next.map(|(token, _)| token.trim()).filter(|token| !token.is_empty());
    text.contains("<ListBucketResult")
        && match next {
            Some(next) => asked_from != Some(next),
            None => text.contains("<IsTruncated>false<"),
        }
}

/// A value of a query.
fn form_value(query: &str, wanted: &str) -> Option<String> {
    let url = reqwest::Url::parse(&format!("http://localhost/?{query}")).ok()?;
    url.query_pairs().find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
}

fn check_clocks(date: Option<&str>, now: SystemTime) -> Result<(), Failed> {
    let there =
        date.and_then(|date| httpdate::parse_http_date(date).ok()).ok_or(Failed::Timeless)?;
    let ahead = there.duration_since(now).unwrap_or_else(|behind| behind.duration());
    if ahead > CLOCKS_DIFFER_MAX { Err(Failed::Clocks) } else { Ok(()) }
}

/// For one line on a terminal.
pub(super) fn printable(text: &str, chars_max: usize) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(chars_max).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_one_and_says_where_it_goes_on() {
        let whole = "<IsTruncated>false</IsTruncated>";
        let more = "<IsTruncated>true</IsTruncated>";
        let next = |token: &str| format!("<NextContinuationToken>{token}</NextContinuationToken>");
        for (content, wanted) in [
            (whole.to_owned(), true),
            (format!("{more}{}", next("x")), true),
            (format!("{}{more}", next("x/+=")), true),
            (more.to_owned(), false),
            (format!("{more}{}", next("")), false),
            (format!("{more}{}", next(" \n")), false),
            (format!("{more}<NextContinuationToken/>"), false),
            // The same part again, for ever.
            (format!("{more}{}", next("last")), false),
            ("<IsTruncated> true </IsTruncated>".to_owned(), false),
            (String::new(), false),
        ] {
            let body = format!("<?xml?><ListBucketResult xmlns=\"x\">{content}</ListBucketResult>");
            assert_eq!(is_listing(body.as_bytes(), Some("last")), wanted, "{body}");
        }
        let again = format!("<ListBucketResult>{}</ListBucketResult>", next("last"));
        assert!(is_listing(again.as_bytes(), None));
        for body in ["<html>hello</html>", "", whole, "<ListBucketResult xmlns=\"x\"/>"] {
            assert!(!is_listing(body.as_bytes(), None), "{body}");
        }
        let query = "list-type=2&continuation-token=a%2Fb%2B%3D&prefix=x";
        assert_eq!(form_value(query, "continuation-token").as_deref(), Some("a/b+="));
        assert_eq!(form_value("list-type=2", "continuation-token"), None);
    }

    #[test]
    fn clocks_that_differ_by_more_than_signatures_allow_are_refused() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let there = httpdate::parse_http_date(date).unwrap();
        let second = Duration::from_secs(1);
        for now in [there, there + CLOCKS_DIFFER_MAX, there - CLOCKS_DIFFER_MAX] {
            assert!(check_clocks(Some(date), now).is_ok());
        }
        for now in [there + CLOCKS_DIFFER_MAX + second, there - CLOCKS_DIFFER_MAX - second] {
            assert!(matches!(check_clocks(Some(date), now), Err(Failed::Clocks)));
        }
        for date in [None, Some("yesterday")] {
            assert!(matches!(check_clocks(date, there), Err(Failed::Timeless)));
        }
    }

    #[test]
    fn of_what_a_server_says_about_an_error_only_code_and_message_stay() {
        let body = "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>Look at\nyour \
                    key</Message><CanonicalRequest>x-amz-security-token:hidden</CanonicalRequest></Error>";
        assert_eq!(said(body.as_bytes()), "SignatureDoesNotMatch: Look at your key");
        for (body, wanted) in [
            (&b""[..], ""),
            (b"<html>busy</html>", ""),
            (b"<Code>Busy</Code>", "Busy"),
            (b"<Code>Busy", ""),
            (b"</Code><Code>\x1b[31m\xff</Code>", " [31m\u{fffd}"),
        ] {
            assert_eq!(said(body), wanted);
        }
        let long = format!("<Message>{}</Message>", "x".repeat(10_000));
        assert_eq!(said(long.as_bytes()).len(), SAID_CHARS_MAX);
    }
}
