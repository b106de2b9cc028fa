//! A slow disk must not lead: when leadership moves, and where to. Pure; time and measurements come in.
//!
//! Every member watches its own log ([`DiskWatch`]) and reports to the others. A leader that is an outlier hands over to
//! the fastest member that is up to date ([`Policy::decide`]) - if that helps: a majority without it must be fast. If all
//! are slow, it stays. It takes a while before it moves and one move is made at a time; whoever gave leadership up for its
//! disk is not handed it back for five minutes.

use std::collections::HashMap;
use std::time::Duration;

/// Latencies below this are never called slow.
const SLOW_MIN: Duration = Duration::from_millis(200);
/// An outlier is slower than the others by this factor.
const FACTOR: u32 = 5;
/// It must have been one for so long.
const SUSTAINED: Duration = Duration::from_millis(100);
/// Between two moves by the same leader.
const BETWEEN_MOVES: Duration = Duration::from_secs(10);
/// A leader that gave up is not handed leadership for so long.
const AVOIDED: Duration = Duration::from_secs(300);
/// A report that is older than this says nothing.
const REPORT_AGE_MAX: Duration = Duration::from_secs(1);
/// The score loses half of its value in this time, if nothing is measured.
const HALF_LIFE: Duration = Duration::from_secs(5);

/// How long this member's log takes to become durable.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DiskWatch {
    score: Duration,
    measured_at: Duration,
}

impl DiskWatch {
    /// A sync took so long. A rise counts at once, a fall little by little.
    pub(crate) fn observe(&mut self, took: Duration, now: Duration) {
        self.score = if took > self.score { took } else { (self.score * 7 + took * 3) / 10 };
        self.measured_at = now;
    }

    /// What the disk is good for now; `pending_since`: a write is under way since then.
    pub(crate) fn latency(&self, now: Duration, pending_since: Option<Duration>) -> Duration {
        let age = now.saturating_sub(self.measured_at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        let score = self.score.mul_f64(0.5_f64.powf(age));
        let pending = pending_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        score.max(pending)
    }
}

/// What a member has reported of its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Report {
    pub(crate) latency: Duration,
    pub(crate) is_full: bool,
    pub(crate) at: Duration,
}

/// Another voter, as a possible leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) id: u64,
    pub(crate) report: Option<Report>,
    /// It is reachable and has nearly all of the log.
    pub(crate) is_up_to_date: bool,
}

/// A decision to hand leadership over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handover {
    pub(crate) to: u64,
    pub(crate) reason: String,
}

/// What a member remembers of moves.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    outlier_since: Option<Duration>,
    moved_at: Option<Duration>,
    avoided_until: HashMap<u64, Duration>,
}

impl Policy {
    /// This member has taken over from `from`.
    pub(crate) fn took_over(&mut self, from: u64, now: Duration) {
        self.outlier_since = None;
        self.avoided_until.retain(|_, until| *until > now);
        self.avoided_until.insert(from, now + AVOIDED);
    }

    /// Whether the leader, whose disk takes `mine` (or is full), should hand over now, and to whom.
    pub(crate) fn decide(&mut self, now: Duration, mine: (Duration, bool), others: &[Candidate]) -> Option<Handover> {
        let (latency, is_full) = mine;
        let limit = if is_full { SLOW_MIN } else { latency / FACTOR };
        let fast = |candidate: &&Candidate| {
            let fresh = candidate.report.filter(|report| now.saturating_sub(report.at) <= REPORT_AGE_MAX);
            fresh.is_some_and(|report| report.latency <= limit && !report.is_full)
        };
        let fast: Vec<&Candidate> = others.iter().filter(fast).collect();
        // A majority of all voters, this one not among it.
        let majority = others.len().div_ceil(2) + 1;
        if !(is_full || latency >= SLOW_MIN) || fast.len() < majority {
            self.outlier_since = None;
            return None;
        }
        let since = *self.outlier_since.get_or_insert(now);
        let rested = self.moved_at.is_none_or(|at| now.saturating_sub(at) >= BETWEEN_MOVES);
        if now.saturating_sub(since) < SUSTAINED || !rested {
            return None;
        }
        let willing = |candidate: &&&Candidate| {
            candidate.is_up_to_date && self.avoided_until.get(&candidate.id).is_none_or(|until| *until <= now)
        };
        let best = fast.iter().filter(willing).min_by_key(|candidate| candidate.report.map(|report| report.latency))?;
        self.moved_at = Some(now);
        let what = if is_full { "is full".to_owned() } else { format!("takes {latency:.0?} a write") };
        let theirs = best.report.unwrap_or_default().latency;
        Some(Handover { to: best.id, reason: format!("its disk {what}, that of {:016x} {theirs:.0?}", best.id) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn other(id: u64, latency: u64, at: Duration) -> Candidate {
        let report = Some(Report { latency: ms(latency), is_full: false, at });
        Candidate { id, report, is_up_to_date: true }
    }

    /// Asks every 50 ms for a second; returns when and to whom it moved.
    fn moved(policy: &mut Policy, from: u64, mine: u64, others: &[u64]) -> Option<(u64, u64)> {
        (0..20).find_map(|step| {
            let now = ms(from + step * 50);
            let others: Vec<_> = others.iter().zip(2..).map(|(latency, id)| other(id, *latency, now)).collect();
            policy.decide(now, (ms(mine), false), &others).map(|to| (step * 50, to.to))
        })
    }

    #[test]
    fn an_outlier_moves_to_the_fastest_and_nobody_else_does() {
        let check = |mine, others: &[u64], expect| assert_eq!(moved(&mut Policy::default(), 0, mine, others), expect);
        check(800, &[2, 1], Some((100, 3)));
        check(1_000_000, &[1, 1], Some((100, 2)));
        check(100, &[1, 1], None);
        check(800, &[800, 1], None);
        check(800, &[700, 900], None);
        check(800, &[200, 1], None);
        check(800, &[1], None);
        check(800, &[1, 1, 1, 900], Some((100, 2)));
        check(800, &[1, 1, 900, 900], None);
    }

    #[test]
    fn a_short_hiccup_moves_nothing() {
        let mut policy = Policy::default();
        let others = |now| [other(2, 1, now), other(3, 1, now)];
        for step in 0..100 {
            let now = ms(step * 50);
            let latency = if step % 2 == 0 { ms(300) } else { ms(1) };
            assert_eq!(policy.decide(now, (latency, false), &others(now)), None);
        }
    }

    #[test]
    fn it_does_not_come_back_for_five_minutes() {
        let mut policy = Policy::default();
        policy.took_over(2, ms(0));
        assert_eq!(moved(&mut policy, 1000, 800, &[1, 1]).map(|to| to.1), Some(3));
        assert_eq!(moved(&mut policy, 3000, 800, &[1, 1]), None, "one move at a time");
        policy.took_over(3, ms(20_000));
        assert_eq!(moved(&mut policy, 30_000, 800, &[1, 1]), None, "both have been given up");
        assert_eq!(moved(&mut policy, 301_000, 800, &[1, 1]).map(|to| to.1), Some(2));
    }

    #[test]
    fn who_lags_or_does_not_report_is_not_chosen() {
        let now = ms(5000);
        let mut lagging = other(2, 1, now);
        lagging.is_up_to_date = false;
        let stale = other(3, 1, ms(3000));
        let mut policy = Policy { outlier_since: Some(ms(0)), ..Policy::default() };
        assert_eq!(policy.decide(now, (ms(800), false), &[lagging, stale]), None);
        let mut policy = Policy { outlier_since: Some(ms(0)), ..Policy::default() };
        assert_eq!(policy.decide(now, (ms(800), false), &[lagging, other(3, 2, now)]).unwrap().to, 3);
        let mut policy = Policy { outlier_since: Some(ms(0)), ..Policy::default() };
        let reason = policy.decide(now, (ms(1), true), &[other(2, 1, now), other(3, 2, now)]).unwrap().reason;
        assert_eq!(reason, "its disk is full, that of 0000000000000002 1ms");
    }

    #[test]
    fn the_score_rises_at_once_and_decays() {
        let mut watch = DiskWatch::default();
        watch.observe(ms(800), ms(0));
        assert_eq!(watch.latency(ms(0), None), ms(800));
        assert_eq!(watch.latency(ms(5000), None), ms(400));
        for n in 0..12 {
            watch.observe(ms(1), ms(n));
        }
        assert!(watch.latency(ms(12), None) < ms(15));
        assert_eq!(watch.latency(ms(5012), Some(ms(12))), ms(5000));
    }
}
