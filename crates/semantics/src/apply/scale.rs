//! Who owns the replicas of an object, seen from its Scale and back.
//!
//! ```text
//!   parent --lend--> scale --track, apply--> scale --take back--> parent
//! ```
//! Owners keep their name, operation and subresource on the way; the API version is that of the object they stand in.
//! A change of the scale leaves no time in the parent, as upstream's leaves none. Unlike upstream, an owner of more than
//! the replicas stays one entry.

use serde_json::Value;

use super::field_set::{FieldSet, field_element};
use super::managers::{Manager, Managers};

const SCALE_VERSION: &str = "autoscaling/v1";

fn replicas() -> FieldSet {
    let mut set = FieldSet::default();
    set.insert(&[field_element("spec"), field_element("replicas")]);
    set
}

fn owns_replicas(manager: &Manager) -> bool {
    !manager.fields.intersection(&replicas()).is_empty()
}

fn lent(manager: &Manager) -> Manager {
    Manager { api_version: SCALE_VERSION.to_owned(), fields: replicas(), ..manager.clone() }
}

/// Gives the Scale of `parent` the owners of the replicas.
pub fn lend_managers(parent: &Value, scale: &mut Value) {
    let owners = Managers::of(parent).into_iter().filter(owns_replicas);
    owners.map(|manager| lent(&manager)).collect::<Managers>().write_to(scale);
}

/// Brings the owners back into `parent`, an object of `api_version`, after the Scale was changed.
pub fn take_back_managers(parent: &mut Value, api_version: &str, scale: &Value) {
    let mut changed: Vec<Manager> = Managers::of(scale).into_iter().filter(owns_replicas).collect();
    let mut managers: Vec<Manager> = Vec::new();
    for mut manager in Managers::of(parent) {
        if owns_replicas(&manager) {
            let before = changed.len();
            let same = lent(&manager);
            changed.retain(|other| !other.is(&same));
            if changed.len() == before {
                manager.fields = manager.fields.difference(&replicas());
            }
        }
        managers.push(manager);
    }
    let new = |manager: Manager| Manager { api_version: api_version.to_owned(), time: String::new(), ..manager };
    managers.extend(changed.into_iter().map(new));
    managers.into_iter().filter(|manager| !manager.fields.is_empty()).collect::<Managers>().write_to(parent);
}

#[cfg(test)]
mod tests {
    use super::super::{ApplyError, Configuration, Writer, apply, track};
    use super::*;
    use serde_json::json;

    fn entry(manager: &str, operation: &str, fields: Value) -> Value {
        json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1", "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    /// A Deployment with three replicas, which `maker` wrote.
    fn parent() -> Value {
        let fields = json!({"f:spec": {"f:replicas": {}, "f:paused": {}}});
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 3, "paused": true},
            "metadata": {"name": "d", "managedFields": [entry("maker", "Update", fields)]}})
    }

    fn scale_of(parent: &Value) -> Value {
        let mut scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"},
            "spec": {"replicas": parent["spec"]["replicas"]}});
        lend_managers(parent, &mut scale);
        scale
    }

    fn writer(manager: &str) -> Writer<'_> {
        Writer {
            manager,
            api_version: SCALE_VERSION,
            subresource: "scale",
            now: "2026-01-02T00:00:00Z".parse().unwrap(),
            message: api::schema::by_kind("autoscaling", "v1", "Scale"),
            reset: Vec::new(),
        }
    }

    fn applied(manager: &str, replicas: i64, force: bool) -> Result<Value, ApplyError> {
        let mut parent = parent();
        let config = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": replicas}});
        let config = Configuration { sent: &config, decoded: &config };
        let scale = apply(&writer(manager), Some(&scale_of(&parent)), config, force)?;
        parent["spec"]["replicas"] = scale["spec"]["replicas"].clone();
        take_back_managers(&mut parent, "apps/v1", &scale);
        Ok(parent)
    }

    fn owners(parent: &Value) -> Vec<String> {
        let entries = parent["metadata"]["managedFields"].as_array().unwrap().iter();
        let line = |e: &Value| format!("{} {} {} {}", e["manager"], e["operation"], e["subresource"], e["fieldsV1"]);
        entries.map(line).map(|line| line.replace('"', "")).collect()
    }

    #[test]
    fn an_owner_of_the_parents_replicas_is_in_the_way() {
        let error = applied("hpa", 5, false).unwrap_err();
        let expect = "Apply failed with 1 conflict: conflict with \"maker\" using autoscaling/v1: .spec.replicas";
        assert_eq!(error.to_string(), expect);
    }

    #[test]
    fn with_force_the_owner_changes() {
        let parent = applied("hpa", 5, true).unwrap();
        assert_eq!(
            owners(&parent),
            ["hpa Apply scale {f:spec:{f:replicas:{}}}", "maker Update null {f:spec:{f:paused:{}}}"]
        );
        assert!(parent["metadata"]["managedFields"][0]["time"].is_null());
        assert_eq!(parent["metadata"]["managedFields"][0]["apiVersion"], "apps/v1");
    }

    #[test]
    fn who_wants_the_same_shares() {
        let parent = applied("hpa", 3, false).unwrap();
        assert_eq!(
            owners(&parent),
            ["hpa Apply scale {f:spec:{f:replicas:{}}}", "maker Update null {f:spec:{f:paused:{},f:replicas:{}}}"]
        );
    }

    #[test]
    fn an_update_takes_the_replicas() {
        let mut parent = parent();
        let live = scale_of(&parent);
        let mut scale = live.clone();
        scale["spec"]["replicas"] = json!(4);
        track(&writer("putter"), &mut scale, Some(&live));
        take_back_managers(&mut parent, "apps/v1", &scale);
        assert_eq!(
            owners(&parent),
            ["putter Update scale {f:spec:{f:replicas:{}}}", "maker Update null {f:spec:{f:paused:{}}}"]
        );
    }
}
