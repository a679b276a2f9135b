//! `cargo xtask image` tells a wrong option at once, and works on the checkout that it is run in.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "the whole file is tests, and a surprise fails them"
)]

use std::path::Path;
use std::process::Command;

/// What `cargo xtask image` says in a checkout, on a machine without any program to install or build
/// with: it fails in any case, and the question is at what.
fn complaint(checkout: &Path, options: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("image")
        .args(options)
        .env_clear()
        .env("PATH", checkout)
        .env("CARGO_MANIFEST_DIR", checkout.join("image-build"))
        .current_dir(checkout)
        .output()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// A farmer mistyped the farm, and learned it after apt and the whole build.
#[test]
fn a_wrong_option_is_told_before_anything_is_installed_or_built() {
    let checkout = tempfile::tempdir().unwrap();
    let own = checkout.path().join("image-build");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("image.toml"), include_str!("../image.toml")).unwrap();
    let wrong = [
        ["--farm", "short"],
        ["--token", "short"],
        ["--registry", "example.org"],
        ["--network", "No Network"],
        ["--cmdline", "zos.typo=1"],
    ];
    for options in wrong {
        let text = complaint(checkout.path(), &options);
        assert!(text.contains("would not understand its boot options"), "{options:?}: {text}");
        assert!(!text.contains("packages"), "{options:?}: {text}");
        assert!(!checkout.path().join("build").exists(), "{options:?}");
    }
    let text = complaint(checkout.path(), &["--farm", &"ab".repeat(32)]);
    assert!(text.contains("Debian packages are missing"), "a good option goes on: {text}");
}

/// A checkout was copied with what cargo had built in it, and `cargo xtask` built the old one.
#[test]
fn a_copied_checkout_is_worked_on_itself() {
    let copy = tempfile::tempdir().unwrap();
    let text = complaint(copy.path(), &[]);
    let description = copy.path().join("image-build/image.toml");
    assert!(text.contains(&format!("reading {}", description.display())), "{text}");
}
