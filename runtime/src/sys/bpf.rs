//! `bpf(2)`: loading a device program and attaching it to a cgroup.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// `struct bpf_insn`. Arithmetic and comparisons are of 32 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u8,
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

impl Instruction {
    fn new(code: u8, to: u8, from: u8) -> Self {
        Self { code, registers: to | (from << 4), offset: 0, immediate: 0 }
    }

    /// `to = *(u32 *)(from + offset)`
    pub(crate) fn load_word(to: u8, from: u8, offset: i16) -> Self {
        Self { offset, ..Self::new(0x61, to, from) }
    }

    /// `to = from`
    pub(crate) fn copy(to: u8, from: u8) -> Self {
        Self::new(0xbc, to, from)
    }

    /// `to = value`
    pub(crate) fn set(to: u8, value: i32) -> Self {
        Self { immediate: value, ..Self::new(0xb4, to, 0) }
    }

    /// `to &= value`
    pub(crate) fn and(to: u8, value: i32) -> Self {
        Self { immediate: value, ..Self::new(0x54, to, 0) }
    }

    /// `to >>= value`
    pub(crate) fn shift_right(to: u8, value: i32) -> Self {
        Self { immediate: value, ..Self::new(0x74, to, 0) }
    }

    /// Skip instructions unless a register has a value.
    pub(crate) fn jump_unless_equal(register: u8, value: i32, skip: i16) -> Self {
        Self { offset: skip, immediate: value, ..Self::new(0x56, register, 0) }
    }

    /// Skip instructions if a register has a value.
    pub(crate) fn jump_if_equal(register: u8, value: i32, skip: i16) -> Self {
        Self { offset: skip, immediate: value, ..Self::new(0x16, register, 0) }
    }

    /// Answer with `r0`.
    pub(crate) fn exit() -> Self {
        Self::new(0x95, 0, 0)
    }
}

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`, up to `expected_attach_type`.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// The beginning of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Have the kernel check and keep a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.
pub(crate) fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let count = u32::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let attributes = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count,
        instructions: program.as_ptr().expose_provenance() as u64,
        license: license.as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"slipway_devices\0",
        interface: 0,
        attach_type: CGROUP_DEVICE,
    };
    // SAFETY: `attributes` is a live repr(C) prefix of union bpf_attr whose exact size is passed along; it points to
    // `program` and `license`, which outlive the call and are only read.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<Load>()) };
    let descriptor = i32::try_from(result).unwrap_or(-1);
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call just returned this descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Put a device program in force for a cgroup and all below it, besides those of its parents.
pub(crate) fn attach_device_program(cgroup: &impl AsFd, program: &impl AsFd) -> io::Result<()> {
    let attributes = Attach {
        target: cgroup.as_fd().as_raw_fd().cast_unsigned(),
        program: program.as_fd().as_raw_fd().cast_unsigned(),
        kind: CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: `attributes` is a live repr(C) prefix of union bpf_attr whose exact size is passed along; both
    // descriptors are borrowed for the call; the kernel only reads it.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attributes, size_of::<Attach>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
