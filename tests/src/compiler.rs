//! C programs for containers.

use std::path::Path;

/// Compiles a C program, static so that it runs in any root.
///
/// # Panics
/// When the compiler fails.
pub fn compile(source: &str, target: &Path, flags: &[&str]) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("program.c");
    std::fs::write(&file, source).expect("the source is written");
    let compiled = std::process::Command::new("cc").args(flags).arg("-o").arg(target).arg(&file).status();
    assert!(compiled.expect("cc runs").success(), "{} does not compile", target.display());
}
