//! Seccomp: profiles in OCI form, compiled here into the classic BPF program that the kernel runs at each system call.
//!
//! ```text
//! architecture? -> number beyond the profile? -> binary search over ranges of numbers -> answer
//!                                                                                     -> arguments -> answer
//! ```
//!
//! Only the tables of names in [`table`] belong to a machine. Foreign architectures end the process; on x86_64 a
//! profile that names `SCMP_ARCH_X86` covers 32-bit programs too, and the x32 numbers always answer `ENOSYS`.

mod compile;
mod profile;
mod program;
mod table;

pub use compile::{compile, compile_for, flags};
pub use profile::default_profile;
pub use table::Machine;
