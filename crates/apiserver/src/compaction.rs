//! Compaction: history that is older than any watch or list may ask for is forgotten, in the caches and in the store.
//!
//! Kept here and not left to the store: an etcd behind [`store::Kv`] ages nothing by itself. The embedded store's own interval is
//! for those who use it alone; the binary turns it off under an API server.
//!
//! Invariant: of all API servers on a store, stock ones included, one compacts. They agree by upstream's key
//! `compact_rev_key`: its version is a clock that whoever compacts moves on by one, its value the revision compacted to;
//! whoever finds the clock moved takes over the new version and leaves it at that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use store::{Compare, KvError, Op, OpResult, Put, RangeRequest, Relation, Target, Txn};

use crate::server::{Core, stopped};

const CLOCK_KEY: &[u8] = b"compact_rev_key";
/// The shortest life of a revision is divided into so many; its longest one is one part more.
const STEPS: u32 = 5;

/// Runs until the server stops.
pub(crate) async fn run(core: Arc<Core>) {
    let every = (core.config.history_min / STEPS).max(Duration::from_secs(1));
    let mut marks: VecDeque<i64> = VecDeque::new();
    let mut clock = 0;
    let mut stop = core.stopping.subscribe();
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = stopped(&mut stop) => return,
        }
        marks.push_back(core.registry.feed.applied());
        if marks.len() <= STEPS as usize {
            continue;
        }
        let Some(revision) = marks.pop_front() else { continue };
        core.registry.feed.forget_until(revision);
        match compact(&*core.registry.kv, &mut clock, revision).await {
            Ok(()) | Err(KvError::Compacted { .. }) => {}
            Err(error) => tracing::warn!(%error, revision, "cannot compact the store; trying again later"),
        }
    }
}

/// Compacts, unless another server has moved the clock since it was last seen here.
async fn compact(kv: &dyn store::Kv, clock: &mut i64, revision: i64) -> Result<(), KvError> {
    let key = Bytes::from_static(CLOCK_KEY);
    let mine = Compare { key: key.clone(), end: None, relation: Relation::Equal, target: Target::Version(*clock) };
    let put = Put { key: key.clone(), value: revision.to_string().into(), ..Put::default() };
    let get = RangeRequest { key, ..RangeRequest::default() };
    let txn = Txn { compares: vec![mine], success: vec![Op::Put(put)], failure: vec![Op::Range(get)] };
    let done = kv.txn(txn).await?;
    if done.succeeded {
        *clock += 1;
        return kv.compact(revision).await;
    }
    if let Some(OpResult::Range(found)) = done.results.first() {
        *clock = found.kvs.first().map_or(0, |kv| kv.version);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use base::SystemClock;
    use store::{Config, Kv as _, SimDisk, Store};

    use super::*;

    #[tokio::test]
    async fn of_two_servers_one_compacts() {
        let (disk, clock) = (Arc::new(SimDisk::new()), Arc::new(SystemClock::new()));
        let store = Store::open(Config::default(), disk, clock, Arc::new(store::NoPeers)).unwrap();
        for _ in 0..20 {
            store.txn(Txn::of(Op::Put(Put { key: "a".into(), ..Put::default() }))).await.unwrap();
        }
        let compacted = async || store.status().await.unwrap().compact_revision;
        let (mut one, mut other) = (0, 0);
        compact(&store, &mut one, 5).await.unwrap();
        compact(&store, &mut other, 6).await.unwrap();
        assert_eq!((compacted().await, one, other), (5, 1, 1));
        compact(&store, &mut one, 7).await.unwrap();
        compact(&store, &mut other, 8).await.unwrap();
        assert_eq!(compacted().await, 7);
        // The first one is gone: the other goes on.
        compact(&store, &mut other, 9).await.unwrap();
        assert_eq!(compacted().await, 9);
        let found = store.range(RangeRequest { key: CLOCK_KEY.into(), ..RangeRequest::default() }).await.unwrap();
        assert_eq!((found.kvs[0].value.as_ref(), found.kvs[0].version), (&b"9"[..], 3));
    }
}
