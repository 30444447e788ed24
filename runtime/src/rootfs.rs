//! A container's root file system: the overlay, what is bound into it, and who its users are.

pub(crate) mod binds;
pub(crate) mod copy;
pub(crate) mod links;
pub(crate) mod overlay;
pub(crate) mod users;
