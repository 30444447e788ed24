//! Layers: a tar becomes a directory in overlayfs form, a directory becomes a tar, and the exact tar comes back.
//!
//! ```text
//! layers/<key>/            key: <diff id>, or chain-<chain id> where the tar leans on what lies below
//!     fs/                  the files; whiteouts are 0:0 character devices, opaque directories carry the xattr
//!     skeleton             every byte of the tar that is no file's data (zstd), and where the data is
//!     kept/<n>             what a later entry of the same tar replaced, for the exact tar still has it
//!     record               written last, after the file system was synced
//! ```

pub(crate) mod apply;
pub(crate) mod below;
pub(crate) mod compression;
pub(crate) mod diff;
pub(crate) mod pipeline;
pub(crate) mod root;
pub(crate) mod skeleton;
pub(crate) mod tar;

/// The size of a layer, as it turned out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Bytes on disk, by whole blocks.
    pub(crate) bytes: u64,
    /// Inodes.
    pub(crate) inodes: u64,
    /// Things in `kept/`.
    pub(crate) kept: u64,
}

/// Why a layer could not be made.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It leans on the layers below, which were not given.
    NeedsBelow,
    /// The tar is hostile or broken, or over a limit.
    Rejected(String),
    /// Everything else.
    Other(crate::error::Error),
}

impl From<crate::error::Error> for Failure {
    fn from(error: crate::error::Error) -> Self {
        Self::Other(error)
    }
}

impl Failure {
    /// The refusal, with the entry's name made printable.
    pub(crate) fn entry(path: &[u8], reason: &str) -> Self {
        Self::Rejected(format!("entry {:?}: {reason}", String::from_utf8_lossy(path)))
    }

    /// The error for a layer of this name.
    pub(crate) fn for_layer(self, layer: &str) -> crate::error::Error {
        let rejected = |reason| crate::error::Error::LayerRejected { layer: layer.to_owned(), reason };
        match self {
            Self::NeedsBelow => {
                rejected("it leans on directories or links of layers that are not below it".into())
            }
            Self::Rejected(reason) => rejected(reason),
            Self::Other(error) => error,
        }
    }
}
