//! The end of a namespace: delete all that lives in it, say what remains, and let it go.
//!
//! Input: a namespace that is being deleted, and live lists of every namespaced resource in it. Output: deletions of
//! whole collections, pods before everything else (KEP-5080); the five conditions, in upstream's words; and, when
//! nothing remains, the removal of the finalizer `kubernetes`. Invariant: a resource that could not be listed is not
//! taken for empty. Does not touch a namespace that is not being deleted.

mod conditions;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use reconcile::graph::{Graph, GraphChange, Served};
use reconcile::{
    Change, Controller, Failure, Input, Key, Observation, Observe, Plan, Propagation, ResourceId, Verb, Watches, Write,
};
use serde_json::Value;

use conditions::{Findings, derive_conditions};

/// The finalizer that this controller removes.
const FINALIZER: &str = "kubernetes";
/// First and longest time between looks at content that is to go.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(15);

/// The controller.
#[derive(Debug, Default)]
pub struct NamespaceController;

/// What is remembered of a namespace that is going.
#[derive(Debug, Default)]
pub struct Ending {
    looks: u32,
    /// The resource whose deletion failed last: tried last, so that it doesn't hold up the others.
    failed: Option<ResourceId>,
}

impl Controller for NamespaceController {
    type Memory = Ending;

    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn workers(&self) -> usize {
        10
    }

    fn watches<W: Watches>(&self, watches: &mut W) {
        watches.watch::<Namespace>(reconcile::controller::own_key);
        watches.watch_everything(keys);
    }

    fn plan(&self, input: &Input<'_>, ending: &mut Ending) -> Plan {
        let Some(namespace) = input.view.get::<Namespace>("", &input.key.name) else { return Plan::empty() };
        if namespace.metadata.deletion_timestamp.is_none() || !is_held(&namespace) {
            return Plan::empty();
        }
        plan_end(&namespace, input, ending)
    }
}

/// What leaves a namespace, or begins to, wakes it if it is going too.
fn keys(change: &GraphChange, graph: &Graph) -> Vec<Key> {
    let node = change.object();
    let is_leaving = node.deleting || matches!(change, Change::Deleted(_));
    if !is_leaving || node.key.namespace.is_empty() {
        return Vec::new();
    }
    let namespace = graph.find(&ResourceId::of::<Namespace>(), &Key::cluster(node.key.namespace.clone()));
    namespace.filter(|namespace| namespace.deleting).map(|namespace| namespace.key.clone()).into_iter().collect()
}

fn is_held(namespace: &Namespace) -> bool {
    namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten()).any(|finalizer| finalizer == FINALIZER)
}

fn plan_end(namespace: &Namespace, input: &Input<'_>, ending: &mut Ending) -> Plan {
    let mut plan = Plan::empty();
    if namespace.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Terminating") {
        let mut next = namespace.clone();
        next.status.get_or_insert_default().phase = Some("Terminating".to_owned());
        plan.writes.push(Write::replace_status(&next));
        return plan;
    }
    let discovery = input.view.graph().discovery();
    let content: Vec<&Served> = discovery
        .served
        .iter()
        .filter(|served| served.namespaced && served.can("list") && served.can("delete"))
        .collect();
    let wanted = content.iter().map(|served| list_of(&served.resource, &input.key.name));
    plan.observe = wanted.filter(|observe| !input.observed.contains_key(observe)).collect();
    if !plan.observe.is_empty() {
        return plan;
    }
    let mut findings = Findings::default();
    findings.discovery_failures.clone_from(&discovery.failures);
    let mut remaining = BTreeMap::new();
    for served in content {
        match input.observed.get(&list_of(&served.resource, &input.key.name)) {
            Some(Observation::Listed(items)) if !items.is_empty() => {
                findings.note(&served.resource, items);
                remaining.insert(served.resource.clone(), (served, items));
            }
            Some(Observation::Failed(reason)) => findings.errors.push(reason.clone()),
            _ => {}
        }
    }
    if let Some(failure) = input.failure {
        note_failure(failure, &mut findings, ending);
    } else {
        plan.writes = plan_deletions(&remaining, &input.key.name, ending);
    }
    finish(namespace, input, &findings, remaining.is_empty(), ending, plan)
}

fn finish(
    namespace: &Namespace,
    input: &Input<'_>,
    findings: &Findings,
    is_empty: bool,
    ending: &mut Ending,
    mut plan: Plan,
) -> Plan {
    if is_empty && findings.is_clean() {
        plan.writes.push(plan_finalize(namespace));
        return plan;
    }
    let delay = LOOK_AGAIN * 2u32.saturating_pow(ending.looks.min(16));
    ending.looks += 1;
    plan.requeue(delay.min(LOOK_AGAIN_MAX));
    // Content that has just been told to go is not "remaining" yet: say so only of what stays in spite of it.
    if plan.writes.is_empty()
        && let Some(conditions) = derive_conditions(namespace, findings, input.now)
    {
        let mut next = namespace.clone();
        next.status.get_or_insert_default().conditions = Some(conditions);
        plan.writes.push(Write::replace_status(&next));
    }
    plan.wait("ContentRemains", findings.summary());
    plan
}

fn list_of(resource: &ResourceId, namespace: &str) -> Observe {
    Observe::List { resource: resource.clone(), namespace: namespace.to_owned() }
}

fn note_failure(failure: &Failure, findings: &mut Findings, ending: &mut Ending) {
    if matches!(failure.verb, "delete" | "deletecollection") {
        findings.errors.push(failure.message.clone());
        ending.failed = Some(failure.resource.clone());
    }
}

/// Pods first and alone, then all else; the resource that failed last comes last.
fn plan_deletions(
    remaining: &BTreeMap<ResourceId, (&Served, &Vec<Value>)>,
    namespace: &str,
    ending: &Ending,
) -> Vec<Write> {
    let is_pods = |resource: &ResourceId| resource.group.is_empty() && resource.plural == "pods";
    let has_pods = remaining.keys().any(is_pods);
    let mut due: Vec<_> = remaining.iter().filter(|(resource, _)| !has_pods || is_pods(resource)).collect();
    due.sort_by_key(|(resource, _)| ending.failed.as_ref() == Some(*resource));
    due.into_iter().flat_map(|(_, (served, items))| plan_deletion(served, items, namespace)).collect()
}

fn plan_deletion(served: &Served, items: &[Value], namespace: &str) -> Vec<Write> {
    let fresh: Vec<&Value> = items.iter().filter(|item| item["metadata"]["deletionTimestamp"].is_null()).collect();
    if fresh.is_empty() {
        return Vec::new();
    }
    let write = |name: &str, verb| Write {
        resource: served.resource.clone(),
        key: Key::new(namespace, name),
        verb,
        announce: None,
    };
    if served.can("deletecollection") {
        return vec![write("", Verb::DeleteCollection { propagation: Propagation::Background })];
    }
    let one = |item: &&Value| {
        let uid = item["metadata"]["uid"].as_str().map(str::to_owned);
        let propagation = Some(Propagation::Background);
        let verb = Verb::Delete { uid, resource_version: None, propagation, grace_seconds: None };
        write(item["metadata"]["name"].as_str().unwrap_or_default(), verb)
    };
    fresh.iter().map(one).collect()
}

fn plan_finalize(namespace: &Namespace) -> Write {
    let mut next = namespace.clone();
    if let Some(finalizers) = next.spec.get_or_insert_default().finalizers.as_mut() {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    Write::replace_part(&next, "finalize")
}
