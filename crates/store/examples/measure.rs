//! Figures of the store on a real disk: `cargo run --profile fast -p store --example measure -- DIRECTORY`.
//!
//! On an empty directory: puts per second and latency for 1, 16, 128 and 1024 writers, and the memory that a key takes.
//! On one that was filled so: the time and memory of a restart.
#![expect(clippy::unwrap_used, reason = "a program for developers: the first failure ends it")]

use std::sync::Arc;
use std::time::Duration;

use base::{Clock, SystemClock};
use store::{Config, Kv, Op, Put, RealDisk, Store, Txn};

const VALUE_BYTES: usize = 1024;
const SECONDS: u64 = 4;

fn main() {
    let directory = std::env::args().nth(1).unwrap();
    let clock = Arc::new(SystemClock::new());
    let open = || {
        let disk = Arc::new(RealDisk::new(&directory).unwrap());
        Arc::new(Store::open(Config::default(), disk, clock.clone(), Arc::new(store::NoPeers)).unwrap())
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let at = clock.monotonic();
    let store = open();
    let found = runtime.block_on(store.status()).unwrap();
    if found.keys > 0 {
        let (took, payload) = (clock.monotonic() - at, found.keys * (VALUE_BYTES as u64 + 28));
        println!(
            "restart: {took:?} for {} keys, {:.2} x payload in memory",
            found.keys,
            resident() as f64 / payload as f64
        );
        return;
    }
    println!("{:>8} {:>10} {:>10} {:>10} {:>10}", "writers", "puts/s", "p50 ms", "p99 ms", "per fsync");
    for writers in [1, 16, 128, 1024] {
        runtime.block_on(measure(&store, &clock, writers));
    }
    let before = resident();
    runtime.block_on(fill(&store, 200_000));
    let status = runtime.block_on(store.status()).unwrap();
    let payload = 200_000 * (VALUE_BYTES as u64 + 28);
    println!(
        "200,000 new keys of {VALUE_BYTES} bytes: {:.2} x payload in memory",
        (resident() - before) as f64 / payload as f64
    );
    println!("revision {}, {} keys, {} MB accounted", status.revision, status.keys, status.db_bytes >> 20);
    let at = clock.monotonic();
    runtime.block_on(store.compact(status.revision)).unwrap();
    while runtime.block_on(store.status()).unwrap().db_bytes > status.live_bytes {}
    println!(
        "compaction of {} revisions: {:?}, {} MB resident",
        status.revision,
        clock.monotonic() - at,
        resident() >> 20
    );
    store.close();
}

fn put(key: String) -> Txn {
    Txn::of(Op::Put(Put { key: key.into(), value: vec![b'v'; VALUE_BYTES].into(), ..Put::default() }))
}

async fn measure(store: &Arc<Store>, clock: &Arc<SystemClock>, writers: usize) {
    let syncs = store.status().await.unwrap().wal_fsync_seconds.count;
    let end = clock.monotonic() + Duration::from_secs(SECONDS);
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (store, clock) = (Arc::clone(store), Arc::clone(clock));
            tokio::spawn(async move {
                let mut took = Vec::new();
                while clock.monotonic() < end {
                    let at = clock.monotonic();
                    store.txn(put(format!("/measure/{writers}/{writer}/{}", took.len() % 100))).await.unwrap();
                    took.push(clock.monotonic() - at);
                }
                took
            })
        })
        .collect();
    let mut took: Vec<Duration> = Vec::new();
    for task in tasks {
        took.extend(task.await.unwrap());
    }
    took.sort();
    let syncs = store.status().await.unwrap().wal_fsync_seconds.count - syncs;
    let quantile = |q: f64| took[((took.len() - 1) as f64 * q) as usize].as_secs_f64() * 1000.0;
    let (rate, group) = (took.len() as f64 / SECONDS as f64, took.len() as f64 / syncs as f64);
    println!("{writers:>8} {rate:>10.0} {:>10.3} {:>10.3} {group:>10.1}", quantile(0.5), quantile(0.99));
}

async fn fill(store: &Arc<Store>, keys: usize) {
    let tasks: Vec<_> = (0..100)
        .map(|task| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                for n in 0..keys / 100 {
                    store.txn(put(format!("/fill/namespace-{task:04}/{n:08}"))).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
