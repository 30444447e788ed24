//! Nanoseconds since the epoch as RFC 3339 writes them, the value of `--since`, and durations such as `1m30s`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use slipway_log::time::parse as parse_rfc3339;

pub(crate) const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// The present time.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC, with as many digits of the second as there are.
pub(crate) fn rfc3339(nanos: i64) -> String {
    let (seconds, fraction) = (nanos.div_euclid(SECOND), nanos.rem_euclid(SECOND));
    let (days, clock) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let digits = format!("{fraction:09}");
    let digits = digits.trim_end_matches('0');
    let point = if digits.is_empty() { "" } else { "." };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{point}{digits}Z")
}

/// A time as Go prints one: `2026-01-02 03:04:05.000000006 +0000 UTC`.
pub(crate) fn full(nanos: i64) -> String {
    rfc3339(nanos).replace('T', " ").replace('Z', " +0000 UTC")
}

/// The Gregorian date of a day counted from the epoch, by years that begin in March (so that a leap day ends one).
fn civil_date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
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
