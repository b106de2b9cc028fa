//! Authorization: may this identity do that? And how a refusal reads.
//!
//! In: [`Attributes`]. Out: a [`Decision`]; [`forbidden`] turns a refusal into upstream's Status.
//!
//! Order: members of `system:masters` may do everything; then [`node::NodeAuthorizer`] for kubelets; then [`crate::rbac`].
//! Invariant: rights only add up. Nobody here says `Deny`; what no authorizer allows is refused.
//!
//! Reading order: this file, [`node`], [`references`], [`reviews`].

pub mod node;
pub mod references;
mod review_selectors;
pub mod reviews;

use std::sync::{Arc, OnceLock};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::Value;

use crate::chain::{Attributes, Authorizer, Decision};
use crate::error::ApiError;
use crate::reader::Reader;

/// The group whose members may do everything, whatever the bindings say.
pub const PRIVILEGED_GROUP: &str = "system:masters";

/// Asks several authorizers in order; each has the name that its reasons are given under.
pub struct AuthorizerChain(Vec<(&'static str, Arc<dyn Authorizer>)>);

impl AuthorizerChain {
    pub fn new(authorizers: Vec<(&'static str, Arc<dyn Authorizer>)>) -> Self {
        Self(authorizers)
    }
}

impl Authorizer for AuthorizerChain {
    fn authorize<'a>(&'a self, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            if attributes.identity.in_group(PRIVILEGED_GROUP) {
                return Decision::Allow;
            }
            let mut reasons = Vec::new();
            for (name, authorizer) in &self.0 {
                match authorizer.authorize(attributes).await {
                    Decision::NoOpinion(reason) if reason.is_empty() => {}
                    Decision::NoOpinion(reason) => reasons.push(format!("{name}: {reason}")),
                    decided => return decided,
                }
            }
            Decision::NoOpinion(reasons.join("\n"))
        })
    }
}

/// The 403 for a refused request: `pods "x" is forbidden: User "u" cannot get resource "pods" in API group "" in the
/// namespace "default"`, with `: REASON` when there is one.
pub fn forbidden(attributes: &Attributes, reason: &str) -> ApiError {
    let mut why = describe(attributes);
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    if attributes.is_resource {
        ApiError::forbidden(&attributes.group, &attributes.resource, &attributes.name, &why)
    } else {
        ApiError::forbidden("", "", "", &why)
    }
}

fn describe(attributes: &Attributes) -> String {
    let user = &attributes.identity.user;
    let verb = &attributes.verb;
    if !attributes.is_resource {
        return format!("User {user:?} cannot {verb} path {:?}", attributes.path);
    }
    let resource = qualified_resource(attributes);
    let scope = if attributes.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", attributes.namespace)
    };
    format!("User {user:?} cannot {verb} resource {resource:?} in API group {:?} {scope}", attributes.group)
}

/// `pods` or `pods/log`.
pub fn qualified_resource(attributes: &Attributes) -> String {
    if attributes.subresource.is_empty() {
        attributes.resource.clone()
    } else {
        format!("{}/{}", attributes.resource, attributes.subresource)
    }
}

/// A reader for parts that exist before the registry does. Until [`LateReader::fill`] the cluster looks empty, so
/// nothing but `system:masters` and what needs no lookup is let through.
#[derive(Default)]
pub struct LateReader(OnceLock<Arc<dyn Reader>>);

impl LateReader {
    /// Takes effect once; later calls change nothing.
    pub fn fill(&self, reader: Arc<dyn Reader>) {
        self.0.get_or_init(|| reader);
    }
}

impl Reader for LateReader {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.0.get()?.get(group, resource, namespace, name)
    }

    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        self.0.get().map(|reader| reader.list(group, resource, namespace)).unwrap_or_default()
    }

    fn revision(&self, group: &str, resource: &str) -> i64 {
        self.0.get().map_or(0, |reader| reader.revision(group, resource))
    }

    fn changed(&self, group: &str, resource: &str, revision: i64) -> BoxFuture<'static, ()> {
        let pending = || std::future::pending().boxed();
        self.0.get().map_or_else(pending, |reader| reader.changed(group, resource, revision))
    }
}

#[cfg(test)]
pub(crate) mod objects;
#[cfg(test)]
mod tests;
