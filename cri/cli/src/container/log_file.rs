//! The log file of a container, which ContainerStatus names, for `crictl logs`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use slipway_log::{LogLine, LogWatch};

use super::log_sink::Sink;
use crate::error::{Error, Result};

/// The lines to show.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Selection {
    /// Only so many of the last lines.
    pub(crate) tail: Option<usize>,
    /// Only those of this time or later, in nanoseconds since the epoch.
    pub(crate) since: Option<i64>,
}

/// An open log file; after a rotation its successor takes its place.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    reader: BufReader<File>,
    /// The beginning of a line whose end has not been written yet.
    pending: Vec<u8>,
}

impl LogFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Ok(Self::of(path, file))
    }

    fn of(path: &Path, file: File) -> Self {
        Self { path: path.to_owned(), reader: BufReader::new(file), pending: Vec::new() }
    }

    /// Shows what is there so far, the last lines only when asked for. False when the sink is full.
    pub(crate) fn show(&mut self, selection: Selection, sink: &mut Sink) -> Result<bool> {
        let room = self.pass_on(selection, sink)?;
        sink.flush().map(|()| room)
    }

    fn pass_on(&mut self, selection: Selection, sink: &mut Sink) -> Result<bool> {
        let mut kept = VecDeque::new();
        while let Some(line) = self.line()? {
            let found = LogLine::parse(&line).filter(|found| is_since(found, selection.since));
            let Some(found) = found else { continue };
            match selection.tail {
                None if !print(&found, sink)? => return Ok(false),
                None | Some(0) => {}
                Some(tail) => {
                    if kept.len() == tail {
                        kept.pop_front();
                    }
                    kept.push_back(line);
                }
            }
        }
        for found in kept.iter().filter_map(|line| LogLine::parse(line)) {
            if !print(&found, sink)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Goes on to the new file when this one was moved away, once the old one is shown to its end. True when there is
    /// more to show.
    pub(crate) fn follow_rotation(&mut self, selection: Selection, sink: &mut Sink) -> Result<bool> {
        let found = LogWatch::replacement(&self.path, self.reader.get_ref());
        let found = found.map_err(|source| Error::Read { path: self.path.clone(), source })?;
        let Some(file) = found else { return Ok(false) };
        let room = self.show(selection, sink)?;
        *self = Self::of(&self.path, file);
        Ok(room)
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>> {
        let read = self.reader.read_until(b'\n', &mut self.pending);
        read.map_err(|source| Error::Read { path: self.path.clone(), source })?;
        Ok(self.pending.ends_with(b"\n").then(|| std::mem::take(&mut self.pending)))
    }
}

fn is_since(line: &LogLine<'_>, since: Option<i64>) -> bool {
    since.is_none_or(|since| line.timestamp().is_some_and(|time| time >= since))
}

fn print(line: &LogLine<'_>, sink: &mut Sink) -> Result<bool> {
    sink.write(line.is_stderr, line.time, &line.written())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_its_end_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, b"t stdout F a").unwrap();
        let (rest, mut sink) = (Selection::default(), Sink::default());
        let mut log = LogFile::open(&path).unwrap();
        assert_eq!(log.line().unwrap(), None);
        std::fs::write(&path, b"t stdout F ab\n").unwrap();
        assert_eq!(log.line().unwrap().unwrap(), b"t stdout F ab\n");
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        assert!(!log.follow_rotation(rest, &mut sink).unwrap());
        std::fs::write(&path, b"t stdout F c\n").unwrap();
        assert!(log.follow_rotation(rest, &mut sink).unwrap());
        assert_eq!(log.line().unwrap().unwrap(), b"t stdout F c\n");
    }
}
