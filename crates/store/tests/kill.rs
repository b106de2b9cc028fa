//! `kill -9` on a real process and a real directory, again and again: every acknowledged write must be there.
//!
//! The program runs itself as the child: `kill child DIRECTORY` opens the store and writes as fast as it can from several
//! tasks, printing each acknowledged key. The parent kills it after a random number of lines, opens the directory
//! itself and looks for every key that it ever read.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use base::{OsRng, Rng, SystemClock};
use store::{Config, Kv, Op, Put, RangeRequest, RealDisk, Store, Txn};

const WRITERS: u64 = 8;
const KILLS: u32 = 300;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    match arguments.as_slice() {
        [_, role, directory, life] if role == "child" => write_for_ever(Path::new(directory), life),
        [_, arguments @ ..] if !is_asked_for(arguments) => ExitCode::SUCCESS,
        _ => kill_again_and_again(),
    }
}

/// As the ordinary harness: a filter that does not name this test skips it, and so does a listing.
fn is_asked_for(arguments: &[String]) -> bool {
    let mut filters = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
    let matches = filters.peek().is_none() || filters.any(|filter| "kill_again_and_again".contains(filter.as_str()));
    matches && !arguments.iter().any(|argument| argument == "--list")
}

fn open(directory: &Path) -> Store {
    // Small files, so that kills also hit new segments and checkpoints.
    let config = Config {
        segment_bytes: 256 << 10,
        checkpoint_log_bytes: 512 << 10,
        reserve_bytes: 1 << 20,
        ..Config::default()
    };
    Store::open(
        config,
        Arc::new(RealDisk::new(directory).unwrap()),
        Arc::new(SystemClock::new()),
        Arc::new(store::NoPeers),
    )
    .unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn write_for_ever(directory: &Path, life: &str) -> ExitCode {
    let store = open(directory);
    runtime().block_on(async {
        let writer = async |writer: u64| {
            for n in 0.. {
                let key = format!("{life}/{writer}/{n}");
                let value = vec![b'v'; 200 + n % 1000].into();
                let put = Put { key: key.clone().into(), value, ..Put::default() };
                if let Err(error) = store.txn(Txn::of(Op::Put(put))).await {
                    eprintln!("{error}");
                    return;
                }
                let mut out = std::io::stdout().lock();
                writeln!(out, "{key}").and_then(|()| out.flush()).unwrap();
            }
        };
        futures::future::join_all((0..WRITERS).map(writer)).await;
    });
    ExitCode::FAILURE
}

/// Runs a child until it has acknowledged `lines` writes and kills it. Returns what it acknowledged.
fn one_life(directory: &Path, life: u32, lines: u64) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", &directory.display().to_string(), &life.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged: Vec<_> = output.by_ref().take(lines as usize).map(Result::unwrap).collect();
    child.kill().unwrap();
    // What it had printed before it died counts; a line that was cut does not.
    acknowledged.extend(output.map_while(Result::ok).filter(|line| is_whole(line, life)));
    child.wait().unwrap();
    acknowledged
}

fn is_whole(line: &str, life: u32) -> bool {
    // The kernel hands short pipe writes over whole, so only an empty rest can be incomplete.
    line.split('/').count() == 3 && line.starts_with(&format!("{life}/"))
}

fn kill_again_and_again() -> ExitCode {
    let directory = std::env::temp_dir().join(format!("holdfast-store-kill-{}", std::process::id()));
    let mut acknowledged = BTreeSet::new();
    for life in 0..KILLS {
        let lines = OsRng.below(120);
        acknowledged.extend(one_life(&directory, life, lines));
        // Looking after every kill would double the time for nothing: what is lost stays lost.
        if life % 10 == 0 {
            verify(&directory, &acknowledged);
        }
    }
    verify(&directory, &acknowledged);
    println!("{KILLS} kills, {} acknowledged writes, none lost", acknowledged.len());
    std::fs::remove_dir_all(&directory).unwrap();
    ExitCode::SUCCESS
}

fn verify(directory: &Path, acknowledged: &BTreeSet<String>) {
    let store = open(directory);
    let all = RangeRequest { key: "\0".into(), end: Some("".into()), keys_only: true, ..RangeRequest::default() };
    let found = runtime().block_on(store.range(all)).unwrap();
    let keys: BTreeSet<_> = found.kvs.iter().map(|kv| String::from_utf8(kv.key.to_vec()).unwrap()).collect();
    let lost: Vec<_> = acknowledged.difference(&keys).collect();
    assert!(lost.is_empty(), "{} acknowledged writes are lost, first {:?}", lost.len(), lost.first());
    // Every key was written once: revisions without a gap mean as many as keys.
    assert_eq!(found.revision, 1 + keys.len() as i64, "revisions are contiguous");
}
