//! Garbage collection: delete what no owner holds any more, and carry out foreground and orphan deletion.
//!
//! Input: one object's UID and the owner graph. Output: at most one deletion or a few patches of owner references and
//! finalizers. Invariants: nothing is deleted while an owner may exist: an owner that the graph lacks is asked for live,
//! and "could not ask" is not "absent"; every write names the UID it means. Does not delete what has no owners.
//!
//! | the object | what happens |
//! |---|---|
//! | is being deleted, has the finalizer `orphan` | its dependents lose it as an owner, then the finalizer goes |
//! | is being deleted, has the finalizer `foregroundDeletion` | the finalizer goes once no dependent blocks |
//! | has an owner that exists | references to owners that don't, or that wait for it, are removed |
//! | all owners are gone or wait for it | it is deleted |

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use reconcile::graph::{Discovery, FOREGROUND_FINALIZER, Graph, GraphChange, Node, ORPHAN_FINALIZER, Served};
use reconcile::{
    Change, Controller, Input, Key, Observation, Observe, PatchKind, Plan, Propagation, Verb, Watches, Write,
};
use serde_json::{Value, json};

/// How long to wait before asking again about an owner of an unknown kind, or one that could not be asked for.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// The controller. Its keys are UIDs.
#[derive(Debug, Default)]
pub struct GarbageCollector;

impl Controller for GarbageCollector {
    type Memory = ();

    fn name(&self) -> &'static str {
        "garbage-collector-controller"
    }

    fn workers(&self) -> usize {
        20
    }

    fn watches<W: Watches>(&self, watches: &mut W) {
        watches.watch_everything(keys);
    }

    fn plan(&self, input: &Input<'_>, (): &mut ()) -> Plan {
        let graph = input.view.graph();
        let Some(node) = graph.node(&input.key.name) else { return Plan::empty() };
        if node.is_orphaning() {
            plan_orphaning(&node, graph)
        } else if node.is_deleting_dependents() {
            plan_foreground(&node, graph)
        } else if node.deleting || node.owners.is_empty() {
            Plan::empty()
        } else {
            plan_owned(&node, graph, input)
        }
    }
}

/// Who may be concerned: the object, its dependents when its end comes nearer, and owners that wait for it.
fn keys(change: &GraphChange, graph: &Graph) -> Vec<Key> {
    let (node, gone) = match change {
        Change::Applied { old: Some(old), new } if is_same_for_us(old, new) => return Vec::new(),
        Change::Applied { new, .. } => (new, false),
        Change::Deleted(last) => (last, true),
    };
    let mut uids = Vec::new();
    if !gone && (node.deleting || !node.owners.is_empty()) {
        uids.push(node.uid.clone());
    }
    if gone || node.deleting {
        uids.extend(graph.dependents(&node.uid).iter().map(|dependent| dependent.uid.clone()));
    }
    let owners = change.states().flat_map(|state| &state.owners);
    let waiting = owners.filter(|owner| graph.node(&owner.uid).is_some_and(|owner| owner.deleting));
    uids.extend(waiting.map(|owner| owner.uid.clone()));
    uids.into_iter().map(Key::cluster).collect()
}

fn is_same_for_us(old: &Node, new: &Node) -> bool {
    old.owners == new.owners && old.finalizers == new.finalizers && old.deleting == new.deleting
}

fn plan_orphaning(node: &Node, graph: &Graph) -> Plan {
    let mut plan = Plan::empty();
    let dependents = graph.dependents(&node.uid);
    plan.writes = dependents.iter().map(|dependent| keep_owners(dependent, |owner| owner.uid != node.uid)).collect();
    plan.writes.push(drop_finalizer(node, ORPHAN_FINALIZER));
    plan
}

fn plan_foreground(node: &Node, graph: &Graph) -> Plan {
    let mut plan = Plan::empty();
    let dependents = graph.dependents(&node.uid);
    let blocking = dependents.iter().filter(|dependent| dependent.blocks(&node.uid)).count();
    if blocking == 0 {
        plan.writes.push(drop_finalizer(node, FOREGROUND_FINALIZER));
    } else {
        plan.wait("DependentsRemain", format!("{blocking} dependents block the deletion"));
    }
    plan
}

/// What an owner reference leads to.
#[derive(Debug, PartialEq)]
enum Owner {
    /// It exists: it holds the object.
    Solid,
    /// It is being deleted and waits for its dependents.
    Waiting,
    /// It doesn't exist.
    Dangling,
    /// Only a live read can tell.
    Ask(Observe),
    /// It can't be told now; the reason.
    Unknown(String),
}

fn plan_owned(node: &Node, graph: &Graph, input: &Input<'_>) -> Plan {
    let mut plan = Plan::empty();
    let discovery = graph.discovery();
    let owners: Vec<(&OwnerReference, Owner)> =
        node.owners.iter().map(|owner| (owner, decide_owner(node, owner, graph, &discovery, input))).collect();
    for (_, owner) in &owners {
        match owner {
            Owner::Ask(observe) => plan.observe.push(observe.clone()),
            Owner::Unknown(reason) => {
                plan.wait("OwnerUnknown", reason.clone());
                plan.requeue(ASK_AGAIN);
            }
            _ => {}
        }
    }
    let has = |wanted: &Owner| owners.iter().any(|(_, owner)| owner == wanted);
    if !plan.observe.is_empty() || owners.iter().any(|(_, owner)| matches!(owner, Owner::Unknown(_))) {
        return plan;
    }
    if has(&Owner::Solid) {
        if has(&Owner::Dangling) || has(&Owner::Waiting) {
            let solid =
                |owner: &OwnerReference| owners.iter().any(|(known, kind)| *known == owner && *kind == Owner::Solid);
            plan.writes.push(keep_owners(node, solid));
        }
        return plan;
    }
    let dependents = graph.dependents(&node.uid);
    if has(&Owner::Waiting) && !dependents.is_empty() {
        plan_foreground_deletion(node, &dependents, &mut plan);
    } else {
        plan.writes.push(delete(node, default_propagation(node), true));
    }
    plan
}

/// The owner waits for this object, which has dependents of its own: delete it in the foreground too. In a circle, one
/// of those is among the owners that wait; nobody would ever go first, so this object stops blocking its owners.
fn plan_foreground_deletion(node: &Node, dependents: &[Arc<Node>], plan: &mut Plan) {
    let in_circle = dependents.iter().any(|dependent| dependent.is_deleting_dependents());
    if in_circle && node.owners.iter().any(|owner| owner.block_owner_deletion == Some(true)) {
        let unblocked =
            node.owners.iter().cloned().map(|owner| OwnerReference { block_owner_deletion: Some(false), ..owner });
        plan.writes.push(set_owners(node, unblocked.collect()));
    }
    let guarded = plan.writes.is_empty();
    plan.writes.push(delete(node, Propagation::Foreground, guarded));
}

fn decide_owner(node: &Node, owner: &OwnerReference, graph: &Graph, discovery: &Discovery, input: &Input<'_>) -> Owner {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    let of_kind = |served: &&Served| served.resource.group == group && served.resource.kind == owner.kind;
    let Some(served) = discovery.served.iter().find(of_kind) else {
        return Owner::Unknown(format!("no kind {:?} is served in {:?}", owner.kind, owner.api_version));
    };
    if served.namespaced && node.key.namespace.is_empty() {
        return Owner::Unknown(format!(
            "cluster-scoped objects can't have the namespaced owner {} {:?}",
            owner.kind, owner.name
        ));
    }
    let namespace = if served.namespaced { node.key.namespace.as_str() } else { "" };
    let key = Key::new(namespace, owner.name.clone());
    if let Some(known) = graph.node(&owner.uid)
        && known.key == key
        && known.resource.group == served.resource.group
        && known.resource.kind == served.resource.kind
    {
        return if known.is_deleting_dependents() { Owner::Waiting } else { Owner::Solid };
    }
    let observe = Observe::Get { resource: served.resource.clone(), key };
    match input.observed.get(&observe) {
        None => Owner::Ask(observe),
        Some(Observation::Absent) => Owner::Dangling,
        Some(Observation::Found(object)) if object["metadata"]["uid"].as_str() != Some(&owner.uid) => Owner::Dangling,
        Some(Observation::Found(object)) if is_deleting_dependents(object) => Owner::Waiting,
        Some(Observation::Found(_)) => Owner::Solid,
        Some(Observation::Failed(reason)) => Owner::Unknown(reason.clone()),
        Some(Observation::Listed(_)) => Owner::Unknown("a list answered a get".to_owned()),
    }
}

fn is_deleting_dependents(object: &Value) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array();
    let foreground = finalizers.is_some_and(|all| all.iter().any(|finalizer| finalizer == FOREGROUND_FINALIZER));
    foreground && !object["metadata"]["deletionTimestamp"].is_null()
}

/// The policy that the object's own finalizers ask for.
fn default_propagation(node: &Node) -> Propagation {
    if node.has_finalizer(ORPHAN_FINALIZER) {
        Propagation::Orphan
    } else if node.has_finalizer(FOREGROUND_FINALIZER) {
        Propagation::Foreground
    } else {
        Propagation::Background
    }
}

/// Deletes the object; `guarded` means: only if it is still as it was seen, so that an adoption in between saves it.
fn delete(node: &Node, propagation: Propagation, guarded: bool) -> Write {
    let verb = Verb::Delete {
        uid: Some(node.uid.clone()),
        resource_version: guarded.then(|| node.resource_version.clone()),
        propagation: Some(propagation),
        grace_seconds: None,
    };
    Write { resource: node.resource.clone(), key: node.key.clone(), verb, announce: None }
}

fn keep_owners(node: &Node, keep: impl Fn(&OwnerReference) -> bool) -> Write {
    set_owners(node, node.owners.iter().filter(|owner| keep(owner)).cloned().collect())
}

fn set_owners(node: &Node, owners: Vec<OwnerReference>) -> Write {
    patch(node, "ownerReferences", json!(owners))
}

fn drop_finalizer(node: &Node, finalizer: &str) -> Write {
    let kept: Vec<&String> = node.finalizers.iter().filter(|name| *name != finalizer).collect();
    patch(node, "finalizers", json!(kept))
}

/// Sets a list of the metadata, if the object is still as it was seen.
fn patch(node: &Node, field: &str, list: Value) -> Write {
    let body = json!({ "metadata": { "uid": node.uid, "resourceVersion": node.resource_version, field: list } });
    let verb = Verb::Patch { body, kind: PatchKind::Merge, subresource: None };
    Write { resource: node.resource.clone(), key: node.key.clone(), verb, announce: None }
}
