//! The names of images: [`Reference`], as a user writes one and as it is normalised, and [`Digest`], the content address that it
//! may end with. This is a leaf package: it knows no other part of Slipway and does no input or output.

mod digest;
mod error;
mod reference;

pub use digest::Digest;
pub use error::{Error, Result};
pub use reference::Reference;
