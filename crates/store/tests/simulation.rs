//! Some thousand seeds of the simulation for every change; `cargo run -p store --example simulate -- FROM TO` runs more of them.
//! The negative controls break a rule on purpose: the same oracles must notice.

use std::ops::Range;

use store::simulation::{
    Broken, Figures, run, run_cut_returns, run_false_hints, run_killed_leaders, run_lone_voter, run_long_stuck_disk,
    run_power_cuts, run_slow_disk, run_slow_return, run_unevenly, sweep,
};

/// These seeds, on all processors.
fn all_pass(seeds: Range<u64>, scenario: impl Fn(u64, Broken) -> Result<Figures, String> + Sync) {
    let found = sweep(seeds, |seed| scenario(seed, Broken::Nothing));
    assert!(found.is_empty(), "{} seeds failed: {found:#?}", found.len());
}

/// At least one seed of these must notice it.
fn caught(seeds: Range<u64>, broken: Broken, scenario: impl Fn(u64, Broken) -> Result<Figures, String> + Sync) {
    let noticed = seeds.clone().any(|seed| scenario(seed, broken).is_err());
    assert!(noticed, "{broken:?} was not noticed by any of the seeds {seeds:?}");
}

#[test]
fn a_cluster_survives_all_faults_at_once() {
    all_pass(0..1400, run);
    all_pass(0..1000, run_unevenly);
}

/// Seeds that found something. 104366: two voters, both to be removed, handed leadership over to each other without end. 105977: a
/// leader that had removed the only other voter lost power and waited for that one's vote. 271170: proposals of others that came together
/// with the removal of their leader were taken for appended, and waited for its end. 783996: an only voter lost power twice before its vote was on the disk, and led twice in one
/// term, with two logs.
#[test]
fn what_was_found_once_is_not_found_again() {
    all_pass(104_366..104_367, run);
    all_pass(105_977..105_978, run);
    all_pass(271_170..271_171, run);
    all_pass(783_996..783_997, run);
}

/// Each of three disks at 800 ms, at 5 s, and stuck for ever.
#[test]
fn one_slow_disk_of_three_is_not_noticed() {
    all_pass(0..9, run_slow_disk);
}

/// So long that too much waits for it, and its log is left behind.
#[test]
fn a_disk_that_is_stuck_for_long_is_not_noticed_and_counts_again_when_it_is_back() {
    all_pass(0..9, run_long_stuck_disk);
}

#[test]
fn a_disk_that_comes_back_slowly_is_not_noticed_either() {
    all_pass(0..28, run_slow_return);
    let logs_began_anew: u64 = (0..4).map(|seed| run_slow_return(seed, Broken::Nothing).unwrap().returns).sum();
    assert!(logs_began_anew > 0);
    caught(0..2, Broken::ApplicationWaits, run_slow_return);
}

#[test]
fn a_disk_that_comes_back_after_long_promises_nothing_before_its_log_goes_on() {
    all_pass(0..6, run_cut_returns);
    caught(0..20, Broken::UnwrittenNotHeld, run_cut_returns);
}

#[test]
fn nothing_is_lost_when_all_members_lose_power() {
    all_pass(0..800, run_power_cuts);
}

#[test]
fn a_leader_that_votes_for_itself_alone_is_not_heard_before_its_vote_is_on_the_disk() {
    all_pass(0..200, run_lone_voter);
    caught(0..100, Broken::VotesNotHeld, run_lone_voter);
}

#[test]
fn a_leader_whose_process_is_killed_is_followed_within_400_ms() {
    all_pass(0..20, run_killed_leaders);
}

#[test]
fn a_leader_that_lives_leads_on_whatever_one_member_supposes() {
    all_pass(0..10, run_false_hints);
}

#[test]
fn a_disk_that_forgets_is_noticed() {
    caught(0..4, Broken::SyncsIgnored, run);
}

#[test]
fn application_that_waits_for_the_own_disk_is_noticed() {
    caught(0..2, Broken::ApplicationWaits, run_slow_disk);
}

#[test]
fn votes_that_are_not_on_the_disk_are_noticed() {
    caught(0..200, Broken::VotesNotHeld, run_power_cuts);
}

#[test]
fn acknowledgements_of_what_is_not_on_the_disk_are_noticed() {
    caught(0..50, Broken::AcknowledgementsNotHeld, run_power_cuts);
}

#[test]
fn a_lease_that_ends_too_early_is_noticed() {
    caught(0..10, Broken::LeasesCut, run);
}

#[test]
fn a_lease_that_does_not_end_is_noticed() {
    caught(0..10, Broken::LeasesKept, run);
}

#[test]
fn a_watch_that_is_told_nothing_is_noticed() {
    caught(0..2, Broken::WatchesSilent, run);
}

/// A quarter of the seeds damage a disk at all.
#[test]
fn damage_that_no_checksum_shows_is_noticed() {
    caught(0..200, Broken::DamageUnnoticed, run);
}

#[test]
fn a_cluster_that_does_not_come_back_is_noticed() {
    caught(0..2, Broken::DisksStayStuck, run);
}
