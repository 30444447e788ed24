//! The daemon slipwayd: the CRI's services and slipway.v1 on one unix socket, wired to the image store, the runtime and
//! the builder.
//!
//! - `daemon`: the wiring, config -> build -> serve -> drain; `config`, `error`
//! - `service`: one line an RPC; `images`, `sandbox`, `container`: what each one does
//! - `deadline`: the end of a call's time
//! - `verbose`: what tools read of a status beyond the CRI's fields; `annotations`: how they know a pod from a specification
//! - `spec`: a CRI request and an image's configuration become an OCI document; `lsm`: the node's security modules
//! - `node`: what the services share; `records`: what is kept on disk; `names`: who may create what; `recovery`;
//!   `damage`: what stands in for a damaged record, and how it is reported

mod annotations;
pub mod config;
mod container;
pub mod daemon;
mod damage;
mod deadline;
mod disk;
mod error;
mod images;
mod lsm;
mod names;
mod node;
mod own;
mod records;
mod recovery;
mod sandbox;
mod service;
mod spec;
mod status;
mod verbose;

pub use error::{Error, Result};
