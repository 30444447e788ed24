//! The errors of images, one for each way in which a caller treats them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use slipway_reference::{Digest, Reference};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the image service. It is `Clone`, for everyone who waits for one piece of work gets it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// An error of an image or layer: the cause is the source.
    #[error("{subject}")]
    Of {
        /// `image <reference>` or `layer <digest>`.
        subject: String,
        /// The error, which does not name it again.
        source: Box<Self>,
    },
    /// The text is no image reference or digest, or not one that is of use there.
    #[error(transparent)]
    Name(#[from] slipway_reference::Error),
    /// A hosts.toml can't be used.
    #[error("invalid registry configuration {path}: {reason}")]
    InvalidHosts {
        /// The file.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
    /// No image of that name or id is here.
    #[error("image {name} is not here: pull or build it first")]
    ImageMissing {
        /// The object that was asked for.
        name: String,
    },
    /// The short id fits several images.
    #[error("image id {name} fits {count} images: give more digits")]
    AmbiguousId {
        /// The object that was asked for.
        name: String,
        /// How many images fit.
        count: usize,
    },
    /// The image is held by a container or a build.
    #[error("image {name} is in use: remove the containers that run from it first")]
    ImageInUse {
        /// The object that was asked for.
        name: String,
    },
    /// A layer that is needed is not in the store, or was found damaged.
    #[error("layer {layer} is missing or damaged: pull the image again")]
    LayerMissing {
        /// Its diff id.
        layer: String,
    },
    /// The registry wants (other) credentials.
    #[error("registry {host} refuses access to {object}: {reason}")]
    Unauthorized {
        /// The registry.
        host: String,
        /// The object that was asked for.
        object: String,
        /// Its answer, and advice.
        reason: String,
    },
    /// The registry can't be reached, or answers with an error of its own.
    #[error("registry {host} is unavailable for {object}: {reason}")]
    RegistryUnavailable {
        /// The registry.
        host: String,
        /// The object that was asked for.
        object: String,
        /// The failure.
        reason: String,
    },
    /// The registry does not have it.
    #[error("registry {host} does not have {object}: check the name and the tag")]
    NotFoundInRegistry {
        /// The registry.
        host: String,
        /// The object that was asked for.
        object: String,
    },
    /// Bytes are not what their digest says.
    #[error("{object} has digest {actual}, expected {expected}: the source is damaged or lies")]
    DigestMismatch {
        /// The object.
        object: String,
        /// The digest that it should have.
        expected: Digest,
        /// The digest that it has.
        actual: Digest,
    },
    /// A manifest, index or configuration that can't be used.
    #[error("{object} is not usable: {reason}")]
    ManifestRejected {
        /// The object.
        object: String,
        /// Why.
        reason: String,
    },
    /// A layer that is hostile, broken, or over a limit.
    #[error("layer {layer} is refused: {reason}")]
    LayerRejected {
        /// Its digest, or where it comes from.
        layer: String,
        /// Why, with the numbers.
        reason: String,
    },
    /// A file of the store does not say what it should.
    #[error("{path} is damaged: {reason}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
    /// Another process has the store open.
    #[error("image store {path} is in use by another process: stop that one first")]
    StoreBusy {
        /// Its root.
        path: PathBuf,
    },
    /// The work was given up because nobody waits for it.
    #[error("{what} was cancelled")]
    Cancelled {
        /// The work.
        what: String,
    },
    /// A system call on a file.
    #[error("{action} {path}")]
    Io {
        /// The action, as a verb phrase.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it can't be.
        source: Arc<io::Error>,
    },
}

impl Error {
    /// Whether it is about the image itself, so that asking again changes nothing: what was fetched of it is dropped.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self.cause(),
            Self::DigestMismatch { .. }
                | Self::ManifestRejected { .. }
                | Self::LayerRejected { .. }
                | Self::NotFoundInRegistry { .. }
                | Self::Unauthorized { .. }
        )
    }

    /// The cause, without the image and the layer that it concerns.
    pub fn cause(&self) -> &Self {
        let mut error = self;
        while let Self::Of { source, .. } = error {
            error = source;
        }
        error
    }

    /// The same error with another cause, of the same image and layer.
    #[must_use]
    pub fn map_cause(self, change: impl FnOnce(Self) -> Self) -> Self {
        let (mut subjects, mut error) = (Vec::new(), self);
        while let Self::Of { subject, source } = error {
            subjects.push(subject);
            error = *source;
        }
        let of = |source, subject| Self::Of { subject, source: Box::new(source) };
        subjects.into_iter().rev().fold(change(error), of)
    }

    /// The error of a pull or push of this image.
    pub(crate) fn of_image(self, reference: &Reference) -> Self {
        Self::Of { subject: format!("image {reference}"), source: Box::new(self) }
    }

    /// The error of a layer of the image.
    pub(crate) fn of_layer(self, layer: impl std::fmt::Display) -> Self {
        match self {
            named @ (Self::LayerRejected { .. } | Self::LayerMissing { .. }) => named,
            other => Self::Of { subject: format!("layer {layer}"), source: Box::new(other) },
        }
    }

    /// Makes a closure for `map_err` that says what was done to which path.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        move |source| {
            let path = path.as_ref().to_path_buf();
            let source = Arc::new(slipway_disk::explained(&path, source.into()));
            Self::Io { action, path, source }
        }
    }
}

impl From<slipway_disk::walker::Error> for Error {
    fn from(error: slipway_disk::walker::Error) -> Self {
        if matches!(error, slipway_disk::walker::Error::Stopped) {
            return Self::Cancelled { what: "a walk over files".into() };
        }
        let (action, path, source) = error.into_parts();
        Self::Io { action, path, source: Arc::new(source) }
    }
}

impl From<slipway_disk::Error> for Error {
    fn from(error: slipway_disk::Error) -> Self {
        Self::io(error.action, error.path)(error.source)
    }
}

impl From<slipway_disk::record::Damage> for Error {
    fn from(damage: slipway_disk::record::Damage) -> Self {
        Self::Corrupt { path: damage.path, reason: damage.reason }
    }
}
