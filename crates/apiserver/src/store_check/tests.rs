//! A silent store, and several that ask at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use base::SystemClock;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_store_that_is_silent_is_found_out_in_time() {
    let check = StoreCheck::default();
    let begun = tokio::time::Instant::now();
    assert!(!check.shared(&SystemClock::new(), std::future::pending()).await);
    assert!((ANSWER_WITHIN..ANSWER_WITHIN * 2).contains(&begun.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn who_asks_meanwhile_shares_one_read() {
    let (check, clock, reads) = (StoreCheck::default(), SystemClock::new(), AtomicUsize::new(0));
    let read = async || {
        reads.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(ANSWER_WITHIN / 2).await;
        true
    };
    let (a, b, c) =
        tokio::join!(check.shared(&clock, read()), check.shared(&clock, read()), check.shared(&clock, read()));
    assert_eq!((a, b, c, reads.load(Ordering::Relaxed)), (true, true, true, 1));
}
