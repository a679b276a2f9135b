//! `linux.seccomp`: from a profile to one filter of system calls. Pure.
//!
//! A profile is a set of rules without an order: a rule has calls, conditions that all hold, and an
//! action; what no rule matches has the default action. Two rules with different actions that match
//! the same call with the same arguments are refused, because runtimes do not agree on which of them
//! counts. So at most one action is left for each call, and no order can change it.
//!
//! That is one program ([`super::bpf`]) with all actions in it. A filter for each action, stacked,
//! would mean the same only with the default in yet another one that lets all rules pass, since of
//! stacked filters the kernel takes the strictest answer: with "everything is refused" as one filter,
//! another that allows reading allows nothing.
//!
//! Numbers are those of `x86_64`. Calls in the numbers of i386 and x32 would go around every rule, so
//! they end the process, also when `architectures` has them: there they would have to be filtered by
//! numbers of their own, which this runtime does not know.
//!
//! The names of calls that only other architectures have stand in every profile. They are skipped and
//! told to the log, but only where that cannot open anything: a rule that forbids more than the
//! default does is refused when we do not know what it forbids.
//!
//! Refuses `SCMP_ACT_NOTIFY`, because nobody would answer, and a filter under which the process could
//! not execute its program.

use super::{
    bpf::{self, Action, Condition, Rule, Rules, Test},
    config::{Argument, Seccomp, Syscall},
};
use crate::{
    check::{Invalid, refuse},
    launch::Privileges,
};
use std::collections::BTreeMap;
use sys::seccomp::{self, Program};

const CALLS: &str = include_str!("calls.txt");
/// Rules about one call; they are compared pair by pair.
const RULES_OF_CALL_MAX: usize = 64;
/// Of the kernel (`MAX_ERRNO`); it would give a larger one as this.
const ERRNO_MAX: u32 = 4095;
const EPERM: u32 = 1;

/// What the process calls when the filter is in force already.
const CALLS_OF_START: [&str; 4] = ["read", "write", "close", "execveat"];
/// The same when it keeps the right to install filters until then.
const CALL_OF_PRIVILEGES: &str = "capset";

const ARCHITECTURES: [&str; 19] = [
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
];

/// A profile, decided.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) filter: Program,
    /// Names of calls that this architecture does not have.
    pub(super) skipped: Vec<String>,
}

/// Decides about a profile for a process that has these privileges.
pub(super) fn decide(profile: &Seccomp, privileges: Privileges) -> Result<Decided, Invalid> {
    let default = action("default action", &profile.default_action, profile.default_errno_ret)?;
    architectures(profile.architectures.as_deref().unwrap_or_default())?;
    let flags = flags(profile.flags.as_deref().unwrap_or_default())?;
    if profile.listener_metadata.is_set() && !profile.listener_path.is_set() {
        return refuse("linux.seccomp.listenerMetadata: there is no listenerPath");
    }
    let (rules, skipped) = rules(profile.syscalls.as_deref().unwrap_or_default(), default)?;
    let more = (privileges == Privileges::ByFile).then_some(CALL_OF_PRIVILEGES);
    let numbers = numbers();
    for name in CALLS_OF_START.into_iter().chain(more) {
        let answer = match numbers.get(name).and_then(|number| rules.get(number)) {
            None => Some(default),
            Some(rules) => {
                rules.iter().find(|rule| rule.conditions.is_empty()).map(|rule| rule.action)
            }
        };
        if !answer.is_some_and(Action::lets_pass) {
            return refuse(format!("linux.seccomp: no program can be executed without {name}"));
        }
    }
    match Program::from_bytes(&bpf::assemble(&rules, default)) {
        Some(filter) => Ok(Decided { filter: filter.with_flags(flags), skipped }),
        None => refuse("linux.seccomp: it becomes longer than the kernel takes"),
    }
}

fn numbers() -> BTreeMap<&'static str, u32> {
    let words = CALLS.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
    words.filter_map(|word| word.split_once('=')).fold(
        BTreeMap::new(),
        |mut all, (name, number)| {
            if let Ok(number) = number.parse() {
                all.insert(name, number);
            }
            all
        },
    )
}

fn action(what: &str, name: &str, errno: Option<u32>) -> Result<Action, Invalid> {
    let number = errno.unwrap_or(EPERM);
    let action = match name {
        "SCMP_ACT_ERRNO" if number > ERRNO_MAX => {
            return refuse(format!("linux.seccomp: {what}: there is no error {number}"));
        }
        "SCMP_ACT_ERRNO" => return Ok(Action::errno(number)),
        "SCMP_ACT_TRACE" => match u16::try_from(number) {
            Ok(number) => return Ok(Action::trace(number)),
            Err(_) => return refuse(format!("linux.seccomp: {what}: {number} has 16 bits")),
        },
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => Action::KILL_PROCESS,
        "SCMP_ACT_TRAP" => Action::TRAP,
        "SCMP_ACT_LOG" => Action::LOG,
        "SCMP_ACT_ALLOW" => Action::ALLOW,
        "SCMP_ACT_NOTIFY" => {
            return refuse(format!("linux.seccomp: {what}: SCMP_ACT_NOTIFY is not done"));
        }
        _ => return refuse(format!("linux.seccomp: {what}: there is no {name:?}")),
    };
    match errno {
        None => Ok(action),
        Some(_) => refuse(format!("linux.seccomp: {what}: {name} has no error number")),
    }
}

fn architectures(names: &[String]) -> Result<(), Invalid> {
    match names.iter().find(|name| !ARCHITECTURES.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => refuse(format!("linux.seccomp.architectures: there is no {name:?}")),
    }
}

fn flags(names: &[String]) -> Result<u32, Invalid> {
    names.iter().try_fold(0, |all, name| match name.as_str() {
        "SECCOMP_FILTER_FLAG_TSYNC" => Ok(all | seccomp::TSYNC),
        "SECCOMP_FILTER_FLAG_LOG" => Ok(all | seccomp::LOG),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Ok(all | seccomp::SPEC_ALLOW),
        // Only of use to whoever answers SCMP_ACT_NOTIFY.
        _ => refuse(format!("linux.seccomp.flags: there is no {name:?} here")),
    })
}

fn rules(all: &[Syscall], default: Action) -> Result<(Rules, Vec<String>), Invalid> {
    let numbers = numbers();
    let mut rules = Rules::new();
    let mut skipped = Vec::new();
    for entry in all {
        let names = entry.names.as_deref().unwrap_or_default();
        let Some(first) = names.first() else {
            return refuse("linux.seccomp.syscalls: names: there are none");
        };
        let rule = Rule {
            action: action(first, &entry.action, entry.errno_ret)?,
            conditions: conditions(first, entry.args.as_deref().unwrap_or_default())?,
        };
        for name in names {
            match numbers.get(name.as_str()) {
                Some(number) => add(name, rules.entry(*number).or_default(), &rule)?,
                None if rule.action.is_stricter_than(default) => {
                    return refuse(format!(
                        "linux.seccomp.syscalls: {name:?} is forbidden, and is no call of x86_64"
                    ));
                }
                None => skipped.push(name.clone()),
            }
        }
    }
    skipped.sort_unstable();
    skipped.dedup();
    Ok((rules, skipped))
}

fn add(name: &str, rules: &mut Vec<Rule>, rule: &Rule) -> Result<(), Invalid> {
    if rules.contains(rule) {
        return Ok(());
    }
    if rules.len() == RULES_OF_CALL_MAX {
        return refuse(format!(
            "linux.seccomp.syscalls: {name}: at most {RULES_OF_CALL_MAX} rules"
        ));
    }
    if rules.iter().any(|other| other.action != rule.action && !other.excludes(rule)) {
        return refuse(format!(
            "linux.seccomp.syscalls: {name}: two rules give different answers to the same call"
        ));
    }
    rules.push(rule.clone());
    Ok(())
}

fn conditions(name: &str, arguments: &[Argument]) -> Result<Vec<Condition>, Invalid> {
    let mut conditions: Vec<Condition> = Vec::new();
    for argument in arguments {
        let refuse = |why: &str| refuse(format!("linux.seccomp.syscalls: args of {name}: {why}"));
        let Some(index) = argument.index.filter(|index| *index < 6) else {
            return refuse("an index is 0 to 5");
        };
        let Some(value) = argument.value else { return refuse("value: there is none") };
        let two = argument.value_two.unwrap_or(0);
        let test = match argument.op.as_str() {
            "SCMP_CMP_MASKED_EQ" if two & !value != 0 => {
                return refuse("valueTwo has bits that the mask has not");
            }
            "SCMP_CMP_MASKED_EQ" => Test::Masked { mask: value, value: two },
            _ if two != 0 => return refuse("valueTwo is for SCMP_CMP_MASKED_EQ"),
            "SCMP_CMP_NE" => Test::NotEqual(value),
            "SCMP_CMP_LT" => Test::Below(value),
            "SCMP_CMP_LE" => Test::AtMost(value),
            "SCMP_CMP_EQ" => Test::Equal(value),
            "SCMP_CMP_GE" => Test::AtLeast(value),
            "SCMP_CMP_GT" => Test::Above(value),
            other => return refuse(&format!("there is no {other:?}")),
        };
        if conditions.iter().any(|other| other.argument == index) {
            // Alternatives in other runtimes, which would be rules of their own.
            return refuse("two conditions are about the same argument");
        }
        conditions.push(Condition { argument: index, test });
    }
    Ok(conditions)
}

#[cfg(test)]
#[path = "seccomp_tests.rs"]
mod tests;
