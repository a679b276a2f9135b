//! Rules about system calls as a program of classic BPF, which the kernel runs before each call.
//!
//! ```text
//! not x86_64, or x32 ─► end the process
//! the number ─► binary search ─► an answer
//!                             └► conditions of one rule after the other ─► its answer, or the default
//! ```
//!
//! Numbers in a row with the same answer are one section of the search. No two rules that differ in
//! the action match the same call, so the order in which they are tried does not matter. Pure.

use std::collections::BTreeMap;

/// `AUDIT_ARCH_X86_64` of linux/audit.h.
const ARCH_X86_64: u32 = 0xc000_003e;
/// Bit of the x32 ABI in a number.
const X32: u32 = 0x4000_0000;
/// Offsets of `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

// BPF_LD | BPF_W | BPF_ABS and so on, of linux/bpf_common.h.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const EQUAL: u16 = 0x15;
const ABOVE: u16 = 0x25;
const AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// What the kernel does with a call: the value that a filter returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Action(u32);

impl Action {
    pub(super) const KILL_PROCESS: Self = Self(0x8000_0000);
    pub(super) const KILL_THREAD: Self = Self(0);
    pub(super) const TRAP: Self = Self(0x0003_0000);
    pub(super) const LOG: Self = Self(0x7ffc_0000);
    pub(super) const ALLOW: Self = Self(0x7fff_0000);

    /// At most 4095 is an error number to the kernel.
    pub(super) fn errno(number: u32) -> Self {
        Self(0x0005_0000 | (number & 0xffff))
    }

    pub(super) fn trace(number: u16) -> Self {
        Self(0x7ff0_0000 | u32::from(number))
    }

    pub(super) fn lets_pass(self) -> bool {
        self == Self::ALLOW || self == Self::LOG
    }

    /// In the order of the kernel.
    pub(super) fn is_stricter_than(self, other: Self) -> bool {
        let rank = |action: Self| (action.0 & 0xffff_0000).cast_signed();
        rank(self) < rank(other)
    }

    #[cfg(test)]
    pub(super) fn value(self) -> u32 {
        self.0
    }
}

/// What an argument is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Equal(u64),
    NotEqual(u64),
    Below(u64),
    AtMost(u64),
    AtLeast(u64),
    Above(u64),
    /// The bits of the argument that are in `mask` are `value`.
    Masked {
        mask: u64,
        value: u64,
    },
}

impl Test {
    fn holds(self, argument: u64) -> bool {
        match self {
            Self::Equal(value) => argument == value,
            Self::NotEqual(value) => argument != value,
            Self::Below(value) => argument < value,
            Self::AtMost(value) => argument <= value,
            Self::AtLeast(value) => argument >= value,
            Self::Above(value) => argument > value,
            Self::Masked { mask, value } => argument & mask == value,
        }
    }

    /// The smallest and the largest argument for which it holds; the first is the larger one when
    /// there is none. `None` for what is no range.
    fn range(self) -> Option<(u64, u64)> {
        match self {
            Self::Equal(value) => Some((value, value)),
            Self::Below(value) => Some(value.checked_sub(1).map_or((1, 0), |last| (0, last))),
            Self::AtMost(value) => Some((0, value)),
            Self::AtLeast(value) => Some((value, u64::MAX)),
            Self::Above(value) => Some(value.checked_add(1).map_or((1, 0), |it| (it, u64::MAX))),
            Self::NotEqual(_) | Self::Masked { .. } => None,
        }
    }

    /// Whether there is surely no argument for which both hold.
    fn excludes(self, other: Self) -> bool {
        match (self, other) {
            (Self::Equal(value), test) | (test, Self::Equal(value)) => !test.holds(value),
            (Self::Masked { mask: m, value: v }, Self::Masked { mask: n, value: w }) => {
                (v ^ w) & m & n != 0
            }
            _ => match (self.range(), other.range()) {
                (Some((a, b)), Some((c, d))) => a.max(c) > b.min(d),
                _ => false,
            },
        }
    }
}

/// A test of one argument, 0 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) argument: u32,
    pub(super) test: Test,
}

/// What is done when all conditions hold, which are about different arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: Action,
}

impl Rule {
    /// Whether no call can match both.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        let differ = |one: &Condition| {
            let same = other.conditions.iter().find(|other| other.argument == one.argument);
            same.is_some_and(|other| one.test.excludes(other.test))
        };
        self.conditions.iter().any(differ)
    }
}

/// By the number of the call.
pub(super) type Rules = BTreeMap<u32, Vec<Rule>>;

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    k: u32,
}

type Code = Vec<Instruction>;

/// The bytes of the program. Its length is for the caller to look at.
pub(super) fn assemble(rules: &Rules, default: Action) -> Vec<u8> {
    let mut code = vec![
        load(ARCH),
        jump(EQUAL, ARCH_X86_64, 1, 0),
        answer(Action::KILL_PROCESS),
        load(NUMBER),
        jump(AT_LEAST, X32, 0, 1),
        answer(Action::KILL_PROCESS),
    ];
    code.extend(search(&sections(rules, default)));
    code.into_iter().flat_map(bytes).collect()
}

fn bytes(one: Instruction) -> [u8; 8] {
    let [c0, c1] = one.code.to_ne_bytes();
    let [k0, k1, k2, k3] = one.k.to_ne_bytes();
    [c0, c1, one.if_true, one.if_false, k0, k1, k2, k3]
}

fn jump(code: u16, k: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { code, if_true, if_false, k }
}

fn load(k: u32) -> Instruction {
    jump(LOAD, k, 0, 0)
}

fn answer(action: Action) -> Instruction {
    jump(RETURN, action.0, 0, 0)
}

/// The first number of each section and what is done there, from 0 on.
fn sections(rules: &Rules, default: Action) -> Vec<(u32, Code)> {
    let mut sections: Vec<(u32, Code)> = vec![(0, vec![answer(default)])];
    let mut begin = |number, code: Code| match sections.last_mut() {
        Some((_, last)) if *last == code => {}
        Some((first, last)) if *first == number => *last = code,
        _ => sections.push((number, code)),
    };
    for (number, alternatives) in rules {
        begin(*number, of_call(alternatives, default));
        if !rules.contains_key(&(number + 1)) {
            begin(number + 1, vec![answer(default)]);
        }
    }
    sections
}

/// With the number in the accumulator.
fn search(sections: &[(u32, Code)]) -> Code {
    let (below, above) = sections.split_at(sections.len() / 2);
    let Some((first, code)) = above.first() else { return Code::new() };
    if below.is_empty() {
        return code.clone();
    }
    let (below, above) = (search(below), search(above));
    let mut all = match (u8::try_from(below.len()), u32::try_from(below.len())) {
        (Ok(length), _) => vec![jump(AT_LEAST, *first, length, 0)],
        (_, length) => {
            // Longer programs than any length that fits are refused as a whole.
            let length = length.unwrap_or(u32::MAX);
            vec![jump(AT_LEAST, *first, 0, 1), jump(JUMP, length, 0, 0)]
        }
    };
    all.extend(below);
    all.extend(above);
    all
}

fn of_call(rules: &[Rule], default: Action) -> Code {
    if let Some(rule) = rules.iter().find(|rule| rule.conditions.is_empty()) {
        return vec![answer(rule.action)];
    }
    let mut code: Code = rules.iter().flat_map(of_rule).collect();
    code.push(answer(default));
    code
}

/// Goes on behind its end when a condition does not hold.
fn of_rule(rule: &Rule) -> Code {
    let mut code = vec![answer(rule.action)];
    for condition in rule.conditions.iter().rev() {
        // At most six conditions of six instructions: see the test of the longest rule.
        let rest = u8::try_from(code.len()).unwrap_or(u8::MAX);
        let mut longer = of_condition(*condition, rest);
        longer.extend(code);
        code = longer;
    }
    code
}

/// Falls through when it holds; otherwise it jumps over `rest` instructions behind it. The kernel
/// compares 32 bits at a time, so the upper half comes first.
fn of_condition(condition: Condition, rest: u8) -> Code {
    let halves = |value: u64| {
        let half = |value: u64| u32::try_from(value & 0xffff_ffff).expect("it has 32 bits");
        (half(value >> 32), half(value))
    };
    let low = load(ARGUMENTS + 8 * condition.argument);
    let high = load(ARGUMENTS + 8 * condition.argument + 4);
    let greater = |code, value| {
        let (upper, lower) = halves(value);
        vec![
            high,
            jump(ABOVE, upper, 3, 0),
            jump(EQUAL, upper, 0, 2 + rest),
            low,
            jump(code, lower, 0, rest),
        ]
    };
    let not_greater = |code, value| {
        let (upper, lower) = halves(value);
        vec![
            high,
            jump(ABOVE, upper, 3 + rest, 0),
            jump(EQUAL, upper, 0, 2),
            low,
            jump(code, lower, rest, 0),
        ]
    };
    match condition.test {
        Test::Equal(value) => {
            let (upper, lower) = halves(value);
            vec![high, jump(EQUAL, upper, 0, 2 + rest), low, jump(EQUAL, lower, 0, rest)]
        }
        Test::NotEqual(value) => {
            let (upper, lower) = halves(value);
            vec![high, jump(EQUAL, upper, 0, 2), low, jump(EQUAL, lower, rest, 0)]
        }
        Test::Masked { mask, value } => {
            let ((upper_mask, lower_mask), (upper, lower)) = (halves(mask), halves(value));
            vec![
                high,
                jump(AND, upper_mask, 0, 0),
                jump(EQUAL, upper, 0, 3 + rest),
                low,
                jump(AND, lower_mask, 0, 0),
                jump(EQUAL, lower, 0, rest),
            ]
        }
        Test::Above(value) => greater(ABOVE, value),
        Test::AtLeast(value) => greater(AT_LEAST, value),
        Test::Below(value) => not_greater(AT_LEAST, value),
        Test::AtMost(value) => not_greater(ABOVE, value),
    }
}
