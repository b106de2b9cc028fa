//! StatefulSets against the simulated API: order, claims, rollouts.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use controllers::stateful::StatefulSetController;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use reconcile::Registrar as _;
use reconcile::harness::{Harness, World, check_crash_safety};
use serde_json::{Value, from_value, json};

fn harness(replicas: i32, policy: &str, rolling: Value) -> Harness {
    let set: StatefulSet = from_value(json!({
        "metadata": { "name": "db", "namespace": "ns" },
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "podManagementPolicy": policy,
            "selector": { "matchLabels": { "app": "db" } },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": rolling },
            "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {} }],
            "template": { "metadata": { "labels": { "app": "db" } }, "spec": { "containers": [{ "name": "a", "image": "v1" }] } },
        },
    }))
    .unwrap();
    let mut harness = Harness::new();
    harness.register(StatefulSetController);
    harness.add(&set);
    harness
}

/// Makes one pod ready, the lowest ordinal first.
fn run_a_pod(world: &mut World) -> bool {
    let mut left = 1;
    world.update_each::<Pod>(|pod| {
        if pod.status.is_none() && left > 0 {
            left -= 1;
            pod.status =
                from_value(json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] }))
                    .unwrap();
        }
    }) > 0
}

fn images(world: &World) -> Vec<String> {
    let pods = world.list::<Pod>();
    let line = |pod: &Pod| {
        format!(
            "{}:{}",
            pod.metadata.name.clone().unwrap(),
            pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap()
        )
    };
    pods.iter().map(line).collect()
}

fn change(harness: &mut Harness, image: &str, replicas: i32) {
    harness.world.update_each::<StatefulSet>(|set| {
        set.spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
        set.spec.replicas = Some(replicas);
    });
}

/// Under OrderedReady at most one pod is not ready, and ordinals have no gap above the lowest missing one.
fn in_order(world: &World) {
    let pods = world.list::<Pod>();
    assert!(pods.iter().filter(|pod| pod.status.is_none()).count() <= 1, "{:?}", images(world));
}

#[test]
fn pods_come_one_after_the_other_with_their_claims_and_go_from_the_end() {
    fn setup() -> Harness {
        let mut harness = harness(3, "OrderedReady", json!({ "partition": 0 }));
        harness.set_invariant(in_order);
        harness
    }
    check_crash_safety(setup, run_a_pod);
    let mut harness = setup();
    harness.settle();
    assert_eq!(images(&harness.world), ["db-0:v1"]);
    harness.settle_with(run_a_pod);
    assert_eq!(images(&harness.world), ["db-0:v1", "db-1:v1", "db-2:v1"]);
    let claims: Vec<_> =
        harness.world.list::<PersistentVolumeClaim>().into_iter().map(|claim| claim.metadata.name.unwrap()).collect();
    assert_eq!(claims, ["data-db-0", "data-db-1", "data-db-2"]);
    change(&mut harness, "v1", 1);
    harness.settle_with(run_a_pod);
    assert_eq!(images(&harness.world), ["db-0:v1"]);
    assert_eq!(harness.world.list::<PersistentVolumeClaim>().len(), 3);
}

#[test]
fn a_rollout_goes_down_to_the_partition_and_then_through() {
    fn setup() -> Harness {
        let mut harness = harness(3, "OrderedReady", json!({ "partition": 1 }));
        harness.settle_with(run_a_pod);
        harness.set_invariant(in_order);
        change(&mut harness, "v2", 3);
        harness
    }
    check_crash_safety(setup, run_a_pod);
    let mut harness = setup();
    harness.settle_with(run_a_pod);
    assert_eq!(images(&harness.world), ["db-0:v1", "db-1:v2", "db-2:v2"]);
    // A pod below the partition comes back as it was.
    harness.world.delete::<Pod>("ns", "db-0", None);
    harness.settle_with(run_a_pod);
    assert_eq!(images(&harness.world), ["db-0:v1", "db-1:v2", "db-2:v2"]);
    let status = |harness: &Harness| harness.world.get::<StatefulSet>("ns", "db").unwrap().status.unwrap();
    assert_ne!(status(&harness).current_revision, status(&harness).update_revision);
    harness.world.update_each::<StatefulSet>(|set| {
        set.spec.update_strategy.as_mut().unwrap().rolling_update.as_mut().unwrap().partition = Some(0);
    });
    harness.settle_with(run_a_pod);
    assert_eq!(images(&harness.world), ["db-0:v2", "db-1:v2", "db-2:v2"]);
    let status = status(&harness);
    assert_eq!(status.current_revision, status.update_revision);
    assert_eq!((status.ready_replicas, status.current_replicas, status.updated_replicas), (Some(3), Some(3), Some(3)));
}

#[test]
fn parallel_pods_come_and_go_at_once() {
    let mut harness = harness(3, "Parallel", json!({ "partition": 0 }));
    harness.settle();
    assert_eq!(harness.world.list::<Pod>().len(), 3);
    change(&mut harness, "v1", 0);
    harness.settle();
    assert!(harness.world.list::<Pod>().is_empty());
}
