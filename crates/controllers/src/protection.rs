//! Storage in use is not deleted: claims and volumes -> their finalizers, put on while they live and taken off once they are
//! to go and nobody uses them.
//!
//! Invariants: a claim keeps its finalizer while a scheduled pod has it as a volume (the scheduler places no pod on a claim
//! that is to go), a volume while it is bound. That no pod uses a claim is believed only if a live read shows no other
//! pods than the cached ones. Does not delete anything. Source: the storage object in use protection of the API.

use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::{Controller, Input, Key, Object, Observation, Observe, Plan, ResourceId, Watches, Write};
use semantics::object_meta::{CLAIM_PROTECTION, VOLUME_PROTECTION};

/// When the cache of pods lags behind what a live read shows, or the API could not be asked.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Keys are claims.
#[derive(Debug, Default)]
pub struct ClaimProtection;

impl Controller for ClaimProtection {
    type Memory = ();

    fn name(&self) -> &'static str {
        "pvc-protection-controller"
    }

    fn watches<W: Watches>(&self, watches: &mut W) {
        watches.watch::<PersistentVolumeClaim>(reconcile::controller::own_key);
        watches.watch::<Pod>(|pod, _| used_claims(pod));
    }

    fn plan(&self, input: &Input<'_>, (): &mut ()) -> Plan {
        let Some(claim) = input.view.get::<PersistentVolumeClaim>(&input.key.namespace, &input.key.name) else {
            return Plan::empty();
        };
        match decide(&claim.metadata, CLAIM_PROTECTION) {
            Decision::Nothing => Plan::empty(),
            Decision::Protect => write(with_finalizer(&*claim, CLAIM_PROTECTION)),
            Decision::Release => plan_release(&claim, input),
        }
    }
}

fn plan_release(claim: &PersistentVolumeClaim, input: &Input<'_>) -> Plan {
    let mut plan = Plan::empty();
    let pods = input.view.list_in::<Pod>(&input.key.namespace);
    if let Some(pod) = pods.iter().find(|pod| is_user(pod, claim)) {
        let pod = pod.metadata.name.as_deref().unwrap_or_default();
        plan.wait("ClaimInUse", format!("pod {pod} uses the claim"));
        return plan;
    }
    let live = Observe::List { resource: ResourceId::of::<Pod>(), namespace: input.key.namespace.clone() };
    match input.observed.get(&live) {
        None => plan.observe.push(live),
        Some(Observation::Listed(listed)) if listed.iter().all(|pod| is_cached(pod, input)) => {
            return write(without_finalizer(claim, CLAIM_PROTECTION));
        }
        Some(_) => {
            plan.wait("PodsUnknown", "whether a pod uses the claim is not known yet");
            plan.requeue(LOOK_AGAIN);
        }
    }
    plan
}

/// Whether the cache has this very state of the pod, given its metadata.
fn is_cached(pod: &serde_json::Value, input: &Input<'_>) -> bool {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let cached = input.view.get::<Pod>(&input.key.namespace, name);
    cached.is_some_and(|cached| {
        cached.metadata.resource_version.as_deref() == pod["metadata"]["resourceVersion"].as_str()
    })
}

/// A pod that ran out no longer uses the claims that were made for it; others stay with it until it is gone.
fn is_user(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let Some(spec) = pod.spec.as_ref().filter(|spec| spec.node_name.as_ref().is_some_and(|node| !node.is_empty()))
    else {
        return false;
    };
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let made_for = reconcile::controller_of(&claim.metadata).map(|owner| &owner.uid) == pod.metadata.uid.as_ref();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let ended = matches!(phase, Some("Succeeded" | "Failed"));
    spec.volumes.iter().flatten().any(|volume| match &volume.persistent_volume_claim {
        Some(source) => source.claim_name == name,
        None => !ended && made_for && made_claim(pod, volume).as_deref() == Some(name),
    })
}

/// The claim that is made for an ephemeral volume of the pod.
fn made_claim(pod: &Pod, volume: &Volume) -> Option<String> {
    volume.ephemeral.as_ref()?;
    Some(format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name))
}

fn used_claims(pod: &Pod) -> Vec<Key> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let name = |volume: &Volume| {
        let source = volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone());
        source.or_else(|| made_claim(pod, volume))
    };
    volumes.filter_map(name).map(|name| Key::new(namespace, name)).collect()
}

/// Keys are volumes.
#[derive(Debug, Default)]
pub struct VolumeProtection;

impl Controller for VolumeProtection {
    type Memory = ();

    fn name(&self) -> &'static str {
        "pv-protection-controller"
    }

    fn watches<W: Watches>(&self, watches: &mut W) {
        watches.watch::<PersistentVolume>(reconcile::controller::own_key);
    }

    fn plan(&self, input: &Input<'_>, (): &mut ()) -> Plan {
        let Some(volume) = input.view.get::<PersistentVolume>("", &input.key.name) else { return Plan::empty() };
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        match decide(&volume.metadata, VOLUME_PROTECTION) {
            Decision::Nothing => Plan::empty(),
            Decision::Protect => write(with_finalizer(&*volume, VOLUME_PROTECTION)),
            Decision::Release if phase == Some("Bound") => {
                let mut plan = Plan::empty();
                plan.wait("VolumeBound", "a claim is bound to the volume");
                plan
            }
            Decision::Release => write(without_finalizer(&*volume, VOLUME_PROTECTION)),
        }
    }
}

/// What an object's life asks for.
enum Decision {
    Nothing,
    Protect,
    /// If it isn't used.
    Release,
}

fn decide(metadata: &ObjectMeta, finalizer: &str) -> Decision {
    let protected = metadata.finalizers.iter().flatten().any(|name| name == finalizer);
    match (metadata.deletion_timestamp.is_some(), protected) {
        (false, false) => Decision::Protect,
        (true, true) => Decision::Release,
        _ => Decision::Nothing,
    }
}

fn with_finalizer<K: Object>(object: &K, finalizer: &str) -> K {
    let mut object = object.clone();
    object.metadata_mut().finalizers.get_or_insert_default().push(finalizer.to_owned());
    object
}

fn without_finalizer<K: Object>(object: &K, finalizer: &str) -> K {
    let mut object = object.clone();
    if let Some(finalizers) = &mut object.metadata_mut().finalizers {
        finalizers.retain(|name| name != finalizer);
    }
    object
}

fn write<K: Object>(object: K) -> Plan {
    Plan { writes: vec![Write::replace(&object)], ..Plan::empty() }
}
