//! What every crate does on disk: records, atomic writes, and walks over trees that containers and images wrote.
//!
//! This is a leaf package: it depends on no other crate of the project. Nothing in it recurses over a tree, follows a
//! symbolic link that a container wrote, or reads more of a file than its caller allows.

mod lock;
mod room;
pub mod walker;

pub use lock::Lock;
pub use room::{explained, why_read_only};
