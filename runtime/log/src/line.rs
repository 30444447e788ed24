//! A line of a log in the CRI's format, `<RFC 3339 time> <stdout|stderr> <tags> <bytes>`: the first tag is `P` where the
//! line goes on in the next one of its stream, and `F` where it ends.

use crate::time;

/// The parts of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// When it was written, as the log has it.
    pub time: &'a str,
    /// Standard error, not standard output.
    pub is_stderr: bool,
    /// No newline was written after its bytes.
    pub is_partial: bool,
    /// The written bytes, without the newline.
    pub bytes: &'a [u8],
}

impl<'a> LogLine<'a> {
    /// Takes a line apart, with or without the newline of the file; none for what is no line of a log. The time is not
    /// looked at yet.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(fields.next()?).ok()?;
        let is_stderr = match fields.next()? {
            b"stdout" => false,
            b"stderr" => true,
            _ => return None,
        };
        let is_partial = fields.next()?.split(|byte| *byte == b':').any(|tag| tag == b"P");
        Some(Self { time, is_stderr, is_partial, bytes: fields.next()? })
    }

    /// Nanoseconds since the epoch; none for a time that can't be read.
    #[must_use]
    pub fn timestamp(&self) -> Option<i64> {
        time::parse(self.time)
    }

    /// The bytes that the container wrote, the newline included.
    #[must_use]
    pub fn written(&self) -> Vec<u8> {
        let newline: &[u8] = if self.is_partial { b"" } else { b"\n" };
        [self.bytes, newline].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        let line = LogLine::parse(b"2024-02-29T12:34:56.1Z stderr P hello  world\n").unwrap();
        let expected = LogLine {
            time: "2024-02-29T12:34:56.1Z",
            is_stderr: true,
            is_partial: true,
            bytes: b"hello  world",
        };
        assert_eq!(line, expected);
        assert_eq!(line.timestamp(), Some(1_709_210_096_100_000_000));
    }

    #[test]
    fn a_full_line_was_written_with_its_newline_and_a_partial_one_without() {
        let written = |line: &'static [u8]| LogLine::parse(line).unwrap().written();
        assert_eq!(written(b"t stdout F \n"), b"\n");
        assert_eq!(written(b"t stdout F a b\n"), b"a b\n");
        assert_eq!(written(b"t stdout P a b\n"), b"a b");
        assert_eq!(written(b"t stdout P:x \0\r\xff\n"), b"\0\r\xff");
    }

    #[test]
    fn what_is_no_line_is_none() {
        for line in [&b""[..], b"garbage", b"t stdout F", b"t stdin F a", b"\xff stdout F a"] {
            assert_eq!(LogLine::parse(line), None, "{line:?}");
        }
        assert_eq!(LogLine::parse(b"t stdout F a\n").unwrap().timestamp(), None);
    }
}
