//! The build context: a directory that is opened once, checked, and read through its descriptor.

use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::dockerfile::{Dockerfile, parse};
use crate::error::{Error, Result};
use crate::ignore::Ignore;
use crate::tree::Tree;

const MAX_FILE: u64 = 1 << 22;

/// Where the files of a build come from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Context {
    /// A directory of this host; device and inode tell whether it is the one that the client sees.
    Path {
        /// Its absolute path.
        path: PathBuf,
        /// `st_dev` as the client sees it.
        device: u64,
        /// `st_ino` as the client sees it.
        inode: u64,
    },
}

/// The texts of files that lie outside of the context.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Texts<'a> {
    /// The Dockerfile's.
    pub(crate) dockerfile: Option<&'a [u8]>,
    /// That of the .dockerignore beside it.
    pub(crate) dockerignore: Option<&'a [u8]>,
}

/// An opened context.
#[derive(Debug)]
pub(crate) struct OpenContext {
    /// The files.
    pub(crate) tree: Tree,
    /// The rules of what stays out.
    pub(crate) ignore: Ignore,
    /// The Dockerfile.
    pub(crate) dockerfile: Dockerfile,
}

impl OpenContext {
    /// Opens the context and reads the Dockerfile and .dockerignore.
    pub(crate) fn open(context: &Context, name: Option<&Path>, texts: Texts<'_>) -> Result<Self> {
        let tree = open(context)?;
        let name = name.unwrap_or(Path::new("Dockerfile"));
        let bytes = match texts.dockerfile {
            Some(bytes) => bytes.to_vec(),
            None => tree.read(relative(name)?, MAX_FILE)?.ok_or_else(|| Error::Missing {
                path: name.display().to_string(),
                place: "the build context".into(),
            })?,
        };
        let ignore = ignore(&tree, name, texts)?;
        Ok(Self { tree, ignore, dockerfile: parse(&bytes)? })
    }
}

/// The rules of what stays out: a Dockerfile's own, which lie beside it, replace those of the context.
fn ignore(tree: &Tree, name: &Path, texts: Texts<'_>) -> Result<Ignore> {
    if let Some(bytes) = texts.dockerignore {
        return Ignore::parse("the Dockerfile's own .dockerignore", bytes);
    }
    let own = texts.dockerfile.is_none().then(|| format!("{}.dockerignore", name.display()));
    for file in own.into_iter().chain([".dockerignore".to_owned()]) {
        if let Some(bytes) = tree.read(Path::new(&file), MAX_FILE)? {
            return Ignore::parse(&file, &bytes);
        }
    }
    Ok(Ignore::default())
}

fn open(context: &Context) -> Result<Tree> {
    let Context::Path { path, device, inode } = context;
    let fail = |reason: &str| Error::Context { path: path.clone(), reason: reason.to_owned() };
    if !path.is_absolute() {
        return Err(fail("the path must be absolute"));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| fail(&format!("{errno}: name a directory that the daemon can open")))?;
    let stat = rustix::fs::fstat(&fd).map_err(Error::io("stat", path))?;
    if (stat.st_dev, stat.st_ino) != (*device, *inode) {
        return Err(fail("the daemon sees another directory there: build from one that both see"));
    }
    Ok(Tree::of(fd))
}

fn relative(path: &Path) -> Result<&Path> {
    let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if inside {
        return Ok(path);
    }
    Err(Error::Invalid(format!(
        "Dockerfile {}: its path must be relative, inside of the context",
        path.display()
    )))
}
