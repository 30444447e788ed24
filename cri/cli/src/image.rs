//! The verbs of images.

pub(crate) mod build;
mod filter;
pub(crate) mod fs_info;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod remove;
pub(crate) mod tag;
mod transfer;
pub(crate) mod untag;
