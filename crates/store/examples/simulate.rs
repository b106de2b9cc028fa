//! Runs seeds of the simulation on all processors: `cargo run --release -p store --example simulate -- FROM TO [SCENARIO]`.
//!
//! Prints every failing seed with what was found, and at the end how many there were; ends with exit code 1 if there is one. A
//! single seed prints its figures. SCENARIO: `all` (faults; odd seeds with busy members and slow checkpoints), `slow` (one slow disk), `long` (stuck for long), `back` (and back slowly), `returns` (power is lost when it is back), `cuts` (loss of power on all members), `lone` (of the only voter), `kills` (leaders are killed),
//! `hints` (false ones that they were), or a rule that is broken on purpose: `nosync`, `waits`, `votes`, `unvoted`, `acks`, `unwritten`, `cutleases`,
//! `keptleases`, `silent` (watches), `damage` (that fits its checksum), `stuck` (disks that stay so).

use std::process::ExitCode;

use base::{Clock, SystemClock};
use store::simulation::{
    Broken, Figures, run, run_cut_returns, run_false_hints, run_killed_leaders, run_lone_voter, run_long_stuck_disk,
    run_power_cuts, run_slow_disk, run_slow_return, run_unevenly, sweep,
};

/// Seeds between two looks at what was found.
const CHUNK: usize = 200;

type Scenario = fn(u64) -> Result<Figures, String>;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|argument| argument.parse::<u64>().ok());
    let scenario = scenario(arguments.get(2).map_or("all", String::as_str));
    let (Some(from), Some(to), Some(scenario)) = (number(0), number(1), scenario) else {
        eprintln!(
            "usage: simulate FROM TO [all|slow|long|back|returns|cuts|lone|kills|hints|nosync|waits|votes|unvoted|acks|unwritten|cutleases|keptleases|silent|damage|stuck]"
        );
        return ExitCode::FAILURE;
    };
    if from + 1 == to {
        println!("seed {from}: {:?}", scenario(from));
    }
    // A panic is a finding, and told as one.
    std::panic::set_hook(Box::new(|_| {}));
    let (clock, mut failures) = (SystemClock::new(), 0);
    for start in (from..to).step_by(CHUNK) {
        let failed = sweep(start..to.min(start + CHUNK as u64), scenario);
        failures += failed.len();
        for (seed, error) in failed {
            println!("seed {seed} FAILED: {error}");
        }
    }
    let seeds = to.saturating_sub(from);
    println!("{seeds} seeds, {failures} failed, {:.1} a second", seeds as f64 / clock.monotonic().as_secs_f64());
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn scenario(name: &str) -> Option<Scenario> {
    Some(match name {
        "all" => |seed| if seed % 2 == 0 { run(seed, Broken::Nothing) } else { run_unevenly(seed, Broken::Nothing) },
        "slow" => |seed| run_slow_disk(seed, Broken::Nothing),
        "long" => |seed| run_long_stuck_disk(seed, Broken::Nothing),
        "back" => |seed| run_slow_return(seed, Broken::Nothing),
        "returns" => |seed| run_cut_returns(seed, Broken::Nothing),
        "unwritten" => |seed| run_cut_returns(seed, Broken::UnwrittenNotHeld),
        "cuts" => |seed| run_power_cuts(seed, Broken::Nothing),
        "lone" => |seed| run_lone_voter(seed, Broken::Nothing),
        "kills" => |seed| run_killed_leaders(seed, Broken::Nothing),
        "hints" => |seed| run_false_hints(seed, Broken::Nothing),
        "nosync" => |seed| run(seed, Broken::SyncsIgnored),
        "waits" => |seed| run_slow_disk(seed, Broken::ApplicationWaits),
        "votes" => |seed| run_power_cuts(seed, Broken::VotesNotHeld),
        "unvoted" => |seed| run_lone_voter(seed, Broken::VotesNotHeld),
        "acks" => |seed| run_power_cuts(seed, Broken::AcknowledgementsNotHeld),
        "cutleases" => |seed| run(seed, Broken::LeasesCut),
        "keptleases" => |seed| run(seed, Broken::LeasesKept),
        "silent" => |seed| run(seed, Broken::WatchesSilent),
        "damage" => |seed| run(seed, Broken::DamageUnnoticed),
        "stuck" => |seed| run(seed, Broken::DisksStayStuck),
        _ => return None,
    })
}
