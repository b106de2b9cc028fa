//! Exponential back-off as upstream counts it. Input: when it failed, now. Output: how long to wait.
//!
//! Invariant: delays double from the first to the last and start over after twice the last without a failure.

use std::time::Duration;

use jiff::Timestamp;

/// Restarts of crashing containers and retries of image pulls.
pub const FIRST: Duration = Duration::from_secs(10);
pub const LAST: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backoff {
    entry: Option<(Duration, Timestamp)>,
}

impl Backoff {
    /// How long still to wait for something that failed at `failed_at`; `None`: go now. The whole delay comes too.
    pub fn remaining(&self, failed_at: Timestamp, now: Timestamp) -> Option<(Duration, Duration)> {
        let (delay, updated) = self.entry?;
        if elapsed(updated, failed_at) > LAST * 2 {
            return None;
        }
        let left = delay.checked_sub(elapsed(failed_at, now))?;
        (!left.is_zero()).then_some((left, delay))
    }

    /// Counts one more try made now.
    pub fn advance(&mut self, now: Timestamp) {
        let next = match self.entry {
            Some((delay, updated)) if elapsed(updated, now) <= LAST * 2 => (delay * 2).min(LAST),
            _ => FIRST,
        };
        self.entry = Some((next, now));
    }

    pub fn delay(&self) -> Duration {
        self.entry.map_or(Duration::ZERO, |(delay, _)| delay)
    }
}

/// Zero if `to` is before `from`: a clock that jumps back must not shorten a wait below zero.
pub fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

/// Go's format of whole seconds: 10s, 1m20s, 5m0s.
pub fn format_seconds(delay: Duration) -> String {
    let seconds = delay.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn doubles_up_to_five_minutes_and_starts_over() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.remaining(at(0), at(0)), None, "the first restart is immediate");
        let mut delays = Vec::new();
        for step in 0..7 {
            backoff.advance(at(step * 300));
            delays.push(backoff.delay().as_secs());
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.remaining(at(1800), at(1801)).map(|r| r.0.as_secs()), Some(299));
        assert_eq!(backoff.remaining(at(3000), at(3001)), None, "ten quiet minutes forgive");
        backoff.advance(at(3001));
        assert_eq!(backoff.delay().as_secs(), 10);
    }

    #[test]
    fn formats_like_go() {
        assert_eq!(format_seconds(Duration::from_secs(10)), "10s");
        assert_eq!(format_seconds(Duration::from_secs(80)), "1m20s");
        assert_eq!(format_seconds(Duration::from_secs(300)), "5m0s");
    }
}
