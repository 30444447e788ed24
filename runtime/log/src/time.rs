//! Reading the times of RFC 3339: those of log lines, and those that people type.

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// A time in RFC 3339, with `Z` or an offset, as nanoseconds since the epoch; digits beyond the ninth are dropped.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let mut date = date.splitn(3, '-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let split = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at_checked(split)?;
    let mut clock = clock.splitn(3, ':');
    let (hour, minute, second) = (number(clock.next()?)?, number(clock.next()?)?, clock.next()?);
    let (second, fraction) = second.split_once('.').unwrap_or((second, "0"));
    let second = number(second)?;
    let fraction = fraction.get(..9).unwrap_or(fraction);
    let scale = 10_i64.pow(u32::try_from(9_usize.saturating_sub(fraction.len())).ok()?);
    let fraction = number(fraction)? * scale;
    let offset = offset_seconds(zone)?;
    let sane = (1..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !(sane && hour < 24 && minute < 60 && second <= 60) {
        return None;
    }
    let seconds = day_number(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    seconds.checked_mul(SECOND)?.checked_add(fraction)
}

fn offset_seconds(zone: &str) -> Option<i64> {
    let (sign, digits) = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => return Some(0),
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = digits.split_once(':')?;
    Some(sign * (number(hours)? * 3600 + number(minutes)? * 60))
}

fn number(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
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
