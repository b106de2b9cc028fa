//! Ages as tables print them: `5s`, `3m20s`, `2d4h`.

use jiff::Timestamp;
use serde_json::{Value, json};

/// The object's age.
pub(super) fn of(object: &Value, now: Timestamp) -> Value {
    json!(since(api::meta::creation_timestamp(object), now))
}

/// Time since an RFC 3339 text; `<unknown>` when it is empty or no time.
pub(super) fn since(text: &str, now: Timestamp) -> String {
    match text.parse::<Timestamp>() {
        Ok(at) => human(now.duration_since(at).as_secs_f64()),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// At most two units, and only one where the second would not matter.
fn human(seconds: f64) -> String {
    // Clocks may differ by less than two seconds.
    if seconds <= -2.0 {
        return "<invalid>".to_owned();
    }
    if seconds < 0.0 {
        return "0s".to_owned();
    }
    let seconds = seconds as i64;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => two(days, "d", hours % 24, "h"),
        () if days < 365 * 2 => format!("{days}d"),
        () if days < 365 * 8 => two(years, "y", days % 365, "d"),
        () => format!("{years}y"),
    }
}

fn two(large: i64, large_unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 { format!("{large}{large_unit}") } else { format!("{large}{large_unit}{small}{small_unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_by_age() {
        for (seconds, expect) in [
            (-3.0, "<invalid>"),
            (-1.0, "0s"),
            (0.9, "0s"),
            (119.0, "119s"),
            (120.0, "2m"),
            (150.0, "2m30s"),
            (600.0, "10m"),
            (10_799.0, "179m"),
            (10_800.0, "3h"),
            (12_000.0, "3h20m"),
            (100_000.0, "27h"),
            (200_000.0, "2d7h"),
            (172_800.0, "2d"),
            (800_000.0, "9d"),
            (70_000_000.0, "2y80d"),
            (300_000_000.0, "9y"),
        ] {
            assert_eq!(human(seconds), expect, "{seconds}");
        }
        assert_eq!(since("", Timestamp::UNIX_EPOCH), "<unknown>");
    }
}
