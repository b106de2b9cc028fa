//! Paths and operations: kinds -> what can be asked where, with parameters, bodies and answers.
//!
//! The deprecated `/watch/` paths are not described.

use api::kinds::{Kind, Subresource, split_api_version};
use serde_json::{Map, Value, json};

use super::Dialect;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const MEDIA_TYPES: &[&str] = &["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];
const LIST_MEDIA_TYPES: &[&str] = &[
    "application/json",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf",
    "application/vnd.kubernetes.protobuf;stream=watch",
    "application/yaml",
];
const PATCH_MEDIA_TYPES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

const LIST: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE: &[(&str, &str)] = &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const PATCH: &[(&str, &str)] =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")];
const DELETE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const DELETE_COLLECTION: &[(&str, &str)] = &[
    ("continue", "string"),
    ("dryRun", "string"),
    ("fieldSelector", "string"),
    ("gracePeriodSeconds", "integer"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
];

/// `/api/v1`, `/apis/apps/v1`.
pub(super) fn base(kind: &Kind) -> String {
    if kind.group.is_empty() { format!("/api/{}", kind.version) } else { format!("/apis/{}", kind.api_version) }
}

/// All paths of these kinds.
pub(super) fn build(kinds: &[&Kind], dialect: Dialect) -> Map<String, Value> {
    let mut paths = Map::new();
    for kind in kinds {
        paths.entry(format!("{}/", base(kind))).or_insert_with(|| discovery(kind, dialect));
        kind_paths(kind, dialect, &mut paths);
    }
    paths
}

fn discovery(kind: &Kind, dialect: Dialect) -> Value {
    let answer = format!("{META}.APIResourceList");
    let operation = json!({
        "operationId": format!("get{}APIResources", camel_group_version(kind)),
        "tags": [tag(kind)],
        "responses": responses(&["200"], &answer, MEDIA_TYPES, dialect),
    });
    json!({"get": operation})
}

fn kind_paths(kind: &Kind, dialect: Dialect, paths: &mut Map<String, Value>) {
    let base = base(kind);
    let (collection, scope) = if kind.namespaced {
        (format!("{base}/namespaces/{{namespace}}/{}", kind.plural), "Namespaced")
    } else {
        (format!("{base}/{}", kind.plural), "")
    };
    let builder = Builder { kind, scope, dialect };
    builder.put(paths, &collection, builder.collection_operations());
    if kind.namespaced && kind.has_verb("list") {
        let all = builder.operation(Action::ListAll);
        let mut item = Map::from_iter([("get".to_owned(), all)]);
        item.insert("parameters".to_owned(), builder.path_parameters(&format!("{base}/{}", kind.plural)));
        paths.insert(format!("{base}/{}", kind.plural), Value::Object(item));
    }
    let object = format!("{collection}/{{name}}");
    builder.put(paths, &object, builder.object_operations());
    for subresource in kind.subresources {
        let path = format!("{object}/{}", subresource.name);
        builder.put(paths, &path, builder.subresource_operations(subresource));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    List,
    ListAll,
    Create,
    DeleteCollection,
    Get,
    Replace,
    Patch,
    Delete,
}

impl Action {
    fn method(self) -> &'static str {
        match self {
            Action::List | Action::ListAll | Action::Get => "get",
            Action::Create => "post",
            Action::DeleteCollection | Action::Delete => "delete",
            Action::Replace => "put",
            Action::Patch => "patch",
        }
    }

    /// `x-kubernetes-action`.
    fn word(self) -> &'static str {
        match self {
            Action::List | Action::ListAll => "list",
            Action::Create => "post",
            Action::DeleteCollection => "deletecollection",
            Action::Get => "get",
            Action::Replace => "put",
            Action::Patch => "patch",
            Action::Delete => "delete",
        }
    }

    /// How operation ids begin.
    fn prefix(self) -> &'static str {
        match self {
            Action::List | Action::ListAll => "list",
            Action::Create => "create",
            Action::DeleteCollection | Action::Delete => "delete",
            Action::Get => "read",
            Action::Replace => "replace",
            Action::Patch => "patch",
        }
    }

    fn parameters(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Action::List | Action::ListAll => LIST,
            Action::Create | Action::Replace => WRITE,
            Action::DeleteCollection => DELETE_COLLECTION,
            Action::Get => &[],
            Action::Patch => PATCH,
            Action::Delete => DELETE,
        }
    }

    fn codes(self) -> &'static [&'static str] {
        match self {
            Action::Create => &["200", "201", "202"],
            Action::Replace | Action::Patch => &["200", "201"],
            Action::Delete => &["200", "202"],
            _ => &["200"],
        }
    }
}

struct Builder<'k> {
    kind: &'k Kind,
    /// `Namespaced` or nothing, as in operation ids.
    scope: &'static str,
    dialect: Dialect,
}

/// What an operation's id, body and answer are about.
struct Target<'t> {
    api_version: &'t str,
    kind: &'t str,
    /// `Scale` in `readAppsV1NamespacedDeploymentScale`.
    suffix: String,
}

impl Builder<'_> {
    fn put(&self, paths: &mut Map<String, Value>, path: &str, operations: Map<String, Value>) {
        if operations.is_empty() {
            return;
        }
        let mut item = operations;
        item.insert("parameters".to_owned(), self.path_parameters(path));
        paths.insert(path.to_owned(), Value::Object(item));
    }

    fn path_parameters(&self, path: &str) -> Value {
        let mut list = Vec::new();
        for name in ["name", "namespace"] {
            if path.contains(&format!("{{{name}}}")) {
                let mut parameter = self.parameter(name, "string", "path");
                parameter["required"] = Value::Bool(true);
                list.push(parameter);
            }
        }
        list.push(self.parameter("pretty", "string", "query"));
        Value::from(list)
    }

    fn parameter(&self, name: &str, ty: &str, place: &str) -> Value {
        match self.dialect {
            Dialect::V2 => json!({"name": name, "in": place, "type": ty, "uniqueItems": true}),
            Dialect::V3 => json!({"name": name, "in": place, "schema": {"type": ty, "uniqueItems": true}}),
        }
    }

    fn collection_operations(&self) -> Map<String, Value> {
        let actions =
            [("list", Action::List), ("create", Action::Create), ("deletecollection", Action::DeleteCollection)];
        self.operations(&actions)
    }

    fn object_operations(&self) -> Map<String, Value> {
        let actions =
            [("get", Action::Get), ("update", Action::Replace), ("patch", Action::Patch), ("delete", Action::Delete)];
        self.operations(&actions)
    }

    fn operations(&self, actions: &[(&str, Action)]) -> Map<String, Value> {
        let served = actions.iter().filter(|(verb, _)| self.kind.has_verb(verb));
        served.map(|(_, action)| (action.method().to_owned(), self.operation(*action))).collect()
    }

    fn operation(&self, action: Action) -> Value {
        let target = Target { api_version: self.kind.api_version, kind: self.kind.kind, suffix: String::new() };
        self.describe(action, &target)
    }

    fn subresource_operations(&self, subresource: &Subresource) -> Map<String, Value> {
        // Streams and proxies have no object as a body.
        if matches!(subresource.name, "exec" | "attach" | "portforward" | "proxy" | "log") {
            return Map::new();
        }
        let (api_version, kind) = subresource.body_kind(self.kind);
        let mut letters = subresource.name.chars();
        let suffix = letters.next().map(|c| c.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default();
        let target = Target { api_version, kind, suffix };
        let actions =
            [("get", Action::Get), ("create", Action::Create), ("update", Action::Replace), ("patch", Action::Patch)];
        let served = actions.iter().filter(|(verb, _)| subresource.verbs.contains(verb));
        served.map(|(_, action)| (action.method().to_owned(), self.describe(*action, &target))).collect()
    }

    fn describe(&self, action: Action, target: &Target<'_>) -> Value {
        let (group, version) = split_api_version(target.api_version);
        let body = api::schema::by_kind(group, version, target.kind).map(|m| m.definition()).unwrap_or_default();
        let answer = match action {
            Action::List | Action::ListAll => {
                self.kind.list_message.map(|message| message.definition()).unwrap_or_default()
            }
            Action::Delete if self.kind.returns_deleted => body.clone(),
            Action::Delete | Action::DeleteCollection => format!("{META}.Status"),
            _ => body.clone(),
        };
        let media_types = if answer.ends_with("List") { LIST_MEDIA_TYPES } else { MEDIA_TYPES };
        let mut operation = json!({
            "operationId": self.operation_id(action, target),
            "tags": [tag(self.kind)],
            "responses": responses(action.codes(), &answer, media_types, self.dialect),
            "x-kubernetes-action": action.word(),
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": target.kind},
        });
        let mut parameters: Vec<Value> =
            action.parameters().iter().map(|(name, ty)| self.parameter(name, ty, "query")).collect();
        self.put_body(action, &body, &mut operation, &mut parameters);
        if self.dialect == Dialect::V2 {
            operation["produces"] = json!(media_types);
        }
        if !parameters.is_empty() {
            operation["parameters"] = Value::from(parameters);
        }
        operation
    }

    fn put_body(&self, action: Action, body: &str, operation: &mut Value, parameters: &mut Vec<Value>) {
        let (definition, media_types): (String, &[&str]) = match action {
            Action::Create | Action::Replace => (body.to_owned(), &["*/*"]),
            Action::Delete | Action::DeleteCollection => (format!("{META}.DeleteOptions"), &["*/*"]),
            Action::Patch => (format!("{META}.Patch"), PATCH_MEDIA_TYPES),
            _ => return,
        };
        let schema = self.dialect.reference(&definition);
        match self.dialect {
            Dialect::V2 => {
                let required = !matches!(action, Action::Delete | Action::DeleteCollection);
                let mut parameter = json!({"name": "body", "in": "body", "schema": schema});
                if required {
                    parameter["required"] = Value::Bool(true);
                }
                parameters.insert(0, parameter);
                operation["consumes"] = json!(media_types);
            }
            Dialect::V3 => {
                let content: Map<String, Value> =
                    media_types.iter().map(|ty| ((*ty).to_owned(), json!({"schema": schema}))).collect();
                operation["requestBody"] = json!({"content": content});
                if !matches!(action, Action::Delete | Action::DeleteCollection) {
                    operation["requestBody"]["required"] = Value::Bool(true);
                }
            }
        }
    }

    fn operation_id(&self, action: Action, target: &Target<'_>) -> String {
        let (prefix, group_version, kind) = (action.prefix(), camel_group_version(self.kind), self.kind.kind);
        let (scope, suffix) = (self.scope, &target.suffix);
        match action {
            Action::ListAll => format!("{prefix}{group_version}{kind}ForAllNamespaces"),
            Action::DeleteCollection => format!("{prefix}{group_version}Collection{scope}{kind}"),
            _ => format!("{prefix}{group_version}{scope}{kind}{suffix}"),
        }
    }
}

fn responses(codes: &[&str], definition: &str, media_types: &[&str], dialect: Dialect) -> Value {
    let mut map = Map::new();
    for code in codes {
        let description = match *code {
            "200" => "OK",
            "201" => "Created",
            _ => "Accepted",
        };
        let schema = dialect.reference(definition);
        let answer = match dialect {
            Dialect::V2 => json!({"description": description, "schema": schema}),
            Dialect::V3 => {
                let content: Map<String, Value> =
                    media_types.iter().map(|ty| ((*ty).to_owned(), json!({"schema": schema}))).collect();
                json!({"description": description, "content": content})
            }
        };
        map.insert((*code).to_owned(), answer);
    }
    map.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    Value::Object(map)
}

/// `CoreV1`, `AppsV1`, `RbacAuthorizationV1`: group and version in operation ids.
fn camel_group_version(kind: &Kind) -> String {
    let group = if kind.group.is_empty() { "core" } else { kind.group.trim_end_matches(".k8s.io") };
    let parts = group.split('.').chain([kind.version]);
    parts
        .map(|part| {
            let mut letters = part.chars();
            letters.next().map(|c| c.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
        })
        .collect()
}

/// `core_v1`, `apps_v1`, `rbacAuthorization_v1`.
fn tag(kind: &Kind) -> String {
    let camel = camel_group_version(kind);
    let group = &camel[..camel.len() - kind.version.len()];
    let mut letters = group.chars();
    let group = letters.next().map(|c| c.to_ascii_lowercase().to_string() + letters.as_str()).unwrap_or_default();
    format!("{group}_{}", kind.version)
}
