//! `holdfast etcd`: the store alone, with the etcd v3 API and etcd's own flags, so that what starts etcd starts this.
//!
//! Flags in, a running member out: settings are checked before anything is touched, then the ports are taken, then the
//! store is opened. One member: a cluster of several is refused. Files of etcd are left alone: the store has its own
//! directory inside of the data directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, SystemClock};
use clap::Args;
use etcd::{EtcdServer, Settings};
use store::{Config, RealDisk, Store};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::CommandResult;
use crate::etcd_listen::{EtcdFlagsError, TlsFiles, bind_all, load_tls, parse_url, serve_all};
use crate::run::{runtime, start_log, wait_for_signal};

/// Inside of `--data-dir`.
const STORE_DIRECTORY: &str = "holdfast";
/// etcd's default.
const QUOTA_BYTES: u64 = 2 << 30;

/// etcd's flags for one member. Those that concern other members, or etcd's way with its disk, are taken and have no effect.
#[derive(Debug, Clone, Args)]
pub struct EtcdArgs {
    /// Human-readable name of this member.
    #[arg(long, default_value = "default", env = "ETCD_NAME")]
    name: String,
    /// Where the data is [default: NAME.etcd].
    #[arg(long, env = "ETCD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// URLs to listen on for clients.
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2379", env = "ETCD_LISTEN_CLIENT_URLS")]
    listen_client_urls: Vec<String>,
    /// The URLs that clients are told.
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2379", env = "ETCD_ADVERTISE_CLIENT_URLS")]
    advertise_client_urls: Vec<String>,
    /// URLs for other members; there are none, so nothing listens there.
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2380", env = "ETCD_LISTEN_PEER_URLS")]
    listen_peer_urls: Vec<String>,
    /// The peer URLs that the member list shows.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "http://localhost:2380",
        env = "ETCD_INITIAL_ADVERTISE_PEER_URLS"
    )]
    initial_advertise_peer_urls: Vec<String>,
    /// NAME=PEERURL of this member.
    #[arg(long, env = "ETCD_INITIAL_CLUSTER")]
    initial_cluster: Option<String>,
    /// `new`, or `existing` for a member that has data.
    #[arg(long, default_value = "new", value_parser = ["new", "existing"], env = "ETCD_INITIAL_CLUSTER_STATE")]
    initial_cluster_state: String,
    /// Has no effect with one member.
    #[arg(long, env = "ETCD_INITIAL_CLUSTER_TOKEN")]
    initial_cluster_token: Option<String>,
    /// Keys, values and history may take so many bytes; 0 = 2 GiB, negative = no bound.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true, env = "ETCD_QUOTA_BACKEND_BYTES")]
    quota_backend_bytes: i64,
    /// `periodic` or `revision`.
    #[arg(long, default_value = "periodic", value_parser = ["periodic", "revision"], env = "ETCD_AUTO_COMPACTION_MODE")]
    auto_compaction_mode: String,
    /// How much history is kept: hours or a duration such as 5m, or so many revisions; 0 = no automatic compaction.
    #[arg(long, default_value = "0", env = "ETCD_AUTO_COMPACTION_RETENTION")]
    auto_compaction_retention: String,
    /// Operations in a transaction.
    #[arg(long, default_value_t = 128, env = "ETCD_MAX_TXN_OPS")]
    max_txn_ops: usize,
    /// Bytes of a request.
    #[arg(long, default_value_t = 3 << 19, env = "ETCD_MAX_REQUEST_BYTES")]
    max_request_bytes: usize,
    /// Silent watches that asked for it hear how far they are complete.
    #[arg(long, alias = "experimental-watch-progress-notify-interval", default_value = "10m")]
    watch_progress_notify_interval: String,
    #[command(flatten)]
    tls: TlsFiles,
    /// URLs for health and metrics alone.
    #[arg(long, value_delimiter = ',', env = "ETCD_LISTEN_METRICS_URLS")]
    listen_metrics_urls: Vec<String>,
    /// debug, info, warn or error.
    #[arg(long, default_value = "info", env = "ETCD_LOG_LEVEL")]
    log_level: String,
    /// Not of etcd: fill the empty data directory with this snapshot (of `etcdctl snapshot save` from this server) and end.
    #[arg(long, value_name = "FILE")]
    restore_snapshot: Option<PathBuf>,
    #[command(flatten)]
    ignored: IgnoredArgs,
}

/// What etcd knows and one member of this store has no use for.
#[derive(Debug, Clone, Args)]
struct IgnoredArgs {
    #[arg(long, hide = true)]
    snapshot_count: Option<String>,
    #[arg(long, hide = true)]
    heartbeat_interval: Option<String>,
    #[arg(long, hide = true)]
    election_timeout: Option<String>,
    #[arg(long, hide = true)]
    max_snapshots: Option<String>,
    #[arg(long, hide = true)]
    max_wals: Option<String>,
    #[arg(long, hide = true)]
    logger: Option<String>,
    #[arg(long, hide = true)]
    log_outputs: Option<String>,
    #[arg(long, hide = true)]
    metrics: Option<String>,
    #[arg(long, hide = true)]
    feature_gates: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    experimental_initial_corrupt_check: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    strict_reconfig_check: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pre_vote: Option<String>,
    #[arg(long, hide = true)]
    peer_cert_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    peer_key_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    peer_trusted_ca_file: Option<PathBuf>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    peer_client_cert_auth: Option<String>,
}

/// Runs the member until a signal ends it, or restores a snapshot.
pub fn run(args: &EtcdArgs) -> CommandResult {
    check_cluster(args)?;
    let directory = args.data_dir.clone().unwrap_or_else(|| PathBuf::from(format!("{}.etcd", args.name)));
    if let Some(file) = &args.restore_snapshot {
        return restore(&directory, file);
    }
    start_log(match args.log_level.as_str() {
        "panic" | "fatal" | "dpanic" => "error",
        level => level,
    });
    let (config, settings) = (store_config(args)?, server_settings(args)?);
    let clients = args.listen_client_urls.iter().map(|url| parse_url("--listen-client-urls", url));
    let clients = clients.collect::<Result<Vec<_>, _>>()?;
    let metrics = args.listen_metrics_urls.iter().map(|url| parse_url("--listen-metrics-urls", url));
    let metrics = metrics.collect::<Result<Vec<_>, _>>()?;
    let tls = load_tls(&args.tls)?;
    if let Some(url) = clients.iter().chain(&metrics).find(|url| url.secure && tls.is_none()) {
        return Err(EtcdFlagsError::NoCertificate { url: format!("https://{}", url.address) }.into());
    }
    check_directory(&directory, args)?;
    let runtime = runtime("etcd", std::thread::available_parallelism().map_or(2, usize::from))?;
    runtime.block_on(async {
        // The ports first: if another process holds them, nothing on disk is touched.
        let clients = bind_all(&clients).await?;
        let metrics = bind_all(&metrics).await?;
        let disk = RealDisk::new(directory.join(STORE_DIRECTORY))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let store = Arc::new(Store::open(config, Arc::new(disk), clock, Arc::new(store::NoPeers))?);
        let server = EtcdServer::new(Arc::clone(&store), settings).await?;
        let stop = CancellationToken::new();
        serve_all(&server, clients, metrics, tls.as_ref(), &stop);
        let (cluster, member) = server.ids();
        info!("ready to serve client requests: member {member:x} of cluster {cluster:x}");
        let failed = tokio::select! {
            () = wait_for_signal() => None,
            reason = store.failed() => Some(reason),
        };
        stop.cancel();
        store.close();
        match failed {
            None => Ok(()),
            Some(reason) => {
                error!("the store failed: {reason}");
                Err(format!("the store failed: {reason}").into())
            }
        }
    })
}

fn restore(directory: &Path, file: &Path) -> CommandResult {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let opened = File::open(file).map_err(|error| named(&error))?;
    let mut snapshot = etcd::snapshot::open_snapshot(opened).map_err(|error| named(&error))?;
    let disk = RealDisk::new(directory.join(STORE_DIRECTORY))?;
    let revision = Store::restore(&disk, &mut snapshot)?;
    println!("restored {} into {} at revision {revision}", file.display(), directory.display());
    Ok(())
}

fn check_cluster(args: &EtcdArgs) -> Result<(), EtcdFlagsError> {
    let Some(given) = args.initial_cluster.as_deref().filter(|given| !given.is_empty()) else { return Ok(()) };
    let mut members: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for part in given.split(',') {
        let (name, url) = part.split_once('=').ok_or_else(|| EtcdFlagsError::Value {
            flag: "--initial-cluster",
            value: given.to_owned(),
            reason: "expected NAME=PEERURL",
        })?;
        members.entry(name.trim()).or_default().push(url);
    }
    let name = args.name.as_str();
    let Some(own) = members.get(name) else {
        return Err(EtcdFlagsError::NotInCluster { given: given.to_owned(), name: name.to_owned() });
    };
    if members.len() > 1 {
        let own = own.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",");
        return Err(EtcdFlagsError::SeveralMembers { members: members.len(), own });
    }
    Ok(())
}

/// Refuses a directory that holds something else than what the flags say.
fn check_directory(directory: &Path, args: &EtcdArgs) -> Result<(), String> {
    let here = directory.display();
    let has_data = directory.join(STORE_DIRECTORY).exists();
    if directory.join("member").exists() && !has_data {
        return Err(format!(
            "{here} holds the data of an etcd, whose files this store does not read; choose another --data-dir"
        ));
    }
    if args.initial_cluster_state == "existing" && !has_data {
        return Err(format!(
            "--initial-cluster-state existing, but {here} holds no data: this version runs one member and can't join others"
        ));
    }
    Ok(())
}

fn store_config(args: &EtcdArgs) -> Result<Config, EtcdFlagsError> {
    let bad = |reason| EtcdFlagsError::Value {
        flag: "--auto-compaction-retention",
        value: args.auto_compaction_retention.clone(),
        reason,
    };
    let (mut compaction_interval, mut history_revisions_max) = (Duration::ZERO, i64::MAX);
    let retention = args.auto_compaction_retention.as_str();
    if args.auto_compaction_mode == "revision" {
        let revisions: i64 = retention.parse().map_err(|_| bad("expected a number of revisions"))?;
        history_revisions_max = if revisions > 0 { revisions } else { i64::MAX };
    } else {
        compaction_interval = match retention.parse::<u64>() {
            Ok(hours) => Duration::from_secs(hours.saturating_mul(3600)),
            Err(_) => parse_duration(retention).ok_or_else(|| bad("expected hours or a duration such as 30m"))?,
        };
    }
    Ok(Config {
        quota_bytes: match args.quota_backend_bytes {
            0 => QUOTA_BYTES,
            bytes => u64::try_from(bytes).unwrap_or(u64::MAX / 16),
        },
        request_bytes_max: args.max_request_bytes,
        // The API counts as etcd does, list by list; in the store the size of the request is the bound.
        operations_max: usize::MAX,
        compaction_interval,
        history_revisions_max,
        ..Config::default()
    })
}

fn server_settings(args: &EtcdArgs) -> Result<Settings, EtcdFlagsError> {
    let interval = &args.watch_progress_notify_interval;
    let progress_interval = parse_duration(interval).filter(|interval| !interval.is_zero());
    Ok(Settings {
        name: args.name.clone(),
        client_urls: args.advertise_client_urls.clone(),
        peer_urls: args.initial_advertise_peer_urls.clone(),
        txn_operations_max: args.max_txn_ops,
        request_bytes_max: args.max_request_bytes,
        progress_interval: progress_interval.ok_or_else(|| EtcdFlagsError::Value {
            flag: "--watch-progress-notify-interval",
            value: interval.clone(),
            reason: "expected a duration such as 5s",
        })?,
    })
}

/// A duration in Go's form: 1h30m, 5s, 100ms, 1.5h.
fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(flags: &[&str]) -> EtcdArgs {
        match Cli::try_parse_from(["holdfast", "etcd"].iter().chain(flags)).unwrap().command {
            Command::Etcd(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn durations_are_gos() {
        let check =
            |text, expect: Option<u64>| assert_eq!(parse_duration(text), expect.map(Duration::from_millis), "{text}");
        check("10m", Some(600_000));
        check("1h30m", Some(5_400_000));
        check("1.5s", Some(1500));
        check("250ms", Some(250));
        check("0", Some(0));
        check("5", None);
        check("", None);
        check("5 m", None);
    }

    #[test]
    fn a_cluster_of_several_is_refused_with_the_way_out() {
        let check = |cluster: &str, expect: Result<(), &str>| {
            let args = parse(&["--name", "m1", "--initial-cluster", cluster]);
            assert_eq!(check_cluster(&args).map_err(|error| error.to_string()), expect.map_err(str::to_owned));
        };
        check("m1=http://127.0.0.1:2380", Ok(()));
        check("m1=http://127.0.0.1:2380,m1=http://127.0.0.1:2381", Ok(()));
        check(
            "m1=http://a:1,m2=http://b:1",
            Err(
                "--initial-cluster names 2 members, but this version runs one member; start it with --initial-cluster m1=http://a:1, or leave the flag out",
            ),
        );
        check("x=http://a:1", Err("--initial-cluster x=http://a:1 does not name this member, whose --name is m1"));
    }

    #[test]
    fn etcds_flags_are_taken_and_unknown_ones_are_not() {
        let args = parse(&[
            "--client-cert-auth=true",
            "--snapshot-count=10000",
            "--experimental-initial-corrupt-check=true",
            "--watch-progress-notify-interval=5s",
            "--auto-compaction-retention=1",
            "--quota-backend-bytes=-1",
        ]);
        let config = store_config(&args).unwrap();
        assert_eq!(config.compaction_interval, Duration::from_secs(3600));
        assert!(config.quota_bytes > 1 << 50 && args.tls.client_cert_auth);
        assert_eq!(server_settings(&args).unwrap().progress_interval, Duration::from_secs(5));
        let unknown = Cli::try_parse_from(["holdfast", "etcd", "--unsafe-no-fsync"]).unwrap_err().to_string();
        assert!(unknown.contains("unexpected argument '--unsafe-no-fsync'"), "{unknown}");
    }
}
