//! Why a text is no name of an image.

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A text that is no name of an image.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The text is no image reference, or not one that is of use where it was given.
    #[error("invalid image reference {reference:?}: {reason}")]
    InvalidReference {
        /// The text.
        reference: String,
        /// The reason.
        reason: &'static str,
    },
    /// The text is no sha256 digest.
    #[error("invalid digest {digest:?}: expected sha256: and 64 lower-case hexadecimal digits")]
    InvalidDigest {
        /// The text.
        digest: String,
    },
}
