//! Reading a container's log file in the CRI's format, and on until the container has ended, over the rotations of the
//! file.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::error::{Error, Result};
use crate::log_line::LogLine;
use crate::log_watch::LogWatch;
use crate::node::Container;

/// After this long a reader looks again even if nothing has woken it.
const PAUSE: Duration = Duration::from_secs(1);

/// Who is told what a log says. Each answer is whether anybody still listens.
pub(crate) trait Listener {
    /// The next line.
    fn line(&mut self, line: &LogLine<'_>) -> bool;
    /// For now there is nothing more.
    fn pause(&mut self) -> bool;
}

/// Wakes a reader that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waker(Arc<OwnedFd>);

impl Waker {
    pub(crate) fn new() -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(Arc::new(eventfd(0, flags).map_err(Error::io("make", "eventfd"))?)))
    }

    /// Wakes the reader once the container has ended.
    pub(crate) async fn at_end_of(&self, container: &Container) {
        container.over.notified().await;
        self.wake();
    }

    pub(crate) fn wake(&self) {
        // A full counter wakes it too.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    fn is_heard(&self) {
        // An empty counter has nothing to take away.
        let _ = rustix::io::read(&*self.0, &mut [0_u8; 8]);
    }
}

/// A log that is being read.
#[derive(Debug, Default)]
pub(crate) struct Log {
    file: Option<BufReader<File>>,
    /// Half a line, which waits for its rest.
    line: Vec<u8>,
}

impl Log {
    /// Opens the file unless that is done; one that is not there yet can be opened later.
    pub(crate) fn open(&mut self, path: &Path) -> Result<()> {
        if self.file.is_none() {
            self.file = match File::open(path) {
                Ok(open) => Some(BufReader::new(open)),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(Error::io("open log", path)(error)),
            };
        }
        Ok(())
    }

    /// Tells of each line until `is_over`, and of what was written before that. False when nobody listens any more.
    pub(crate) fn follow(
        &mut self,
        path: &Path,
        waker: &Waker,
        is_over: impl Fn() -> bool,
        listener: &mut impl Listener,
    ) -> Result<bool> {
        let read_failed = || Error::io("read log", path);
        let mut watch = LogWatch::new(path);
        loop {
            // The state comes first: what was written before an end is read after it was seen.
            let over = is_over();
            self.open(path)?;
            if !self.tell(listener).map_err(read_failed())? {
                return Ok(false);
            }
            if let Some(file) = self.replacement(path).map_err(read_failed())? {
                // The old one gets nothing more once the new one is written to.
                let all_told = self.tell(listener).map_err(read_failed())?;
                *self = Self { file: Some(BufReader::new(file)), line: Vec::new() };
                if all_told { continue } else { return Ok(false) }
            }
            if over {
                return Ok(true);
            }
            watch.wait(Some(waker.0.as_fd()), PAUSE).map_err(Error::io("wait for log", path))?;
            waker.is_heard();
        }
    }

    fn replacement(&self, path: &Path) -> std::io::Result<Option<File>> {
        self.file.as_ref().map_or(Ok(None), |file| LogWatch::replacement(path, file.get_ref()))
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
    fn a_log_is_told_whole_though_its_name_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut log, waker, mut heard) = (Log::default(), Waker::new().unwrap(), Heard::default());
        assert!(log.follow(&path, &waker, || true, &mut heard).unwrap());
        assert_eq!((heard.bytes.as_slice(), heard.pauses), (&b""[..], 1));
        let mut file = File::create(&path).unwrap();
        file.write_all(b"t stdout F a\nt stdout P b\nnonsense\nt stderr F ").unwrap();
        assert!(log.follow(&path, &waker, || true, &mut heard).unwrap());
        assert_eq!(heard.bytes, b"a\nb");
        std::fs::remove_file(&path).unwrap();
        file.write_all(b"c\n").unwrap();
        assert!(log.follow(&path, &waker, || true, &mut heard).unwrap());
        assert_eq!(heard.bytes, b"a\nbc\n");
    }
}
