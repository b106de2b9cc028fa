//! Check table of the zone: question -> answer.

use std::sync::Arc;

use expect_test::{Expect, expect};
use serde_json::json;

use super::*;

fn view() -> View {
    let mut view = View::default();
    view.set_namespace("d", true);
    view.set_namespaces_known();
    let services = [
        json!({"metadata": {"name": "web", "namespace": "d"}, "spec": {"clusterIP": "10.43.0.20", "clusterIPs": ["10.43.0.20"],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]}}),
        json!({"metadata": {"name": "db", "namespace": "d"}, "spec": {"clusterIP": "None", "clusterIPs": ["None"],
            "ports": [{"name": "sql", "port": 5432}]}}),
        json!({"metadata": {"name": "empty", "namespace": "d"}, "spec": {"clusterIP": "None"}}),
        json!({"metadata": {"name": "out", "namespace": "d"},
            "spec": {"type": "ExternalName", "externalName": "www.example.org."}}),
    ];
    for service in services {
        view.set_service(&Arc::new(serde_json::from_value(service).unwrap()), true);
    }
    let slice = json!({"metadata": {"name": "db-1", "namespace": "d", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.42.0.5"], "hostname": "db-0", "conditions": {"ready": true}},
            {"addresses": ["10.42.0.6"], "conditions": {}},
            {"addresses": ["10.42.0.7"], "hostname": "db-2", "conditions": {"ready": false}}]});
    view.set_slice(&Arc::new(serde_json::from_value(slice).unwrap()), true);
    view
}

fn check(name: &str, kind: QuestionKind, expect: Expect) {
    let zone = Zone { domain: "cluster.local".to_owned(), server: "10.43.0.10".parse().unwrap() };
    let text = match answer(name, kind, &view(), &zone) {
        Answer::Found { answers, additional } => {
            let line = |record: &Record| format!("{} {:?}\n", record.name, record.data);
            let more: String = additional.iter().map(|record| format!("+ {}", line(record))).collect();
            answers.iter().map(line).collect::<String>() + &more
        }
        other => format!("{other:?}\n"),
    };
    expect.assert_eq(&text);
}

use QuestionKind::{A, Aaaa, Ns, Ptr, Soa, Srv, Txt};

#[test]
fn services_have_addresses() {
    check(
        "web.d.svc.cluster.local",
        A,
        expect![[r#"
        web.d.svc.cluster.local A(10.43.0.20)
    "#]],
    );
    check(
        "WEB.d.svc.Cluster.Local",
        A,
        expect![[r#"
        WEB.d.svc.Cluster.Local A(10.43.0.20)
    "#]],
    );
    check(
        "web.d.svc.cluster.local",
        Aaaa,
        expect![[r#"
        NoData
    "#]],
    );
    check(
        "db.d.svc.cluster.local",
        A,
        expect![[r#"
        db.d.svc.cluster.local A(10.42.0.5)
        db.d.svc.cluster.local A(10.42.0.6)
    "#]],
    );
    check(
        "empty.d.svc.cluster.local",
        A,
        expect![[r#"
        NoData
    "#]],
    );
    check(
        "out.d.svc.cluster.local",
        A,
        expect![[r#"
        Alias("www.example.org")
    "#]],
    );
    check(
        "nope.d.svc.cluster.local",
        A,
        expect![[r#"
        NoSuchName
    "#]],
    );
}

#[test]
fn endpoints_of_headless_services_have_names() {
    check(
        "db-0.db.d.svc.cluster.local",
        A,
        expect![[r#"
        db-0.db.d.svc.cluster.local A(10.42.0.5)
    "#]],
    );
    check(
        "10-42-0-6.db.d.svc.cluster.local",
        A,
        expect![[r#"
        10-42-0-6.db.d.svc.cluster.local A(10.42.0.6)
    "#]],
    );
    check(
        "db-2.db.d.svc.cluster.local",
        A,
        expect![[r#"
        NoSuchName
    "#]],
    );
}

#[test]
fn ports_have_srv_records() {
    check(
        "_http._tcp.web.d.svc.cluster.local",
        Srv,
        expect![[r#"
        _http._tcp.web.d.svc.cluster.local Srv { weight: 100, port: 80, target: "web.d.svc.cluster.local" }
        + web.d.svc.cluster.local A(10.43.0.20)
    "#]],
    );
    check(
        "_http._udp.web.d.svc.cluster.local",
        Srv,
        expect![[r#"
        NoSuchName
    "#]],
    );
    check(
        "_http._tcp.web.d.svc.cluster.local",
        A,
        expect![[r#"
        NoData
    "#]],
    );
    check(
        "_tcp.web.d.svc.cluster.local",
        Srv,
        expect![[r#"
        NoData
    "#]],
    );
    check(
        "_sql._tcp.db.d.svc.cluster.local",
        Srv,
        expect![[r#"
        _sql._tcp.db.d.svc.cluster.local Srv { weight: 50, port: 5432, target: "10-42-0-6.db.d.svc.cluster.local" }
        _sql._tcp.db.d.svc.cluster.local Srv { weight: 50, port: 5432, target: "db-0.db.d.svc.cluster.local" }
        + 10-42-0-6.db.d.svc.cluster.local A(10.42.0.6)
        + db-0.db.d.svc.cluster.local A(10.42.0.5)
    "#]],
    );
    check(
        "web.d.svc.cluster.local",
        Srv,
        expect![[r#"
        web.d.svc.cluster.local Srv { weight: 50, port: 53, target: "web.d.svc.cluster.local" }
        web.d.svc.cluster.local Srv { weight: 50, port: 80, target: "web.d.svc.cluster.local" }
        + web.d.svc.cluster.local A(10.43.0.20)
    "#]],
    );
}

#[test]
fn pods_and_addresses_have_names() {
    check(
        "10-42-0-9.d.pod.cluster.local",
        A,
        expect![[r#"
        10-42-0-9.d.pod.cluster.local A(10.42.0.9)
    "#]],
    );
    check(
        "10-42-0-9.nope.pod.cluster.local",
        A,
        expect![[r#"
        NoSuchName
    "#]],
    );
    check(
        "x.d.pod.cluster.local",
        A,
        expect![[r#"
        NoSuchName
    "#]],
    );
    check(
        "20.0.43.10.in-addr.arpa",
        Ptr,
        expect![[r#"
        20.0.43.10.in-addr.arpa Ptr("web.d.svc.cluster.local")
    "#]],
    );
    check(
        "5.0.42.10.in-addr.arpa",
        Ptr,
        expect![[r#"
        5.0.42.10.in-addr.arpa Ptr("db-0.db.d.svc.cluster.local")
    "#]],
    );
    check(
        "6.0.42.10.in-addr.arpa",
        Ptr,
        expect![[r#"
        NotOurs
    "#]],
    );
}

#[test]
fn the_zone_itself_has_records() {
    check(
        "cluster.local",
        Soa,
        expect![[r#"
        cluster.local Soa
    "#]],
    );
    check(
        "cluster.local",
        Ns,
        expect![[r#"
        cluster.local Ns("ns.dns.cluster.local")
    "#]],
    );
    check(
        "cluster.local",
        A,
        expect![[r#"
        NoData
    "#]],
    );
    check(
        "dns-version.cluster.local",
        Txt,
        expect![[r#"
        dns-version.cluster.local Txt("1.1.0")
    "#]],
    );
    check(
        "ns.dns.cluster.local",
        A,
        expect![[r#"
        ns.dns.cluster.local A(10.43.0.10)
    "#]],
    );
}

#[test]
fn what_exists_is_told_from_what_does_not() {
    check(
        "svc.cluster.local",
        A,
        expect![[r#"
        NoData
    "#]],
    );
    check(
        "d.svc.cluster.local",
        A,
        expect![[r#"
        NoData
    "#]],
    );
    check(
        "nope.svc.cluster.local",
        A,
        expect![[r#"
        NoSuchName
    "#]],
    );
    check(
        "nope.cluster.local",
        A,
        expect![[r#"
        NoSuchName
    "#]],
    );
    check(
        "mycluster.local",
        A,
        expect![[r#"
        NotOurs
    "#]],
    );
    check(
        "example.org",
        A,
        expect![[r#"
        NotOurs
    "#]],
    );
}

#[test]
fn what_is_deleted_is_forgotten() {
    let mut view = view();
    let entry = view.entry("d", "db").cloned().unwrap();
    view.set_slice(&entry.slices["db-1"], false);
    view.set_service(&entry.service.unwrap(), false);
    assert!(view.entry("d", "db").is_none());
    assert_eq!(view.services_by_endpoint("10.42.0.5".parse().unwrap()).count(), 0);
}
