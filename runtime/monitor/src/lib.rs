//! The language of the daemon and a pod's monitor: launch plans, requests and replies, and their encoding.
//!
//! The daemon compiles, the monitor executes. This library is the shared vocabulary; it depends on libc alone, so that
//! the monitor stays a small static program.

pub mod exit_file;
pub mod message;
pub mod plan;
pub mod protocol;
pub mod wire;
