//! What was seen -> what ails, worst first. Pure; the words are for a tired operator, each with figures and the next step.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;

use super::figures::{Certificate, Figures};
use crate::status;

/// A disk that takes longer for a write is slow; the leader's is replaced as leader from 200 ms on.
const SLOW_DISK_MS: f64 = 100.0;
/// An outlier is slower than the others by this factor.
const OUTLIER_FACTOR: f64 = 5.0;
const CLOCKS_APART_MS_MAX: i64 = 1000;
const QUOTA_USED_MAX: f64 = 0.8;
/// Certificates are renewed a third of their life early: one that is so near its end was not.
const CERTIFICATE_SECONDS_MIN: i64 = 14 * 86_400;
/// With less, a server can't begin another file of its log.
const FREE_BYTES_MIN: u64 = 64 << 20;
/// A Pod may take so long to become ready before it is called waiting.
const POD_SECONDS_MIN: i64 = 30;
/// Components that must hold a Lease, in `kube-system`.
const COMPONENTS: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];
/// Of nodes and Pods each; the rest is counted.
const SHOWN_MAX: usize = 20;

/// One thing that ails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub what: String,
    pub why: String,
    pub next: String,
}

/// Everything that could be learned.
#[derive(Debug, Default)]
pub struct Seen {
    pub here: Here,
    pub now: Timestamp,
    pub servers: Vec<Server>,
    pub nodes: Vec<Node>,
    pub pods: Vec<Pod>,
    pub leases: Vec<Lease>,
    /// An etcd of the user's holds the state, and there are no servers of ours to ask.
    pub datastore: Option<OutsideEtcd>,
    /// Lists that did not come, and why.
    pub unanswered: Vec<(String, String)>,
}

/// The etcd as the API server sees it.
#[derive(Debug)]
pub struct OutsideEtcd {
    pub address: String,
    pub problem: Option<String>,
}

/// This machine.
#[derive(Debug, Default)]
pub struct Here {
    /// The process that runs here.
    pub pid: Option<i32>,
    pub data_dir: String,
    pub has_data: bool,
    /// Bytes left on its file system.
    pub free_bytes: Option<u64>,
    /// Why a start refuses the store there.
    pub removed: Option<String>,
    /// Why the API server could not be asked.
    pub api_error: Option<String>,
    /// Where it should listen.
    pub port: Option<u16>,
    /// Somebody listens there.
    pub port_is_open: bool,
    /// The log's last error.
    pub last_error: Option<LogError>,
    pub certificates: Vec<Certificate>,
}

/// A line of the log.
#[derive(Debug)]
pub struct LogError {
    pub line: String,
    /// The process ended with it.
    pub is_end: bool,
}

/// A member and its own figures.
#[derive(Debug)]
pub struct Server {
    pub id: String,
    pub name: String,
    pub url: String,
    pub is_learner: bool,
    /// By our clock, when the figures were made.
    pub halfway: Timestamp,
    pub figures: Result<Figures, String>,
}

impl Server {
    pub fn title(&self) -> String {
        if self.name.is_empty() { format!("server {}", self.id) } else { format!("server {} ({})", self.name, self.id) }
    }
}

fn finding(what: impl Into<String>, why: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding { what: what.into(), why: why.into(), next: next.into() }
}

/// All findings.
pub fn diagnose(seen: &Seen) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(error) = &seen.here.api_error {
        found.push(find_here(&seen.here, error));
        find_certificates("this server", &seen.here.certificates, seen.now, &mut found);
        return found;
    }
    find_servers(seen, &mut found);
    find_datastore(seen, &mut found);
    find_disks(seen, &mut found);
    find_leadership(seen, &mut found);
    find_unanswered(seen, &mut found);
    find_components(seen, &mut found);
    find_nodes(seen, &mut found);
    find_pods(seen, &mut found);
    found
}

/// The API server does not answer: what is known without it.
fn find_here(here: &Here, error: &str) -> Finding {
    let data_dir = &here.data_dir;
    let log = here.last_error.as_ref().map_or_else(String::new, |it| format!("; the log's last error: {}", it.line));
    match (here.pid, here.has_data, here.port.filter(|_| here.port_is_open)) {
        (Some(pid), false, _) => finding(
            format!("there is no cluster in {data_dir}, but holdfast runs here (pid {pid})"),
            format!("{data_dir} holds no store: the process has another data directory, or has only just begun"),
            format!("give its --data-dir: `tr '\\0' ' ' < /proc/{pid}/cmdline` shows with which flags it runs"),
        ),
        (Some(pid), true, _) => finding(
            format!("holdfast runs (pid {pid}), but its API server does not answer"),
            format!("{error}{log}"),
            "wait half a minute after a start; then restart the process (containers run on), and keep its log",
        ),
        (None, true, Some(port)) => finding(
            format!("holdfast does not run here, and another process has its port {port}"),
            format!("something listens on {port}, and no holdfast holds the lock of its run directory{log}"),
            format!("`ss -ltnp 'sport = :{port}'` names the process; end it, then start holdfast"),
        ),
        (None, true, None) => find_stopped(here),
        (None, false, _) => finding(
            "there is no cluster here",
            format!("{data_dir} holds no store"),
            "`holdfast up` starts one; on a server with other places give --data-dir and --run-dir",
        ),
    }
}

/// No process, but its data: the cause comes before the next start.
fn find_stopped(here: &Here) -> Finding {
    let what = "holdfast does not run here";
    let start = "start it as it was started before: `holdfast up`, `holdfast server` or its unit";
    if let Some(reason) = &here.removed {
        let next = "`holdfast token` on a server of the cluster prints how to join; `holdfast down` here first deletes the old data";
        return finding(format!("{what}, and does not start"), reason.as_str(), next);
    }
    if let Some(free) = here.free_bytes.filter(|free| *free < FREE_BYTES_MIN) {
        return finding(
            format!("{what}, and its disk is full"),
            format!("{} KiB are free on the file system of {}", free >> 10, here.data_dir),
            format!("free space there (`df -h`, old store.before-restore-* directories), then {start}"),
        );
    }
    match &here.last_error {
        Some(LogError { line, is_end: true }) => {
            finding(format!("{what}: it ended with an error"), line.as_str(), format!("cure that, then {start}"))
        }
        _ => finding(
            what,
            format!("no process holds the lock of its run directory; {} holds its data", here.data_dir),
            format!(
                "{start}; --run-dir says where it runs. If it ends again, its last line (`journalctl -u UNIT`) says why"
            ),
        ),
    }
}

/// Those that answer, of all.
fn count_voters(seen: &Seen) -> (usize, usize) {
    let voters = || seen.servers.iter().filter(|server| !server.is_learner);
    (voters().filter(|server| server.figures.is_ok()).count(), voters().count())
}

/// So many voters more than a majority answer; `None`: fewer than a majority.
fn find_spare(seen: &Seen) -> Option<usize> {
    let (up, all) = count_voters(seen);
    up.checked_sub(all / 2 + 1)
}

/// What it means for writes that some servers do not answer.
fn describe_quorum(seen: &Seen) -> String {
    let (up, all) = count_voters(seen);
    match find_spare(seen) {
        Some(spare) => format!("{spare} more may fail before writes stop"),
        None => format!("writes have stopped: {up} of {all} servers that vote answer, {} must", all / 2 + 1),
    }
}

fn find_servers(seen: &Seen, found: &mut Vec<Finding>) {
    for server in &seen.servers {
        let title = server.title();
        let figures = match &server.figures {
            Ok(figures) => figures,
            Err(error) => {
                let so = if server.is_learner { "it has no vote yet".to_owned() } else { describe_quorum(seen) };
                let next = match find_spare(seen) {
                    // Without a majority nobody can be removed.
                    None => "start it again".to_owned(),
                    Some(_) => format!(
                        "start it again; if it never comes back: holdfast member remove {}, then join a new one",
                        server.id
                    ),
                };
                found.push(finding(format!("{title} does not answer"), format!("{error}; {so}"), next));
                continue;
            }
        };
        if let Some(reason) = &figures.stopped {
            let next = "look at its disk (`dmesg`, `smartctl`), then restart the process";
            found.push(finding(format!("{title} does not write any more"), reason, next));
        }
        find_space(&title, figures, found);
        let apart = figures.unix_ms - server.halfway.as_millisecond();
        if apart.abs() > CLOCKS_APART_MS_MAX {
            found.push(finding(
                format!("the clock of {title} is wrong, or the one here"),
                format!(
                    "it is {:.1} s {} ours",
                    apart.abs() as f64 / 1e3,
                    if apart > 0 { "ahead of" } else { "behind" }
                ),
                "let both follow NTP: `timedatectl set-ntp true`; certificates and tokens go by the clock",
            ));
        }
        find_certificates(&title, &figures.certificates, seen.now, found);
    }
}

fn find_space(title: &str, figures: &Figures, found: &mut Vec<Finding>) {
    if figures.disk_full {
        found.push(finding(
            format!("the disk of {title} is full"),
            "the store takes only deletes and compaction until there is room",
            "free space on the file system of its data directory (`df -h`, old store.before-restore-* directories); it goes on by itself",
        ));
    }
    let used = figures.used_bytes as f64 / figures.quota_bytes.max(1) as f64;
    if figures.quota_bytes > 0 && used > QUOTA_USED_MAX {
        found.push(finding(
            format!("the store of {title} is nearly full"),
            format!(
                "{} of {} MiB are used ({:.0} %); at 100 % only deletes are taken",
                figures.used_bytes >> 20,
                figures.quota_bytes >> 20,
                used * 100.0
            ),
            "delete what is not needed; `kubectl get events -A` and large ConfigMaps and Secrets are the usual cause",
        ));
    }
}

fn find_certificates(title: &str, certificates: &[Certificate], now: Timestamp, found: &mut Vec<Finding>) {
    for certificate in certificates {
        let left = certificate.ends_unix - now.as_second();
        if left < CERTIFICATE_SECONDS_MIN {
            let when = if left < 0 { "has ended" } else { "ends soon" };
            found.push(finding(
                format!("a certificate of {title} {when}"),
                format!("{}: {} days, {} hours left", certificate.file, left / 86_400, left % 86_400 / 3600),
                "restart that server, which renews it; if it stays so, its log says why",
            ));
        }
    }
}

fn find_datastore(seen: &Seen, found: &mut Vec<Finding>) {
    let Some(OutsideEtcd { address, problem: Some(problem) }) = &seen.datastore else { return };
    found.push(finding(
        format!("the datastore {address} does not answer"),
        format!("{problem}; nothing can be read or written but what is cached, containers run on"),
        "look after that etcd (`etcdctl endpoint health`, its log) and the network to it; holdfast goes on by itself",
    ));
}

fn find_unanswered(seen: &Seen, found: &mut Vec<Finding>) {
    if seen.unanswered.is_empty() {
        return;
    }
    let names: Vec<&str> = seen.unanswered.iter().map(|(name, _)| name.as_str()).collect();
    let mut reasons: Vec<&str> = seen.unanswered.iter().map(|(_, why)| why.as_str()).collect();
    reasons.dedup();
    found.push(finding(
        format!("the API server does not list {}", names.join(", ")),
        reasons.join("; "),
        "run `holdfast doctor` again; if it stays so, look at the server's log",
    ));
}

/// Disks against each other.
fn find_disks(seen: &Seen, found: &mut Vec<Finding>) {
    let answering: Vec<_> =
        seen.servers.iter().filter_map(|server| Some((server, server.figures.as_ref().ok()?))).collect();
    let slow: Vec<_> = answering.iter().filter(|(_, figures)| figures.disk_ms >= SLOW_DISK_MS).collect();
    let is_alone = answering.len() == 1;
    if slow.len() == answering.len() && !slow.is_empty() && !is_alone {
        let each: Vec<String> =
            slow.iter().map(|(server, figures)| format!("{} {:.0} ms", server.name, figures.disk_ms)).collect();
        found.push(finding(
            "all disks are slow: writes take as long as the disks do",
            format!("a write to the log takes {}", each.join(", ")),
            "look for what they share: storage network, hypervisor, a backup that runs everywhere",
        ));
        return;
    }
    let is_only_slow = slow.len() == 1;
    let cluster_is_fast = answering.len() - slow.len() > seen.servers.len() / 2;
    for (server, figures) in slow {
        let others = answering.iter().filter(|(other, _)| other.id != server.id);
        let median = lower_median(others.map(|(_, figures)| figures.disk_ms).collect());
        let against = match median {
            None if seen.servers.len() > 1 => "no other server answers, to compare it with".to_owned(),
            None => "it is the only server, so every write waits for it".to_owned(),
            Some(median) if figures.disk_ms < median * OUTLIER_FACTOR => continue,
            Some(median) => format!(
                "{} {median:.1} ms, {}",
                if is_only_slow { "the others take" } else { "half of the others or more take at most" },
                if cluster_is_fast { "so the cluster goes on at their speed" } else { "but writes wait for slow ones" }
            ),
        };
        let role = if figures.leader == server.id { "leads" } else { "does not lead" };
        found.push(finding(
            format!("the disk of {} is slow", server.title()),
            format!(
                "a write to its log takes {:.0} ms now (since its start p50 {:.0} ms, p99 {:.0} ms); {against}; it {role}",
                figures.disk_ms, figures.fsync_p50_ms, figures.fsync_p99_ms
            ),
            "`iostat -x 1` and `dmesg` on that machine: a failing disk, a full RAID cache, or somebody who writes a lot",
        ));
    }
}

/// Of two in the middle the lower one.
fn lower_median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

fn find_leadership(seen: &Seen, found: &mut Vec<Finding>) {
    let answering: Vec<_> = seen.servers.iter().filter_map(|server| server.figures.as_ref().ok()).collect();
    if answering.is_empty() || answering.iter().any(|figures| !figures.leader.is_empty()) {
        return;
    }
    let (up, all) = count_voters(seen);
    found.push(finding(
        "no server leads: nothing can be written",
        format!("{up} of {all} servers answer, and a majority of {} must agree", all / 2 + 1),
        "start the servers that are down, and let them reach each other's peer port. If they are lost for good, on this \
         machine: `holdfast store snapshot FILE --stale`, then stop holdfast, `holdfast store restore FILE --alone`, and \
         start it without --join; the others join it anew with empty data directories",
    ));
}

fn find_components(seen: &Seen, found: &mut Vec<Finding>) {
    if !seen.unanswered.is_empty() {
        return;
    }
    for component in COMPONENTS {
        let of = |lease: &&Lease| {
            lease.metadata.name.as_deref() == Some(component)
                && lease.metadata.namespace.as_deref() == Some("kube-system")
        };
        let spec = seen.leases.iter().find(of).and_then(|lease| lease.spec.as_ref());
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).filter(|holder| !holder.is_empty());
        let renewed = spec.and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0.as_second());
        let lasts = spec.and_then(|spec| spec.lease_duration_seconds).map_or(15, i64::from);
        let why = match (holder, renewed) {
            (Some(_), Some(renewed)) if seen.now.as_second() - renewed <= lasts => continue,
            (Some(holder), Some(renewed)) => {
                format!("its Lease was renewed last {} s ago, by {holder}", seen.now.as_second() - renewed)
            }
            _ => "nobody holds its Lease".to_owned(),
        };
        let next = "wait 20 s for a server to take over; if none does, look for its name in the servers' logs";
        found.push(finding(format!("{component} does not work"), why, next));
    }
}

fn find_nodes(seen: &Seen, found: &mut Vec<Finding>) {
    for node in &seen.nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if let Err(why) = status::readiness(node) {
            let next = format!(
                "on {name}: is holdfast running there, and does it reach a server? `kubectl describe node {name}`"
            );
            found.push(finding(format!("node {name} is not Ready"), why, next));
        }
        for pressure in status::pressures(node) {
            let next = format!("free it on {name}; Pods are evicted from there until it is over");
            let why = pressure.message.clone().unwrap_or_default();
            found.push(finding(format!("node {name} has {}", pressure.type_), why, next));
        }
    }
}

fn find_pods(seen: &Seen, found: &mut Vec<Finding>) {
    let is_old = |pod: &&Pod| {
        let created = pod.metadata.creation_timestamp.as_ref();
        created.is_none_or(|created| seen.now.as_second() - created.0.as_second() >= POD_SECONDS_MIN)
    };
    let waiting: Vec<_> =
        seen.pods.iter().filter(is_old).filter_map(|pod| Some((pod, status::ailment(pod)?))).collect();
    for (pod, why) in waiting.iter().take(SHOWN_MAX) {
        let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
        let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
        let next = format!("`kubectl -n {namespace} describe pod {name}` and `kubectl -n {namespace} logs {name}`");
        found.push(finding(format!("pod {namespace}/{name} waits"), why, next));
    }
    if waiting.len() > SHOWN_MAX {
        let more = format!("{} more Pods wait", waiting.len() - SHOWN_MAX);
        found.push(finding(more, "as those above", "`kubectl get pods -A` shows all"));
    }
}
