//! Every raw system call of the crate, one function a call.

pub(crate) mod bpf;
pub(crate) mod fork;
pub(crate) mod memory;
pub(crate) mod netns;

pub(crate) mod mount;
pub(crate) mod xtables;
