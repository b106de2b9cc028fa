//! Deployments and ReplicaSets together, against the simulated API: crash safety and the bounds of a rollout.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use controllers::deployment::DeploymentController;
use controllers::replicas::ReplicaController;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use proptest::prelude::*;
use reconcile::Registrar as _;
use reconcile::harness::{Harness, World, check_crash_safety};
use serde_json::{Value, from_value, json};

fn deployment(replicas: i32, strategy: Value) -> Deployment {
    from_value(json!({
        "metadata": { "name": "web", "namespace": "ns" },
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": 600,
            "selector": { "matchLabels": { "app": "web" } },
            "strategy": strategy,
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "a", "image": "v1" }] } },
        },
    }))
    .unwrap()
}

fn rolling(max_surge: Value, max_unavailable: Value) -> Value {
    json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": max_surge, "maxUnavailable": max_unavailable } })
}

fn harness(deployment: &Deployment) -> Harness {
    let mut harness = Harness::new();
    harness.register(ReplicaController::<ReplicaSet>::default());
    harness.register(DeploymentController);
    harness.add(deployment);
    harness
}

/// A kubelet that makes one pod ready at a time.
fn make_a_pod_ready(world: &mut World) -> bool {
    let mut left = 1;
    world.update_each::<Pod>(|pod| {
        if pod.status.is_none() && left > 0 {
            left -= 1;
            let ready = PodCondition { type_: "Ready".into(), status: "True".into(), ..PodCondition::default() };
            let status =
                PodStatus { phase: Some("Running".into()), conditions: Some(vec![ready]), ..PodStatus::default() };
            pod.status = Some(status);
        }
    }) > 0
}

fn set_image(harness: &mut Harness, image: &str) {
    harness.world.update_each::<Deployment>(|deployment| {
        deployment.spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
    });
}

fn web(harness: &Harness) -> Deployment {
    harness.world.get("ns", "web").unwrap()
}

fn condition(deployment: &Deployment, type_: &str) -> (String, String, String) {
    let all = deployment.status.clone().unwrap().conditions.unwrap();
    let found = all.into_iter().find(|condition| condition.type_.as_deref() == Some(type_)).unwrap();
    (found.status.unwrap(), found.reason.unwrap(), found.message.unwrap())
}

#[test]
fn a_rollout_ends_complete_whatever_write_it_crashes_after() {
    fn setup() -> Harness {
        let mut harness = harness(&deployment(3, rolling(json!("25%"), json!("25%"))));
        harness.settle_with(make_a_pod_ready);
        set_image(&mut harness, "v2");
        harness
    }
    check_crash_safety(setup, make_a_pod_ready);
    let mut harness = setup();
    harness.settle_with(make_a_pod_ready);
    let web = web(&harness);
    let status = web.status.clone().unwrap();
    assert_eq!((status.replicas, status.updated_replicas, status.available_replicas), (Some(3), Some(3), Some(3)));
    assert_eq!(web.metadata.annotations.clone().unwrap()["deployment.kubernetes.io/revision"], "2");
    let (value, reason, message) = condition(&web, "Progressing");
    assert_eq!((&*value, &*reason), ("True", "NewReplicaSetAvailable"));
    assert!(
        message.starts_with("ReplicaSet \"web-") && message.ends_with("\" has successfully progressed."),
        "{message}"
    );
    assert_eq!(condition(&web, "Available").1, "MinimumReplicasAvailable");
}

#[test]
fn recreate_starts_nothing_new_before_the_old_is_gone() {
    fn never_mixed(world: &World) {
        let images: std::collections::BTreeSet<_> =
            world.list::<Pod>().into_iter().map(|pod| pod.spec.unwrap().containers[0].image.clone().unwrap()).collect();
        assert!(images.len() <= 1, "{images:?}");
    }
    fn setup() -> Harness {
        let mut harness = harness(&deployment(2, json!({ "type": "Recreate" })));
        harness.settle_with(make_a_pod_ready);
        set_image(&mut harness, "v2");
        harness.set_invariant(never_mixed);
        harness
    }
    check_crash_safety(setup, make_a_pod_ready);
}

#[test]
fn history_keeps_its_limit_and_an_undo_takes_the_next_revision() {
    let mut harness = harness(&deployment(1, rolling(json!(1), json!(0))));
    for image in ["v1", "v2", "v3", "v4", "v3"] {
        set_image(&mut harness, image);
        harness.settle_with(make_a_pod_ready);
    }
    let mut revisions: Vec<_> = harness
        .world
        .list::<ReplicaSet>()
        .into_iter()
        .map(|set| {
            let annotations = set.metadata.annotations.unwrap();
            let history = annotations.get("deployment.kubernetes.io/revision-history").cloned().unwrap_or_default();
            (annotations["deployment.kubernetes.io/revision"].clone(), history)
        })
        .collect();
    revisions.sort();
    assert_eq!(revisions, [("4".to_owned(), String::new()), ("5".to_owned(), "3".to_owned())]);
}

#[test]
fn a_refused_pod_shows_as_replica_failure_and_goes_when_all_is_well() {
    let mut harness = harness(&deployment(2, rolling(json!(1), json!(0))));
    harness.world.refused = vec!["pods"];
    // The pods are tried again for ever, so there is no fixed point: run until the condition has travelled.
    for _ in 0..3 {
        let keys = [reconcile::Key::new("ns", "web")];
        for key in keys {
            let plan = harness.decide(1, &key, None);
            plan.writes.iter().for_each(|write| harness.world.apply(write).unwrap());
        }
        for set in harness.world.list::<ReplicaSet>() {
            let key = reconcile::Key::of(&set.metadata);
            let plan = harness.decide(0, &key, None);
            let failed = plan.writes.iter().find_map(|write| harness.world.apply(write).err());
            if let Some(failure) = failed {
                let plan = harness.decide(0, &key, Some(&failure));
                plan.writes.iter().for_each(|write| harness.world.apply(write).unwrap());
            }
        }
    }
    assert_eq!(condition(&web(&harness), "ReplicaFailure").1, "FailedCreate");
    harness.world.refused.clear();
    harness.settle_with(make_a_pod_ready);
    let all = web(&harness).status.unwrap().conditions.unwrap();
    assert!(all.iter().all(|condition| condition.type_.as_deref() != Some("ReplicaFailure")), "{all:?}");
}

#[test]
fn a_rollout_that_stands_still_times_out() {
    let mut harness = harness(&deployment(1, rolling(json!(1), json!(0))));
    harness.settle();
    harness.advance(std::time::Duration::from_secs(601));
    harness.settle();
    let (value, reason, message) = condition(&web(&harness), "Progressing");
    assert_eq!((&*value, &*reason), ("False", "ProgressDeadlineExceeded"));
    assert!(message.ends_with("\" has timed out progressing."), "{message}");
}

#[test]
fn scaling_in_mid_rollout_is_shared_in_proportion() {
    let mut harness = harness(&deployment(10, rolling(json!(3), json!(2))));
    harness.settle_with(make_a_pod_ready);
    set_image(&mut harness, "bad");
    harness.settle();
    let sizes = |harness: &Harness| {
        let mut sizes: Vec<_> =
            harness.world.list::<ReplicaSet>().iter().map(|set| set.spec.replicas.unwrap()).collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!(sizes(&harness), [5, 8]);
    harness.world.update_each::<Deployment>(|deployment| deployment.spec.replicas = Some(30));
    harness.settle();
    assert_eq!(sizes(&harness), [13, 20]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut harness = harness(&deployment(2, rolling(json!(1), json!(0))));
    harness.settle_with(make_a_pod_ready);
    harness.world.update_each::<Deployment>(|deployment| {
        deployment.spec.paused = Some(true);
        deployment.spec.replicas = Some(4);
    });
    set_image(&mut harness, "v2");
    harness.settle_with(make_a_pod_ready);
    let sets = harness.world.list::<ReplicaSet>();
    assert_eq!(sets.len(), 1);
    assert_eq!(sets[0].spec.replicas, Some(4));
    assert_eq!(
        condition(&web(&harness), "Progressing"),
        ("Unknown".into(), "DeploymentPaused".into(), "Deployment is paused".into())
    );
}

#[test]
fn an_orphan_that_matches_is_adopted_and_one_that_no_longer_does_is_released() {
    let mut harness = Harness::new();
    harness.register(ReplicaController::<ReplicaSet>::default());
    let pod: Pod = from_value(json!({ "metadata": { "name": "orphan", "namespace": "ns", "labels": { "app": "a" } }, "spec": { "containers": [] } })).unwrap();
    let set: ReplicaSet = from_value(json!({
        "metadata": { "name": "set", "namespace": "ns" },
        "spec": { "replicas": 1, "selector": { "matchLabels": { "app": "a" } },
            "template": { "metadata": { "labels": { "app": "a" } }, "spec": { "containers": [] } } },
    }))
    .unwrap();
    harness.add(&pod);
    harness.add(&set);
    harness.settle();
    assert_eq!(harness.world.list::<Pod>().len(), 1);
    assert_eq!(harness.world.get::<Pod>("ns", "orphan").unwrap().metadata.owner_references.unwrap()[0].name, "set");
    harness.world.update_each::<Pod>(|pod| drop(pod.metadata.labels.take()));
    harness.settle();
    assert_eq!(harness.world.list::<Pod>().len(), 2);
    assert_eq!(
        harness.world.get::<Pod>("ns", "orphan").unwrap().metadata.owner_references.unwrap_or_default().len(),
        0
    );
}

/// The bounds, read from the Deployment itself: sizes never sum above replicas + maxSurge, and availability never
/// falls below replicas - maxUnavailable once it was reached.
fn within_bounds(world: &World) {
    let web: Deployment = world.get("ns", "web").unwrap();
    let annotation = |name: &str| web.metadata.annotations.as_ref().and_then(|all| all.get(name)?.parse::<i32>().ok());
    let (Some(surge), Some(unavailable)) = (annotation("test/surge"), annotation("test/unavailable")) else { return };
    let size = web.spec.replicas.unwrap();
    let total: i32 = world.list::<ReplicaSet>().iter().map(|set| set.spec.replicas.unwrap()).sum();
    assert!(total <= size + surge, "{total} pods are asked for, {size} + {surge} allowed");
    let ready = world.list::<Pod>().iter().filter(|pod| pod.status.is_some()).count() as i32;
    assert!(ready >= size - unavailable, "{ready} pods are ready, {size} - {unavailable} needed");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_rollout_stays_within_max_surge_and_max_unavailable(size in 1..8i32, surge in 0..4i32, unavailable in 0..4i32) {
        let mut harness = harness(&deployment(size, rolling(json!(surge), json!(unavailable))));
        harness.settle_with(make_a_pod_ready);
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable.min(size) };
        harness.world.update_each::<Deployment>(|deployment| {
            let annotations = deployment.metadata.annotations.get_or_insert_default();
            annotations.insert("test/surge".into(), surge.to_string());
            annotations.insert("test/unavailable".into(), unavailable.to_string());
        });
        harness.set_invariant(within_bounds);
        for image in ["v2", "v3"] {
            set_image(&mut harness, image);
            harness.settle_with(make_a_pod_ready);
            let status = web(&harness).status.unwrap();
            prop_assert_eq!((status.replicas, status.updated_replicas, status.ready_replicas), (Some(size), Some(size), Some(size)));
        }
    }
}
