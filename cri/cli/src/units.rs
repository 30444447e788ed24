//! Sizes, ages and short ids, as crictl writes them.

use crate::time;

/// The length of a short id, in digits.
const SHORT_ID: usize = 13;

/// Three digits and a decimal unit: `12.3MB`.
pub(crate) fn size(bytes: u64) -> String {
    digits(bytes, 0)
}

/// Four digits and a decimal unit: `12.34MB`.
pub(crate) fn size_in_four(bytes: u64) -> String {
    digits(bytes, 1)
}

/// Three digits and `extra`, at most one.
fn digits(bytes: u64, extra: u32) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    let mut scale: u128 = 1000;
    let mut unit = 0;
    let bytes = u128::from(bytes);
    let next = if extra == 0 { 999_500 } else { 999_950 };
    while unit + 1 < UNITS.len() && bytes * 1000 >= scale * next {
        scale *= 1000;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    let thousandths = (bytes * 1000 + scale / 2) / scale;
    let digits = extra
        + match thousandths {
            ..10_000 => 2,
            10_000..100_000 => 1,
            _ => 0,
        };
    let divisor = 10_u128.pow(3_u32.saturating_sub(digits));
    let rounded = (thousandths + divisor / 2) / divisor;
    let power = 10_u128.pow(digits);
    let (whole, fraction) = (rounded / power, rounded % power);
    if digits == 0 {
        return format!("{whole}{name}");
    }
    let fraction = format!("{fraction:0width$}", width = usize::try_from(digits).unwrap_or(0));
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{whole}{point}{fraction}{name}")
}

/// The time since `nanos`, in words: `About an hour ago`.
pub(crate) fn age(nanos: i64) -> String {
    format!("{} ago", duration(time::now().saturating_sub(nanos) / time::SECOND))
}

fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// The form of ids in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    Short,
    Whole,
}

impl Ids {
    /// The form that `--no-trunc` asks for.
    pub(crate) fn new(no_trunc: bool) -> Self {
        if no_trunc { Self::Whole } else { Self::Short }
    }

    /// An id in this form.
    pub(crate) fn show(self, id: &str) -> String {
        match self {
            Self::Short => short(id),
            Self::Whole => id.to_owned(),
        }
    }

    /// The name of a container's image, which may be the image's id.
    pub(crate) fn show_image(self, name: &str) -> String {
        if name.starts_with("sha256:") { self.show(name) } else { name.to_owned() }
    }
}

/// The beginning of an id, without the name of its algorithm.
pub(crate) fn short(id: &str) -> String {
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(SHORT_ID).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (12_345, "12.3kB"),
            (999_999, "1MB"),
            (123_456_789, "123MB"),
            (1_500_000_000, "1.5GB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(u64::MAX), "18.4EB");
        assert_eq!(
            (size_in_four(77_824), size_in_four(999_940)),
            ("77.82kB".to_owned(), "999.9kB".to_owned())
        );
    }

    #[test]
    fn ages_grow_coarser() {
        let cases = [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86_400, "3 days"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn short_ids_drop_the_algorithm() {
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789abc");
        assert_eq!(short("ab"), "ab");
    }
}
