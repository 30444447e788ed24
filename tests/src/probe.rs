//! An image with `probe`, which makes one system call and says what came of it; `data/probe.c` lists the calls.

use crate::{Node, compiler};
use std::path::Path;

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
    compile(&context.path().join("root/bin"));
    let output = node.slipway(&["build", "-t", name, &context.path().display().to_string()]);
    assert_eq!(output.status, 0, "{output:#?}\n{}", node.log());
}

/// Compiles `probe`, and `spy`, which looks for what a container should not reach, into a directory; both are static.
///
/// # Panics
/// When the compiler fails.
pub fn compile(directory: &Path) {
    compiler::compile(include_str!("../data/probe.c"), &directory.join("probe"), &["-static"]);
    compiler::compile(include_str!("../data/spy.c"), &directory.join("spy"), &["-static"]);
}
