//! Roles and bindings compiled for look-up by subject.
//!
//! In: the four kinds through [`Reader`]. Out: [`Tables`]: for a user or group, the grants with their rules.
//!
//! Invariants: a table is immutable; rules of a role are shared by all grants that use it; an aggregated ClusterRole holds
//! its own rules and those of every role its selectors match, whether or not a controller has written them into it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::{GROUP, Rule};
use crate::chain::Identity;
use crate::reader::Reader;

const RESOURCES: [&str; 4] = ["clusterroles", "roles", "clusterrolebindings", "rolebindings"];

/// See the module.
#[derive(Default)]
pub struct Tables {
    /// What the tables were built from, in the order of [`RESOURCES`]; all zero before anything exists.
    pub(super) revisions: [i64; 4],
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
    cluster_roles: HashMap<String, Arc<[Rule]>>,
    /// By namespace and name.
    roles: HashMap<(String, String), Arc<[Rule]>>,
}

/// A role bound to one subject.
#[derive(Clone)]
pub struct Grant {
    /// Empty: everywhere.
    pub namespace: String,
    /// The role's rules, or the message that it does not exist.
    pub rules: Result<Arc<[Rule]>, String>,
}

/// The current revisions of the four kinds.
pub(super) fn observe_revisions(reader: &dyn Reader) -> [i64; 4] {
    RESOURCES.map(|resource| reader.revision(GROUP, resource))
}

impl Tables {
    pub(super) fn build(reader: &dyn Reader, revisions: [i64; 4]) -> Self {
        let mut tables = Self { revisions, ..Self::default() };
        tables.cluster_roles = compile_cluster_roles(&reader.list(GROUP, "clusterroles", ""));
        for role in reader.list(GROUP, "roles", "") {
            tables
                .roles
                .insert((text(&role["metadata"]["namespace"]), text(&role["metadata"]["name"])), own_rules(&role));
        }
        for binding in reader.list(GROUP, "clusterrolebindings", "") {
            tables.bind(&binding, "");
        }
        for binding in reader.list(GROUP, "rolebindings", "") {
            let namespace = text(&binding["metadata"]["namespace"]);
            tables.bind(&binding, &namespace);
        }
        tables
    }

    /// What applies to `identity`: cluster-wide grants and those of `namespace` (none for an empty one).
    pub fn grants<'a>(&'a self, identity: &'a Identity, namespace: &'a str) -> impl Iterator<Item = &'a Grant> {
        let user = self.users.get(&identity.user);
        let groups = identity.groups.iter().filter_map(|group| self.groups.get(group));
        user.into_iter()
            .chain(groups)
            .flatten()
            .filter(move |grant| grant.namespace.is_empty() || grant.namespace == namespace)
    }

    /// The rules behind a `roleRef`; `namespace` is the binding's. The error is upstream's NotFound text.
    pub fn resolve(&self, role_ref: &Value, namespace: &str) -> Result<Arc<[Rule]>, String> {
        let name = text(&role_ref["name"]);
        let (found, resource) = match role_ref["kind"].as_str() {
            Some("ClusterRole") => (self.cluster_roles.get(&name), "clusterrole"),
            Some("Role") => (self.roles.get(&(namespace.to_owned(), name.clone())), "role"),
            other => return Err(format!("unsupported role reference kind: {:?}", other.unwrap_or_default())),
        };
        found.cloned().ok_or_else(|| format!("{resource}.{GROUP} {name:?} not found"))
    }

    fn bind(&mut self, binding: &Value, namespace: &str) {
        let grant = Grant { namespace: namespace.to_owned(), rules: self.resolve(&binding["roleRef"], namespace) };
        for subject in binding["subjects"].as_array().into_iter().flatten() {
            let name = text(&subject["name"]);
            match subject["kind"].as_str() {
                Some("User") => self.users.entry(name).or_default().push(grant.clone()),
                Some("Group") => self.groups.entry(name).or_default().push(grant.clone()),
                Some("ServiceAccount") => {
                    let of = subject["namespace"].as_str().filter(|of| !of.is_empty()).unwrap_or(namespace);
                    if !of.is_empty() {
                        let user = format!("system:serviceaccount:{of}:{name}");
                        self.users.entry(user).or_default().push(grant.clone());
                    }
                }
                _ => {}
            }
        }
    }
}

fn own_rules(role: &Value) -> Arc<[Rule]> {
    role["rules"].as_array().into_iter().flatten().map(Rule::parse).collect()
}

fn compile_cluster_roles(roles: &[Arc<Value>]) -> HashMap<String, Arc<[Rule]>> {
    let by_name: BTreeMap<String, &Value> =
        roles.iter().map(|role| (text(&role["metadata"]["name"]), &**role)).collect();
    by_name.keys().map(|name| (name.clone(), gather(name, &by_name))).collect()
}

/// The rules of a ClusterRole with those it aggregates, directly or through others; each role counts once.
pub(super) fn gather(name: &str, by_name: &BTreeMap<String, &Value>) -> Arc<[Rule]> {
    let mut seen = vec![name.to_owned()];
    let mut next = 0;
    let mut rules: Vec<Rule> = Vec::new();
    while let Some(role) = seen.get(next).and_then(|name| by_name.get(name)) {
        next += 1;
        for rule in own_rules(role).iter() {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
        for selector in role["aggregationRule"]["clusterRoleSelectors"].as_array().into_iter().flatten() {
            for (candidate, value) in by_name {
                if !seen.contains(candidate) && selects(selector, &value["metadata"]["labels"]) {
                    seen.push(candidate.clone());
                }
            }
        }
    }
    rules.into()
}

/// A LabelSelector on labels. An operator nobody knows selects nothing.
fn selects(selector: &Value, labels: &Value) -> bool {
    let equal =
        selector["matchLabels"].as_object().into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector["matchExpressions"].as_array().into_iter().flatten().all(|expression| {
            let value = expression["key"].as_str().and_then(|key| labels.get(key));
            let listed =
                || value.is_some_and(|value| expression["values"].as_array().is_some_and(|v| v.contains(value)));
            match expression["operator"].as_str() {
                Some("In") => listed(),
                Some("NotIn") => !listed(),
                Some("Exists") => value.is_some(),
                Some("DoesNotExist") => value.is_none(),
                _ => false,
            }
        })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
