//! Cases of what a Dockerfile means, one a file of `tests/dockerfiles`: a build and the image that it makes.
//!
//! ```text
//! # why the case is there
//! -- arguments --   flags of `slipway build`, as a shell reads them
//! -- context --     a shell script that makes the context in an empty directory
//! -- base NAME --   a Dockerfile whose image is built first, from the same context
//! -- Dockerfile --  the build
//! -- image --       the image, or `fails`: recorded from BuildKit
//! -- buildkit --    BuildKit's image where it is another on purpose; the comment says why
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Output;

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    path: PathBuf,
    comment: String,
    sections: Vec<(String, String)>,
}

impl Case {
    /// All cases of a group, sorted by their names.
    ///
    /// # Panics
    /// When there is none, or one can't be read.
    #[must_use]
    pub fn group(name: &str) -> Vec<Self> {
        let folder = folder().join(name);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{folder:?} has no case");
        paths.into_iter().map(Self::read).collect()
    }

    fn read(path: PathBuf) -> Self {
        let text = std::fs::read_to_string(&path).expect("a case is read");
        let mut case = Self { path, comment: String::new(), sections: Vec::new() };
        for line in text.split_inclusive('\n') {
            match line.trim_end().strip_prefix("-- ").and_then(|rest| rest.strip_suffix(" --")) {
                Some(title) => case.sections.push((title.to_owned(), String::new())),
                None => case.sections.last_mut().map_or(&mut case.comment, |(_, text)| text).push_str(line),
            }
        }
        assert!(case.section("Dockerfile").is_some(), "{:?} has no Dockerfile", case.path);
        case
    }

    /// The group and the case.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.strip_prefix(folder()).expect("it lies there").display().to_string()
    }

    fn section(&self, title: &str) -> Option<&str> {
        self.sections.iter().find(|(known, _)| known == title).map(|(_, text)| text.as_str())
    }

    /// The flags of the build.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let words = self.section("arguments").unwrap_or_default();
        let script = format!("printf '%s\\n' {}", words.replace('\n', " "));
        let printed = Output::of(Command::new("sh").args(["-c", &script]));
        if words.trim().is_empty() { Vec::new() } else { printed.ok().lines().map(str::to_owned).collect() }
    }

    /// The images to build first: their names, and their Dockerfiles in the context.
    #[must_use]
    pub fn bases(&self) -> Vec<(String, String)> {
        let titles = self.sections.iter().filter_map(|(title, _)| title.strip_prefix("base "));
        titles
            .enumerate()
            .map(|(number, name)| (name.to_owned(), format!("base-{number}.Dockerfile")))
            .collect()
    }

    /// Makes the context in a directory.
    ///
    /// # Panics
    /// When its script fails.
    pub fn make_context(&self, directory: &Path) {
        let script = format!("set -e; umask 022\n{}", self.section("context").unwrap_or_default());
        let _ = Output::of(Command::new("sh").args(["-c", &script]).current_dir(directory)).ok();
        let bases = self.sections.iter().filter(|(title, _)| title.starts_with("base "));
        for ((_, text), (_, file)) in bases.zip(self.bases()) {
            std::fs::write(directory.join(file), text).expect("a base's Dockerfile");
        }
        let text = self.section("Dockerfile").unwrap_or_default();
        std::fs::write(directory.join("Dockerfile"), text).expect("the Dockerfile");
    }

    /// The image that Slipway has to make.
    #[must_use]
    pub fn image(&self) -> &str {
        self.section("image").unwrap_or_default()
    }

    /// The image that BuildKit makes.
    #[must_use]
    pub fn of_buildkit(&self) -> &str {
        self.section("buildkit").unwrap_or_else(|| self.image())
    }

    /// Writes what BuildKit makes into the case's file.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn record(&mut self, image: &str) {
        let title = if self.section("buildkit").is_some() { "buildkit" } else { "image" };
        match self.sections.iter_mut().find(|(known, _)| known == title) {
            Some((_, text)) => image.clone_into(text),
            None => self.sections.push((title.to_owned(), image.to_owned())),
        }
        let sections = self.sections.iter().map(|(title, text)| format!("-- {title} --\n{text}"));
        let text = std::iter::once(self.comment.clone()).chain(sections).collect::<String>();
        std::fs::write(&self.path, text).expect("the case is written");
    }
}

/// The folder of all cases.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dockerfiles")
}
