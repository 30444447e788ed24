//! Reading a log file from its beginning, and on until its container has ended, over the rotations of the file.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::error::{Error, Result};
use crate::line::LogLine;
use crate::watch::LogWatch;

/// After this long a reader looks again even if nothing has woken it.
const PAUSE: Duration = Duration::from_secs(1);
/// About how many bytes of a stream are passed on at once.
const CHUNK: usize = 32 << 10;

/// The receiver of a log's lines. Each answer is whether it still listens.
pub trait Listener {
    /// The next line.
    fn line(&mut self, line: &LogLine<'_>) -> bool;
    /// For now there is nothing more.
    fn pause(&mut self) -> bool;
}

/// A listener to what was written alone: it is passed on many lines at once, with whether it is of standard error.
#[derive(Debug)]
pub struct Streams<F> {
    take: F,
    pending: Vec<u8>,
    is_stderr: bool,
}

impl<F: FnMut(bool, Vec<u8>) -> bool> Streams<F> {
    /// Passes on to this function, which answers whether anybody still listens.
    pub fn new(take: F) -> Self {
        Self { take, pending: Vec::new(), is_stderr: false }
    }
}

impl<F: FnMut(bool, Vec<u8>) -> bool> Listener for Streams<F> {
    fn line(&mut self, line: &LogLine<'_>) -> bool {
        let changes = line.is_stderr != self.is_stderr;
        if (changes || self.pending.len() + line.bytes.len() > CHUNK) && !self.pause() {
            return false;
        }
        self.is_stderr = line.is_stderr;
        self.pending.extend(line.written());
        true
    }

    fn pause(&mut self) -> bool {
        let bytes = std::mem::take(&mut self.pending);
        bytes.is_empty() || (self.take)(self.is_stderr, bytes)
    }
}

/// Wakes a reader that waits.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// One for one reader.
    ///
    /// # Errors
    /// When this process has no descriptors left.
    pub fn new() -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let made = eventfd(0, flags).map_err(|errno| Error::Waker(errno.into()))?;
        Ok(Self(Arc::new(made)))
    }

    /// Has the reader look again.
    pub fn wake(&self) {
        // A full counter wakes it too.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    fn is_heard(&self) {
        // An empty counter has nothing to take away.
        let _ = rustix::io::read(&*self.0, &mut [0_u8; 8]);
    }
}

/// A log that is being read.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: Option<BufReader<File>>,
    /// Half a line, which waits for its rest.
    line: Vec<u8>,
}

impl LogReader {
    /// A reader of the file that is at this path, or will be.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, line: Vec::new() }
    }

    /// Opens the file unless that is done, so that its removal does not matter any more; one that is not there yet is
    /// opened when it is read.
    ///
    /// # Errors
    /// When it is there and can't be opened.
    pub fn open(&mut self) -> Result<()> {
        if self.file.is_none() {
            self.file = match File::open(&self.path) {
                Ok(open) => Some(BufReader::new(open)),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(self.failed("open log")(error)),
            };
        }
        Ok(())
    }

    /// Tells of each line until `is_over`, and of what was written before that. False when nobody listens any more.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn follow(
        &mut self,
        waker: &Waker,
        is_over: impl Fn() -> bool,
        listener: &mut impl Listener,
    ) -> Result<bool> {
        let mut watch = LogWatch::new(&self.path);
        loop {
            // The state comes first: what was written before an end is read after it was seen.
            let over = is_over();
            self.open()?;
            if !self.tell(listener).map_err(self.failed("read log"))? {
                return Ok(false);
            }
            if let Some(file) = self.replacement().map_err(self.failed("read log"))? {
                // The old one gets nothing more once the new one is written to.
                let all_told = self.tell(listener).map_err(self.failed("read log"))?;
                (self.file, self.line) = (Some(BufReader::new(file)), Vec::new());
                if all_told { continue } else { return Ok(false) }
            }
            if over {
                return Ok(true);
            }
            watch.wait(Some(waker.0.as_fd()), PAUSE).map_err(self.failed("wait for log"))?;
            waker.is_heard();
        }
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let path = self.path.clone();
        move |source| Error::Io { action, path, source }
    }

    fn replacement(&self) -> std::io::Result<Option<File>> {
        self.file.as_ref().map_or(Ok(None), |file| LogWatch::replacement(&self.path, file.get_ref()))
    }

    /// Tells of the whole lines that are there. What is no line of a log is passed over.
    fn tell(&mut self, listener: &mut impl Listener) -> std::io::Result<bool> {
        let Some(file) = &mut self.file else { return Ok(listener.pause()) };
        loop {
            file.read_until(b'\n', &mut self.line)?;
            if self.line.last() != Some(&b'\n') {
                return Ok(listener.pause());
            }
            let listens = LogLine::parse(&self.line).is_none_or(|line| listener.line(&line));
            self.line.clear();
            if !listens {
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[derive(Default)]
    struct Heard {
        bytes: Vec<u8>,
        pauses: usize,
    }

    impl Listener for Heard {
        fn line(&mut self, line: &LogLine<'_>) -> bool {
            self.bytes.extend(line.written());
            true
        }

        fn pause(&mut self) -> bool {
            self.pauses += 1;
            true
        }
    }

    #[test]
    fn streams_are_passed_on_many_lines_at_once_and_in_their_order() {
        let mut told: Vec<(bool, Vec<u8>)> = Vec::new();
        let mut streams = Streams::new(|is_stderr, bytes| {
            told.push((is_stderr, bytes));
            told.len() < 3
        });
        let lines: [&[u8]; 4] =
            [b"t stdout F one", b"t stdout P \r\0\xff", b"t stderr F two", b"t stdout P three"];
        assert!(lines.into_iter().all(|line| streams.line(&LogLine::parse(line).unwrap())));
        assert!(!streams.pause(), "the third is the last that is wanted");
        drop(streams);
        let expected =
            [(false, b"one\n\r\0\xff".to_vec()), (true, b"two\n".to_vec()), (false, b"three".to_vec())];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_log_is_told_whole_though_its_name_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut log, waker, mut heard) = (LogReader::new(&path), Waker::new().unwrap(), Heard::default());
        assert!(log.follow(&waker, || true, &mut heard).unwrap());
        assert_eq!((heard.bytes.as_slice(), heard.pauses), (&b""[..], 1));
        let mut file = File::create(&path).unwrap();
        file.write_all(b"t stdout F a\nt stdout P b\nnonsense\nt stderr F ").unwrap();
        assert!(log.follow(&waker, || true, &mut heard).unwrap());
        assert_eq!(heard.bytes, b"a\nb");
        std::fs::remove_file(&path).unwrap();
        file.write_all(b"c\n").unwrap();
        assert!(log.follow(&waker, || true, &mut heard).unwrap());
        assert_eq!(heard.bytes, b"a\nbc\n");
    }
}
