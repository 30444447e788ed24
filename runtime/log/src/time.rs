//! Reading the times of RFC 3339: those of log lines, and those that people type.

use jiff::Timestamp;

/// The digits of a second that count.
const DIGITS: usize = 9;

/// A time in RFC 3339, with `Z` or an offset, as nanoseconds since the epoch; digits beyond the ninth are dropped.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let whole = text.find('.').and_then(|point| text.split_at_checked(point.saturating_add(1)));
    let shorter = whole.and_then(|(before, rest)| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (fraction, zone) = rest.split_at_checked(digits)?;
        Some(format!("{before}{}{zone}", fraction.get(..DIGITS)?))
    });
    let time: Timestamp = shorter.as_deref().unwrap_or(text).parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_from_the_epoch() {
        assert_eq!(parse("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse("1969-12-31T23:59:59.999999999Z"), Some(-1));
        assert_eq!(parse("2026-11-21T15:00:00.5Z"), Some(1_795_273_200_500_000_000));
        assert_eq!(parse("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(parse("2000-02-29T01:00:00.000000001+01:00"), Some(951_782_400_000_000_001));
        assert_eq!(parse("2000-02-29T01:00:00.0000000019999+01:00"), Some(951_782_400_000_000_001));
        assert_eq!(parse("2000-02-29 00:00:00.0000000012z"), Some(951_782_400_000_000_001));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let wrong =
            ["", "yesterday", "1970-01-01T00:00:00", "9-é", "é026-11-21T15:00:00Z", "2026-13-01T00:00:00Z"];
        for text in wrong {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
