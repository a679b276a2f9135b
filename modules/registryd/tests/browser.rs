//! The pages as people meet them: a real registry, a small story in it, and Chromium.
//!
//! `ZOS_WRITE_DOCS=1 cargo test -p registryd --test browser` renews the pictures of docs/web.md.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{
    chromium::Chromium,
    database,
    process::{Process, start},
    story,
};
use registryd::{server::system_clock, transparency};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Width and height of a phone and of a desk, in CSS pixels.
const PHONE: (u32, u32) = (390, 844);
const DESK: (u32, u32) = (1280, 900);
/// A picture of the docs has fewer bytes.
const PICTURE_BYTES_MAX: u64 = 70_000;

struct Opened {
    /// Of whose data the registry is.
    _data: tempfile::TempDir,
    registry: Process,
    chromium: Chromium,
    /// Every page, by the name of its picture.
    pages: Vec<(&'static str, String)>,
}

async fn opened() -> Opened {
    let data = tempfile::tempdir().unwrap();
    transparency::begin(&database::open(data.path()), data.path(), story::ORIGIN).unwrap();
    let registry = start(data.path());
    let world = story::world(system_clock());
    let legal = story::tell(&world, &registry.client).await;
    let (node, contract) = (world.node_id(), world.contract());
    let base = registry.client.bases()[0].clone();
    let pages = [
        ("grid", "/".to_owned()),
        ("farms", "/farms".into()),
        ("nodes", "/nodes".into()),
        ("node", format!("/nodes/{node}")),
        ("contracts", "/contracts".into()),
        ("contract", format!("/contracts/{contract}")),
        ("difference", format!("/contracts/{contract}/difference")),
        ("inbox", format!("/inbox?identity={legal}")),
        ("lookup", "/inbox".into()),
        ("results", "/results".into()),
        ("log", "/log".into()),
        ("entry", "/log/0".into()),
        ("problem", format!("/nodes/{}", "ab".repeat(32))),
    ];
    let pages = pages.map(|(name, path)| (name, format!("{base}{path}"))).to_vec();
    Opened { _data: data, registry, chromium: Chromium::start(), pages }
}

#[tokio::test]
async fn no_page_scrolls_sideways_and_each_can_be_read_aloud() {
    let Opened { _data, registry: _registry, mut chromium, pages } = opened().await;
    for (width, height) in [PHONE, DESK] {
        for scheme in ["light", "dark"] {
            chromium.view(width, height, scheme);
            for (name, url) in &pages {
                chromium.open(url);
                let at = format!("{name} at {width} px, {scheme}");
                let wide = chromium.value(WIDE).as_i64().unwrap();
                assert_eq!(wide, i64::from(width), "{at} scrolls sideways");
                assert_eq!(chromium.value("document.scripts.length"), 0, "{at}");
                let faint = chromium.value(FAINT);
                assert_eq!(faint, json!([]), "{at}: texts that are too faint");
                let spoken = chromium.spoken();
                let with = |role: &str| spoken.iter().filter(|(found, _)| found == role).count();
                for (role, count) in
                    [("main", 1), ("navigation", 1), ("banner", 1), ("contentinfo", 1)]
                {
                    assert_eq!(with(role), count, "{at}: {role}");
                }
                assert_eq!(chromium.value("document.querySelectorAll('h1').length"), 1, "{at}");
                let nameless = spoken.iter().find(|(role, name)| {
                    ["link", "button", "textbox", "heading", "table", "region"]
                        .contains(&role.as_str())
                        && name.trim().is_empty()
                });
                assert_eq!(nameless, None, "{at}: somebody hears nothing");
            }
        }
    }
}

/// A test that finds nothing on good pages finds something on bad ones.
#[tokio::test]
async fn a_page_that_scrolls_is_faint_or_says_nothing_is_found() {
    let mut chromium = Chromium::start();
    chromium.view(PHONE.0, PHONE.1, "light");
    chromium.show(
        "<meta name=viewport content='width=device-width, initial-scale=1'>
         <p style='color: #999'>faint</p><p style='color: #666'>strong</p><a href='/x'></a>
         <div style='width: 500px; height: 1px'></div>",
    );
    assert!(chromium.value(WIDE).as_i64().unwrap() > 500);
    assert_eq!(chromium.value(FAINT), json!(["faint"]));
    assert!(chromium.spoken().contains(&("link".into(), String::new())));
}

/// Whoever waits for a program that has ended learns why, and does not wait for ever.
#[tokio::test]
async fn a_program_that_has_ended_is_not_waited_for() {
    let mut chromium = Chromium::start();
    chromium.value("1");
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        chromium.ask("Browser.close", &json!({}));
        chromium.value("1")
    }));
    assert!(ended.is_err());
}

#[tokio::test]
async fn spaces_of_values_are_kept() {
    let Opened { _data, registry: _registry, mut chromium, pages } = opened().await;
    let (_, url) = pages.iter().find(|(name, _)| *name == "difference").unwrap();
    chromium.open(url);
    let style =
        |of: &str| format!("getComputedStyle(document.querySelector('{of}')).whiteSpaceCollapse");
    assert_eq!(chromium.value(&style(".value code")), "preserve");
    assert_eq!(chromium.value(&style(".way code")), "preserve");
    assert_eq!(chromium.value(&style("p")), "collapse", "the control");
}

/// How wide a page is: that of the window, or of what does not fit in it.
const WIDE: &str = "Math.max(document.documentElement.scrollWidth, innerWidth)";

/// Texts whose contrast is below 4.5 to 1, by the formula of WCAG 2.
const FAINT: &str = "(() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => {
    const [r, g, b] = parts(colour).slice(0, 3).map(c => c / 255)
      .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = node => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      const found = parts(colour);
      if (found.length === 3 || found[3] === 1) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const faint = [];
  for (const node of document.querySelectorAll('body *')) {
    if (![...node.childNodes].some(one => one.nodeType === 3 && one.data.trim())) continue;
    const pair = [light(getComputedStyle(node).color), light(ground(node))].sort((a, b) => b - a);
    if ((pair[0] + 0.05) / (pair[1] + 0.05) < 4.5) faint.push(node.textContent.slice(0, 40));
  }
  return faint;
})()";

#[tokio::test]
async fn the_first_key_leads_to_the_content_and_dark_is_dark() {
    let Opened { _data, registry: _registry, mut chromium, pages } = opened().await;
    let (_, url) = &pages[0];
    chromium.view(DESK.0, DESK.1, "light");
    chromium.open(url);
    let tab = |kind: &str| json!({ "type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9 });
    for kind in ["rawKeyDown", "keyUp"] {
        chromium.ask("Input.dispatchKeyEvent", &tab(kind));
    }
    assert_eq!(chromium.value("document.activeElement.textContent"), "Skip to the content");
    let seen = "document.activeElement.getBoundingClientRect().left >= 0
        && getComputedStyle(document.activeElement).outlineStyle !== 'none'";
    assert_eq!(chromium.value(seen), true, "where the focus is can be seen");
    let ground = "getComputedStyle(document.body).backgroundColor";
    assert_eq!(chromium.value(ground), "rgb(247, 248, 250)");
    chromium.view(DESK.0, DESK.1, "dark");
    assert_eq!(chromium.value(ground), "rgb(17, 21, 26)");
}

#[tokio::test]
async fn the_pictures_of_the_docs_can_be_taken() {
    let Opened { _data, registry: _registry, mut chromium, pages } = opened().await;
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/screenshots");
    let renewed = std::env::var_os("ZOS_WRITE_DOCS").is_some();
    let folder = if renewed { docs.clone() } else { PathBuf::from(env!("CARGO_TARGET_TMPDIR")) };
    std::fs::create_dir_all(&folder).unwrap();
    for (name, (width, height), scheme, from, scale) in [
        ("grid", DESK, "light", "body", 0.55),
        ("contract", DESK, "dark", "body", 0.55),
        ("inbox", DESK, "light", "body", 0.55),
        ("inbox", PHONE, "dark", ".matter h3 ~ h3", 0.8),
        ("node", PHONE, "light", "body", 0.8),
    ] {
        let (_, url) = pages.iter().find(|(page, _)| *page == name).unwrap();
        chromium.view(width, height, scheme);
        chromium.open(url);
        let file = format!("{name}-{width}.png");
        chromium.picture(&folder.join(&file), from, (width, height), scale);
        let size = std::fs::metadata(folder.join(&file)).unwrap().len();
        assert!((1000..PICTURE_BYTES_MAX).contains(&size), "{file} has {size} bytes");
        assert!(docs.join(&file).exists(), "ZOS_WRITE_DOCS=1 writes docs/screenshots/{file}");
        let page = std::fs::read_to_string(docs.join("../web.md")).unwrap();
        assert!(page.contains(&format!("screenshots/{file}")), "docs/web.md shows {file}");
    }
}
