//! Role based access control: roles and bindings as objects, decisions in memory.
//!
//! In: Roles, ClusterRoles and their bindings, read through [`Reader`]. Out: [`Rbac`], an authorizer; the admission step
//! that stops people from granting what they do not hold; the default roles.
//!
//! Invariant: a decision is made on tables no older than the last answered write of any of the four kinds. Tables are
//! rebuilt only after such a write; a request costs a look-up by user and one by each group.
//!
//! Reading order: this file, [`rule`], [`tables`], [`escalation`], [`defaults`].

pub mod defaults;
pub mod escalation;
pub mod rule;
pub mod tables;

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use futures::future::BoxFuture;

use crate::chain::{Attributes, Authorizer, Decision, Identity};
use crate::reader::Reader;

pub use rule::Rule;
pub use tables::Tables;

pub const GROUP: &str = "rbac.authorization.k8s.io";

/// The authorizer.
pub struct Rbac {
    reader: Arc<dyn Reader>,
    tables: ArcSwap<Tables>,
    /// Held while building, so that one write makes one rebuild however many requests wait for it.
    building: Mutex<()>,
}

impl Rbac {
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader, tables: ArcSwap::from_pointee(Tables::default()), building: Mutex::new(()) }
    }

    /// The compiled roles and bindings, rebuilt when one of them was written since.
    pub fn tables(&self) -> Arc<Tables> {
        let current = self.tables.load_full();
        if current.revisions == tables::observe_revisions(&*self.reader) {
            return current;
        }
        let _building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        // Read before the objects: what is newer than these numbers causes one more rebuild, never a stale table.
        let revisions = tables::observe_revisions(&*self.reader);
        let current = self.tables.load_full();
        if current.revisions == revisions {
            return current;
        }
        let built = Arc::new(Tables::build(&*self.reader, revisions));
        self.tables.store(Arc::clone(&built));
        built
    }

    /// All rules that hold for `identity` in `namespace` (empty: cluster-wide ones only), and what could not be resolved.
    pub fn rules_for(&self, identity: &Identity, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let tables = self.tables();
        let (mut rules, mut problems) = (Vec::new(), Vec::new());
        for grant in tables.grants(identity, namespace) {
            match &grant.rules {
                Ok(granted) => rules.extend(granted.iter().cloned()),
                Err(problem) => problems.push(problem.clone()),
            }
        }
        (rules, problems)
    }

    fn decide(&self, attributes: &Attributes) -> Decision {
        let tables = self.tables();
        let mut problems: Vec<&str> = Vec::new();
        for grant in tables.grants(&attributes.identity, &attributes.namespace) {
            match &grant.rules {
                Ok(rules) if rules.iter().any(|rule| rule.allows(attributes)) => return Decision::Allow,
                Ok(_) => {}
                Err(problem) if problems.contains(&problem.as_str()) => {}
                Err(problem) => problems.push(problem),
            }
        }
        Decision::NoOpinion(match problems.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }
}

impl Authorizer for Rbac {
    fn authorize<'a>(&'a self, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        Box::pin(async move { self.decide(attributes) })
    }
}

#[cfg(test)]
mod tests;
