//! Times as images write them: RFC 3339 in UTC.

/// The present time, with nine digits of the second.
pub(crate) fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_present_time_has_nine_digits_of_the_second_and_is_read_back() {
        let text = now();
        assert_eq!(text.len(), "1970-01-01T00:00:00.000000000Z".len(), "{text}");
        assert_eq!(text.parse::<jiff::Timestamp>().map(|time| format!("{time:.9}")).ok(), Some(text));
    }
}
