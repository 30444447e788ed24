//! Containers in motion: sandboxes and containers made from data, by launch plans that a monitor executes.
//!
//! The crate knows neither gRPC nor images: a root file system arrives as directories, a configuration as an
//! `oci_spec` document. Everything here is synchronous.

pub mod capabilities;
pub mod cgroup;
mod error;
pub mod network;
pub mod seccomp;
#[expect(unsafe_code, reason = "every raw system call of the crate lives here")]
mod sys;

pub use error::{Error, Result};
