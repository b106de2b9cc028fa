//! Counting probe outcomes. Input: single outcomes. Output: a result once a threshold is met.
//!
//! Invariant: a result changes only after `failureThreshold` failures or `successThreshold` successes in a row.
//! Does not run probes (see `node::prober`).

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    /// The word in events: `Liveness probe failed: ...`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// A probe's numbers with the API's defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

impl Timing {
    pub fn of(probe: &Probe) -> Self {
        let at_least = |value: Option<i32>, default: u32, least: u32| {
            value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value >= least).unwrap_or(default)
        };
        let seconds = |value, default, least| Duration::from_secs(u64::from(at_least(value, default, least)));
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0, 0),
            period: seconds(probe.period_seconds, 10, 1),
            timeout: seconds(probe.timeout_seconds, 1, 1),
            success_threshold: at_least(probe.success_threshold, 1, 1),
            failure_threshold: at_least(probe.failure_threshold, 3, 1),
        }
    }
}

/// Runs of equal outcomes of one probe of one container instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tracker {
    last: Option<bool>,
    run: u32,
}

impl Tracker {
    /// Counts an outcome; `Some` when the threshold for it is met (again and again while it stays so).
    pub fn step(&mut self, success: bool, timing: &Timing) -> Option<bool> {
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let threshold = if success { timing.success_threshold } else { timing.failure_threshold };
        (self.run >= threshold).then_some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_runs() {
        let timing = Timing::of(&Probe { failure_threshold: Some(3), success_threshold: Some(2), ..Probe::default() });
        let mut tracker = Tracker::default();
        let got = [false, false, true, false, false, false, false, true, true].map(|ok| tracker.step(ok, &timing));
        assert_eq!(got, [None, None, None, None, None, Some(false), Some(false), None, Some(true)]);
    }

    #[test]
    fn defaults() {
        let timing = Timing::of(&Probe::default());
        assert_eq!((timing.period.as_secs(), timing.timeout.as_secs(), timing.failure_threshold), (10, 1, 3));
    }
}
