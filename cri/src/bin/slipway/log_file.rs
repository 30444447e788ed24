//! CRI's log files, for `crictl logs`: lines of `time stream P|F text`, read from the file that ContainerStatus names.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::{output, time};

/// Which lines to show, and how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Selection {
    pub(crate) tail: Option<usize>,
    pub(crate) since: Option<i64>,
    pub(crate) timestamps: bool,
}

/// A log file that is being read, and read anew when it was rotated.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    reader: BufReader<File>,
    inode: u64,
    /// The beginning of a line whose end has not been written yet.
    pending: Vec<u8>,
}

impl LogFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let fail = |source| Error::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(fail)?;
        let inode = file.metadata().map_err(fail)?.ino();
        Ok(Self { path: path.to_owned(), reader: BufReader::new(file), inode, pending: Vec::new() })
    }

    /// Shows what is there so far, the last lines only when asked for.
    pub(crate) fn show(&mut self, selection: Selection) -> Result<()> {
        let mut kept = VecDeque::new();
        while let Some(line) = self.line()? {
            let Some(entry) = Entry::parse(&line).filter(|entry| entry.is_since(selection.since)) else {
                continue;
            };
            match selection.tail {
                None => entry.print(selection.timestamps)?,
                Some(0) => {}
                Some(tail) => {
                    if kept.len() == tail {
                        kept.pop_front();
                    }
                    kept.push_back(line);
                }
            }
        }
        let entries = kept.iter().filter_map(|line| Entry::parse(line));
        entries.into_iter().try_for_each(|entry| entry.print(selection.timestamps))
    }

    /// Opens the new file when this one was moved away. True when there is more to show.
    pub(crate) fn follow_rotation(&mut self) -> bool {
        let moved = std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() != self.inode);
        match (moved, Self::open(&self.path)) {
            (true, Ok(new)) => {
                *self = new;
                true
            }
            _ => false,
        }
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>> {
        let read = self.reader.read_until(b'\n', &mut self.pending);
        read.map_err(|source| Error::Read { path: self.path.clone(), source })?;
        Ok(self.pending.ends_with(b"\n").then(|| std::mem::take(&mut self.pending)))
    }
}

/// One line of a log.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'a> {
    time: &'a str,
    is_stderr: bool,
    is_partial: bool,
    text: &'a [u8],
}

impl<'a> Entry<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let is_stderr = parts.next()? == b"stderr";
        let is_partial = parts.next()?.split(|byte| *byte == b':').any(|tag| tag == b"P");
        Some(Self { time, is_stderr, is_partial, text: parts.next().unwrap_or_default() })
    }

    fn is_since(&self, since: Option<i64>) -> bool {
        since.is_none_or(|since| time::parse_rfc3339(self.time).is_some_and(|time| time >= since))
    }

    fn print(&self, timestamps: bool) -> Result<()> {
        let mut data = if timestamps { format!("{} ", self.time).into_bytes() } else { Vec::new() };
        data.extend_from_slice(self.text);
        if !self.is_partial {
            data.push(b'\n');
        }
        if self.is_stderr { output::error_bytes(&data) } else { output::bytes(&data) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        let entry = Entry::parse(b"2024-02-29T12:34:56.1Z stderr P hello  world\n").unwrap();
        let expected = Entry {
            time: "2024-02-29T12:34:56.1Z",
            is_stderr: true,
            is_partial: true,
            text: b"hello  world",
        };
        assert_eq!(entry, expected);
        assert_eq!(Entry::parse(b"t stdout F \n").unwrap().text, b"");
        assert_eq!(Entry::parse(b"garbage"), None);
    }

    #[test]
    fn a_line_without_its_end_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, b"t stdout F a").unwrap();
        let mut log = LogFile::open(&path).unwrap();
        assert_eq!(log.line().unwrap(), None);
        std::fs::write(&path, b"t stdout F ab\n").unwrap();
        assert_eq!(log.line().unwrap().unwrap(), b"t stdout F ab\n");
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        assert!(!log.follow_rotation());
        std::fs::write(&path, b"t stdout F c\n").unwrap();
        assert!(log.follow_rotation());
        assert_eq!(log.line().unwrap().unwrap(), b"t stdout F c\n");
    }
}
