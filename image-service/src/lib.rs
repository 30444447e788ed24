//! Images at rest: references, registry client, content store, layers, snapshots and garbage collection.
//!
//! [`Store`] is the whole of it for a caller: it pulls and pushes (async), and everything that touches the disk alone is
//! synchronous and wants `spawn_blocking` from async code. Nothing here mounts: a [`Snapshot`] names directories and the
//! caller stacks them.
//!
//! ```text
//! digest                   typed digests; references are the leaf package slipway-reference
//! registry/                hosts and mirrors, auth, requests, uploads
//! layer/, layers           tar -> directory (apply), directory -> tar (diff), and the exact tar again (skeleton)
//! durable, records, index  the files under the root, and what they say, in memory
//! pull, push, images       what makes and names images; once: two pulls of one image are one
//! gc, lease, check         what keeps them, and what doesn't
//! ```

mod check;
mod credentials;
mod digest;
mod durable;
mod error;
mod gc;
mod image;
mod images;
mod index;
mod layer;
mod layers;
mod lease;
mod once;
mod pull;
mod push;
mod records;
mod registry;
mod store;

pub use credentials::Credentials;
pub use digest::{ChainId, DiffId, Digest, ImageId};
pub use error::{Error, Result};
pub use image::{
    Checked, Finding, Image, LayerRecord, Leased, Lower, PruneOptions, Pruned, PullProgress, Removed,
    Snapshot, Usage,
};
pub use layer::compression::is_tar;
pub use lease::Lease;
pub use slipway_reference::Reference;
pub use store::{Limits, Store, StoreConfig};
