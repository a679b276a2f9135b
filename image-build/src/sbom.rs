//! The bill of materials, in SPDX 2.3: kernel, Debian packages, and the crates that the programs link.

use crate::apt::Package;
use crate::foreign::{self, Taken};
use crate::process;
use crate::recipe::Binary;
use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What the image contains.
#[derive(Debug)]
pub(crate) struct Contents<'a> {
    /// The checkout.
    pub(crate) root: &'a Path,
    /// The image's version.
    pub(crate) version: &'a str,
    /// Time of the source, in seconds since 1970.
    pub(crate) time_s: u32,
    /// Name of the kernel package.
    pub(crate) kernel: &'a str,
    /// All packages that were fetched.
    pub(crate) packages: &'a [Package],
    /// Files that foreign packages gave.
    pub(crate) taken: &'a [Taken],
    /// Packages of the boot loaders on the media.
    pub(crate) loaders: &'a [&'a str],
    /// The project's programs.
    pub(crate) binaries: &'a [Binary],
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Crate {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<CrateNode>,
}

#[derive(Deserialize)]
struct CrateNode {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

/// The document, as text.
pub(crate) fn spdx(contents: &Contents<'_>) -> Result<String> {
    let metadata = process::output(
        process::cargo(contents.root)
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform"])
            .arg("x86_64-unknown-linux-gnu"),
    )?;
    let metadata: Metadata =
        serde_json::from_str(&metadata).context("understanding cargo metadata")?;
    let names: BTreeSet<&str> =
        contents.binaries.iter().map(|binary| binary.package.as_str()).collect();
    let image = json!({
        "SPDXID": "SPDXRef-image",
        "name": "zero-os",
        "versionInfo": contents.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "Apache-2.0",
        "copyrightText": "NOASSERTION",
    });
    let mut parts: Vec<Value> = debian(contents).map(debian_package).collect();
    parts.extend(linked(&metadata, &names).into_iter().map(crate_package));
    let mut relationships = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": "SPDXRef-image",
    })];
    relationships.extend(parts.iter().map(|part| {
        json!({
            "spdxElementId": "SPDXRef-image",
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": part["SPDXID"],
        })
    }));
    let all: Vec<Value> = std::iter::once(image).chain(parts).collect();
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("zero-os-{}", contents.version),
        "documentNamespace": format!("urn:zero-os:sbom:{}:{}", contents.version, contents.time_s),
        "creationInfo": {
            "created": utc(contents.time_s),
            "creators": [format!("Tool: zero-os-image-build-{}", contents.version)],
        },
        "packages": all,
        "relationships": relationships,
    });
    Ok(serde_json::to_string_pretty(&document).context("writing the bill of materials")? + "\n")
}

/// The kernel, the boot loaders, and the packages whose files are in the image.
fn debian<'a>(contents: &'a Contents<'_>) -> impl Iterator<Item = &'a Package> {
    let used = foreign::used(contents.packages, contents.taken);
    contents.packages.iter().filter(move |package| {
        package.name == contents.kernel
            || contents.loaders.contains(&package.name.as_str())
            || used.contains(package)
    })
}

fn debian_package(package: &Package) -> Value {
    json!({
        "SPDXID": identifier("deb", &package.name, &package.version),
        "name": package.name,
        "versionInfo": package.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "supplier": "Organization: Debian",
        "checksums": [{ "algorithm": "SHA256", "checksumValue": package.sha256 }],
        "externalRefs": [reference(&format!(
            "pkg:deb/debian/{}@{}?arch={}",
            percent(&package.name),
            percent(&package.version),
            package.architecture
        ))],
    })
}

fn crate_package(package: &Crate) -> Value {
    let location = match &package.source {
        Some(_) => format!("https://crates.io/crates/{}/{}", package.name, package.version),
        None => "NOASSERTION".to_owned(),
    };
    json!({
        "SPDXID": identifier("crate", &package.name, &package.version),
        "name": package.name,
        "versionInfo": package.version,
        "downloadLocation": location,
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": package.license.as_ref().map_or("NOASSERTION".into(), |text| text.replace('/', " OR ")),
        "copyrightText": "NOASSERTION",
        "externalRefs": [reference(&format!(
            "pkg:cargo/{}@{}", percent(&package.name), percent(&package.version)
        ))],
    })
}

fn reference(locator: &str) -> Value {
    json!({
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": locator,
    })
}

/// Crates that end up in the programs: normal dependencies, followed from the named packages.
fn linked<'a>(metadata: &'a Metadata, names: &BTreeSet<&str>) -> Vec<&'a Crate> {
    let nodes: BTreeMap<&str, &CrateNode> =
        metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let is_ours =
        |package: &&Crate| package.source.is_none() && names.contains(package.name.as_str());
    let mut open: Vec<&str> =
        metadata.packages.iter().filter(is_ours).map(|package| package.id.as_str()).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let dependencies = nodes.get(id).into_iter().flat_map(|node| &node.deps);
        let normal = dependencies
            .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none()));
        open.extend(normal.map(|dependency| dependency.pkg.as_str()));
    }
    let mut crates: Vec<&Crate> =
        metadata.packages.iter().filter(|package| seen.contains(package.id.as_str())).collect();
    crates.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    crates
}

fn identifier(kind: &str, name: &str, version: &str) -> String {
    let plain = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
    };
    format!("SPDXRef-{kind}-{}-{}", plain(name), plain(version))
}

/// Percent-encoding as package URLs want it.
fn percent(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' | '~' => out.push(c),
            _ => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    out.push('%');
                    out.push_str(&hex::encode_upper([byte]));
                }
            }
        }
    }
    out
}

/// Seconds since 1970 as `YYYY-MM-DDThh:mm:ssZ`.
fn utc(seconds: u32) -> String {
    let (day, second) = (seconds / 86400, seconds % 86400);
    // Days to a date of the Gregorian calendar, counting years from March so that the leap day is last.
    let shifted = day + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let date = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u32::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_dates() {
        let rows = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, text) in rows {
            assert_eq!(utc(seconds), text);
        }
    }

    #[test]
    fn only_what_is_linked_is_listed() {
        let metadata: Metadata = serde_json::from_value(json!({
            "packages": [
                { "id": "init", "name": "init", "version": "1", "license": null, "source": null },
                { "id": "a", "name": "a", "version": "1", "license": "MIT/Apache-2.0", "source": "r" },
                { "id": "b", "name": "b", "version": "1", "license": "MIT", "source": "r" },
                { "id": "t", "name": "t", "version": "1", "license": "MIT", "source": "r" },
            ],
            "resolve": { "nodes": [
                { "id": "init", "deps": [
                    { "pkg": "a", "dep_kinds": [{ "kind": null }] },
                    { "pkg": "t", "dep_kinds": [{ "kind": "dev" }] },
                ] },
                { "id": "a", "deps": [{ "pkg": "b", "dep_kinds": [{ "kind": null }] }] },
                { "id": "b", "deps": [] }, { "id": "t", "deps": [] },
            ] },
        }))
        .unwrap();
        let linked = linked(&metadata, &BTreeSet::from(["init"]));
        let names: Vec<_> = linked.iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "init"]);
    }

    #[test]
    fn versions_are_written_as_identifiers_and_urls_allow() {
        assert_eq!(
            identifier("deb", "libc6", "2.36-9+deb12u10"),
            "SPDXRef-deb-libc6-2.36-9-deb12u10"
        );
        assert_eq!(percent("3:6.04~git+b1"), "3%3A6.04~git%2Bb1");
    }
}
