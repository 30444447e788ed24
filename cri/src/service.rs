//! The gRPC services: one line an RPC, what it does is elsewhere.

pub(crate) mod image;
pub(crate) mod runtime;
pub(crate) mod slipway;
