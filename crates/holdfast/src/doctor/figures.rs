//! A server's own figures, as it tells them to administrators on its peer port: the store's, the network's, certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apiserver::chain::MetricsSource;
use apiserver::pki::authority::CertificateFacts;
use base::Clock;
use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;
use peers::{FigureSource, Network, PeerFigures};
use serde::{Deserialize, Serialize};
use store::{Kv as _, PeerStatus, Status, Store};

/// What one server knows of itself and of the others. Times in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Figures {
    /// Its member id, hexadecimal; empty: not known.
    pub id: String,
    /// Its wall clock.
    pub unix_ms: i64,
    /// Member id of the leader as it knows it, hexadecimal; empty: none.
    pub leader: String,
    pub last_move: Option<Move>,
    /// What a write to its log takes now; weighs the newest, and one that is under way.
    pub disk_ms: f64,
    /// Since its start, upper bounds of the histogram.
    pub fsync_p50_ms: f64,
    pub fsync_p99_ms: f64,
    pub disk_full: bool,
    pub used_bytes: u64,
    pub quota_bytes: u64,
    pub peers: Vec<Peer>,
    pub certificates: Vec<Certificate>,
    /// Why it does not write any more.
    pub stopped: Option<String>,
}

/// The last time that leadership moved.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Move {
    pub ago_seconds: u64,
    pub from: String,
    pub to: String,
    pub reason: String,
}

/// Another member as this one sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Peer {
    pub id: String,
    pub connected: bool,
    pub round_trip_ms: Option<f64>,
    pub disk_ms: Option<f64>,
    pub problem: Option<String>,
}

/// A certificate file below the data directory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Certificate {
    pub file: String,
    pub ends_unix: i64,
}

impl Figures {
    pub fn parse(answer: &[u8]) -> Option<Self> {
        serde_json::from_slice(answer).ok()
    }

    fn of(status: &Status, peers: &[PeerFigures], since_start: Duration, now: Timestamp) -> Self {
        let moved = status.last_leader_move.as_ref().map(|moved| Move {
            ago_seconds: since_start.saturating_sub(moved.at).as_secs(),
            from: hex(moved.from),
            to: hex(moved.to),
            reason: moved.reason.to_string(),
        });
        Self {
            id: hex(status.member_id),
            unix_ms: now.as_millisecond(),
            leader: hex(status.leader),
            last_move: moved,
            disk_ms: millis(status.disk_latency),
            fsync_p50_ms: status.wal_fsync_seconds.quantile(0.5) * 1e3,
            fsync_p99_ms: status.wal_fsync_seconds.quantile(0.99) * 1e3,
            disk_full: status.disk_full,
            used_bytes: status.db_bytes,
            quota_bytes: status.quota_bytes,
            peers: peers.iter().map(|peer| Peer::of(peer, &status.peers)).collect(),
            certificates: Vec::new(),
            stopped: status.stopped.as_ref().map(ToString::to_string),
        }
    }
}

impl Peer {
    fn of(figures: &PeerFigures, reported: &[PeerStatus]) -> Self {
        let reported = reported.iter().find(|peer| peer.id == figures.id);
        Self {
            id: hex(figures.id),
            connected: figures.connected,
            round_trip_ms: figures.round_trip.map(millis),
            disk_ms: reported.and_then(|peer| peer.disk_latency).map(millis),
            problem: figures.problem.clone(),
        }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// As members' ids are shown everywhere; empty for nobody.
fn hex(id: u64) -> String {
    if id == 0 { String::new() } else { format!("{id:x}") }
}

/// The certificates of a data directory and when they end; what cannot be read is left out, the server itself complains of it.
pub fn certificates(data_dir: &Path) -> Vec<Certificate> {
    let entries = std::fs::read_dir(data_dir.join("pki")).into_iter().flatten().filter_map(Result::ok);
    let paths = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|ending| ending == "crt"));
    let parse = |path: PathBuf| {
        let facts = CertificateFacts::parse(&std::fs::read_to_string(&path).ok()?).ok()?;
        Some(Certificate { file: path.display().to_string(), ends_unix: facts.not_after.as_second() })
    };
    let mut found: Vec<_> = paths.filter_map(parse).collect();
    found.sort_by(|a, b| a.file.cmp(&b.file));
    found
}

/// Tells the figures, to administrators and as metrics.
pub struct OwnFigures {
    pub store: Arc<Store>,
    pub network: Arc<Network>,
    pub data_dir: PathBuf,
    pub clock: Arc<dyn Clock>,
}

impl FigureSource for OwnFigures {
    fn render(&self) -> BoxFuture<'_, String> {
        Box::pin(async move {
            let status = match self.store.status().await {
                Ok(status) => status,
                Err(error) => Status { stopped: Some(error.to_string().into()), ..Status::default() },
            };
            let clock = &self.clock;
            let figures = Figures::of(&status, &self.network.figures(), clock.monotonic(), clock.now());
            let figures = Figures { certificates: certificates(&self.data_dir), ..figures };
            // Numbers and texts can always be written.
            serde_json::to_string(&figures).unwrap_or_default()
        })
    }
}

impl MetricsSource for OwnFigures {
    fn render(&self) -> BoxFuture<'_, String> {
        Box::pin(async move {
            // A store that has ended has no figures.
            let Ok(status) = self.store.status().await else { return String::new() };
            render_metrics(&status, &self.network.figures())
        })
    }
}

fn render_metrics(status: &Status, peers: &[PeerFigures]) -> String {
    let gauge = |name: &str, help: &str, lines: Vec<(String, f64)>| {
        let lines: String = lines.into_iter().map(|(labels, value)| format!("{name}{labels} {value}\n")).collect();
        format!("# HELP {name} {help}\n# TYPE {name} gauge\n{lines}")
    };
    let of = |id: u64| format!("{{peer=\"{id:x}\"}}");
    let own = status.disk_latency.as_secs_f64();
    let is_leader = f64::from(u8::from(status.leader != 0 && status.leader == status.member_id));
    let disks = status.peers.iter().filter_map(|peer| Some((of(peer.id), peer.disk_latency?.as_secs_f64()))).collect();
    let trips = peers.iter().filter_map(|peer| Some((of(peer.id), peer.round_trip?.as_secs_f64()))).collect();
    [
        gauge("holdfast_store_is_leader", "1 while this member leads.", vec![(String::new(), is_leader)]),
        gauge(
            "holdfast_store_disk_latency_seconds",
            "What a write to this member's log takes.",
            vec![(String::new(), own)],
        ),
        gauge("holdfast_store_peer_disk_latency_seconds", "The same of another member, as it reports it.", disks),
        gauge("holdfast_store_peer_round_trip_seconds", "To another member and back.", trips),
    ]
    .concat()
}
