//! It heals: a real one-node cluster, hurt in eight ways, each with the time it took to heal.
//!
//! Needs root, containerd, runc, nft and kubectl (`dev/setup`), and no other cluster on this machine. The scenarios run in
//! order on one cluster; each makes and removes its own objects. Every wait is a watch (`kubectl wait`) with a limit.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod cluster;
mod load;
#[path = "../clusters/process.rs"]
#[expect(dead_code, reason = "the clusters' tests need more of it")]
mod process;
mod scenarios;
mod servers;

use std::process::ExitCode;

use cluster::Cluster;

fn main() -> ExitCode {
    if std::env::args().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    if !rustix_is_root() {
        println!("heals: skipped, it needs root\n0 passed, 0 failed");
        return ExitCode::SUCCESS;
    }
    let cluster = Cluster::up();
    let mut failed = 0;
    for (name, scenario) in scenarios::ALL {
        let outcome = std::panic::catch_unwind(|| scenario(&cluster));
        match &outcome {
            Ok(figure) => println!("test {name} ... ok ({figure})"),
            Err(_) => {
                println!("test {name} ... FAILED");
                cluster.describe_failure();
                failed += 1;
            }
        }
    }
    cluster.down();
    println!(
        "\ntest result: {}. {} passed; {failed} failed",
        if failed == 0 { "ok" } else { "FAILED" },
        scenarios::ALL.len() - failed
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn rustix_is_root() -> bool {
    rustix::process::geteuid().is_root()
}
