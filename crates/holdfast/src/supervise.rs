//! Keeps the components of one process running: a component that fails or panics is started again with back-off.
//!
//! Guarantees: a panic in one component never reaches another; restarts wait 0.1 s doubling to 30 s, and start over after
//! a minute of health. Not guaranteed: anything about the component's own state; each rebuilds it from the API.

use std::future::Future;
use std::time::Duration;

use base::Clock;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// After this long without failure the next failure counts as the first.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// Runs `start` again and again until `stop`; returns when the component has ended after `stop`.
pub async fn run_supervised<F, Fut, E>(name: &'static str, clock: &dyn Clock, stop: CancellationToken, start: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: std::error::Error + Send + 'static,
{
    let (mut backoff, mut first) = (BACKOFF_FIRST, true);
    while !stop.is_cancelled() {
        let began = clock.monotonic();
        let ended = tokio::spawn(start()).await;
        if stop.is_cancelled() {
            return;
        }
        match ended {
            Ok(Ok(())) => info!(component = name, "ended; starting it again"),
            Ok(Err(e)) => {
                let why = base::with_causes(&e);
                error!(component = name, "failed: {why}; starting it again in {backoff:?}");
                // Whoever waits for readiness learns what to cure, once.
                if std::mem::take(&mut first) {
                    crate::up::progress(&format!("{name}: {why}"));
                }
            }
            Err(e) => error!(component = name, "panicked: {e}; starting it again in {backoff:?}"),
        }
        if clock.monotonic().saturating_sub(began) > HEALTHY_AFTER {
            backoff = BACKOFF_FIRST;
        }
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            () = stop.cancelled() => return,
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panicking_component_is_started_again_until_stop() {
        let starts = Arc::new(AtomicU32::new(0));
        let stop = CancellationToken::new();
        let (seen, ender) = (starts.clone(), stop.clone());
        run_supervised("test", &base::SystemClock::new(), stop, move || {
            let n = seen.fetch_add(1, Ordering::SeqCst);
            let ender = ender.clone();
            async move {
                match n {
                    0 => panic!("first"),
                    1 => Err(std::io::Error::other("second")),
                    _ => {
                        ender.cancel();
                        Ok(())
                    }
                }
            }
        })
        .await;
        assert_eq!(starts.load(Ordering::SeqCst), 3);
    }
}
