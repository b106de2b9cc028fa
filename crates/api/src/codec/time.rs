//! Times between JSON text and protobuf's seconds and nanoseconds.
//!
//! Text is RFC 3339, always printed in UTC: `2006-01-02T15:04:05Z` for Time, with six digits of fraction for MicroTime.
//! The zero time (year 1) is "not set".

use jiff::Timestamp;

/// Year 1, January 1 and the end of year 9999, in seconds since 1970: what RFC 3339 can write.
const SECONDS_MIN: i64 = -62_135_596_800;
const SECONDS_MAX: i64 = 253_402_300_799;

/// `None` for what is outside the years that RFC 3339 can write.
pub(super) fn format_seconds(seconds: i64, _nanos: i32) -> Option<String> {
    let mut text = date_and_time(seconds)?;
    text.push('Z');
    Some(text)
}

pub(super) fn format_micros(seconds: i64, nanos: i32) -> Option<String> {
    let micros = nanos.clamp(0, 999_999_999) / 1000;
    let text = date_and_time(seconds)?;
    Some(format!("{text}.{micros:06}Z"))
}

/// `2006-01-02T15:04:05`. Lists print millions of these, so it is arithmetic, without a formatter.
fn date_and_time(seconds: i64) -> Option<String> {
    if !(SECONDS_MIN..=SECONDS_MAX).contains(&seconds) {
        return None;
    }
    let (year, month, day) = civil_date(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let mut text = String::with_capacity(20);
    two_digits(year / 100, &mut text);
    two_digits(year % 100, &mut text);
    for (before, value) in [('-', month), ('-', day), ('T', of_day / 3600), (':', of_day / 60 % 60), (':', of_day % 60)]
    {
        text.push(before);
        two_digits(value, &mut text);
    }
    Some(text)
}

fn two_digits(value: i64, text: &mut String) {
    text.push(char::from(b'0' + (value / 10 % 10) as u8));
    text.push(char::from(b'0' + (value % 10) as u8));
}

/// Days since 1970 -> year, month, day in the Gregorian calendar. Years are counted from March, so that the leap day is
/// the last of a year; 146,097 days are the 400 years after which the calendar repeats.
fn civil_date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Seconds and nanoseconds; `None` for text that is not RFC 3339.
pub(super) fn parse(text: &str) -> Option<(i64, i32)> {
    let well_formed = text.len() >= 20 && text.as_bytes()[10] == b'T' && text.is_ascii();
    let time: Timestamp = well_formed.then(|| text.parse().ok())??;
    let (mut seconds, mut nanos) = (time.as_second(), time.subsec_nanosecond());
    if nanos < 0 {
        seconds -= 1;
        nanos += 1_000_000_000;
    }
    Some((seconds, nanos))
}

/// Year 1, January 1, midnight UTC: Go's zero time.
pub(super) fn is_zero(seconds: i64, nanos: i32) -> bool {
    seconds == SECONDS_MIN && nanos == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_rfc_3339_is_a_time() {
        assert_eq!(parse("2026-01-02T03:04:05Z"), Some((1_767_323_045, 0)));
        assert_eq!(parse("2026-01-02T04:04:05.5+01:00"), Some((1_767_323_045, 500_000_000)));
        for text in ["", "2026-01-02", "2026-01-02 03:04:05Z", "2026-01-02T03:04:05", "now"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(format_seconds(SECONDS_MAX + 1, 0), None);
        assert_eq!(format_micros(0, 1_500).as_deref(), Some("1970-01-01T00:00:00.000001Z"));
    }

    proptest! {
        #[test]
        fn formatting_agrees_with_the_calendar(seconds in SECONDS_MIN..=SECONDS_MAX) {
            let text = format_seconds(seconds, 0).unwrap();
            prop_assert_eq!(&text, &Timestamp::from_second(seconds).unwrap().to_string());
            prop_assert_eq!(parse(&text), Some((seconds, 0)));
        }
    }
}
