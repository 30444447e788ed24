//! The log files that monitors write, in the CRI's format, read from outside. This is a leaf package: it knows no other part of
//! Slipway, and uses the kernel through rustix alone.
//!
//! - `line`: one line of a log; [`time`]: the times that it begins with
//! - `reader`: a log from its first line on, until its container has ended, across rotations of the file
//! - `watch`: the wait for more

mod error;
mod line;
mod reader;
pub mod time;
mod watch;

pub use error::{Error, Result};
pub use line::LogLine;
pub use reader::{Listener, LogReader, Streams, Waker};
pub use watch::LogWatch;
