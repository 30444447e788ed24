//! Logs: a container's log file in the CRI's format, from some line on, and on until the container has ended.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::sync::Arc;
use std::time::Duration;

use slipway_proto::slipway::v1 as own;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::container::view::life;
use crate::error::{Error, Result};
use crate::node::{Container, Node};
use crate::own::transfer::Events;

const BUFFER: usize = 64;
/// How often a followed file is looked at.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn logs(node: &Arc<Node>, request: own::LogsRequest) -> Result<Events<own::LogEntry>> {
    let row = node.containers.find(&request.container)?;
    let (sender, receiver) = channel(BUFFER);
    let node_too = node.clone();
    node.tasks.spawn_blocking(move || {
        if let Err(error) = read(&node_too, &row, &request, &sender) {
            let _ = sender.blocking_send(Err(Status::from(error)));
        }
    });
    Ok(ReceiverStream::new(receiver))
}

type Output = Sender<Result<own::LogEntry, Status>>;

fn read(node: &Node, row: &Container, request: &own::LogsRequest, sender: &Output) -> Result<()> {
    let Some(path) = &row.record.log_path else {
        return Err(Error::WrongState {
            action: "read the log of",
            kind: "container",
            id: row.id().to_owned(),
            state: "without a log path",
        });
    };
    let mut file = None;
    let mut line = Vec::new();
    let mut last = VecDeque::new();
    let mut tail = request.tail.map(|tail| usize::try_from(tail).unwrap_or(usize::MAX));
    loop {
        // The state comes first: what was written before an end is read after it was seen.
        let over = !request.follow || life(node, row).finished_at != 0 || node.tasks.is_closed();
        if file.is_none() {
            file = match File::open(path) {
                Ok(open) => Some(BufReader::new(open)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(Error::io("open log", path)(error)),
            };
        }
        while let Some(entry) = next(file.as_mut(), &mut line).map_err(Error::io("read log", path))? {
            if entry.timestamp < request.since {
                continue;
            }
            match tail {
                Some(most) => {
                    last.push_back(entry);
                    if last.len() > most {
                        last.pop_front();
                    }
                }
                None if sender.blocking_send(Ok(entry)).is_err() => return Ok(()),
                None => {}
            }
        }
        tail = None;
        for entry in last.drain(..) {
            if sender.blocking_send(Ok(entry)).is_err() {
                return Ok(());
            }
        }
        if over || sender.is_closed() {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}

/// The next whole line; half a line waits in `line` for its rest. A line that is no entry is passed over.
fn next(file: Option<&mut BufReader<File>>, line: &mut Vec<u8>) -> std::io::Result<Option<own::LogEntry>> {
    let Some(file) = file else { return Ok(None) };
    loop {
        file.read_until(b'\n', line)?;
        if line.last() != Some(&b'\n') {
            return Ok(None);
        }
        let entry = parse(line);
        line.clear();
        if entry.is_some() {
            return Ok(entry);
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
