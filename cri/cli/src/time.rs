//! Nanoseconds since the epoch as RFC 3339 writes them, the value of `--since`, and durations such as `1m30s`.

use std::time::Duration;

use jiff::Timestamp;
use slipway_log::time::parse as parse_rfc3339;

pub(crate) const SECOND: i64 = 1_000_000_000;

/// The present time.
pub(crate) fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC, with as many digits of the second as there are.
pub(crate) fn rfc3339(nanos: i64) -> String {
    // Every time of 64 bits is one of jiff's.
    Timestamp::from_nanosecond(i128::from(nanos)).map(|time| time.to_string()).unwrap_or_default()
}

/// A time as Go prints one: `2026-01-02 03:04:05.000000006 +0000 UTC`.
pub(crate) fn full(nanos: i64) -> String {
    rfc3339(nanos).replace('T', " ").replace('Z', " +0000 UTC")
}

/// The duration of a text such as `90s`, `1m30s`, `500ms`, `1.5h`, or a number of seconds.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (figure, tail) = rest.split_at_checked(rest.find(|c: char| c.is_ascii_alphabetic())?)?;
        let end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(end)?;
        let scale = match unit {
            "ns" => 1e-9,
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(figure.parse::<f64>().ok()? * scale).ok()?;
        total = total.checked_add(part)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

/// The value of `--since`: a time, seconds since the epoch, or a duration before now.
pub(crate) fn parse_since(text: &str) -> Option<i64> {
    if let Some(time) = parse_rfc3339(text) {
        return Some(time);
    }
    if let Ok(seconds) = text.parse::<i64>() {
        return seconds.checked_mul(SECOND);
    }
    let ago = i64::try_from(parse_duration(text)?.as_nanos()).ok()?;
    // crictl counts from the whole second.
    now().checked_sub(ago).map(|time| time - time.rem_euclid(SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_back() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (1_709_210_096_000_000_000, "2024-02-29T12:34:56Z"),
            (1_709_210_096_120_000_000, "2024-02-29T12:34:56.12Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224192Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
        ];
        for (nanos, text) in cases {
            assert_eq!(rfc3339(nanos), text);
            assert_eq!(parse_rfc3339(text), Some(nanos));
        }
    }

    #[test]
    fn durations_add_up() {
        assert_eq!(parse_duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("2"), Some(Duration::from_secs(2)));
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        for wrong in ["", "s", "1x", "-1s", "1e400s", "5é"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }
}
