//! Where the lines of a log go: to this program's own streams, one of them only or so many bytes only when asked for.

use crate::error::Result;
use crate::output;

/// A stream of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl std::str::FromStr for Stream {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            _ => Err(format!("stream {text} is not known: use stdout or stderr")),
        }
    }
}

/// What is let through.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sink {
    pub(crate) only: Option<Stream>,
    /// Bytes that may still be written; none for no limit.
    pub(crate) room: Option<usize>,
    pub(crate) timestamps: bool,
}

impl Sink {
    /// Writes a piece of a line; an empty time is not shown. False when no more is wanted.
    pub(crate) fn write(&mut self, is_stderr: bool, time: &str, text: &[u8]) -> Result<bool> {
        let stream = if is_stderr { Stream::Stderr } else { Stream::Stdout };
        if self.only.is_some_and(|only| only != stream) {
            return Ok(true);
        }
        let stamp = self.timestamps && !time.is_empty();
        let mut data = if stamp { format!("{time} ").into_bytes() } else { Vec::new() };
        data.extend_from_slice(text);
        if let Some(room) = &mut self.room {
            data.truncate(*room);
            *room = room.saturating_sub(data.len());
        }
        if is_stderr {
            output::error_bytes(&data)?
        } else {
            output::bytes(&data)?
        }
        Ok(self.room != Some(0))
    }
}
