//! `holdfast etcd`: the store alone, with the etcd v3 API and etcd's own flags, so that what starts etcd starts this.
//!
//! Flags in, a running member out: settings are checked before anything is touched, then the ports are taken, then the
//! store is opened and the network between members begins. Files of etcd are left alone: the store has its own directory
//! inside of the data directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, SystemClock};
use clap::{ArgAction, Args};
use etcd::{EtcdServer, Settings};
use peers::{Inbox, Network, PeerTls};
use store::{Config, RealDisk, Store};
use tokio::signal::unix::SignalKind;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::cli::parse_duration;
use crate::etcd_access::{self, AccessArgs};
use crate::etcd_cluster::{self, EtcdClusterArgs};
use crate::etcd_ignored::{IgnoredArgs, parse_bool};
use crate::etcd_listen::{
    Bound, EtcdFlagsError, Listen, Maker, PeerTlsFiles, TlsFiles, bind_all, load_peer_tls, load_tls, parse_url,
    serve_all,
};
use crate::replacement;
use crate::run::{self, start_log, wait_for_signal};
use crate::{CommandResult, etcd_config_file};

/// Inside of `--data-dir`.
const STORE_DIRECTORY: &str = "holdfast";
/// etcd's; those after `error` are no more than it here.
const LOG_LEVELS: [&str; 7] = ["debug", "info", "warn", "error", "dpanic", "panic", "fatal"];
/// etcd's default.
const QUOTA_BYTES: u64 = 2 << 30;

/// etcd's flags. Those that concern etcd's way with its disk and its timing are taken and have no effect ([`IgnoredArgs`]).
#[derive(Debug, Clone, Args)]
// As in etcd, of a value that is given again the last one counts.
#[command(args_override_self = true)]
pub struct EtcdArgs {
    /// Human-readable name of this member.
    #[arg(long, default_value = "default", env = "ETCD_NAME")]
    name: String,
    /// Where the data is [default: NAME.etcd].
    #[arg(long, env = "ETCD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// URLs to listen on for clients.
    #[arg(long, action = ArgAction::Set, value_delimiter = ',', default_value = "http://localhost:2379", env = "ETCD_LISTEN_CLIENT_URLS")]
    listen_client_urls: Vec<String>,
    /// The URLs that clients are told.
    #[arg(long, action = ArgAction::Set, value_delimiter = ',', default_value = "http://localhost:2379", env = "ETCD_ADVERTISE_CLIENT_URLS")]
    advertise_client_urls: Vec<String>,
    #[command(flatten)]
    cluster: EtcdClusterArgs,
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
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    peer_tls: PeerTlsFiles,
    /// URLs for health and metrics alone.
    #[arg(long, action = ArgAction::Set, value_delimiter = ',', env = "ETCD_LISTEN_METRICS_URLS")]
    listen_metrics_urls: Vec<String>,
    /// Answer JSON over HTTP, under /v3/.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = ArgAction::Set, value_parser = parse_bool, env = "ETCD_ENABLE_GRPC_GATEWAY")]
    enable_grpc_gateway: bool,
    /// debug, info, warn or error.
    #[arg(long, default_value = "info", value_parser = LOG_LEVELS, env = "ETCD_LOG_LEVEL")]
    log_level: String,
    /// Not of etcd: fill the empty data directory with this snapshot (of `etcdctl snapshot save`, from this server or from etcd) and end.
    #[arg(long, value_name = "FILE")]
    restore_snapshot: Option<PathBuf>,
    /// A member that was away gets so many entries one by one; one that missed more is sent the whole state.
    #[arg(long, default_value_t = Config::default().log_entries_kept, env = "ETCD_SNAPSHOT_CATCHUP_ENTRIES")]
    snapshot_catchup_entries: usize,
    /// Settings in YAML, with the names of the flags; takes the place of all flags.
    #[arg(long, value_name = "FILE", env = "ETCD_CONFIG_FILE")]
    config_file: Option<PathBuf>,
    /// Print which etcd this stands for, and end.
    #[arg(long)]
    version: bool,
    #[command(flatten)]
    ignored: IgnoredArgs,
}

/// Runs the member until a signal ends it, or restores a snapshot.
pub fn run(args: &EtcdArgs) -> CommandResult {
    if args.version {
        println!("etcd Version: {}\nHoldfast Version: {}", etcd::ETCD_VERSION, crate::cli::VERSION);
        return Ok(());
    }
    if let Some(file) = &args.config_file {
        return run(&etcd_config_file::read(file)?);
    }
    etcd_cluster::parse_members(&args.name, &args.cluster)?;
    let directory = args.data_dir.clone().unwrap_or_else(|| PathBuf::from(format!("{}.etcd", args.name)));
    if let Some(file) = &args.restore_snapshot {
        return restore(&directory, file);
    }
    start_log(match args.log_level.as_str() {
        "panic" | "fatal" | "dpanic" => "error",
        level => level,
    });
    let (config, settings) = (store_config(args)?, server_settings(args)?);
    let addresses = Addresses::parse(args)?;
    check_directory(&directory)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let maker = Maker::new(&directory, &args.tls, &*clock);
    let tls = load_tls(&args.tls, &addresses.clients, &maker)?;
    let peer_tls = load_peer_tls(&args.peer_tls, &addresses.peers, &maker)?;
    addresses.check(tls.is_some(), peer_tls.is_some())?;
    let runtime = run::runtime("etcd", std::thread::available_parallelism().map_or(2, usize::from))?;
    // Heartbeats are not behind what clients ask.
    let peer_runtime = run::runtime("peers", 2)?;
    let ended: Result<SignalKind, Box<dyn std::error::Error>> = runtime.block_on(async {
        // The ports first: if another process holds them, the store is not touched.
        let bound = addresses.bind().await?;
        let network = Network::new(peer_runtime.handle().clone(), peer_tls.clone());
        let config = found_or_join(config, args, &directory, peer_tls.as_ref(), &network).await?;
        let disk = open_disk(&directory)?;
        let store = Arc::new(Store::open(config, Arc::new(disk), clock.clone(), network.clone())?);
        let server = EtcdServer::new(Arc::clone(&store), settings, clock).await?;
        let (cluster, member) = server.ids();
        let inbox: Arc<dyn Inbox> = store.clone();
        network.start(cluster, member, Arc::downgrade(&inbox));
        let stop = CancellationToken::new();
        for (listener, secure) in bound.peers {
            network.serve(listener, secure);
        }
        serve_all(&server, Vec::new(), bound.metrics, tls.as_ref(), &stop);
        let (serving, until) = (server.clone(), stop.clone());
        tokio::spawn(async move {
            // As in etcd: nobody is answered from what a member had before it was away, or from nothing.
            serving.publish().await;
            serve_all(&serving, bound.clients, Vec::new(), tls.as_ref(), &until);
            // etcd's words: whoever starts etcd for a test or in a script waits for them.
            info!("ready to serve client requests");
        });
        info!("started: member {member:x} of cluster {cluster:x}");
        let ended = wait_for_end(&store, &network).await;
        stop.cancel();
        store.close();
        network.stop();
        Ok(ended.inspect_err(|reason| error!("{reason}"))?)
    });
    end_by(ended?)
}

/// Until a signal, or the reason why there is nothing left to do.
async fn wait_for_end(store: &Store, network: &Network) -> Result<SignalKind, String> {
    tokio::select! {
        signal = wait_for_signal() => Ok(signal),
        reason = store.failed() => Err(format!("the store failed: {reason}")),
        reason = network.expelled() => Err(format!("{reason}; this member has nothing left to do")),
    }
}

/// As etcd does: whoever started it sees which signal ended it, but for the first process of a container, which must not be gone by one.
fn end_by(signal: SignalKind) -> CommandResult {
    if std::process::id() == 1 {
        return Ok(());
    }
    Ok(signal_hook::low_level::emulate_default_handler(signal.as_raw_value())?)
}

/// Where to listen, by flag.
struct Addresses {
    clients: Vec<Listen>,
    metrics: Vec<Listen>,
    peers: Vec<Listen>,
}

struct AllBound {
    clients: Vec<Bound>,
    metrics: Vec<Bound>,
    peers: Vec<Bound>,
}

impl Addresses {
    fn parse(args: &EtcdArgs) -> Result<Self, EtcdFlagsError> {
        let parse_all =
            |flag, urls: &[String]| urls.iter().map(|url| parse_url(flag, url)).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            clients: parse_all("--listen-client-urls", &args.listen_client_urls)?,
            metrics: parse_all("--listen-metrics-urls", &args.listen_metrics_urls)?,
            peers: parse_all("--listen-peer-urls", &args.cluster.listen_peer_urls)?,
        })
    }

    fn check(&self, tls: bool, peer_tls: bool) -> Result<(), EtcdFlagsError> {
        let url = |listen: &Listen| format!("https://{}", listen.address);
        if let Some(without) = self.clients.iter().chain(&self.metrics).find(|listen| listen.secure && !tls) {
            return Err(EtcdFlagsError::NoCertificate { url: url(without) });
        }
        match self.peers.iter().find(|listen| listen.secure && !peer_tls) {
            Some(without) => Err(EtcdFlagsError::NoPeerCertificate { url: url(without) }),
            None => Ok(()),
        }
    }

    async fn bind(&self) -> Result<AllBound, String> {
        let (clients, metrics) = (bind_all(&self.clients).await?, bind_all(&self.metrics).await?);
        Ok(AllBound { clients, metrics, peers: bind_all(&self.peers).await? })
    }
}

/// An empty directory becomes a member of the cluster that the flags say.
async fn found_or_join(
    config: Config,
    args: &EtcdArgs,
    directory: &Path,
    tls: Option<&PeerTls>,
    network: &Network,
) -> Result<Config, EtcdFlagsError> {
    if has_data(directory) {
        return Ok(config);
    }
    let plan = etcd_cluster::plan(&args.name, &args.cluster, tls).await?;
    network.introduce(&plan.members);
    Ok(Config {
        cluster_id: Some(plan.cluster_id),
        member_id: Some(plan.member_id),
        initial_members: if plan.joining { Vec::new() } else { plan.members },
        joining: plan.joining,
        ..config
    })
}

fn has_data(directory: &Path) -> bool {
    directory.join(STORE_DIRECTORY).exists()
}

fn open_disk(directory: &Path) -> Result<RealDisk, String> {
    let path = directory.join(STORE_DIRECTORY);
    RealDisk::new(&path).map_err(|error| format!("cannot use {}: {error}; choose another --data-dir", path.display()))
}

fn restore(directory: &Path, file: &Path) -> CommandResult {
    let content = replacement::read(file)?;
    let revision = content.revision;
    Store::fill(&open_disk(directory)?, content)?;
    println!("restored {} into {} at revision {revision}", file.display(), directory.display());
    Ok(())
}

/// Refuses a directory that holds another program's data.
fn check_directory(directory: &Path) -> Result<(), String> {
    if directory.join("member").exists() && !has_data(directory) {
        return Err(format!(
            "{} holds the data of an etcd, whose files this store does not read; choose another --data-dir",
            directory.display()
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
        log_entries_kept: args.snapshot_catchup_entries,
        ..Config::default()
    })
}

fn server_settings(args: &EtcdArgs) -> Result<Settings, EtcdFlagsError> {
    let interval = &args.watch_progress_notify_interval;
    let progress_interval = parse_duration(interval).filter(|interval| !interval.is_zero());
    Ok(Settings {
        name: args.name.clone(),
        client_urls: args.advertise_client_urls.clone(),
        peer_urls: args.cluster.initial_advertise_peer_urls.clone(),
        txn_operations_max: args.max_txn_ops,
        request_bytes_max: args.max_request_bytes,
        progress_interval: progress_interval.ok_or_else(|| EtcdFlagsError::Value {
            flag: "--watch-progress-notify-interval",
            value: interval.clone(),
            reason: "expected a duration such as 5s",
        })?,
        json_gateway: args.enable_grpc_gateway,
        access: etcd_access::settings(&args.access, args.tls.client_cert_auth)?,
    })
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
    fn etcds_flags_are_taken_the_last_one_counts_and_unknown_ones_are_not() {
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
        let again = parse(&[
            "--name=a",
            "--snapshot-count=1",
            "--pre-vote",
            "--name=b",
            "--snapshot-count=2",
            "--pre-vote=false",
            "--listen-client-urls=http://a:1,http://b:2",
            "--listen-client-urls=http://c:3,http://d:4",
            "--listen-peer-urls=http://a:1",
            "--listen-peer-urls=http://b:2",
            "--snapshot-catchup-entries=10",
        ]);
        assert_eq!(again.name, "b");
        assert_eq!(again.listen_client_urls, ["http://c:3", "http://d:4"]);
        assert_eq!(again.cluster.listen_peer_urls, ["http://b:2"]);
        assert_eq!(store_config(&again).unwrap().log_entries_kept, 10);
        let unknown = Cli::try_parse_from(["holdfast", "etcd", "--unsafe-no-fsync"]).unwrap_err().to_string();
        assert!(unknown.contains("unexpected argument '--unsafe-no-fsync'"), "{unknown}");
    }
}
