//! Pods: what each RPC on one does.

pub(crate) mod remove;
pub(crate) mod run;
pub(crate) mod stop;
pub(crate) mod validate;
pub(crate) mod view;
