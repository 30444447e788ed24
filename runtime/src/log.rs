//! The log files that monitors write, read from outside: a line, a wait for more, a file from its beginning to its
//! container's end.

mod line;
mod reader;
pub mod time;
mod watch;

pub use line::LogLine;
pub use reader::{Listener, LogReader, Streams, Waker};
pub use watch::LogWatch;
