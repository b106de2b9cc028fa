//! Figures of members, nodes and Pods -> the findings that an operator reads; a healthy cluster has none.

use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::figures::{Certificate, Figures, Move, Peer};
use super::findings::{Here, Seen, Server, diagnose};
use super::servers::describe;

const NOW: i64 = 1_800_000_000;

fn server(id: &str, name: &str) -> Server {
    let figures = Figures {
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
fn the_last_move_of_leadership_is_told_once_with_its_reason() {
    let moved = |ago_seconds, reason: &str| {
        Some(Move { ago_seconds, from: "b".to_owned(), to: "a".to_owned(), reason: reason.to_owned() })
    };
    let recent = |seen: &mut Seen| {
        of(seen, 0).last_move = moved(61, "its disk takes 800ms a write, that of a 1ms");
        of(seen, 2).last_move = moved(61, "");
    };
    check(recent, "leadership has moved to server cp1 (a)", "61 s ago, from server cp2 (b): its disk takes 800ms");
    let mut seen = healthy();
    of(&mut seen, 0).last_move = moved(7200, "long ago");
    assert_eq!(diagnose(&seen), []);
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
