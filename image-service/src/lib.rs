//! Images at rest: references, registry client, content store, layers, snapshots and garbage collection.
//!
//! [`Store`] is the whole of it for a caller: it pulls and pushes (async), and everything that touches the disk alone is
//! synchronous and wants `spawn_blocking` from async code. Nothing here mounts: a [`Snapshot`] names directories and the
//! caller stacks them.
//!
//! ```text
//! reference, digest        what things are called
//! registry/                hosts and mirrors, auth, requests, uploads
//! layer/                   tar -> directory (apply), directory -> tar (diff), and the exact tar again (skeleton)
//! blobs, records, index    the files under the root, and what they say, in memory
//! pull, push, commit       what makes images
//! gc, lease, check         what keeps them, and what doesn't
//! ```

mod credentials;
mod digest;
mod error;
mod image;
mod reference;
mod store;

pub use credentials::Credentials;
pub use digest::{DiffId, Digest, ImageId};
pub use error::{Error, Result};
pub use image::{
    Finding, Image, LayerRecord, Lower, PruneOptions, Pruned, PullProgress, Removed, Snapshot, Usage,
};
pub use reference::Reference;
pub use store::{Lease, Limits, Store, StoreConfig};
