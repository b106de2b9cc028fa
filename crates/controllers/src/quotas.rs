//! ResourceQuota: what is there -> `status.hard` and `status.used` of every quota.
//!
//! Invariant: usage is lowered only on proof. Admission charges a quota in the transaction that writes the object, so a
//! quota may be seen before the object that it was charged for. A count below `used` is written only if the objects were
//! seen up to the quota's revision or a live list has nothing that was not seen; the write then holds only if nothing was
//! charged since. A count above `used` needs no proof.
//! Creations are charged already and wake nothing; the charge, and what goes or changes, does, and every quota is counted
//! anew after 5 minutes. Does not refuse anything: that is admission's (`apiserver::quotas`); what counts is `semantics::quota`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaSpec, Service};
use reconcile::cache::parse_revision;
use reconcile::graph::{Graph, GraphChange};
use reconcile::{Change, Controller, Input, Key, Object, Observation, Observe, Plan, ResourceId, View, Watches, Write};
use semantics::quota::{Item, Source, measure, measure_count, zero};
use semantics::resources::{Quantities, ResourceList};
use serde_json::Value;

/// Every quota is counted anew so often (upstream's period), in case that something was written around admission.
const RECOUNT: Duration = Duration::from_secs(300);
/// A look at what was created before admission knew of new limits.
const SETTLE: Duration = Duration::from_secs(1);
/// Time for a cache that is behind a live list.
const CATCH_UP: Duration = Duration::from_millis(100);

/// The controller.
#[derive(Debug, Default)]
pub struct ResourceQuotaController;

impl Controller for ResourceQuotaController {
    type Memory = ();

    fn name(&self) -> &'static str {
        "resourcequota-controller"
    }

    fn watches<W: Watches>(&self, watches: &mut W) {
        watches.watch_changes(quota_keys);
        watches.watch_changes(keys(Item::Pod));
        watches.watch_changes(keys(Item::Service));
        watches.watch_changes(keys(Item::Claim));
        watches.watch_everything(node_keys);
    }

    fn plan(&self, input: &Input<'_>, (): &mut ()) -> Plan {
        let Some(quota) = input.view.get_key::<ResourceQuota>(input.key) else { return Plan::empty() };
        let mut plan = Plan::empty();
        plan.requeue(RECOUNT);
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
        let used = count(&quota, &hard, input, &mut plan);
        if plan.observe.is_empty() && input.failure.is_none() {
            plan_status(&quota, hard, &used, &mut plan);
        }
        plan
    }
}

/// Usage of every name in `hard`; what cannot be counted now stays as it is.
fn count(quota: &ResourceQuota, hard: &ResourceList, input: &Input<'_>, plan: &mut Plan) -> Quantities {
    let known = Quantities::from_list(quota.status.as_ref().and_then(|status| status.used.as_ref()));
    let mut used = known.only(|name| hard.contains_key(name));
    let mut by_source: BTreeMap<Source, Vec<&str>> = BTreeMap::new();
    for name in hard.keys() {
        if let Some(source) = Source::of_name(name) {
            by_source.entry(source).or_default().push(name);
        }
    }
    for (source, names) in by_source {
        let Some(seen) = Seen::of(&source, quota, input) else { continue };
        let amount = |name: &str| seen.usage.get(name).cloned().unwrap_or_else(zero);
        let is_lower = |name: &str| known.get(name).is_none_or(|known| *known > amount(name));
        let proof = if names.iter().any(|name| is_lower(name)) { seen.proof(quota, input) } else { Proof::Given };
        match proof {
            Proof::Ask(list) => plan.observe.push(list),
            Proof::Behind(why) => {
                plan.wait("NotSeenYet", why);
                plan.requeue(CATCH_UP);
                names.iter().filter(|name| !is_lower(name)).for_each(|name| used.insert(name, amount(name)));
            }
            Proof::Given => names.iter().for_each(|name| used.insert(name, amount(name))),
        }
    }
    used
}

fn plan_status(quota: &ResourceQuota, hard: ResourceList, used: &Quantities, plan: &mut Plan) {
    let status = quota.status.as_ref();
    let is_hard =
        Quantities::from_list(status.and_then(|status| status.hard.as_ref())) == Quantities::from_list(Some(&hard));
    let is_used = Quantities::from_list(status.and_then(|status| status.used.as_ref())) == *used;
    if is_hard && is_used {
        return;
    }
    if !is_hard {
        plan.requeue(SETTLE);
    }
    let mut next = quota.clone();
    let status = next.status.get_or_insert_default();
    status.hard = Some(hard);
    status.used = Some(used.to_resource_list());
    plan.writes.push(Write::replace_status(&next));
}

/// The objects of one source in the quota's namespace, as the view has them.
struct Seen {
    resource: ResourceId,
    usage: Quantities,
    /// All changes of the resource up to this revision are in the view.
    revision: u64,
}

/// Whether the view may be trusted to show less than the quota does.
enum Proof {
    Given,
    Ask(Observe),
    Behind(String),
}

impl Seen {
    /// `None` for a resource that is not served (yet).
    fn of(source: &Source, quota: &ResourceQuota, input: &Input<'_>) -> Option<Self> {
        let nothing = ResourceQuotaSpec::default();
        let spec = quota.spec.as_ref().unwrap_or(&nothing);
        match source {
            Source::Pods => Some(Self::typed(spec, input, Item::Pod)),
            Source::Services => Some(Self::typed(spec, input, Item::Service)),
            Source::Claims => Some(Self::typed(spec, input, Item::Claim)),
            Source::Objects { group, plural } => {
                let graph = input.view.graph();
                let resource = graph.discovery().find(group, plural).map(|served| served.resource.clone())?;
                let count = graph.list_in(&resource, &input.key.namespace).len();
                Some(Self { usage: measure_count(spec, source, count), resource, revision: 0 })
            }
        }
    }

    fn typed<K: Object>(spec: &ResourceQuotaSpec, input: &Input<'_>, item: fn(Arc<K>) -> Item) -> Self {
        // Before the objects: they are at least as new.
        let revision = input.view.cache::<K>().map_or(0, |cache| cache.progress().revision);
        let items: Vec<Item> = input.view.list_in::<K>(&input.key.namespace).into_iter().map(item).collect();
        Self { resource: ResourceId::of::<K>(), usage: measure(spec, &items, input.now), revision }
    }

    fn proof(&self, quota: &ResourceQuota, input: &Input<'_>) -> Proof {
        if self.revision >= parse_revision(quota.metadata.resource_version.as_deref()) {
            return Proof::Given;
        }
        let list = Observe::List { resource: self.resource.clone(), namespace: input.key.namespace.clone() };
        let name = self.resource.group_resource();
        match input.observed.get(&list) {
            Some(Observation::Listed(items)) if items.iter().all(|item| self.has_seen(item, input)) => Proof::Given,
            Some(Observation::Listed(_)) => Proof::Behind(format!("{name} are there that the controller has not seen")),
            Some(Observation::Failed(why)) => Proof::Behind(format!("{name} cannot be listed: {why}")),
            // The resource is served no more: nothing of it is left.
            Some(Observation::Absent) => Proof::Given,
            Some(Observation::Found(_)) | None => Proof::Ask(list),
        }
    }

    /// Whether the view has this state of the object, or a later one.
    fn has_seen(&self, item: &Value, input: &Input<'_>) -> bool {
        let meta = &item["metadata"];
        let key = Key::new(input.key.namespace.clone(), meta["name"].as_str().unwrap_or_default());
        let version = match (&*self.resource.group, &*self.resource.plural) {
            ("", "pods") => version_of::<Pod>(input.view, &key),
            ("", "services") => version_of::<Service>(input.view, &key),
            ("", "persistentvolumeclaims") => version_of::<PersistentVolumeClaim>(input.view, &key),
            _ => input.view.graph().find(&self.resource, &key).map(|node| node.resource_version.clone()),
        };
        version.is_some() && parse_revision(version.as_deref()) >= parse_revision(meta["resourceVersion"].as_str())
    }
}

fn version_of<K: Object>(view: &View, key: &Key) -> Option<String> {
    view.get_key::<K>(key)?.metadata().resource_version.clone()
}

/// A quota wakes itself, also by what admission charges: the object may have come and gone before the charge is seen here.
fn quota_keys(change: &Change<ResourceQuota>, _: &View) -> Vec<Key> {
    match change {
        Change::Applied { old: Some(old), new } if old.spec == new.spec && old.status == new.status => Vec::new(),
        _ => vec![Key::of(&change.object().metadata)],
    }
}

/// What goes, or counts differently, wakes the quotas of its namespace that measure it.
fn keys<K: Object>(item: fn(Arc<K>) -> Item) -> impl Fn(&Change<K>, &View) -> Vec<Key> + Send + Sync + 'static {
    move |change, view| {
        let object = change.object();
        let quotas = view.list_in::<ResourceQuota>(object.metadata().namespace.as_deref().unwrap_or_default());
        if quotas.is_empty() || !is_recounted(change, item) {
            return Vec::new();
        }
        let source = item(object.clone()).source();
        let measures = |quota: &&Arc<ResourceQuota>| {
            quota.spec.iter().flat_map(|spec| spec.hard.iter().flatten()).any(|(name, _)| source.measures(name))
        };
        quotas.iter().filter(measures).map(|quota| Key::of(&quota.metadata)).collect()
    }
}

fn is_recounted<K: Object>(change: &Change<K>, item: fn(Arc<K>) -> Item) -> bool {
    match change {
        Change::Deleted(_) => true,
        Change::Applied { old: None, .. } => false,
        Change::Applied { old: Some(old), new } => {
            old.metadata().uid != new.metadata().uid || !item(new.clone()).counts_as(&item(old.clone()))
        }
    }
}

/// An object of a kind that is only counted wakes all quotas of its namespace when it goes.
fn node_keys(change: &GraphChange, graph: &Graph) -> Vec<Key> {
    let Change::Deleted(node) = change else { return Vec::new() };
    match Source::of_resource(&node.resource.group, &node.resource.plural) {
        Some(Source::Objects { .. }) if !node.key.namespace.is_empty() => {
            let quotas = graph.list_in(&ResourceId::of::<ResourceQuota>(), &node.key.namespace);
            quotas.iter().map(|quota| quota.key.clone()).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    /// An object may have come and gone, and its end have been seen, before the charge for it is.
    #[test]
    fn a_charge_wakes_its_quota_and_nothing_else_of_the_object_does() {
        let quota = |used: &str, label: &str| -> Arc<ResourceQuota> {
            let status = json!({"hard": {"secrets": "9"}, "used": {"secrets": used}});
            let metadata = json!({"name": "q", "namespace": "ns", "labels": {"l": label}});
            Arc::new(from_value(json!({"metadata": metadata, "status": status})).unwrap())
        };
        let woken = |old, new| quota_keys(&Change::Applied { old: Some(old), new }, &View::default());
        assert_eq!(woken(quota("1", "a"), quota("2", "a")), [Key::new("ns", "q")]);
        assert_eq!(woken(quota("1", "a"), quota("1", "b")), []);
    }
}
