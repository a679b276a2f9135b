//! Sources in both languages, and what people see when one is wrong.

use super::*;

const SMALL: &str = r#"
title = "T"
purpose = "P"
pool = "p"
expires = "1d"
nodes = ["n"]
[[stakeholders]]
identity = "a"
role = "it"
[containers.web]
flist = "web"
cpu = 0.5
memory = "256 MiB"
"#;

#[test]
fn the_template_is_a_source() {
    let source = parse(template::TEMPLATE, Language::Toml).unwrap();
    assert_eq!(source.stakeholders.len(), 3);
    assert_eq!(source.containers["web"].cpu.milli, 500);
    let uncommented: Vec<_> = template::TEMPLATE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            // Options of the template are comments that hold an assignment.
            Some(option) if option.contains(" = ") && !option.starts_with("on_partition = {") => {
                option
            }
            _ => line,
        })
        .filter(|line| !line.starts_with("required = ") || line.contains("it-lead"))
        .collect();
    let uncommented = uncommented.join("\n");
    let uncommented =
        uncommented.replace("# [policy.create]", "[policy.create]").replace("\"…\"", "\"00\"");
    let full = parse(&uncommented, Language::Toml).unwrap();
    assert_eq!(full.owner.as_deref(), Some("alice"));
    assert_eq!(full.policy.create.unwrap().min_weight, 2);
    assert_eq!(full.containers["web"].stop, Stop::default());
    let by_default =
        parse(&format!("{SMALL}health = {{ http = {{ port = 80 }} }}"), Language::Toml);
    let by_default = by_default.unwrap().containers["web"].health.clone();
    assert!(by_default.is_some(), "the template says what is so by default");
    assert_eq!(full.containers["web"].health, by_default);
    assert_eq!(full.containers["web"].logs[0].target().map(|target| target.port), Ok(601));
}

#[test]
fn what_the_template_leaves_open_is_named() {
    let unfilled = parse(template::TEMPLATE, Language::Toml).unwrap().unfilled();
    assert_eq!(unfilled, ["pool", "nodes", "flists.shop"]);
    assert!(parse(SMALL, Language::Toml).unwrap().unfilled().is_empty());
}

#[test]
fn yaml_says_the_same_as_toml() {
    let yaml = r"
title: T
purpose: P
pool: p
expires: 1d
nodes: [n]
stakeholders:
  - { identity: a, role: it }
containers:
  web: { flist: web, cpu: 0.5, memory: 256 MiB }
";
    assert_eq!(parse(yaml, Language::Yaml).unwrap(), parse(SMALL, Language::Toml).unwrap());
}

#[test]
fn defaults_are_what_the_documentation_says() {
    let source = parse(SMALL, Language::Toml).unwrap();
    let web = &source.containers["web"];
    assert_eq!((web.pids, web.stop), (256, Stop { signal: 15, grace: Span { seconds: 10 } }));
    assert_eq!(source.stakeholders[0].weight, 1);
    assert_eq!(source.on_partition, OnPartition::Keep);
    assert_eq!(source.policy, Policy::default());
}

#[test]
fn a_wrong_source_is_refused_at_its_line() {
    let check = |from: &str, to: &str, wanted: &[&str]| {
        let text = SMALL.replacen(from, to, 1);
        assert_ne!(text, SMALL, "{from}");
        let error = parse(&text, Language::Toml).unwrap_err().to_string();
        for part in wanted {
            assert!(error.contains(part), "{part:?} is not in:\n{error}");
        }
    };
    check("purpose", "purpse", &["line 3, column 1", "unknown field `purpse`", "`purpose`"]);
    check("cpu = 0.5", "cpus = 0.5", &["line 12", "unknown field `cpus`"]);
    check("0.5", "0.0001", &["line 12", "share of cores"]);
    check("256 MiB", "256 mib", &["line 13", "is no size", "256 MiB"]);
    check("\"1d\"", "\"1 day\"", &["line 5", "is no time"]);
    check("\"1d\"", "2027-01-01T00:00:00Z", &["line 5", "time in quotes"]);
    check("\"it\"", "\"cto\"", &["line 9", "unknown variant `cto`", "`legal`"]);
    check("title = \"T\"", "", &["missing field `title`"]);
    check("title = \"T\"", "title = \"T\"\ntitle = \"U\"", &["line 3", "duplicate key"]);
    check("flist = \"web\"", "flist = { id = \"x\" }", &["line 11", "64 lowercase hexadecimal"]);
    check("flist = \"web\"", "flist = { idd = \"x\" }", &["line 11", "unknown field `idd`"]);
    check("flist = \"web\"", "flist = \"http://x/y\"", &["line 11", "/flists/<id>"]);
    check("cpu", "ports = [\"80\"]\ncpu", &["line 12", "8080:80/tcp"]);
    check("cpu", "ports = [\"80:0\"]\ncpu", &["line 12", "8080:80/tcp"]);
    check("[containers.web]", "[containers.web", &["line 10"]);
}

#[test]
fn yaml_errors_name_line_and_column() {
    let error = parse("title: T\npurpose: P\nwhy: x\n", Language::Yaml).unwrap_err().to_string();
    assert!(error.contains("unknown field `why`"), "{error}");
    assert!(error.contains("line 3 column 1"), "{error}");
}

#[test]
fn every_form_of_an_flist_is_understood() {
    let id = "ab".repeat(32);
    let check = |written: &str, wanted: FlistRef| {
        let text = SMALL.replace("flist = \"web\"", &format!("flist = {written}"));
        assert_eq!(parse(&text, Language::Toml).unwrap().containers["web"].flist, wanted);
    };
    let known = Flist { id: Some(id.parse().unwrap()), ..Flist::default() };
    check("\"web\"", FlistRef::Named("web".into()));
    check(&format!("\"{id}\""), FlistRef::Inline(known.clone()));
    check(
        &format!("\"http://h/content/flists/{id}\""),
        FlistRef::Inline(Flist { urls: vec!["http://h/content".into()], ..known.clone() }),
    );
    check(
        &format!("{{ dir = \"out\", id = \"{id}\" }}"),
        FlistRef::Inline(Flist { dir: Some("out".into()), ..known }),
    );
}

#[test]
fn ports_name_a_protocol_or_mean_tcp() {
    let port = |host, container, protocol| Some(Port { host, container, protocol });
    assert_eq!(parse_port("8080:80"), port(8080, 80, Protocol::Tcp));
    assert_eq!(parse_port("53:5353/udp"), port(53, 5353, Protocol::Udp));
    for bad in ["80", "0:80", "80:70000", "80:80/sctp", ":", "80:80/"] {
        assert_eq!(parse_port(bad), None, "{bad}");
    }
}

#[test]
fn a_source_is_bounded() {
    let long = " ".repeat(SOURCE_MAX + 1);
    assert!(matches!(parse(&long, Language::Toml), Err(SourceError::TooLarge(_))));
}
