//! A simulated API: objects as JSON, with UIDs, resource versions, generations, preconditions, finalizers, `status`
//! apart from the rest, and the patches that planners use.
//!
//! Invariant: what a planner may rely on holds as in the real API: a stale write is a Conflict, a taken name is
//! AlreadyExists, an object with finalizers stays until they are gone. Does not validate or default.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use crate::controller::Failure;
use crate::object::{Key, Object, ResourceId};
use crate::plan::{Observation, Observe, PatchKind, Propagation, Verb, Write, to_value};

/// See the module's text.
#[derive(Debug, Clone)]
pub struct World {
    /// The time that the API stamps on objects.
    pub now: Timestamp,
    objects: BTreeMap<(ResourceId, Key), Value>,
    revision: u64,
    named: u64,
    /// Creations of these resources (plural) are refused, as by a quota.
    pub refused: Vec<&'static str>,
}

type Place = (ResourceId, Key);

impl World {
    pub fn new(now: Timestamp) -> Self {
        Self { now, objects: BTreeMap::new(), revision: 0, named: 0, refused: Vec::new() }
    }

    /// Puts an object in, status included.
    pub fn add<K: Object>(&mut self, object: &K) {
        self.create(ResourceId::of::<K>(), Key::of(object.metadata()), to_value(object), true).ok();
    }

    pub fn get<K: Object>(&self, namespace: &str, name: &str) -> Option<K> {
        let value = self.objects.get(&(ResourceId::of::<K>(), Key::new(namespace, name)))?;
        serde_json::from_value(value.clone()).ok()
    }

    pub fn list<K: Object>(&self) -> Vec<K> {
        let resource = ResourceId::of::<K>();
        let values = self.objects.iter().filter(|((of, _), _)| *of == resource).map(|(_, value)| value.clone());
        values
            .map(|value| serde_json::from_value(value).unwrap_or_else(|error| panic!("{resource:?}: {error}")))
            .collect()
    }

    /// Changes objects as another component would (status, spec, anything). Returns how many changed.
    pub fn update_each<K: Object>(&mut self, mut change: impl FnMut(&mut K)) -> usize {
        let mut changed = 0;
        for mut object in self.list::<K>() {
            let before = to_value(&object);
            change(&mut object);
            let after = to_value(&object);
            if after != before {
                changed += 1;
                let place = (ResourceId::of::<K>(), Key::of(object.metadata()));
                let spec_changed = before.get("spec") != after.get("spec");
                self.put(place, after, spec_changed);
            }
        }
        changed
    }

    /// Deletes as a user would.
    pub fn delete<K: Object>(&mut self, namespace: &str, name: &str, propagation: Option<Propagation>) {
        self.delete_at(&(ResourceId::of::<K>(), Key::new(namespace, name)), propagation);
    }

    pub fn apply(&mut self, write: &Write) -> Result<(), Box<Failure>> {
        let place = (write.resource.clone(), write.key.clone());
        let outcome = match &write.verb {
            Verb::Create { object } => self.create(place.0, place.1, object.clone(), false),
            Verb::Replace { object, subresource } => self.replace(place, object, *subresource),
            Verb::Patch { body, kind, subresource } => self.patch(place, body, *kind, *subresource),
            Verb::Delete { uid, resource_version, propagation, .. } => {
                self.guarded_delete(&place, uid.as_deref(), resource_version.as_deref(), *propagation)
            }
            Verb::DeleteCollection { propagation } => {
                let of = |(resource, key): &&Place| *resource == write.resource && key.namespace == write.key.namespace;
                let places: Vec<Place> = self.objects.keys().filter(of).cloned().collect();
                places.iter().for_each(|place| self.delete_at(place, Some(*propagation)));
                Ok(())
            }
        };
        outcome.map_err(|reason| Box::new(self.failure(write, reason)))
    }

    /// The object as JSON.
    pub fn find(&self, resource: &ResourceId, key: &Key) -> Option<&Value> {
        self.objects.get(&(resource.clone(), key.clone()))
    }

    /// All objects of a resource as JSON.
    pub fn all(&self, resource: &ResourceId) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |((of, _), _)| of == resource).map(|(_, object)| object)
    }

    /// The resource version of the newest change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn observe(&self, wanted: &Observe) -> Observation {
        match wanted {
            Observe::Get { resource, key } => {
                let found = self.objects.get(&(resource.clone(), key.clone()));
                found.map_or(Observation::Absent, |value| Observation::Found(value.clone()))
            }
            Observe::List { resource, namespace } => {
                let of = self.objects.iter().filter(|((of, key), _)| of == resource && key.namespace == *namespace);
                Observation::Listed(of.map(|(_, value)| value.clone()).collect())
            }
        }
    }

    pub fn metadata(&self) -> Vec<(ResourceId, ObjectMeta)> {
        let meta = |value: &Value| serde_json::from_value(value["metadata"].clone()).unwrap_or_default();
        self.objects.iter().map(|((resource, _), value)| (resource.clone(), meta(value))).collect()
    }

    /// All objects without what the API made up: for comparing end states. Sorted.
    pub fn summary(&self) -> Vec<Value> {
        let mut all: Vec<Value> = self.objects.values().cloned().map(forget_made_up).collect();
        all.sort_by_key(Value::to_string);
        all
    }

    fn create(
        &mut self,
        resource: ResourceId,
        mut key: Key,
        mut object: Value,
        with_status: bool,
    ) -> Result<(), &'static str> {
        if self.refused.contains(&&*resource.plural) && !with_status {
            return Err("Forbidden");
        }
        if key.name.is_empty()
            && let Some(name) = object["metadata"]["name"].as_str()
        {
            key.name = name.to_owned();
        }
        if key.name.is_empty() {
            self.named += 1;
            key.name = format!("{}{:05}", object["metadata"]["generateName"].as_str().unwrap_or_default(), self.named);
            object["metadata"]["name"] = json!(key.name);
        }
        let place = (resource, key);
        if self.objects.contains_key(&place) {
            return Err("AlreadyExists");
        }
        if !with_status && let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.revision + 1));
        }
        if object["metadata"]["creationTimestamp"].is_null() {
            object["metadata"]["creationTimestamp"] = json!(semantic_time(self.now));
        }
        object["metadata"]["generation"] = json!(1);
        self.put(place, object, false);
        Ok(())
    }

    fn replace(&mut self, place: Place, object: &Value, subresource: Option<&str>) -> Result<(), &'static str> {
        let current = self.objects.get(&place).ok_or("NotFound")?;
        if object["metadata"]["resourceVersion"] != current["metadata"]["resourceVersion"] {
            return Err("Conflict");
        }
        let mut next = object.clone();
        match subresource {
            Some("status") => {
                next = current.clone();
                next["status"] = object["status"].clone();
            }
            Some(_) => {}
            None => next["status"] = current["status"].clone(),
        }
        let spec_changed = next["spec"] != current["spec"];
        self.put(place, next, spec_changed);
        Ok(())
    }

    fn patch(
        &mut self,
        place: Place,
        body: &Value,
        kind: PatchKind,
        subresource: Option<&str>,
    ) -> Result<(), &'static str> {
        let current = self.objects.get(&place).ok_or("NotFound")?;
        for guard in ["uid", "resourceVersion"] {
            let wanted = &body["metadata"][guard];
            if !wanted.is_null() && *wanted != current["metadata"][guard] {
                return Err("Conflict");
            }
        }
        let mut next = current.clone();
        merge(&mut next, body, kind == PatchKind::StrategicMerge);
        if subresource.is_none() {
            next["status"] = current["status"].clone();
        }
        let spec_changed = next["spec"] != current["spec"];
        self.put(place, next, spec_changed);
        Ok(())
    }

    fn guarded_delete(
        &mut self,
        place: &Place,
        uid: Option<&str>,
        version: Option<&str>,
        propagation: Option<Propagation>,
    ) -> Result<(), &'static str> {
        let Some(current) = self.objects.get(place) else { return Ok(()) };
        let meta = &current["metadata"];
        if uid.is_some_and(|uid| meta["uid"] != uid) {
            return Ok(());
        }
        if version.is_some_and(|version| meta["resourceVersion"] != version) {
            return Err("Conflict");
        }
        self.delete_at(place, propagation);
        Ok(())
    }

    fn delete_at(&mut self, place: &Place, propagation: Option<Propagation>) {
        let Some(mut object) = self.objects.get(place).cloned() else { return };
        let mut finalizers: Vec<Value> = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let added = match propagation {
            Some(Propagation::Foreground) => Some("foregroundDeletion"),
            Some(Propagation::Orphan) => Some("orphan"),
            _ => None,
        };
        if let Some(added) = added.filter(|added| !finalizers.contains(&json!(added))) {
            finalizers.push(json!(added));
        }
        // A namespace stays until it has been finalized.
        let held = object["spec"]["finalizers"].as_array().is_some_and(|held| !held.is_empty());
        if finalizers.is_empty() && !held {
            self.revision += 1;
            self.objects.remove(place);
            return;
        }
        object["metadata"]["finalizers"] = json!(finalizers);
        if object["metadata"]["deletionTimestamp"].is_null() {
            object["metadata"]["deletionTimestamp"] = json!(semantic_time(self.now));
        }
        if held {
            object["status"]["phase"] = json!("Terminating");
        }
        self.put(place.clone(), object, true);
    }

    /// Stores an object; one that changed gets the next resource version, one that is through with its end goes.
    fn put(&mut self, place: Place, mut object: Value, spec_changed: bool) {
        prune(&mut object);
        if self.objects.get(&place) == Some(&object) {
            return;
        }
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        if spec_changed {
            object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
        let meta = &object["metadata"];
        if !meta["deletionTimestamp"].is_null() && empty(&meta["finalizers"]) && empty(&object["spec"]["finalizers"]) {
            self.objects.remove(&place);
        } else {
            self.objects.insert(place, object);
        }
    }

    fn failure(&self, write: &Write, reason: &str) -> Failure {
        let verb = match &write.verb {
            Verb::Create { .. } => "create",
            Verb::Replace { .. } => "update",
            Verb::Patch { .. } => "patch",
            Verb::Delete { .. } => "delete",
            Verb::DeleteCollection { .. } => "deletecollection",
        };
        let message = format!("{} {:?} was refused: {reason}", write.resource.group_resource(), write.key.name);
        Failure { verb, resource: write.resource.clone(), key: write.key.clone(), reason: reason.to_owned(), message }
    }
}

fn semantic_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Drops nulls, as the API does.
fn prune(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|_, value| !value.is_null());
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

/// A merge patch; strategic ones merge lists of objects by `uid` or `type` and honour `$patch: delete`.
fn merge(target: &mut Value, patch: &Value, strategic: bool) {
    let (Value::Object(_), Value::Object(changes)) = (&*target, patch) else {
        *target = patch.clone();
        return;
    };
    for (name, change) in changes {
        let current = &mut target[name.as_str()];
        match change {
            Value::Null => *current = Value::Null,
            Value::Object(_) => {
                if !current.is_object() {
                    *current = Value::Object(Map::new());
                }
                merge(current, change, strategic);
            }
            Value::Array(items) if strategic && items.iter().all(Value::is_object) => merge_list(current, items),
            _ => *current = change.clone(),
        }
    }
}

fn merge_list(current: &mut Value, changes: &[Value]) {
    let mut items = current.as_array().cloned().unwrap_or_default();
    for change in changes {
        let key = if change["uid"].is_null() { "type" } else { "uid" };
        items.retain(|item| item[key] != change[key]);
        if change["$patch"].is_null() {
            items.push(change.clone());
        }
    }
    *current = Value::Array(items);
}

fn forget_made_up(mut object: Value) -> Value {
    if object["metadata"]["generateName"].is_string() {
        object["metadata"]["name"] = Value::Null;
    }
    for field in ["uid", "resourceVersion", "generation", "creationTimestamp"] {
        object["metadata"][field] = Value::Null;
    }
    if let Some(owners) = object["metadata"]["ownerReferences"].as_array_mut() {
        owners.iter_mut().for_each(|owner| owner["uid"] = Value::Null);
    }
    if object["status"].is_object() {
        object["status"]["observedGeneration"] = Value::Null;
        // Conditions are a map by type; their order says nothing.
        if let Some(conditions) = object["status"]["conditions"].as_array_mut() {
            conditions.sort_by_key(|condition| condition["type"].to_string());
        }
    }
    prune(&mut object);
    object
}
