//! What `slipway.v1` does that the CRI has no word for.

pub(crate) mod attach;
pub(crate) mod build;
pub(crate) mod housekeeping;
pub(crate) mod logs;
pub(crate) mod ports;
pub(crate) mod run;
pub(crate) mod streams;
pub(crate) mod transfer;
pub(crate) mod view;
