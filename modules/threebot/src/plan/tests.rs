//! Plans as data.

use super::{
    world::{NodeFacts, Severity, World, findings},
    *,
};
use crate::source::{Language, parse};
use contract::{
    Capacity, Envelope, Signed, SigningKey,
    capacity::{Amounts, GIB},
    farm::Pool,
    identity::{Identity, Signer},
    workload::Restart,
};
use flist::body::{Body, Data, Entry as BodyEntry, FORMAT, MAGIC, Meta};

/// A source and everything around it.
pub(crate) struct Example {
    text: String,
    people: People,
    flists: BTreeMap<String, KnownFlist>,
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from_seconds(1_800_000_000)
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32])
}

fn identity(n: u8) -> (Signer, Envelope) {
    let body = Identity {
        network: "test".into(),
        version: 1,
        prev: None,
        name: format!("person {n}"),
        keys: vec![key(n).public()],
        threshold: 1,
    };
    let envelope = Envelope::seal(&body, &[&key(n)]).unwrap();
    (Signer::from_statement(&Signed::open(&envelope).unwrap()).unwrap(), envelope)
}

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

/// An flist with a program, a directory to mount on and a link.
fn small_flist() -> FlistBody {
    let meta = |mode| Meta { mode, ..Meta::default() };
    let entry = |path: &str, node| BodyEntry { path: path.into(), node };
    let body = Body {
        magic: MAGIC,
        format: FORMAT,
        run: Run::default(),
        packs: vec![],
        contents: vec![],
        entries: vec![
            entry("", Entry::Directory(meta(0o755))),
            entry("bin", Entry::Directory(meta(0o755))),
            entry("bin/server", Entry::File(meta(0o755), Data::Inline(b"x".to_vec()))),
            entry("data", Entry::Directory(meta(0o755))),
            entry("lib", Entry::Symlink(meta(0o777), b"usr/lib".to_vec())),
            entry("tmp", Entry::Directory(meta(0o1777))),
        ],
    };
    FlistBody::from_body(body).unwrap()
}

impl Example {
    fn new(text: &str) -> Self {
        let mut people = People::default();
        for (name, n) in [("owner", 1), ("it", 2), ("legal", 3), ("budget", 4)] {
            people.know(name, identity(n).0.id);
        }
        let known = KnownFlist { flist: small_flist(), urls: vec!["http://content.test".into()] };
        let flists = [("shop", &known), ("web", &known)];
        let flists = flists.into_iter().map(|(name, known)| (name.into(), known.clone())).collect();
        Self { text: text.to_owned(), people, flists }
    }

    fn head(nodes: &str) -> String {
        format!(
            "title = \"Shop\"\npurpose = \"\"\"\nSells.\n\"\"\"\npool = \"{}\"\nexpires = \"10d\"\n\
             nodes = [{nodes}]\n",
            pool().id
        )
    }

    pub(crate) fn two_nodes() -> Self {
        Self::new(&format!(
            "{}[[stakeholders]]\nidentity = \"it\"\nrole = \"it\"\n\
             [containers.web]\nflist = \"shop\"\ncommand = [\"/bin/server\"]\ncpu = 1\n\
             memory = \"1 GiB\"\n[flists.shop]\nid = \"{}\"\n",
            Self::head(&format!("\"{}\", \"{}\"", node(9), node(8))),
            small_flist().identity()
        ))
    }

    pub(crate) fn full() -> Self {
        Self::new(&format!(
            r#"{}
owner = "owner"
on_partition = {{ stop_after = "12h" }}
[[stakeholders]]
identity = "it"
role = "it"
[[stakeholders]]
identity = "legal"
role = "legal"
weight = 2
[policy.create]
required = ["it"]
roles = {{ legal = 1 }}
min_weight = 2
veto_roles = ["legal"]
[flists.shop]
id = "{}"
publisher = {{ key = "{}", revision = 3 }}
[containers.web]
flist = "shop"
command = ["/bin/server", "-v"]
env = {{ LANG = "C" }}
cwd = "/data"
user = "1000:1000"
cpu = 0.5
memory = "256 MiB"
pids = 99
mounts = [{{ path = "/data", volume = "data" }}, {{ path = "/tmp", tmpfs = "64 MiB" }}]
ports = ["8080:80/tcp"]
needs = ["data"]
stop = {{ signal = 2, grace = "1m" }}
health = {{ http = {{ port = 80, path = "/ready?full=1", status = [200, 204] }}, start_period = "1m" }}
logs = [{{ to = "syslog+tcp://logs.example" }}]
stats = [{{ to = "wss://stats.example/in" }}]
[volumes.data]
size = "10 GiB"
"#,
            Self::head(&format!("\"{}\"", node(9))),
            small_flist().identity(),
            key(8).public()
        ))
    }

    fn try_plan(&self) -> Result<Plan, Refused> {
        let source = parse(&self.text, Language::Toml).unwrap();
        plan(&Inputs {
            source: &source,
            network: "test",
            now: now(),
            signer: identity(1).0.id,
            people: &self.people,
            flists: &self.flists,
            follows: Follows::Nothing(Nonce("0123456789abcdef0123456789abcdef".into())),
        })
    }

    pub(crate) fn plan(&self) -> Plan {
        self.try_plan().unwrap()
    }
}

pub(crate) fn sealed_header(plan: &Plan) -> Signed<Header> {
    Signed::open(&Envelope::seal(&plan.header, &[&key(1)]).unwrap()).unwrap()
}

fn pool() -> Signed<Pool> {
    let body = Pool {
        network: "test".into(),
        farm: identity(5).0.id,
        owner: identity(1).0.id,
        nodes: vec![node(8), node(9)],
        amounts: Amounts { cu_seconds: 10 * 24 * 3600, su_seconds: 100_000, ipv4_seconds: 0 },
        expires: now().plus(30 * 24 * 3600),
        serial: 1,
    };
    Signed::open(&Envelope::seal(&body, &[&key(5)]).unwrap()).unwrap()
}

fn world() -> World {
    let facts = NodeFacts {
        farm: identity(5).0.id,
        adopted: true,
        online: true,
        capacity: Capacity {
            cru_milli: 4000,
            mru_bytes: 8 * GIB,
            sru_bytes: 100 * GIB,
            hru_bytes: 0,
        },
        free: Some(Capacity { cru_milli: 1000, mru_bytes: GIB, sru_bytes: 10 * GIB, hru_bytes: 0 }),
        degraded: vec![],
    };
    World {
        nodes: [(node(8), facts.clone()), (node(9), facts)].into(),
        pool: Some(pool()),
        farm: Some(identity(5).0),
        taken: BTreeMap::new(),
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let (one, two) = (Example::full().plan(), Example::full().plan());
    assert_eq!(one, two);
    // The bytes themselves, because signatures outlive this program.
    let text = String::from_utf8(one.document_bytes[0].clone()).unwrap();
    assert_eq!(
        text,
        format!(
            "{{\"contract\":\"{}\",\"version\":1,\"node\":\"{}\",\"workloads\":[\
             {{\"name\":\"data\",\"spec\":{{\"volume\":{{\"size_bytes\":10737418240,\"class\":\
             \"ssd\"}}}},\"needs\":[]}},\
             {{\"name\":\"web\",\"spec\":{{\"container\":{{\"flist\":\"shop\",\"command\":[\
             \"/bin/server\",\"-v\"],\"env\":[\"LANG=C\"],\"cwd\":\"/data\",\"user\":\"1000:1000\",\
             \"cpu_milli\":500,\"memory_bytes\":268435456,\"pids_max\":99,\"mounts\":[\
             {{\"path\":\"/data\",\"source\":{{\"volume\":\"data\"}}}},\
             {{\"path\":\"/tmp\",\"source\":{{\"tmpfs\":67108864}}}}],\"ports\":[\
             {{\"protocol\":\"tcp\",\"host\":8080,\"container\":80}}],\"stop\":{{\"signal\":2,\
             \"grace_s\":60}},\"health\":{{\"probe\":{{\"http\":{{\"port\":80,\"path\":\
             \"/ready?full=1\",\"status_min\":200,\"status_max\":204}}}},\"interval_s\":10,\
             \"timeout_s\":5,\"retries\":3,\"start_period_s\":60}},\
             \"logs\":[{{\"to\":\"syslog+tcp://logs.example\"}}],\
             \"stats\":[{{\"to\":\"wss://stats.example/in\"}}]}}}},\"needs\":[\"data\"]}}]}}",
            one.contract(),
            node(9)
        )
    );
}

#[test]
fn who_signs_reads_what_an_overlay_keeps_and_that_nothing_there_is_executed() {
    let mut example = Example::full();
    example.text = example.text.replacen("volume = \"data\"", "overlay = \"data\"", 1);
    let plan = example.plan();
    let source = &plan.documents[0].containers().next().unwrap().mounts[0].source;
    assert_eq!(*source, MountSource::Overlay("data".to_owned()));
    let text = crate::text::version(&plan.header, &plan.documents, &example.people).join("\n");
    for part in [
        "may change the flist's /data: volume data keeps the changes, also over a later flist",
        "nothing in /data can be executed, programs of the flist neither",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn a_health_check_is_a_command_in_the_words_of_the_contract() {
    let mut example = Example::full();
    let asked = "http = { port = 80, path = \"/ready?full=1\", status = [200, 204] }";
    example.text = example.text.replacen(asked, "exec = [\"/bin/server\", \"--check\"]", 1);
    let plan = example.plan();
    let health = plan.documents[0].containers().next().unwrap().health.clone().unwrap();
    let command = vec!["/bin/server".to_owned(), "--check".to_owned()];
    assert_eq!(health.probe, Probe::Exec { command });
    let text = crate::text::version(&plan.header, &plan.documents, &example.people).join("\n");
    assert!(text.contains("works when the command \"/bin/server\" \"--check\" in it returns 0, "));
}

#[test]
fn defaults_are_filled_in_and_everything_is_sorted() {
    let plan = Example::two_nodes().plan();
    let header = &plan.header;
    assert_eq!(header.owner, identity(1).0.id, "the signer owns it");
    assert_eq!(header.policy.create.required, [identity(2).0.id]);
    assert_eq!(header.policy.cancel, header.policy.create);
    assert_eq!(header.approve_by, header.expires, "14 days would be after the end");
    assert_eq!((header.not_before, header.start_by), (now(), header.expires));
    assert_eq!(header.purpose, "Sells.");
    let nodes: Vec<_> = plan.documents.iter().map(|document| document.node).collect();
    assert_eq!(nodes, [node(8), node(9)]);
}

#[test]
fn an_update_follows_the_version_in_force() {
    let example = Example::two_nodes();
    let first = example.plan();
    let source = parse(&example.text, Language::Toml).unwrap();
    let inputs = |signer| Inputs {
        source: &source,
        network: "test",
        now: now(),
        signer,
        people: &example.people,
        flists: &example.flists,
        follows: Follows::Version(&first.header, first.id()),
    };
    let second = plan(&inputs(identity(1).0.id)).unwrap();
    assert_eq!((second.header.version, second.header.prev), (2, Some(first.id())));
    assert_eq!(second.contract(), first.contract());
    assert!(second.documents.iter().all(|document| document.version == 2));
    let refused = plan(&inputs(identity(2).0.id)).unwrap_err();
    assert!(refused.to_string().contains("same owner"), "{refused}");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let check = |from: &str, to: &str, wanted: &[&str]| {
        let mut example = Example::full();
        assert!(example.text.contains(from), "{from}");
        example.text = example.text.replacen(from, to, 1);
        let refused = example.try_plan().unwrap_err();
        for part in wanted {
            assert!(refused.to_string().contains(part), "{part:?} is not in:\n{refused}");
        }
        assert_eq!(refused.problems.len(), wanted.len(), "{refused}");
    };
    Example::full().plan();
    let node = node(9).to_string();
    check("owner = \"owner\"", "owner = \"nobody\"", &["owner \"nobody\" is no identity"]);
    check("identity = \"legal\"", "identity = \"it\"", &["a stakeholder twice"]);
    check("required = [\"it\"]", "required = [\"budget\"]", &["is no stakeholder"]);
    check("{ legal = 1 }", "{ legal = 2 }", &["2 of role legal can never approve: there are 1"]);
    check("min_weight = 2", "min_weight = 4", &["all together weigh 3"]);
    check("volume = \"data\"", "volume = \"dta\"", &["no [volumes.dta]", "mount names a volume"]);
    check("volume = \"data\"", "overlay = \"dta\"", &["no [volumes.dta]", "mount names a volume"]);
    check("tmpfs = \"64 MiB\"", "overlay = \"data\"", &["belongs to one container"]);
    let everything = &["nothing is mounted on /: name", "a directory below /"];
    check("path = \"/data\", volume", "path = \"/\", overlay", everything);
    check("flist = \"shop\"", "flist = \"shp\"", &["no [flists.shp]"]);
    check("/bin/server", "/bin/none", &["the flist has no file /bin/none"]);
    check("\"/bin/server\"", "\"/bin\"", &["/bin is a directory of the flist"]);
    check("http = { port = 80,", "tcp = 80, http = { port = 80,", &["one of `http`, `tcp`"]);
    let asked = "http = { port = 80, path = \"/ready?full=1\", status = [200, 204] }";
    check(asked, "interval = \"9s\"", &["one of `http`, `tcp` and `exec`"]);
    check(asked, "exec = [\"/bin/none\"]", &["the flist has no file /bin/none"]);
    check(asked, "exec = []", &["a health check is a program"]);
    check("path = \"/tmp\"", "path = \"/cache\"", &["no directory /cache to mount on"]);
    check(&node, "n1", &["\"n1\" is no node id", "data runs nowhere", "web runs nowhere"]);
    check("expires = \"10d\"", "expires = \"2020-01-01T00:00:00Z\"", &["expires", "approve_by"]);
    check("pool = \"", "pool = \"x", &["is no statement id"]);
    check(
        "tmpfs = \"64 MiB\"",
        "tmpfs = \"1 MiB\", volume = \"data\"",
        &["one of `tmpfs`, `volume` and `overlay`"],
    );
    check(
        "[volumes.data]",
        "[volumes.web]",
        &["of a container and of a volume", "no [volumes.data]", "sorted by name and unique"],
    );
    check("title = \"Shop\"", "title = \"\"", &["a name has 1 to 100 characters"]);
}

#[test]
fn a_path_behind_a_link_is_left_to_the_node() {
    let flist = small_flist();
    assert_eq!(entry(&flist, "/lib/x"), Found::BehindLink);
    assert_eq!(entry(&flist, "/bin/server"), Found::File);
    assert_eq!(entry(&flist, "/bin/server/x"), Found::Nothing);
    assert_eq!(entry(&flist, "/data"), Found::Directory);
    assert_eq!(entry(&flist, "/nope"), Found::Nothing);
}

#[test]
fn a_plan_that_fits_the_grid_has_no_findings() {
    assert_eq!(findings(&Example::full().plan(), &world(), now()), []);
    assert_eq!(findings(&Example::two_nodes().plan(), &world(), now()), []);
}

#[test]
fn what_a_node_would_refuse_is_found_before_anybody_signs() {
    let check = |change: &dyn Fn(&mut World), severity, wanted: &str| {
        let mut world = world();
        change(&mut world);
        let found = findings(&Example::two_nodes().plan(), &world, now());
        let hit = found.iter().find(|finding| finding.text.contains(wanted));
        assert_eq!(hit.map(|finding| finding.severity), Some(severity), "{wanted}: {found:?}");
    };
    let with_pool = |change: &dyn Fn(&mut Pool), signer: u8| {
        let mut body = pool().body;
        change(&mut body);
        Signed::open(&Envelope::seal(&body, &[&key(signer)]).unwrap()).ok()
    };
    let facts = |world: &mut World, change: &dyn Fn(&mut NodeFacts)| {
        change(world.nodes.get_mut(&node(9)).unwrap());
    };
    let refusal = Severity::Refusal;
    check(&|world| world.pool = None, refusal, "knows no pool");
    check(&|world| world.pool = with_pool(&|_| {}, 6), refusal, "not signed by the farm");
    check(
        &|world| world.pool = with_pool(&|pool| pool.owner = pool.farm, 5),
        refusal,
        "not to the owner",
    );
    check(&|world| world.pool = with_pool(&|pool| pool.expires = now(), 5), refusal, "expired");
    check(
        &|world| {
            world.pool = with_pool(
                &|pool| {
                    pool.nodes.pop();
                },
                5,
            );
        },
        refusal,
        "does not name this node",
    );
    check(
        &|world| world.pool = with_pool(&|pool| pool.amounts.cu_seconds -= 1, 5),
        refusal,
        "240 CU-hours and 0 SU-hours; it grants 239",
    );
    check(
        &|world| world.pool = with_pool(&|pool| pool.expires = now().plus(100), 5),
        Severity::Warning,
        "before the contract",
    );
    check(&|world| world.nodes.clear(), refusal, "no such node");
    check(&|world| facts(world, &|node| node.adopted = false), refusal, "not adopted");
    check(
        &|world| facts(world, &|node| node.farm = identity(6).0.id),
        refusal,
        "not granted by its farm",
    );
    check(
        &|world| facts(world, &|node| node.free = Some(Capacity::default())),
        refusal,
        "memory: 1 GiB needed, 0 B free",
    );
    check(
        &|world| facts(world, &|node| node.online = false),
        Severity::Warning,
        "no signs of life",
    );
    check(
        &|world| facts(world, &|node| node.degraded = vec!["hot".into()]),
        Severity::Warning,
        "hot",
    );
}

#[test]
fn an_update_may_use_what_the_version_before_it_takes() {
    let plan = Example::two_nodes().plan();
    let mut world = world();
    for facts in world.nodes.values_mut() {
        facts.free = Some(Capacity::default());
    }
    assert_eq!(findings(&plan, &world, now()).len(), 2);
    world.taken = plan.documents.iter().map(|one| (one.node, one.demand())).collect();
    assert_eq!(findings(&plan, &world, now()), []);
}

#[test]
fn a_plan_file_comes_back_and_cannot_be_changed() {
    let mut sealed = file::Sealed::unsigned(Example::two_nodes().plan());
    sealed.envelope.sign(&key(1)).unwrap();
    let bytes = sealed.to_bytes();
    assert_eq!(file::Sealed::read(&bytes).unwrap(), sealed);
    let mut other = sealed.clone();
    other.plan.document_bytes.swap(0, 1);
    assert!(matches!(file::Sealed::read(&other.to_bytes()), Err(file::PlanFileError::Root)));
    let text = String::from_utf8(bytes).unwrap();
    let newer = text.replace("\"format\": 1", "\"format\": 2");
    assert!(matches!(file::Sealed::read(newer.as_bytes()), Err(file::PlanFileError::Format(2))));
    assert!(file::Sealed::read(b"{}").is_err());
}

#[test]
fn a_job_and_limits_of_disks_are_written_and_shown_as_they_were_meant() {
    let mut example = Example::full();
    let words =
        "restart = \"never\"\ndisk = { read = \"10 MiB\", write = \"1 MiB\", write_ops = 50 }";
    example.text = example.text.replacen("pids = 99", &format!("pids = 99\n{words}"), 1);
    let plan = example.plan();
    let container = plan.documents[0].containers().next().unwrap();
    assert_eq!(container.restart, Restart::Never);
    let text = String::from_utf8(plan.document_bytes[0].clone()).unwrap();
    let wanted = "\"restart\":\"never\",\"disk\":{\"read_bytes_s\":10485760,\"write_bytes_s\":1048576,\"write_ops_s\":50}}";
    assert!(text.contains(wanted), "{text}");
    let shown = crate::text::version(&plan.header, &plan.documents, &example.people).join("\n");
    assert!(shown.contains("a job: started once, and not again, however it ends"), "{shown}");
    let limits = "on each disk, in a second, at most: reads 10 MiB, writes 1 MiB, writes 50 times";
    assert!(shown.contains(limits), "{shown}");
}
