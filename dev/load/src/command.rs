//! The command line: arguments to one parsed, bounded [`Load`]. A number outside its bounds is refused with both of them named.

use std::path::PathBuf;

use clap::{Parser, Subcommand, value_parser};

/// Load on a Kubernetes API server from outside, and what it measured.
#[derive(Debug, Parser, PartialEq)]
#[command(name = "load", disable_help_subcommand = true)]
pub struct Load {
    /// Server, authority and client certificate or bearer token.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// HTTP/2 connections, used in turn, so that none of them is the limit.
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u32).range(1..=256))]
    pub connections: u32,
    /// No request begins later than this.
    #[arg(long, default_value_t = 120, value_parser = value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    #[command(subcommand)]
    pub work: Work,
}

#[derive(Debug, Subcommand, PartialEq)]
pub enum Work {
    /// Create ConfigMaps.
    Create {
        #[arg(short, default_value_t = 1000, value_parser = value_parser!(u32).range(1..=1_000_000))]
        n: u32,
        /// How many at once.
        #[arg(long, default_value_t = 16, value_parser = value_parser!(u32).range(1..=4096))]
        clients: u32,
        /// Of data in each.
        #[arg(long, default_value_t = 512, value_parser = value_parser!(u32).range(0..=1_000_000))]
        bytes: u32,
    },
    /// Create Pods that no scheduler takes, to be listed.
    Pods {
        #[arg(short, default_value_t = 1000, value_parser = value_parser!(u32).range(1..=1_000_000))]
        n: u32,
        #[arg(long, default_value_t = 32, value_parser = value_parser!(u32).range(1..=4096))]
        clients: u32,
    },
    /// Get one ConfigMap again and again.
    Get {
        #[arg(short, default_value_t = 1000, value_parser = value_parser!(u32).range(1..=1_000_000))]
        n: u32,
        #[arg(long, default_value_t = 16, value_parser = value_parser!(u32).range(1..=4096))]
        clients: u32,
    },
    /// List a collection whole.
    List {
        #[arg(short, default_value_t = 10, value_parser = value_parser!(u32).range(1..=1_000_000))]
        n: u32,
        #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=4096))]
        clients: u32,
        #[arg(long, default_value = "/api/v1/pods")]
        path: String,
        /// Ask for protobuf instead of JSON.
        #[arg(long)]
        protobuf: bool,
    },
    /// Create ConfigMaps under many watches: from a write to its last delivery.
    Watch {
        #[arg(short, default_value_t = 200, value_parser = value_parser!(u32).range(1..=100_000))]
        n: u32,
        #[arg(long, default_value_t = 16, value_parser = value_parser!(u32).range(1..=4096))]
        clients: u32,
        #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(1..=20_000))]
        watchers: u32,
        #[arg(long, default_value_t = 512, value_parser = value_parser!(u32).range(0..=1_000_000))]
        bytes: u32,
    },
    /// Start real Pods: from create to Ready, and from delete (1 s of grace) to gone.
    Start {
        #[arg(short, default_value_t = 30, value_parser = value_parser!(u32).range(1..=10_000))]
        n: u32,
        #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=256))]
        clients: u32,
        /// One that the nodes can get; its first process must not end by itself.
        #[arg(long)]
        image: String,
    },
    /// Remove what the others made, and wait until it is gone.
    Clean,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Load, String> {
        Load::try_parse_from(line.split(' ')).map_err(|e| e.to_string())
    }

    #[test]
    fn work_has_defaults() {
        let load = parse("load --kubeconfig k create").unwrap();
        assert_eq!((load.connections, load.seconds), (8, 120));
        assert_eq!(load.work, Work::Create { n: 1000, clients: 16, bytes: 512 });
    }

    #[test]
    fn what_is_given_is_taken() {
        let load = parse("load --kubeconfig k --connections 2 --seconds 5 list -n 3 --clients 8 --protobuf").unwrap();
        assert_eq!((load.connections, load.seconds), (2, 5));
        assert_eq!(load.work, Work::List { n: 3, clients: 8, path: "/api/v1/pods".to_owned(), protobuf: true });
        let load = parse("load --kubeconfig k start --image i:1 -n 4").unwrap();
        assert_eq!(load.work, Work::Start { n: 4, clients: 1, image: "i:1".to_owned() });
    }

    #[test]
    fn what_is_unbounded_or_missing_is_refused() {
        for (line, names) in [
            ("load create", "--kubeconfig"),
            ("load --kubeconfig k", "Usage"),
            ("load --kubeconfig k create -n 0", "1..=1000000"),
            ("load --kubeconfig k create --clients 5000", "1..=4096"),
            ("load --kubeconfig k watch --watchers 20001", "1..=20000"),
            ("load --kubeconfig k --seconds 3601 create", "1..=3600"),
            ("load --kubeconfig k --connections 0 create", "1..=256"),
            ("load --kubeconfig k start", "--image"),
            ("load --kubeconfig k dance", "dance"),
        ] {
            let refusal = parse(line).unwrap_err();
            assert!(refusal.contains(names), "{line}: {refusal}");
        }
    }
}
