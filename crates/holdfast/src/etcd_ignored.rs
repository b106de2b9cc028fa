//! etcd's flags that this store has no use for: they are taken, so that a command line made for etcd starts it, and do
//! nothing.
//!
//! Only those whose absence nobody can see from outside: how etcd treats its own files, its timing, its log. A flag that
//! would change what clients or other members are promised is refused by its name instead.

use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches};

/// Flags with a value.
const VALUES: [&str; 30] = [
    "backend-batch-interval",
    "backend-batch-limit",
    "backend-bbolt-freelist-type",
    "bootstrap-defrag-threshold-megabytes",
    "compact-hash-check-time",
    "compaction-batch-limit",
    "compaction-sleep-interval",
    "corrupt-check-time",
    "downgrade-check-time",
    "election-timeout",
    "feature-gates",
    "grpc-keepalive-interval",
    "grpc-keepalive-min-time",
    "grpc-keepalive-timeout",
    "heartbeat-interval",
    "log-format",
    "log-outputs",
    "log-rotation-config-json",
    "logger",
    "max-concurrent-streams",
    "max-snapshots",
    "max-wals",
    "metrics",
    "raft-read-timeout",
    "raft-write-timeout",
    "snapshot-count",
    "socket-reuse-address",
    "v2-deprecation",
    "warning-apply-duration",
    "warning-unary-request-duration",
];

/// Flags that stand alone or have `=true` or `=false`.
const SWITCHES: [&str; 7] = [
    "enable-log-rotation",
    "enable-pprof",
    "experimental-initial-corrupt-check",
    "initial-election-tick-advance",
    "memory-mlock",
    "pre-vote",
    "strict-reconfig-check",
];

/// Takes them all, and keeps nothing.
#[derive(Debug, Clone)]
pub struct IgnoredArgs;

impl Args for IgnoredArgs {
    fn augment_args(command: Command) -> Command {
        let flag = |name: &'static str| Arg::new(name).long(name).hide(true);
        let switch = |name| flag(name).num_args(0..=1).require_equals(true).default_missing_value("true");
        command.args(VALUES.map(flag)).args(SWITCHES.map(switch))
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
