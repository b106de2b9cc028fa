//! Times between JSON text and protobuf's seconds and nanoseconds.
//!
//! Text is RFC 3339, always printed in UTC: `2006-01-02T15:04:05Z` for Time, with six digits of fraction for MicroTime.
//! The zero time (year 1) is "not set".

use jiff::{Timestamp, tz::TimeZone};

/// `None` for what is outside the years that RFC 3339 can write.
pub(super) fn format_seconds(seconds: i64, _nanos: i32) -> Option<String> {
    let time = Timestamp::from_second(seconds).ok()?.to_zoned(TimeZone::UTC);
    (0..=9999).contains(&time.year()).then(|| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

pub(super) fn format_micros(seconds: i64, nanos: i32) -> Option<String> {
    let nanos = nanos.clamp(0, 999_999_999);
    let time = Timestamp::new(seconds, nanos).ok()?.to_zoned(TimeZone::UTC);
    let micros = nanos / 1000;
    (0..=9999).contains(&time.year()).then(|| format!("{}.{micros:06}Z", time.strftime("%Y-%m-%dT%H:%M:%S")))
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
    seconds == -62_135_596_800 && nanos == 0
}
