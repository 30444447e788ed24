//! Decisions of compiled profiles, by a small interpreter of classic BPF.

use super::*;
use crate::capabilities::{Capabilities, CapabilityRequest, CapabilitySet};
use crate::seccomp::default_profile;
use proptest::prelude::*;

const ALLOW: u32 = 0x7fff_0000;
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;

/// Run a program on one call, as the kernel does; also tell how many instructions it took.
fn steps(bytes: &[u8], arch: u32, number: u32, arguments: [u64; 6]) -> (u32, usize) {
    let mut data = Vec::new();
    data.extend_from_slice(&number.to_le_bytes());
    data.extend_from_slice(&arch.to_le_bytes());
    data.extend_from_slice(&[0; 8]);
    arguments.iter().for_each(|argument| data.extend_from_slice(&argument.to_le_bytes()));
    let (mut at, mut accumulator, mut count) = (0usize, 0u32, 0);
    loop {
        count += 1;
        let raw = &bytes[at * 8..at * 8 + 8];
        let code = u16::from_ne_bytes([raw[0], raw[1]]);
        let value = u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]);
        let branch = |condition: bool| usize::from(if condition { raw[2] } else { raw[3] });
        at += 1;
        match code {
            0x20 => {
                let from = value as usize;
                accumulator = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
            }
            0x54 => accumulator &= value,
            0x05 => at += value as usize,
            0x15 => at += branch(accumulator == value),
            0x25 => at += branch(accumulator > value),
            0x35 => at += branch(accumulator >= value),
            0x06 => return (value, count),
            other => panic!("instruction {other:#x} at {at}"),
        }
    }
}

fn run(bytes: &[u8], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
    steps(bytes, arch, number, arguments).0
}

fn call(bytes: &[u8], name: &str, first: u64) -> u32 {
    run(bytes, X86_64, Convention::X86_64.numbers()[name], [first, 0, 0, 0, 0, 0])
}

fn profile(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).unwrap()
}

fn compiled(json: &str) -> Vec<u8> {
    compile_for(&profile(json), Machine::X86_64).unwrap()
}

fn default_for(add: &[&str]) -> Vec<u8> {
    let request = CapabilityRequest {
        add: add.iter().map(|name| (*name).to_owned()).collect(),
        ..CapabilityRequest::default()
    };
    let capabilities = Capabilities::resolve(&request, CapabilitySet::known()).unwrap();
    compile_for(&default_profile(&capabilities, Machine::X86_64), Machine::X86_64).unwrap()
}

#[test]
fn default_profile_lets_ordinary_programs_work() {
    let bytes = default_for(&[]);
    for name in ["read", "openat", "execve", "mmap", "futex", "statx", "chroot", "mknod", "ptrace", "mseal"] {
        assert_eq!(call(&bytes, name, 0), ALLOW, "{name}");
    }
    for name in [
        "mount",
        "bpf",
        "io_uring_setup",
        "io_uring_enter",
        "keyctl",
        "userfaultfd",
        "reboot",
        "setns",
        "unshare",
    ] {
        assert_eq!(call(&bytes, name, 0), ERRNO | EPERM, "{name}");
    }
    assert_eq!(call(&bytes, "clone3", 0), ERRNO | ENOSYS);
    assert_eq!(run(&bytes, X86_64, 600, [0; 6]), ERRNO | ENOSYS, "a call younger than the profile");
}

#[test]
fn default_profile_names_only_calls_that_exist_somewhere() {
    let profile = default_profile(&Capabilities::default(), Machine::X86_64);
    let tables = [Convention::X86_64, Convention::I386, Convention::Aarch64].map(Convention::numbers);
    let arm_only = ["arm_fadvise64_64", "cacheflush", "set_tls", "recv", "send", "sync_file_range2"];
    for name in profile.syscalls().iter().flatten().flat_map(|rule| rule.names()) {
        let known = tables.iter().any(|table| table.contains_key(name.as_str()));
        assert!(known || arm_only.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn default_profile_refuses_families_whatever_the_high_bits_say() {
    let bytes = default_for(&[]);
    for family in (0..48).filter(|family| ![38, 40].contains(family)) {
        assert_eq!(call(&bytes, "socket", family), ALLOW, "{family}");
    }
    for family in [38, 40, 38 | 1 << 32, 40 | 0xffff_ffff << 32, 48, 0xffff_ffff] {
        assert_eq!(call(&bytes, "socket", family), ERRNO | EPERM, "{family:#x}");
    }
}

#[test]
fn default_profile_lets_threads_start_but_no_namespace() {
    let bytes = default_for(&[]);
    assert_eq!(call(&bytes, "clone", 0x3d0f00), ALLOW);
    for flag in [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
        assert_eq!(call(&bytes, "clone", flag | 17), ERRNO | EPERM, "{flag:#x}");
    }
    let bytes = default_for(&["SYS_ADMIN"]);
    for name in ["mount", "clone3", "unshare", "bpf", "clone"] {
        assert_eq!(call(&bytes, name, 0x1000_0000), ALLOW, "{name}");
    }
}

#[test]
fn default_profile_knows_its_personalities() {
    let bytes = default_for(&[]);
    for persona in [0, 8, 0x20000, 0x20008, 0xffff_ffff] {
        assert_eq!(call(&bytes, "personality", persona), ALLOW);
    }
    assert_eq!(call(&bytes, "personality", 0x40000), ERRNO | EPERM);
}

#[test]
fn foreign_conventions_have_their_own_answer() {
    let bytes = default_for(&[]);
    assert_eq!(run(&bytes, I386, 4, [0; 6]), ALLOW, "write by int 0x80");
    assert_eq!(run(&bytes, I386, 21, [0; 6]), ERRNO | EPERM, "mount by int 0x80");
    assert_eq!(run(&bytes, I386, 102, [0; 6]), ERRNO | EPERM, "socketcall hides its family");
    assert_eq!(run(&bytes, X86_64, X32_BIT | 1, [0; 6]), ERRNO | ENOSYS, "write by x32");
    assert_eq!(run(&bytes, AARCH64, 64, [0; 6]), KILL_PROCESS);
    let native = compiled(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#);
    assert_eq!(run(&native, I386, 4, [0; 6]), KILL_PROCESS);
    assert_eq!(run(&native, X86_64, 5000, [0; 6]), ALLOW);
    assert_eq!(run(&native, X86_64, X32_BIT, [0; 6]), ERRNO | ENOSYS);
}

#[test]
fn arm_has_its_own_table() {
    let profile = default_profile(&Capabilities::default(), Machine::Aarch64);
    let bytes = compile_for(&profile, Machine::Aarch64).unwrap();
    assert_eq!(run(&bytes, AARCH64, 64, [0; 6]), ALLOW, "write");
    assert_eq!(run(&bytes, AARCH64, 40, [0; 6]), ERRNO | EPERM, "mount");
    assert_eq!(run(&bytes, X86_64, 1, [0; 6]), KILL_PROCESS);
}

#[test]
fn every_action_becomes_the_kernels_number() {
    let bytes = compiled(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["read"],"action":"SCMP_ACT_KILL"},{"names":["write"],"action":"SCMP_ACT_KILL_THREAD"},
        {"names":["open"],"action":"SCMP_ACT_KILL_PROCESS"},{"names":["close"],"action":"SCMP_ACT_TRAP"},
        {"names":["stat"],"action":"SCMP_ACT_ERRNO","errnoRet":13},{"names":["fstat"],"action":"SCMP_ACT_TRACE","errnoRet":7},
        {"names":["lstat"],"action":"SCMP_ACT_LOG"},{"names":["poll","no_such_call"],"action":"SCMP_ACT_ERRNO"}]}"#,
    );
    let expected = [0, 0, KILL_PROCESS, 0x0003_0000, ERRNO | 13, 0x7ff0_0007, 0x7ffc_0000, ERRNO | 1, ALLOW];
    let names = ["read", "write", "open", "close", "stat", "fstat", "lstat", "poll", "lseek"];
    for (name, action) in names.iter().zip(expected) {
        assert_eq!(call(&bytes, name, 0), action, "{name}");
    }
}

#[test]
fn what_can_not_be_honoured_is_refused_by_name() {
    for (json, word) in [
        (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "NOTIFY"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#, "listenerPath"),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}"#,
            "listener",
        ),
        (r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":70000}"#, "70000"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}"#, "errnoRet"),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL",
               "args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
            "argument 6",
        ),
    ] {
        let error = compile_for(&profile(json), Machine::X86_64).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn all_arguments_of_a_rule_must_hold_unless_one_is_tested_twice() {
    let both = compiled(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["ioctl"],"action":"SCMP_ACT_ALLOW","args":[
        {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":2,"op":"SCMP_CMP_GE"}]}]}"#,
    );
    assert_eq!(run(&both, X86_64, 16, [1, 2, 0, 0, 0, 0]), ALLOW);
    assert_eq!(run(&both, X86_64, 16, [1, 1, 0, 0, 0, 0]), ERRNO | EPERM);
    assert_eq!(run(&both, X86_64, 16, [0, 2, 0, 0, 0, 0]), ERRNO | EPERM);
    let either = compiled(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["ioctl"],"action":"SCMP_ACT_ALLOW","args":[
        {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    assert_eq!(
        [1, 2, 3].map(|first| run(&either, X86_64, 16, [first, 0, 0, 0, 0, 0]) == ALLOW),
        [true, true, false]
    );
}

#[test]
fn a_thousand_argument_rules_jump_far_and_too_many_are_refused() {
    let rules = |count: u64| {
        let rule = |value: u64| {
            format!(
                r#"{{"names":["ioctl","openat","read"],"action":"SCMP_ACT_ALLOW","args":[{{"index":1,"value":{value},"op":"SCMP_CMP_EQ"}}]}}"#
            )
        };
        let rules: Vec<String> = (0..count).map(|index| rule(index << 30)).collect();
        profile(&format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{}]}}"#, rules.join(",")))
    };
    let bytes = compile_for(&rules(300), Machine::X86_64).unwrap();
    for name in [0, 16, 257] {
        assert_eq!(run(&bytes, X86_64, name, [0, 299 << 30, 0, 0, 0, 0]), ALLOW);
        assert_eq!(run(&bytes, X86_64, name, [0, 300 << 30, 0, 0, 0, 0]), ERRNO | EPERM);
    }
    assert_eq!(run(&bytes, X86_64, 1, [0; 6]), ERRNO | EPERM);
    assert!(compile_for(&rules(1000), Machine::X86_64).unwrap_err().to_string().contains("4096"));
}

#[test]
fn default_profile_decides_in_few_instructions() {
    let bytes = default_for(&[]);
    let longest = (0..500).map(|number| steps(&bytes, X86_64, number, [0; 6]).1).max().unwrap();
    assert!(longest <= 40, "{longest}");
    assert!(bytes.len() / 8 < 1000, "{}", bytes.len() / 8);
}

proptest! {
    #[test]
    fn comparisons_are_those_of_64_bit_numbers(value: u64, near in -2i64..3, other: u64, mask: u64, index in 0usize..6) {
        for argument in [value, value.wrapping_add_signed(near), other, value ^ 1 << 40, value & mask] {
            let cases = [
                ("EQ", argument == value), ("NE", argument != value), ("LT", argument < value), ("LE", argument <= value),
                ("GT", argument > value), ("GE", argument >= value), ("MASKED_EQ", argument & value == mask),
            ];
            for (operator, expected) in cases {
                let bytes = compiled(&format!(
                    r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW",
                       "args":[{{"index":{index},"value":{value},"valueTwo":{mask},"op":"SCMP_CMP_{operator}"}}]}}]}}"#
                ));
                let mut arguments = [7; 6];
                arguments[index] = argument;
                prop_assert_eq!(run(&bytes, X86_64, 0, arguments) == ALLOW, expected, "{} {:#x} {:#x}", operator, argument, value);
            }
        }
    }
}

#[test]
fn a_profile_s_flags_are_the_kernel_s() {
    let told = |flags: &str| {
        let text = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","flags":[{flags}]}}"#);
        super::flags(&serde_json::from_str(&text).unwrap()).unwrap()
    };
    assert_eq!(told(""), 0);
    assert_eq!(told(r#""SECCOMP_FILTER_FLAG_TSYNC""#), 0);
    assert_eq!(told(r#""SECCOMP_FILTER_FLAG_LOG""#), 2);
    assert_eq!(told(r#""SECCOMP_FILTER_FLAG_SPEC_ALLOW","SECCOMP_FILTER_FLAG_LOG""#), 6);
}
