//! The authorization.k8s.io reviews: what would the authorizer say?
//!
//! In: a SubjectAccessReview, its self and local forms, or a SelfSubjectRulesReview. Out: the same object with its status.
//!
//! Invariant: the answer comes from the very authorizer that guards requests. Not here: how selectors are read
//! (`review_selectors`).

use std::sync::Arc;

use futures::future::BoxFuture;
use semantics::field::quote;
use semantics::names::{label_value, qualified_name};
use serde_json::{Value, json};

use super::node::node_name;
use super::review_selectors::{read_field_selector, read_label_selector};
use crate::chain::{Attributes, Authorizer, Decision, Identity, Review};
use crate::error::ApiError;
use crate::rbac::{Rbac, Rule};

const GROUP: &str = "authorization.k8s.io";

/// Serves all four kinds.
pub struct AccessReviews {
    authorizer: Arc<dyn Authorizer>,
    rbac: Arc<Rbac>,
}

impl AccessReviews {
    pub fn new(authorizer: Arc<dyn Authorizer>, rbac: Arc<Rbac>) -> Self {
        Self { authorizer, rbac }
    }

    async fn access(&self, kind: &str, mut object: Value, request: &Attributes) -> Result<Value, ApiError> {
        let is_self = kind == "SelfSubjectAccessReview";
        let is_local = kind == "LocalSubjectAccessReview";
        if let Some(metadata) = object["metadata"].as_object_mut().filter(|_| !is_local) {
            metadata.remove("namespace");
        }
        if is_local && text(&object["metadata"]["namespace"]).is_empty() {
            object["metadata"]["namespace"] = request.namespace.as_str().into();
        }
        if is_local && object["metadata"]["namespace"] != request.namespace.as_str() {
            return Err(ApiError::wrong_namespace());
        }
        let mut causes = validate_spec(&object["spec"], !is_self);
        causes.extend(validate_metadata(&object["metadata"], is_local));
        if is_local {
            causes.extend(validate_local(&object));
        }
        if !causes.is_empty() {
            // Upstream names no kind here.
            return Err(ApiError::invalid(GROUP, "", "", causes));
        }
        let identity = if is_self { request.identity.clone() } else { subject(&object["spec"]) };
        let decision = self.authorizer.authorize(&attributes(&object["spec"], identity)).await;
        let mut status = json!({"allowed": decision == Decision::Allow});
        match decision {
            Decision::Deny(reason) => {
                status["denied"] = true.into();
                status["reason"] = reason.into();
            }
            Decision::NoOpinion(reason) if !reason.is_empty() => status["reason"] = reason.into(),
            _ => {}
        }
        let problems = selector_problems(&object["spec"]["resourceAttributes"]);
        if !problems.is_empty() {
            status["evaluationError"] = problems.join("; ").into();
        }
        object["status"] = status;
        Ok(object)
    }

    fn rules(&self, mut object: Value, request: &Attributes) -> Result<Value, ApiError> {
        let namespace = object["spec"]["namespace"].as_str().unwrap_or_default().to_owned();
        if namespace.is_empty() {
            return Err(ApiError::bad_request("no namespace on request"));
        }
        let (rules, mut problems) = self.rbac.rules_for(&request.identity, &namespace);
        let is_node = node_name(&request.identity).is_some();
        if is_node {
            problems.insert(0, "node authorizer does not support user rule resolution".to_owned());
        }
        let of = |wanted: fn(&Rule) -> bool| rules.iter().filter(move |rule| wanted(rule)).map(Rule::to_value);
        let mut status = json!({
            "resourceRules": of(|rule| !rule.resources.is_empty()).collect::<Vec<_>>(),
            "nonResourceRules": of(|rule| !rule.urls.is_empty()).collect::<Vec<_>>(),
            "incomplete": is_node,
        });
        match problems.as_slice() {
            [] => {}
            [one] => status["evaluationError"] = one.as_str().into(),
            many => status["evaluationError"] = format!("[{}]", many.join(", ")).into(),
        }
        // The question is not repeated.
        object["metadata"] = json!({});
        object["spec"] = json!({});
        object["status"] = status;
        Ok(object)
    }
}

impl Review for AccessReviews {
    fn resources(&self) -> Vec<(&'static str, &'static str)> {
        ["subjectaccessreviews", "selfsubjectaccessreviews", "localsubjectaccessreviews", "selfsubjectrulesreviews"]
            .map(|resource| (GROUP, resource))
            .to_vec()
    }

    fn review<'a>(
        &'a self,
        resource: &'a str,
        object: Value,
        attributes: &'a Attributes,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        Box::pin(async move {
            match resource {
                "subjectaccessreviews" => self.access("SubjectAccessReview", object, attributes).await,
                "selfsubjectaccessreviews" => self.access("SelfSubjectAccessReview", object, attributes).await,
                "localsubjectaccessreviews" => self.access("LocalSubjectAccessReview", object, attributes).await,
                _ => self.rules(object, attributes),
            }
        })
    }
}

fn validate_spec(spec: &Value, needs_subject: bool) -> Vec<Value> {
    let mut causes = Vec::new();
    let (resource, other) = (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object());
    if resource == other {
        let shown = if other { shown_attributes(spec) } else { "null".to_owned() };
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        causes.push(invalid("spec", &shown, why));
    }
    if needs_subject && text(&spec["user"]).is_empty() && strings(&spec["groups"]).is_empty() {
        causes.push(invalid("spec.user", "\"\"", "at least one of user or group must be specified"));
    }
    for selector in ["fieldSelector", "labelSelector"] {
        let given = &spec["resourceAttributes"][selector];
        if given.is_object() {
            validate_selector(given, &format!("spec.resourceAttributes.{selector}"), &mut causes);
        }
    }
    causes
}

/// A selector is either a text or a list of requirements; operators of newer clients are let through.
fn validate_selector(selector: &Value, path: &str, causes: &mut Vec<Value>) {
    let raw = text(&selector["rawSelector"]);
    let requirements = selector["requirements"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !raw.is_empty() && !requirements.is_empty() {
        let why = "may not specified at the same time as requirements";
        causes.push(invalid(&format!("{path}.rawSelector"), &quote(raw), why));
    }
    if raw.is_empty() && requirements.is_empty() {
        let why = format!("when {path} is specified, requirements or rawSelector is required");
        causes.push(refused("Required", &format!("{path}.requirements"), &format!("Required value: {why}")));
    }
    for (index, requirement) in requirements.iter().enumerate() {
        let at = format!("{path}.requirements[{index}]");
        if text(&requirement["key"]).is_empty() && path.ends_with("fieldSelector") {
            causes.push(refused("Required", &format!("{at}.key"), "Required value: must be specified"));
        }
        let values = requirement["values"].as_array().map_or(0, Vec::len);
        match text(&requirement["operator"]) {
            "In" | "NotIn" if values == 0 => {
                let why = "Required value: must be specified when `operator` is 'In' or 'NotIn'";
                causes.push(refused("Required", &format!("{at}.values"), why));
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                let why = "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                causes.push(refused("Forbidden", &format!("{at}.values"), why));
            }
            _ => {}
        }
        if path.ends_with("labelSelector") {
            validate_label_requirement(requirement, &at, causes);
        }
    }
}

fn validate_label_requirement(requirement: &Value, path: &str, causes: &mut Vec<Value>) {
    let key = text(&requirement["key"]);
    for why in qualified_name(key) {
        causes.push(invalid(&format!("{path}.key"), &quote(key), &why));
    }
    for (index, value) in strings(&requirement["values"]).iter().enumerate() {
        for why in label_value(value) {
            causes.push(invalid(&format!("{path}.values[{index}]"), &quote(value), &why));
        }
    }
}

/// A review has no metadata of its own, but for the namespace of a local one, and who asks.
fn validate_metadata(metadata: &Value, is_local: bool) -> Option<Value> {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    };
    let mut fields = metadata.as_object().into_iter().flatten();
    fields.find(|(name, value)| *name != "managedFields" && !(is_local && *name == "namespace") && !empty(value))?;
    let why = if is_local { "must be empty except for namespace" } else { "must be empty" };
    Some(invalid("metadata", &shown_metadata(metadata), why))
}

/// The metadata with its fields in the order of the API's own struct.
fn shown_metadata(metadata: &Value) -> String {
    const FIELDS: [&str; 14] = [
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "labels",
        "annotations",
        "ownerReferences",
        "finalizers",
    ];
    const ENTRY: [&str; 7] = ["manager", "operation", "apiVersion", "time", "fieldsType", "fieldsV1", "subresource"];
    let in_order = |value: &Value, names: &[&str]| {
        let given = names.iter().filter_map(|name| Some((name, value.get(*name)?)));
        given.map(|(name, value)| format!("\"{name}\":{value}")).collect::<Vec<_>>().join(",")
    };
    let entries = metadata["managedFields"].as_array().into_iter().flatten();
    let entries = entries.map(|entry| format!("{{{}}}", in_order(entry, &ENTRY))).collect::<Vec<_>>().join(",");
    format!("{{{},\"managedFields\":[{entries}]}}", in_order(metadata, &FIELDS))
}

fn validate_local(object: &Value) -> Vec<Value> {
    let mut causes = Vec::new();
    let resource = &object["spec"]["resourceAttributes"];
    if resource.is_object() && text(&resource["namespace"]) != text(&object["metadata"]["namespace"]) {
        let shown = format!("{:?}", text(&resource["namespace"]));
        causes.push(invalid("spec.resourceAttributes.namespace", &shown, "must match metadata.namespace"));
    }
    if object["spec"]["nonResourceAttributes"].is_object() {
        let shown = shown_attributes(&object["spec"]);
        causes.push(invalid("spec.nonResourceAttributes", &shown, "disallowed on this kind of request"));
    }
    causes
}

/// The non-resource attributes with the names that they have inside upstream.
fn shown_attributes(spec: &Value) -> String {
    let asked = &spec["nonResourceAttributes"];
    json!({"Path": text(&asked["path"]), "Verb": text(&asked["verb"])}).to_string()
}

fn invalid(field: &str, shown: &str, why: &str) -> Value {
    refused("Invalid", field, &format!("Invalid value: {shown}: {why}"))
}

fn refused(reason: &str, field: &str, message: &str) -> Value {
    json!({"reason": format!("FieldValue{reason}"), "field": field, "message": message})
}

fn subject(spec: &Value) -> Identity {
    let extra = spec["extra"].as_object().into_iter().flatten();
    Identity {
        user: text(&spec["user"]).to_owned(),
        uid: text(&spec["uid"]).to_owned(),
        groups: strings(&spec["groups"]),
        // Keys are lower case, as header names make them.
        extra: extra.map(|(key, values)| (key.to_lowercase(), strings(values))).collect(),
    }
}

fn attributes(spec: &Value, identity: Identity) -> Attributes {
    let resource = &spec["resourceAttributes"];
    let of = |field: &str| text(&resource[field]).to_owned();
    if !resource.is_object() {
        let other = &spec["nonResourceAttributes"];
        let (verb, path) = (text(&other["verb"]).to_owned(), text(&other["path"]).to_owned());
        return Attributes { identity, verb, path, ..Attributes::default() };
    }
    Attributes {
        identity,
        is_resource: true,
        verb: of("verb"),
        group: of("group"),
        version: of("version"),
        resource: of("resource"),
        subresource: of("subresource"),
        namespace: of("namespace"),
        name: of("name"),
        field_selector: read_field_selector(&resource["fieldSelector"]).text,
        label_selector: read_label_selector(&resource["labelSelector"]).text,
        path: String::new(),
    }
}

/// What of the selectors was not asked.
fn selector_problems(resource: &Value) -> Vec<String> {
    let fields = read_field_selector(&resource["fieldSelector"]).rest.to_problem("fieldSelector");
    let labels = read_label_selector(&resource["labelSelector"]).rest.to_problem("labelSelector");
    fields.into_iter().chain(labels).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
