//! Data to standard output, talk to standard error.

use std::fmt::Display;
use std::io::{self, Write as _};

use serde_json::Value;

use crate::error::{Error, Result};

/// One line of data.
pub(crate) fn line(text: impl Display) -> Result<()> {
    writeln!(io::stdout().lock(), "{text}").map_err(Error::Output)
}

/// Data as it is, at once.
pub(crate) fn bytes(data: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(data).and_then(|()| stdout.flush()).map_err(Error::Output)
}

/// Another program's errors, as they are.
pub(crate) fn error_bytes(data: &[u8]) -> Result<()> {
    io::stderr().lock().write_all(data).map_err(Error::Output)
}

/// JSON for people and programs.
pub(crate) fn json(value: &Value) -> Result<()> {
    line(format_args!("{value:#}"))
}

/// One line of talk. There is nobody to tell when it can't be written.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
