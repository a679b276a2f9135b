//! Profiles and what the kernel answers under them.

use super::*;
use crate::bpf_tests::{call, interpret};
use proptest::prelude::*;
use serde_json::{Value, json};

const X86_64: u32 = 0xc000_003e;
const EPERM: u32 = 0x0005_0001;
const ALLOW: u32 = 0x7fff_0000;

fn decided(profile: &Value) -> Result<Decided, Invalid> {
    let profile: Seccomp = serde_json::from_value(profile.clone()).expect("it is one");
    decide(&profile, Privileges::NeverMore)
}

/// The bytes of a profile's program.
fn program(profile: &Value) -> Vec<u8> {
    decided(profile).expect("it is taken");
    let profile: Seccomp = serde_json::from_value(profile.clone()).expect("it is one");
    let default = action("", &profile.default_action, profile.default_errno_ret).unwrap();
    let (rules, _) = rules(profile.syscalls.as_deref().unwrap_or_default(), default).unwrap();
    bpf::assemble(&rules, default)
}

fn number(name: &str) -> u32 {
    numbers()[name]
}

/// All is refused but what the process needs to begin, and `more`.
fn closed(more: &Value) -> Value {
    let start = json!([{ "names": CALLS_OF_START, "action": "SCMP_ACT_ALLOW" }]);
    let all = start.as_array().unwrap().iter().chain(more.as_array().unwrap());
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": all.collect::<Vec<_>>() })
}

#[test]
fn every_action_is_answered_for_its_calls_and_the_default_for_all_others() {
    let rows = [
        ("getcwd", "SCMP_ACT_ALLOW", None, ALLOW),
        ("getpid", "SCMP_ACT_ERRNO", Some(38), 0x0005_0026),
        ("getppid", "SCMP_ACT_ERRNO", None, EPERM),
        ("chmod", "SCMP_ACT_KILL", None, 0),
        ("fchmod", "SCMP_ACT_KILL_THREAD", None, 0),
        ("chown", "SCMP_ACT_KILL_PROCESS", None, 0x8000_0000),
        ("fchown", "SCMP_ACT_TRAP", None, 0x0003_0000),
        ("lchown", "SCMP_ACT_TRACE", Some(7), 0x7ff0_0007),
        ("umask", "SCMP_ACT_LOG", None, 0x7ffc_0000),
    ];
    let syscalls: Vec<Value> = rows
        .iter()
        .map(|(name, action, errno, _)| {
            json!({ "names": [name], "action": action, "errnoRet": errno })
        })
        .collect();
    let mut profile = closed(&json!(syscalls));
    profile["defaultErrnoRet"] = json!(13);
    let program = program(&profile);
    for (name, action, _, want) in rows {
        let answer = interpret(&program, &call(X86_64, number(name), &[]));
        assert_eq!(answer, want, "{name} {action}");
    }
    let named: Vec<u32> = rows.iter().map(|row| row.0).chain(CALLS_OF_START).map(number).collect();
    for other in (0..600).chain([0x3fff_ffff]).filter(|number| !named.contains(number)) {
        assert_eq!(interpret(&program, &call(X86_64, other, &[])), 0x0005_000d, "{other}");
    }
    // Calls by the numbers of x32 and i386.
    for (arch, number) in [(X86_64, 0x4000_0000), (X86_64, u32::MAX), (0x4000_0003, 20)] {
        assert_eq!(interpret(&program, &call(arch, number, &[])), 0x8000_0000, "{number:x}");
    }
}

#[test]
fn a_list_of_all_calls_fits() {
    let names: Vec<&str> = numbers().into_keys().collect();
    let args = json!([{ "index": 1, "value": 1_u64 << 40, "op": "SCMP_CMP_NE" }]);
    for (names, args) in [(names.clone(), Value::Null), (names[..300].to_vec(), args)] {
        let others: Vec<&str> =
            names.into_iter().filter(|name| !CALLS_OF_START.contains(name)).collect();
        let more = json!([{ "names": others, "action": "SCMP_ACT_ALLOW", "args": args }]);
        let program = program(&closed(&more));
        for name in others {
            assert_eq!(interpret(&program, &call(X86_64, number(name), &[])), ALLOW, "{name}");
        }
        assert_eq!(interpret(&program, &call(X86_64, 336, &[])), EPERM);
    }
}

fn arguments() -> impl Strategy<Value = u64> {
    // Near each other, in both halves, so that comparisons go both ways.
    let near = prop_oneof![Just(0), Just(1), Just(2), Just(u64::from(u32::MAX))];
    prop_oneof![
        (near.clone(), near).prop_map(|(high, low)| high << 32 | low),
        Just(u64::MAX),
        any::<u64>()
    ]
}

fn tests() -> impl Strategy<Value = Test> {
    (0..7, arguments(), arguments()).prop_map(|(kind, value, other)| match kind {
        0 => Test::Equal(value),
        1 => Test::NotEqual(value),
        2 => Test::Below(value),
        3 => Test::AtMost(value),
        4 => Test::AtLeast(value),
        5 => Test::Above(value),
        _ => Test::Masked { mask: other, value: value & other },
    })
}

fn some_rules() -> impl Strategy<Value = Vec<Rule>> {
    let actions = prop_oneof![Just(Action::ALLOW), Just(Action::TRAP), Just(Action::errno(7))];
    let conditions = proptest::collection::btree_map(0_u32..6, tests(), 0..6);
    let rule = (conditions, actions).prop_map(|(conditions, action)| Rule {
        conditions: conditions
            .into_iter()
            .map(|(argument, test)| Condition { argument, test })
            .collect(),
        action,
    });
    proptest::collection::vec(rule, 1..6)
}

proptest! {
    /// The program says what the rules say, and no two of them say different things.
    #[test]
    fn a_program_means_its_rules(
        calls in proptest::collection::btree_map(0_u32..40, some_rules(), 0..12),
        number in 0_u32..41,
        given in proptest::collection::vec(arguments(), 6),
    ) {
        let mut rules = Rules::new();
        for (number, all) in &calls {
            for rule in all {
                // One that contradicts another is refused and left out.
                add("x", rules.entry(*number).or_default(), rule).ok();
            }
        }
        let default = Action::errno(1);
        let program = bpf::assemble(&rules, default);
        prop_assert!(Program::from_bytes(&program).is_some());
        let matches = |rule: &&Rule| {
            let holds = |one: &Condition| holds(one.test, given[one.argument as usize]);
            rule.conditions.iter().all(holds)
        };
        let mut answers: Vec<u32> = rules
            .get(&number)
            .into_iter()
            .flatten()
            .filter(matches)
            .map(|rule| rule.action.value())
            .collect();
        answers.dedup();
        prop_assert!(answers.len() < 2, "{answers:x?}");
        let want = answers.first().copied().unwrap_or(default.value());
        prop_assert_eq!(interpret(&program, &call(X86_64, number, &given)), want);
    }
}

/// As seccomp(2) and libseccomp define the operators.
fn holds(test: Test, argument: u64) -> bool {
    match test {
        Test::Equal(value) => argument == value,
        Test::NotEqual(value) => argument != value,
        Test::Below(value) => argument < value,
        Test::AtMost(value) => argument <= value,
        Test::AtLeast(value) => argument >= value,
        Test::Above(value) => argument > value,
        Test::Masked { mask, value } => argument & mask == value,
    }
}

#[test]
fn the_profiles_of_engines_are_taken() {
    // Sockets for audit are refused with another number than what is not named; clone makes no
    // namespaces; names of other architectures.
    let arg =
        |index: u32, value: u64, op: &str| json!({ "index": index, "value": value, "op": op });
    let masked = json!([{ "index": 0, "value": 2_114_060_288_u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }]);
    let netlink_audit = json!([arg(0, 16, "SCMP_CMP_EQ"), arg(2, 9, "SCMP_CMP_EQ")]);
    let allow =
        |args: Value| json!({ "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": args });
    let mut profile = closed(&json!([
        { "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22, "args": netlink_audit },
        allow(json!([arg(2, 9, "SCMP_CMP_NE")])),
        allow(json!([arg(0, 16, "SCMP_CMP_NE")])),
        { "names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": masked },
        { "names": ["getcwd", "chown32", "_llseek", "getcwd"], "action": "SCMP_ACT_ALLOW" },
    ]));
    profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    profile["flags"] = json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]);
    assert_eq!(decided(&profile).unwrap().skipped, ["_llseek", "chown32"]);
    let program = program(&profile);
    for (name, arguments, want) in [
        ("socket", &[16, 3, 9][..], 0x0005_0016),
        ("socket", &[16, 3, 0], ALLOW),
        ("socket", &[2, 1, 9], ALLOW),
        ("clone", &[17], ALLOW),
        ("clone", &[0x1000_0011], EPERM),
        ("getcwd", &[], ALLOW),
        ("chown", &[], EPERM),
    ] {
        let answer = interpret(&program, &call(X86_64, number(name), arguments));
        assert_eq!(answer, want, "{name} {arguments:?}");
    }
}

#[test]
fn what_cannot_be_kept_is_refused_and_named() {
    let allowed = |name: &str| json!({ "names": [name], "action": "SCMP_ACT_ALLOW" });
    let with = |name: &str, value: Value| {
        let mut profile = closed(&json!([allowed("getcwd")]));
        profile[name] = value;
        profile
    };
    // The control of every row.
    assert!(decided(&with("flags", json!([]))).is_ok());
    let entry = |entry: Value| closed(&json!([entry]));
    let args =
        |args: Value| entry(json!({ "names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": args }));
    let open = |names: Value| json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": names, "action": "SCMP_ACT_ERRNO" }] });
    assert!(decided(&open(json!(["chmod"]))).is_ok());
    let rows = [
        (with("defaultAction", json!("")), "default action"),
        (with("defaultAction", json!("SCMP_ACT_NOTIFY")), "SCMP_ACT_NOTIFY"),
        (with("defaultErrnoRet", json!(4096)), "no error 4096"),
        (with("architectures", json!(["SCMP_ARCH_VAX"])), "architectures"),
        (with("flags", json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])), "flags"),
        (with("listenerMetadata", json!("x")), "listenerMetadata"),
        (entry(json!({ "names": [], "action": "SCMP_ACT_ALLOW" })), "names"),
        (entry(json!({ "action": "SCMP_ACT_ALLOW" })), "names"),
        (entry(json!({ "names": ["kill"] })), "there is no \"\""),
        (
            entry(json!({ "names": ["kill"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1 })),
            "no error number",
        ),
        (
            entry(json!({ "names": ["kill"], "action": "SCMP_ACT_TRACE", "errnoRet": 65_536 })),
            "16 bits",
        ),
        (args(json!([{ "value": 1, "op": "SCMP_CMP_EQ" }])), "index"),
        (args(json!([{ "index": 6, "value": 1, "op": "SCMP_CMP_EQ" }])), "index"),
        (args(json!([{ "index": 0, "op": "SCMP_CMP_EQ" }])), "value"),
        (args(json!([{ "index": 0, "value": 1, "op": "SCMP_CMP_LIKE" }])), "SCMP_CMP_LIKE"),
        (args(json!([{ "index": 0, "value": 1, "valueTwo": 1, "op": "SCMP_CMP_EQ" }])), "valueTwo"),
        (
            args(json!([{ "index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ" }])),
            "valueTwo",
        ),
        (
            args(json!([
                { "index": 0, "value": 1, "op": "SCMP_CMP_GE" },
                { "index": 0, "value": 5, "op": "SCMP_CMP_LE" }
            ])),
            "same argument",
        ),
        (
            closed(&json!([allowed("kill"), { "names": ["kill"], "action": "SCMP_ACT_LOG" }])),
            "different answers",
        ),
        // A name that we do not know could be a call that the kernel has.
        (open(json!(["chmod", "future_call"])), "future_call"),
        (open(json!(["execveat"])), "execveat"),
        (json!({ "defaultAction": "SCMP_ACT_KILL" }), "read"),
    ];
    for (profile, want) in rows {
        let error = decided(&profile).map(|_| ()).expect_err(want).to_string();
        assert!(error.starts_with("linux.seccomp") && error.contains(want), "{want}: {error}");
    }
}

#[test]
fn a_process_that_drops_the_right_to_install_filters_may_do_that() {
    let profile: Seccomp = serde_json::from_value(closed(&json!([]))).unwrap();
    assert!(decide(&profile, Privileges::NeverMore).is_ok());
    let error = decide(&profile, Privileges::ByFile).unwrap_err();
    assert!(error.to_string().contains("capset"), "{error}");
}

#[test]
fn too_many_rules_are_refused() {
    let rule = |value: usize| json!({ "names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }] });
    let many = |n: usize| closed(&json!((0..n).map(rule).collect::<Vec<_>>()));
    assert!(decided(&many(RULES_OF_CALL_MAX)).is_ok());
    assert!(decided(&many(RULES_OF_CALL_MAX + 1)).is_err());
    // Each for itself few, together more than the kernel takes. Neighbours with the same rules are
    // one section, so these have different ones.
    let names = numbers().into_keys().filter(|name| !CALLS_OF_START.contains(name));
    let rule = |(value, name)| json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": value, "op": "SCMP_CMP_MASKED_EQ" }, { "index": 1, "value": value, "op": "SCMP_CMP_LT" }] });
    let more: Vec<Value> = names.enumerate().map(rule).collect();
    let error = decided(&closed(&json!(more))).unwrap_err();
    assert!(error.to_string().contains("longer than the kernel takes"), "{error}");
}

#[test]
fn the_table_of_calls_is_whole() {
    let numbers = numbers();
    assert_eq!(numbers.len(), CALLS.matches('=').count());
    // The list of the node's own filter was written for itself.
    let own = include_str!("../../seccomp.txt").lines().filter_map(|line| line.split('#').next());
    for word in own.flat_map(str::split_whitespace) {
        let (name, number) = word.split_once('=').unwrap();
        assert_eq!(numbers[name].to_string(), number, "{name}");
    }
}
