//! Logs: a container's log file in the CRI's format, from some line on, and on until the container has ended, over the
//! rotations of the file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use slipway_proto::slipway::v1 as own;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::container::view::life;
use crate::error::{Error, Result};
use crate::log_watch::LogWatch;
use crate::node::{Container, Node};
use crate::own::transfer::Events;

const BUFFER: usize = 64;
/// After this long a follower looks again even if nothing has woken it.
const PAUSE: Duration = Duration::from_secs(1);

type Output = Sender<Result<own::LogEntry, Status>>;

pub(crate) fn logs(node: &Arc<Node>, request: own::LogsRequest) -> Result<Events<own::LogEntry>> {
    let row = node.containers.find(&request.container)?;
    let (sender, receiver) = channel(BUFFER);
    let wake =
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(Error::io("make", "eventfd"))?;
    let wake = Arc::new(wake);
    let waker = request.follow.then(|| tokio::spawn(waker(row.clone(), sender.clone(), wake.clone())));
    let node_too = node.clone();
    node.tasks.spawn_blocking(move || {
        let follower =
            Follower { node: &node_too, row: &row, request: &request, sender: &sender, wake: &wake };
        if let Err(error) = follower.read() {
            let _ = sender.blocking_send(Err(Status::from(error)));
        }
        // It holds the stream open.
        if let Some(waker) = waker {
            waker.abort();
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// Wakes the follower when the container has ended or the client is gone.
async fn waker(row: Arc<Container>, sender: Output, wake: Arc<OwnedFd>) {
    tokio::select! {
        () = row.over.notified() => {}
        () = sender.closed() => {}
    }
    // A full counter wakes it too.
    let _ = rustix::io::write(&*wake, &1_u64.to_ne_bytes());
}

struct Follower<'a> {
    node: &'a Node,
    row: &'a Container,
    request: &'a own::LogsRequest,
    sender: &'a Output,
    wake: &'a OwnedFd,
}

impl Follower<'_> {
    fn read(&self) -> Result<()> {
        let Some(path) = &self.row.record.log_path else {
            return Err(Error::WrongState {
                action: "read the log of",
                kind: "container",
                id: self.row.id().to_owned(),
                state: "without a log path",
            });
        };
        let read_failed = || Error::io("read log", path);
        let mut watch = LogWatch::new(path);
        let mut log = Log::default();
        let mut tail = self.request.tail.map(|tail| usize::try_from(tail).unwrap_or(usize::MAX));
        loop {
            // The state comes first: what was written before an end is read after it was seen.
            let over = self.is_over();
            log.open(path)?;
            if !self.send(&mut log, tail.take()).map_err(read_failed())? {
                return Ok(());
            }
            if let Some(file) = log.replacement(path).map_err(read_failed())? {
                // The old one gets nothing more once the new one is written to.
                let all_sent = self.send(&mut log, None).map_err(read_failed())?;
                log = Log { file: Some(BufReader::new(file)), line: Vec::new() };
                if all_sent { continue } else { return Ok(()) }
            }
            if over || self.sender.is_closed() {
                return Ok(());
            }
            watch.wait(Some(self.wake.as_fd()), PAUSE).map_err(Error::io("wait for log", path))?;
            let _ = rustix::io::read(self.wake, &mut [0_u8; 8]);
        }
    }

    fn is_over(&self) -> bool {
        !self.request.follow
            || life(self.node, self.row).finished_at != 0
            || self.node.tasks.is_closed()
            || self.node.containers.find(self.row.id()).is_err()
    }

    /// Sends what is there, the last entries only when asked for; false when nobody listens.
    fn send(&self, log: &mut Log, tail: Option<usize>) -> std::io::Result<bool> {
        let mut last = VecDeque::new();
        while let Some(entry) = log.next()? {
            if entry.timestamp < self.request.since {
                continue;
            }
            match tail {
                Some(most) => {
                    last.push_back(entry);
                    if last.len() > most {
                        last.pop_front();
                    }
                }
                None if self.sender.blocking_send(Ok(entry)).is_err() => return Ok(false),
                None => {}
            }
        }
        Ok(last.into_iter().all(|entry| self.sender.blocking_send(Ok(entry)).is_ok()))
    }
}

/// A log that is being read.
#[derive(Default)]
struct Log {
    file: Option<BufReader<File>>,
    /// Half a line, which waits for its rest.
    line: Vec<u8>,
}

impl Log {
    fn open(&mut self, path: &Path) -> Result<()> {
        if self.file.is_none() {
            self.file = match File::open(path) {
                Ok(open) => Some(BufReader::new(open)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(Error::io("open log", path)(error)),
            };
        }
        Ok(())
    }

    fn replacement(&self, path: &Path) -> std::io::Result<Option<File>> {
        self.file.as_ref().map_or(Ok(None), |file| LogWatch::replacement(path, file.get_ref()))
    }

    /// The next whole line. One that is no entry is passed over.
    fn next(&mut self) -> std::io::Result<Option<own::LogEntry>> {
        let Some(file) = &mut self.file else { return Ok(None) };
        loop {
            file.read_until(b'\n', &mut self.line)?;
            if self.line.last() != Some(&b'\n') {
                return Ok(None);
            }
            let entry = parse(&self.line);
            self.line.clear();
            if entry.is_some() {
                return Ok(entry);
            }
        }
    }
}

/// `2026-01-02T03:04:05.000000006Z stdout F text\n`
fn parse(line: &[u8]) -> Option<own::LogEntry> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let timestamp = nanoseconds(std::str::from_utf8(fields.next()?).ok()?)?;
    let stream = match fields.next()? {
        b"stdout" => own::OutputStream::Stdout,
        b"stderr" => own::OutputStream::Stderr,
        _ => return None,
    };
    let partial = fields.next()? == b"P";
    let mut data = fields.next()?.to_vec();
    if partial {
        data.pop();
    }
    Some(own::LogEntry { stream: stream.into(), timestamp, data })
}

/// A time of RFC 3339 as nanoseconds since the epoch.
fn nanoseconds(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let rest = text.get(19..)?;
    let zone_at = rest.find(['Z', '+', '-'])?;
    let (fraction, zone) = rest.split_at(zone_at);
    let digits: String =
        fraction.trim_start_matches('.').chars().chain("000000000".chars()).take(9).collect();
    let offset = match zone {
        "Z" => 0,
        zone => {
            let minutes = zone.get(1..3)?.parse::<i64>().ok()? * 60 + zone.get(4..6)?.parse::<i64>().ok()?;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    // Days of the civil calendar, counted in years that begin in March.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days =
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    let seconds = days * 86_400 + hour * 3600 + (minute - offset) * 60 + second;
    seconds.checked_mul(1_000_000_000)?.checked_add(digits.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_from_the_epoch() {
        assert_eq!(nanoseconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(nanoseconds("2026-11-21T15:00:00.5Z"), Some(1_795_273_200_500_000_000));
        assert_eq!(nanoseconds("2000-02-29T01:00:00.000000001+01:00"), Some(951_782_400_000_000_001));
        assert_eq!(nanoseconds("yesterday"), None);
        assert_eq!(nanoseconds("é026-11-21T15:00:00Z"), None);
    }

    #[test]
    fn a_partial_line_has_no_newline() {
        let entry = parse(b"2026-11-21T15:00:00Z stderr P a b\n").unwrap();
        assert_eq!((entry.stream(), entry.data.as_slice()), (own::OutputStream::Stderr, &b"a b"[..]));
        let entry = parse(b"2026-11-21T15:00:00Z stdout F \n").unwrap();
        assert_eq!(entry.data, b"\n");
        assert!(parse(b"nonsense\n").is_none());
    }
}
