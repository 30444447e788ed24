//! System call numbers by name, for each machine and the 32-bit programs it runs.

use std::collections::HashMap;

mod aarch64;
mod i386;
mod x86_64;

/// The first of the numbers that x86_64 keeps for x32 programs.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// A machine to compile for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Machine {
    /// The machine this program was built for; absent where no table exists.
    pub fn native() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }
}

/// A system call convention: a set of system call numbers, which the kernel identifies by `AUDIT_ARCH_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Convention {
    X86_64,
    I386,
    Aarch64,
}

impl Convention {
    /// The convention of a machine's own programs.
    pub(super) fn native(machine: Machine) -> Self {
        match machine {
            Machine::X86_64 => Self::X86_64,
            Machine::Aarch64 => Self::Aarch64,
        }
    }

    /// The value of `seccomp_data.arch` (`linux/audit.h`).
    pub(super) fn audit_number(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// Numbers by name.
    pub(super) fn numbers(self) -> HashMap<&'static str, u32> {
        let names = match self {
            Self::X86_64 => x86_64::NAMES,
            Self::I386 => i386::NAMES,
            Self::Aarch64 => aarch64::NAMES,
        };
        parse(names)
    }
}

fn parse(names: &'static str) -> HashMap<&'static str, u32> {
    let mut numbers = HashMap::with_capacity(512);
    let mut next = 0u32;
    for word in names.split_ascii_whitespace() {
        if let Ok(start) = word.parse() {
            next = start;
        } else {
            numbers.insert(word, next);
            next = next.saturating_add(1);
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_agree_with_the_c_library() {
        let numbers = Machine::native().map(|machine| Convention::native(machine).numbers()).unwrap();
        let known = [
            ("read", libc::SYS_read),
            ("socket", libc::SYS_socket),
            ("clone", libc::SYS_clone),
            ("mount", libc::SYS_mount),
            ("personality", libc::SYS_personality),
            ("seccomp", libc::SYS_seccomp),
            ("bpf", libc::SYS_bpf),
            ("statx", libc::SYS_statx),
            ("io_uring_setup", libc::SYS_io_uring_setup),
            ("clone3", libc::SYS_clone3),
            ("faccessat2", libc::SYS_faccessat2),
            ("mseal", libc::SYS_mseal),
        ];
        for (name, number) in known {
            assert_eq!(numbers.get(name).map(|number| i64::from(*number)), Some(number), "{name}");
        }
    }

    #[test]
    fn each_table_has_its_own_numbers() {
        for (convention, write) in [(Convention::X86_64, 1), (Convention::I386, 4), (Convention::Aarch64, 64)]
        {
            assert_eq!(convention.numbers().get("write"), Some(&write));
            assert_eq!(convention.numbers().get("mseal"), Some(&462));
        }
    }
}
