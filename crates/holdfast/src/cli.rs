//! The command line: flags to one parsed [`Command`]. Nobody else reads arguments or the environment [I7].

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, value_parser};
use tracing_subscriber::EnvFilter;

use crate::etcd_command::EtcdArgs;

/// Kubernetes in one binary.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version = VERSION, about, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// What this process was given; ends it with a message for what cannot be followed.
    pub fn of_process() -> Self {
        Self::of_matches(Self::command().get_matches()).unwrap_or_else(|error| error.exit())
    }

    fn of_matches(matches: ArgMatches) -> Result<Self, clap::Error> {
        let is_given = |args: &ArgMatches, id| args.try_contains_id(id).unwrap_or(false);
        if let Some((_, args)) = matches.subcommand()
            && is_given(args, "token")
            && args.value_source("token") == Some(ValueSource::CommandLine)
            && !is_given(args, "join")
        {
            let reason = "--token is of use with --join URL alone: a server without it begins a cluster of its own\n";
            return Err(Self::command().error(ErrorKind::MissingRequiredArgument, reason));
        }
        Self::from_arg_matches(&matches)
    }
}

/// `holdfast --version` and the API server's gitVersion start with the Kubernetes version they speak.
pub const VERSION: &str = concat!("v1.37.2+holdfast", env!("CARGO_PKG_VERSION"));

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a one-node cluster on this machine in the background and wait until it is ready.
    Up(UpArgs),
    /// Stop the cluster on this machine and remove what it made: processes, mounts, network, cgroups. Data goes too unless --keep-data.
    Down(DownArgs),
    /// Run the control plane (store, API server, scheduler, controllers) in the foreground.
    Server(ServerArgs),
    /// Print the administrator's kubeconfig.
    Kubeconfig(PlaceArgs),
    /// Run the store alone with the etcd v3 API and etcd's flags, in the foreground.
    Etcd(Box<EtcdArgs>),
    /// Say in one screen what runs and what ails.
    Status(PlaceArgs),
    /// Say what ails, why, and what to do next; works also when nothing else does. Fails if something ails.
    Doctor(PlaceArgs),
    /// Print the command with which another server joins this cluster, with a new token that ends after a day.
    Token {
        #[command(flatten)]
        place: PlaceArgs,
        #[command(subcommand)]
        command: Option<TokenCommand>,
    },
    /// Save the cluster's state to a file, or bring it back from one.
    Store {
        #[command(flatten)]
        place: PlaceArgs,
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// List the servers of the cluster, or take one out.
    Member {
        #[command(flatten)]
        place: PlaceArgs,
        #[command(subcommand)]
        command: MemberCommand,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print the command with which another server joins.
    Create {
        /// How long it is good, such as 30m or 24h; 0: until it is deleted.
        #[arg(long, default_value = TOKEN_TTL, value_parser = token_ttl)]
        ttl: Duration,
        /// For whoever looks at the list.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// One line a token: id, whether it is valid, its end, its description.
    List,
    /// End a token.
    Delete {
        /// As `holdfast token list` shows it.
        id: String,
    },
}

impl Default for TokenCommand {
    fn default() -> Self {
        Self::Create { ttl: parse_duration(TOKEN_TTL).unwrap_or_default(), description: String::new() }
    }
}

/// kubeadm's default.
const TOKEN_TTL: &str = "24h";
/// Ten years: a token that is meant to last says so with 0.
const TOKEN_TTL_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

fn token_ttl(text: &str) -> Result<Duration, String> {
    let ttl = parse_duration(text).ok_or("expected a duration such as 30m or 24h")?;
    let is_short = !ttl.is_zero() && ttl < Duration::from_secs(1);
    if is_short || ttl > TOKEN_TTL_MAX {
        return Err("expected one second to ten years, or 0 for a token without an end".to_owned());
    }
    Ok(ttl)
}

#[derive(Debug, Clone, Subcommand)]
pub enum StoreCommand {
    /// Save everything that the running cluster holds, while it goes on; etcd's tools can read the file.
    Snapshot(SnapshotArgs),
    /// Replace the cluster's state by that of a snapshot; the old one is kept beside it. A running server restarts, containers run on.
    Restore(RestoreArgs),
    /// Begin a new cluster with what an etcd held: a file of `etcdctl snapshot save`, etcd 3.4 to 3.7.
    Import(ImportArgs),
}

#[derive(Debug, Clone, Args)]
pub struct SnapshotArgs {
    /// The file to write; it must not exist.
    pub file: PathBuf,
    /// Save the cluster's keys and certificates to FILE.keys as well, with which another machine can take its place.
    #[arg(long)]
    pub with_keys: bool,
    /// Without a majority of the servers: what this one has, which may lack the last writes.
    #[arg(long)]
    pub stale: bool,
}

#[derive(Debug, Clone, Args)]
pub struct RestoreArgs {
    /// A snapshot of `holdfast store snapshot` or `etcdctl snapshot save`.
    pub file: PathBuf,
    /// The keys that `holdfast store snapshot --with-keys` saved, for a data directory that has none.
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// The keys of Secrets in the snapshot, an EncryptionConfiguration, where the cluster is given such a file.
    #[arg(long, value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,
    /// Where several servers run: this one becomes the whole cluster, the others end and must join again.
    #[arg(long)]
    pub alone: bool,
}

#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// A snapshot of `etcdctl snapshot save`.
    pub file: PathBuf,
    /// The keys of Secrets in it, an EncryptionConfiguration; the server is given the same file.
    #[arg(long, value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,
}

#[derive(Debug, Clone, Subcommand)]
pub enum MemberCommand {
    /// One line a server: id, name, role, address.
    List,
    /// Takes a server out for good: its id is never accepted again.
    Remove {
        /// As `holdfast member list` shows it.
        #[arg(value_parser = member_id)]
        id: String,
    },
}

#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub join: JoinArgs,
}

/// The cluster that this server becomes one of.
#[derive(Debug, Clone, Args)]
pub struct JoinArgs {
    /// Join the cluster of this server, such as https://10.0.0.1:6443.
    #[arg(long, value_name = "URL", requires = "token", conflicts_with = "datastore", value_parser = server_url)]
    pub join: Option<String>,
    /// What `holdfast token` prints on a server of the cluster.
    #[arg(long, env = "HOLDFAST_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

/// Where the cluster keeps its things.
#[derive(Debug, Clone, Args)]
pub struct PlaceArgs {
    /// Everything that must survive a reboot: store, certificates, images.
    #[arg(long, global = true, default_value = "/var/lib/holdfast")]
    pub data_dir: PathBuf,
    /// Sockets and process ids.
    #[arg(long, global = true, default_value = "/run/holdfast")]
    pub run_dir: PathBuf,
    /// Optional configuration files, such as registries.yaml.
    #[arg(long, global = true, default_value = "/etc/holdfast")]
    pub config_dir: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub struct ClusterArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The address that other machines and Pods reach this one at [default: the address of the default route].
    #[arg(long, value_parser = own_address)]
    pub advertise_address: Option<IpAddr>,
    /// The port of the API server.
    #[arg(long, default_value_t = 6443, value_parser = value_parser!(u16).range(1..))]
    pub port: u16,
    /// The port for the other servers of the cluster.
    #[arg(long, default_value_t = 2380, value_parser = value_parser!(u16).range(1..))]
    pub peer_port: u16,
    /// The port of the store's etcd API (pki/etcd-client.crt opens it); 0 = none.
    #[arg(long, default_value_t = 2379)]
    pub etcd_port: u16,
    #[command(flatten)]
    pub datastore: DatastoreArgs,
    /// The addresses of Pods; every node gets a /24 of it.
    #[arg(long, default_value = "10.42.0.0/16")]
    pub cluster_cidr: String,
    /// The virtual addresses of Services.
    #[arg(long, default_value = "10.43.0.0/16")]
    pub service_cidr: String,
    /// What goes to the log: error, warn, info, debug, or a tracing filter.
    #[arg(long, default_value = "info", value_parser = log_filter, env = "HOLDFAST_LOG")]
    pub log: String,
}

/// An etcd of the user's own as the store.
#[derive(Debug, Clone, Args)]
pub struct DatastoreArgs {
    /// Keep the cluster's state in this etcd: etcd://HOST:PORT[,HOST:PORT...], or etcds:// for TLS [default: a store of our own].
    #[arg(long, value_name = "URL", alias = "datastore-endpoint")]
    pub datastore: Option<String>,
    /// The authority of that etcd's certificates, PEM.
    #[arg(long, value_name = "FILE", requires = "datastore")]
    pub datastore_cafile: Option<PathBuf>,
    /// Our certificate for that etcd, PEM.
    #[arg(long, value_name = "FILE", requires = "datastore", requires = "datastore_keyfile")]
    pub datastore_certfile: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "datastore_certfile")]
    pub datastore_keyfile: Option<PathBuf>,
    /// Keys for Secrets in the store, an EncryptionConfiguration [default: keys of our own in our own store, none in --datastore].
    #[arg(long, value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub join: JoinArgs,
    /// The node's name [default: the host name].
    #[arg(long)]
    pub node_name: Option<String>,
    /// A running CRI runtime, such as unix:///run/containerd/containerd.sock [default: start and supervise our own containerd].
    #[arg(long)]
    pub container_runtime_endpoint: Option<String>,
    /// Take no more Pods and evict some when less is free, as the kubelet's flag [default: memory.available<100Mi,nodefs.inodesFree<5%,
    /// and nodefs.available below 10 % or 4 GiB, whichever is less].
    #[arg(long, value_name = "SIGNAL<AMOUNT,...")]
    pub eviction_hard: Option<node::Thresholds>,
    /// Stay in the foreground, log to standard error, and end on SIGTERM.
    #[arg(long)]
    pub foreground: bool,
    /// Do not merge a context `holdfast` into the user's kubeconfig.
    #[arg(long)]
    pub no_kubeconfig: bool,
}

#[derive(Debug, Clone, Args)]
pub struct DownArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Keep the store, certificates and images for the next `up`.
    #[arg(long)]
    pub keep_data: bool,
}

/// `https://HOST:PORT`; the port may be missing.
fn server_url(text: &str) -> Result<String, String> {
    let expected = || "expected https://HOST:PORT, such as https://10.0.0.1:6443".to_owned();
    let url: http::Uri = text.parse().map_err(|_| expected())?;
    let is_bare = url.path_and_query().is_none_or(|path| path == "/");
    if url.scheme_str() != Some("https") || url.host().is_none_or(str::is_empty) || !is_bare {
        return Err(expected());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// As [`u64`] in hexadecimal.
fn member_id(text: &str) -> Result<String, String> {
    let expected = "expected an id in hexadecimal such as 8e9e05c52164694d; `holdfast member list` shows them";
    u64::from_str_radix(text, 16).map_err(|_| expected)?;
    Ok(text.to_owned())
}

/// One that others can send to.
fn own_address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| "expected an IP address such as 10.0.0.1")?;
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || is_broadcast {
        return Err(
            "expected the address of one machine: others connect to it (it is listened on all in any case)".to_owned()
        );
    }
    Ok(address)
}

/// A level for all, or levels by target as tracing writes them. A name alone would be a target of that name, and nothing else.
fn log_filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_clear = |part: &str| part.contains(['=', '[']) || LEVELS.contains(&part.trim().to_lowercase().as_str());
    if !text.split(',').all(is_clear) || EnvFilter::try_new(text).is_err() {
        return Err(format!("expected one of {}, or a filter such as info,store=debug", LEVELS.join(", ")));
    }
    Ok(text.to_owned())
}

/// A duration in Go's form: 1h30m, 5s, 100ms, 1.5h.
pub fn parse_duration(text: &str) -> Option<Duration> {
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
mod tests;
