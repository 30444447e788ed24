//! Images at rest: references, registry client, content store, layers, snapshots and garbage collection.
//!
//! [`Store`] is the whole of it for a caller: it pulls and pushes (async), and everything that touches the disk alone is
//! synchronous and wants `spawn_blocking` from async code. Nothing here mounts: a [`Snapshot`] names directories and the
//! caller stacks them.
//!
//! ```text
//! digest                    typed digests; references are the leaf package slipway-reference
//! registry/                 hosts and mirrors, auth, requests, uploads
//! layer/, layers            tar -> directory (apply), directory -> tar (diff), and the exact tar again (skeleton)
//! places, durable, records  the files under the root; index: the same in memory
//! pull, push, images        the ways to make and name images; once: two pulls of one image are one
//! gc, lease, check          garbage, the leases that keep it, and damage
//! ```

mod check;
mod config;
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
mod places;
mod pull;
mod push;
mod records;
mod registry;
mod store;

pub use config::{Limits, StoreConfig};
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
pub use store::Store;
