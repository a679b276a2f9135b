//! Rows of configurations and what is decided about them.

use super::*;
use crate::oci::config::parse;
use serde_json::{Value, json};

/// The control of every row: a configuration that is taken.
fn good() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "c1",
        "process": {
            "user": { "uid": 5, "gid": 6, "additionalGids": [7] },
            "args": ["sh", "-c", "true"],
            "env": ["A=1"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": ["CAP_KILL", "CAP_CHOWN"],
                "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"],
                "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 18_446_744_073_709_551_615_u64 }]
        },
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "uts" }, { "type": "ipc" },
                { "type": "network", "path": "/run/netns/x" }
            ],
            "cgroupsPath": "/machine/c1",
            "sysctl": { "kernel.msgmax": "1024", "kernel.shmmax": "4096" },
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"]
        }
    })
}

fn planned(config: &Value) -> Result<Plan, Invalid> {
    planned_with(config, Reach::Container)
}

fn planned_with(config: &Value, reach: Reach) -> Result<Plan, Invalid> {
    let config = parse(config.to_string().as_bytes()).expect("it can be read");
    plan("c1", Path::new("/bundle"), config, reach)
}

/// `good` with `value` at a path like `linux/sysctl`.
fn with(path: &str, value: Value) -> Value {
    let mut config = good();
    let path = format!("/{path}");
    let (parent, name) = path.rsplit_once('/').unwrap();
    let parent = config.pointer_mut(parent).expect("the parent is there");
    parent[name] = value;
    config
}

#[test]
fn a_configuration_becomes_a_plan() {
    let plan = planned(&good()).unwrap();
    assert_eq!(plan.rootfs, Path::new("/bundle/rootfs"));
    assert!(plan.root_is_read_only);
    assert_eq!(plan.namespaces, clone::NEWPID | clone::NEWNS | clone::NEWUTS | clone::NEWIPC);
    assert_eq!(plan.joined, [(Kind::Network, PathBuf::from("/run/netns/x"))]);
    assert_eq!((plan.uid, plan.gid, plan.groups.as_slice()), (5, 6, &[7][..]));
    assert_eq!(plan.args, ["sh", "-c", "true"]);
    assert_eq!(plan.capabilities.bounding, CapabilitySet::KILL | CapabilitySet::CHOWN);
    assert_eq!(plan.capabilities.ambient, CapabilitySet::KILL);
    assert_eq!(plan.privileges, Privileges::NeverMore);
    assert_eq!(plan.limits, [(Resource::Nofile, Some(10), None)]);
    assert_eq!(plan.cgroup, "machine/c1");
    assert_eq!(plan.umask, 0o022);
    let settings: Vec<_> = plan.settings.iter().map(|(file, _)| file.to_str().unwrap()).collect();
    assert_eq!(settings, ["/proc/sys/kernel/msgmax", "/proc/sys/kernel/shmmax"]);
    assert_eq!(plan.masked, [c"proc/kcore".to_owned()]);
}

#[test]
fn ids_are_mapped_as_asked() {
    let mut config = with("linux/namespaces", json!([{ "type": "mount" }, { "type": "user" }]));
    config["hostname"] = Value::Null;
    config["linux"]["sysctl"] = Value::Null;
    config["linux"]["uidMappings"] = json!([
        { "containerID": 0, "hostID": 1000, "size": 1 },
        { "containerID": 1, "hostID": 5000, "size": 10 }
    ]);
    config["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": 2000, "size": 9 }]);
    let plan = planned(&config).unwrap();
    let maps = plan.maps.unwrap();
    assert_eq!((maps.uid.as_str(), maps.gid.as_str()), ("0 1000 1\n1 5000 10\n", "0 2000 9\n"));
    assert_eq!(plan.owner, (1000, 2000));
    // What needs a user namespace has one.
    for (capability, taken) in [("CAP_SYS_PTRACE", true), ("CAP_SYS_ADMIN", false)] {
        config["process"]["capabilities"] = json!({ "bounding": [capability] });
        assert_eq!(planned(&config).is_ok(), taken, "{capability}");
    }
    config["process"]["capabilities"] = Value::Null;
    for bad in [
        json!([]),
        json!([{ "containerID": 1, "hostID": 1000, "size": 1 }]),
        json!([{ "containerID": 0, "hostID": 1000, "size": 0 }]),
        json!([{ "containerID": 0, "hostID": u32::MAX, "size": 2 }]),
    ] {
        config["linux"]["uidMappings"] = bad.clone();
        assert!(planned(&config).is_err(), "{bad}");
    }
}

#[test]
fn what_is_not_done_is_refused_and_named() {
    let rows = [
        ("root", Value::Null, "root"),
        ("root/path", json!(""), "root.path"),
        ("process", Value::Null, "process"),
        ("process/args", json!([]), "process.args"),
        ("process/args", json!(["a\0b"]), "process"),
        ("process/cwd", json!("tmp"), "process.cwd"),
        // Without a devpts.
        ("process/terminal", json!(true), "process.terminal"),
        ("process/apparmorProfile", json!("x"), "process.apparmorProfile"),
        ("process/oomScoreAdj", json!(2000), "process.oomScoreAdj"),
        ("process/capabilities/bounding", json!(["CAP_SYS_ADMIN"]), "process.capabilities"),
        ("process/capabilities/bounding", json!(["CAP_SYS_PTRACE"]), "process.capabilities"),
        ("process/capabilities/bounding", json!(["CAP_DAC_READ_SEARCH"]), "process.capabilities"),
        ("process/capabilities/bounding", json!(["CAP_NONSENSE"]), "process.capabilities"),
        ("process/capabilities/effective", json!(["CAP_CHOWN"]), "process.capabilities"),
        (
            "process/rlimits",
            json!([{ "type": "RLIMIT_X", "soft": 1, "hard": 1 }]),
            "process.rlimits",
        ),
        (
            "process/rlimits",
            json!([{ "type": "RLIMIT_CPU", "soft": 2, "hard": 1 }]),
            "process.rlimits",
        ),
        (
            "process/rlimits",
            json!([{ "type": "RLIMIT_CPU", "soft": 1, "hard": 1 }, { "type": "RLIMIT_CPU", "soft": 1, "hard": 1 }]),
            "process.rlimits",
        ),
        ("hooks", json!({ "poststop": [{ "path": "bin/x" }] }), "hooks.poststop"),
        ("hostname", json!("a b"), "hostname"),
        ("vm", json!({ "kernel": {} }), "vm"),
        ("linux/seccomp", json!({ "defaultAction": "SCMP_ACT_NOTIFY" }), "linux.seccomp"),
        ("linux/rootfsPropagation", json!("public"), "linux.rootfsPropagation"),
        ("linux/namespaces", json!([]), "linux.namespaces"),
        ("linux/namespaces", json!([{ "type": "mount", "path": "/x" }]), "linux.namespaces"),
        ("linux/namespaces", json!([{ "type": "mount" }, { "type": "mount" }]), "linux.namespaces"),
        ("linux/namespaces", json!([{ "type": "mount" }, { "type": "time" }]), "linux.namespaces"),
        ("linux/namespaces", json!([{ "type": "mount" }]), "linux.sysctl"),
        (
            "linux/uidMappings",
            json!([{ "containerID": 0, "hostID": 1, "size": 1 }]),
            "linux.uidMappings",
        ),
        ("linux/sysctl", json!({ "kernel.panic": "1" }), "linux.sysctl"),
        ("linux/sysctl", json!({ "net/../kernel/panic": "1" }), "linux.sysctl"),
        ("linux/maskedPaths", json!(["proc"]), "linux.maskedPaths"),
        ("linux/readonlyPaths", json!(["/"]), "linux.readonlyPaths"),
        ("linux/cgroupsPath", json!("a.slice:b:c"), "linux.cgroupsPath"),
        ("linux/cgroupsPath", json!("../x"), "linux.cgroupsPath"),
        ("linux/cgroupsPath", json!("/"), "linux.cgroupsPath"),
        (
            "linux/devices",
            json!([{ "path": "/dev/null", "type": "c", "major": 8, "minor": 0 }]),
            "linux.devices",
        ),
        (
            "linux/resources",
            json!({ "devices": [{ "allow": true, "access": "rwm" }] }),
            "linux.resources.devices",
        ),
        (
            "linux/resources",
            json!({ "devices": [{ "allow": true, "type": "c", "access": "rw" }] }),
            "linux.resources.devices",
        ),
        (
            "mounts",
            json!([{ "destination": "/x", "type": "ext4", "source": "/dev/sda" }]),
            "mounts",
        ),
    ];
    assert!(planned(&good()).is_ok(), "the control");
    for (path, value, what) in rows {
        match planned(&with(path, value.clone())) {
            Err(error) => assert!(error.0.starts_with(what), "{path} {value}: {error}"),
            Ok(_) => panic!("{path} {value} was taken"),
        }
    }
}

#[test]
fn what_changes_nothing_is_taken() {
    for (path, value) in [
        ("hooks", json!({ "poststop": [] })),
        ("process/capabilities", Value::Null),
        ("process/apparmorProfile", json!("")),
        ("linux/seccomp", Value::Null),
        ("linux/rootfsPropagation", json!("rprivate")),
        ("linux/rootfsPropagation", json!("shared")),
        ("linux/cgroupsPath", json!("")),
        ("linux/devices", json!([{ "path": "/dev/null", "type": "c", "major": 1, "minor": 3 }])),
        ("process/capabilities", json!({ "bounding": ["CAP_MKNOD"] })),
        (
            "linux/resources",
            json!({ "devices": [
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" },
            { "allow": true, "type": "c", "access": "m" }
        ] }),
        ),
    ] {
        assert!(planned(&with(path, value.clone())).is_ok(), "{path} {value}");
    }
}

#[test]
fn capabilities_reach_beyond_the_container_only_when_the_caller_says_so() {
    for names in [json!(["CAP_SYS_ADMIN"]), json!(["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"])] {
        let config = with("process/capabilities", json!({ "bounding": names, "permitted": names }));
        assert!(planned_with(&config, Reach::Container).is_err(), "{names}");
        let plan = planned_with(&config, Reach::Machine).unwrap();
        assert!(!plan.capabilities.bounding.is_empty(), "{names}");
    }
}

/// The user saw a mask of the container lie over a directory of the machine.
#[test]
fn nothing_is_mounted_over_what_is_shared_with_the_machine() {
    let bind = |place: &str, option: &str| json!({ "destination": place, "type": "bind", "source": "/srv", "options": ["rbind", option] });
    let tmpfs = |place: &str| json!({ "destination": place, "type": "tmpfs" });
    for (mounts, masked, good) in [
        (json!([bind("/data", "rshared"), tmpfs("/database")]), "/data2", true),
        (json!([bind("/data", "rslave"), tmpfs("/data/cache")]), "/data/secret", true),
        (json!([bind("/data", "shared"), tmpfs("/data/cache")]), "/x", false),
        (json!([tmpfs("/data"), bind("/data", "shared")]), "/x", false),
        (json!([bind("/data", "rshared")]), "/data/secret", false),
        (json!([bind("/data", "rshared")]), "/data", false),
    ] {
        let mut config = with("linux/maskedPaths", json!([masked]));
        config["mounts"] = mounts;
        assert_eq!(planned(&config).is_ok(), good, "{config}");
    }
}

/// Whether the kernel has labels is found out where the container is made.
#[test]
fn labels_of_selinux_are_known_by_their_name() {
    assert_eq!(planned(&good()).unwrap().label, None);
    for (path, what) in
        [("linux/mountLabel", "linux.mountLabel"), ("process/selinuxLabel", "process.selinuxLabel")]
    {
        assert_eq!(planned(&with(path, json!("x"))).unwrap().label, Some(what));
    }
}

#[test]
fn ids_name_one_directory() {
    for (id, want) in [
        ("a", true),
        ("A_b+c-d.9", true),
        ("", false),
        (".", false),
        ("..", false),
        ("a/b", false),
        ("a b", false),
        ("é", false),
    ] {
        assert_eq!(check_id(id).is_ok(), want, "{id:?}");
    }
    assert!(check_id(&"a".repeat(256)).is_err());
}

/// `/proc/1/ns/net` is a namespace that can be joined as well.
#[test]
fn what_is_of_a_namespace_is_changed_only_in_a_new_one() {
    let mut config = good();
    config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    config["process"]["capabilities"] = json!({ "bounding": ["CAP_NET_ADMIN"] });
    let namespaces = |network: Value| json!([{ "type": "mount" }, network]);
    config["hostname"] = Value::Null;
    config["linux"]["namespaces"] = namespaces(json!({ "type": "network" }));
    assert!(planned(&config).is_ok());
    let joined = json!({ "type": "network", "path": "/proc/1/ns/net" });
    config["linux"]["namespaces"] = namespaces(joined);
    assert!(planned(&config).is_err());
    config["linux"]["sysctl"] = Value::Null;
    assert!(planned(&config).is_err(), "the capability is too much by itself");
    config["process"]["capabilities"] = Value::Null;
    assert!(planned(&config).is_ok());
}
