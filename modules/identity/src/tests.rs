//! Keys in a temporary directory.

use super::*;
use std::os::unix::fs::PermissionsExt as _;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn keys() -> (tempfile::TempDir, Keys) {
    let home = tempfile::tempdir().unwrap();
    let keys = Keys::at(home.path());
    (home, keys)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_first_directory_that_the_environment_names_is_home() {
    let check = |set: &[(&str, &str)], wanted: Option<&str>| {
        let variable = |name: &str| {
            set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        assert_eq!(home(variable), wanted.map(PathBuf::from), "{set:?}");
    };
    check(&[("ZOS_HOME", "/z"), ("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")], Some("/z"));
    check(&[("ZOS_HOME", ""), ("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")], Some("/x/zos"));
    check(&[("HOME", "/h")], Some("/h/.config/zos"));
    check(&[], None);
}

#[test]
fn a_key_is_private_and_comes_back_as_it_was_made() {
    let (home, keys) = keys();
    assert!(keys.list().unwrap().is_empty());
    let made = keys.create(&name("alice"), "Alice A.").unwrap();
    keys.create(&name("bob"), "Bob").unwrap();
    let loaded = keys.load(&name("alice")).unwrap();
    assert_eq!(loaded.secret.public(), made.secret.public());
    assert_eq!(loaded.display, "Alice A.");
    assert_eq!(keys.list().unwrap(), [name("alice"), name("bob")]);
    assert_eq!(mode(&home.path().join("keys/alice.key")), 0o600);
    assert_eq!(mode(&home.path().join("keys")), 0o700);
    let left_over = std::fs::read_dir(home.path().join("keys")).unwrap().count();
    assert_eq!(left_over, 2, "only the two key files");
}

#[test]
fn a_key_is_never_overwritten() {
    let (_home, keys) = keys();
    let first = keys.create(&name("alice"), "A").unwrap();
    assert!(matches!(keys.create(&name("alice"), "B"), Err(KeyError::Exists(_))));
    assert_eq!(keys.load(&name("alice")).unwrap().secret.public(), first.secret.public());
}

#[test]
fn a_key_that_others_may_read_is_not_used() {
    let (home, keys) = keys();
    keys.create(&name("alice"), "A").unwrap();
    let path = home.path().join("keys/alice.key");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(keys.load(&name("alice")), Err(KeyError::NotPrivate { mode: 0o640, .. })));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    keys.load(&name("alice")).unwrap();
}

#[test]
fn a_damaged_key_file_is_refused_with_the_reason() {
    let (home, keys) = keys();
    keys.create(&name("alice"), "A").unwrap();
    let path = home.path().join("keys/alice.key");
    let good = std::fs::read_to_string(&path).unwrap();
    let seed = good.split('"').nth(good.split('"').position(|word| word == "seed").unwrap() + 2);
    let check = |bad: String, wanted: &str| {
        std::fs::write(&path, bad).unwrap();
        let error = keys.load(&name("alice")).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    };
    check(good.replace(seed.unwrap(), &"00".repeat(32)), "does not belong to the seed");
    check(good.replace(seed.unwrap(), "00"), "64 hexadecimal digits");
    check(good.replace("\"format\": 1", "\"format\": 2"), "format 2");
    check(good.replace("\"format\"", "\"fromat\""), "fromat");
    check(good[..20].to_owned(), "EOF");
    check(" ".repeat(70_000), "reading");
    std::fs::write(&path, good).unwrap();
    keys.load(&name("alice")).unwrap();
}

#[test]
fn an_identity_is_made_once_for_each_network() {
    let (home, keys) = keys();
    let key = keys.create(&name("alice"), "Alice").unwrap();
    let first = keys.identity(&key, "test").unwrap();
    let again = keys.identity(&key, "test").unwrap();
    assert_eq!(first.statement, again.statement);
    assert_eq!(first.id(), again.id());
    assert!(matches!(keys.identity(&key, "../x"), Err(KeyError::Network(_))));
    assert_ne!(keys.identity(&key, "main").unwrap().id(), first.id());
    assert_eq!(first.signer.identity.name, "Alice");
    assert_eq!(mode(&home.path().join("keys/alice.key")), 0o600);
}

#[test]
fn an_identity_file_of_another_key_is_refused() {
    let (home, keys) = keys();
    let alice = keys.create(&name("alice"), "A").unwrap();
    let bob = keys.create(&name("bob"), "B").unwrap();
    keys.identity(&alice, "test").unwrap();
    let file = |name: &str| home.path().join(format!("keys/{name}.test.identity"));
    std::fs::copy(file("alice"), file("bob")).unwrap();
    let error = keys.identity(&bob, "test").unwrap_err().to_string();
    assert!(error.contains("another key"), "{error}");
}

#[test]
fn a_missing_key_says_how_to_make_it() {
    let (_home, keys) = keys();
    let error = keys.load(&name("nobody")).unwrap_err().to_string();
    assert!(error.contains("3bot key new nobody"), "{error}");
}

#[test]
fn a_name_cannot_leave_the_directory() {
    for bad in ["", "../x", "a/b", "A", "a.b", "-a", "a b", &"x".repeat(33)] {
        assert!(bad.parse::<Name>().is_err(), "{bad}");
    }
    for good in ["a", "0", "alice-2", &"x".repeat(32)] {
        assert!(good.parse::<Name>().is_ok(), "{good}");
    }
}
