//! The builder: its scratch directory, which is emptied when it is made, and the builds that share it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::rand::GetRandomFlags;
use slipway_disk::atomic;
use slipway_disk::walker::{self, Remnants};
use slipway_image::{Reference, Store};
use slipway_runtime::{Owner, Runtime};

use crate::build::{Build, BuildRequest, Built, Session};
use crate::error::{Error, Result};
use crate::flight::Flights;

/// The place where a builder keeps unfinished work.
#[derive(Clone, Debug)]
pub struct BuilderConfig {
    /// A directory of the builder's own on the store's file system; it is emptied when the builder is made.
    pub scratch: PathBuf,
}

/// Builds images. Clones share it.
#[derive(Clone, Debug)]
pub struct Builder {
    store: Store,
    runtime: Runtime,
    config: BuilderConfig,
    flights: Flights,
    remnants: Remnants,
}

impl Builder {
    /// A builder; the files that an earlier one has left behind are removed.
    ///
    /// # Errors
    /// When the scratch directory can't be emptied and made.
    pub fn new(store: Store, runtime: Runtime, config: BuilderConfig) -> Result<Self> {
        for sandbox in runtime.sandboxes() {
            let id = &sandbox.config.id;
            if sandbox.config.owner == Owner::Build
                && let Err(error) = runtime.remove_sandbox(id)
            {
                tracing::warn!(sandbox = %id, %error, "remove an unfinished build's sandbox");
            }
        }
        let made = atomic::make_directory(&config.scratch, 0o700);
        let aside = made.map_err(|error| Error::io(error.action, &error.path)(error.source))?;
        if let Some(aside) = aside {
            tracing::error!(aside = %aside.display(), "it stood where a directory belongs and was renamed");
        }
        let remnants = Remnants::default();
        clear(&config.scratch, &remnants);
        Ok(Self { store, runtime, config, flights: Flights::default(), remnants })
    }

    /// The files that earlier builds left and that could not be removed, which nothing refers to.
    #[must_use]
    pub fn remnants(&self) -> &Remnants {
        &self.remnants
    }

    /// Builds an image. It blocks; failing or cancelled, it leaves nothing but cached layers.
    ///
    /// # Errors
    /// [`Error::Dockerfile`] and [`Error::Step`] name the line; [`Error::Cancelled`] after a cancellation.
    pub fn build(&self, request: &BuildRequest, session: &Session<'_>) -> Result<Built> {
        let tags = request.tags.iter().map(|tag| Ok(tag.parse()?)).collect::<Result<Vec<Reference>>>()?;
        let id = random_id()?;
        let scratch = Scratch::create(self.config.scratch.join(&id), &self.remnants)?;
        let build = Build {
            store: &self.store,
            runtime: &self.runtime,
            flights: &self.flights,
            request,
            session,
            id,
            scratch: scratch.path.clone(),
            drafts: 0,
            steps: 0,
            sandbox: None,
            telling: None,
            done: BTreeMap::new(),
            declared: BTreeSet::new(),
            globals: BTreeMap::new(),
        };
        build.whole(&tags).map(|image| Built { image })
    }
}

/// How long the removal of what earlier builds left may delay the start.
const PATIENCE: Duration = Duration::from_secs(1);

/// Removes what earlier builds left: after a moment in the background. Each build has a directory of its own, so that new
/// ones are not concerned.
fn clear(scratch: &Path, remnants: &Remnants) {
    let left = std::fs::read_dir(scratch).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>()
    });
    if let Err(error) = left.and_then(|left| remnants.sweep(left, PATIENCE, stays)) {
        tracing::error!(path = %scratch.display(), %error, "what earlier builds have left is not removed");
    }
}

fn stays(path: &Path, error: &walker::Error) {
    tracing::error!(
        path = %path.display(),
        error = walker::told(error),
        "it can't be removed and stays: mend that, then run slipway check --repair"
    );
}

/// A build's own directory; dropping it removes it.
struct Scratch {
    path: PathBuf,
    remnants: Remnants,
}

impl Scratch {
    fn create(path: PathBuf, remnants: &Remnants) -> Result<Self> {
        std::fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        Ok(Self { path, remnants: remnants.clone() })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.remnants.remove(&self.path) {
            stays(&self.path, &error);
        }
    }
}

fn random_id() -> Result<String> {
    let mut bytes = [0_u8; 8];
    rustix::rand::getrandom(bytes.as_mut_slice(), GetRandomFlags::empty())
        .map_err(Error::io("read", "/dev/urandom"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
