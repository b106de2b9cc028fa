//! A few seeds of the simulation for every change; `cargo run -p store --example simulate -- FROM TO` runs more of them.
//! The negative controls break a rule on purpose: the same oracles must notice.

use store::simulation::{Broken, Figures, run, run_false_hints, run_killed_leaders, run_power_cuts, run_slow_disk};

fn all_pass(seeds: &[u64], scenario: impl Fn(u64, Broken) -> Result<Figures, String>) {
    for seed in seeds {
        if let Err(error) = scenario(*seed, Broken::Nothing) {
            panic!("seed {seed}: {error}");
        }
    }
}

fn caught(seeds: &[u64], broken: Broken, scenario: impl Fn(u64, Broken) -> Result<Figures, String>) {
    for seed in seeds {
        assert!(scenario(*seed, broken).is_err(), "seed {seed}: {broken:?} was not noticed");
    }
}

#[test]
fn a_cluster_survives_all_faults_at_once() {
    all_pass(&[0, 1, 5032, 5311], run);
}

/// A leader's disk that takes 800 ms (seed 1), and one that is stuck for ever (seed 6).
#[test]
fn one_slow_disk_of_three_is_not_noticed() {
    all_pass(&[1, 6], run_slow_disk);
}

#[test]
fn nothing_is_lost_when_all_members_lose_power() {
    all_pass(&[0], run_power_cuts);
}

#[test]
fn a_leader_whose_process_is_killed_is_followed_within_400_ms() {
    all_pass(&[0, 1], run_killed_leaders);
}

#[test]
fn a_leader_that_lives_leads_on_whatever_one_member_supposes() {
    all_pass(&[0, 1], run_false_hints);
}

#[test]
fn a_disk_that_forgets_is_noticed() {
    caught(&[0, 1], Broken::SyncsIgnored, run);
}

#[test]
fn application_that_waits_for_the_own_disk_is_noticed() {
    caught(&[0, 1], Broken::ApplicationWaits, run_slow_disk);
}

#[test]
fn votes_that_are_not_on_the_disk_are_noticed() {
    caught(&[1], Broken::VotesNotHeld, run_power_cuts);
}

#[test]
fn acknowledgements_of_what_is_not_on_the_disk_are_noticed() {
    caught(&[2, 3], Broken::AcknowledgementsNotHeld, run_power_cuts);
}
