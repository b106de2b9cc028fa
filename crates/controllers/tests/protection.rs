//! Protection of storage in use, against the simulated API.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use controllers::protection::{ClaimProtection, VolumeProtection};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use reconcile::Registrar as _;
use reconcile::harness::{Harness, World, check_crash_safety};
use serde_json::{Value, from_value, json};

fn claim() -> PersistentVolumeClaim {
    from_value(json!({ "metadata": { "name": "c", "namespace": "ns" }, "spec": {} })).unwrap()
}

fn pod(name: &str, node: Option<&str>, volume: &Value, phase: &str) -> Pod {
    from_value(json!({
        "metadata": { "name": name, "namespace": "ns", "uid": format!("uid-of-{name}") },
        "spec": { "nodeName": node, "containers": [], "volumes": [volume] },
        "status": { "phase": phase },
    }))
    .unwrap()
}

fn of_claim() -> Value {
    json!({ "name": "v", "persistentVolumeClaim": { "claimName": "c" } })
}

/// A claim that has its finalizer, and these pods.
fn harness(pods: &[Pod]) -> Harness {
    let mut harness = Harness::new();
    harness.register(ClaimProtection);
    harness.register(VolumeProtection);
    harness.add(&claim());
    for pod in pods {
        harness.add(pod);
    }
    harness.settle();
    harness
}

fn claims(world: &World) -> Vec<Vec<String>> {
    let of = |claim: &PersistentVolumeClaim| claim.metadata.finalizers.clone().unwrap_or_default();
    world.list::<PersistentVolumeClaim>().iter().map(of).collect()
}

fn delete_claim(harness: &mut Harness) {
    harness.world.delete::<PersistentVolumeClaim>("ns", "c", None);
    harness.settle();
}

const PROTECTED: [&str; 1] = ["kubernetes.io/pvc-protection"];

#[test]
fn a_claim_is_protected_and_goes_when_nobody_uses_it() {
    check_crash_safety(|| harness(&[]), |_| false);
    let mut harness = harness(&[]);
    assert_eq!(claims(&harness.world), [PROTECTED]);
    delete_claim(&mut harness);
    assert!(claims(&harness.world).is_empty());
}

#[test]
fn a_claim_in_use_stays_until_its_pod_is_gone() {
    fn setup() -> Harness {
        let mut harness = harness(&[pod("p", Some("n"), &of_claim(), "Succeeded")]);
        delete_claim(&mut harness);
        harness
    }
    check_crash_safety(setup, |_| false);
    let mut harness = setup();
    assert_eq!(claims(&harness.world), [PROTECTED]);
    harness.world.delete::<Pod>("ns", "p", None);
    harness.settle();
    assert!(claims(&harness.world).is_empty());
}

#[test]
fn pods_that_do_not_count() {
    let other = json!({ "name": "v", "persistentVolumeClaim": { "claimName": "other" } });
    for pod in [pod("p", None, &of_claim(), "Pending"), pod("p", Some("n"), &other, "Running")] {
        let mut harness = harness(&[pod]);
        delete_claim(&mut harness);
        assert!(claims(&harness.world).is_empty());
    }
}

#[test]
fn a_claim_made_for_a_pod_goes_when_the_pod_has_ended() {
    let volume = json!({ "name": "v", "ephemeral": {} });
    for (phase, uid, stays) in
        [("Running", "uid-of-p", true), ("Running", "other", false), ("Failed", "uid-of-p", false)]
    {
        let mut harness = Harness::new();
        harness.register(ClaimProtection);
        let mut claim = claim();
        claim.metadata.name = Some("p-v".to_owned());
        let owner = json!([{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true }]);
        claim.metadata.owner_references = from_value(owner).unwrap();
        harness.add(&claim);
        harness.add(&pod("p", Some("n"), &volume, phase));
        harness.settle();
        harness.world.delete::<PersistentVolumeClaim>("ns", "p-v", None);
        harness.settle();
        assert_eq!(!claims(&harness.world).is_empty(), stays, "{phase} {uid}");
    }
}

#[test]
fn a_volume_stays_while_it_is_bound() {
    fn setup(phase: &str) -> Harness {
        let volume: PersistentVolume =
            from_value(json!({ "metadata": { "name": "v" }, "spec": {}, "status": { "phase": phase } })).unwrap();
        let mut harness = Harness::new();
        harness.register(VolumeProtection);
        harness.add(&volume);
        harness.settle();
        harness.world.delete::<PersistentVolume>("", "v", None);
        harness.settle();
        harness
    }
    check_crash_safety(|| setup("Bound"), |_| false);
    let mut harness = setup("Bound");
    let left = harness.world.list::<PersistentVolume>();
    assert_eq!(left[0].metadata.finalizers.clone().unwrap(), ["kubernetes.io/pv-protection"]);
    harness.world.update_each::<PersistentVolume>(|volume| {
        volume.status.get_or_insert_default().phase = Some("Released".to_owned());
    });
    harness.settle();
    assert!(harness.world.list::<PersistentVolume>().is_empty());
    assert!(setup("Available").world.list::<PersistentVolume>().is_empty());
}
