//! The daemon slipwayd, its CRI services, and the slipway command line
