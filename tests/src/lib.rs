//! Black-box tests, fault injection, conformance and benchmarks; talks to the programs only from outside.
//!
//! Each test has a [`Node`]: a daemon with its own root, state, cgroup, bridge, subnet and nft table, whose end leaves
//! nothing. [`Registry`] is Debian's docker-registry on loopback. Programs come from the folders that `tests/run` names
//! in `SLIPWAY_PROGRAMS` and `SLIPWAY_PEERS`.

pub mod artifact;
pub mod authority;
pub mod bridge;
pub mod build;
pub mod buildkit;
pub mod busybox;
pub mod case;
pub mod compiler;
pub mod embedded;
pub mod fault;
pub mod frozen;
pub mod grpc;
pub mod http2;
pub mod image;
pub mod machine;
pub mod netns;
pub mod node;
pub mod older;
pub mod output;
pub mod pod;
pub mod probe;
pub mod registry;
pub mod residue;
pub mod scripted;
pub mod sockets;
pub mod tarball;
pub mod tokens;
pub mod tree;

pub use authority::Authority;
pub use embedded::Embedded;
pub use machine::{Need, lacks};
pub use netns::{Netns, World};
pub use node::Node;
pub use older::OlderMonitor;
pub use output::Output;
pub use pod::Pod;
pub use registry::Registry;
pub use residue::{Residue, monitor};
pub use scripted::Scripted;
pub use tokens::Tokens;

use std::path::PathBuf;

/// The folder that an environment variable names, or a clear failure: these tests are started by `tests/run`.
///
/// # Panics
/// When the variable is absent.
#[must_use]
pub fn folder(variable: &str) -> PathBuf {
    let Some(path) = std::env::var_os(variable) else {
        panic!("{variable} is not set: run these tests by tests/run, as root");
    };
    PathBuf::from(path)
}

/// Notes that a test can't run here and why; the caller returns, and the runner counts it as skipped. Where it is not in
/// `tests/data/skips.txt`, the run fails.
///
/// # Panics
/// When the runner's list can't be written.
pub fn skip(test: &str, why: &str) {
    use std::io::Write as _;
    let path = folder("SLIPWAY_SKIPS");
    let mut list =
        std::fs::OpenOptions::new().append(true).create(true).open(path).expect("the list of skips opens");
    // In one piece, for other tests write to it at the same time.
    list.write_all(format!("{test}: {why}\n").as_bytes()).expect("the list of skips is written");
}

/// Waits until something is so.
///
/// # Panics
/// When it is not within half a minute.
#[track_caller]
pub fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
