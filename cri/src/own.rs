//! The calls of `slipway.v1`, for which the CRI has no equivalent.

pub(crate) mod attach;
pub(crate) mod build;
pub(crate) mod housekeeping;
pub(crate) mod logs;
pub(crate) mod ports;
pub(crate) mod run;
pub(crate) mod streams;
pub(crate) mod transfer;
pub(crate) mod view;
