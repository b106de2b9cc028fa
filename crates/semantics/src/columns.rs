//! Printer columns: an object -> the row that `kubectl get` shows, per kind as upstream prints it.
//!
//! [`columns`] are a kind's column definitions, [`row`] the cells in the same order (columns of priority above 0 are shown
//! with `-o wide`, but always sent). Kinds without columns of their own get name and creation time; kinds that are no
//! stored objects have no table at all. Pure: the time is an argument. Adding a kind is one line in [`TABLES`].

mod age;
mod cluster;
mod network;
mod pods;
mod storage;
mod workloads;

use api::kinds::Kind;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// One column definition of a `meta/v1 Table`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `date`.
    pub ty: &'static str,
    /// `name` marks the column that names the object.
    pub format: &'static str,
    /// Above 0: only with `-o wide`.
    pub priority: i32,
}

/// The cells of one object, and the row's conditions (a finished Pod is `Completed`).
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub cells: Vec<Value>,
    /// Empty for most.
    pub conditions: Vec<Value>,
}

/// A kind's own table.
struct Table {
    group: &'static str,
    kind: &'static str,
    columns: &'static [Column],
    cells: fn(&Value, Timestamp) -> Vec<Value>,
}

const fn table(
    group: &'static str,
    kind: &'static str,
    columns: &'static [Column],
    cells: fn(&Value, Timestamp) -> Vec<Value>,
) -> Table {
    Table { group, kind, columns, cells }
}

const NAME: Column = Column { name: "Name", ty: "string", format: "name", priority: 0 };

const fn text(name: &'static str) -> Column {
    Column { name, ty: "string", format: "", priority: 0 }
}

const fn wide(name: &'static str) -> Column {
    Column { name, ty: "string", format: "", priority: 1 }
}

const fn integer(name: &'static str) -> Column {
    Column { name, ty: "integer", format: "", priority: 0 }
}

static TABLES: &[Table] = &[
    table("", "ComponentStatus", cluster::COMPONENT_STATUS, cluster::component_status),
    table("", "ConfigMap", cluster::CONFIG_MAP, cluster::config_map),
    table("", "Endpoints", network::ENDPOINTS, network::endpoints),
    table("", "Event", cluster::EVENT, cluster::event),
    table("", "Namespace", cluster::NAMESPACE, cluster::namespace),
    table("", "Node", cluster::NODE, cluster::node),
    table("", "PersistentVolume", storage::VOLUME, storage::volume),
    table("", "PersistentVolumeClaim", storage::CLAIM, storage::claim),
    table("", "Pod", pods::POD, pods::pod),
    table("", "PodTemplate", workloads::POD_TEMPLATE, workloads::pod_template),
    table("", "ReplicationController", workloads::REPLICA_SET, workloads::replica_set),
    table("", "ResourceQuota", cluster::QUOTA, cluster::quota),
    table("", "Secret", cluster::SECRET, cluster::secret),
    table("", "Service", network::SERVICE, network::service),
    table("", "ServiceAccount", cluster::SERVICE_ACCOUNT, cluster::service_account),
    table("apps", "ControllerRevision", workloads::REVISION, workloads::revision),
    table("apps", "DaemonSet", workloads::DAEMON_SET, workloads::daemon_set),
    table("apps", "Deployment", workloads::DEPLOYMENT, workloads::deployment),
    table("apps", "ReplicaSet", workloads::REPLICA_SET, workloads::replica_set),
    table("apps", "StatefulSet", workloads::STATEFUL_SET, workloads::stateful_set),
    table("coordination.k8s.io", "Lease", cluster::LEASE, cluster::lease),
    table("discovery.k8s.io", "EndpointSlice", network::ENDPOINT_SLICE, network::endpoint_slice),
    table("events.k8s.io", "Event", cluster::EVENT, cluster::event),
    table("rbac.authorization.k8s.io", "ClusterRoleBinding", cluster::BINDING, cluster::binding),
    table("rbac.authorization.k8s.io", "RoleBinding", cluster::BINDING, cluster::binding),
];

const DEFAULT: &[Column] = &[NAME, Column { name: "Created At", ty: "date", format: "", priority: 0 }];

fn find(kind: &Kind) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.group == kind.group && table.kind == kind.kind)
}

/// The columns of a kind; `None` when it cannot be shown as a table (answer 406 then, with [`no_table`]).
pub fn columns(kind: &Kind) -> Option<&'static [Column]> {
    match find(kind) {
        Some(table) => Some(table.columns),
        None if kind.is_stored() => Some(DEFAULT),
        None => None,
    }
}

/// The message of the 406 for kinds without a table.
pub fn no_table(kind: &Kind) -> String {
    format!("the resource {} does not support being converted to a Table", kind.qualified_resource())
}

/// The cells of an object of this kind, one per column.
pub fn row(kind: &Kind, object: &Value, now: Timestamp) -> Row {
    let Some(table) = find(kind) else {
        let created = api::meta::creation_timestamp(object);
        // Go prints its zero time for an object that was never stored.
        let created = if created.is_empty() { "0001-01-01T00:00:00Z" } else { created };
        return Row { cells: vec![json!(api::meta::name(object)), json!(created)], conditions: Vec::new() };
    };
    let conditions = if table.kind == "Pod" { pods::conditions(object) } else { Vec::new() };
    Row { cells: (table.cells)(object, now), conditions }
}

/// `columnDefinitions` of a Table.
pub fn definitions(columns: &[Column]) -> Value {
    let definition = |column: &Column| {
        let Column { name, ty, format, priority } = column;
        json!({"name": name, "type": ty, "format": format, "description": "", "priority": priority})
    };
    columns.iter().map(definition).collect()
}

/// The text at a dotted path; empty when absent.
fn at<'v>(object: &'v Value, path: &str) -> &'v str {
    value_at(object, path).and_then(Value::as_str).unwrap_or_default()
}

fn value_at<'v>(object: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(object, |value, part| value.get(part)).filter(|value| !value.is_null())
}

/// The number at a dotted path; 0 when absent.
fn number(object: &Value, path: &str) -> i64 {
    value_at(object, path).and_then(Value::as_i64).unwrap_or_default()
}

/// The list at a dotted path; empty when absent.
fn list<'v>(object: &'v Value, path: &str) -> &'v [Value] {
    value_at(object, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn map_at<'v>(object: &'v Value, path: &str) -> Option<&'v Map<String, Value>> {
    value_at(object, path).and_then(Value::as_object)
}

/// Text, or a word when it is empty.
fn or<'t>(text: &'t str, word: &'t str) -> &'t str {
    if text.is_empty() { word } else { text }
}

fn name_of(object: &Value) -> Value {
    json!(api::meta::name(object))
}

/// `a=1,b=2`, `<none>` for no labels.
fn labels_at(object: &Value, path: &str) -> Value {
    let pairs = map_at(object, path).into_iter().flatten();
    let pairs: Vec<String> =
        pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    json!(or(&pairs.join(","), "<none>"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::kinds;

    #[test]
    fn every_row_has_a_cell_per_column() {
        let now = Timestamp::UNIX_EPOCH;
        for kind in kinds::all() {
            let Some(columns) = columns(kind) else {
                assert!(no_table(kind).ends_with("does not support being converted to a Table"));
                continue;
            };
            assert_eq!(row(kind, &json!({}), now).cells.len(), columns.len(), "{}", kind.kind);
            assert!(columns.iter().any(|column| column.format == "name"), "{}", kind.kind);
        }
        for table in TABLES {
            assert!(kinds::all().iter().any(|kind| find(kind).is_some_and(|found| std::ptr::eq(found, table))));
        }
    }

    #[test]
    fn kinds_without_columns_show_name_and_creation() {
        let role = kinds::by_kind("rbac.authorization.k8s.io", "v1", "Role").unwrap();
        let object = json!({"metadata": {"name": "r", "creationTimestamp": "2026-01-02T03:04:05Z"}});
        assert_eq!(row(role, &object, Timestamp::UNIX_EPOCH).cells, [json!("r"), json!("2026-01-02T03:04:05Z")]);
        assert_eq!(definitions(columns(role).unwrap())[1]["type"], "date");
    }
}
