//! The pages for people, over HTTP: what they show, what they escape, where they end.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{Registry, World, agree, database, prepare, propose, seal, story, world};
use contract::{
    Envelope, SigningKey, StatementId,
    farm::Farm,
    identity::Identity,
    merkle,
    report::{Report, State},
    testkit::bytes,
    workload::Spec,
};
use registryd::{overview::ROWS_MAX, transparency};
use reqwest::{StatusCode, header};
use std::path::Path;

/// No page has more bytes, whatever is in the database.
const PAGE_BYTES_MAX: usize = 1 << 20;

fn begin_log(data: &Path) {
    transparency::begin(&database::open(data), data, story::ORIGIN).unwrap();
}

async fn ask(registry: &Registry, path: &str) -> (StatusCode, String) {
    let response = reqwest::get(format!("{}{path}", registry.base)).await.unwrap();
    (response.status(), response.text().await.unwrap())
}

async fn get(registry: &Registry, path: &str) -> String {
    let (status, html) = ask(registry, path).await;
    assert_eq!(status, StatusCode::OK, "{path}: {html}");
    assert!(html.len() <= PAGE_BYTES_MAX, "{path} has {} bytes", html.len());
    html
}

/// Every page there is, of one contract.
fn every_page(world: &World) -> Vec<String> {
    let (node, contract) = (world.node_id(), world.contract());
    let mut paths: Vec<String> =
        ["/", "/farms", "/nodes", "/contracts", "/inbox", "/results", "/log", "/log/0"]
            .map(str::to_owned)
            .to_vec();
    paths.extend([
        format!("/nodes?farm={}", world.id("farm")),
        format!("/nodes/{node}"),
        format!("/contracts?owner={}", world.id("owner")),
        format!("/contracts/{contract}"),
        format!("/contracts/{contract}/difference"),
        format!("/inbox?identity={}", world.id("legal")),
        format!("/results?contract={contract}"),
        format!("/results?node={node}"),
        "/log?from=3".into(),
    ]);
    paths
}

/// So many reports of the node, one after the other.
fn chain(world: &World, count: usize, message: &str) -> Vec<Envelope> {
    let mut reports: Vec<Envelope> = Vec::new();
    for seq in 1..=count as u64 {
        let prev = reports.last().map(|last| last.id().unwrap());
        let report = Report {
            message: format!("{message} {seq}"),
            ..world.report(seq, prev, State::Running)
        };
        reports.push(seal(&report, &world.node_key));
    }
    reports
}

/// A page with its commands as they are copied.
async fn copied(registry: &Registry, path: &str) -> String {
    let html = get(registry, path).await;
    html.replace("<span class=\"option\">", "").replace("</span>", "")
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[tokio::test]
async fn every_page_is_whole_guarded_and_free_of_scripts() {
    let data = tempfile::tempdir().unwrap();
    begin_log(data.path());
    let registry = Registry::start(data.path()).await;
    let world = story::world(world().now);
    story::tell(&world, &registry.client).await;
    let mut paths = every_page(&world);
    let missing = ["/log/999999", "/contracts/zz", "/inbox?identity=zz", "/nodes?after=zz"];
    paths.extend(missing.map(str::to_owned));
    paths.push(format!("/nodes/{}", "ab".repeat(32)));
    for path in &paths {
        let response = reqwest::get(format!("{}{path}", registry.base)).await.unwrap();
        let known = !(missing.contains(&path.as_str()) || path.contains("abab"));
        assert_eq!(response.status() == StatusCode::OK, known, "{path}");
        let headers = response.headers().clone();
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'self';"), "{path}");
        assert!(!policy.contains("unsafe") && !policy.contains("script-src"), "{path}");
        assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8", "{path}");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        assert_eq!(headers[header::REFERRER_POLICY], "no-referrer", "{path}");
        assert!(!headers.contains_key(header::SET_COOKIE), "{path}");
        let html = response.text().await.unwrap();
        for bad in ["<script", "javascript:", "onclick=", "onload=", "style=\"", "<img", "<iframe"]
        {
            assert!(!html.contains(bad), "{path} holds {bad}");
        }
        for attribute in ["href=\"", "action=\""] {
            for (at, _) in html.match_indices(attribute) {
                let target = &html[at + attribute.len()..];
                let ours = target.starts_with('#')
                    || (target.starts_with('/') && !target.starts_with("//"));
                assert!(ours, "{path} leads elsewhere");
            }
        }
        for (part, times) in [("<h1>", 1), ("<main ", 1), ("<nav ", 1), ("class=\"skip\"", 1)] {
            assert_eq!(count(&html, part), times, "{path}: {part}");
        }
        assert_eq!(count(&html, "<table>"), count(&html, "<caption>"), "{path}");
        let scopes = count(&html, " scope=\"row\"") + count(&html, " scope=\"col\"");
        assert_eq!(count(&html, "<th ") + count(&html, "<th>"), scopes, "{path}");
        assert!(html.contains("<html lang=\"en\">"), "{path}");
        headings_are_in_order(path, &html);
    }
    let style = reqwest::get(format!("{}/style.css", registry.base)).await.unwrap();
    assert_eq!(style.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    let style = style.text().await.unwrap();
    assert!(style.contains("prefers-color-scheme: dark") && style.contains(":focus-visible"));
    assert!(!style.contains("url(") && !style.contains("@import"), "nothing else is loaded");
}

fn headings_are_in_order(path: &str, html: &str) {
    let mut before = 0;
    for (at, _) in html.match_indices("<h") {
        let Some(level) = html[at + 2..].chars().next().and_then(|c| c.to_digit(10)) else {
            continue;
        };
        assert!(level <= before + 1, "{path}: h{level} after h{before}");
        before = level;
    }
}

#[tokio::test]
async fn a_page_says_what_the_story_says() {
    let data = tempfile::tempdir().unwrap();
    begin_log(data.path());
    let registry = Registry::start(data.path()).await;
    let world = story::world(world().now);
    let legal = story::tell(&world, &registry.client).await;
    let holds = async |path: &str, words: &[&str]| {
        let html = get(&registry, path).await;
        for word in words {
            assert!(html.contains(word), "{path} lacks {word}: {html}");
        }
    };
    let (contract, node) = (world.contract(), world.node_id());
    holds("/", &["Grid test", "Web shop", "Archive of charts", "</strong> of 1 nodes online"])
        .await;
    holds("/farms", &["Lighthouse", "1 of 1 online", "90.0 GiB"]).await;
    holds("/nodes", &["online", "up for 3 d 4 h 5 min", "3.500 of 4"]).await;
    let page = format!("/nodes/{node}");
    let words =
        ["nvme0n1", "894.0 GiB", "it carries a file system", "nothing proves it", "<time datetime"];
    holds(&page, &words).await;
    let page = format!("/contracts/{contract}");
    holds(&page, &["running", "Legal desk", "version 1 of 2", "214 files measured"]).await;
    // One has approved and is not asked again; the other is.
    let page = copied(&registry, &format!("/inbox?identity={legal}")).await;
    for word in ["Web shop", "update to version 2", "Archive of charts", "create version 1"] {
        assert!(page.contains(word), "{word}");
    }
    for word in ["Sells books to whoever", "Sells books and maps", "2147483648", "8443"] {
        assert!(page.contains(word), "{word}");
    }
    let second = page.matches("--hash ").count();
    assert_eq!(second, 4, "two matters, to approve and to reject");
    assert!(page.contains(&format!("--registry {} --network test", registry.base)));
    let owner =
        format!("<dt>Owner</dt><dd><bdi>Harbour Books</bdi> <code>{}</code>", world.id("owner"));
    assert_eq!(count(&page, &owner), 2, "who asks");
    let page = get(&registry, &format!("/inbox?identity={}", world.id("it"))).await;
    assert!(page.contains("Archive of charts") && !page.contains("Web shop"));
    let page = get(&registry, &format!("/inbox?identity={}", world.id("stranger"))).await;
    assert!(page.contains("Nothing waits"));
    let page = format!("/contracts/{contract}/difference");
    holds(&page, &["beside version 1", "purpose", "<bdi>node</bdi>", "memory_bytes", "1073741824"])
        .await;
    // A line that is only copied rejects nothing.
    let copied = copied(&registry, &page).await;
    let line = copied.split("<code>3bot contract reject ").nth(1).unwrap();
    assert!(line.split("</code>").next().unwrap().ends_with(" --reason"), "{line}");
    // A result that nobody knows is not the end of the list.
    let before = format!("/results?before={}", "00".repeat(32));
    assert_eq!(ask(&registry, &before).await.0, StatusCode::NOT_FOUND);
    // A link to a proposal that has been replaced since shows no other.
    let stale = format!("{page}?statement={}", "00".repeat(32));
    assert_eq!(ask(&registry, &stale).await.0, StatusCode::CONFLICT);
    let log = get(&registry, "/log").await;
    assert!(log.contains(story::ORIGIN) && log.contains("Download the checkpoint"));
    assert!(log.contains("— registry.example/test"), "the checkpoint is signed");
    holds("/log/0", &["identity", "/proof\"", "3bot log verify", "Entry after"]).await;
}

#[tokio::test]
async fn an_order_to_end_a_contract_waits_with_its_own_command() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    prepare(&world, &registry.client).await;
    agree(&world, &registry.client).await;
    let order = seal(&world.cancel(), world.key("owner"));
    registry.client.push(&order).await.unwrap();
    let id = order.id().unwrap();
    let page = copied(&registry, &format!("/inbox?identity={}", world.id("it"))).await;
    let wanted = format!("approve {} --cancel --order {id} --hash {id}", world.contract());
    assert!(page.contains(&wanted) && page.contains("deleted at once"), "{page}");
}

#[tokio::test]
async fn hostile_texts_are_shown_and_steer_nothing() {
    let data = tempfile::tempdir().unwrap();
    begin_log(data.path());
    let (world, registry) = (world(), Registry::start(data.path()).await);
    prepare(&world, &registry.client).await;
    agree(&world, &registry.client).await;
    let mut report = world.report(1, None, State::Failed);
    report.code = "<u>".into();
    report.message = "bell \u{7} turn \u{202e} hide \u{2066}\u{200b} end".into();
    registry.client.push(&seal(&report, &world.node_key)).await.unwrap();
    let mut second = world.header(2, Some(StatementId([0; 32])));
    let first = registryd_header(&registry, &world).await;
    second.prev = Some(first);
    second.purpose = "\"><script>alert(1)</script>\u{202e}".into();
    registry.client.push(&seal(&second, world.key("owner"))).await.unwrap();
    for path in every_page(&world) {
        let html = get(&registry, &path).await;
        for bad in ["<script", "<b>", "<i>", "<u>", "<img", "<used>", "<runs>", "\"filesystem\""] {
            assert!(!html.contains(bad), "{path} holds {bad}");
        }
        let steering = html.chars().find(|c| *c != '\n' && registry_api::shown::steers(*c));
        assert_eq!(steering, None, "{path}");
    }
    // The control: the texts are there, escaped.
    assert!(get(&registry, "/farms").await.contains("Farm &lt;script&gt;"));
    let node = get(&registry, &format!("/nodes/{}", world.node_id())).await;
    assert!(node.contains("&quot;filesystem&quot; &amp; data"));
    assert!(node.contains("bell \\u{7} turn \\u{202e} hide \\u{2066}\\u{200b} end"), "{node}");
    let contract = world.contract();
    let page = get(&registry, &format!("/contracts/{contract}")).await;
    assert!(page.contains("Web &lt;i&gt;page") && page.contains("approves"));
    let page = get(&registry, &format!("/contracts/{contract}/difference")).await;
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;\\u{202e}"), "{page}");
}

async fn registryd_header(registry: &Registry, world: &World) -> StatementId {
    registry.client.contract(&world.contract()).await.unwrap().versions[0].header
}

/// Ids behind `start`, up to a quote, in the order of the page.
fn ids<'a>(html: &'a str, start: &str) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    for (at, _) in html.match_indices(start) {
        let rest = &html[at + start.len()..];
        found.extend(rest.find('"').map(|end| &rest[..end]));
    }
    found.retain(|id| id.len() == 64);
    found.dedup();
    found
}

fn next_of(html: &str) -> Option<String> {
    link_after(html, "rel=\"next\" href=\"")
}

fn link_after(html: &str, words: &str) -> Option<String> {
    let rest = &html[html.find(words)? + words.len()..];
    Some(rest[..rest.find('"')?].replace("&amp;", "&"))
}

/// Follows a list to its end, with a bound.
async fn follow(registry: &Registry, path: &str, start: &str) -> (usize, Vec<String>) {
    let (mut path, mut pages, mut found) = (Some(path.to_owned()), 0, Vec::new());
    while let Some(here) = path.take() {
        assert!(pages < 10, "{here}");
        let html = get(registry, &here).await;
        found.extend(ids(&html, start).into_iter().map(str::to_owned));
        path = next_of(&html);
        pages += 1;
    }
    (pages, found)
}

#[tokio::test]
async fn lists_go_on_over_pages_and_miss_nothing() {
    let data = tempfile::tempdir().unwrap();
    begin_log(data.path());
    let registry = Registry::start(data.path()).await;
    let world = world();
    prepare(&world, &registry.client).await;
    let more = ROWS_MAX + 3;
    let mut contracts = Vec::new();
    for number in 0..more {
        let one = World::new(world.now).with_contract(u32::try_from(number).unwrap());
        registry.client.push(&seal(&one.header(1, None), one.key("owner"))).await.unwrap();
        contracts.push(one.contract().to_string());
    }
    contracts.sort();
    let reports = chain(&world, more, "it runs");
    registry.client.push_results(&reports).await.unwrap();
    for number in 0..more {
        let key = SigningKey::from_seed(&[u8::try_from(100 + number).unwrap(); 32]);
        let identity = Identity {
            network: common::NETWORK.into(),
            version: 1,
            prev: None,
            name: format!("farmer {number}"),
            keys: vec![key.public()],
            threshold: 1,
        };
        let identity = seal(&identity, &key);
        let farm = contract::IdentityId(identity.id().unwrap().0);
        registry.client.push(&identity).await.unwrap();
        let farm = Farm { farm, name: format!("farm {number}"), ..world.farm(1) };
        registry.client.push(&seal(&farm, &key)).await.unwrap();
    }

    // What the first page shows of a list leads to the list, not on.
    let home = get(&registry, "/").await;
    assert_eq!(next_of(&home), None);
    assert!(home.contains("it runs"));
    let (pages, found) =
        follow(&registry, "/contracts", "<th scope=\"row\"><a href=\"/contracts/").await;
    assert_eq!((pages, &found), (2, &contracts));
    let waits = format!("/inbox?identity={}", world.id("it"));
    let (pages, mut found) = follow(&registry, &waits, "dd><a href=\"/contracts/").await;
    found.dedup();
    assert!(pages >= 2, "{pages}");
    assert_eq!(found, contracts);
    let (pages, found) = follow(&registry, "/farms", "/nodes?farm=").await;
    assert_eq!((pages, found.len()), (2, more + 1));
    let seqs = async |path: &str| {
        let (mut path, mut pages, mut found) = (Some(path.to_owned()), 0, Vec::new());
        while let Some(here) = path.take().filter(|_| pages < 10) {
            let html = get(&registry, &here).await;
            let numbers = html.match_indices(" no. ").map(|(at, mark)| {
                let digits = html[at + mark.len()..].split('<').next().unwrap();
                digits.parse::<usize>().unwrap()
            });
            found.extend(numbers);
            (path, pages) = (next_of(&html), pages + 1);
        }
        (pages, found)
    };
    let newest_first: Vec<_> = (1..=more).rev().collect();
    for path in ["/results".to_owned(), format!("/results?node={}", world.node_id())] {
        assert_eq!(seqs(&path).await, (2, newest_first.clone()), "{path}");
    }
    let (mut path, mut entries) = (Some("/log".to_owned()), 0);
    while let Some(here) = path.take().filter(|_| entries < 10_000) {
        let html = get(&registry, &here).await;
        entries += count(&html, "<th scope=\"row\"><a href=\"/log/");
        path = next_of(&html);
    }
    let log = get(&registry, "/log").await;
    assert!(log.contains(&format!("{entries} shown")), "{entries}");
}

#[tokio::test]
async fn what_is_large_is_cut_and_says_so() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    prepare(&world, &registry.client).await;
    let mut header = world.header(1, None);
    let url = |number: usize| format!("http://content.test/{number}/{}", "u".repeat(1900));
    header.flists = (0..200)
        .map(|number| contract::header::Flist {
            name: format!("f{number:03}"),
            urls: (0..2).map(url).collect(),
            ..header.flists[0].clone()
        })
        .collect();
    header.purpose = "\u{202e}".repeat(1300);
    let mut document = world.document(1);
    let Spec::Container(container) = &mut document.workloads[0].spec else { unreachable!() };
    container.flist = "f000".into();
    container.env = vec![format!("LONG={}", "v".repeat(20_000))];
    let leaf = merkle::leaf(&bytes(&document));
    header.deployments.root = StatementId(merkle::root(&[leaf]));
    registry.client.push(&seal(&header, world.key("owner"))).await.unwrap();
    registry.client.push_documents(&world.contract(), 1, &[bytes(&document)]).await.unwrap();
    for path in every_page(&world).into_iter().filter(|path| !path.starts_with("/log/")) {
        get(&registry, &path).await;
    }
    let contract = world.contract();
    let page = get(&registry, &format!("/contracts/{contract}")).await;
    assert!(page.contains("Not all are shown here: 150 more of 200"), "flists");
    assert!(page.contains("… and 700 more characters"), "the purpose");
    let inbox = get(&registry, &format!("/inbox?identity={}", world.id("it"))).await;
    assert!(inbox.contains("Not all is shown here"));
    // Who asks and who decides comes first; what is cut is not handed over to be signed.
    let at = |word: &str| inbox.find(&format!("<code><bdi>{word}</bdi></code>"));
    assert!(at("owner").unwrap() < at("policy").unwrap());
    assert!(at("stakeholders").unwrap() < at("approve_by").unwrap());
    assert!(!inbox.contains("--hash") && inbox.contains("Read all of the difference"));
    // All of it can be read, a page at a time.
    let (mut path, mut pages) = (Some(format!("/contracts/{contract}/difference")), 0);
    let mut all = String::new();
    while let Some(here) = path.take() {
        assert!(pages < 30);
        let html = get(&registry, &here).await;
        (path, pages) = (link_after(&html, "values.</strong> <a href=\""), pages + 1);
        all.push_str(&html);
    }
    assert!(pages > 1, "{pages}");
    for number in 0..200 {
        assert!(all.contains(&format!("<bdi>&quot;f{number:03}&quot;</bdi>")), "{number}");
    }
    assert!(all.contains("not shown whole: 15911 more characters"), "the variable");
}

/// A node that nobody adopted may send results about any contract.
#[tokio::test]
async fn results_of_a_stranger_neither_hide_a_contract_nor_stand_on_its_page() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    prepare(&world, &registry.client).await;
    propose(&world, &registry.client).await;
    registry.client.push_results(&chain(&world, 1, "of its node")).await.unwrap();
    // As many as whoever has nothing else to do may send.
    let random = if database::in_postgres() { "sha256(i::text::bytea)" } else { "randomblob(32)" };
    let flood = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
         INSERT INTO results (place, statement, node, seq, contract, workload, conflict)
         SELECT 1000000 + i, {random}, ?2, i, ?1, 'w' || i, 0 FROM n"
    );
    let flooded =
        database::tamper(data.path()).execute(&flood, &[&world.contract().0, &[0; 32]]).unwrap();
    assert_eq!(flooded, 200_000);
    let contract = world.contract();
    let page = get(&registry, &format!("/contracts/{contract}")).await;
    assert!(page.contains("of its node 1") && !page.contains("too large"));
    assert!(!page.contains("cannot be read"), "no result of a stranger stands there");
    let waits = get(&registry, &format!("/inbox?identity={}", world.id("it"))).await;
    assert!(waits.contains("--hash") && !waits.contains("too large"));
    let page = get(&registry, &format!("/contracts/{contract}/difference")).await;
    assert!(page.contains("--hash") && !page.contains("too large"));
    assert!(!get(&registry, "/contracts").await.contains("too large"));
    // The control: among all results they are.
    let page = get(&registry, &format!("/results?contract={contract}")).await;
    assert!(page.contains("cannot be read") && !page.contains("of its node 1"));
}

#[tokio::test]
async fn what_is_rejected_is_not_asked_again() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    prepare(&world, &registry.client).await;
    let header = propose(&world, &registry.client).await;
    let page = format!("/contracts/{}/difference", world.contract());
    assert!(get(&registry, &page).await.contains("--hash"), "the control");
    for name in ["it", "legal"] {
        let rejects = world.decision(name, &header, contract::decision::Decision::Reject);
        registry.client.push(&seal(&rejects, world.key(name))).await.unwrap();
    }
    let html = get(&registry, &page).await;
    assert!(!html.contains("--hash") && html.contains("Nobody is asked"), "{html}");
}

/// Whose documents are not here are not compared as if they were empty.
#[tokio::test]
async fn nodes_are_not_compared_with_documents_that_are_missing() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    prepare(&world, &registry.client).await;
    let first = agree(&world, &registry.client).await;
    let second = world.header(2, first.id().ok());
    registry.client.push(&seal(&second, world.key("owner"))).await.unwrap();
    let document = world.document_bytes(2);
    registry.client.push_documents(&world.contract(), 2, &[document]).await.unwrap();
    let page = format!("/contracts/{}/difference", world.contract());
    assert!(!get(&registry, &page).await.contains("Not compared here"), "the control");
    let gone = "DELETE FROM deployments WHERE header = ?1";
    let id = first.id().unwrap().0;
    assert_eq!(database::tamper(data.path()).execute(gone, &[&id]).unwrap(), 1);
    let html = get(&registry, &page).await;
    assert!(html.contains("The documents of the version in force are missing"), "{html}");
    assert!(!html.contains("<code><bdi>workloads</bdi></code>"), "{html}");
}

#[tokio::test]
async fn one_row_that_cannot_be_read_hides_no_other() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path()).await;
    let bad = world().with_contract(1);
    let good = World::new(bad.now).with_contract(2);
    let large = World::new(bad.now).with_contract(3);
    prepare(&bad, &registry.client).await;
    for world in [&bad, &good, &large] {
        propose(world, &registry.client).await;
    }
    let reports = chain(&good, 2, "report");
    registry.client.push_results(&reports).await.unwrap();
    let database = database::tamper(data.path());
    let spoil = "UPDATE statements SET payload = ?2
                 WHERE id = (SELECT statement FROM headers WHERE contract = ?1)";
    for (contract, bytes) in [(bad.contract(), vec![0]), (large.contract(), vec![0; 17_000_000])] {
        assert_eq!(database.execute(spoil, &[&contract.0, &bytes]).unwrap(), 1);
    }
    let spoil = "UPDATE statements SET payload = ?1
                 WHERE id = (SELECT statement FROM results WHERE seq = 1)";
    assert_eq!(database.execute(spoil, &[&vec![0]]).unwrap(), 1);

    let inbox = format!("/inbox?identity={}", good.id("it"));
    for path in ["/", "/contracts", &inbox] {
        let html = get(&registry, path).await;
        for (world, word) in [(&bad, "cannot be read"), (&large, "too large")] {
            let row = format!("<code>{}</code>", world.contract());
            let at = html.find(&row).unwrap_or_else(|| panic!("{path} lacks a row"));
            assert!(html[at..].split("</tr>").next().unwrap().contains(word), "{path}: {word}");
        }
        assert!(html.contains(&format!("/contracts/{}", good.contract())), "{path}");
    }
    let html = get(&registry, "/results").await;
    assert!(html.contains("report 2") && html.contains("cannot be read"));
    assert!(!html.contains("report 1"));
    for world in [&bad, &large] {
        let page = format!("/contracts/{}", world.contract());
        assert!(get(&registry, &page).await.contains("class=\"badge bad\""));
        get(&registry, &format!("{page}/difference")).await;
    }
    // The control: nothing of that is said of the good one.
    let page = get(&registry, &format!("/contracts/{}", good.contract())).await;
    assert!(!page.contains("too large") && page.contains("report 2"));
}
