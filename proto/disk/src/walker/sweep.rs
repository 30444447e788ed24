//! Removal in the background: of what an earlier process left, which may be large, and must not delay the start of this one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Error, never, remove};

/// The files that could not be removed, and why. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Remnants(Arc<Mutex<BTreeMap<PathBuf, String>>>);

impl Remnants {
    /// Removes a path; what can't be removed is remembered until a later removal of the path succeeds.
    ///
    /// # Errors
    /// As [`remove`].
    pub fn remove(&self, path: &Path) -> Result<(), Error> {
        let outcome = remove(path, &never);
        match &outcome {
            Ok(()) => drop(self.lock().remove(path)),
            Err(error) => drop(self.lock().insert(path.to_owned(), told(error))),
        }
        outcome
    }

    /// Removes paths on a thread of its own, which nothing but the end of the process stops, and waits for it no longer
    /// than `patience`. `failed` is called for each path that can't be removed, which is remembered.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn sweep(
        &self,
        paths: Vec<PathBuf>,
        patience: Duration,
        failed: impl Fn(&Path, &Error) + Send + 'static,
    ) -> std::io::Result<()> {
        if paths.is_empty() {
            return Ok(());
        }
        let (done, finished) = channel::<()>();
        let remnants = self.clone();
        let work = move || {
            for path in paths {
                if let Err(error) = remnants.remove(&path) {
                    failed(&path, &error);
                }
            }
            drop(done);
        };
        std::thread::Builder::new().name("sweep".to_owned()).spawn(work)?;
        // The end of the sender is what is waited for: nothing is sent.
        let _ = finished.recv_timeout(patience);
        Ok(())
    }

    /// The files that are still there, with the reason why it could not be removed.
    #[must_use]
    pub fn list(&self) -> Vec<(PathBuf, String)> {
        let mut remnants = self.lock();
        remnants.retain(|path, _| path.symlink_metadata().is_ok());
        remnants.iter().map(|(path, problem)| (path.clone(), problem.clone())).collect()
    }

    /// Tries to remove all of it once more.
    pub fn retry(&self) {
        let paths: Vec<PathBuf> = self.lock().keys().cloned().collect();
        for path in paths {
            // A removal that fails again is remembered again.
            let _ = self.remove(&path);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with its cause, for people.
#[must_use]
pub fn told(error: &Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
