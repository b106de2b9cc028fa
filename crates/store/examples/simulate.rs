//! Runs seeds of the simulation: `cargo run -p store --example simulate -- FROM TO [SCENARIO]`.
//!
//! Prints every failing seed with what was found; ends with exit code 1 if there is one. SCENARIO: `slow` (one slow disk),
//! `cuts` (loss of power on all members), `kills` (leaders are killed), `hints` (false ones that they were), or a rule that is broken on purpose: `nosync`, `waits`, `votes`, `acks`.

use std::process::ExitCode;

use store::simulation::{Broken, Figures, run, run_false_hints, run_killed_leaders, run_power_cuts, run_slow_disk};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|argument| argument.parse::<u64>().ok());
    let (Some(from), Some(to)) = (number(0), number(1)) else {
        eprintln!("usage: simulate FROM TO [SCENARIO]");
        return ExitCode::FAILURE;
    };
    let one: fn(u64) -> Result<Figures, String> = match arguments.get(2).map(String::as_str) {
        Some("slow") => |seed| run_slow_disk(seed, Broken::Nothing),
        Some("nosync") => |seed| run(seed, Broken::SyncsIgnored),
        Some("waits") => |seed| run_slow_disk(seed, Broken::ApplicationWaits),
        Some("cuts") => |seed| run_power_cuts(seed, Broken::Nothing),
        Some("kills") => |seed| run_killed_leaders(seed, Broken::Nothing),
        Some("hints") => |seed| run_false_hints(seed, Broken::Nothing),
        Some("votes") => |seed| run_power_cuts(seed, Broken::VotesNotHeld),
        Some("acks") => |seed| run_power_cuts(seed, Broken::AcknowledgementsNotHeld),
        _ => |seed| run(seed, Broken::Nothing),
    };
    let mut failures = 0;
    for seed in from..to {
        match one(seed) {
            Ok(figures) => println!("seed {seed}: {figures:?}"),
            Err(error) => {
                failures += 1;
                println!("seed {seed} FAILED: {error}");
            }
        }
    }
    println!("{} seeds, {failures} failed", to.saturating_sub(from));
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
