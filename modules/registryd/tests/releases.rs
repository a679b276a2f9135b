//! What publishers have signed, at a registry: taken from them only, and never for something that says less.

#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::Registry;
use contract::{FlistId, Release, SigningKey, Timestamp};
use registry_api::{Problem, paths};
use registryd::content::Access;
use reqwest::header;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn release(revision: u64, not_after: Option<i64>) -> Release {
    Release {
        flist: FlistId([7; 32]),
        publisher: key(1).public(),
        name: "web".into(),
        revision,
        not_after: not_after.map(Timestamp::from_seconds),
    }
}

#[tokio::test]
async fn a_release_is_its_publishers_and_is_replaced_by_one_that_says_more() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path()).await;
    let http = reqwest::Client::new();
    let path = paths::release(&FlistId([7; 32]), &key(1).public());
    let url = |path: &str| format!("{}{path}", registry.base);
    let put = async |path: &str, record: Vec<u8>| {
        let response = http.put(url(path)).body(record).send().await.unwrap();
        let status = response.status().as_u16();
        let problem = response.json::<Problem>().await.map(|problem| problem.code);
        (status, problem.unwrap_or_default())
    };
    let told = |status: u16, code: &str| (status, code.to_owned());
    let signed = |release: Release| release.seal(&key(1)).unwrap();
    assert_eq!(http.get(url(&path)).send().await.unwrap().status().as_u16(), 404);

    let first = signed(release(3, Some(1_000)));
    assert_eq!(put(&path, first.clone()).await, told(201, ""));
    assert_eq!(put(&path, first.clone()).await, told(200, ""));
    let got = http.get(url(&path)).send().await.unwrap();
    assert_eq!(got.headers()[header::CACHE_CONTROL], "no-cache");
    assert_eq!(got.bytes().await.unwrap(), first);
    // It lies as in every other place with flists.
    let name = contract::release::name(&FlistId([7; 32]), &key(1).public());
    assert_eq!(std::fs::read(data.path().join("content").join(name)).unwrap(), first);
    // Who has an old one cannot bring it back.
    for less in [release(2, None), release(3, Some(999))] {
        assert_eq!(put(&path, signed(less)).await, told(409, "old_version"));
    }
    let last = signed(release(4, None));
    assert_eq!(put(&path, last.clone()).await, told(201, ""));
    assert_eq!(put(&path, first).await, told(409, "old_version"));
    assert_eq!(http.get(url(&path)).send().await.unwrap().bytes().await.unwrap(), last);

    // Under another name, of another flist, changed, too large, and none.
    let stranger = paths::release(&FlistId([7; 32]), &key(2).public());
    assert_eq!(put(&stranger, last.clone()).await, told(400, "bad_request"));
    let other = paths::release(&FlistId([8; 32]), &key(1).public());
    assert_eq!(put(&other, last.clone()).await, told(400, "bad_request"));
    let changed = String::from_utf8(last.clone()).unwrap().replace("\"sig\":\"", "\"sig\":\"A");
    assert_eq!(put(&path, changed.into_bytes()).await, told(422, "bad_signature"));
    assert_eq!(put(&path, vec![b' '; 5_000]).await, told(413, "too_large"));
    assert_eq!(put(&path, vec![]).await, told(400, "malformed"));
    let weak = format!("/content/releases/{}/01{}", FlistId([7; 32]), "0".repeat(62));
    assert_eq!(put(&weak, last.clone()).await, told(400, "bad_request"));
    assert_eq!(http.get(url(&path)).send().await.unwrap().bytes().await.unwrap(), last);
}

#[tokio::test]
async fn a_registry_that_takes_no_content_takes_no_release() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start_with(data.path(), Access::ReadOnly, None).await;
    let path = paths::release(&FlistId([7; 32]), &key(1).public());
    let record = release(3, None).seal(&key(1)).unwrap();
    let url = format!("{}{path}", registry.base);
    let response = reqwest::Client::new().put(url).body(record).send().await.unwrap();
    assert_eq!(response.json::<Problem>().await.unwrap().code, "read_only");
}
