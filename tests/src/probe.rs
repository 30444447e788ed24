//! An image with `probe`, which makes one system call and says what came of it; `data/probe.c` lists the calls.

use crate::Node;
use std::path::Path;
use std::process::Command;

/// Builds the busybox image with `/bin/probe` in it, and more Dockerfile lines, under a name.
///
/// # Panics
/// When the compiler or the build fails.
pub fn build(node: &Node, name: &str, more: &str) {
    build_from(node, name, |context| crate::busybox::context(context, more));
}

/// Builds an image with `/bin/probe` from a context whose `root/` directory is the image's root.
///
/// # Panics
/// When the compiler or the build fails.
pub fn build_from(node: &Node, name: &str, fill: impl FnOnce(&Path)) {
    let context = tempfile::tempdir_in(node.path("")).expect("a build context");
    fill(context.path());
    let source = context.path().join("probe.c");
    std::fs::write(&source, include_str!("../data/probe.c")).expect("the source is written");
    let target = context.path().join("root/bin/probe");
    let compiled = Command::new("cc").arg("-static").arg("-o").arg(&target).arg(&source).status();
    assert!(compiled.expect("cc runs").success(), "the probe does not compile");
    let output = node.slipway(&["build", "-t", name, &context.path().display().to_string()]);
    assert_eq!(output.status, 0, "{output:#?}\n{}", node.log());
}
