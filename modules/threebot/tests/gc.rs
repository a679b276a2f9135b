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
use threebot::{
    gc::{Found, Keep},
    place::{Place, PlaceError},
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

/// What a copy that keeps times would have: the files say that they were written so long ago.
fn age(dir: &Path, hours: u64) {
    let then = SystemTime::now() - Duration::from_secs(hours * 3600);
    for file in files(dir) {
        let file = fs::File::options().write(true).open(dir.join(file)).unwrap();
        file.set_modified(then).unwrap();
    }
}

/// What is kept when everything that is there has been there for longer than the grace.
fn later(flists: &[&str]) -> Keep {
    let flists = flists.iter().map(|id| id.parse().unwrap()).collect();
    Keep { flists, after: None, grace: common::now().plus(3600) }
}

async fn names(place: &Place, keep: &Keep) -> Result<BTreeSet<PathBuf>, PlaceError> {
    Ok(place.idle(keep).await?.iter().map(|one| one.item.name().into()).collect())
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
    // A copy that kept its times came today all the same.
    age(&out, 30);
    assert_eq!(done(&world, &gc).await["names"], serde_json::json!([]));
    let place = Place::open(&out);
    assert_eq!(names(&place, &later(&[&kept])).await.unwrap(), first);
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
    let list = world.home.path().join("keep");
    fs::write(&list, format!("# running\n{kept}\n")).unwrap();
    let from_file = ["flist", "gc", dir, "--keep-file", list.to_str().unwrap(), "--delete"];
    let nothing = done(&world, &from_file).await;
    assert_eq!((&nothing["deleted"], &nothing["bytes"]), (&Value::from(true), &Value::from(0)));
    let body = out.join("flists").join(&kept);
    let good = fs::read(&body).unwrap();
    fs::write(&body, "junk").unwrap();
    let unreadable = names(&place, &later(&[&kept])).await.unwrap_err();
    assert!(unreadable.to_string().contains("which stays, cannot be read"), "{unreadable}");
    let (code, _, stderr) = bot(&world, &delete).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("which stays, cannot be read"), "{stderr}");
    assert_eq!(files(&out), all);
    fs::write(&body, good).unwrap();

    for idle in place.idle(&later(&[&kept])).await.unwrap() {
        // Published again since.
        let renewed = Found { since: idle.since.plus(-1), ..idle };
        assert!(!place.remove(&renewed).await.unwrap());
        assert!(place.remove(&idle).await.unwrap());
        assert!(!place.remove(&idle).await.unwrap(), "it is gone");
    }
    let left: BTreeSet<PathBuf> = of_kept.into_iter().chain(foreign.map(PathBuf::from)).collect();
    assert_eq!(files(&out), left);
    done(&world, &["flist", "verify", dir, &kept]).await;
}

/// Packs that another place keeps went, because their folder was linked here.
#[tokio::test]
async fn nothing_goes_from_a_place_with_links() {
    let world = World::new().await;
    let (out, elsewhere) = (world.home.path().join("public"), world.home.path().join("elsewhere"));
    let flist = build(&world, "one", "one", out.to_str().unwrap()).await;
    let sign = ["flist", "sign", out.to_str().unwrap(), "--as", "owner", "--name", "x"];
    done(&world, &[&sign[..], &["--revision", "1"]].concat()).await;
    let (place, keep) = (Place::open(&out), later(&[]));
    assert_eq!(names(&place, &keep).await.unwrap(), files(&out));
    let body = format!("flists/{flist}");
    for name in ["flists", "packs", "releases", &format!("releases/{flist}"), &body] {
        let path = out.join(name);
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        let refused = names(&place, &keep).await.unwrap_err().to_string();
        assert!(refused.contains("is a symbolic link"), "{name}: {refused}");
        fs::remove_file(&path).unwrap();
        fs::rename(&elsewhere, &path).unwrap();
    }
    assert_eq!(names(&place, &keep).await.unwrap(), files(&out));
}

/// Who builds or signs waits for who clears up, and the other way round.
#[tokio::test]
async fn nobody_publishes_while_somebody_clears_up() {
    let world = World::new().await;
    let out = world.flist();
    let place = Place::open(&out);
    let alone = place.alone().await.unwrap();
    let other = fs::File::open(&out).unwrap();
    assert!(other.try_lock_shared().is_err());
    drop(alone);
    let publishing = flist::create::publishing(&out).unwrap();
    assert!(other.try_lock().is_err());
    other.try_lock_shared().unwrap();
    drop(publishing);
}

/// Who published an flist whose pack was there already found it gone a moment later.
#[tokio::test]
async fn publishing_again_gives_what_is_there_a_new_age() {
    let world = World::new().await;
    let out = world.home.path().join("public");
    let dir = out.to_str().unwrap();
    build(&world, "one", "one", dir).await;
    let begin = SystemTime::now() - Duration::from_secs(3600);
    let young = || {
        let modified = |file: &PathBuf| fs::metadata(out.join(file)).unwrap().modified().unwrap();
        files(&out).iter().filter(|file| modified(file) > begin).count()
    };
    age(&out, 30);
    assert_eq!(young(), 0);
    build(&world, "one", "one", dir).await;
    assert_eq!(young(), files(&out).len());
}
