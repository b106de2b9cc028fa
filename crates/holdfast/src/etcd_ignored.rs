//! etcd's flags that this store has no use for: they are taken, so that a command line made for etcd starts it, and do
//! nothing.
//!
//! Only those whose absence nobody can see from outside: how etcd treats its own files, its timing, its log. A flag that
//! would change what clients or other members are promised is refused by its name instead. What etcd would not take as a
//! value is refused here, too: a mistake on the command line is heard of. Source: `etcd --help` and etcd's answers (3.7.3).

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches, value_parser};

use crate::cli::parse_duration;

/// Flags with any text as value.
const TEXTS: [&str; 4] = ["backend-bbolt-freelist-type", "log-outputs", "log-rotation-config-json", "metrics"];

/// Flags with a whole number, 0 or more.
const NUMBERS: [&str; 6] = [
    "bootstrap-defrag-threshold-megabytes",
    "election-timeout",
    "heartbeat-interval",
    "max-snapshots",
    "max-wals",
    "snapshot-count",
];

/// Flags with a whole number of 32 bits, 0 or more.
const SMALL_NUMBERS: [&str; 1] = ["max-concurrent-streams"];

/// Flags with a whole number that may be negative.
const SIGNED_NUMBERS: [&str; 2] = ["backend-batch-limit", "compaction-batch-limit"];

/// Flags with a duration in Go's form.
const DURATIONS: [&str; 12] = [
    "backend-batch-interval",
    "compact-hash-check-time",
    "compaction-sleep-interval",
    "corrupt-check-time",
    "downgrade-check-time",
    "grpc-keepalive-interval",
    "grpc-keepalive-min-time",
    "grpc-keepalive-timeout",
    "raft-read-timeout",
    "raft-write-timeout",
    "warning-apply-duration",
    "warning-unary-request-duration",
];

/// Flags with one of a list.
const CHOICES: [(&str, &[&str]); 3] = [
    ("log-format", &["json", "console"]),
    ("logger", &["zap"]),
    ("v2-deprecation", &["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]),
];

/// Flags that stand alone or have `=true` or `=false`.
const SWITCHES: [&str; 10] = [
    "enable-log-rotation",
    "enable-pprof",
    "experimental-initial-corrupt-check",
    "initial-election-tick-advance",
    "memory-mlock",
    "peer-skip-client-san-verification",
    "pre-vote",
    "socket-reuse-address",
    "socket-reuse-port",
    "strict-reconfig-check",
];

/// Lists of who is let in by HTTP, which here is everybody.
const LISTS_OF_ALL: [&str; 2] = ["cors", "host-whitelist"];

/// What `--feature-gates` may name.
const FEATURE_GATES: [&str; 11] = [
    "AllAlpha",
    "AllBeta",
    "CompactHashCheck",
    "FastLeaseKeepAlive",
    "InitialCorruptCheck",
    "LeaseCheckpoint",
    "LeaseCheckpointPersist",
    "PriorityRequest",
    "SetMemberLocalAddr",
    "StopGRPCServiceOnDefrag",
    "TxnModeWriteWithSharedBuffer",
];

/// Takes them all, and keeps nothing.
#[derive(Debug, Clone)]
pub struct IgnoredArgs;

impl Args for IgnoredArgs {
    fn augment_args(command: Command) -> Command {
        let flag = |name: &'static str| Arg::new(name).long(name).hide(true);
        let signed = |name| flag(name).allow_negative_numbers(true).value_parser(value_parser!(i64));
        let switch = |name| flag(name).num_args(0..=1).require_equals(true).default_missing_value("true");
        let choice = |(name, values): (_, &'static [&'static str])| {
            flag(name).value_delimiter(',').value_parser(PossibleValuesParser::new(values))
        };
        command
            .args(TEXTS.map(flag))
            .args(NUMBERS.map(|name| flag(name).value_parser(value_parser!(u64))))
            .args(SMALL_NUMBERS.map(|name| flag(name).value_parser(value_parser!(u32))))
            .args(SIGNED_NUMBERS.map(signed))
            .args(DURATIONS.map(|name| flag(name).value_parser(check_duration)))
            .args(CHOICES.map(choice))
            .args(SWITCHES.map(|name| switch(name).value_parser(parse_bool)))
            .args(LISTS_OF_ALL.map(|name| flag(name).value_parser(check_all)))
            .arg(flag("feature-gates").value_parser(check_gates))
            .arg(flag("max-learners").value_parser(check_learners))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for IgnoredArgs {
    fn from_arg_matches(_: &ArgMatches) -> Result<Self, Error> {
        Ok(Self)
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), Error> {
        Ok(())
    }
}

/// Whether the flag has a duration: in a file, etcd has a number of nanoseconds for it.
pub fn is_duration(name: &str) -> bool {
    DURATIONS.contains(&name) || name.ends_with("watch-progress-notify-interval")
}

fn check_duration(text: &str) -> Result<(), &'static str> {
    parse_duration(text).map(|_| ()).ok_or("expected a duration such as 5s or 100ms")
}

/// In Go's words.
/// As etcd reads switches.
pub fn parse_bool(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false"),
    }
}

fn check_all(text: &str) -> Result<(), &'static str> {
    let is_all = text.is_empty() || text.split(',').any(|one| one == "*");
    if is_all { Ok(()) } else { Err("nobody is kept out by name here; leave it away, or give *") }
}

fn check_learners(text: &str) -> Result<(), &'static str> {
    if text == "1" { Ok(()) } else { Err("a cluster has one learner at a time here; leave it away, or give 1") }
}

fn check_gates(text: &str) -> Result<(), String> {
    for gate in text.split(',').map(str::trim).filter(|gate| !gate.is_empty()) {
        let (name, value) = gate.split_once('=').ok_or_else(|| format!("expected {gate}=true or {gate}=false"))?;
        if !FEATURE_GATES.contains(&name.trim()) {
            return Err(format!("unrecognized feature gate: {name}"));
        }
        parse_bool(value.trim()).map_err(|reason| format!("{name}: {reason}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flag: &str) -> Result<(), String> {
        let command = IgnoredArgs::augment_args(Command::new("etcd"));
        let parsed = command.try_get_matches_from(["etcd", flag]).map(|_| ());
        parsed.map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())
    }

    #[test]
    fn values_that_etcd_takes_are_taken() {
        for flag in [
            "--snapshot-count=10000",
            "--max-concurrent-streams=4294967295",
            "--backend-batch-limit=-1",
            "--grpc-keepalive-interval=2h",
            "--raft-read-timeout=1m30s",
            "--logger=zap",
            "--log-format=console",
            "--log-outputs=stderr,/var/log/etcd",
            "--v2-deprecation=write-only,gone",
            "--socket-reuse-address",
            "--socket-reuse-port=T",
            "--pre-vote=false",
            "--feature-gates=AllAlpha=true,LeaseCheckpoint=false",
            "--cors=*",
            "--host-whitelist=",
            "--max-learners=1",
        ] {
            assert_eq!(parse(flag), Ok(()), "{flag}");
        }
    }

    #[test]
    fn other_values_are_refused_by_the_name_of_the_flag() {
        let check = |flag: &str, reason: &str| {
            let error = parse(flag).unwrap_err();
            let (name, _) = flag.split_once('=').unwrap();
            assert!(error.contains(name) && error.contains(reason), "{flag}: {error}");
        };
        check("--snapshot-count=many", "invalid digit");
        check("--snapshot-count=-1", "invalid digit");
        check("--max-concurrent-streams=4294967296", "4294967296 is not in");
        check("--compaction-batch-limit=1.5", "invalid digit");
        check("--grpc-keepalive-interval=5", "expected a duration such as 5s");
        check("--logger=capnslog", "invalid value 'capnslog'");
        check("--v2-deprecation=not-yet", "invalid value 'not-yet'");
        check("--socket-reuse-address=maybe", "expected true or false");
        check("--feature-gates=AllBeta", "expected AllBeta=true");
        check("--feature-gates=Best=true", "unrecognized feature gate: Best");
        check("--feature-gates=AllBeta=x", "AllBeta: expected true or false");
        check("--cors=http://a", "nobody is kept out by name here");
        check("--host-whitelist=a,b", "nobody is kept out by name here");
        check("--max-learners=2", "one learner at a time");
    }
}
