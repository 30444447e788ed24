//! Builds of tests: a context with its files, and what `slipway build` and the image say.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{Node, Output};

/// A build context.
#[derive(Debug)]
pub struct Context {
    directory: TempDir,
}

impl Context {
    /// A directory with this Dockerfile.
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    pub fn new(dockerfile: &str) -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").expect("a directory for the context");
        Self { directory }.file("Dockerfile", dockerfile)
    }

    /// The context with one more file, and the directories that it needs.
    ///
    /// # Panics
    /// When it can't be written.
    #[must_use]
    pub fn file(self, name: &str, text: &str) -> Self {
        self.write(name, text);
        self
    }

    /// Writes a file anew.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories of the context");
        std::fs::write(path, text).expect("a file of the context");
    }

    /// A path in it.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> String {
        self.directory.path().display().to_string()
    }
}

/// A build that must succeed.
///
/// # Panics
/// When it fails.
#[track_caller]
#[must_use]
pub fn built(node: &Node, context: &Context, flags: &[&str]) -> Output {
    let output = node.slipway(&[&["build"], flags, &[&context.path()]].concat());
    assert_eq!(output.status, 0, "{}\n{}\n{}", output.stdout, output.stderr, node.log());
    output
}

/// A build that must fail: the one line that says why, after the steps.
///
/// # Panics
/// When it succeeds, or says more than one line to the terminal for it.
#[track_caller]
#[must_use]
pub fn failed(node: &Node, context: &Context, flags: &[&str]) -> String {
    let output = node.slipway(&[&["build", "-q"], flags, &[&context.path()]].concat());
    let said = output.error();
    assert_eq!((output.status, said.lines().count(), output.stdout.as_str()), (1, 1, ""), "{output:#?}");
    said.to_owned()
}

/// The output of a command in a container of an image; without one, of the image's own.
///
/// # Panics
/// When it fails.
#[track_caller]
#[must_use]
pub fn run(node: &Node, image: &str, command: &[&str]) -> String {
    let output = node.slipway(&[&["run", "--rm", "--network", "host", image], command].concat());
    output.ok().to_owned()
}
