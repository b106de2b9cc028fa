//! The authorization.k8s.io reviews: what would the authorizer say?
//!
//! In: a SubjectAccessReview, its self and local forms, or a SelfSubjectRulesReview. Out: the same object with its status.
//!
//! Invariant: the answer comes from the very authorizer that guards requests. Not here: label and field selectors in
//! resource attributes other than the raw texts (upstream's authorizers that read them are not part of this server).

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::node::node_name;
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
        let mut causes = validate_spec(&object["spec"], !is_self);
        if kind == "LocalSubjectAccessReview" {
            if text(&object["metadata"]["namespace"]).is_empty() {
                object["metadata"]["namespace"] = request.namespace.as_str().into();
            }
            causes.extend(validate_local(&object));
        }
        if !causes.is_empty() {
            // Upstream names no kind here.
            return Err(ApiError::invalid(GROUP, "", "", causes));
        }
        if kind == "LocalSubjectAccessReview" && object["metadata"]["namespace"] != request.namespace.as_str() {
            let why = format!("spec.resourceAttributes.namespace must match namespace: {}", request.namespace);
            return Err(ApiError::bad_request(why));
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
    causes
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
    json!({"reason": "FieldValueInvalid", "field": field, "message": format!("Invalid value: {shown}: {why}")})
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
        field_selector: text(&resource["fieldSelector"]["rawSelector"]).to_owned(),
        label_selector: text(&resource["labelSelector"]["rawSelector"]).to_owned(),
        path: String::new(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
