//! The program is run, instruction by instruction, as the kernel would.

use super::*;
use serde_json::{Value, json};

/// What the program answers about a device: kind, numbers, what is asked for.
fn ask(program: &[[u8; 8]], kind: u32, major: u32, minor: u32, access: u8) -> u64 {
    let context = [u32::from(access) << 16 | kind, major, minor];
    let mut registers = [0_u64; 11];
    let mut at = 0_usize;
    // Jumps only lead on.
    for _ in 0..program.len() {
        let [code, both, o0, o1, v0, v1, v2, v3] = program[at];
        let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
        let offset = usize::try_from(i16::from_ne_bytes([o0, o1])).unwrap();
        let value = u64::try_from(i32::from_ne_bytes([v0, v1, v2, v3])).unwrap();
        at += 1;
        match code {
            LOAD_WORD => registers[to] = u64::from(context[offset / 4]),
            SET => registers[to] = value,
            COPY => registers[to] = registers[from],
            AND => registers[to] &= value,
            SHIFT_RIGHT => registers[to] >>= value,
            JUMP_IF_EQUAL => at += if registers[to] == value { offset } else { 0 },
            JUMP_UNLESS_EQUAL => at += if registers[to] == value { 0 } else { offset },
            EXIT => return registers[0],
            _ => panic!("{code:#x} is no operation"),
        }
    }
    panic!("no end")
}

fn compiled(rules: Value) -> Result<Vec<[u8; 8]>, Invalid> {
    let rules: Vec<DeviceRule> = serde_json::from_value(rules).unwrap();
    program(&rules, Reach::Machine)
}

const B: u32 = 1;
const C: u32 = 2;

#[test]
fn what_no_rule_allows_is_denied_but_for_what_every_container_has() {
    let deny = json!({ "allow": false, "access": "rwm" });
    for rules in [json!([]), json!([deny])] {
        let program = compiled(rules).unwrap();
        for (kind, major, minor, want) in [
            (C, 1, 3, 1),
            (C, 5, 0, 1),
            (C, 5, 2, 1),
            (C, 136, 7, 1),
            (B, 1, 3, 0),
            (C, 1, 1, 0),
            (C, 5, 1, 0),
            (B, 8, 0, 0),
            (C, 10, 200, 0),
        ] {
            for access in [READ, WRITE, MKNOD, READ | WRITE] {
                assert_eq!(
                    ask(&program, kind, major, minor, access),
                    want,
                    "{kind} {major}:{minor}"
                );
            }
        }
    }
}

/// The user saw `Invalid argument` for what every engine asks for: the kernel's verifier refuses what
/// stands behind a rule that is about everything.
#[test]
fn nothing_stands_behind_a_rule_about_everything() {
    let everything = json!({ "allow": false, "access": "rwm" });
    let earlier = json!({ "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm" });
    let one = compiled(json!([everything])).unwrap();
    assert_eq!(compiled(json!([earlier, everything])).unwrap(), one);
    assert_eq!(compiled(json!([everything, everything])).unwrap(), one);
    assert!(compiled(json!([everything, earlier])).unwrap().len() > one.len());
}

#[test]
fn the_last_rule_about_a_device_counts() {
    let program = compiled(json!([
        { "allow": false },
        { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" },
        { "allow": true, "type": "b", "major": 8, "access": "r" },
        { "allow": false, "type": "b", "major": 8, "minor": 1, "access": "w" },
        { "allow": true, "type": "c", "access": "m" },
        { "allow": false, "type": "c", "major": 10, "minor": 5, "access": "rwm" }
    ]))
    .unwrap();
    for (kind, major, minor, access, want) in [
        (C, 10, 229, READ | WRITE, 1),
        (C, 10, 229, READ, 1),
        // Made by one rule and opened by another, but never both at once.
        (C, 10, 229, MKNOD, 1),
        (C, 10, 229, READ | MKNOD, 0),
        (C, 10, 228, READ, 0),
        (B, 10, 229, READ, 0),
        (B, 8, 9, READ, 1),
        (B, 8, 9, READ | WRITE, 0),
        (B, 8, 1, READ, 1),
        (B, 8, 1, READ | WRITE, 0),
        (C, 8, 9, READ, 0),
        (C, 99, 9, MKNOD, 1),
        (C, 10, 5, MKNOD, 0),
        (C, 1, 3, READ | WRITE, 1),
    ] {
        assert_eq!(
            ask(&program, kind, major, minor, access),
            want,
            "{kind} {major}:{minor} {access}"
        );
    }
}

#[test]
fn rules_that_allow_kinds_of_devices_or_make_no_sense_are_refused() {
    let one = json!({ "allow": true, "type": "b", "major": 8, "minor": 0, "access": "rwm" });
    assert!(compiled(json!([one])).is_ok(), "the control");
    for rule in [
        json!({ "allow": true }),
        json!({ "allow": true, "type": "a", "access": "rwm" }),
        json!({ "allow": true, "type": "a", "major": 8, "minor": 0 }),
        json!({ "allow": true, "type": "c" }),
        json!({ "allow": true, "type": "b", "major": -1, "minor": 0, "access": "r" }),
        json!({ "allow": true, "type": "x", "major": 1, "minor": 1 }),
        json!({ "allow": true, "type": "c", "major": 1, "minor": 1, "access": "x" }),
        json!({ "allow": false, "type": "c", "major": 1_i64 << 40 }),
    ] {
        assert!(compiled(json!([rule])).is_err(), "{rule}");
    }
    let many = vec![json!({ "allow": false }); RULES_MAX];
    assert!(compiled(Value::from(many.clone())).unwrap().len() < 4096);
    assert!(compiled(Value::from([many, vec![json!({ "allow": false })]].concat())).is_err());
}

/// The user saw such a rule taken and the device used all the same.
#[test]
fn what_every_container_may_use_is_not_denied() {
    for (rule, good) in [
        (json!({ "allow": false, "type": "c", "major": 1, "minor": 3, "access": "w" }), false),
        (json!({ "allow": false, "major": 1, "access": "rwm" }), false),
        (json!({ "allow": false, "type": "c", "major": 136, "minor": 1 }), false),
        (json!({ "allow": false, "type": "c", "major": 5, "minor": 2 }), false),
        (json!({ "allow": false, "type": "c", "major": 5, "minor": 1 }), true),
        (json!({ "allow": false, "type": "b", "major": 1, "minor": 3 }), true),
        (json!({ "allow": false, "type": "c" }), true),
        (json!({ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" }), true),
    ] {
        assert_eq!(compiled(json!([rule])).is_ok(), good, "{rule}");
    }
}

#[test]
fn whoever_calls_says_that_disks_may_be_used_and_not_the_bundle() {
    for (rule, is_near) in [
        (json!({ "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" }), true),
        (json!({ "allow": true, "type": "c", "major": 136, "access": "rwm" }), true),
        (json!({ "allow": true, "type": "b", "access": "m" }), true),
        (json!({ "allow": false, "type": "b", "major": 8 }), true),
        (json!({ "allow": true, "type": "b", "major": 8, "minor": 0, "access": "r" }), false),
        (json!({ "allow": true, "type": "b", "major": 8, "access": "w" }), false),
        (json!({ "allow": true, "type": "c", "major": 10, "access": "rw" }), false),
        (json!({ "allow": true, "type": "c", "major": 5, "access": "rw" }), false),
    ] {
        let rules: Vec<DeviceRule> = serde_json::from_value(json!([rule])).unwrap();
        assert_eq!(program(&rules, Reach::Container).is_ok(), is_near, "{rule}");
        assert!(program(&rules, Reach::Machine).is_ok(), "{rule}");
    }
}

#[test]
fn nodes_are_made_below_dev_for_their_owner_outside() {
    let planned = |device: Value, mapped: bool| {
        let ids = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
        let ids = if mapped { ids } else { Value::Null };
        let linux = json!({ "devices": [device], "uidMappings": ids, "gidMappings": ids });
        nodes(&serde_json::from_value(linux).unwrap())
    };
    let fuse = json!({ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3 });
    let mut want = Node {
        path: c"fuse".into(),
        kind: FileType::CharacterDevice,
        major: 10,
        minor: 229,
        mode: 0o640,
        owner: (3, 0),
    };
    assert_eq!(planned(fuse.clone(), false).unwrap()[0], want);
    // One that every container has can have another mode and owner too.
    let null = json!({ "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 3 });
    let null = &planned(null, true).unwrap()[0];
    assert_eq!((null.path.as_c_str(), null.mode, null.owner), (c"null", 0o600, (1003, 1000)));
    want.owner = (1003, 1000);
    assert_eq!(planned(fuse, true).unwrap()[0], want);
    for (path, kind, numbers, more, good) in [
        ("/dev/net/tun", "c", (10, 200), json!(0), true),
        ("/dev/pipe", "p", (0, 0), json!(0), true),
        ("/dev/null", "c", (1, 3), json!(0), true),
        ("/dev/null", "c", (1, 5), json!(0), false),
        ("/dev/null", "b", (1, 3), json!(0), false),
        ("/dev/x", "c", (4095, 1_048_575), json!(0), true),
        ("/dev/x", "c", (4096, 5), json!(0), false),
        ("/dev/x", "c", (1, 1_048_576), json!(0), false),
        ("/dev/pts/0", "c", (136, 0), json!(0), false),
        ("/dev/.zos/x", "c", (1, 5), json!(0), false),
        ("/dev/../x", "c", (1, 5), json!(0), false),
        ("/dev", "c", (1, 5), json!(0), false),
        ("/etc/x", "c", (1, 5), json!(0), false),
        ("/dev/x", "d", (1, 5), json!(0), false),
        ("/dev/x", "c", (-1, 5), json!(0), false),
        ("/dev/x", "c", (1, 5), json!(10), false),
    ] {
        let device = json!({ "path": path, "type": kind, "major": numbers.0, "minor": numbers.1, "uid": more });
        assert_eq!(planned(device, true).is_ok(), good, "{path} {kind} {numbers:?}");
    }
}
