//! The registry's side: which hosts, how to prove who asks, requests with bounded retries, manifests, blobs, uploads.

pub(crate) mod auth;
pub(crate) mod client;
pub(crate) mod hosts;
pub(crate) mod manifest;
pub(crate) mod session;
pub(crate) mod upload;

pub(crate) use manifest::{Descriptor, Document, Manifest};
pub(crate) use session::{Access, Chunk, Session};
