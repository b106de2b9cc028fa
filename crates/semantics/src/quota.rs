//! What ResourceQuotas count: an object -> its usage by resource name; quotas and a write -> their new usage, or a refusal.
//!
//! ```text
//!   name of a quota ("requests.cpu") -> Source (pods)            Item (a Pod) -> usage, scopes, what it must specify
//!   admission:   quotas + new and old Item -> charge::charge     controller: quota + all Items -> measure
//! ```
//! Invariants: every name is measured by one [`Source`]; finished pods and pods past their deletion's grace use nothing but
//! `count/pods`; amounts keep the format in which they were written. Texts are upstream's. Source: kube-apiserver's and
//! kube-controller-manager's ResourceQuota. Dynamic resource claims are not counted: the API does not serve them.
//!
//! Reading order: this file, [`charge`], `pods`, `claims`, `services`, `amounts`.

mod amounts;
pub mod charge;
mod claims;
mod pods;
mod services;

use std::sync::Arc;

use api::quantity::{Format, Quantity};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, ResourceQuotaSpec, ScopedResourceSelectorRequirement, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
use serde::Deserialize as _;
use serde_json::Value;

use crate::resources::Quantities;

/// `count/PLURAL` or `count/PLURAL.GROUP`: the number of objects stored.
const COUNT: &str = "count/";

/// Kinds of the core group that have a name of their own beside `count/...`.
const COUNTED_BY_PLURAL: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];

/// Never counted: what is not stored, and events.
const IGNORED: [(&str, &str); 10] = [
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "events"),
    ("events.k8s.io", "events"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
];

/// The kind of objects that a resource name is measured by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Pods,
    Services,
    Claims,
    /// Counted only.
    Objects {
        group: String,
        plural: String,
    },
}

impl Source {
    /// Of a resource of the API; `None` for one that quotas ignore.
    pub fn of_resource(group: &str, plural: &str) -> Option<Self> {
        match (group, plural) {
            ("", "pods") => Some(Self::Pods),
            ("", "services") => Some(Self::Services),
            ("", "persistentvolumeclaims") => Some(Self::Claims),
            _ if IGNORED.contains(&(group, plural)) => None,
            _ => Some(Self::Objects { group: group.to_owned(), plural: plural.to_owned() }),
        }
    }

    /// Of a name in a quota's `hard`; `None` for one that nothing measures.
    pub fn of_name(name: &str) -> Option<Self> {
        if let Some(resource) = name.strip_prefix(COUNT) {
            let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
            return Self::of_resource(group, plural);
        }
        if COUNTED_BY_PLURAL.contains(&name) {
            return Self::of_resource("", name);
        }
        if services::NAMES.contains(&name) {
            return Some(Self::Services);
        }
        if claims::is_name(name) {
            return Some(Self::Claims);
        }
        pods::is_name(name).then_some(Self::Pods)
    }

    pub fn measures(&self, name: &str) -> bool {
        Self::of_name(name).as_ref() == Some(self)
    }

    /// What one object of a kind that is only counted uses, under all names that it has.
    fn count(&self) -> Quantities {
        let Self::Objects { group, plural } = self else { return Quantities::default() };
        let dot = if group.is_empty() { "" } else { "." };
        let own = (group.is_empty() && COUNTED_BY_PLURAL.contains(&plural.as_str())).then(|| plural.clone());
        let names = own.into_iter().chain([format!("{COUNT}{plural}{dot}{group}")]);
        Quantities::whole(names.map(|name| (name, 1)))
    }
}

/// One object that may count.
#[derive(Debug, Clone)]
pub enum Item {
    Pod(Arc<Pod>),
    Service(Arc<Service>),
    Claim(Arc<PersistentVolumeClaim>),
    /// Of a kind that is counted only: [`Source::Objects`].
    Object(Source),
}

impl Item {
    /// From the API's JSON. Errors: the object does not have its kind's form.
    pub fn parse(source: &Source, object: &Value) -> Result<Self, serde_json::Error> {
        Ok(match source {
            Source::Pods => Self::Pod(Arc::new(Pod::deserialize(object)?)),
            Source::Services => Self::Service(Arc::new(Service::deserialize(object)?)),
            Source::Claims => Self::Claim(Arc::new(PersistentVolumeClaim::deserialize(object)?)),
            Source::Objects { .. } => Self::Object(source.clone()),
        })
    }

    pub fn source(&self) -> Source {
        match self {
            Self::Pod(_) => Source::Pods,
            Self::Service(_) => Source::Services,
            Self::Claim(_) => Source::Claims,
            Self::Object(source) => source.clone(),
        }
    }

    /// What the object uses at `now`, under all names that it has.
    pub fn usage(&self, now: Timestamp) -> Quantities {
        match self {
            Self::Pod(pod) => pods::usage(pod, now),
            Self::Service(service) => services::usage(service),
            Self::Claim(claim) => claims::usage(claim),
            Self::Object(source) => source.count(),
        }
    }

    /// Whether the object lies in all scopes of the quota. Kinds without scopes lie in none.
    pub fn is_in_scope(&self, quota: &ResourceQuotaSpec) -> bool {
        scopes(quota).all(|scope| match self {
            Self::Pod(pod) => pods::is_in_scope(pod, &scope),
            Self::Claim(claim) => claims::is_in_scope(claim, &scope),
            Self::Service(_) | Self::Object(_) => false,
        })
    }

    /// Whether a change from `old` to this may change what any quota counts (but for the passing of time).
    pub fn counts_as(&self, old: &Self) -> bool {
        let early = Timestamp::MIN;
        let same_scopes = match (self, old) {
            (Self::Pod(new), Self::Pod(old)) => pods::is_terminating(new) == pods::is_terminating(old),
            (Self::Claim(new), Self::Claim(old)) => claims::classes(new) == claims::classes(old),
            _ => true,
        };
        same_scopes && self.usage(early) == old.usage(early)
    }
}

/// What `items`, all of one source in the quota's namespace, use of the quota, under all names that they have.
pub fn measure<'a>(quota: &ResourceQuotaSpec, items: impl IntoIterator<Item = &'a Item>, now: Timestamp) -> Quantities {
    let mut used = Quantities::default();
    for item in items {
        if item.is_in_scope(quota) {
            used.add(&item.usage(now));
        }
    }
    used
}

/// What `count` objects of a kind that is only counted use of the quota.
pub fn measure_count(quota: &ResourceQuotaSpec, source: &Source, count: usize) -> Quantities {
    if scopes(quota).next().is_some() {
        return Quantities::default();
    }
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    Quantities::whole(source.count().names().map(|name| (name.to_owned(), count)))
}

/// Zero, as unused amounts are written.
pub fn zero() -> Quantity {
    Quantity::from_units(0, Format::DecimalSi)
}

/// Both ways in which a quota names its scopes, in one form.
fn scopes(quota: &ResourceQuotaSpec) -> impl Iterator<Item = ScopedResourceSelectorRequirement> {
    let plain = quota.scopes.iter().flatten().map(|scope| ScopedResourceSelectorRequirement {
        scope_name: scope.clone(),
        operator: "Exists".to_owned(),
        values: None,
    });
    let selected = quota.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
    plain.chain(selected.cloned())
}

/// Whether a scope of classes selects an object of this class (`None`: of no class).
fn selects(scope: &ScopedResourceSelectorRequirement, class: Option<&str>) -> bool {
    let requirement = LabelSelectorRequirement {
        key: scope.scope_name.clone(),
        operator: scope.operator.clone(),
        values: scope.values.clone(),
    };
    let labels = class.map(|class| (scope.scope_name.clone(), class.to_owned()));
    crate::label_selector::holds(&requirement, &labels.into_iter().collect())
}
