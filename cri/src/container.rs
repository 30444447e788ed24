//! Containers: what each RPC on one does.

pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod remove;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod validate;
pub(crate) mod view;
