//! The server as a stranger meets it: bad bytes, bad paths, ranges, pages.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{Registry, world};
use registry_api::{Problem, paths};
use registryd::content::Access;
use reqwest::{Method, StatusCode, header};

async fn problem(request: reqwest::RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    assert_eq!(response.headers()[header::CONTENT_TYPE], paths::PROBLEM_JSON);
    let problem: Problem = response.json().await.unwrap();
    assert_eq!(problem.status, status);
    (status, problem.code)
}

#[tokio::test]
async fn whatever_is_wrong_is_answered_with_a_problem() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path()).await;
    let http = reqwest::Client::new();
    let id = "ab".repeat(32);
    let check = async |method: Method, path: &str, body: Vec<u8>, status: u16, code: &str| {
        let url = format!("{}{path}", registry.base);
        let found = problem(http.request(method, url).body(body)).await;
        assert_eq!(found, (status, code.to_owned()), "{path}");
    };
    let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
    check(get.clone(), "/v2/nothing", vec![], 404, "not_found").await;
    check(get.clone(), &format!("/content/staging/{id}"), vec![], 404, "not_found").await;
    check(get.clone(), &format!("/content/flists/{id}"), vec![], 404, "not_found").await;
    check(Method::DELETE, paths::STATEMENTS, vec![], 405, "method_not_allowed").await;
    check(get.clone(), "/v1/nodes/xyz", vec![], 400, "bad_request").await;
    check(get.clone(), "/v1/nodes/%ff", vec![], 400, "bad_request").await;
    check(get.clone(), &format!("/v1/nodes/{id}"), vec![], 404, "not_found").await;
    check(get.clone(), &format!("/v1/nodes/{id}/inbox"), vec![], 404, "not_found").await;
    check(get.clone(), &format!("/v1/contracts/{id}/bundle"), vec![], 404, "not_found").await;
    check(get.clone(), &format!("/v1/contracts/{id}/approvals"), vec![], 404, "not_found").await;
    check(get.clone(), "/v1/contracts?state=happy", vec![], 400, "bad_request").await;
    check(get.clone(), "/v1/results?after=-1", vec![], 400, "bad_request").await;
    check(get, "/v1/contracts/zz", vec![], 400, "bad_request").await;
    for body in [&b""[..], b"{", b"[]", b"\xff\xfe", b"{\"payloadType\":1}", b"null"] {
        check(post.clone(), paths::STATEMENTS, body.into(), 400, "malformed").await;
        check(post.clone(), paths::HEARTBEATS, body.into(), 400, "malformed").await;
    }
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    check(post.clone(), paths::STATEMENTS, deep.clone(), 400, "malformed").await;
    check(post.clone(), paths::RESULTS, deep, 400, "malformed").await;
    check(post.clone(), paths::RESULTS, b"{}".to_vec(), 400, "malformed").await;
    let large = vec![b' '; paths::STATEMENT_BYTES_MAX + 1];
    check(post.clone(), paths::STATEMENTS, large, 413, "too_large").await;
    let many = format!(
        "[{}]",
        vec!["{\"payloadType\":\"\",\"payload\":\"\",\"signatures\":[]}"; 257].join(",")
    );
    check(post, paths::RESULTS, many.into_bytes(), 413, "too_large").await;
    let path = format!("/v1/contracts/{id}/versions/1/documents");
    check(put.clone(), &path, b"[]".to_vec(), 404, "unknown_contract").await;
    check(put.clone(), &path, b"[1]".to_vec(), 400, "malformed").await;
    check(put, &format!("/v1/documents/{id}"), b"{}".to_vec(), 422, "wrong_hash").await;
}

/// The status line that raw bytes are answered with. A client would tidy up the path first.
async fn raw(registry: &Registry, request: &[u8]) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(registry.server.address).await.unwrap();
    // The server may close before it has read everything: what it said before counts.
    drop(stream.write_all(request).await);
    let mut answer = vec![];
    drop(stream.read_to_end(&mut answer).await);
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn nothing_outside_the_content_store_can_be_named() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path()).await;
    std::fs::write(data.path().join("content/flists/secret"), "secret").unwrap();
    let get = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        raw(&registry, request.as_bytes()).await
    };
    let bad = "HTTP/1.1 400 Bad Request";
    let none = "HTTP/1.1 404 Not Found";
    for (path, wanted) in [
        ("/content/flists/secret", bad),
        ("/content/flists/..", bad),
        ("/content/flists/%2e%2e", bad),
        ("/content/flists/..%2f..%2fregistry.sqlite3", bad),
        ("/content/flists/../../registry.sqlite3", none),
        ("/content/../registry.sqlite3", bad),
        ("/healthz", "HTTP/1.1 200 OK"),
    ] {
        assert_eq!(get(path).await, wanted, "{path}");
    }
}

#[tokio::test]
async fn endless_headers_and_nonsense_are_cut_off() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path()).await;
    let large = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(4_000_000));
    // Closed with bytes of ours unread, so that the answer may be lost on its way.
    let answer = raw(&registry, large.as_bytes()).await;
    assert!(answer.is_empty() || answer.contains("431"), "{answer}");
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100));
    assert!(raw(&registry, many.as_bytes()).await.contains("431"));
    assert!(raw(&registry, b"\x16\x03\x01\x00\xff nonsense\r\n\r\n").await.contains("400"));
    assert!(registry.client.farms().await.is_ok(), "it still serves");
}

#[tokio::test]
async fn a_body_that_announces_no_length_is_bounded_as_well() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path()).await;
    let file = data.path().join("large");
    std::fs::write(&file, vec![b' '; paths::STATEMENT_BYTES_MAX + 1]).unwrap();
    let file = tokio::fs::File::open(&file).await.unwrap();
    let url = format!("{}{}", registry.base, paths::STATEMENTS);
    // The server may answer before everything has been sent, and close.
    let answer = reqwest::Client::new().post(url).body(file).send().await;
    if let Ok(response) = answer {
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
    assert!(registry.client.farms().await.is_ok(), "it still serves");
}

#[tokio::test]
async fn content_is_checked_written_once_and_served_in_ranges() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path()).await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let file = data.path().join("body");
    std::fs::write(&file, &body).unwrap();
    let flist = contract::FlistId::of(&body);
    let pack = contract::FlistId(*blake3::hash(&body).as_bytes());
    let client = &registry.client;
    let wrong = client.push_pack(&flist, &file).await.unwrap_err();
    assert_eq!(wrong.code(), Some("wrong_hash"));
    assert_eq!(client.push_flist(&pack, &file).await.unwrap_err().code(), Some("wrong_hash"));
    client.push_flist(&flist, &file).await.unwrap();
    client.push_flist(&flist, &file).await.unwrap();
    client.push_pack(&pack, &file).await.unwrap();
    assert_eq!(std::fs::read_dir(data.path().join("content/staging")).unwrap().count(), 0);

    let http = reqwest::Client::new();
    let url = format!("{}{}", registry.base, paths::pack(&pack));
    let whole = http.get(&url).send().await.unwrap();
    assert_eq!(whole.headers()[header::ACCEPT_RANGES], "bytes");
    assert_eq!(whole.bytes().await.unwrap(), body);
    let range = async |text: &str| {
        let response = http.get(&url).header(header::RANGE, text).send().await.unwrap();
        let place = response.headers().get(header::CONTENT_RANGE);
        let place = place.map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), place, response.bytes().await.unwrap().to_vec())
    };
    let place = |text: &str| Some(format!("bytes {text}/3000000"));
    assert_eq!(range("bytes=5-9").await, (206, place("5-9"), body[5..10].to_vec()));
    assert_eq!(
        range("bytes=-3").await,
        (206, place("2999997-2999999"), body[2_999_997..].to_vec())
    );
    assert_eq!(range("bytes=3000000-").await.0, 416);
    let head = http.head(&url).send().await.unwrap();
    assert_eq!(head.headers()[header::CONTENT_LENGTH], "3000000");
    assert_eq!(head.headers()[header::CACHE_CONTROL], "public, max-age=31536000, immutable");
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_is_published() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path()).await;
    // The first file that is received is written to a device that is always full.
    std::os::unix::fs::symlink("/dev/full", data.path().join("content/staging/0")).unwrap();
    let url = format!("{}{}", registry.base, paths::flist(&contract::FlistId::of(b"body")));
    let put = || reqwest::Client::new().put(&url).body("body");
    assert_eq!(problem(put()).await, (507, "unavailable".to_owned()));
    assert_eq!(reqwest::get(&url).await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(put().send().await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(reqwest::get(&url).await.unwrap().text().await.unwrap(), "body");
}

#[tokio::test]
async fn a_registry_that_takes_no_content_still_serves_it() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("body");
    std::fs::write(&file, b"body").unwrap();
    let id = contract::FlistId::of(b"body");
    let registry = Registry::start(data.path()).await;
    registry.client.push_flist(&id, &file).await.unwrap();
    registry.server.stop().await.unwrap();

    let registry = Registry::start_with(data.path(), Access::ReadOnly, None).await;
    let refused = registry.client.push_flist(&id, &file).await.unwrap_err();
    assert_eq!(refused.code(), Some("read_only"));
    let url = format!("{}{}", registry.base, paths::flist(&id));
    assert_eq!(reqwest::get(url).await.unwrap().text().await.unwrap(), "body");
}

#[tokio::test]
async fn every_documented_path_exists() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path()).await;
    let http = reqwest::Client::new();
    let url = format!("{}{}", registry.base, paths::OPENAPI);
    let document: serde_json::Value = http.get(url).send().await.unwrap().json().await.unwrap();
    let described = document["paths"].as_object().unwrap();
    assert!(described.len() >= 16, "{}", described.len());
    for (path, methods) in described {
        let path = path
            .replace("{id}", &"ab".repeat(32))
            .replace("{version}", "1")
            .replace("{family}", "packs");
        for method in methods.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let request = http.request(method, format!("{}{path}", registry.base));
            let text = request.send().await.unwrap().text().await.unwrap();
            assert!(!text.contains("there is nothing at"), "{path}");
            assert!(!text.contains("method_not_allowed"), "{path}");
        }
    }
}

#[tokio::test]
async fn a_second_registry_is_asked_when_the_first_is_away() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    // A port that was free a moment ago, and that nobody listens on.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let away = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = registry_api::Client::new([away.as_str(), &registry.base]).unwrap();
    assert!(client.push(&world.identity("owner")).await.unwrap().new);
    let alone = registry_api::Client::new([away]).unwrap();
    let error = alone.farms().await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
    assert!(matches!(error, registry_api::ClientError::Unreachable { .. }));
}
