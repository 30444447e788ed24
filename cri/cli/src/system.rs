//! The verbs of the runtime and the store as a whole.

pub(crate) mod check;
pub(crate) mod df;
pub(crate) mod info;
pub(crate) mod prune;
pub(crate) mod version;
