//! The layers of an image as directories that can be stacked.

use std::path::PathBuf;

use slipway_image::{DiffId, Lower, Store};

use crate::error::{Error, Result};

/// The directories of layers, the topmost first.
pub(crate) fn directories(store: &Store, layers: &[DiffId]) -> Result<Vec<PathBuf>> {
    let directory = |lower| match lower {
        Lower::Directory(path) => Ok(path),
        other => Err(Error::Invalid(format!("a layer of another form can't be built on: {other:?}"))),
    };
    store.lowers(layers)?.lowers.into_iter().map(directory).collect()
}
