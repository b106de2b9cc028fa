//! Applies the proxy plan: dirty Services in, nftables transactions out.
//!
//! ```text
//! full ----> wait for dirty keys --> plan --> nft --> forget stale UDP flows
//!   ^                                          | refused, or the table is gone
//!   +------------------ back-off --------------+
//! ```
//!
//! Invariant: while nft runs, changes gather and become one next transaction, so the rate is bounded by nft itself and the
//! delay of a change by two transactions. After any failure the whole table is written anew.

use std::sync::PoisonError;
use std::time::Duration;

use netplan::skeleton::TABLE;
use netplan::{NodeView, Proxy, Transaction, UdpFrontend};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::nft::{self, NftError};
use crate::watch::Watches;

/// How often we look whether somebody removed our table.
const CHECK_EVERY: Duration = Duration::from_secs(30);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Runs for ever; dropping the future leaves the rules in place.
pub async fn run(watches: &Watches, mut node: watch::Receiver<NodeView>) {
    watches.synced().await;
    let mut proxy = Proxy::new(node.borrow_and_update().clone());
    update_all(&mut proxy, watches);
    let mut retry = RETRY_FIRST;
    loop {
        let transaction = proxy.full();
        match apply(transaction).await {
            Ok(()) => {
                let since = Instant::now();
                let reason = follow(&mut proxy, watches, &mut node).await;
                tracing::warn!(reason, "writing all Service rules anew");
                if since.elapsed() > RETRY_MAX {
                    // A table that stood for a while failed for a new reason.
                    retry = RETRY_FIRST;
                }
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "could not write the Service rules");
            }
        }
        sleep(retry).await;
        retry = (retry * 2).min(RETRY_MAX);
        update(&mut proxy, watches);
    }
}

/// Applies changes as they come; returns why that came to an end.
async fn follow(proxy: &mut Proxy, watches: &Watches, node: &mut watch::Receiver<NodeView>) -> String {
    loop {
        tokio::select! {
            () = watches.dirty.wait() => update(proxy, watches),
            Ok(()) = node.changed() => {
                proxy.set_node(node.borrow_and_update().clone());
                update_all(proxy, watches);
            }
            () = sleep(CHECK_EVERY) => {
                if !nft::table_exists(TABLE).await {
                    return "the table is gone".to_owned();
                }
            }
        }
        if let Some(transaction) = proxy.take_transaction()
            && let Err(error) = apply(transaction).await
        {
            return Chain(&error).to_string();
        }
    }
}

fn update_all(proxy: &mut Proxy, watches: &Watches) {
    // What is marked now is in the view already.
    drop(watches.dirty.take());
    let view = watches.view.read().unwrap_or_else(PoisonError::into_inner);
    let keys: Vec<&str> = view.keys().collect();
    for key in keys {
        update_one(proxy, &view, key);
    }
}

fn update(proxy: &mut Proxy, watches: &Watches) {
    let keys = watches.dirty.take();
    let view = watches.view.read().unwrap_or_else(PoisonError::into_inner);
    for key in &keys {
        update_one(proxy, &view, key);
    }
}

fn update_one(proxy: &mut Proxy, view: &netplan::View, key: &str) {
    let entry = view.entry_by_key(key);
    let slices: Vec<_> = entry.iter().flat_map(|entry| entry.slices.values().cloned()).collect();
    proxy.update(key, entry.and_then(|entry| entry.service.as_deref()), &slices);
}

async fn apply(transaction: Transaction) -> Result<(), NftError> {
    nft::apply(&transaction.script).await?;
    if !transaction.udp.is_empty() {
        forget_stale(transaction.udp).await;
    }
    Ok(())
}

/// A flow that could not be forgotten times out by itself, so a failure here is no reason to write the rules anew.
async fn forget_stale(udp: Vec<UdpFrontend>) {
    match tokio::task::spawn_blocking(move || crate::conntrack::forget_stale_udp(&udp)).await {
        Ok(Ok(0)) => {}
        Ok(Ok(count)) => tracing::debug!(count, "forgot stale UDP flows"),
        Ok(Err(error)) => tracing::warn!(%error, "could not forget stale UDP flows"),
        Err(error) => tracing::warn!(%error, "forgetting stale UDP flows broke off"),
    }
}

/// An error with its causes, in one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
