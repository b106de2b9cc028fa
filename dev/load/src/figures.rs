//! Latencies to the figures that are printed: count, rate, quantiles. Pure.
//!
//! A quantile is by nearest rank: the smallest latency that at least that share of all is not above. So every quantile is a latency
//! that was measured, and p99 of less than 100 of them is the largest.

use std::fmt;
use std::time::Duration;

/// The figures of one piece of work; only what succeeded counts in `n`, `rate` and the quantiles.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub n: usize,
    /// From the first request's begin to the last one's end.
    pub total: Duration,
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
    pub failed: u64,
}

pub fn derive_summary(latencies: &[Duration], total: Duration, failed: u64) -> Summary {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    Summary {
        n: sorted.len(),
        total,
        p50: quantile(&sorted, 50),
        p99: quantile(&sorted, 99),
        max: sorted.last().copied().unwrap_or_default(),
        failed,
    }
}

/// The `percent`-th (1..=100) of ascending latencies, zero if there is none.
fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// `n / total` a second; zero when no time has passed.
pub fn rate(n: usize, total: Duration) -> f64 {
    let seconds = total.as_secs_f64();
    if seconds > 0.0 { n as f64 / seconds } else { 0.0 }
}

/// `n=1000 total=0.77s rate=1296/s p50=11.20ms p99=41.00ms max=60.12ms failed=0`: words that a script splits at blanks and `=`.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |d: Duration| d.as_secs_f64() * 1000.0;
        write!(
            f,
            "n={} total={:.2}s rate={:.1}/s p50={:.2}ms p99={:.2}ms max={:.2}ms failed={}",
            self.n,
            self.total.as_secs_f64(),
            rate(self.n, self.total),
            ms(self.p50),
            ms(self.p99),
            ms(self.max),
            self.failed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(ms: impl IntoIterator<Item = u64>, total_ms: u64, failed: u64, want: Expect) {
        let latencies: Vec<Duration> = ms.into_iter().map(Duration::from_millis).collect();
        want.assert_eq(&derive_summary(&latencies, Duration::from_millis(total_ms), failed).to_string());
    }

    #[test]
    fn a_hundred_in_any_order() {
        check(
            (1..=100).rev(),
            2000,
            0,
            expect!["n=100 total=2.00s rate=50.0/s p50=50.00ms p99=99.00ms max=100.00ms failed=0"],
        );
    }

    #[test]
    fn p99_of_few_is_the_largest() {
        check([5, 1, 9], 3000, 1, expect!["n=3 total=3.00s rate=1.0/s p50=5.00ms p99=9.00ms max=9.00ms failed=1"]);
    }

    #[test]
    fn p50_of_an_even_count_is_a_measured_one() {
        check([10, 20], 100, 0, expect!["n=2 total=0.10s rate=20.0/s p50=10.00ms p99=20.00ms max=20.00ms failed=0"]);
    }

    #[test]
    fn one() {
        check([7], 7, 0, expect!["n=1 total=0.01s rate=142.9/s p50=7.00ms p99=7.00ms max=7.00ms failed=0"]);
    }

    #[test]
    fn nothing_succeeded_in_no_time() {
        check([], 0, 4, expect!["n=0 total=0.00s rate=0.0/s p50=0.00ms p99=0.00ms max=0.00ms failed=4"]);
    }

    #[test]
    fn one_slow_in_two_hundred_is_beyond_p99_and_three_are_not() {
        let fast = std::iter::repeat_n(1, 199);
        check(
            fast.chain([500]),
            1000,
            0,
            expect!["n=200 total=1.00s rate=200.0/s p50=1.00ms p99=1.00ms max=500.00ms failed=0"],
        );
        let fast = std::iter::repeat_n(1, 197);
        check(
            fast.chain([500, 500, 500]),
            1000,
            0,
            expect!["n=200 total=1.00s rate=200.0/s p50=1.00ms p99=500.00ms max=500.00ms failed=0"],
        );
    }
}
