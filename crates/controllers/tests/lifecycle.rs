//! Garbage collection and the end of namespaces, against the simulated API.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use controllers::garbage::GarbageCollector;
use controllers::namespaces::NamespaceController;
use controllers::root_ca::RootCaPublisher;
use controllers::service_accounts::ServiceAccountController;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use reconcile::Propagation;
use reconcile::Registrar as _;
use reconcile::harness::{Harness, World, check_crash_safety};
use serde_json::{Value, from_value, json};

fn idle(_: &mut World) -> bool {
    false
}

fn owner(kind: &str, name: &str, uid: &str, blocks: bool) -> Value {
    json!({ "apiVersion": "v1", "kind": kind, "name": name, "uid": uid, "blockOwnerDeletion": blocks })
}

fn pod(name: &str, owners: &[Value]) -> Pod {
    from_value(json!({ "metadata": { "name": name, "namespace": "ns", "uid": name, "ownerReferences": owners }, "spec": { "containers": [] } }))
        .unwrap()
}

fn config_map(name: &str, owners: &[Value]) -> ConfigMap {
    from_value(json!({ "metadata": { "name": name, "namespace": "ns", "uid": name, "ownerReferences": owners } }))
        .unwrap()
}

fn collector() -> Harness {
    let mut harness = Harness::new();
    harness.register(GarbageCollector);
    harness
}

fn names<K: reconcile::Object>(world: &World) -> Vec<String> {
    world.list::<K>().iter().map(|object| object.metadata().name.clone().unwrap()).collect()
}

#[test]
fn dependents_of_an_absent_owner_go_and_those_with_another_owner_stay() {
    fn setup() -> Harness {
        let mut harness = collector();
        harness.add(&config_map("owner", &[]));
        harness.add(&pod("orphan", &[owner("ConfigMap", "gone", "u-gone", false)]));
        harness.add(&pod("replaced", &[owner("ConfigMap", "owner", "u-former", false)]));
        harness.add(&pod(
            "shared",
            &[owner("ConfigMap", "gone", "u-gone", false), owner("ConfigMap", "owner", "owner", false)],
        ));
        harness.add(&pod("kindless", &[owner("Unheard", "x", "u-x", false)]));
        harness
    }
    check_crash_safety(setup, idle);
    let mut harness = setup();
    harness.settle();
    assert_eq!(names::<Pod>(&harness.world), ["kindless", "shared"]);
    let shared: Pod = harness.world.get("ns", "shared").unwrap();
    assert_eq!(shared.metadata.owner_references.unwrap().len(), 1);
}

#[test]
fn foreground_deletion_waits_for_blocking_dependents_only() {
    fn setup() -> Harness {
        let mut harness = collector();
        harness.add(&config_map("owner", &[]));
        let mut blocking = pod("blocking", &[owner("ConfigMap", "owner", "owner", true)]);
        blocking.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
        harness.add(&blocking);
        harness.add(&pod("free", &[owner("ConfigMap", "owner", "owner", false)]));
        harness.world.delete::<ConfigMap>("ns", "owner", Some(Propagation::Foreground));
        harness
    }
    let mut harness = setup();
    harness.settle();
    assert_eq!(names::<Pod>(&harness.world), ["blocking"]);
    assert_eq!(names::<ConfigMap>(&harness.world), ["owner"]);
    fn release(world: &mut World) -> bool {
        world.update_each::<Pod>(|pod| {
            if pod.metadata.deletion_timestamp.is_some() {
                pod.metadata.finalizers = None;
            }
        }) > 0
    }
    check_crash_safety(setup, release);
    harness.settle_with(release);
    assert!(harness.world.summary().is_empty());
}

#[test]
fn orphaning_frees_the_dependents() {
    fn setup() -> Harness {
        let mut harness = collector();
        harness.add(&config_map("owner", &[]));
        harness.add(&pod("a", &[owner("ConfigMap", "owner", "owner", true)]));
        harness.add(&pod("b", &[owner("ConfigMap", "owner", "owner", true)]));
        harness.world.delete::<ConfigMap>("ns", "owner", Some(Propagation::Orphan));
        harness
    }
    check_crash_safety(setup, idle);
    let mut harness = setup();
    harness.settle();
    assert_eq!(names::<ConfigMap>(&harness.world), Vec::<String>::new());
    let pods = harness.world.list::<Pod>();
    assert_eq!(pods.len(), 2);
    assert!(pods.iter().all(|pod| pod.metadata.owner_references.clone().unwrap_or_default().is_empty()));
}

#[test]
fn a_circle_of_owners_does_not_block_its_own_deletion() {
    fn setup() -> Harness {
        let mut harness = collector();
        harness.add(&pod("pod1", &[owner("Pod", "pod3", "pod3", true)]));
        harness.add(&pod("pod2", &[owner("Pod", "pod1", "pod1", true)]));
        harness.add(&pod("pod3", &[owner("Pod", "pod2", "pod2", true)]));
        harness.world.delete::<Pod>("ns", "pod1", Some(Propagation::Foreground));
        harness
    }
    check_crash_safety(setup, idle);
    let mut harness = setup();
    harness.settle();
    assert!(harness.world.summary().is_empty());
}

fn namespace() -> Namespace {
    from_value(json!({ "metadata": { "name": "ns" }, "spec": { "finalizers": ["kubernetes"] }, "status": { "phase": "Active" } })).unwrap()
}

#[test]
fn a_namespace_goes_with_all_its_content_pods_first() {
    fn pods_first(world: &World) {
        if !names::<Pod>(world).is_empty() {
            assert_eq!(names::<ConfigMap>(world), ["settings"]);
        }
    }
    fn setup() -> Harness {
        let mut harness = Harness::new();
        harness.register(NamespaceController);
        harness.register(ServiceAccountController);
        harness.add(&namespace());
        harness.add(&pod("a", &[]));
        harness.add(&pod("b", &[]));
        harness.add(&config_map("settings", &[]));
        harness.settle();
        harness.world.delete::<Namespace>("", "ns", None);
        harness.set_invariant(pods_first);
        harness
    }
    check_crash_safety(setup, idle);
    let mut harness = setup();
    harness.settle();
    assert!(harness.world.summary().is_empty());
}

#[test]
fn a_namespace_says_what_holds_it() {
    let mut harness = Harness::new();
    harness.register(NamespaceController);
    harness.add(&namespace());
    let mut held = config_map("held", &[]);
    held.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    harness.add(&held);
    harness.world.delete::<Namespace>("", "ns", None);
    harness.settle();
    let namespace: Namespace = harness.world.get("", "ns").unwrap();
    let conditions = namespace.status.unwrap().conditions.unwrap();
    let told: Vec<_> = conditions.iter().filter(|c| c.status == "True").map(|c| c.message.clone().unwrap()).collect();
    assert_eq!(
        told,
        [
            "Some resources are remaining: configmaps. has 1 resource instances",
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
        ]
    );
    harness.world.update_each::<ConfigMap>(|held| held.metadata.finalizers = None);
    harness.settle();
    assert!(harness.world.summary().is_empty());
}

#[test]
fn every_namespace_has_its_account_and_certificates() {
    fn setup() -> Harness {
        let mut harness = Harness::new();
        harness.register(ServiceAccountController);
        harness.register(RootCaPublisher::new("PEM".to_owned()));
        harness.add(&namespace());
        harness
    }
    check_crash_safety(setup, idle);
    let mut harness = setup();
    harness.settle();
    assert!(harness.world.get::<ServiceAccount>("ns", "default").is_some());
    harness.world.update_each::<ConfigMap>(|published| published.data = None);
    harness.settle();
    assert_eq!(harness.world.get::<ConfigMap>("ns", "kube-root-ca.crt").unwrap().data.unwrap()["ca.crt"], "PEM");
}
