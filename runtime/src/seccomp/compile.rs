//! Compiles an OCI seccomp profile to a BPF program.
//!
//! Where several rules name a system call, those with arguments are tried in the profile's order, then the first
//! without. The arguments of a rule must all hold, except that a rule which tests one argument twice means any of its
//! tests: profiles in use are written that way. A profile that refuses by `EPERM` answers `ENOSYS` for numbers greater
//! than all it names, so that programs fall back from calls younger than the profile.

use super::program::{Label, Program, Test};
use super::table::{Convention, Machine, X32_BIT};
use crate::{Error, Result};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall,
};
use std::collections::{BTreeMap, HashMap};

const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const MAX_ERRNO: u32 = 4095;
/// `SECCOMP_FILTER_FLAG_LOG` and `SECCOMP_FILTER_FLAG_SPEC_ALLOW`.
const LOG: u32 = 2;
const SPEC_ALLOW: u32 = 4;
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// Compile a profile for the machine this program runs on: an array of `struct sock_filter`.
pub fn compile(profile: &LinuxSeccomp) -> Result<Vec<u8>> {
    let machine = Machine::native().ok_or_else(|| {
        Error::Unsupported("seccomp profiles are not supported on this machine's architecture".to_owned())
    })?;
    compile_for(profile, machine)
}

/// Compile a profile for a machine.
pub fn compile_for(profile: &LinuxSeccomp, machine: Machine) -> Result<Vec<u8>> {
    flags(profile)?;
    let default = action(profile.default_action(), profile.default_errno_ret(), "the default")?;
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let mut program = Program::default();
    let mut next = program.answer(KILL_PROCESS);
    for convention in conventions(profile, machine).into_iter().rev() {
        let section = section(&mut program, &Policy::new(rules, default, convention)?);
        next = program.branch(Test::Equal, convention.audit_number(), section, next);
    }
    program.load(ARCHITECTURE);
    program.finish()
}

/// The machine's own convention first, then those of 32-bit programs that the profile names.
fn conventions(profile: &LinuxSeccomp, machine: Machine) -> Vec<Convention> {
    let named = profile.architectures().as_deref().unwrap_or_default();
    let mut conventions = vec![Convention::native(machine)];
    if machine == Machine::X86_64 && named.contains(&Arch::ScmpArchX86) {
        conventions.push(Convention::I386);
    }
    conventions
}

/// The flags that a profile's filter is installed with (`seccomp(2)`); a listener is refused.
pub fn flags(profile: &LinuxSeccomp) -> Result<u32> {
    if profile.listener_path().is_some() || profile.listener_metadata().is_some() {
        return Err(Error::Unsupported(
            "seccomp listenerPath is not supported; leave it out, and notify rules with it".to_owned(),
        ));
    }
    let mut flags = 0;
    for flag in profile.flags().as_deref().unwrap_or_default() {
        flags |= match flag {
            // The process has one thread, and nothing to synchronise.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => SPEC_ALLOW,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                return Err(Error::Unsupported(format!(
                    "seccomp flag {flag} is of a listener, which is not supported; leave it out"
                )));
            }
        };
    }
    Ok(flags)
}

/// The kernel's number of an action.
fn action(action: LinuxSeccompAction, errno: Option<u32>, of: &str) -> Result<u32> {
    let takes_errno = matches!(action, LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace);
    if errno.is_some() && !takes_errno {
        return Err(Error::Invalid(format!("seccomp action {action} of {of} takes no errnoRet")));
    }
    let data = errno.unwrap_or(EPERM);
    if takes_errno && data > MAX_ERRNO {
        return Err(Error::Invalid(format!("seccomp errnoRet {data} of {of} is greater than {MAX_ERRNO}")));
    }
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => 0,
        LinuxSeccompAction::ScmpActKillProcess => KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => 0x0003_0000,
        LinuxSeccompAction::ScmpActErrno => ERRNO | data,
        LinuxSeccompAction::ScmpActTrace => 0x7ff0_0000 | data,
        LinuxSeccompAction::ScmpActLog => 0x7ffc_0000,
        LinuxSeccompAction::ScmpActAllow => 0x7fff_0000,
        LinuxSeccompAction::ScmpActNotify => {
            return Err(Error::Unsupported(format!(
                "seccomp action SCMP_ACT_NOTIFY of {of} is not supported"
            )));
        }
    })
}

/// The actions for one system call: those with conditions on its arguments, in order, then the unconditional one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Decision {
    conditional: Vec<(Vec<LinuxSeccompArg>, u32)>,
    otherwise: Option<u32>,
}

/// A profile in one convention's numbers.
struct Policy {
    convention: Convention,
    default: u32,
    decisions: BTreeMap<u32, Decision>,
}

impl Policy {
    fn new(rules: &[LinuxSyscall], default: u32, convention: Convention) -> Result<Self> {
        let numbers = convention.numbers();
        let mut policy = Self { convention, default, decisions: BTreeMap::new() };
        for rule in rules {
            policy.add(rule, &numbers)?;
        }
        Ok(policy)
    }

    fn add(&mut self, rule: &LinuxSyscall, numbers: &HashMap<&'static str, u32>) -> Result<()> {
        let first = rule.names().first().map_or("a rule without names", String::as_str);
        let action = action(rule.action(), rule.errno_ret(), first)?;
        let arguments = rule.args().as_deref().unwrap_or_default();
        if let Some(argument) = arguments.iter().find(|argument| argument.index() > 5) {
            let index = argument.index();
            return Err(Error::Invalid(format!(
                "seccomp rule for {first} tests argument {index}; they go from 0 to 5"
            )));
        }
        // A name that this architecture or this program does not know has no number to be called by.
        for number in rule.names().iter().filter_map(|name| numbers.get(name.as_str())) {
            let decision = self.decisions.entry(*number).or_default();
            if arguments.is_empty() {
                decision.otherwise.get_or_insert(action);
            } else if tests_one_twice(arguments) {
                decision.conditional.extend(arguments.iter().map(|argument| (vec![*argument], action)));
            } else {
                decision.conditional.push((arguments.to_vec(), action));
            }
        }
        Ok(())
    }

    /// Ranges that cover all system call numbers, each by its first number; neighbours differ in their decision.
    fn ranges(&self) -> Vec<(u32, Decision)> {
        let constant = |action| Decision { conditional: Vec::new(), otherwise: Some(action) };
        let mut ranges: Vec<(u32, Decision)> = Vec::new();
        let mut put = |start: u32, decision: Decision| match ranges.last_mut() {
            Some(last) if last.0 == start => last.1 = decision,
            Some(last) if last.1 == decision => {}
            _ => ranges.push((start, decision)),
        };
        put(0, constant(self.default));
        for (number, decision) in &self.decisions {
            let decision =
                Decision { otherwise: decision.otherwise.or(Some(self.default)), ..decision.clone() };
            put(*number, decision);
            put(number.saturating_add(1), constant(self.default));
        }
        let last = self.decisions.last_key_value().map_or(0, |(number, _)| *number);
        if self.default == (ERRNO | EPERM) && last > 0 {
            put(last.saturating_add(1), constant(ERRNO | ENOSYS));
        }
        if self.convention == Convention::X86_64 {
            put(X32_BIT, constant(ERRNO | ENOSYS));
        }
        merge(ranges)
    }
}

/// Merges neighbouring ranges of equal decisions: replacing a range's decision can make it equal to the one before.
fn merge(ranges: Vec<(u32, Decision)>) -> Vec<(u32, Decision)> {
    let mut merged: Vec<(u32, Decision)> = Vec::with_capacity(ranges.len());
    for (start, decision) in ranges {
        if merged.last().is_none_or(|last| last.1 != decision) {
            merged.push((start, decision));
        }
    }
    merged
}

fn tests_one_twice(arguments: &[LinuxSeccompArg]) -> bool {
    let mut seen = [false; 6];
    arguments
        .iter()
        .any(|argument| seen.get_mut(argument.index()).is_some_and(|seen| std::mem::replace(seen, true)))
}

fn section(program: &mut Program, policy: &Policy) -> Label {
    let ranges = policy.ranges();
    let tree = search(program, &ranges, policy.default);
    program.jump(tree);
    program.load(NUMBER)
}

/// A binary search for the range of the number in the accumulator.
fn search(program: &mut Program, ranges: &[(u32, Decision)], default: u32) -> Label {
    match ranges {
        [] => program.answer(default),
        [(_, decision)] => decide(program, decision, default),
        _ => {
            let (left, right) = ranges.split_at(ranges.len() / 2);
            let start = right.first().map_or(0, |range| range.0);
            let above = search(program, right, default);
            let below = search(program, left, default);
            program.branch(Test::GreaterOrEqual, start, above, below)
        }
    }
}

fn decide(program: &mut Program, decision: &Decision, default: u32) -> Label {
    let mut next = program.answer(decision.otherwise.unwrap_or(default));
    for (arguments, action) in decision.conditional.iter().rev() {
        let mut matched = program.answer(*action);
        for argument in arguments.iter().rev() {
            matched = compare(program, argument, matched, next);
        }
        next = matched;
    }
    next
}

/// A test of one 64-bit argument, by its halves.
fn compare(program: &mut Program, argument: &LinuxSeccompArg, yes: Label, no: Label) -> Label {
    let (high, low) = halves(argument.value());
    let words = Words::of(argument.index());
    match argument.op() {
        LinuxSeccompOperator::ScmpCmpEq => equal(program, words, [None; 2], [high, low], [yes, no]),
        LinuxSeccompOperator::ScmpCmpNe => equal(program, words, [None; 2], [high, low], [no, yes]),
        LinuxSeccompOperator::ScmpCmpGt => order(program, words, Test::Greater, [high, low], [yes, no]),
        LinuxSeccompOperator::ScmpCmpGe => {
            order(program, words, Test::GreaterOrEqual, [high, low], [yes, no])
        }
        LinuxSeccompOperator::ScmpCmpLe => order(program, words, Test::Greater, [high, low], [no, yes]),
        LinuxSeccompOperator::ScmpCmpLt => {
            order(program, words, Test::GreaterOrEqual, [high, low], [no, yes])
        }
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            let (high_value, low_value) = halves(argument.value_two().unwrap_or(0));
            equal(program, words, [Some(high), Some(low)], [high_value, low_value], [yes, no])
        }
    }
}

/// Where the two halves of an argument are; both machines are little-endian.
#[derive(Clone, Copy)]
struct Words {
    high: u32,
    low: u32,
}

impl Words {
    fn of(index: usize) -> Self {
        let low = FIRST_ARGUMENT + 8 * u32::try_from(index).unwrap_or(0);
        Self { high: low + 4, low }
    }
}

fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

fn equal(
    program: &mut Program,
    words: Words,
    masks: [Option<u32>; 2],
    values: [u32; 2],
    [yes, no]: [Label; 2],
) -> Label {
    let halves = [(words.low, masks[1], values[1]), (words.high, masks[0], values[0])];
    let mut matched = yes;
    for (word, mask, value) in halves {
        // A half of which no bit counts holds whenever its value is zero.
        if mask == Some(0) && value == 0 {
            continue;
        }
        program.branch(Test::Equal, value, matched, no);
        if let Some(mask) = mask {
            program.and(mask);
        }
        matched = program.load(word);
    }
    program.jump(matched)
}

fn order(
    program: &mut Program,
    words: Words,
    low_test: Test,
    [high, low]: [u32; 2],
    [yes, no]: [Label; 2],
) -> Label {
    program.branch(low_test, low, yes, no);
    let lower = program.load(words.low);
    let same = program.branch(Test::Equal, high, lower, no);
    program.branch(Test::Greater, high, yes, same);
    program.load(words.high)
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
