//! Standard output for data, standard error for messages.

use std::fmt::Display;
use std::io::{self, Write as _};

use prost::Name;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::format::Format;
use crate::protojson::Registry;
use crate::yaml;

/// One line of data.
pub(crate) fn line(text: impl Display) -> Result<()> {
    writeln!(io::stdout().lock(), "{text}").map_err(Error::Output)
}

/// Bytes of data, flushed at once.
pub(crate) fn bytes(data: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(data).and_then(|()| stdout.flush()).map_err(Error::Output)
}

/// Bytes that another program has written to its standard error.
pub(crate) fn error_bytes(data: &[u8]) -> Result<()> {
    io::stderr().lock().write_all(data).map_err(Error::Output)
}

/// A list in a format other than a table.
pub(crate) fn message(format: Format, message: &impl Name) -> Result<()> {
    let registry = Registry::load()?;
    match format {
        Format::Json | Format::Table => line(registry.to_text(message)?),
        Format::Yaml => line(yaml::text(&registry.to_json(message)?)),
    }
}

/// A state in a format other than a table.
pub(crate) fn value(format: Format, value: &Value) -> Result<()> {
    match format {
        // As Go's encoder writes it, so that the text can stand in a page.
        Format::Json | Format::Table => {
            let text = format!("{value:#}");
            line(text.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e"))
        }
        Format::Yaml => line(yaml::text(value)),
    }
}

/// One line of a message. An error in writing it can't be reported anywhere, and is ignored.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
