//! `3bot flist gc` on a directory: what it keeps, what goes, and what it never looks at.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::World;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

async fn bot(world: &World, words: &[&str]) -> (i32, Value, String) {
    common::bot(world, &world.url(), words).await
}

async fn done(world: &World, words: &[&str]) -> Value {
    let (code, answer, stderr) = bot(world, words).await;
    assert_eq!(code, 0, "{words:?}: {stderr}");
    answer
}

/// Every file below a directory, by its name there.
fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(dir).unwrap().to_owned());
            }
        }
    }
    found
}

/// As if everything had come so long ago.
fn age(dir: &Path, hours: u64) {
    let then = SystemTime::now() - Duration::from_secs(hours * 3600);
    for file in files(dir) {
        let file = fs::File::options().write(true).open(dir.join(file)).unwrap();
        file.set_modified(then).unwrap();
    }
}

/// Builds an flist of one file into `out`, and gives its id.
async fn build(world: &World, name: &str, content: &str, out: &str) -> String {
    let tree = world.home.path().join(name);
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("program"), content.repeat(1000)).unwrap();
    let built = done(world, &["flist", "build", tree.to_str().unwrap(), "--out", out]).await;
    built["flist"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_no_kept_flist_names_goes_when_it_is_old_and_nothing_else_ever_does() {
    let world = World::new().await;
    let out = world.home.path().join("public");
    let dir = out.to_str().unwrap();
    let old = build(&world, "one", "one", dir).await;
    let sign = ["flist", "sign", dir, &old, "--as", "owner", "--name", "x", "--revision", "1"];
    done(&world, &sign).await;
    let first = files(&out);
    let kept = build(&world, "two", "two", dir).await;
    let of_kept: BTreeSet<_> = files(&out).difference(&first).cloned().collect();
    // What is not ours, and what looks nearly like it.
    let foreign = ["index.html", "packs/.tmpAbC", "packs/README", "releases/notes/x"];
    for name in foreign {
        fs::create_dir_all(out.join(name).parent().unwrap()).unwrap();
        fs::write(out.join(name), "x").unwrap();
    }
    let all = files(&out);
    let gc = ["flist", "gc", dir, "--keep", &kept];

    // Somebody may be publishing: nothing is old enough.
    let idle = done(&world, &gc).await;
    assert_eq!((&idle["deleted"], &idle["names"]), (&Value::from(false), &serde_json::json!([])));
    age(&out, 30);
    let idle = done(&world, &gc).await;
    let names: BTreeSet<PathBuf> = idle["names"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap().into())
        .collect();
    assert_eq!(names, first);
    assert_eq!(files(&out), all, "it was only shown");
    // In doubt everything stays.
    let delete = [&gc[..], &["--delete"]].concat();
    let missing = "0".repeat(64);
    for (more, told) in [
        (["--keep", missing.as_str()], "is to be kept and is not there"),
        (["--grace", "119m"], "at least 2h"),
    ] {
        let (code, _, stderr) = bot(&world, &[&delete[..], &more].concat()).await;
        assert_ne!(code, 0);
        assert!(stderr.contains(told), "{stderr}");
    }
    assert_eq!(bot(&world, &["flist", "gc", dir, "--delete"]).await.0, 64, "what stays?");
    let newer = ["flist", "gc", dir, "--delete", "--keep-newer", "31h"];
    assert_eq!(done(&world, &newer).await["names"], serde_json::json!([]));
    let body = out.join("flists").join(&kept);
    let good = fs::read(&body).unwrap();
    fs::write(&body, "junk").unwrap();
    age(&out, 30);
    let (code, _, stderr) = bot(&world, &delete).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("which stays, cannot be read"), "{stderr}");
    assert_eq!(files(&out), all);
    fs::write(&body, good).unwrap();

    age(&out, 30);
    let list = world.home.path().join("keep");
    fs::write(&list, format!("# running\n{kept}\n")).unwrap();
    let from_file = ["flist", "gc", dir, "--keep-file", list.to_str().unwrap(), "--delete"];
    assert_eq!(done(&world, &from_file).await["deleted"], true);
    let left: BTreeSet<PathBuf> = of_kept.into_iter().chain(foreign.map(PathBuf::from)).collect();
    assert_eq!(files(&out), left);
    done(&world, &["flist", "verify", dir, &kept]).await;
}

/// Who published an flist whose pack was there already found it gone a moment later.
#[tokio::test]
async fn publishing_again_gives_what_is_there_a_new_age() {
    let world = World::new().await;
    let out = world.home.path().join("public");
    let dir = out.to_str().unwrap();
    let other = build(&world, "other", "other", dir).await;
    let flist = build(&world, "one", "one", dir).await;
    age(&out, 30);
    // As if its list of files had never come: its pack is old, and nobody names it.
    fs::remove_file(out.join("flists").join(&flist)).unwrap();
    assert_eq!(build(&world, "one", "one", dir).await, flist);
    let gc = ["flist", "gc", dir, "--keep", &other, "--delete"];
    assert_eq!(done(&world, &gc).await["names"], serde_json::json!([]));
    done(&world, &["flist", "verify", dir, &flist]).await;
}
