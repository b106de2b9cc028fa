//! Figures of members, nodes and Pods -> the findings that an operator reads; a healthy cluster has none.

use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::figures::{Certificate, Figures, Move, Peer};
use super::findings::{Here, LogError, OutsideEtcd, Seen, Server, diagnose};
use super::servers::{describe, refuse_strangers};

const NOW: i64 = 1_800_000_000;

fn server(id: &str, name: &str) -> Server {
    let figures = Figures {
        id: id.to_owned(),
        unix_ms: NOW * 1000 + 300,
        leader: "a".to_owned(),
        disk_ms: 2.0,
        quota_bytes: 8 << 30,
        used_bytes: 1 << 30,
        ..Figures::default()
    };
    let halfway = Timestamp::from_second(NOW).unwrap();
    let url = format!("https://{name}:2380");
    Server { id: id.to_owned(), name: name.to_owned(), url, is_learner: false, halfway, figures: Ok(figures) }
}

fn lease(name: &str, age: i64) -> k8s_openapi::api::coordination::v1::Lease {
    let renewed = Timestamp::from_second(NOW - age).unwrap();
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {"holderIdentity": "cp1", "leaseDurationSeconds": 15, "renewTime": format!("{renewed:.6}")},
    }))
    .unwrap()
}

fn healthy() -> Seen {
    Seen {
        now: Timestamp::from_second(NOW).unwrap(),
        servers: vec![server("a", "cp1"), server("b", "cp2"), server("c", "cp3")],
        leases: vec![lease("kube-controller-manager", 3), lease("kube-scheduler", 3)],
        ..Seen::default()
    }
}

/// The one finding after a change of the healthy cluster, as what and why.
#[track_caller]
fn check(change: impl FnOnce(&mut Seen), what: &str, why: &str) {
    let mut seen = healthy();
    change(&mut seen);
    let found = diagnose(&seen);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].what.contains(what) && found[0].why.contains(why) && !found[0].next.is_empty(), "{found:?}");
}

fn of(seen: &mut Seen, index: usize) -> &mut Figures {
    seen.servers[index].figures.as_mut().unwrap()
}

#[test]
fn a_healthy_cluster_has_no_findings() {
    assert_eq!(diagnose(&healthy()), []);
}

#[test]
fn disks_are_judged_against_each_other() {
    let why = "800 ms now (since its start p50 0 ms, p99 0 ms); the others take 2.0 ms, so the cluster goes on at their speed; it leads";
    check(|seen| of(seen, 0).disk_ms = 800.0, "the disk of server cp1 (a) is slow", why);
    check(|seen| of(seen, 1).disk_ms = 800.0, "the disk of server cp2 (b) is slow", "it does not lead");
    check(
        |seen| (0..3).for_each(|n| of(seen, n).disk_ms = 150.0),
        "all disks are slow",
        "cp1 150 ms, cp2 150 ms, cp3 150 ms",
    );
    let two_of_five = |slow: f64| {
        let mut seen = healthy();
        seen.servers.extend([server("d", "cp4"), server("e", "cp5")]);
        (0..2).for_each(|n| of(&mut seen, n).disk_ms = slow);
        diagnose(&seen)
    };
    let found = two_of_five(757.0);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[1].why.contains("half of the others or more take at most 2.0 ms, so the cluster"), "{found:?}");
    let two_of_three = |fast: f64| {
        let mut seen = healthy();
        of(&mut seen, 0).disk_ms = fast;
        (1..3).for_each(|n| of(&mut seen, n).disk_ms = 757.0);
        diagnose(&seen)
    };
    let found = two_of_three(2.0);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|it| it.why.contains("at most 2.0 ms, but writes wait for slow ones")), "{found:?}");
    let just_slow = |seen: &mut Seen| (1..3).for_each(|n| of(seen, n).disk_ms = 120.0);
    let mut seen = healthy();
    just_slow(&mut seen);
    of(&mut seen, 0).disk_ms = 90.0;
    assert_eq!(diagnose(&seen), [], "none is an outlier");
    check(
        |seen| {
            seen.servers.truncate(1);
            of(seen, 0).disk_ms = 150.0;
        },
        "the disk of server cp1 (a) is slow",
        "it is the only server",
    );
}

#[test]
fn servers_that_ail_are_named() {
    let gone = |seen: &mut Seen| seen.servers[1].figures = Err("connection refused".to_owned());
    check(gone, "server cp2 (b) does not answer", "connection refused; 0 more may fail");
    let learner_gone = |seen: &mut Seen| {
        gone(seen);
        seen.servers[1].is_learner = true;
    };
    check(learner_gone, "server cp2 (b) does not answer", "connection refused; it has no vote yet");
    check(|seen| of(seen, 2).disk_full = true, "the disk of server cp3 (c) is full", "only deletes");
    check(|seen| of(seen, 2).used_bytes = 7 << 30, "is nearly full", "7168 of 8192 MiB are used (88 %)");
    check(|seen| of(seen, 2).unix_ms -= 2_300, "the clock of server cp3 (c)", "2.0 s behind ours");
    check(|seen| of(seen, 2).stopped = Some("fsync failed".to_owned()), "does not write any more", "fsync failed");
    let file = "/d/pki/apiserver.crt".to_owned();
    let ends = |in_seconds| vec![Certificate { file: file.clone(), ends_unix: NOW + in_seconds }];
    check(|seen| of(seen, 0).certificates = ends(90_000), "ends soon", "/d/pki/apiserver.crt: 1 days, 1 hours left");
    check(|seen| of(seen, 0).certificates = ends(-60), "has ended", "0 days");
    check(|seen| (0..3).for_each(|n| of(seen, n).leader.clear()), "no server leads", "a majority of 2");
}

#[test]
fn without_a_majority_writes_have_stopped_and_a_way_out_is_named() {
    let mut seen = healthy();
    of(&mut seen, 0).leader.clear();
    (1..3).for_each(|n| seen.servers[n].figures = Err("connection refused".to_owned()));
    seen.unanswered = ["nodes", "pods"].map(|name| (name.to_owned(), "no answer within 3 s".to_owned())).to_vec();
    let found = diagnose(&seen);
    let stopped = "connection refused; writes have stopped: 1 of 3 servers that vote answer, 2 must";
    assert_eq!([found[0].why.as_str(), &found[1].why], [stopped; 2]);
    assert!(found[2].what.contains("no server leads") && found[2].next.contains("restore FILE --alone"), "{found:?}");
    assert_eq!(found[3].what, "the API server does not list nodes, pods");
    assert_eq!(found[3].why, "no answer within 3 s");
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn a_move_of_leadership_is_no_finding() {
    let mut seen = healthy();
    let (from, to) = ("b".to_owned(), "a".to_owned());
    of(&mut seen, 0).last_move = Some(Move { ago_seconds: 61, from, to, reason: "it was stopped".to_owned() });
    assert_eq!(diagnose(&seen), []);
}

#[test]
fn figures_of_another_member_are_not_believed() {
    let mut seen = healthy();
    of(&mut seen, 1).id = "c".to_owned();
    of(&mut seen, 2).id.clear();
    refuse_strangers(&mut seen.servers);
    assert_eq!(seen.servers[1].figures, Err("server cp3 (c) listens at https://cp2:2380".to_owned()));
    assert!(seen.servers[0].figures.is_ok() && seen.servers[2].figures.is_ok());
}

#[test]
fn an_outside_etcd_takes_the_place_of_servers() {
    let mut seen = Seen { servers: Vec::new(), ..healthy() };
    let etcd = |problem| Some(OutsideEtcd { address: "etcd://e:2379".to_owned(), problem });
    seen.datastore = etcd(None);
    assert_eq!(diagnose(&seen), []);
    seen.datastore = etcd(Some("[-]etcd failed: reason withheld".to_owned()));
    let found = diagnose(&seen);
    assert!(found.len() == 1 && found[0].what.contains("the datastore etcd://e:2379 does not answer"), "{found:?}");
}

#[test]
fn servers_stand_beside_each_other() {
    let mut seen = healthy();
    let reason = "its disk takes 800ms a write, that of a 1ms".to_owned();
    of(&mut seen, 0).last_move = Some(Move { ago_seconds: 11_000, from: "b".to_owned(), to: "a".to_owned(), reason });
    *of(&mut seen, 1) = Figures { disk_ms: 812.3, fsync_p50_ms: 1.0, fsync_p99_ms: 900.0, ..of(&mut seen, 1).clone() };
    seen.servers[2].figures = Err("connection refused".to_owned());
    let lines = describe(&seen);
    let quiet = "takes 2.0 ms now, since its start p50 0.0 ms, p99 0.0 ms  store 1024 of 8192 MiB";
    assert_eq!(lines[0], format!("server cp1 (a)  leads     a write to its log {quiet}"));
    assert!(lines[1].starts_with("server cp2 (b)  follows   a write to its log takes 812.3 ms now"), "{}", lines[1]);
    assert_eq!(lines[2], "server cp3 (c)  does not answer");
    let led = "server cp1 (a) has led for 3 h 3 min, after server cp2 (b): its disk takes 800ms a write, that of a 1ms";
    assert_eq!(lines[3..], [led]);
    assert_eq!(describe(&Seen::default()), [""; 0]);
}

#[test]
fn components_nodes_and_pods_that_do_not_work_say_why() {
    check(|seen| seen.leases[1] = lease("kube-scheduler", 40), "kube-scheduler does not work", "renewed last 40 s ago");
    check(|seen| seen.leases.truncate(1), "kube-scheduler does not work", "nobody holds");
    let node = json!({"metadata": {"name": "n1"}, "status": {"conditions": [
        {"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting node status."}]}});
    check(
        |seen| seen.nodes = vec![serde_json::from_value(node).unwrap()],
        "node n1 is not Ready",
        "Kubelet stopped posting",
    );
    let pod = json!({"metadata": {"name": "p", "namespace": "x"}, "status": {"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: 1 Insufficient cpu."}]}});
    check(|seen| seen.pods = vec![serde_json::from_value(pod).unwrap()], "pod x/p waits", "Insufficient cpu");
}

#[test]
fn without_an_api_server_this_machine_tells_what_it_can() {
    let check = |here: Here, what: &str, next: &str| {
        let seen = Seen { here: Here { api_error: Some("refused".to_owned()), ..here }, ..Seen::default() };
        let found = diagnose(&seen);
        assert!(found.len() == 1 && found[0].what.contains(what) && found[0].next.contains(next), "{found:?}");
    };
    let down = || Here { has_data: true, port: Some(6443), ..Here::default() };
    check(Here { pid: Some(7), ..down() }, "runs (pid 7), but its API server does not answer", "restart");
    check(down(), "does not run here", "start it");
    check(Here { removed: Some("it was removed".to_owned()), ..down() }, "does not start", "holdfast token");
    check(Here { free_bytes: Some(4096), ..down() }, "its disk is full", "free space there");
    let error = |is_end| Some(LogError { line: "holdfast: wal-1 is damaged".to_owned(), is_end });
    check(Here { last_error: error(true), ..down() }, "it ended with an error", "cure that");
    check(Here { last_error: error(false), ..down() }, "does not run here", "start it");
    let elsewhere = Here { pid: Some(7), data_dir: "/wrong".to_owned(), ..Here::default() };
    check(elsewhere, "there is no cluster in /wrong, but holdfast runs here (pid 7)", "/proc/7/cmdline");
    check(Here { port_is_open: true, ..down() }, "another process has its port 6443", "ss -ltnp");
    check(Here::default(), "there is no cluster here", "holdfast up");
}

#[test]
fn figures_are_read_as_they_were_written_and_unknown_ones_are_left() {
    let figures = Figures {
        peers: vec![Peer { id: "b".to_owned(), round_trip_ms: Some(0.4), ..Peer::default() }],
        ..server("a", "cp1").figures.unwrap()
    };
    let mut value = serde_json::to_value(&figures).unwrap();
    value["fromTheFuture"] = json!(1);
    assert_eq!(Figures::parse(value.to_string().as_bytes()), Some(figures));
    assert_eq!(Figures::parse(b""), None);
}
