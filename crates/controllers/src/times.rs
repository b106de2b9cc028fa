//! Times as objects carry them: whole seconds.

use jiff::{Timestamp, Unit};

/// `at` without its fraction, as the API stores it; written otherwise it would differ from what comes back.
pub fn whole_seconds(at: Timestamp) -> Timestamp {
    at.round(jiff::TimestampRound::new().smallest(Unit::Second).mode(jiff::RoundMode::Trunc)).unwrap_or(at)
}
