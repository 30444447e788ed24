//! The log file of a container, as CRI writes it: a line is
//! `<RFC 3339 time with nanoseconds> <stdout|stderr> <P|F> <bytes>`.
//!
//! A line of more than 16 KiB is cut into partial ones (`P`), the last of them full (`F`). What ends without a newline
//! is partial. A write that fails is dropped and counted; the line it tore is closed before the next.

use crate::sys::file;
use std::os::fd::{AsFd, OwnedFd};

/// The longest piece of a line.
const PIECE: usize = 16 * 1024;

/// Which of the two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output, or a terminal.
    Out,
    /// Standard error.
    Error,
}

impl Stream {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Out => b" stdout ",
            Self::Error => b" stderr ",
        }
    }
}

/// The beginning of a line that has not ended yet.
#[derive(Debug, Default)]
pub(crate) struct Line(Vec<u8>);

/// A log file.
#[derive(Debug, Default)]
pub(crate) struct Log {
    file: Option<OwnedFd>,
    torn: bool,
    dropped: u64,
}

impl Log {
    /// A log into this file, or into nothing.
    pub(crate) fn new(file: Option<OwnedFd>) -> Self {
        Self { file, torn: false, dropped: 0 }
    }

    /// Goes on in another file.
    pub(crate) fn reopen(&mut self, file: OwnedFd) {
        self.file = Some(file);
        self.torn = false;
    }

    /// How many writes were lost.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Logs what a stream has given at a time.
    pub(crate) fn append(&mut self, stream: Stream, line: &mut Line, bytes: &[u8], now: i64) {
        if self.file.is_some() {
            let records = records(stream, line, bytes, now);
            self.write(&records);
        }
    }

    /// Logs the rest of a stream that has ended.
    pub(crate) fn finish(&mut self, stream: Stream, line: &mut Line, now: i64) {
        if !line.0.is_empty() && self.file.is_some() {
            let mut records = Vec::new();
            put(&mut records, (timestamp(now).as_bytes(), stream, b'P'), &[&line.0]);
            self.write(&records);
        }
        *line = Line::default();
    }

    fn write(&mut self, mut records: &[u8]) {
        let Some(file) = &self.file else { return };
        if self.torn && !records.is_empty() {
            self.torn = file::write(file.as_fd(), b"\n").is_err();
        }
        let whole = records.len();
        while !records.is_empty() {
            match file::write(file.as_fd(), records) {
                Ok(written) if written > 0 => records = records.get(written..).unwrap_or_default(),
                _ => {
                    self.dropped += 1;
                    self.torn |= records.len() != whole;
                    return;
                }
            }
        }
    }
}

/// The records of some bytes; what does not end a line stays in `line`.
fn records(stream: Stream, line: &mut Line, mut bytes: &[u8], now: i64) -> Vec<u8> {
    let time = timestamp(now);
    let mut records = Vec::with_capacity(bytes.len() + bytes.len() / 4 + 64);
    let mut record = |kind, parts: &[&[u8]]| put(&mut records, (time.as_bytes(), stream, kind), parts);
    while !bytes.is_empty() {
        let room = PIECE.saturating_sub(line.0.len());
        let window = bytes.get(..=room).unwrap_or(bytes);
        if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
            record(b'F', &[&line.0, bytes.get(..end).unwrap_or_default()]);
            bytes = bytes.get(end + 1..).unwrap_or_default();
        } else if let Some((head, rest)) = bytes.split_at_checked(room).filter(|(_, rest)| !rest.is_empty()) {
            record(b'P', &[&line.0, head]);
            bytes = rest;
        } else {
            line.0.extend_from_slice(bytes);
            break;
        }
        line.0.clear();
    }
    records
}

fn put(records: &mut Vec<u8>, (time, stream, kind): (&[u8], Stream, u8), parts: &[&[u8]]) {
    records.extend_from_slice(time);
    records.extend_from_slice(stream.name());
    records.extend_from_slice(&[kind, b' ']);
    parts.iter().for_each(|part| records.extend_from_slice(part));
    records.push(b'\n');
}

/// A time in UTC as RFC 3339 writes it, with nine digits of a second.
fn timestamp(nanoseconds: i64) -> String {
    let (seconds, fraction) = (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
}

/// Year, month and day of a count of days since 1970-01-01. Years are counted from March, so that a leap day ends one.
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097; // Days in 400 years.
    let days = days + 719_468; // Since 0000-03-01.
    let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> (Vec<String>, Vec<u8>) {
        let mut line = Line::default();
        let all: Vec<u8> =
            chunks.iter().flat_map(|chunk| records(Stream::Out, &mut line, chunk, 0)).collect();
        let lines = all.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let short = |line: &[u8]| {
            let text = String::from_utf8_lossy(line).into_owned();
            let rest = text.strip_prefix("1970-01-01T00:00:00.000000000Z stdout ").unwrap_or("?").to_owned();
            if rest.len() > 40 { format!("{} {}", &rest[..1], rest.len() - 2) } else { rest }
        };
        (lines.map(short).collect(), line.0)
    }

    #[test]
    fn a_line_that_comes_in_pieces_is_one_record() {
        assert_eq!(
            split(&[b"hel", b"lo\nwor", b"ld\n\nx"]),
            (vec!["F hello".into(), "F world".into(), "F ".into()], b"x".into())
        );
    }

    #[test]
    fn a_long_line_is_cut_at_the_limit() {
        let long = vec![b'a'; PIECE];
        assert_eq!(split(&[&long, b"\n"]).0, ["F 16384"]);
        assert_eq!(split(&[&long, b"b\n"]).0, ["P 16384", "F b"]);
        let longer = [long.as_slice(), &long, b"\n"].concat();
        assert_eq!(split(&[&longer]).0, ["P 16384", "F 16384"]);
    }

    #[test]
    fn times_are_civil() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(timestamp(951_782_400_000_000_001), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(timestamp(1_709_251_199_999_999_999), "2024-02-29T23:59:59.999999999Z");
        assert_eq!(timestamp(4_107_542_400_000_000_000), "2100-03-01T00:00:00.000000000Z");
        assert_eq!(timestamp(-1), "1969-12-31T23:59:59.999999999Z");
    }
}
