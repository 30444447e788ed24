//! The sink of a log's lines: this program's own streams, limited to one stream or a number of bytes where flags say so.

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

/// About the number of bytes that are written at once.
const FULL: usize = 64 << 10;

/// The lines that are let through, and their form.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    pub(crate) only: Option<Stream>,
    /// Bytes that may still be written; none for no limit.
    pub(crate) room: Option<usize>,
    pub(crate) timestamps: bool,
    pub(crate) pending: Pending,
}

/// Bytes of one stream that wait for [`Sink::flush`].
#[derive(Debug, Default)]
pub(crate) struct Pending {
    bytes: Vec<u8>,
    is_stderr: bool,
}

impl Sink {
    /// Takes a piece of a line; an empty time is not shown. False when no more is wanted.
    pub(crate) fn write(&mut self, is_stderr: bool, time: &str, text: &[u8]) -> Result<bool> {
        let stream = if is_stderr { Stream::Stderr } else { Stream::Stdout };
        if self.only.is_some_and(|only| only != stream) {
            return Ok(true);
        }
        let stamp = self.timestamps && !time.is_empty();
        if is_stderr != self.pending.is_stderr || self.pending.bytes.len() > FULL {
            self.flush()?;
            self.pending.is_stderr = is_stderr;
        }
        let before = self.pending.bytes.len();
        if stamp {
            self.pending.bytes.extend_from_slice(time.as_bytes());
            self.pending.bytes.push(b' ');
        }
        self.pending.bytes.extend_from_slice(text);
        if let Some(room) = &mut self.room {
            self.pending.bytes.truncate(before.saturating_add(*room));
            *room = room.saturating_sub(self.pending.bytes.len() - before);
        }
        Ok(self.room != Some(0))
    }

    /// Writes the pending bytes: to be called before anything else is waited for, and at the end.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let bytes = std::mem::take(&mut self.pending.bytes);
        if self.pending.is_stderr { output::error_bytes(&bytes) } else { output::bytes(&bytes) }
    }
}
