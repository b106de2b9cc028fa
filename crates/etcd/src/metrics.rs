//! `/metrics` in Prometheus' text form under etcd's names: the store's, the process' and our own figures in, text out. Pure.
//!
//! Not there: figures of things that this store does not have (backend commits, peers, alarms, defragmentation).

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use store::{Histogram, Status};

use crate::grpc_figures::{CODES, GrpcFigures, MethodFigures, Rpc};
use crate::member::{Counters, Member};
use crate::process::ProcessFigures;
use crate::{ETCD_CLUSTER_VERSION, ETCD_VERSION};

/// What this member is to the cluster.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Role {
    pub(crate) has_leader: bool,
    pub(crate) is_leader: bool,
    pub(crate) is_learner: bool,
}

impl Role {
    pub(crate) fn of(member: &Member) -> Self {
        let leader = member.leader().leader;
        let is_leader = leader == member.member_id;
        Self { has_leader: leader != 0, is_leader, is_learner: member.is_learner() }
    }
}

/// The page of one member.
pub(crate) fn render_metrics(status: &Status, process: &ProcessFigures, role: Role, counters: &Counters) -> String {
    let mut page = Page::default();
    render_role(&mut page, role, counters);
    render_server(&mut page, status, counters);
    render_mvcc(&mut page, status, counters);
    page.histogram(
        "etcd_disk_wal_fsync_duration_seconds",
        "The latency distributions of fsync called by WAL.",
        &status.wal_fsync_seconds,
    );
    page.histogram(
        "etcd_disk_backend_snapshot_duration_seconds",
        "The latency distribution of writing a checkpoint.",
        &status.checkpoint_seconds,
    );
    page.histogram("holdfast_store_wal_batch_entries", "Entries made durable by one fsync.", &status.wal_batch_entries);
    page.gauge(
        "holdfast_store_wal_write_pending_seconds",
        "For how long the write under way has been going on; 0 if there is none.",
        status.wal_write_pending.as_secs_f64(),
    );
    page.gauge("holdfast_store_disk_full", "1 while the disk is full.", f64::from(u8::from(status.disk_full)));
    render_grpc(&mut page, &counters.grpc);
    render_process(&mut page, process);
    page.text
}

/// As etcd's middleware shows them: every method and code from the start.
fn render_grpc(page: &mut Page, grpc: &GrpcFigures) {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let labels = |rpc: &Rpc| {
        let (service, method) = rpc.path[1..].split_once('/').unwrap_or((rpc.path, ""));
        format!("grpc_method=\"{method}\",grpc_service=\"{service}\",grpc_type=\"{}\"", rpc.kind)
    };
    let name = "grpc_server_handled_total";
    page.head(name, "Total number of RPCs completed on the server, regardless of success or failure.", "counter");
    for (rpc, figures) in grpc.methods() {
        for (code, handled) in CODES.iter().zip(&figures.handled) {
            page.line(format_args!("{name}{{grpc_code=\"{code}\",{}}} {}", labels(rpc), load(handled)));
        }
    }
    type Counter = fn(&MethodFigures) -> &AtomicU64;
    let each: [(&str, &str, Counter); 3] = [
        ("grpc_server_msg_received_total", "Total number of RPC stream messages received on the server.", |figures| {
            &figures.received
        }),
        ("grpc_server_msg_sent_total", "Total number of gRPC stream messages sent by the server.", |figures| {
            &figures.sent
        }),
        ("grpc_server_started_total", "Total number of RPCs started on the server.", |figures| &figures.started),
    ];
    for (name, help, counter) in each {
        page.head(name, help, "counter");
        for (rpc, figures) in grpc.methods() {
            page.line(format_args!("{name}{{{}}} {}", labels(rpc), load(counter(figures))));
        }
    }
    page.counter(
        "etcd_network_client_grpc_received_bytes_total",
        "The total number of bytes received from grpc clients.",
        &grpc.received_bytes,
    );
    page.counter(
        "etcd_network_client_grpc_sent_bytes_total",
        "The total number of bytes sent to grpc clients.",
        &grpc.sent_bytes,
    );
    let name = "etcd_server_client_requests_total";
    page.head(name, "The total number of client requests per client version.", "counter");
    for client in grpc.clients() {
        for (kind, calls) in [("stream", load(&client.stream)), ("unary", load(&client.unary))] {
            if calls > 0 {
                // In Rust's notation a text of a header is escaped as Prometheus wants it.
                page.line(format_args!("{name}{{client_api_version={:?},type=\"{kind}\"}} {calls}", client.version));
            }
        }
    }
}

fn render_process(page: &mut Page, process: &ProcessFigures) {
    if let Some(seconds) = process.cpu_seconds {
        page.head("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", "counter");
        page.line(format_args!("process_cpu_seconds_total {seconds}"));
    }
    if let Some(seconds) = process.start_seconds {
        let help = "Start time of the process since unix epoch in seconds.";
        page.gauge("process_start_time_seconds", help, seconds);
    }
    let counts = [
        ("process_resident_memory_bytes", "Resident memory size in bytes.", process.resident_bytes),
        ("process_virtual_memory_bytes", "Virtual memory size in bytes.", process.virtual_bytes),
        ("process_open_fds", "Number of open file descriptors.", process.open_fds),
        ("process_max_fds", "Maximum number of open file descriptors.", process.max_fds),
        ("os_fd_used", "The number of used file descriptors.", process.open_fds),
        ("os_fd_limit", "The file descriptor limit.", process.max_fds),
    ];
    for (name, help, count) in counts {
        if let Some(count) = count {
            page.number(name, help, "gauge", count);
        }
    }
}

fn render_role(page: &mut Page, role: Role, counters: &Counters) {
    let flag = |set: bool| f64::from(u8::from(set));
    let has_leader = flag(role.has_leader);
    page.gauge("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.", has_leader);
    let is_leader = flag(role.is_leader);
    page.gauge("etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.", is_leader);
    let is_learner = flag(role.is_learner);
    page.gauge("etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise.", is_learner);
    page.counter(
        "etcd_server_leader_changes_seen_total",
        "The number of leader changes seen.",
        &counters.leader_changes,
    );
}

fn render_server(page: &mut Page, status: &Status, counters: &Counters) {
    page.labelled(
        "etcd_server_version",
        "Which version is running. 1 for 'server_version' label.",
        [("server_version", ETCD_VERSION)],
    );
    page.labelled(
        "etcd_cluster_version",
        "Which version is running. 1 for 'cluster_version' label.",
        [("cluster_version", ETCD_CLUSTER_VERSION)],
    );
    let id = format!("{:x}", status.member_id);
    page.labelled(
        "etcd_server_id",
        "Server or member ID in hexadecimal format. 1 for 'server_id' label.",
        [("server_id", id.as_str())],
    );
    let committed = status.committed_index;
    page.number(
        "etcd_server_proposals_committed_total",
        "The total number of consensus proposals committed.",
        "gauge",
        committed,
    );
    let applied = status.applied_index;
    page.number(
        "etcd_server_proposals_applied_total",
        "The total number of consensus proposals applied.",
        "gauge",
        applied,
    );
    let pending = status.pending_proposals;
    page.number(
        "etcd_server_proposals_pending",
        "The current number of pending proposals to commit.",
        "gauge",
        pending,
    );
    page.counter(
        "etcd_server_proposals_failed_total",
        "The total number of failed proposals seen.",
        &counters.failed_writes,
    );
    let quota = status.quota_bytes;
    page.number("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes.", "gauge", quota);
    page.counter(
        "etcd_server_health_success",
        "The total number of successful health checks",
        &counters.health_successes,
    );
    page.counter("etcd_server_health_failures", "The total number of failed health checks", &counters.health_failures);
    page.counter(
        "etcd_server_read_indexes_failed_total",
        "The total number of failed read indexes seen.",
        &counters.failed_reads,
    );
    page.counter(
        "etcd_server_learner_promote_successes",
        "The total number of successful learner promotions while this member is leader.",
        &counters.promotions,
    );
    page.counter("etcd_debugging_lease_granted_total", "The total number of granted leases.", &counters.leases_granted);
    page.counter("etcd_debugging_lease_revoked_total", "The total number of revoked leases.", &counters.leases_revoked);
    page.counter(
        "etcd_debugging_lease_renewed_total",
        "The number of renewed leases seen by the leader.",
        &counters.leases_renewed,
    );
}

fn render_mvcc(page: &mut Page, status: &Status, counters: &Counters) {
    let total = status.db_bytes;
    page.number("etcd_mvcc_db_total_size_in_bytes", "Total size of the underlying database in bytes.", "gauge", total);
    let live = status.live_bytes;
    page.number(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Total size of the underlying database logically in use in bytes.",
        "gauge",
        live,
    );
    page.number("etcd_debugging_mvcc_keys_total", "Total number of keys.", "gauge", status.keys);
    page.number(
        "etcd_debugging_mvcc_current_revision",
        "The current revision of store.",
        "gauge",
        status.revision.unsigned_abs(),
    );
    let compacted = status.compact_revision.unsigned_abs();
    page.number(
        "etcd_debugging_mvcc_compact_revision",
        "The revision of the last compaction in store.",
        "gauge",
        compacted,
    );
    page.number("etcd_debugging_mvcc_watcher_total", "Total number of watchers.", "gauge", status.watchers);
    let streams = counters.watch_streams.load(Ordering::Relaxed).max(0).unsigned_abs();
    page.number("etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams.", "gauge", streams);
    page.counter("etcd_debugging_mvcc_events_total", "Total number of events sent by this member.", &counters.events);
    page.counter("etcd_mvcc_range_total", "Total number of ranges seen by this member.", &counters.ranges);
    page.counter("etcd_mvcc_put_total", "Total number of puts seen by this member.", &counters.puts);
    page.counter("etcd_mvcc_delete_total", "Total number of deletes seen by this member.", &counters.deletes);
    page.counter("etcd_mvcc_txn_total", "Total number of txns seen by this member.", &counters.txns);
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    /// Writing to a string can't fail.
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.text.write_fmt(line).ok();
        self.text.push('\n');
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn number(&mut self, name: &str, help: &str, kind: &str, value: u64) {
        self.head(name, help, kind);
        self.line(format_args!("{name} {value}"));
    }

    fn counter(&mut self, name: &str, help: &str, value: &AtomicU64) {
        self.number(name, help, "counter", value.load(Ordering::Relaxed));
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "gauge");
        self.line(format_args!("{name} {value}"));
    }

    fn labelled(&mut self, name: &str, help: &str, [(label, value)]: [(&str, &str); 1]) {
        self.head(name, help, "gauge");
        self.line(format_args!("{name}{{{label}=\"{value}\"}} 1"));
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        let mut so_far = 0;
        for (bound, observations) in histogram.bounds.iter().zip(&histogram.counts) {
            so_far += observations;
            self.line(format_args!("{name}_bucket{{le=\"{bound}\"}} {so_far}"));
        }
        let (sum, count) = (histogram.sum, histogram.count);
        self.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_cumulated_and_names_are_etcds() {
        let mut fsync = Histogram::seconds();
        [0.0005, 0.003, 100.0].into_iter().for_each(|seconds| fsync.observe(seconds));
        let status = Status { wal_fsync_seconds: fsync, keys: 7, ..Status::default() };
        let role = Role { has_leader: true, ..Role::default() };
        let process = ProcessFigures { resident_bytes: Some(4096), ..ProcessFigures::default() };
        let page = render_metrics(&status, &process, role, &Counters::default());
        let check = |line: &str| assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        check("etcd_server_has_leader 1");
        check("etcd_server_is_leader 0");
        check("etcd_debugging_mvcc_keys_total 7");
        check("process_resident_memory_bytes 4096");
        let (codes, methods) = (CODES.len(), Counters::default().grpc.methods().count());
        assert_eq!(page.matches("\ngrpc_server_handled_total{").count(), codes * methods);
        check("grpc_server_started_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 0");
        check("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 1");
        check("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.004\"} 2");
        check("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 3");
        check("etcd_disk_wal_fsync_duration_seconds_count 3");
    }
}
